"""The stream, as a node hears it: LISTEN, catch up, hand on; and the queries of hub and sessions.

A notification is only a hint to look, whoever sent it. After every (re)connection the listener is
set up first and the log read afterwards, so nothing falls between.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable, Mapping, Sequence

import asyncpg
import structlog

from notifier import metrics
from notifier.database import sql
from notifier.database.batching import Loader
from notifier.database.connections import (
    DEADLINE_SECONDS,
    Connection,
    backoff,
    connected,
    listener,
)
from notifier.database.query import Query
from notifier.delivery.hub import RECENT_BYTES, Hub
from notifier.errors import DatabaseError, Misplaced, SchemaMissing
from notifier.health import Health
from notifier.messages import Message

PROBE_SECONDS = 4.0
"""How often the path is proven; it finds a dead link as well."""

PAGE, PAGE_BYTES = 1000, 8 * 1024 * 1024
"""Messages that are read at once by a node that catches up, and what they may weigh."""

COMPANIES = 100
"""As many companies are read of at once for those who resume, a page of RECENT_BYTES each."""

DIGITS = 19
STEADY_SECONDS = 30.0
GRACE_SECONDS = 0.02
"""Where the relay is on this node it hands its batches over itself; a moment is left to it."""

_log = structlog.get_logger("notifier.stream")


class Stream:
    """This node's place in the stream. `run` for ever; the relay of this node calls `take`."""

    def __init__(
        self,
        url: str,
        asker: Query,
        health: Health,
        retention_hours: float,
        doubted: Callable[[Message], Message] | None = None,
    ) -> None:
        self._url = url
        self._doubted = doubted
        self._asker = asker
        self._health = health
        self.hub = Hub(Loader(self._load_heads).get, self._page, retention_hours)
        self._pages = Loader(self._load_pages, limit=COMPANIES)
        self._seq = 0
        self._fed = False
        self._rung = asyncio.Event()

    # --- the stream

    def take(self, epoch: str, messages: Sequence[Message]) -> None:
        """Messages that this node's relay has just stored."""
        self._fed = True
        if epoch == self.hub.epoch and messages[0].seq == self._seq + 1:
            self._seq = messages[-1].seq
            self._deliver(messages)
        elif messages[-1].seq > self._seq or epoch != self.hub.epoch:
            self._fed = False
            self._rung.set()

    def _deliver(self, messages: Sequence[Message]) -> None:
        doubted = self._doubted
        self.hub.deliver(messages if doubted is None else [doubted(each) for each in messages])

    async def run(self) -> None:
        """Listens; comes back after every failure of the database."""
        attempt = 0
        while True:
            started = time.monotonic()
            try:
                async with connected(self._url, "node") as connection:
                    await self._listen(connection)
            except DatabaseError as error:
                _log.warning("the node lost the database", error=str(error))
                self._health.lost(str(error))
                metrics.RECONNECTS.labels("node").inc()
            attempt = 0 if time.monotonic() - started > STEADY_SECONDS else attempt + 1
            await backoff(attempt)

    async def _listen(self, connection: Connection) -> None:
        nonce = secrets.token_hex(8)
        returned = asyncio.Event()
        told = 0  # the last seq that was rung for

        def heard(payload: str) -> None:
            nonlocal told
            if payload.isdecimal() and payload.isascii() and len(payload) <= DIGITS:
                if int(payload) > self._seq:
                    told = int(payload)
                    self._rung.set()
            elif payload == nonce:
                returned.set()

        ended = asyncio.Event()

        def end(_: object) -> None:
            ended.set()
            self._rung.set()

        connection.add_termination_listener(end)
        standby = await connection.fetchval("SELECT pg_is_in_recovery()", timeout=DEADLINE_SECONDS)
        if standby:
            raise Misplaced("this is a standby: it cannot notify")
        await connection.add_listener("notifier_messages", listener(heard))
        if self._asker.url != self._url:
            await self._compare(connection)
        await self._catch_up(connection)
        probed = 0.0
        while not ended.is_set():
            if time.monotonic() - probed >= PROBE_SECONDS:
                returned.clear()
                await self._probe(connection, nonce, returned)
                probed = time.monotonic()
                await self._catch_up(connection)
            try:
                async with asyncio.timeout(max(0.0, probed + PROBE_SECONDS - time.monotonic())):
                    await self._rung.wait()
            except TimeoutError:
                continue
            if self._fed:
                before = self._seq
                await asyncio.sleep(GRACE_SECONDS)
                if self._seq > before:
                    if self._seq >= told and self._fed:
                        self._rung.clear()
                    continue
                self._fed = False
            self._rung.clear()
            before = self._seq
            await self._catch_up(connection)
            if self._seq == before:
                await asyncio.sleep(GRACE_SECONDS)  # a false alarm, and there may be many
        raise DatabaseError("the connection was ended")

    async def _compare(self, connection: Connection) -> None:
        """Questions and LISTEN may take two ways, but not to two databases."""
        query = (
            "SELECT oid, pg_postmaster_start_time() FROM pg_database"
            " WHERE datname = current_database()"
        )
        if await self._asker.fetch(query) != await connection.fetch(query):
            raise Misplaced(
                "NOTIFIER_LISTEN_DATABASE_URL is not the database of NOTIFIER_DATABASE_URL"
            )

    async def _probe(self, connection: Connection, nonce: str, returned: asyncio.Event) -> None:
        row = await connection.fetchrow(sql.query("probe"), nonce, 10.0, timeout=DEADLINE_SECONDS)
        try:
            async with asyncio.timeout(DEADLINE_SECONDS):
                await returned.wait()
        except TimeoutError:
            raise Misplaced(
                "LISTEN hears nothing of its own NOTIFY: a pooler in transaction mode?"
                " set NOTIFIER_LISTEN_DATABASE_URL to a direct connection"
            ) from None
        if row is None:
            raise SchemaMissing("the log is empty; run: notifier migrate")
        metrics.QUEUE.set(row["queue"])
        self._health.proven(
            relay=row["relay"],
            uncaptured=tuple(row["uncaptured"]),
            waiting=row["waiting"],
            backlog=row["backlog"],
        )

    async def _catch_up(self, connection: Connection) -> None:
        """Reads what this node lacks, page by page."""
        if not self.hub.epoch:
            row = await connection.fetchrow(sql.query("log_head"), timeout=DEADLINE_SECONDS)
            if row is None:
                raise SchemaMissing("the log is empty; run: notifier migrate")
            self._seq = row["seq"]
            self.hub.restart(row["epoch"])
            return
        while True:
            after, epoch = self._seq, self.hub.epoch
            rows = await connection.fetch(
                sql.query("catch_up"), after, epoch, PAGE, PAGE_BYTES, timeout=DEADLINE_SECONDS * 4
            )
            if self._seq != after or self.hub.epoch != epoch:
                continue  # this node's relay was quicker
            if rows[0]["epoch"] != epoch:
                self._seq = rows[0]["epoch_seq"]
                self.hub.restart(rows[0]["epoch"])
            if rows[0]["seq"] is None:
                return
            messages = [_message(row) for row in rows]
            if messages[0].seq != self._seq + 1:
                _log.error("missed messages that are gone from the log", after=self._seq)
                self.hub.lose()
            self._seq = messages[-1].seq
            self._deliver(messages)
            if len(messages) < PAGE and sum(len(each.body) for each in messages) < PAGE_BYTES:
                return
            await asyncio.sleep(0)

    # --- questions of the hub

    async def _load_heads(self, companies: Sequence[str]) -> Mapping[str, int]:
        try:
            rows = await self._asker.fetch(sql.query("company_heads"), list(companies))
        except asyncpg.DataError:  # a letter that the database cannot write: it has no such company
            if len(companies) == 1:
                return {companies[0]: 0}
            heads: dict[str, int] = {}
            for company in companies:
                heads |= await self._load_heads([company])
            return heads
        if unknown := [row["company"] for row in rows if not row["known"]]:
            await self._asker.fetch(sql.query("register_companies"), unknown)
        return {row["company"]: row["position"] for row in rows}

    async def _page(self, company: str, after: int, epoch: str) -> list[Message]:
        return await self._pages.get((company, after, epoch))

    async def _load_pages(
        self, wanted: Sequence[tuple[str, int, str]]
    ) -> Mapping[tuple[str, int, str], list[Message]]:
        pages: dict[tuple[str, int, str], list[Message]] = {key: [] for key in wanted}
        for epoch in {key[2] for key in wanted}:
            asked = [key for key in wanted if key[2] == epoch]
            rows = await self._asker.fetch(
                sql.query("pages"),
                [company for company, _, _ in asked],
                [after for _, after, _ in asked],
                PAGE,
                epoch,
                RECENT_BYTES,
            )
            for row in rows:
                pages[asked[row["n"] - 1]].append(_message(row))
        return pages


def _message(row: asyncpg.Record) -> Message:
    return Message(
        row["seq"],
        row["company"],
        row["position"],
        row["at"],
        row["stored"],
        row["body"],
        tuple(row["revokes"] or ()),
    )
