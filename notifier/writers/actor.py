"""The actor of the current thread or task."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final

SET_ACTOR: Final = "SELECT pg_catalog.set_config('notifier.actor', {}, true)"
"""Names the actor until the end of the transaction; `{}` is the place of the parameter."""

CURRENT_TX: Final = "SELECT pg_catalog.pg_current_xact_id()::text"
"""The number of the transaction, as messages have it in `Tx`."""

_actor: ContextVar[object] = ContextVar("notifier_actor", default=None)


@contextmanager
def acting_as(actor: object) -> Iterator[None]:
    """Within the block `actor` makes the changes: an id, None for no user, or a function of either.

    A function is called when a transaction writes, so it may look at a request's user lazily.
    """
    token = _actor.set(actor)
    try:
        yield
    finally:
        _actor.reset(token)


def current_actor() -> str | None:
    """The id of the acting user; None where there is none."""
    actor = _actor.get()
    if callable(actor):
        actor = actor()
    return None if actor is None else str(actor)
