"""With MEMBERSHIP_QUERY: selects the users whose access is checked again after a message."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from msgspec import structs

from notifier.messages import ANY_USER, Message
from notifier.watches import Watch


class _Envelope(msgspec.Struct, rename="pascal"):
    type: str
    data: msgspec.Raw


_decode = msgspec.json.Decoder(_Envelope).decode


class RecheckRule:
    """Adds users to `Message.revokes` whose access must be checked again after the message.

    The query may read any column of a member row, so every update of one counts, and a Resync counts
    for all users. Writes to other tables that the query reads are left to the periodic re-check.
    """

    def __init__(self, watches: Sequence[Watch]) -> None:
        self.use(watches)

    def use(self, watches: Sequence[Watch]) -> None:
        """Replaces the watches."""
        self._members = {
            watch.updated or "": watch.property(watch.member)
            for watch in watches
            if watch.member is not None
        }

    def __call__(self, message: Message) -> Message:
        """Returns the message with these users added to its `revokes`."""
        envelope = _decode(message.body)
        if envelope.type == "Resync":  # it stands for many changes
            return structs.replace(message, revokes=(ANY_USER,))
        member = self._members.get(envelope.type)
        if member is None:
            return message
        user = msgspec.json.decode(envelope.data).get(member, ANY_USER)  # it may be partial
        if user is None:
            return message
        return structs.replace(message, revokes=(*message.revokes, str(user)))
