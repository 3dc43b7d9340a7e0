"""Case 18: a role without rights on our tables can hold any advisory lock, and stops nothing by it."""

from __future__ import annotations

import asyncio
from pathlib import Path

import asyncpg
import pytest

from notifier.check.links import check
from notifier.database import sql
from notifier.database.constants import DOORBELL_LOCK, MIGRATION_LOCK
from notifier.database.schema import migrate
from notifier.relay.relay import State
from notifier.settings import load
from notifier.watches import CALENDAR, Watch
from tests.databases import Connection, Database
from tests.postgres.relays import Relayed, log_head, new_company, new_event, rewrite_event, types
from tests.services import SECRET
from tests.waiting import until

MIB = 1024 * 1024


@pytest.fixture
async def intruder(database: Database) -> Connection:
    """A session of the application's role, which has no right on the schema `notifier`."""
    return await database.connect(app=True)


async def key_of(database: Database) -> int:
    return int(await database.fetchval("SELECT relay_lock FROM notifier.log"))


async def holders(database: Database) -> list[bool]:
    """For each session that holds the present lock, whether it is one of ours."""
    rows = await database.fetch(
        "SELECT h.is_ours FROM notifier.log, notifier.relay_holders(relay_lock) AS h"
    )
    return [row["is_ours"] for row in rows]


@pytest.mark.parametrize("function", ["pg_advisory_lock", "pg_advisory_lock_shared"])
async def test_case_18_a_relay_leads_although_another_role_holds_its_lock(
    function: str, database: Database, app: Connection, company: str, intruder: Connection
) -> None:
    key = await key_of(database)
    await intruder.execute(f"SELECT {function}($1)", key)
    relay = Relayed(database)
    await relay.start()
    assert await key_of(database) != key
    await new_event(app, company)
    assert types(await relay.messages_of(company)) == ["EventCreated"]
    await relay.stop()


async def test_the_statement_of_the_operations_page_finds_the_relay(
    database: Database, relay: Relayed
) -> None:
    page = (Path(__file__).parents[2] / "docs/operations.md").read_text()
    statement = page.partition("```sql\n")[2].partition("```")[0]
    rows = await database.fetch(statement)
    assert [row["application_name"] for row in rows] == ["notifier relay"]


async def test_a_lock_that_another_role_got_between_two_relays_is_replaced(
    database: Database, app: Connection, company: str, intruder: Connection
) -> None:
    """The keys of locks that are held can be read in pg_locks: an intruder can queue for one."""
    first, second = Relayed(database), Relayed(database)
    await first.start()
    epoch, _ = await log_head(database)
    key = await key_of(database)
    queued = asyncio.create_task(intruder.execute("SELECT pg_advisory_lock($1)", key))
    await database.blocked()
    await first.stop()
    await queued
    await second.start()
    assert await key_of(database) != key
    await new_event(app, company)
    assert types(await second.messages_of(company)) == ["EventCreated"]
    assert (await log_head(database))[0] == epoch, "a new key is no reason for a new epoch"
    await second.stop()


async def test_of_many_nodes_one_leads_after_the_key_was_replaced(
    database: Database, intruder: Connection, app: Connection, company: str
) -> None:
    await intruder.execute("SELECT pg_advisory_lock($1)", await key_of(database))
    relays = [Relayed(database) for _ in range(4)]
    starting = [asyncio.create_task(relay.start()) for relay in relays]
    await asyncio.wait(starting, return_when=asyncio.FIRST_COMPLETED)
    await intruder.close()
    leader = next(r for r, task in zip(relays, starting, strict=True) if task.done())
    await new_event(app, company)
    assert types(await leader.messages_of(company)) == ["EventCreated"]
    assert await holders(database) == [True]
    leading = [r.relay for r in relays if r.relay and r.relay.state is not State.STANDBY]
    assert leading == [leader.relay]
    for task in starting:
        task.cancel()
    await asyncio.gather(*starting, return_exceptions=True)
    for relay in relays:
        await relay.stop()


async def test_a_key_that_a_node_has_taken_is_not_replaced(database: Database) -> None:
    node, other = await database.connect(), await database.connect()
    key = await key_of(database)
    assert await node.fetchval("SELECT notifier.elect()") == "elected"
    assert await other.fetchval("SELECT notifier.elect()") == "standby"
    assert await key_of(database) == key


async def test_a_lock_whose_key_was_replaced_meanwhile_is_given_back(database: Database) -> None:
    """The session gets the old key's lock just when another one replaces the key."""
    node, other = await database.connect(), await database.connect()
    key = await key_of(database)
    async with other.transaction():
        await other.execute("UPDATE notifier.log SET relay_lock = relay_lock + 1")
        electing = asyncio.create_task(node.fetchval("SELECT notifier.elect()"))
        await database.blocked()
    assert await electing == "retry"
    assert await database.fetch("SELECT * FROM notifier.relay_holders($1)", key) == []
    assert await node.fetchval("SELECT notifier.elect()") == "elected"


async def test_a_lock_of_another_role_does_not_count_as_a_relay(
    database: Database, intruder: Connection
) -> None:
    await intruder.execute("SELECT pg_advisory_lock($1)", await key_of(database))
    (probe,) = await database.fetch(sql.query("probe"), "", 10.0)
    assert probe["relay"] is False


async def test_case_18_the_disk_stays_bounded_whatever_advisory_locks_are_held(
    database: Database, app: Connection, intruder: Connection
) -> None:
    await migrate(database.dsn, max_log_bytes=2 * MIB)
    for key in range(DOORBELL_LOCK - 1, DOORBELL_LOCK + 9):  # the doorbell's and its neighbours
        await intruder.execute("SELECT pg_advisory_lock($1)", key)
    event = await new_event(app, await new_company(app))
    for _ in range(6):
        await rewrite_event(app, event, 600)
    assert int(await database.fetchval("SELECT notifier.log_bytes()")) < 3 * MIB


async def test_the_lock_of_the_sequence_is_one_that_only_our_roles_can_take(
    database: Database, intruder: Connection
) -> None:
    for mode in ("ROW SHARE", "EXCLUSIVE"):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await intruder.execute(f"BEGIN; LOCK TABLE notifier.log IN {mode} MODE")
        await intruder.execute("ROLLBACK")
    writer, relay = await database.connect(), await database.connect()
    async with writer.transaction():
        assert await writer.fetchval("SELECT notifier.lock_sequence()")
        assert not await relay.fetchval("SELECT notifier.rotate_changes()")
    async with relay.transaction():
        assert await relay.fetchval("SELECT notifier.rotate_changes()")
        assert not await writer.fetchval("SELECT notifier.lock_sequence()")


async def test_migrate_waits_for_another_one_and_for_no_role_without_rights(
    database: Database, intruder: Connection
) -> None:
    lock = "SELECT pg_advisory_lock($1)", sql.lock(MIGRATION_LOCK)
    await intruder.execute(*lock)
    await database.execute("DROP TRIGGER notifier_capture ON events")
    lines: list[str] = []
    await asyncio.gather(
        *(asyncio.wait_for(migrate(database.dsn, report=lines.append), 60) for _ in range(3))
    )
    assert lines == ["trigger notifier_capture on public.events: created"]
    await intruder.execute("SELECT pg_advisory_unlock_all()")
    other = await database.connect()
    await other.execute(*lock)
    await database.execute("DROP TRIGGER notifier_capture ON events")
    migrating = asyncio.create_task(migrate(database.dsn, report=lines.append))
    await until(lambda: _has_looked_for_the_holder(database))
    assert not migrating.done()
    await other.close()
    await migrating
    assert len(lines) == 2


async def test_a_migrate_that_has_the_lock_waits_for_one_that_runs_without_it(
    database: Database,
) -> None:
    """Another may run without the advisory lock: a role without rights held it, or it was released just then."""
    other = await database.connect()
    await other.execute("BEGIN; LOCK TABLE notifier.version IN SHARE UPDATE EXCLUSIVE MODE")
    migrating = asyncio.create_task(migrate(database.dsn))
    waiting = "SELECT EXISTS (SELECT FROM pg_locks WHERE relation = 'notifier.version'::regclass AND NOT granted)"

    async def waits() -> bool:
        return bool(await database.fetchval(waiting))

    await until(waits)
    await other.execute("COMMIT")
    await migrating


async def _has_looked_for_the_holder(database: Database) -> bool:
    return bool(
        await database.fetchval(
            "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database()"
            " AND application_name = 'notifier migrate' AND query LIKE '%r.rolsuper OR %')"
        )
    )


async def test_a_lock_on_a_partition_holds_up_neither_the_relay_nor_the_probe(
    database: Database, app: Connection, intruder: Connection
) -> None:
    """Such as one of a long ALTER TABLE, or of the owner of that table alone."""
    await database.execute("GRANT CREATE ON SCHEMA public TO app")
    await intruder.execute(
        """CREATE TABLE parts (id int PRIMARY KEY, company_id text) PARTITION BY RANGE (id);
           CREATE TABLE parts_0 PARTITION OF parts FOR VALUES FROM (0) TO (10) PARTITION BY RANGE (id);
           CREATE TABLE parts_00 PARTITION OF parts_0 FOR VALUES FROM (0) TO (5)"""
    )
    watches = (*CALENDAR, Watch(table="parts", entity="Part"))
    await migrate(database.dsn, watches=watches)
    company = await new_company(app)
    await intruder.execute("BEGIN; LOCK TABLE parts_00 IN ACCESS EXCLUSIVE MODE")
    relay = Relayed(database)
    await relay.start()
    await new_event(app, company)
    assert types(await relay.messages_of(company)) == ["EventCreated"]
    found = await check(load({}, database_url=database.dsn, watch=watches, jwt_secret=SECRET))
    assert [finding for finding in found if finding.sound is False] == []
    await intruder.execute("ROLLBACK")
    await relay.stop()


NUMBERS = """
SELECT CASE WHEN $2 THEN c.reltoastrelid ELSE i.indexrelid END FROM pg_class AS c JOIN pg_index AS i ON i.indrelid = c.oid
WHERE c.relnamespace = 'notifier'::regnamespace AND c.relname ~ $1
"""

TRUNCATE = "SELECT notifier.truncate_changes($1, pg_current_snapshot()::text, 0)"


async def lock_by_number(intruder: Connection, numbers: list[int]) -> None:
    """Locks relations on which the role has no rights: nextval takes the lock before it finds that they are no sequences."""
    await intruder.execute("BEGIN")
    for number in numbers:
        await intruder.execute("SAVEPOINT before")
        with pytest.raises(asyncpg.PostgresError):
            await intruder.execute(f"SELECT nextval({number}::regclass)")
        await intruder.execute("ROLLBACK TO before")
    held = "SELECT count(DISTINCT relation) FROM pg_locks WHERE relation = ANY ($1) AND pid = pg_backend_pid()"
    assert await intruder.fetchval(held, numbers) == len(set(numbers))


@pytest.mark.parametrize("is_toast", [False, True])
async def test_the_relay_does_not_wait_for_a_lock_on_an_index_with_its_table_locked(
    database: Database, intruder: Connection, is_toast: bool
) -> None:
    """TRUNCATE locks it as well. Writers and nodes would wait with the relay, whose call misses its deadline."""
    rows = await database.fetch(NUMBERS, "^(changes_[01]|messages_1)$", is_toast)
    await database.execute(
        "INSERT INTO notifier.messages (slot, seq, company, position, at, body) VALUES (1, 1, 'c', 1, now(), '{}')"
    )
    await lock_by_number(intruder, [row[0] for row in rows])
    await database.execute("SET statement_timeout = '5s'")
    for table in (0, 1):
        assert await database.fetchval(TRUNCATE, table) is False
    await database.execute("SELECT notifier.reopen()")
    prune = "SELECT notifier.prune(1, pg_current_snapshot()::text, 1)"
    assert await database.fetchval(prune) is None
    assert await database.fetchval("SELECT pg_relation_size('notifier.positions')") == 0
    await intruder.execute("ROLLBACK")
    assert await database.fetchval(TRUNCATE, 0) is True
    assert await database.fetchval(prune) is not None
