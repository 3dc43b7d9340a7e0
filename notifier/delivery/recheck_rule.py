"""Selects the messages after which access to their company must be checked again (MEMBERSHIP_QUERY, and scopes with `membership`)."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from msgspec import structs

from notifier.messages import ALL_USERS, Message
from notifier.watches import Watch


class _Envelope(msgspec.Struct, rename="pascal"):
    type: str


_decode = msgspec.json.Decoder(_Envelope).decode


class RecheckRule:
    """Makes every user of the company be checked again after a change of a member row, or a Resync.

    The query may read any column of the row, and may know the users by other ids than the row has.
    Writes to other tables that it reads are left to the periodic re-check.
    """

    def __init__(self, watches: Sequence[Watch]) -> None:
        self.use(watches)

    def use(self, watches: Sequence[Watch]) -> None:
        """Replaces the watches."""
        names = [name for watch in watches if watch.member is not None for name in watch.names]
        self._types = {"Resync", *names}  # a Resync stands for many changes

    def __call__(self, message: Message) -> Message:
        """Returns the message with all users in its `revokes` where it causes a re-check."""
        if all(_decode(text).type not in self._types for text in message.texts):
            return message
        return structs.replace(message, revokes=(ALL_USERS,))
