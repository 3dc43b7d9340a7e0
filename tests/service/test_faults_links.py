"""The way to the database is long, narrow, lossy or cut; the relay gets stuck; the log comes from elsewhere."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Sequence
from functools import partial
from typing import Any

import psutil
import pytest

from notifier import health, watchdogs
from notifier.database import connections
from notifier.delivery import history, postgres_stream
from notifier.delivery.history import History
from notifier.demo.postgres import EmbeddedPostgres
from notifier.relay.changes import Change
from notifier.relay.reader import ChangeReader
from tests.chaos.local import LocalNode
from tests.conftest import Connect, Serve
from tests.databases import Database
from tests.proxy import Proxy
from tests.service.calendars import Calendar, positions
from tests.service.test_faults_database import (
    begin,
    not_ready,
    reason,
    reconnects,
    terminate,
)
from tests.service.test_floods import metric
from tests.waiting import until

BLACK_HOLE_SECONDS = float(os.environ.get("NOTIFIER_TEST_BLACK_HOLE_SECONDS", "5"))
"""How long the black hole stays after it was found out; the world's are longer."""


@pytest.fixture
async def proxy(database: Database) -> AsyncIterator[Proxy]:
    """The way to the database."""
    async with Proxy(*database.address) as proxy:
        yield proxy


# --- stuck


async def test_a_relay_that_makes_no_progress_in_a_backlog_is_found_out(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health, "STUCK_SECONDS", 0.5)
    monkeypatch.setattr(postgres_stream, "PROBE_SECONDS", 0.1)
    for module in ("reader", "backlog"):
        monkeypatch.setattr(f"notifier.relay.{module}.PAGE", 25)
    go_on, changes_of = asyncio.Event(), ChangeReader.changes_of
    pages: list[object] = []

    async def stick(reader: ChangeReader, xids: Sequence[int]) -> list[Change]:
        pages.append(xids)
        if len(pages) > 1:
            await go_on.wait()
        return await changes_of(reader, xids)

    monkeypatch.setattr(ChangeReader, "changes_of", stick)
    calendar = Calendar(database)
    company = await calendar.add_company("u1")
    for _ in range(2):  # a page each
        await calendar.events(company, 20)
    node = LocalNode(database.dsn)
    starting = asyncio.create_task(node.start())

    async def red() -> bool:
        return "stuck" in (node.node.health.reason() or "")

    await until(red)
    go_on.set()
    await calendar.reaches(company, 41)

    async def green() -> bool:
        return node.node.health.reason() is None

    await until(green)
    await starting
    await node.stop()


# --- a server that waits for everybody to go


async def test_a3_a_smart_shutdown_does_not_wait_for_us(
    mortal: EmbeddedPostgres, mortal_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watchdogs, "SHUTDOWN_SECONDS", 0.2)
    calendar = Calendar(mortal_database)
    company = await calendar.add_company("u1")
    node = LocalNode(mortal_database.dsn)
    await node.start()
    _, voice = await node.visit("u1", company)
    mortal_database.leave()
    server = psutil.Process(mortal.pid)
    server.terminate()

    async def ended() -> bool:
        return not server.is_running() or server.status() == psutil.STATUS_ZOMBIE

    await until(ended)

    async def lost() -> bool:
        return node.node.health.reason() is not None

    await until(lost)
    await asyncio.to_thread(mortal.stop)
    await asyncio.to_thread(mortal.start)
    await calendar.event(company)

    async def arrived() -> bool:
        return bool(voice.messages[-1]["Type"] == "EventCreated")

    await until(arrived)
    await node.stop()


# --- the listener, again and again


async def test_a4_a_listener_that_is_ended_again_and_again_fills_each_gap_and_waits_longer(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    attempts: list[int] = []

    async def at_once(attempt: int) -> None:
        attempts.append(attempt)

    monkeypatch.setattr(connections, "backoff", at_once)
    node, calendar = LocalNode(database.dsn), Calendar(database)
    await node.start()
    company = await calendar.company("u1")
    _, voice = await node.visit("u1", company)
    for count in range(1, 6):

        async def ended(before: int = count) -> bool:
            await terminate(database, "node")
            return len(attempts) >= before

        await until(ended, every=0.2)  # the fault's own rhythm
        await calendar.event(company)

        async def filled(behind: int = count) -> bool:
            return len(positions(voice.messages)) >= behind

        await until(filled)
    assert attempts == list(range(1, len(attempts) + 1))
    assert positions(voice.messages[2:]) == [2, 3, 4, 5, 6]
    await node.stop()


@pytest.mark.parametrize("answers", range(1, 9))
async def test_a10_wherever_setting_up_and_catching_up_is_cut_there_is_no_gap(
    database: Database, monkeypatch: pytest.MonkeyPatch, answers: int
) -> None:
    """Behind so many answers of the database: before LISTEN, behind it, between two pages."""
    monkeypatch.setattr(postgres_stream, "PAGE_MESSAGES", 10)
    async with Proxy(*database.address) as proxy:
        relay = LocalNode(database.dsn)
        node = LocalNode(database.dsn, listen_database_url=database.through(proxy.port))
        calendar = Calendar(database)
        await relay.start()
        await node.start()
        company = await calendar.company("u1")
        _, voice = await node.visit("u1", company)
        proxy.refuse()
        await proxy.cut()
        await calendar.events(company, 45)
        await calendar.reaches(company, 46)
        proxy.freeze_after(answers)
        await proxy.accept()
        await until(partial(frozen, proxy))
        proxy.thaw()
        await proxy.reset()

        async def level() -> bool:
            return positions(voice.messages)[-1:] == [46]

        await until(level)
        assert positions(voice.messages[2:]) == list(range(2, 47))
        await node.stop()
        await relay.stop()


async def frozen(proxy: Proxy) -> bool:
    return proxy.frozen


# --- the network


@pytest.mark.timeout(300 + BLACK_HOLE_SECONDS)
async def test_a6_after_a_long_black_hole_everything_arrives_and_one_relay_leads(
    database: Database, serve: Serve, connect: Connect, proxy: Proxy
) -> None:
    service = await serve(database.through(proxy.port))
    flow = await begin(database, connect, service)
    proxy.freeze()
    await flow.write(5)
    assert "answer" in await not_ready(service)  # no answer in time, or none for 10 s
    await asyncio.sleep(BLACK_HOLE_SECONDS)  # the fault's own length
    await flow.write(5)
    assert await reason(service) is not None
    proxy.thaw()
    await flow.level()
    await service.ready()


async def test_a7_on_a_link_that_loses_a_fifth_everything_arrives(
    database: Database, serve: Serve, connect: Connect, proxy: Proxy
) -> None:
    service = await serve(database.through(proxy.port))
    flow = await begin(database, connect, service)
    proxy.lose(0.2)
    for _ in range(10):
        await flow.write(10)
        await flow.level()
    proxy.lose(0.0)
    await service.ready()


async def test_a8_on_a_long_and_narrow_link_the_heartbeat_does_not_flap(
    database: Database, serve: Serve, connect: Connect, proxy: Proxy
) -> None:
    service = await serve(database.through(proxy.port))
    flow = await begin(database, connect, service)
    proxy.delay(0.15)  # there, and back
    proxy.throttle(16_000)
    for _ in range(3):
        await flow.write(20)
        await flow.level()
        assert await reason(service) is None
    # Each was a way there and a way back late, and the metric says so.
    assert await metric(service, "notifier_lag_seconds_sum") > 0.15 * 3
    for stage in ("read", "store", "receive"):
        assert await metric(service, f'notifier_stage_seconds_sum{{stage="{stage}"}}') > 0.3
    assert await reconnects(service) == 0


# --- locks


async def test_a25_while_the_log_is_rewritten_writers_and_clients_go_on(
    database: Database, serve: Serve, connect: Connect
) -> None:
    flow = await begin(database, connect, await serve(database))
    operator, done = await database.connect(), asyncio.Event()

    async def rewrite() -> None:
        while not done.is_set():
            for table in ("changes_0", "changes_1", "messages", "positions", "log"):
                await operator.execute(f"VACUUM FULL notifier.{table}")
                await operator.execute(f"ALTER TABLE notifier.{table} ADD COLUMN of_theirs int")
                await operator.execute(f"ALTER TABLE notifier.{table} DROP COLUMN of_theirs")

    rewriting = asyncio.create_task(rewrite())
    for _ in range(5):
        await flow.write(20)
    done.set()
    await rewriting
    await flow.level()


# --- a crash


async def test_a1_delivered_messages_survive_a_crash_though_the_application_commits_asynchronously(
    mortal: EmbeddedPostgres, mortal_database: Database, serve: Serve, connect: Connect
) -> None:
    await mortal_database.execute("ALTER SYSTEM SET wal_writer_delay = '10s'")
    await mortal_database.execute("SELECT pg_reload_conf()")
    await mortal_database.execute(
        f"ALTER DATABASE {mortal_database.name} SET synchronous_commit = 'off'"
    )
    mortal_database.leave()
    service = await serve(mortal_database)
    flow = await begin(mortal_database, connect, service)
    assert await mortal_database.fetchval("SHOW synchronous_commit") == "off"
    for _ in range(3):
        await flow.write(5)
        await flow.level()
        await asyncio.to_thread(mortal.kill)
        await asyncio.to_thread(mortal.start)
        await service.ready()
    await flow.write(5)
    await flow.level()  # no position was given twice


# --- old messages


async def test_a28_a_replay_whose_messages_are_pruned_is_reported_as_not_recovered(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history, "PAGE_MESSAGES", 10)
    node, calendar = LocalNode(database.dsn), Calendar(database)
    await node.start()
    company = await calendar.company("u1")
    await calendar.events(company, 40)
    await calendar.reaches(company, 41)
    epoch = node.node.hub.epoch
    await node.stop()
    load, loads = History._load_pages, []

    async def load_and_prune(self: History, wanted: Any) -> Any:
        pages = await load(self, wanted)
        loads.append(wanted)
        if len(loads) == 1:
            await database.execute(
                "INSERT INTO notifier.positions VALUES ($1, 41)"
                " ON CONFLICT (company) DO UPDATE SET position = 41",
                company,
            )
            await database.execute("DELETE FROM notifier.messages WHERE position <= 20")
        return pages

    monkeypatch.setattr(History, "_load_pages", load_and_prune)
    await node.start()
    _, voice = await node.visit("u1", company, 1, epoch)

    async def was_reported() -> bool:
        return voice.closure is not None or voice.messages[-1]["Type"] == "Resync"

    await until(was_reported)
    received = positions(
        [message for message in voice.messages if message["Type"] == "EventCreated"]
    )
    assert received == list(range(2, 2 + len(received)))
    assert len(received) < 40
    await node.stop()
