"""Many concurrent writers and one relay: every committed change is sent exactly once."""

from __future__ import annotations

import asyncio
import random
from collections import defaultdict
from contextlib import suppress
from uuid import uuid4

import asyncpg
import pytest

from notifier import metrics
from notifier.database.schema import migrate
from notifier.watches import Watch
from tests.databases import Connection, Database
from tests.postgres.relays import Relayed, messages_of, new_company
from tests.waiting import until

WRITERS = 8
TRANSACTIONS = 120
SINGLE = 100_000
ROWS = 12

Ledger = dict[str, list[int]]
"""The committed versions of each row, in the order of its lock."""


async def write(number: int, connection: Connection, rows: list[str], ledger: Ledger) -> None:
    """Runs transactions of all kinds; each write of a row increments its version."""
    chance = random.Random(number)

    async def touch(committed: dict[str, int]) -> None:
        row = chance.choice(rows)
        committed[row] = await connection.fetchval(
            "UPDATE employees SET job_title = (job_title::int + 1)::text, name = $2 WHERE id = $1"
            " RETURNING job_title::int",
            row,
            f"{number} {uuid4().hex}",
        )

    for _ in range(TRANSACTIONS):
        committed: dict[str, int] = {}
        transaction = connection.transaction()
        await transaction.start()
        try:
            for _ in range(chance.randint(1, 3)):
                if chance.random() < 0.3:
                    ghosts: dict[str, int] = {}
                    savepoint = connection.transaction()
                    await savepoint.start()
                    await touch(ghosts)
                    if chance.random() < 0.5:
                        await savepoint.rollback()
                    else:
                        await savepoint.commit()
                        committed |= ghosts
                else:
                    await touch(committed)
            if chance.random() < 0.1:
                await asyncio.sleep(
                    chance.random() * 0.2
                )  # commits later than others that began later
            if chance.random() < 0.2:
                await transaction.rollback()
                continue
            await transaction.commit()
        except (asyncpg.DeadlockDetectedError, asyncpg.InFailedSQLTransactionError):
            await transaction.rollback()
            continue
        for row, version in committed.items():
            ledger[row].append(version)


@pytest.mark.slow
@pytest.mark.parametrize("doorbell", [True, False], ids=["doorbell", "no doorbell"])
async def test_every_committed_change_is_sent_exactly_once(
    doorbell: bool, database: Database, app: Connection
) -> None:
    relay = Relayed(database, doorbell=doorbell)
    await relay.start()
    finds = metrics.FALLBACK_FINDS._value.get()
    companies = [await new_company(app, str(number)) for number in range(3)]
    rows = [
        str(
            await app.fetchval(
                "INSERT INTO employees (company_id, name, job_title) VALUES ($1, '', '0')"
                " RETURNING id",
                companies[number % 3],
            )
        )
        for number in range(ROWS)
    ]
    ledger: Ledger = defaultdict(list)
    long = await database.connect()
    await long.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
    await long.execute("INSERT INTO companies (name) VALUES ('long')")
    writers = [await database.connect(app=True) for _ in range(WRITERS)]
    async with asyncio.TaskGroup() as tasks:
        for number, connection in enumerate(writers):
            tasks.create_task(write(number, connection, rows, ledger))
    await long.execute("COMMIT")

    versions_received: Ledger = defaultdict(list)
    for company in companies:
        for message in await relay.messages_of(company):
            if message["Type"] == "EmployeeUpdated":
                version = int(message["Data"]["JobTitle"])
                versions_received[message["Data"]["EmployeeId"]].append(version)
                assert int(message["Old"]["JobTitle"]) < version
    await relay.handed_over()
    await relay.stop()
    assert versions_received == {row: sorted(versions) for row, versions in ledger.items()}
    assert len(relay.published) == await database.fetchval("SELECT count(*) FROM notifier.messages")
    assert metrics.FALLBACK_FINDS._value.get() == finds


@pytest.mark.slow
async def test_b4_a_hundred_thousand_transactions_on_one_row_by_eight_writers_are_sent_one_by_one(
    database: Database,
) -> None:
    relay = Relayed(database)
    await relay.start()
    finds = metrics.FALLBACK_FINDS._value.get()
    companies = [await new_company(database, str(number)) for number in range(WRITERS)]
    writers = [await database.connect(app=True) for _ in companies]
    each = SINGLE // WRITERS
    await asyncio.gather(
        *(
            connection.execute(
                f"""
                DO $$ BEGIN
                    FOR n IN 1..{each} LOOP
                        INSERT INTO employees (company_id, name)
                        VALUES ('{companies[number // 2]}', '{number}:' || n);
                        COMMIT;
                    END LOOP;
                END $$
                """
            )
            for number, connection in enumerate(writers)
        )
    )

    async def stored() -> bool:
        count = await database.fetchval("SELECT count(*) FROM notifier.messages")
        return bool(count == each * WRITERS)

    await until(stored, seconds=120, every=0.5)
    for company in companies[: WRITERS // 2]:
        names: dict[str, list[int]] = defaultdict(list)
        for message in await relay.messages_of(company):
            assert message["Type"] == "EmployeeAdded"
            writer, _, n = message["Data"]["Name"].partition(":")
            names[writer].append(int(n))
        assert list(map(len, names.values())) == [each, each]
        assert all(numbers == list(range(1, each + 1)) for numbers in names.values())
    await relay.handed_over()
    await relay.stop()
    assert len(relay.published) == await database.fetchval("SELECT count(*) FROM notifier.messages")
    assert metrics.FALLBACK_FINDS._value.get() == finds


@pytest.mark.slow
async def test_no_write_is_missed_while_the_relay_falls_asleep(
    database: Database, app: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Writes come just when the relay falls asleep, again and again."""
    monkeypatch.setattr(
        "notifier.relay.relay.SLEEPING_READ_SECONDS", 600.0
    )  # only the doorbell wakes it
    relay = Relayed(database)
    await relay.start()
    company = await new_company(app)
    chance = random.Random(1)
    writers = [await database.connect(app=True) for _ in range(4)]

    async def write_now_and_then(connection: Connection) -> None:
        for number in range(60):
            await connection.execute(
                "INSERT INTO employees (company_id, name) VALUES ($1, $2)", company, str(number)
            )
            await asyncio.sleep(chance.random() * 0.08)  # about as long as it takes to fall asleep

    async with asyncio.TaskGroup() as tasks:
        for connection in writers:
            tasks.create_task(write_now_and_then(connection))

    async def all_stored() -> bool:
        return len(await messages_of(database, company)) == 240

    await until(all_stored)  # without another write, which would ring too
    await relay.stop()


MEDDLE = """
CREATE TABLE things (id int PRIMARY KEY, company text, value int);
CREATE FUNCTION meddle() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    what CONSTANT int := floor(random() * 9);
    which CONSTANT int := 1 + floor(random() * 6);
BEGIN
    IF pg_trigger_depth() > 3 THEN
        RETURN NULL;
    END IF;
    CASE what
        WHEN 0 THEN UPDATE things SET value = value + 1 WHERE id <> which;
        WHEN 1 THEN UPDATE things SET value = value - 1 WHERE id = which;
        WHEN 2 THEN DELETE FROM things WHERE id = which;
        WHEN 3 THEN INSERT INTO things VALUES (which, 'a', 0)
                    ON CONFLICT (id) DO UPDATE SET value = things.value / 2;
        WHEN 4 THEN UPDATE things SET company = CASE company WHEN 'a' THEN 'b' ELSE 'a' END
                    WHERE id = which;
        WHEN 5 THEN UPDATE things SET id = which + 10 WHERE id = which;
        ELSE NULL;
    END CASE;
    RETURN NULL;
END $$;
CREATE TRIGGER a_trigger AFTER INSERT OR UPDATE OR DELETE ON things
FOR EACH ROW EXECUTE FUNCTION meddle();
CREATE TRIGGER z_trigger AFTER INSERT OR UPDATE OR DELETE ON things
FOR EACH ROW EXECUTE FUNCTION meddle();
"""

MEDDLED = (
    "INSERT INTO things SELECT n, 'b', n FROM generate_series(1, 4) AS n ON CONFLICT DO NOTHING",
    "INSERT INTO things VALUES (5, 'a', 0) ON CONFLICT (id) DO UPDATE SET value = 1",
    "UPDATE things SET value = value + 1 WHERE value % 2 = 0",
    "DELETE FROM things WHERE id IN (1, 15)",
)


async def test_nested_triggers_never_hide_the_last_version_of_a_row(
    database: Database, relay: Relayed
) -> None:
    await database.execute(MEDDLE)
    companies = Watch(table="companies", entity="Company", company="id", created="")
    things = Watch(table="things", entity="Thing", company="company")
    await migrate(database.dsn, watches=[companies, things])
    await database.execute("SELECT setseed(0.5)")
    for number in range(200):
        with suppress(asyncpg.UniqueViolationError):  # it was moved onto an existing key
            await database.execute(MEDDLED[number % len(MEDDLED)])
    for company in ("a", "b"):
        rows: dict[int, int] = {}
        for message in await relay.messages_of(company):
            row = message["Data"]["ThingId"]
            assert (row in rows) is (message["Type"] != "ThingCreated")
            if message["Type"] == "ThingDeleted":
                assert rows.pop(row) == message["Data"]["Value"]
            else:
                assert message.get("Old", {}).get("Value", rows.get(row)) == rows.get(row)
                rows[row] = message["Data"]["Value"]
        query = "SELECT id, value FROM things WHERE company = $1"
        assert rows == {row["id"]: row["value"] for row in await database.fetch(query, company)}
    assert await database.fetchval("SELECT count(*) FROM notifier.messages") > 200
