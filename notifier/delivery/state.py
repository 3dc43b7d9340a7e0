"""A company's rows at a position, sent by a subscription before the changes that follow that position."""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple, Protocol

from notifier.delivery.filter import Filter
from notifier.errors import StateUnavailable
from notifier.messages import JSON


class State(NamedTuple):
    """The texts of `State` messages. `at`: of the message at `position`; None where it is not in the log."""

    epoch: str
    position: int
    at: datetime | None
    pages: tuple[JSON, ...]


class StateSource(Protocol):
    """Reads states."""

    async def read(self, company: str, wanted: Filter | None, user: str) -> State:
        """The rows that the company has now and the user sees. Raises StateTooLarge, StateUnavailable, NotReady and DatabaseError."""


class NoStates:
    """The source where the operator has not enabled state."""

    async def read(self, _company: str, _wanted: Filter | None, _user: str) -> State:
        raise StateUnavailable("state is not enabled; the operator sets NOTIFIER_STATE=on")

    def close(self) -> None:
        """There is nothing to close."""
