"""Which messages cause a re-check of access where MEMBERSHIP_QUERY decides."""

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

    The query may read any column of a member's row, so every update of such a row counts. What
    revokes access elsewhere is found by the periodic re-check. `watches` may be replaced at any time.
    """

    def __init__(self, watches: Sequence[Watch]) -> None:
        self.use(watches)

    def use(self, watches: Sequence[Watch]) -> None:
        """Decides by these watches from now on."""
        self._members = {
            watch.updated or "": watch.property(watch.member)
            for watch in watches
            if watch.member is not None
        }

    def __call__(self, message: Message) -> Message:
        """The message, with all users who may lose the company with it."""
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
