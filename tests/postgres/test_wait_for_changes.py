"""The awake relay waits for changes within PostgreSQL, and reads when there are some."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import uuid4

import asyncpg
import pytest

from notifier.database import sql
from notifier.database.connections import connect
from notifier.database.schema import migrate
from notifier.relay.reader import ChangeReader
from tests.databases import Connection, Database
from tests.postgres.relays import MakeRelay, messages_of, new_event, types
from tests.postgres.states import url_of
from tests.waiting import DEADLINE_SECONDS, until

WAIT = sql.adapt("SELECT notifier.wait_for_changes($1, $2)")
SNAPSHOT = "SELECT pg_current_snapshot()::text"
WAITING = """
SELECT EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database()
               AND query LIKE '%wait_for_changes($1, $2)%' AND wait_event = 'PgSleep')
"""


async def waits(database: Database) -> None:
    """Returns when a session waits for changes, and has found none."""
    await until(lambda: database.fetchval(WAITING))


@pytest.mark.parametrize("table", ["changes_0", "changes_1"])
@pytest.mark.parametrize("begins", ["before the snapshot", "after the snapshot"])
async def test_a_wait_ends_when_a_transaction_commits_that_the_snapshot_does_not_see(
    begins: str, table: str, database: Database, app: Connection, company: str
) -> None:
    session = await database.connect()
    if table == "changes_1":
        assert await database.fetchval("SELECT notifier.rotate_changes()") is True
    if begins == "before the snapshot":
        await app.execute("BEGIN")
        await new_event(app, company)
        await session.execute("SELECT pg_current_xact_id()")  # a later one, which ends first
    since = await session.fetchval(SNAPSHOT)
    assert await session.fetchval(WAIT, since, 0.0) is False
    if begins == "after the snapshot":
        await app.execute("BEGIN")
        await new_event(app, company)
    waiting = asyncio.create_task(session.fetchval(WAIT, since, 600.0))
    await waits(database)
    await app.execute("COMMIT")
    assert await asyncio.wait_for(waiting, DEADLINE_SECONDS) is True
    assert await session.fetchval(
        f"SELECT EXISTS (SELECT FROM notifier.{table} WHERE entity = 'Event')"
    )
    assert await session.fetchval(WAIT, await session.fetchval(SNAPSHOT), 0.0) is False


async def test_an_awake_relay_reads_once_for_a_change_that_comes_alone(
    database: Database,
    app: Connection,
    company: str,
    make_relay: MakeRelay,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("notifier.relay.relay.QUIET_SECONDS", 600.0)
    reads = 0
    read_new = ChangeReader.read_new

    async def counted(reader: ChangeReader, cursor: str) -> Any:
        nonlocal reads
        reads += 1
        return await read_new(reader, cursor)

    relay = make_relay()
    await relay.start()
    await new_event(app, company)
    await relay.settled()
    await waits(database)
    monkeypatch.setattr(ChangeReader, "read_new", counted)
    expected = len(await messages_of(database, company))

    async def is_stored() -> bool:
        return len(await messages_of(database, company)) == expected

    for written in (1, 2, 3):
        await new_event(app, company)
        expected += 1
        await until(is_stored)
        await waits(database)
        assert reads == written


async def test_a_relay_that_ends_while_it_waits_opens_no_connection_to_cancel_the_statement(
    database: Database, make_relay: MakeRelay, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("notifier.relay.relay.QUIET_SECONDS", 600.0)
    requests: list[object] = []

    async def recorded(**request: object) -> None:
        requests.append(request)

    monkeypatch.setattr("asyncpg.connect_utils._cancel", recorded)
    relay = make_relay()
    await relay.start()
    await waits(database)
    await relay.stop()
    assert requests == []


async def test_a_wait_that_lasts_too_long_is_given_up_and_the_connection_reads_on(
    database: Database, app: Connection, company: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As PostgreSQL's sleep does where its clock is set back."""
    monkeypatch.setattr("notifier.relay.reader.LATE_SECONDS", 0.05)
    session, other = await connect(database.dsn, "relay reader"), await database.connect()
    reader = ChangeReader(session)
    since = await session.fetchval(SNAPSHOT)
    await new_event(app, company)
    await other.execute("BEGIN; LOCK TABLE notifier.changes_0 IN ACCESS EXCLUSIVE MODE")
    assert await reader.wait_for_new(since, 0.0) is False
    reading = asyncio.create_task(reader.read_new(since))
    await database.blocked()
    await other.execute("ROLLBACK")
    _, changes = await asyncio.wait_for(reading, DEADLINE_SECONDS)
    assert changes is not None
    assert [change.entity for change in changes] == ["Event"]
    session.terminate()


async def test_a_relay_whose_role_may_not_execute_pg_sleep_delivers_and_sleeps(
    database: Database, app: Connection, company: str, make_relay: MakeRelay
) -> None:
    """A database is hardened so, as each call of pg_sleep holds a connection."""
    role = f"relay_{uuid4().hex[:8]}"
    await database.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'app'")
    await migrate(database.dsn, grant=role, calendar=True)
    await database.execute("REVOKE EXECUTE ON FUNCTION pg_sleep(float8) FROM PUBLIC")
    relay = make_relay()
    relay.url = url_of(database, role)
    session = await asyncpg.connect(
        relay.url, server_settings={"default_transaction_deferrable": "on"}
    )
    try:
        since = await session.fetchval(SNAPSHOT)
        assert await session.fetchval(WAIT, since, 600.0, timeout=DEADLINE_SECONDS) is False
        await new_event(app, company)
        assert await session.fetchval(WAIT, since, 600.0) is True
        await relay.start()
        await relay.asleep()
        await new_event(app, company)
        assert types(await relay.messages_of(company)) == ["EventCreated", "EventCreated"]
    finally:
        await session.close()
        await relay.stop()
        await database.execute("GRANT EXECUTE ON FUNCTION pg_sleep(float8) TO PUBLIC")
        await database.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")


async def test_a_relay_whose_waits_last_too_long_reads_without_them_and_sleeps(
    database: Database,
    app: Connection,
    company: str,
    make_relay: MakeRelay,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Otherwise it would wait again at once for as long as looks are slow."""
    monkeypatch.setattr("notifier.relay.reader.LATE_SECONDS", 0.05)
    await database.execute(
        "CREATE OR REPLACE FUNCTION notifier.wait_for_changes(since text, seconds double precision)"
        " RETURNS boolean LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(600); RETURN false; END'"
    )
    relay = make_relay()
    await relay.start()
    for _ in range(2):
        await new_event(app, company)
        await relay.asleep()
    assert types(await relay.messages_of(company)) == ["EventCreated", "EventCreated"]
