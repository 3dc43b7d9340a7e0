"""Batched reads of the log: current positions and older messages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import NamedTuple

import asyncpg
import msgspec

from notifier.database import sql
from notifier.database.batching import Batcher
from notifier.database.query import Query
from notifier.delivery.recent import RECENT_BYTES
from notifier.messages import Message, decode_views

PAGE_MESSAGES = 1000
"""Messages of one company that are read at once, within RECENT_BYTES."""

COMPANIES = 100
"""Pages that are read in one query."""

PageKey = tuple[str, int, str]
"""A company, the position before the page, and the epoch."""


class Head(NamedTuple):
    """The last message of a company: its position, and its `at` unless it was pruned.

    `epoch`: the one that it counts in; None for a text that cannot be the id of a company.
    """

    position: int
    at: datetime | None
    epoch: str | None = None


class History:
    """Reads the log. Both methods raise DatabaseError."""

    def __init__(self, query: Query) -> None:
        self._query = query
        self._heads = Batcher(self._load_heads)
        self._pages = Batcher(self._load_pages, limit=COMPANIES)

    async def head(self, company: str) -> Head:
        """The company's last message, at position 0 where it has none. Adds the company to the log's companies."""
        return await self._heads.get(company)

    async def page(self, company: str, after: int, epoch: str) -> list[Message]:
        """The next messages after `after`; none in another epoch. They may begin behind a gap."""
        return await self._pages.get((company, after, epoch))

    async def _load_heads(self, companies: Sequence[str]) -> Mapping[str, Head]:
        try:
            rows = await self._query.fetch(sql.query("company_heads"), list(companies))
        except asyncpg.DataError:  # a character that the database's encoding lacks: no such company
            if len(companies) == 1:
                return {companies[0]: Head(0, None)}
            heads: dict[str, Head] = {}
            for company in companies:
                heads |= await self._load_heads([company])
            return heads
        if unknown := [row["company"] for row in rows if not row["known"]]:
            await self._query.fetch(sql.query("register_companies"), unknown)
        return {row["company"]: Head(row["position"], row["at"], row["epoch"]) for row in rows}

    async def _load_pages(self, keys: Sequence[PageKey]) -> Mapping[PageKey, list[Message]]:
        pages: dict[PageKey, list[Message]] = {key: [] for key in keys}
        for epoch in {key[2] for key in keys}:
            wanted = [key for key in keys if key[2] == epoch]
            rows = await self._query.fetch(
                sql.query("pages"),
                [company for company, _, _ in wanted],
                [after for _, after, _ in wanted],
                PAGE_MESSAGES,
                epoch,
                RECENT_BYTES,
            )
            for row in rows:
                pages[wanted[row["n"] - 1]].append(message_of(row))
        return pages


def message_of(row: asyncpg.Record) -> Message:
    """A row of notifier.messages as a Message."""
    return Message(
        row["seq"],
        row["company"],
        row["position"],
        row["at"],
        row["stored"],
        row["body"],
        tuple(row["revokes"] or ()),
        decode_views(row["views"]),
    )


def traced_message_of(row: asyncpg.Record) -> Message:
    """A row of notifier.messages as a Message, with the trace that it belongs to."""
    message, link = message_of(row), row["traceparent"]
    return message if link is None else msgspec.structs.replace(message, traceparent=link)
