"""The stream with a broker: when it leaves delivery to it, and what it delivers when it takes it back."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any, cast

import pytest

from notifier.delivery import postgres_stream as streams
from tests.databases import Database
from tests.postgres.streams import Log, Node, cut
from tests.waiting import until


class FakeFeed:
    """A broker that brings nothing."""

    def __init__(self) -> None:
        self.is_proven = self.is_wanted = False
        self.calls: list[str] = []
        self.log_seq = 0
        self.changed: Callable[[], None] = lambda: None

    def turn(self, *, on: bool) -> None:
        self.is_proven = self.is_wanted = on
        self.changed()

    async def subscribe(self) -> bool:
        self.calls.append("subscribe")
        return True

    def start(self) -> bool:
        self.calls.append("start")
        return True

    def stop(self) -> None:
        self.calls.append("stop")

    def resumed(self) -> None:
        self.calls.append("resumed")

    def logged(self, seq: int) -> None:
        self.log_seq = seq

    async def is_called(self, *calls: str) -> None:
        """Returns when these were the calls."""

        async def are_made() -> bool:
            return self.calls == [*calls]

        await until(are_made)


@pytest.fixture
async def node(database: Database) -> AsyncIterator[tuple[Node, FakeFeed]]:
    node, feed = Node(database.dsn, database.dsn), FakeFeed()
    node.stream.use(feed)
    await node.start()
    yield node, feed
    await node.stop()


async def test_what_a_broker_has_lost_is_delivered_when_the_log_is_followed_again(
    database: Database, node: tuple[Node, FakeFeed]
) -> None:
    (one, feed), log = node, Log(database)
    client, other = await one.subscribe("a"), await one.subscribe("b")
    await log.publish("a")
    await client.gets(1)
    feed.turn(on=True)
    await feed.is_called("subscribe", "start")
    await until(lambda: is_on(one))
    reads = one.stream.reads
    await log.publish("a", 1500)
    await log.publish("b")
    assert (len(client.bodies), one.stream.reads) == (1, reads)
    feed.turn(on=False)
    await client.gets(1501)
    await other.gets(1)
    await feed.is_called("subscribe", "start", "stop", "resumed")
    await log.publish("a")
    await client.gets(1502)


async def test_a_log_that_was_rewound_after_the_return_to_it_is_reported_though_it_has_come_further(
    database: Database, node: tuple[Node, FakeFeed]
) -> None:
    """The log ended with a message of a company that the node does not serve: the one before proves that it is another."""
    (one, feed), log = node, Log(database)
    client = await one.subscribe("a")
    feed.turn(on=True)
    await until(lambda: is_on(one))
    await log.store("a", 2)
    await log.store("b")
    feed.turn(on=False)
    await client.gets(2)
    await feed.is_called("subscribe", "start", "stop", "resumed")
    await database.execute(
        "UPDATE notifier.messages SET at = at + interval '1 s' WHERE seq IN (2, 3)"
    )
    await cut(database, "node")
    await one.reports("the log was rewound")


async def test_a_channel_that_is_opened_during_the_return_to_the_log_misses_nothing(
    database: Database, node: tuple[Node, FakeFeed], monkeypatch: pytest.MonkeyPatch
) -> None:
    (one, feed), log = node, Log(database)
    other = await one.subscribe("b")
    feed.turn(on=True)
    await until(lambda: is_on(one))
    audit, clients = one.stream._audit, list[Any]()

    class Connection:
        """Opens a channel of "a" before the audit reads the log, and stores messages before and after that."""

        def __init__(self, connection: Any) -> None:
            self._connection = connection

        async def fetch(self, *arguments: Any, **options: Any) -> Any:
            clients.append(await one.subscribe("a"))
            await log.store("a")
            rows = await self._connection.fetch(*arguments, **options)
            await log.store("b")
            await log.store("a")
            return rows

    async def audit_late(connection: Any) -> Any:
        return await audit(cast("Any", Connection(connection)))

    monkeypatch.setattr(one.stream, "_audit", audit_late)
    feed.turn(on=False)
    await feed.is_called("subscribe", "start", "stop", "resumed")
    await other.gets(1)
    await log.publish("a")
    await clients[0].gets(3)


async def is_on(node: Node) -> bool:
    return not node.stream._follows_log


async def test_the_channels_are_compared_with_the_log_while_a_broker_brings_messages(
    database: Database, node: tuple[Node, FakeFeed], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "PROBE_SECONDS", 0.05)
    monkeypatch.setattr(streams, "AUDIT_SECONDS", 0.05)
    (one, feed), log = node, Log(database)
    client = await one.subscribe("a")
    feed.turn(on=True)
    await until(lambda: is_on(one))
    await log.store("a", 3)
    await client.gets(3)
    assert "stop" not in feed.calls

    async def has_read() -> bool:
        return feed.log_seq == 3

    await until(has_read)


async def test_a_return_to_the_log_is_completed_although_the_broker_is_back(
    database: Database, node: tuple[Node, FakeFeed], monkeypatch: pytest.MonkeyPatch
) -> None:
    (one, feed), log = node, Log(database)
    client = await one.subscribe("a")
    feed.turn(on=True)
    await until(lambda: is_on(one))
    await log.store("a")
    audit = one.stream._audit

    async def fail(connection: Any) -> tuple[int, set[str]]:
        feed.turn(on=True)
        monkeypatch.setattr(one.stream, "_audit", audit)
        await cut(database, "node")
        return await audit(connection)

    monkeypatch.setattr(one.stream, "_audit", fail)
    feed.turn(on=False)
    await client.gets(1)
    assert feed.calls[:4] == ["subscribe", "start", "stop", "stop"]


async def test_a_new_epoch_is_found_by_a_return_to_the_log(
    database: Database, node: tuple[Node, FakeFeed]
) -> None:
    (one, feed), log = node, Log(database)
    client = await one.subscribe("a")
    await log.publish("a", 2)
    await client.gets(2)
    feed.turn(on=True)
    await until(lambda: is_on(one))
    await log.begin_epoch("another")
    await log.store("a")
    feed.turn(on=False)
    await client.gets(4)
    assert one.hub.epoch == "another"
