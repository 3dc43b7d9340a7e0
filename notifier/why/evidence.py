"""Reads what the database holds about a company's changes: the log, captured changes, transactions."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import NamedTuple

import asyncpg
import msgspec

from notifier.companies import canonical, split_scope
from notifier.database import configuration, sql
from notifier.database.configuration import Stored
from notifier.database.connections import Connection
from notifier.messages import JSON, View, at_text, decode_views
from notifier.relay.changes import Change, Source
from notifier.relay.connection import RelayConnection
from notifier.relay.netting import net
from notifier.relay.rendering import ResyncDraft
from notifier.relay.store import RelayStore
from notifier.watches import Watch
from notifier.why.question import text_of

READ_SECONDS = 60.0
"""Deadline of a query that may read the whole log."""

FOUND_LIMIT = 1000
"""How many messages of a company are looked at, the newest first."""

Data = dict[str, msgspec.Raw]


class _Body(msgspec.Struct, rename="pascal"):
    """The parts of a message's text that are read; none of them is a row's value but `data`."""

    type: str
    data: Data
    tx: str | None = None
    partial: bool = False


_decode_body = msgspec.json.Decoder(_Body).decode


class Logged(NamedTuple):
    """A message of the log."""

    position: int
    at: datetime
    type: str
    data: Data
    tx: int | None
    partial: bool
    revokes: tuple[str, ...]
    views: tuple[View, ...] = ()

    @classmethod
    def from_row(cls, row: asyncpg.Record) -> Logged:
        """From a row of `why_messages.sql`. Where it has views, the first one stands for all."""
        views = decode_views(row["views"])
        body = _decode_body(views[0].body if views else row["body"])
        return cls(
            row["position"],
            row["at"],
            body.type,
            body.data,
            int(body.tx) if body.tx else None,
            body.partial,
            tuple(row["revokes"] or ()),
            views,
        )

    @property
    def reason(self) -> str:
        """Why a Resync was sent."""
        return text_of(self.data["Reason"])

    def type_for(self, user: str) -> str | None:
        """The type of message that the user gets, None where `visible_to` hides the row from the user."""
        if not self.views:
            return self.type
        return next(
            (_decode_body(each.body).type for each in self.views if each.is_for(user)), None
        )

    @property
    def is_resync(self) -> bool:
        """Whether clients reload their state with it."""
        return self.type == "Resync"

    def is_of(self, watch: Watch, key: Sequence[str]) -> bool:
        """Whether it is about the row of that key."""
        if self.type not in watch.names:
            return False
        value = self.data.get(watch.property(watch.key))
        return value is not None and key_texts(bytes(value), watch) == plain(key)

    def __str__(self) -> str:
        name = f"Resync ({self.reason})" if self.is_resync else self.type
        partial = ", with its keys only" if self.partial else ""
        return f"{name} at position {self.position}{partial}, {at_text(self.at)}"


def key_texts(value: JSON, watch: Watch) -> list[str]:
    """The text of each column in the JSON value of a key, as `plain` gives it."""
    columns = (
        [msgspec.Raw(value)]
        if isinstance(watch.key, str)
        else msgspec.json.decode(value, type=list[msgspec.Raw])
    )
    return plain(map(text_of, columns))


def plain(key: Iterable[str]) -> list[str]:
    """The texts, uuids in lower case."""
    return [canonical(text) for text in key]


class Log(NamedTuple):
    """The columns of `why_log.sql`."""

    epoch: str
    in_backlog: bool
    head: int
    pruned: int
    first: int | None
    oldest: JSON | None
    relays: int
    full: bool
    waiting_since: datetime | None

    @property
    def oldest_tx(self) -> int | None:
        """The transaction of the oldest message in the log, of any company."""
        tx = None if self.oldest is None else _decode_body(self.oldest).tx
        return int(tx) if tx else None


class Transaction(NamedTuple):
    """The columns of `why_transaction.sql`, and the transaction's state in `transaction_states.sql`."""

    xid: int
    status: str
    pid: int | None
    since: datetime | None
    gid: str | None
    state: str


class Evidence:
    """Reads the schema `notifier`. Raises the driver's exceptions, and SchemaMissing."""

    def __init__(self, connection: Connection, company: str, bulk_limit: int) -> None:
        self.connection = connection
        self.company = company
        self._bulk_limit = bulk_limit

    async def log(self) -> Log | None:
        """The log; None where it is empty."""
        row = await self.connection.fetchrow(
            sql.query("why_log"), self.company, timeout=READ_SECONDS
        )
        return Log(*row) if row is not None else None

    async def watches(self) -> list[Stored]:
        """The watched tables; with a schema per tenant, those of the company."""
        stored = (await configuration.load(self.connection)).values()
        _, company = split_scope(self.company)
        own = (self.company, company)
        return [each for each in stored if each.tenant is None or canonical(each.tenant) in own]

    async def sources(self) -> dict[str, Source]:
        """The watched tables as the relay reads them, by entity."""
        return await RelayStore(RelayConnection(self.connection)).load_sources()

    async def message(self, position: int) -> Logged | None:
        """The message at a position, if the log has it."""
        found = await self._messages(position=position)
        return found[0] if found else None

    async def containing(self, text: str) -> list[Logged]:
        """Messages with that in their text, the newest first."""
        return await self._messages(text=text)

    async def of_transaction(self, xid: int) -> list[Logged]:
        """The messages of a transaction, in order."""
        found = [each for each in await self.containing(f'"Tx":"{xid}"') if each.tx == xid]
        return found[::-1]

    async def of_row(self, watches: Iterable[Watch], key: Sequence[str]) -> list[Logged]:
        """The messages about a row, in order."""
        watches = list(watches)
        found = await self.containing(escaped(key[-1]))
        if any(map(str.isupper, key[-1])):
            found += await self.containing(escaped(key[-1].lower()))
        found = [each for each in found if any(each.is_of(watch, key) for watch in watches)]
        return sorted({each.position: each for each in found}.values())

    async def resyncs(self) -> list[Logged]:
        """The Resyncs, in order."""
        found = await self.containing('{"Type":"Resync"')
        return [each for each in found if each.is_resync][::-1]

    async def revoking(self) -> list[Logged]:
        """The messages that may take access away, in order."""
        return (await self._messages(revoking=True))[::-1]

    async def elsewhere(self, xid: int) -> int:
        """In how many other companies a transaction has messages."""
        count: int = await self.connection.fetchval(
            sql.query("why_elsewhere"), self.company, f'"Tx":"{xid}"', timeout=READ_SECONDS
        )
        return count

    async def transaction(self, xid: int) -> Transaction:
        """The state of a transaction, and whether the relay has stored its messages."""
        row = await self.connection.fetchrow(sql.query("why_transaction"), xid)
        assert row is not None
        return Transaction(xid=xid, state=(await self.states([xid]))[xid], **dict(row))

    async def states(self, xids: Sequence[int]) -> dict[int, str]:
        """The states of transactions, in the words of `transaction_states.sql`."""
        rows = await self.connection.fetch(
            sql.query("transaction_states"), list(xids), timeout=READ_SECONDS
        )
        return {row["tx"]: row["state"] for row in rows}

    async def changes_of(self, xid: int) -> list[Change]:
        """The captured changes of a transaction, as far as they are still there."""
        return await self._changes(str(xid), None, None)

    async def changes_with(self, entity: str, text: str) -> list[Change]:
        """The captured changes of an entity with that in an image, as far as they are still there."""
        return await self._changes(None, entity, text)

    def net(
        self, changes: Sequence[Change], sources: dict[str, Source]
    ) -> tuple[list[Logged], int, int]:
        """Nets whole transactions as the relay does: this company's messages, with position 0;
        how many messages other companies get; how many changes name no company."""
        drafts, unattributed = net(changes, sources, self._bulk_limit)
        own, others = [], 0
        for draft in drafts:
            if isinstance(draft, ResyncDraft):
                if draft.company in ("", self.company):
                    reason = msgspec.Raw(msgspec.json.encode(draft.reason))
                    own.append(Logged(0, draft.at, "Resync", {"Reason": reason}, None, False, ()))
                else:
                    others += 1
            elif draft.company == self.company:
                views = draft.views_at(0)
                body = _decode_body(views[0].body if views else draft.body(0))
                own.append(
                    Logged(
                        0, draft.at, body.type, body.data, None, body.partial, draft.revokes, views
                    )
                )
            else:
                others += 1
        return own, others, unattributed

    async def _messages(
        self, position: int | None = None, text: str | None = None, revoking: bool = False
    ) -> list[Logged]:
        rows = await self.connection.fetch(
            sql.query("why_messages"),
            self.company,
            position,
            text,
            revoking,
            FOUND_LIMIT,
            timeout=READ_SECONDS,
        )
        return [Logged.from_row(row) for row in rows]

    async def _changes(self, xid: str | None, entity: str | None, text: str | None) -> list[Change]:
        rows = await self.connection.fetch(
            sql.query("why_changes"), xid, entity, text, timeout=READ_SECONDS
        )
        return [Change(*row) for row in rows]


def escaped(value: str) -> str:
    """How a text stands in JSON that PostgreSQL or msgspec wrote, without its quotes."""
    return msgspec.json.encode(value).decode()[1:-1]
