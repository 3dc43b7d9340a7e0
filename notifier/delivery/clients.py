"""What a node's background tasks need from a session, whatever its transport."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from notifier.access.tokens import Identity
from notifier.delivery.subscription import Subscription
from notifier.errors import Closure


class Client(Protocol):
    """One session: counted by Admission, re-checked, and ended by the drain."""

    @property
    def address(self) -> str:
        """The address group of its peer; empty where it is not known."""

    @property
    def user(self) -> str:
        """The user; empty until it has authenticated."""

    @property
    def identity(self) -> Identity:
        """The authenticated user."""

    @property
    def live_subscriptions(self) -> Sequence[Subscription]:
        """The subscriptions that get messages now."""

    def end(self, closure: Closure) -> None:
        """Ends the session for a reason that the client gets."""

    def closed(self) -> None:
        """The connection is closing or closed: no frame is written any more."""

    def clock_was_set(self) -> None:
        """The clock was set: timers must be set again."""
