"""What a client reports to the application: messages, where they continue, and the connection's state."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, TypeAlias

Row: TypeAlias = dict[str, Any]
"""A changed row. Its properties are in PascalCase, unless `notifier.toml` sets `case` or `rename`."""

State: TypeAlias = Literal["connecting", "live", "waiting", "idle", "stopped", "closed"]
"""
- `connecting`: fetching a token, opening a socket, or waiting for the answer to a subscription
- `live`: messages arrive as they are committed
- `waiting`: not connected; the next attempt is in `retry_in` seconds
- `idle`: connected without a company: none was set, it was refused, or access to it was revoked;
  `reason` is `no company`, `revoked`, or the code of the refusal: `company_forbidden`, `bad_filter`,
  `too_many_companies`, `state_unavailable`, `state_too_large`
- `stopped`: the client does not reconnect by itself: the token was refused or the client is at fault
- `closed`: the `async with` block has ended, or `unsubscribe` was called
"""


class Position(NamedTuple):
    """How far a client has got in a company's messages: the last one it has, and the log's name.

    `at` is the `At` of that message. It proves to the server that both have the same message there,
    also after the database was restored from a backup; None if it is not known.
    """

    after: int
    epoch: str
    at: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One committed change of one row.

    `data` is the whole row, for a deletion as it last was; only its keys if `partial` is true.
    `old` has the former values of exactly the properties that changed. `at` is the time at which
    the change was captured, in ISO 8601. `tx` is the writer's transaction: its `pg_current_xact_id()` in
    decimal; None in messages that a version without it has stored. `text` is the message as it was received.
    """

    type: str
    company: str
    data: Row
    old: Row | None
    position: int
    epoch: str
    at: str
    tx: str | None = None
    actor: str | None
    partial: bool
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Recovered:
    """Every message after `position` follows: nothing was lost. `at` is as in `Position`."""

    company: str
    position: int
    epoch: str
    at: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Resync:
    """Messages after `position` are complete, earlier ones may not be: reload your state.

    `reason` is `start` (there was no position to resume from), `filter` (the subscription has another
    filter now), `expired` (the position is beyond the retention), `epoch` (the log was replaced),
    `gap` (a missing message could not be obtained), or the server's reason: `bulk`, `truncate`, `overflow`, `epoch`. `at` is as in
    `Position`.
    """

    company: str
    reason: str
    position: int
    epoch: str
    at: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CompanyState:
    """All rows of the company at `position`, by entity; messages after it follow. In place of a `Resync`, with `state=True`.

    `reason` is that of the `Resync`, and `at` is as in `Position`. `where` is what the rows pass.
    """

    company: str
    reason: str
    position: int
    epoch: str
    at: str | None = None
    rows: dict[str, list[Row]]
    where: dict[str, dict[str, list[Any]]] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Skipped:
    """No message up to `position` is for this subscription: its filter or the row's visibility decided so.

    Nothing has to be done; a saved position may move on. `at` is as in `Position`.
    """

    company: str
    position: int
    epoch: str
    at: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """The state of one company, or of the connection as a whole.

    With several companies `company` names the one whose state has changed. A change of the connection
    concerns all of them; its `company` is that of `connect`, if there is one. `code` is the close
    code, 1006 if the link broke.
    """

    state: State
    company: str | None
    reason: str | None = None
    code: int | None = None
    error: object = None
    """The exception that `get_token` raised, or the `Error` that the server sent."""
    retry_in: float | None = None


Report: TypeAlias = Message | Recovered | Resync | CompanyState | Skipped | Status


def position_of(report: Message | Recovered | Resync | CompanyState | Skipped) -> Position:
    """The position to resume from after this report."""
    return Position(report.position, report.epoch, report.at or None)
