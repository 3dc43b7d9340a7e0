"""What a subscription uses of the session that it belongs to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from notifier.access.tokens import Identity
from notifier.delivery.transport import Transport
from notifier.errors import Closure
from notifier.messages import ServerMessage

if TYPE_CHECKING:
    from notifier.delivery.subscription import Subscription


class Owner(Protocol):
    """The session that a subscription belongs to."""

    transport: Transport

    @property
    def identity(self) -> Identity:
        """The authenticated user."""

    def send(self, message: ServerMessage) -> None:
        """Sends a message to the client."""

    def end(self, closure: Closure) -> None:
        """Ends the session, and this subscription with it."""

    def unsubscribed(self, subscription: Subscription) -> None:
        """The subscription is closed: access was lost."""
