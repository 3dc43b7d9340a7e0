"""A relay that freezes at any point: no application waits for it, and another one leads."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from notifier.database.connections import connected
from notifier.database.schema import migrate
from notifier.relay import backlog, leadership, maintenance, reader
from notifier.relay.connection import RelayConnection
from notifier.relay.disk import Disk
from notifier.relay.relay import State
from notifier.relay.store import RelayStore
from tests.databases import Connection, Database
from tests.postgres.relays import Relayed, new_company, new_event, rewrite_event, types
from tests.proxy import Proxy
from tests.waiting import until

MIB = 1024 * 1024
TAKEOVER_SECONDS = 15.0
"""The promise."""


@pytest.fixture
async def proxy(database: Database) -> AsyncIterator[Proxy]:
    """Between one relay and the database."""
    async with Proxy(*database.address) as proxy:
        yield proxy


@pytest.fixture
async def frail(database: Database, proxy: Proxy) -> AsyncIterator[Relayed]:
    """A relay that connects through the proxy, not started."""
    relay = Relayed(database)
    relay.url = database.through(proxy.port)
    yield relay
    proxy.thaw()
    await relay.stop()


async def write(app: Connection, company: str) -> None:
    """Writes enough that capture checks the log's size several times."""
    event = await new_event(app, company)
    await rewrite_event(app, event, 4000)


@pytest.mark.parametrize("answers", range(6))
async def test_writers_never_wait_for_a_relay_that_froze_while_it_truncated_a_table(
    database: Database,
    app: Connection,
    frail: Relayed,
    proxy: Proxy,
    monkeypatch: pytest.MonkeyPatch,
    answers: int,
) -> None:
    await migrate(database.dsn, max_log_bytes=64 * MIB)
    monkeypatch.setattr(maintenance, "AWAKE_SECONDS", 0.0)
    monkeypatch.setattr(maintenance, "ROTATE_BYTES", 64 * 1024)
    truncate, frozen = Disk._truncate, []

    async def truncate_and_freeze(disk: Disk, which: int) -> bool:
        if answers:
            proxy.freeze_after(answers)
        else:
            proxy.freeze()
        frozen.append(which)
        return await truncate(disk, which)

    monkeypatch.setattr(Disk, "_truncate", truncate_and_freeze)
    company = await new_company(app)
    await frail.start()

    async def froze() -> bool:
        await new_event(app, company, "x" * 1000)
        return bool(frozen)

    await until(froze)
    await app.execute("SET lock_timeout = '2s'")
    await write(app, company)


async def test_another_relay_leads_when_one_hangs_within_a_transaction(
    database: Database,
    app: Connection,
    frail: Relayed,
    proxy: Proxy,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    company = await new_company(app)
    other = Relayed(database)
    await frail.start()
    await frail.settled()  # the first read saves the checkpoint as well
    save = RelayStore.save

    async def freeze_and_save(store: RelayStore, **changes: Any) -> None:
        monkeypatch.setattr(RelayStore, "save", save)
        proxy.freeze()
        await save(store, **changes)

    # A backlog of one page: its transaction ends with the checkpoint.
    monkeypatch.setattr(RelayStore, "save", freeze_and_save)
    monkeypatch.setattr(reader, "PAGE", 5)
    monkeypatch.setattr(backlog, "PAGE", 5)
    async with app.transaction():
        for number in range(10):
            await new_event(app, company, str(number))

    async def hangs() -> bool:
        return RelayStore.save is save

    await until(hangs)
    starting = asyncio.create_task(other.start())
    async with asyncio.timeout(TAKEOVER_SECONDS):
        await starting
    titles = [m["Data"]["Title"] for m in await other.messages_of(company)]
    assert titles == [str(number) for number in range(10)]
    await other.stop()


async def test_another_relay_leads_when_the_network_goes_while_one_waits_for_a_lock(
    database: Database, app: Connection, frail: Relayed, proxy: Proxy
) -> None:
    company = await new_company(app)
    operator = await database.connect()
    other = Relayed(database)
    await frail.start()
    async with operator.transaction():
        await operator.execute("LOCK TABLE notifier.messages_0 IN SHARE MODE")
        await new_event(app, company)

        async def waits() -> bool:
            return bool(
                await database.fetchval(
                    "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
                    " AND application_name = 'notifier relay' AND datname = current_database())"
                )
            )

        await until(waits)
        proxy.refuse()
        await proxy.reset()
        starting = asyncio.create_task(other.start())
        async with asyncio.timeout(TAKEOVER_SECONDS):
            await starting
    assert types(await other.messages_of(company)) == ["EventCreated"]
    await other.stop()


async def test_a_relay_notices_at_once_that_its_backend_was_terminated(
    database: Database, relay: Relayed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("notifier.relay.relay.HEARTBEAT_SECONDS", 600.0)
    monkeypatch.setattr("notifier.relay.relay.SLEEPING_READ_SECONDS", 600.0)
    for name in ("notifier relay", "notifier relay reader"):
        await relay.stop()
        await relay.start()
        await relay.asleep()
        assert await database.fetchval(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE application_name = $1 AND datname = current_database()",
            name,
        )

        async def noticed() -> bool:
            return relay.relay is not None and relay.relay.state is State.STANDBY

        await until(noticed, every=0.001)


async def test_a_relay_whose_second_connection_takes_long_does_not_seem_to_hang(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first of several hosts may not answer: another node would terminate each relay that was elected."""
    monkeypatch.setattr(leadership, "ELECTION_SECONDS", 0.05)
    opened = asyncio.Event()

    @asynccontextmanager
    async def slowly(url: str, name: str, **settings: Any) -> AsyncIterator[Connection]:
        if name == "relay reader":
            await opened.wait()
        async with connected(url, name, **settings) as connection:
            yield connection

    monkeypatch.setattr(leadership, "connected", slowly)
    relay = Relayed(database)
    starting = asyncio.create_task(relay.start())

    async def is_used() -> bool:
        return bool(
            await database.fetchval(
                "SELECT EXISTS (SELECT FROM notifier.log, notifier.relay_holders(log.relay_lock) AS h"
                " JOIN pg_stat_activity AS a USING (pid) WHERE a.query = 'SELECT')"
            )
        )

    try:
        await until(is_used)
        opened.set()
        await starting
    finally:
        starting.cancel()
        await relay.stop()


async def test_a_frozen_relay_is_followed_where_the_server_tracks_no_activities(
    database: Database,
    app: Connection,
    frail: Relayed,
    proxy: Proxy,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Then no node can see that its session is idle: PostgreSQL ends it."""
    await database.execute(f"ALTER DATABASE {database.name} SET track_activities = off")
    beat = RelayConnection.beat

    async def beat_and_freeze(connection: RelayConnection) -> None:
        await beat(connection)
        proxy.freeze()  # no call has been sent since

    other = Relayed(database)

    async def is_frozen() -> bool:
        return proxy.frozen

    with monkeypatch.context() as patched:
        patched.setattr("notifier.relay.relay.HEARTBEAT_SECONDS", 0.0)
        patched.setattr(RelayConnection, "beat", beat_and_freeze)
        await frail.start()
        await until(is_frozen)
    starting = asyncio.create_task(other.start())
    try:
        # 12 s pass until the session ends, and 2 s between elections
        async with asyncio.timeout(2 * TAKEOVER_SECONDS):
            await starting
    finally:
        starting.cancel()
        await asyncio.gather(starting, return_exceptions=True)
        await other.stop()


async def test_another_relay_leads_when_one_hangs_between_the_messages_of_a_statement(
    database: Database, frail: Relayed, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The driver prepares a statement and runs it with two messages. In between no timeout of PostgreSQL ends the session."""

    async def prepare_without_answers(connection: RelayConnection) -> None:
        async with connection.exclusive() as writer:
            proxy.one_way()
            await writer.fetchrow("SELECT 1 AS not_prepared_before", timeout=60)

    other = Relayed(database)

    async def waits_for_the_second() -> bool:
        return bool(
            await database.fetchval(
                "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE state = 'active' AND wait_event = 'ClientRead'"
                " AND application_name = 'notifier relay' AND datname = current_database())"
            )
        )

    with monkeypatch.context() as patched:
        patched.setattr("notifier.relay.relay.HEARTBEAT_SECONDS", 0.0)
        patched.setattr(RelayConnection, "beat", prepare_without_answers)
        await frail.start()
        await until(waits_for_the_second)
        proxy.freeze()
    starting = asyncio.create_task(other.start())
    try:
        async with asyncio.timeout(TAKEOVER_SECONDS):
            await starting
    finally:
        starting.cancel()
        await asyncio.gather(starting, return_exceptions=True)
        await other.stop()


async def test_the_tables_of_changes_stay_locked_by_a_frozen_reader_for_a_limited_time(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A large transaction is read with a cursor, in a transaction, in which nothing else may end the session."""
    monkeypatch.setattr(leadership, "CURSOR_MILLISECONDS", "50")
    async with leadership.lead(database.dsn) as led:
        await led.reader.execute("BEGIN; SELECT FROM notifier.changes")

        async def is_unlocked() -> bool:
            query = (
                "SELECT EXISTS (SELECT FROM pg_locks WHERE relation = 'notifier.changes'::regclass)"
            )
            return not await database.fetchval(query)

        await until(is_unlocked)
