"""A subscription, as its channel sees it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from notifier.messages import JSON


class Subscriber(Protocol):
    """One subscription. None of its methods may wait."""

    user: str

    def write(self, frames: bytes, bodies: Sequence[JSON]) -> None:
        """Takes frames in its encoding, and the same as texts, while it has no direct write."""

    def may_be_revoked(self, position: int, *, conclusive: bool) -> None:
        """The user may have lost the company with the message at `position`, the last one written.

        `conclusive`: the message names this user, and was not yet stored when the user subscribed.
        """

    def dropped(self) -> None:
        """The channel ends here: the client must reconnect and resume."""
