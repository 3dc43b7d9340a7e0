"""For FastAPI: sets the actor of the changes that an endpoint writes.

app = FastAPI(dependencies=[Depends(acting(current_user))])
"""

from collections.abc import AsyncIterator, Callable
from typing import Annotated, Any

from fastapi import Depends

from notifier.writers.actor import acting_as


def acting(user: Callable[..., Any]) -> Callable[..., AsyncIterator[None]]:
    """A dependency: while the endpoint runs, the id that the dependency `user` returns is the actor."""

    async def dependency(actor: Annotated[Any, Depends(user)]) -> AsyncIterator[None]:
        with acting_as(actor):
            yield

    return dependency
