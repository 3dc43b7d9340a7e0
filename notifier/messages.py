"""What is said on a socket, typed: the words of DESIGN 1.4 and how they look on the wire."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, ClassVar, Literal

import msgspec

from notifier.errors import Closure, Code

JSON = bytes
"""A whole JSON text in UTF-8."""


class Message(msgspec.Struct, frozen=True, gc=False):
    """One message of a company's log, as every node has it.

    `body` is the text that is sent, `at` the time of its change, `stored` that of its storing.
    `revokes` holds the users who lose the company with it; "*" stands for whoever may have.
    """

    seq: int
    company: str
    position: int
    at: datetime
    stored: datetime
    body: JSON
    revokes: tuple[str, ...] = ()


class Said(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename="pascal"):
    """Something that a session says; changes come from the log as they are."""


class Fault(Said, frozen=True):
    code: Code
    message: str


class Authenticated(Said, frozen=True):
    user_id: str
    expires_at: str


class AuthenticationResult(Said, frozen=True, tag_field="Type", tag="AuthenticationResult"):
    success: bool
    data: Authenticated | msgspec.UnsetType = msgspec.UNSET
    error: Fault | msgspec.UnsetType = msgspec.UNSET


class CompanySet(Said, frozen=True):
    company_id: str
    position: int
    epoch: str
    recovered: bool | msgspec.UnsetType = msgspec.UNSET


class SetCompanyResult(Said, frozen=True, tag_field="Type", tag="SetCompanyResult"):
    success: bool
    data: CompanySet | msgspec.UnsetType = msgspec.UNSET
    error: Fault | msgspec.UnsetType = msgspec.UNSET


class CompanyOnly(Said, frozen=True):
    company_id: str


class CompanyRevoked(Said, frozen=True, tag_field="Type", tag="CompanyRevoked"):
    data: CompanyOnly


class Expiry(Said, frozen=True):
    expires_at: str


class TokenExpiring(Said, frozen=True, tag_field="Type", tag="TokenExpiring"):
    data: Expiry


class Pong(Said, frozen=True, tag_field="Type", tag="Pong"):
    pass


class Error(Said, frozen=True, tag_field="Type", tag="Error"):
    error: Fault


class Ending(Said, frozen=True):
    code: int
    reason: str
    reconnect: bool
    retry_after_ms: int | msgspec.UnsetType = msgspec.UNSET


class Disconnect(Said, frozen=True, tag_field="Type", tag="Disconnect"):
    data: Ending

    @classmethod
    def of(cls, closure: Closure) -> Disconnect:
        """What a client hears before it is closed."""
        wait = msgspec.UNSET if closure.retry_after_ms is None else closure.retry_after_ms
        return cls(
            data=Ending(
                code=closure.code,
                reason=closure.reason,
                reconnect=closure.reconnect,
                retry_after_ms=wait,
            )
        )


_encode = msgspec.json.Encoder().encode


def encode(said: Said) -> JSON:
    """The text of something that a session says."""
    return _encode(said)


def timestamp(seconds: float) -> str:
    """Unix seconds as RFC 3339 in UTC, to the second; far futures end in the year 9999."""
    moment = datetime.fromtimestamp(min(seconds, 253402300799), UTC)
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


class Authenticate(msgspec.Struct, frozen=True):
    """A client says who it is."""

    type: ClassVar[Literal["authenticate"]] = "authenticate"
    token: str


class SetCompany(msgspec.Struct, frozen=True):
    """A client wants a company's messages, from a position on if `after` is given."""

    type: ClassVar[Literal["setCompany"]] = "setCompany"
    company: str
    after: int | None = None
    epoch: str | None = None


class Ping(msgspec.Struct, frozen=True):
    """A client wants to know whether we are there."""

    type: ClassVar[Literal["ping"]] = "ping"


Command = Authenticate | SetCompany | Ping


class NotUnderstood(Exception):
    """What a client sent is no command. `code` says why."""

    def __init__(self, code: Code, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


COMPANY_LIMIT = 200
"""The longest id of a company, in characters."""


def decode(text: str | bytes) -> Command:
    """What a client said. Keys are matched without regard to case; raises NotUnderstood."""
    try:
        said = msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError, ValueError) as error:
        raise NotUnderstood(Code.MALFORMED, "this is not JSON") from error
    fields = _lowered(said, "a message is a JSON object")
    match fields.get("type"):
        case "authenticate":
            token = fields.get("token")
            if not isinstance(token, str):
                raise NotUnderstood(Code.MALFORMED, "authenticate wants a token, a string")
            return Authenticate(token)
        case "setCompany":
            return _set_company(_lowered(fields.get("data"), "setCompany wants data, an object"))
        case "ping":
            return Ping()
        case str():
            raise NotUnderstood(Code.UNKNOWN_TYPE, "unknown type")
        case _:
            raise NotUnderstood(Code.MALFORMED, "a message has a type, a string")


def _set_company(data: dict[str, Any]) -> SetCompany:
    company = data.get("companyid")
    if isinstance(company, int) and not isinstance(company, bool):
        company = str(company)
    if not isinstance(company, str) or not 0 < len(company) <= COMPANY_LIMIT:
        raise NotUnderstood(
            Code.MALFORMED,
            f"setCompany wants data.companyId, a string of 1 to {COMPANY_LIMIT} characters",
        )
    if not _storable(company):
        raise NotUnderstood(Code.MALFORMED, "data.companyId has a character that no id has")
    after, epoch = data.get("after"), data.get("epoch")
    if after is not None and (not isinstance(after, int) or isinstance(after, bool) or after < 0):
        raise NotUnderstood(Code.MALFORMED, "data.after is a position: 0, 1, 2, …")
    if epoch is not None and not isinstance(epoch, str):
        raise NotUnderstood(Code.MALFORMED, "data.epoch is a string")
    return SetCompany(company, after, epoch)


def _lowered(value: object, otherwise: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise NotUnderstood(Code.MALFORMED, otherwise)
    return {key.lower(): item for key, item in value.items()}


def _storable(text: str) -> bool:
    """PostgreSQL's text has neither NUL nor a lone surrogate."""
    return "\0" not in text and not any("\ud800" <= letter <= "\udfff" for letter in text)
