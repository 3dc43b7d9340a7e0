"""Batched reads of the log: current positions and older messages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import NamedTuple

import asyncpg
import msgspec

from notifier.database import sql
from notifier.database.answers import Moment, Natural, expected, typed
from notifier.database.batching import Batcher
from notifier.database.connections import VALUE_ERRORS
from notifier.database.query import Query
from notifier.delivery.recent import RECENT_BYTES
from notifier.errors import UnexpectedAnswer
from notifier.messages import JSON, Message, decode_views

PAGE_MESSAGES = 1000
"""Messages of one company that are read at once, within RECENT_BYTES."""

COMPANIES = 100
"""Pages that are read in one query."""

WHOLE_PAGES = 12
"""With more pages in one query each is shorter, so that together they are about as large as this many whole ones."""

SHORT_BYTES = 320 * 1024
"""The least limit of a shorter page: above MESSAGE_LIMIT, so that it has more than one message."""

PageKey = tuple[str, int, str]
"""A company, the position before the page, and the epoch."""


class Head(NamedTuple):
    """The last message of a company: its position, and its `at` unless it was pruned.

    `epoch`: the one that it counts in; None for a text that cannot be the id of a company. `seq`: of the log's last message
    then; 0 where that is not known.
    """

    position: int
    at: datetime | None
    epoch: str | None = None
    seq: int = 0


class Place(NamedTuple):
    """The last message of the log."""

    epoch: str
    seq: Natural


class End(NamedTuple):
    """The last message of the log: its place, and which one it is, where the log has it."""

    epoch: str
    seq: Natural
    company: str | None
    position: Natural | None
    at: Moment | None

    @property
    def message(self) -> Message | None:
        """That message, without its text."""
        if self.company is None or self.position is None or self.at is None:
            return None
        return Message(self.seq, self.company, self.position, self.at, self.at, b"")


class Behind(NamedTuple):
    """A row of `channels_behind`: a company, if any, that has a later position than was delivered; and the log's place."""

    epoch: str
    seq: Natural
    company: str | None
    position: Natural | None


class History:
    """Reads the log. Both methods raise DatabaseError."""

    def __init__(self, query: Query) -> None:
        self._query = query
        self._heads = Batcher(self._load_heads)
        self._pages = Batcher(self._load_pages, limit=COMPANIES, owner=lambda key: key[0])

    async def head(self, company: str) -> Head:
        """The company's last message, at position 0 where it has none. Adds the company to the log's companies."""
        return await self._heads.get(company)

    async def page(self, company: str, after: int, epoch: str) -> list[Message]:
        """The next messages after `after`; none in another epoch. They may begin behind a gap."""
        return await self._pages.get((company, after, epoch))

    async def _load_heads(self, companies: Sequence[str]) -> Mapping[str, Head]:
        try:
            rows = await self._query.read(
                lambda rows: typed(rows, _HeadRow),
                sql.query("company_heads"),
                list(companies),
                may_refuse=True,
            )
        except VALUE_ERRORS:  # a character that the database's encoding lacks: no such company
            if len(companies) == 1:
                return {companies[0]: Head(0, None)}
            heads: dict[str, Head] = {}
            for company in companies:
                heads |= await self._load_heads([company])
            return heads
        if unknown := [row.company for row in rows if not row.known]:
            await self._query.fetch(sql.query("register_companies"), unknown)
        return {row.company: Head(row.position, row.at, row.epoch, row.seq) for row in rows}

    async def _load_pages(self, keys: Sequence[PageKey]) -> Mapping[PageKey, list[Message]]:
        pages: dict[PageKey, list[Message]] = {key: [] for key in keys}
        share = -(-len(keys) // WHOLE_PAGES)
        for epoch in {key[2] for key in keys}:
            wanted = [key for key in keys if key[2] == epoch]

            def convert(
                rows: Sequence[asyncpg.Record], wanted: Sequence[PageKey] = wanted
            ) -> list[tuple[PageKey, Message]]:
                numbers = [row["n"] for row in rows]
                found = messages_of(rows, first=1)
                read = [(wanted[n - 1], message) for n, message in zip(numbers, found, strict=True)]
                if any(message.company != key[0] for key, message in read):
                    raise UnexpectedAnswer(
                        "the database gave a message of another company than the requested one"
                    )
                return read

            for key, message in await self._query.read(
                convert,
                sql.query("pages"),
                [company for company, _, _ in wanted],
                [after for _, after, _ in wanted],
                max(2, PAGE_MESSAGES // share),
                epoch,
                min(RECENT_BYTES, max(SHORT_BYTES, RECENT_BYTES // share)),
            ):
                pages[key].append(message)
        return pages


class _HeadRow(NamedTuple):
    company: str
    position: Natural
    known: bool
    at: Moment | None
    epoch: str
    seq: Natural


class _MessageRow(NamedTuple):
    seq: Natural
    company: str
    position: Natural
    at: Moment
    stored: Moment
    body: JSON
    revokes: tuple[str, ...] | None
    views: JSON | None


def messages_of(rows: Sequence[asyncpg.Record], *, first: int) -> list[Message]:
    """Rows of notifier.messages as Messages. `first`: the column of `seq`; those behind it are in the order of _MessageRow.

    Raises UnexpectedAnswer.
    """
    last = first + len(_MessageRow._fields)
    converted = typed([row[first:last] for row in rows], _MessageRow)
    if not all(row.body.startswith(b"{") for row in converted):
        raise UnexpectedAnswer("the database gave a message that is no JSON object")
    with expected():
        return [Message(*row[:-2], row.revokes or (), decode_views(row.views)) for row in converted]


def traced_messages_of(rows: Sequence[asyncpg.Record], *, first: int) -> list[Message]:
    """The same, with the traces that the messages belong to."""
    messages = messages_of(rows, first=first)
    return [
        message
        if (link := row["traceparent"]) is None
        else msgspec.structs.replace(message, traceparent=str(link))
        for row, message in zip(rows, messages, strict=True)
    ]
