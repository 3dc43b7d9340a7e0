"""The messages of the protocol: those of a company's log, and those that a session sends itself.

`notifier.commands` has what clients send; docs/protocol.md describes both.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from datetime import UTC, datetime
from typing import Annotated, Any, Final, Literal

import msgspec

from notifier.errors import Closure, Code

JSON = bytes
"""A whole JSON text in UTF-8."""


ALL_USERS: Final = "*"
"""In `Message.revokes`: stands for every user of the company.

A user may have this very id. A revocation of that user then re-checks every user of the company.
"""


USER_BYTES: Final = 80
"""About the bytes of a user in a set, beside the characters of its id."""


def bytes_of(users: Collection[str]) -> int:
    """About the bytes that users take in memory: an id may have megabytes."""
    return USER_BYTES * len(users) + sum(map(len, users))


class View(msgspec.Struct, frozen=True, gc=False):
    """A message as some users of the company get it: `users`, or with `others` all but them."""

    users: frozenset[str]
    others: bool
    body: JSON

    @property
    def size(self) -> int:
        """About the bytes that it takes in memory."""
        return len(self.body) + bytes_of(self.users)

    def is_for(self, user: str) -> bool:
        """Whether this user gets it."""
        return (user in self.users) is not self.others


class _Typed(msgspec.Struct, rename="pascal"):
    type: str = ""


class Message(msgspec.Struct, frozen=True, gc=False):
    """One message of a company's log. `body` is the text that clients get.

    `views`: what single users get instead, at most one for each. Then `body`, which all others get,
    is a `Skipped` without anything of the change.

    `seq` orders the messages of all companies, `position` those of this one. `at` is the time of
    the change, `stored` that of its storing. `revokes`: the users who may lose access with it.
    Each is re-checked, unless the loss is conclusive. `traceparent`: the span of the relay, where the
    message is traced (W3C Trace Context); clients never get it.
    """

    seq: int
    company: str
    position: int
    at: datetime
    stored: datetime
    body: JSON
    revokes: tuple[str, ...] = ()
    views: tuple[View, ...] = ()
    traceparent: str | None = None

    def seen_as(self, view: View) -> Message:
        """The message as a view shows it."""
        return msgspec.structs.replace(self, body=view.body, views=())

    def seen_by(self, user: str) -> Message | None:
        """The message as a user of its company gets it; None where the user gets a Skipped."""
        if not self.views:
            return self
        return next((self.seen_as(view) for view in self.views if view.is_for(user)), None)

    @property
    def is_resync(self) -> bool:
        """Whether it is a `Resync`."""
        return msgspec.json.decode(self.body, type=_Typed).type == "Resync"

    @property
    def texts(self) -> list[JSON]:
        """The texts of the change: one, or one for each view."""
        return [view.body for view in self.views] or [self.body]

    @property
    def size(self) -> int:
        """The bytes of its texts, and of the users whom it names."""
        if not self.views and not self.revokes:
            return len(self.body)
        return len(self.body) + bytes_of(self.revokes) + sum(view.size for view in self.views)


class ServerMessage(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename="pascal"):
    """A message that a session sends itself; those of the log are sent as they are."""


class Fault(ServerMessage, frozen=True):
    code: Code
    message: str


class Authenticated(ServerMessage, frozen=True):
    user_id: str
    expires_at: str


class AuthenticationResult(
    ServerMessage, frozen=True, tag_field="Type", tag="AuthenticationResult"
):
    success: bool
    data: Authenticated | msgspec.UnsetType = msgspec.UNSET
    error: Fault | msgspec.UnsetType = msgspec.UNSET


class CompanySet(ServerMessage, frozen=True):
    company_id: str
    position: int
    epoch: str
    at: str | msgspec.UnsetType = msgspec.UNSET
    recovered: bool | msgspec.UnsetType = msgspec.UNSET


class SetCompanyResult(ServerMessage, frozen=True, tag_field="Type", tag="SetCompanyResult"):
    success: bool
    data: CompanySet | msgspec.UnsetType = msgspec.UNSET
    error: Fault | msgspec.UnsetType = msgspec.UNSET


class CompanyOnly(ServerMessage, frozen=True):
    company_id: str


class Subscribed(ServerMessage, frozen=True):
    """Without success only `company_id` is there, by which a client finds its command."""

    company_id: str
    position: int | msgspec.UnsetType = msgspec.UNSET
    epoch: str | msgspec.UnsetType = msgspec.UNSET
    at: str | msgspec.UnsetType = msgspec.UNSET
    recovered: bool | msgspec.UnsetType = msgspec.UNSET


class SubscribeResult(ServerMessage, frozen=True, tag_field="Type", tag="SubscribeResult"):
    success: bool
    data: Subscribed
    error: Fault | msgspec.UnsetType = msgspec.UNSET


class UnsubscribeResult(ServerMessage, frozen=True, tag_field="Type", tag="UnsubscribeResult"):
    success: bool
    data: CompanyOnly
    error: Fault | msgspec.UnsetType = msgspec.UNSET


class Skipped(ServerMessage, frozen=True, tag_field="Type", tag="Skipped"):
    """Covers positions that hold nothing for a subscription. `at`: of the message at the last one."""

    data: CompanyOnly
    position: Annotated[int, msgspec.Meta(ge=1)]
    at: str


class StateRows(ServerMessage, frozen=True):
    company_id: str
    entity: str
    rows: Annotated[
        list[dict[str, Any]],
        msgspec.Meta(
            description="Each as in the `Data` of a change; one that fits into no message of 256 KiB"
            " has its keys only."
        ),
    ]


class State(ServerMessage, frozen=True, tag_field="Type", tag="State"):
    """Rows that a company has at the position of the next StateEnd. Each looks as in the `Data` of a change."""

    data: StateRows
    partial: Annotated[
        Literal[True] | msgspec.UnsetType,
        msgspec.Meta(description="Too large to send: the rows have only their keys."),
    ] = msgspec.UNSET


class StatePlace(ServerMessage, frozen=True):
    company_id: str
    position: int


class StateEnd(ServerMessage, frozen=True, tag_field="Type", tag="StateEnd"):
    """All rows were sent; the changes after the position follow."""

    data: StatePlace


class CompanyRevoked(ServerMessage, frozen=True, tag_field="Type", tag="CompanyRevoked"):
    data: CompanyOnly


class Expiry(ServerMessage, frozen=True):
    expires_at: str


class TokenExpiring(ServerMessage, frozen=True, tag_field="Type", tag="TokenExpiring"):
    data: Expiry


class Pong(ServerMessage, frozen=True, tag_field="Type", tag="Pong"):
    pass


class AwaitedTransaction(ServerMessage, frozen=True):
    company_id: str
    tx: str


class Error(ServerMessage, frozen=True, tag_field="Type", tag="Error"):
    error: Fault
    data: AwaitedTransaction | msgspec.UnsetType = msgspec.UNSET


class Arrival(AwaitedTransaction, frozen=True):
    position: int


class Arrived(ServerMessage, frozen=True, tag_field="Type", tag="Arrived"):
    data: Arrival


class Ending(ServerMessage, frozen=True):
    code: int
    reason: str
    reconnect: bool
    retry_after_ms: int | msgspec.UnsetType = msgspec.UNSET


class Disconnect(ServerMessage, frozen=True, tag_field="Type", tag="Disconnect"):
    data: Ending

    @classmethod
    def of(cls, closure: Closure) -> Disconnect:
        """The message that announces a closure."""
        wait = msgspec.UNSET if closure.retry_after_ms is None else closure.retry_after_ms
        return cls(
            data=Ending(
                code=closure.code,
                reason=closure.reason,
                reconnect=closure.reconnect,
                retry_after_ms=wait,
            )
        )


class StoredView(msgspec.Struct, frozen=True, rename="pascal"):
    """A view as it is stored and published, within JSON."""

    users: frozenset[str]
    others: bool
    body: msgspec.Raw


_encode = msgspec.json.Encoder().encode
_decode_views = msgspec.json.Decoder(list[StoredView]).decode


def stored_views(views: Iterable[View]) -> list[StoredView]:
    """Views as they are stored."""
    return [StoredView(each.users, each.others, msgspec.Raw(each.body)) for each in views]


def loaded_views(stored: Iterable[StoredView]) -> tuple[View, ...]:
    """The views that were stored."""
    return tuple(View(each.users, each.others, bytes(each.body)) for each in stored)


def encode_views(views: Iterable[View]) -> JSON:
    """The text by which views are stored."""
    return _encode(stored_views(views))


def decode_views(stored: JSON | None) -> tuple[View, ...]:
    """The views of a stored message."""
    return () if stored is None else loaded_views(_decode_views(stored))


def encode(message: ServerMessage) -> JSON:
    """A message as JSON."""
    return _encode(message)


def at_text(at: datetime) -> str:
    """The time of a change as its message has it in `At`."""
    return at.astimezone(UTC).isoformat(timespec="microseconds")


def is_at(text: str, at: datetime | None) -> bool:
    """Whether an `At` that a client sends is this time. False where they cannot be compared."""
    try:
        return at is not None and datetime.fromisoformat(text) == at
    except ValueError:
        return False


def resync_text(company: str, epoch: str, position: int) -> JSON:
    """The Resync at a company's last position, for a user who sees rows from now on that were not sent before."""
    data = {"CompanyId": company, "Reason": "epoch", "Epoch": epoch}
    return _encode({"Type": "Resync", "Data": data, "Position": position})


def timestamp(seconds: float) -> str:
    """Unix seconds as RFC 3339 in UTC, to the second; far futures end in the year 9999."""
    moment = datetime.fromtimestamp(min(seconds, 253402300799), UTC)
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


PROTOCOL_TYPES: Final = frozenset(
    {"Resync", *(each.__struct_config__.tag for each in ServerMessage.__subclasses__())} - {None}
)
"""The types of the protocol's own messages, which no change has."""
