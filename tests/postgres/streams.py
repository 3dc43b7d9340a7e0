"""A log that the test writes as a relay does, and nodes that follow it, without relay and sockets."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime

from notifier.database.connections import Connection
from notifier.database.query import Query
from notifier.delivery.channel import Channel
from notifier.delivery.encoding import TEXT
from notifier.delivery.filter_catalogue import FilterCatalogue
from notifier.delivery.history import History
from notifier.delivery.hub import Hub
from notifier.delivery.postgres_stream import PostgresStream
from notifier.health import Health
from notifier.messages import Message, decode_views
from tests.databases import Database
from tests.waiting import until


class Log:
    """Stores messages and notifies the nodes, each when the test wants it."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.seq = self.slot = 0
        self.positions: Counter[str] = Counter()

    async def store(
        self, company: str = "a", count: int = 1, revokes: Sequence[str] | None = None
    ) -> None:
        await self.database.execute(
            "INSERT INTO notifier.messages (slot, seq, company, position, at, body, revokes)"
            " SELECT $6, $1 + n, $2, $3 + n, now() - interval '1 s', json_build_object('N', n), $4"
            " FROM generate_series(1, $5::int) AS n",
            self.seq, company, self.positions[company], revokes, count, self.slot,
        )  # fmt: skip
        self.seq += count
        self.positions[company] += count

    async def notify(self, payload: object = None) -> None:
        payload = self.seq if payload is None else payload
        await self.database.execute("SELECT pg_notify('notifier_messages', $1)", str(payload))

    async def publish(self, company: str = "a", count: int = 1) -> None:
        await self.store(company, count)
        await self.notify()

    async def begin_epoch(self, epoch: str, *, resyncs: bool = True) -> None:
        """Begins another epoch behind the stored messages: with a Resync for each company, unless the log knows none."""
        known = list(self.positions) if resyncs else []
        self.slot += 1
        await self.database.execute(
            "WITH begun AS (UPDATE notifier.log SET epoch = $1, epoch_seq = $2)"
            " INSERT INTO notifier.messages (slot, seq, company, position, at, body, revokes)"
            """ SELECT $4, $2 + n, company, 1, now(), '{"Type":"Resync"}', ARRAY['*']"""
            " FROM unnest($3::text[]) WITH ORDINALITY AS known (company, n)",
            epoch, self.seq, known, self.slot,
        )  # fmt: skip
        self.seq += len(known)
        self.positions = Counter(dict.fromkeys(known, 1))

    async def delete(self, seq: int) -> None:
        """Deletes the messages up to this one."""
        await self.database.execute("DELETE FROM notifier.messages WHERE seq <= $1", seq)

    async def stored(self) -> list[Message]:
        """All messages, as a relay on this node passes them on."""
        rows = await self.database.fetch("SELECT * FROM notifier.messages ORDER BY seq")
        return [
            Message(
                row["seq"], row["company"], row["position"], row["at"], row["stored"],
                row["body"].encode(), tuple(row["revokes"] or ()),
                decode_views(row["views"] and row["views"].encode()),
            )
            for row in rows
        ]  # fmt: skip

    async def epoch(self) -> str:
        return str(await self.database.fetchval("SELECT epoch FROM notifier.log"))


class CountingStream(PostgresStream):
    """Counts how often it reads the log."""

    reads = 0

    async def _catch_up(self, connection: Connection) -> None:
        self.reads += 1
        await super()._catch_up(connection)


class Recorder:
    """A subscriber of one company."""

    user = "u"

    def __init__(self, channel: Channel) -> None:
        self.channel = channel
        self.bodies: list[bytes] = []
        self.rechecks: list[int] = []
        self.is_dropped = False
        channel.join(self, TEXT, None)

    def write(self, frames: bytes, bodies: Sequence[bytes]) -> None:
        self.bodies += bodies

    def access_in_doubt(self, *, named_at: datetime | None) -> None:
        self.rechecks.append(self.channel.position)

    def dropped(self) -> None:
        self.is_dropped = True

    async def gets(self, count: int) -> None:
        """Returns when it has got so many messages."""

        async def delivered() -> bool:
            return len(self.bodies) >= count

        await until(delivered)
        assert len(self.bodies) == count


class Node:
    """A stream with its hub and history, and the task that it runs in."""

    def __init__(self, url: str, query_url: str) -> None:
        self.query = Query(query_url, "queries", pooled=False)
        self.health = Health()
        self.history = History(self.query)
        self.hub = Hub(self.history, 24, FilterCatalogue(self.query))
        self.stream = CountingStream(url, self.query, self.hub, self.history, self.health)
        self._running: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Returns when it has received its own notification."""
        self._running = asyncio.create_task(self.stream.run())
        await self.reports("no node holds the relay lock")

    def begin(self) -> None:
        self._running = asyncio.create_task(self.stream.run())

    async def reports(self, words: str) -> None:
        """Returns when this is why it is not ready."""

        async def reported() -> bool:
            return words in (self.health.reason() or "")

        await until(reported)

    async def reads(self, count: int) -> None:
        """Returns when it has read the log so often."""

        async def looked() -> bool:
            return self.stream.reads == count

        await until(looked)

    async def notified(self) -> None:
        """Returns when it was notified of messages that it has not delivered."""
        reads = self.stream.reads

        async def is_notified() -> bool:
            return self.stream._unread.is_set() or self.stream.reads > reads

        await until(is_notified)

    async def subscribe(self, company: str = "a") -> Recorder:
        channel = await self.hub.open(company)
        subscriber = Recorder(channel)
        self.hub.close(channel)
        return subscriber

    async def stop(self) -> None:
        if self._running is not None:
            self._running.cancel()
            with suppress(asyncio.CancelledError):
                await self._running
        self.query.close()


async def cut(database: Database, name: str) -> None:
    """Ends the connections of that name, as a server does."""
    await database.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE datname = current_database() AND application_name = $1",
        f"notifier {name}",
    )
