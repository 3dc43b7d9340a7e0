"""Problems of a watch that the catalogue shows: `migrate` refuses it with the remedy, `check` and /readyz report it."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import asyncpg
import pytest

from notifier.database.connections import connect, listener
from notifier.database.schema import migrate
from notifier.delivery.probe import Probe
from notifier.errors import DatabaseError, SettingsError
from notifier.watches import CALENDAR, Watch
from tests.databases import Connection, Database
from tests.postgres.relays import new_company
from tests.postgres.test_functions import unsound

EVENT, EMPLOYEE, COMPANY = CALENDAR


async def refused(database: Database, *watches: Watch) -> str:
    with pytest.raises(SettingsError) as caught:
        await migrate(database.dsn, watches=[*CALENDAR, *watches])
    assert "\n" not in str(caught.value)
    return str(caught.value)


async def probed(database: Database) -> tuple[list[str], list[str]]:
    """The problems that make a node unready, and the warnings that do not."""
    link, probe = await connect(database.dsn, "test"), Probe()
    try:
        await link.add_listener("notifier_messages", listener(probe.receive))
        found = await probe.run(link)
    finally:
        link.terminate()
    return list(found["problems"]), list(found["warnings"])


# --- row 15: keys that are not unique


@pytest.mark.parametrize(
    "index",
    [
        "",
        "ALTER TABLE docs ADD PRIMARY KEY (id, part)",
        "CREATE UNIQUE INDEX ON docs (id) WHERE part > 0",
        "CREATE UNIQUE INDEX ON docs ((id + 0))",
        "CREATE UNIQUE INDEX ON docs (company_id)",
        "CREATE INDEX ON docs (id)",
        "CREATE UNIQUE INDEX ON docs (id); ALTER TABLE docs ALTER id DROP NOT NULL",
    ],
)
async def test_row_15_a_key_without_a_unique_index_is_refused(
    database: Database, index: str
) -> None:
    await database.execute(
        f"CREATE TABLE docs (id int NOT NULL, part int, company_id text); {index}"
    )
    message = await refused(database, Watch(table="docs", entity="Doc"))
    assert "no unique index proves that id names one row; create one on id" in message


@pytest.mark.parametrize(
    "key",
    [
        "PRIMARY KEY (id)",
        "UNIQUE (company_id, id)",
        "UNIQUE (id) DEFERRABLE INITIALLY DEFERRED",
        "UNIQUE (id) INCLUDE (part)",
    ],
)
async def test_row_15_an_index_on_the_key_or_on_key_and_company_is_enough(
    database: Database, key: str
) -> None:
    await database.execute(f"CREATE TABLE docs (id int NOT NULL, part int, company_id text, {key})")
    await migrate(database.dsn, watches=[*CALENDAR, Watch(table="docs", entity="Doc")])


async def test_an_index_that_could_not_be_completed_proves_nothing(database: Database) -> None:
    """CREATE INDEX CONCURRENTLY leaves it behind where it finds a duplicate."""
    await database.execute("CREATE TABLE docs (id int NOT NULL, company_id text)")
    await database.execute("INSERT INTO docs VALUES (1, 'c'), (1, 'c')")
    with pytest.raises(asyncpg.UniqueViolationError):
        await database.execute("CREATE UNIQUE INDEX CONCURRENTLY docs_id ON docs (id)")
    message = await refused(database, Watch(table="docs", entity="Doc"))
    assert "no unique index proves that id names one row" in message
    await database.execute("TRUNCATE docs; REINDEX INDEX docs_id")
    await migrate(database.dsn, watches=[*CALENDAR, Watch(table="docs", entity="Doc")])


async def test_row_15_check_reports_a_unique_index_that_is_gone(database: Database) -> None:
    await database.execute("ALTER TABLE events DROP CONSTRAINT events_pkey CASCADE")
    assert any("no unique index proves that id" in line for line in await unsound(database))


# --- F1, F5: one table twice, two columns for one property; near misses


@pytest.mark.parametrize(
    ("column", "property_name"),
    [("event_id", "EventId"), ('"eventId"', "EventId"), ("company_Id", "CompanyId")],
)
async def test_f5_columns_that_would_share_a_property_are_refused(
    database: Database, column: str, property_name: str
) -> None:
    quoted = column if column.startswith('"') else f'"{column}"'
    await database.execute(f"ALTER TABLE events ADD {quoted} text")
    message = await refused(database)
    assert f"would both be sent as {property_name}; add rename = {{ " in message


@pytest.mark.parametrize(
    ("table", "meant"),
    [("EventType", '"EventType"'), ('"Events"', "events"), ("evnets", "events")],
)
async def test_row_1_2_a_table_that_is_spelled_in_another_way_is_named(
    database: Database, table: str, meant: str
) -> None:
    await database.execute('CREATE TABLE "EventType" (id int PRIMARY KEY, company_id text)')
    assert f"did you mean {meant}?" in await refused(database, Watch(table=table, entity="Type"))


async def test_row_1_2_a_column_may_be_quoted_and_a_near_miss_is_named(database: Database) -> None:
    await database.execute('CREATE TABLE docs (id int PRIMARY KEY, "teamId" text)')
    message = await refused(database, Watch(table="docs", entity="Doc", company="team_id"))
    assert message == "table docs has no column team_id; did you mean teamId?"
    watch = Watch(table="docs", entity="Doc", company='"teamId"')
    await migrate(database.dsn, watches=[*CALENDAR, watch])
    assert watch.company == "teamId"


# --- row 11: tables under tables


async def test_row_11_a_table_that_inherits_is_refused_and_reported(database: Database) -> None:
    await database.execute("CREATE TABLE online_events () INHERITS (events)")
    assert "rows of public.online_events, which inherits from it, are not captured" in (
        await refused(database)
    )
    assert any("public.online_events" in line for line in await unsound(database))
    problems, _ = await probed(database)
    assert problems == [
        "tables inherit from watched ones and are not captured: public.online_events"
    ]


async def test_row_11_a_later_partition_lacks_its_truncate_trigger_until_migrate(
    database: Database,
) -> None:
    await database.execute(
        "CREATE TABLE docs (id int PRIMARY KEY, company_id text) PARTITION BY RANGE (id);"
        "CREATE TABLE docs_1 PARTITION OF docs FOR VALUES FROM (1) TO (10)"
    )
    watches = [*CALENDAR, Watch(table="docs", entity="Doc")]
    await migrate(database.dsn, watches=watches)
    assert await probed(database) == ([], [])
    await database.execute(
        "CREATE TABLE docs_2 PARTITION OF docs FOR VALUES FROM (10) TO (20);"
        "ALTER TABLE docs DETACH PARTITION docs_1"
    )
    assert await probed(database) == ([], ["leftover public.docs_1", "trigger public.docs_2"])
    lines = " ".join(await unsound(database))
    assert "trigger notifier_capture_truncate on public.docs_2 is missing" in lines
    assert "trigger notifier_capture_truncate on public.docs_1 is not needed" in lines
    await migrate(database.dsn, watches=watches)
    assert await probed(database) == ([], [])


# --- F7, rows 16 and 17: what an application's DDL takes away


async def test_f7_one_table_that_is_gone_is_no_reason_for_all_to_be_unready(
    database: Database,
) -> None:
    await database.execute("DROP TABLE events")
    assert await probed(database) == ([], ["table public.events"])
    remedy = "create it or remove its [[watch]], then run: notifier migrate"
    assert f"the watched table public.events is gone; {remedy}" in await unsound(database)


async def test_row_1_25_migrate_names_the_remedy_for_a_table_that_is_gone(
    database: Database,
) -> None:
    message = await refused(database, Watch(table="workspace_7.person", entity="Person"))
    assert message == "no table workspace_7.person to watch; create it, or remove its [[watch]]"
    await database.execute("DROP TABLE events")
    assert "notifier migrate --calendar" in await refused(database)


async def test_f7_without_the_table_of_members_no_one_can_be_let_in(database: Database) -> None:
    await database.execute("DROP TABLE employees CASCADE")
    problems, _ = await probed(database)
    assert problems == ["watched tables are gone: public.employees"]


@pytest.mark.parametrize(
    ("table", "column"),
    [
        ("employees", "user_id"),  # row 16: member
        ("events", "location"),  # row 17: exclude
        ("events", "company_id"),
        ("employees", "id"),
    ],
)
@pytest.mark.parametrize("change", ["RENAME {} TO other", "DROP {} CASCADE"])
async def test_rows_16_and_17_a_column_that_is_gone_is_reported(
    database: Database, table: str, column: str, change: str
) -> None:
    watches = [replace(EVENT, exclude=("location",)), EMPLOYEE, COMPANY]
    await migrate(database.dsn, watches=watches)
    await database.execute(f"ALTER TABLE {table} {change.format(column)}")
    problems, _ = await probed(database)
    assert f"watched columns are gone: public.{table}.{column}" in problems
    assert await unsound(database)


# --- 1.24b: locks


async def test_row_1_24b_a_migrate_that_gives_up_names_the_table_and_lets_writers_through(
    database: Database, app: Connection
) -> None:
    company = await new_company(app)
    other = await database.connect(app=True)
    await database.execute("DROP TRIGGER notifier_capture ON events")
    await database.execute("DROP TRIGGER notifier_capture ON companies")
    done = asyncio.Event()

    async def write() -> None:
        await other.execute("SET statement_timeout = '10s'")
        while not done.is_set():
            await other.execute(
                "INSERT INTO events (company_id, title, starts_at, ends_at) VALUES ($1, '', now(), now())",
                company,
            )

    async with app.transaction():
        await app.execute("UPDATE companies SET name = 'held' WHERE id = $1", company)
        writing = asyncio.create_task(write())
        with pytest.raises(DatabaseError, match=r"table public\.companies is locked"):
            await migrate(database.dsn)
        done.set()
        await writing
