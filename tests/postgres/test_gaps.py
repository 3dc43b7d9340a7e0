"""When capture was off, missing or repaired, every company gets a Resync once it works again."""

from __future__ import annotations

import pytest

from notifier.database.schema import migrate
from notifier.watches import CALENDAR, Watch
from tests.databases import Connection, Database
from tests.postgres.relays import Json, Relayed, messages_of, new_event, types
from tests.waiting import until


@pytest.fixture(autouse=True)
def maintenance_is_always_due(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("notifier.relay.maintenance.AWAKE_SECONDS", 0.0)
    monkeypatch.setattr("notifier.relay.maintenance.ASLEEP_SECONDS", 0.0)
    monkeypatch.setattr("notifier.relay.relay.SLEEPING_READ_SECONDS", 0.1)


async def resyncs(database: Database, company: str, count: int = 1) -> list[Json]:
    """The messages of a company, as soon as that many of them are Resyncs."""

    async def resynced() -> bool:
        return types(await messages_of(database, company)).count("Resync") >= count

    await until(resynced)
    return await messages_of(database, company)


async def started(database: Database, company: str, relay: Relayed) -> None:
    """The company is known, and the relay has seen the triggers."""
    await new_event(database, company, "before")
    await relay.looked()


async def test_case_12_a_table_that_was_swapped_by_rename_is_resynced_after_migrate(
    database: Database, company: str, relay: Relayed
) -> None:
    await started(database, company, relay)
    await database.execute(
        "CREATE TABLE events_new (LIKE events INCLUDING ALL); INSERT INTO events_new SELECT * FROM events;"
        "ALTER TABLE events RENAME TO events_old; ALTER TABLE events_new RENAME TO events;"
        "GRANT ALL ON events TO app"
    )
    await new_event(database, company, "missed")
    await migrate(database.dsn)
    last = (await resyncs(database, company))[-1]
    assert last["Data"]["Reason"] == "truncate"
    await new_event(database, company, "after")
    assert types(await relay.messages_of(company)) == ["EventCreated", "Resync", "EventCreated"]


@pytest.mark.parametrize("at_once", [False, True], ids=["for a while", "in one transaction"])
async def test_case_12_disabled_triggers_are_a_resync_when_they_are_enabled(
    at_once: bool, database: Database, company: str, relay: Relayed
) -> None:
    await started(database, company, relay)
    off = "ALTER TABLE events DISABLE TRIGGER USER"
    on = "ALTER TABLE events ENABLE TRIGGER USER"
    if at_once:  # as pg_restore --disable-triggers does
        await database.execute(f"BEGIN; {off}; DELETE FROM events; {on}; COMMIT")
    else:
        await database.execute(off)
        await new_event(database, company, "missed")
        await relay.settled()
        assert types(await messages_of(database, company)) == ["EventCreated"]
        await database.execute(on)
    await resyncs(database, company)
    revokes = await database.fetchval(
        "SELECT revokes FROM notifier.messages WHERE company = $1 AND position = 2", company
    )
    assert revokes is None
    await relay.settled()
    assert types(await messages_of(database, company)) == ["EventCreated", "Resync"]


async def test_uncaptured_members_are_a_resync_that_rechecks_every_user(
    database: Database, company: str, relay: Relayed
) -> None:
    await started(database, company, relay)
    await database.execute(
        "BEGIN; ALTER TABLE employees DISABLE TRIGGER USER; DELETE FROM employees;"
        "ALTER TABLE employees ENABLE TRIGGER USER; COMMIT"
    )
    await resyncs(database, company)
    revokes = await database.fetchval(
        "SELECT revokes FROM notifier.messages WHERE company = $1 AND position = 2", company
    )
    assert revokes == ["*"]


async def test_a_gap_while_no_relay_runs_is_found_by_the_next(
    database: Database, company: str, relay: Relayed
) -> None:
    await started(database, company, relay)
    await relay.stop()
    await database.execute(
        "DROP TRIGGER notifier_capture ON events; DROP TRIGGER notifier_capture_truncate ON events"
    )
    await new_event(database, company, "missed")
    await migrate(database.dsn)
    await relay.start()
    assert types(await resyncs(database, company)) == ["EventCreated", "Resync"]


async def test_case_5_8_tables_that_were_dropped_and_loaded_again_are_resynced(
    database: Database, company: str, relay: Relayed
) -> None:
    await started(database, company, relay)
    await database.execute("DROP TABLE events, employees, companies CASCADE")
    await migrate(database.dsn, calendar=True)
    assert types(await resyncs(database, company)) == ["EventCreated", "Resync"]


async def test_case_5_7_a_table_that_becomes_partitioned_is_resynced_after_migrate(
    database: Database, company: str, relay: Relayed
) -> None:
    await started(database, company, relay)
    await database.execute(
        "ALTER TABLE events RENAME TO events_old;"
        "CREATE TABLE events (LIKE events_old INCLUDING DEFAULTS, PRIMARY KEY (id, company_id))"
        " PARTITION BY HASH (company_id);"
        "CREATE TABLE events_0 PARTITION OF events FOR VALUES WITH (MODULUS 1, REMAINDER 0);"
        "INSERT INTO events SELECT * FROM events_old"
    )
    watches = [watch for watch in CALENDAR if watch.entity != "Event"]
    await migrate(database.dsn, watches=[*watches, Watch(table="events", entity="Event")])
    assert types(await resyncs(database, company)) == ["EventCreated", "Resync"]


async def test_a_disabled_trigger_of_a_partition_is_a_gap_but_partitions_come_and_go(
    database: Database, app: Connection, company: str, relay: Relayed
) -> None:
    await database.execute(
        "CREATE TABLE docs (id int PRIMARY KEY, company_id text) PARTITION BY RANGE (id);"
        "CREATE TABLE docs_1 PARTITION OF docs FOR VALUES FROM (0) TO (10);"
        "GRANT ALL ON docs TO app"
    )
    await migrate(database.dsn, watches=[*CALENDAR, Watch(table="docs", entity="Doc")])
    await app.execute("INSERT INTO docs VALUES (1, 'c')")
    await relay.looked()
    await database.execute("CREATE TABLE docs_2 PARTITION OF docs FOR VALUES FROM (10) TO (20)")
    await relay.settled()
    await database.execute("DROP TABLE docs_2")
    await relay.settled()
    assert types(await relay.messages_of("c")) == ["DocCreated"]
    await database.execute(
        "BEGIN; ALTER TABLE docs_1 DISABLE TRIGGER USER; INSERT INTO docs VALUES (2, 'c');"
        "ALTER TABLE docs_1 ENABLE TRIGGER USER; COMMIT"
    )
    assert types(await resyncs(database, "c")) == ["DocCreated", "Resync"]


async def test_a_trigger_that_migrate_replaces_is_a_gap(
    database: Database, company: str, relay: Relayed
) -> None:
    await started(database, company, relay)
    watches = [watch for watch in CALENDAR if watch.entity != "Event"]
    both = [Watch(table="events", entity="Event"), Watch(table="events", entity="Meeting")]
    await migrate(database.dsn, watches=[*watches, *both])
    assert types(await resyncs(database, company)) == ["EventCreated", "Resync"]


async def test_harmless_changes_of_a_table_are_no_gap(
    database: Database, company: str, relay: Relayed
) -> None:
    await started(database, company, relay)
    for statement in (
        "ALTER TABLE events ADD COLUMN note text",
        "CREATE INDEX ON events (title)",
        "ALTER TABLE events RENAME COLUMN location TO place",
        "VACUUM FULL events",
        "VACUUM FULL pg_trigger",
        "ANALYZE events",
    ):
        await database.execute(statement)
        await relay.settled()
    await migrate(database.dsn)
    await relay.settled()
    await relay.stop()
    await relay.start()
    assert types(await relay.messages_of(company)) == ["EventCreated"]


async def test_a_table_that_becomes_a_partition_under_its_own_name_is_migrated(
    database: Database, relay: Relayed
) -> None:
    """PostgreSQL clones the trigger of the new table to the old one, which still has its own."""
    watches = [*CALENDAR, Watch(table="docs", entity="Doc")]
    await database.execute("CREATE TABLE docs (id int PRIMARY KEY, company_id text)")
    await migrate(database.dsn, watches=watches)
    await database.execute("INSERT INTO docs VALUES (1, 'c')")
    await relay.looked()
    await database.execute(
        "ALTER TABLE docs RENAME TO docs_old;"
        "CREATE TABLE docs (LIKE docs_old, PRIMARY KEY (id)) PARTITION BY RANGE (id);"
        "ALTER TABLE docs ATTACH PARTITION docs_old FOR VALUES FROM (0) TO (100);"
        "CREATE TABLE docs_2 PARTITION OF docs FOR VALUES FROM (100) TO (200)"
    )
    await migrate(database.dsn, watches=watches)
    assert types(await resyncs(database, "c")) == ["DocCreated", "Resync"]
    await database.execute("INSERT INTO docs VALUES (3, 'c'), (103, 'c')")
    assert types(await relay.messages_of("c"))[2:] == ["DocCreated", "DocCreated"]
    assert await database.fetch("SELECT * FROM notifier.watch_problems()") == []


async def test_a_trigger_that_is_replaced_stays_enabled_always(database: Database) -> None:
    """So that rows which a subscription applies are captured."""
    states = (
        "SELECT string_agg(tgenabled::text, '' ORDER BY tgname) FROM pg_trigger"
        " WHERE tgrelid = 'events'::regclass AND NOT tgisinternal"
    )
    await database.execute("ALTER TABLE events ENABLE ALWAYS TRIGGER notifier_capture")
    assert await database.fetchval(states) == "AO"
    events = Watch(table="events", entity="Event", exclude=("description",))
    await migrate(database.dsn, watches=[events, *CALENDAR[1:]])
    assert await database.fetchval(states) == "AO"
