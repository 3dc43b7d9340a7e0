"""Which messages cause a re-check of access where MEMBERSHIP_QUERY decides."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
from msgspec import structs

from notifier.messages import ANY_USER, Message


class _Envelope(msgspec.Struct, rename="pascal"):
    type: str
    data: msgspec.Raw


_decode = msgspec.json.Decoder(_Envelope).decode


class RecheckRule:
    """Adds users to `Message.revokes` whose access must be checked again after the message.

    The query may read any column of a member's row, so every update of such a row counts. What
    revokes access elsewhere is found by the periodic re-check. `members`: the types of messages about
    member rows, each with the property that names the user.
    """

    def __init__(self, members: Mapping[str, str]) -> None:
        self._members = members

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
