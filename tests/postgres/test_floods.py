"""Floods of notifications by a role that may only connect: neither a node nor the relay is held up by them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from notifier.database import floods
from notifier.delivery import postgres_stream as streams
from notifier.relay.doorbell import Doorbell
from notifier.relay.leadership import lead
from tests.databases import Connection, Database
from tests.postgres.relays import MakeRelay, new_event, types
from tests.postgres.streams import Log, Node
from tests.waiting import until

LINK = (
    "SELECT pid FROM pg_stat_activity WHERE application_name = $1 AND datname = current_database()"
)


@pytest.fixture(autouse=True)
def few_are_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(floods, "LIMIT", 100)


async def flood(stranger: Connection, channel: str) -> None:
    await stranger.execute(
        f"SELECT pg_notify('{channel}', 'x' || n) FROM generate_series(1, 500) AS n"
    )


async def test_a_node_polls_after_a_flood_and_listens_again_later(
    log: Log, make_node: Callable[..., Node], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a million notifications on the way it would read no answer in time."""
    monkeypatch.setattr(streams, "PROBE_SECONDS", 1.0)
    stranger, node = await log.database.connect(app=True), make_node()
    await node.start()
    subscriber = await node.subscribe()
    before = await log.database.fetchval(LINK, "notifier node")
    await flood(stranger, "notifier_messages")

    async def is_another() -> bool:
        pid = await log.database.fetchval(LINK, "notifier node")
        return pid is not None and pid != before

    await until(is_another)
    await node.reports("no node holds the relay lock")
    present = await log.database.fetchval(LINK, "notifier node")
    await flood(stranger, "notifier_messages")
    await log.store("a", 3)  # without a notification
    await subscriber.gets(3)
    await log.store("a", 2)
    await subscriber.gets(5)
    assert await log.database.fetchval(LINK, "notifier node") == present
    assert not subscriber.is_dropped

    node.stream._flood._until = 0.0  # later

    async def listens() -> bool:
        await flood(stranger, "notifier_messages")
        return bool(await log.database.fetchval(LINK, "notifier node") != present)

    await until(listens)
    await log.store("a")
    await subscriber.gets(6)


async def test_a_relay_does_not_sleep_after_a_flood_of_rings(
    database: Database, app: Connection, company: str, make_relay: MakeRelay
) -> None:
    stranger, relay = await database.connect(app=True), make_relay()
    await relay.start()
    await relay.asleep()
    before = await database.fetchval(LINK, "notifier relay")
    await flood(stranger, "notifier_changes")

    async def is_another() -> bool:
        pid = await database.fetchval(LINK, "notifier relay")
        return pid is not None and pid != before

    await until(is_another)
    for number in range(3):
        await new_event(app, company, str(number))
        await relay.settled()
    present = await database.fetchval(LINK, "notifier relay")
    await flood(stranger, "notifier_changes")
    assert types(await relay.messages_of(company)) == ["EventCreated"] * 3
    assert not await database.doorbell_is_armed()
    assert await database.fetchval(LINK, "notifier relay") == present

    assert relay.relay is not None
    relay.relay._flood._until = 0.0  # later
    await relay.asleep()
    await new_event(app, company, "after it")
    assert types(await relay.messages_of(company)) == ["EventCreated"] * 4


async def test_a_relay_listens_again_while_its_link_is_in_use(database: Database) -> None:
    """The heartbeat may wait for its answer when the pause ends."""
    stranger = await database.connect(app=True)
    await stranger.execute("SELECT pg_advisory_lock(1)")
    async with lead(database.dsn) as leadership:
        beating = asyncio.create_task(leadership.writer.fetchrow("SELECT pg_advisory_lock(1)"))
        await database.blocked()
        arming = asyncio.create_task(Doorbell(leadership, floods.Flood()).arm())
        await stranger.execute("SELECT pg_advisory_unlock(1)")  # `arm` begins before the answer
        await beating
        assert await arming


def test_a_flood_is_so_many_notifications_within_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    flood = floods.Flood()
    for _ in range(3):
        assert not any(flood.begins() for _ in range(100))
        now += 1.1
    assert not any(flood.begins() for _ in range(100))
    assert not flood.is_on
    assert flood.begins()
    assert flood.is_on
    now += floods.PAUSE_SECONDS
    assert not flood.is_on
