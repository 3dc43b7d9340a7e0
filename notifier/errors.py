"""Every error, and who receives it.

NotifierError
├── SettingsError            the operator: one line, exit status 2
├── DatabaseError            the operator: one line, exit status 1
│   ├── Unreachable          no connection, or it went away
│   │   └── UnexpectedAnswer no answer of PostgreSQL's: a proxy has altered it
│   ├── SchemaMissing        `notifier migrate` has not run, or not in this version
│   ├── Misplaced            a standby, a pooler, a role with too few rights
│   └── LogAltered           the relay: it begins an epoch
├── TokenInvalid             the client: AuthenticationResult, then 4401
│   └── TokenExpired         the client: AuthenticationResult, then 4419
├── BadFilter                the client: SubscribeResult with bad_filter
│   └── UnknownName          the same, once the catalogue was read again
└── Closure                  the client: Disconnect, then its close code
"""

from __future__ import annotations

from enum import StrEnum
from typing import Self


def one_line(text: str) -> str:
    """The text with control characters escaped: a name in the database may have a line break, or ESC."""
    return "".join(each if each.isprintable() else f"\\x{ord(each):02x}" for each in text)


class NotifierError(Exception):
    """An error whose text is one readable line."""


class SettingsError(NotifierError):
    """A setting is missing or wrong."""


class DatabaseError(NotifierError):
    """The database is not usable as it is."""


class Unreachable(DatabaseError):
    """There is no connection to the database, or it went away."""


class UnexpectedAnswer(Unreachable):
    """The database gave an answer that it cannot give: the connection is not to be used any more."""


class SchemaMissing(DatabaseError):
    """The schema `notifier` is missing or belongs to another version."""


class Misplaced(DatabaseError):
    """This connection reaches a database that cannot serve: a standby, a pooler, too few rights."""


class Apart(Misplaced):
    """This connection reaches another server than the one whose log is followed."""


class LogAltered(DatabaseError):
    """The log is not as the relay wrote it, or another one; the next term begins an epoch where it must."""


class TokenInvalid(NotifierError):
    """The token is not valid here. The text contains nothing of the token."""


class TokenExpired(TokenInvalid):
    """The token was valid and has expired."""


class KeysUnavailable(TokenInvalid):
    """No key is available to check the token, which may be valid."""


class Code(StrEnum):
    """Every `Error.Code` of the protocol."""

    MALFORMED = "malformed"
    UNKNOWN_TYPE = "unknown_type"
    NOT_AUTHENTICATED = "not_authenticated"
    TOKEN_INVALID = "token_invalid"
    TOKEN_EXPIRED = "token_expired"
    COMPANY_FORBIDDEN = "company_forbidden"
    BAD_FILTER = "bad_filter"
    UNAVAILABLE = "unavailable"
    TOO_MANY_COMPANIES = "too_many_companies"
    NOT_SUBSCRIBED = "not_subscribed"
    UNKNOWN_TX = "unknown_tx"
    TIMEOUT = "timeout"
    TOO_MANY_WAITING = "too_many_waiting"
    STATE_TOO_LARGE = "state_too_large"
    STATE_UNAVAILABLE = "state_unavailable"


class Refused(NotifierError):
    """A subscription cannot be made as it was requested; `code` and the text are the answer."""

    code: Code


class BadFilter(Refused):
    """A filter of a subscription cannot be used."""

    code = Code.BAD_FILTER


class UnknownName(BadFilter):
    """It names an entity or a property that is not known."""


class Unavailable(Refused):
    """The database does not answer now."""

    code = Code.UNAVAILABLE


class StateTooLarge(Refused):
    """More rows than MAX_STATE_ROWS pass the filter, or too many would have to be read."""

    code = Code.STATE_TOO_LARGE


class StateUnavailable(Refused):
    """State is not enabled, or the tables cannot be read."""

    code = Code.STATE_UNAVAILABLE


class Closure(NotifierError):
    """Ends a connection. docs/protocol.md has the table of close codes.

    `reconnect`: whether the client shall reconnect. `retry_after_ms`: how long it waits at least.
    """

    code: int = 4500
    reason: str = "internal error"
    reconnect: bool = True
    retry_after_ms: int | None = 500

    def __init__(self, retry_after_ms: int | None = None) -> None:
        super().__init__(self.reason)
        if retry_after_ms is not None:
            self.retry_after_ms = retry_after_ms

    def copy(self) -> Self:
        """The same closure without a traceback, whose frames would keep their objects alive. For code that keeps a Closure."""
        return type(self)(self.retry_after_ms)


class Restart(Closure):
    code, reason = 1012, "the service restarts"


class Binary(Closure):
    code, reason, reconnect, retry_after_ms = 1003, "text frames only", False, None


class TooBig(Closure):
    code, reason, reconnect, retry_after_ms = 1009, "message too big", False, None


class Malformed(Closure):
    code, reason, reconnect, retry_after_ms = 4400, "too many malformed messages", False, None


class BadToken(Closure):
    code, reason, reconnect, retry_after_ms = 4401, "token invalid", False, None


class Forbidden(Closure):
    code, reason, reconnect, retry_after_ms = 4403, "too many refused companies", False, None


class NotAuthenticated(Closure):
    code, reason, retry_after_ms = 4408, "not authenticated in time", 1000


class AnotherUser(Closure):
    code, reason, reconnect, retry_after_ms = 4409, "another user on the same socket", False, None


class Expired(Closure):
    code, reason, retry_after_ms = 4419, "token expired", 0


class TooMany(Closure):
    code, reason, retry_after_ms = 4429, "too many messages or connections", 10_000


class Internal(Closure):
    code, reason, retry_after_ms = 4500, "internal error", 1000


class NotReady(Closure):
    code, reason, retry_after_ms = 4503, "not ready", 1000


class TooSlow(Closure):
    code, reason, retry_after_ms = 4508, "too slow", 500
