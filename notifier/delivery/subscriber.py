"""The interface of a subscription to its channel."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Protocol

from notifier.messages import JSON


class Subscriber(Protocol):
    """One subscription. None of its methods may wait."""

    user: str

    def write(self, frames: bytes, bodies: Sequence[JSON]) -> None:
        """Takes frames in its encoding, and the same as texts, while it has no direct write."""

    def access_in_doubt(self, *, named_at: datetime | None) -> None:
        """The user may have lost the company with the last message written.

        `named_at`: when the change was made whose message names this user. None where the message does not name the
        user, where its position is one that the channel was opened beyond, or where the user's account has changed.
        """

    def dropped(self) -> None:
        """The channel ends here: the client must reconnect and resume."""
