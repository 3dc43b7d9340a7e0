"""A changed `notifier.toml`: `migrate` reports each field and what it means, running relays take it at once."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from notifier.database.schema import migrate, uninstall
from notifier.errors import DatabaseError, SettingsError
from notifier.watches import CALENDAR, Watch
from tests.databases import Connection, Database
from tests.postgres.relays import Relayed, new_company, new_event, types
from tests.waiting import until

EVENT, EMPLOYEE, COMPANY = CALENDAR


def with_event(**fields: Any) -> list[Watch]:
    """The calendar with another watch of events."""
    return [replace(EVENT, **fields), EMPLOYEE, COMPANY]


async def lines_of(database: Database, watches: list[Watch], *, dry_run: bool = True) -> list[str]:
    lines: list[str] = []
    await migrate(database.dsn, watches=watches, dry_run=dry_run, report=lines.append)
    return [line for line in lines if not line.startswith(("trigger", "nothing"))]


# --- 6.1: every field in a dry run


async def test_row_6_1_a_dry_run_shows_a_changed_member_and_changes_nothing(
    database: Database,
) -> None:
    watches = [EVENT, replace(EMPLOYEE, member="email"), COMPANY]
    expected = ["employees: member user_id → email: every company gets a Resync"]
    assert await lines_of(database, watches) == expected
    assert await lines_of(database, watches, dry_run=False) == expected
    assert await lines_of(database, watches) == []


# --- F17, F18, F19: what a running relay makes of it


async def test_f17_a_new_company_column_counts_from_the_first_row_and_is_a_resync(
    database: Database, app: Connection, relay: Relayed
) -> None:
    former, latter = await new_company(app), await new_company(app)
    event = await new_event(app, former)
    assert types(await relay.messages_of(former)) == ["EventCreated"]
    await database.execute("ALTER TABLE events RENAME company_id TO tenant")
    await database.execute("ALTER TABLE events ADD owner uuid")
    await migrate(database.dsn, watches=with_event(company="owner"))
    await app.execute("UPDATE events SET owner = $1 WHERE id = $2", latter, event)
    assert "EventCreated" in types(await relay.messages_of(latter))
    # The relay may send a Resync more, because it sees that triggers are new.
    assert set(types(await relay.messages_of(former))[1:]) == {"Resync"}


async def test_f18_a_new_member_column_is_a_resync_that_rechecks_every_user(
    database: Database, app: Connection, relay: Relayed
) -> None:
    company = await new_company(app)
    await new_event(app, company)
    await relay.settled()
    await migrate(database.dsn, watches=[EVENT, replace(EMPLOYEE, member="email"), COMPANY])
    messages = await relay.messages_of(company)
    assert types(messages) == ["EventCreated", "Resync"]
    resyncs = [message for _, message in relay.published if b'"Resync"' in message.body]
    assert {message.revokes for message in resyncs} == {("*",)}


async def test_new_names_of_messages_are_used_at_once_after_a_resync(
    database: Database, app: Connection, relay: Relayed
) -> None:
    company = await new_company(app)
    await new_event(app, company)
    await relay.settled()
    await migrate(database.dsn, watches=with_event(created="Planned"))
    await new_event(app, company)
    assert types(await relay.messages_of(company)) == ["EventCreated", "Resync", "Planned"]


async def test_f19_a_new_exclude_leaves_no_former_value_in_the_log(
    database: Database, app: Connection, relay: Relayed
) -> None:
    company = await new_company(app)
    await app.execute(
        "INSERT INTO events (company_id, title, location, starts_at, ends_at)"
        " VALUES ($1, 't', 'a secret place', now(), now())",
        company,
    )
    await relay.settled()
    epoch = await database.fetchval("SELECT epoch FROM notifier.log")
    await migrate(database.dsn, watches=with_event(exclude=("location",)))
    for table, column in (("messages", "body"), ("changes", "new")):
        assert not await database.fetchval(
            f"SELECT count(*) FROM notifier.{table} WHERE {column}::text LIKE '%secret%'"
        )

    async def has_begun() -> bool:
        return bool(await database.fetchval("SELECT epoch FROM notifier.log") != epoch)

    await until(has_begun)
    messages = await database.fetch("SELECT body::text FROM notifier.messages ORDER BY seq")
    assert '"Resync"' in messages[0][0]


async def test_f19_a_relay_that_starts_later_begins_the_epoch(
    database: Database, app: Connection, relay: Relayed
) -> None:
    company = await new_company(app)
    await new_event(app, company)
    await relay.settled()
    await relay.stop()
    epoch = await database.fetchval("SELECT epoch FROM notifier.log")
    await migrate(database.dsn, watches=with_event(exclude=("location",)))
    assert await database.fetchval("SELECT count(*) FROM notifier.messages") == 0
    await relay.start()
    assert await database.fetchval("SELECT epoch FROM notifier.log") != epoch


async def test_another_entity_is_a_resync_as_changes_of_the_former_one_are_dropped(
    database: Database, app: Connection, relay: Relayed
) -> None:
    company = await new_company(app)
    event = await new_event(app, company)
    before = types(await relay.messages_of(company))
    await relay.stop()
    await app.execute("UPDATE events SET title = 'unread' WHERE id = $1", event)
    watches = with_event(entity="Meeting", updated="MeetingUpdated")
    lines = await lines_of(database, watches, dry_run=False)
    assert "events: entity Event → Meeting: every company gets a Resync" in lines
    await app.execute("UPDATE events SET title = 'read' WHERE id = $1", event)
    await relay.start()
    assert types(await relay.messages_of(company)) == [*before, "Resync", "MeetingUpdated"]


# --- F20: no fall-back to the calendar


@pytest.mark.parametrize(
    ("fields", "lost"),
    [
        ({"exclude": ("description",)}, "exclude -description"),
        ({"updated": "Moved"}, "updated Moved → EventUpdated"),
        ({"entity": "Meeting"}, "no longer watched as Meeting"),
    ],
)
async def test_f20_without_the_file_migrate_is_refused_and_names_what_would_be_lost(
    database: Database, fields: dict[str, object], lost: str
) -> None:
    await migrate(database.dsn, watches=with_event(**fields))
    with pytest.raises(SettingsError, match="NOTIFIER_CONFIG") as caught:
        await migrate(database.dsn)
    assert lost in str(caught.value)
    await migrate(database.dsn, calendar=True)
    assert await lines_of(database, list(CALENDAR)) == []


async def test_the_calendar_needs_no_file(database: Database) -> None:
    await migrate(database.dsn)


# --- F15, F21, row 9: what migrate made, and what it did not


SCHEMA_ONLY = "TRUNCATE notifier.version, notifier.configuration, notifier.log, notifier.watches, notifier.grants"
"""What a dump of the definitions alone leaves."""


async def test_f15_a_copy_without_rows_is_healed(database: Database, app: Connection) -> None:
    await database.execute(SCHEMA_ONLY)
    await migrate(database.dsn)
    relay = Relayed(database)
    await relay.start()
    company = await new_company(app)
    await new_event(app, company)
    assert types(await relay.messages_of(company)) == ["EventCreated"]
    await relay.stop()


@pytest.mark.parametrize(
    "theirs",
    [
        "CREATE TABLE notifier.subscriptions (id int)",
        "CREATE TABLE notifier.messages (id int)",
        "CREATE FUNCTION notifier.notify() RETURNS int LANGUAGE sql AS 'SELECT 1'",
        "CREATE TYPE notifier.mood AS ENUM ('glad')",
    ],
)
async def test_f21_a_foreign_schema_is_neither_adopted_nor_dropped(
    database: Database, theirs: str
) -> None:
    await uninstall(database.dsn)
    await database.execute(f"CREATE SCHEMA notifier; {theirs}")
    with pytest.raises(DatabaseError, match="a schema notifier that migrate did not make"):
        await migrate(database.dsn)
    lines: list[str] = []
    await uninstall(database.dsn, report=lines.append)
    assert lines == ["schema notifier: left alone, migrate did not make it"]
    assert await database.fetchval("SELECT to_regnamespace('notifier') IS NOT NULL")


async def test_f21_what_others_put_into_the_schema_outlives_uninstall(database: Database) -> None:
    await database.execute("CREATE TABLE notifier.theirs AS SELECT 1 AS id")
    lines: list[str] = []
    await uninstall(database.dsn, report=lines.append)
    assert lines[-1] == (
        "schema notifier: emptied, but kept: it holds objects that migrate did not make"
    )
    rows = await database.fetch(
        "SELECT relname FROM pg_class WHERE relnamespace = 'notifier'::regnamespace"
    )
    assert [row[0] for row in rows] == ["theirs"]


async def test_an_empty_schema_that_was_there_before_is_kept(database: Database) -> None:
    await uninstall(database.dsn)
    await database.execute("CREATE SCHEMA notifier")
    await migrate(database.dsn)
    await uninstall(database.dsn)
    assert await database.fetchval("SELECT to_regnamespace('notifier') IS NOT NULL")


async def test_uninstall_does_not_drop_a_view_that_reads_the_log(database: Database) -> None:
    await database.execute("CREATE VIEW board AS SELECT company FROM notifier.messages")
    with pytest.raises(DatabaseError, match=r"view public\.board depends on"):
        await uninstall(database.dsn)
    assert await database.fetchval("SELECT count(*) FROM board") == 0


TRIGGERS = "SELECT count(*) FROM pg_trigger WHERE tgname LIKE 'notifier%'"
NEEDS = {
    "a view": "CREATE VIEW theirs AS SELECT id FROM notifier.changes",
    "a function's view": "CREATE VIEW theirs AS SELECT notifier.system()",
    "a default": "CREATE TABLE theirs (id bigint DEFAULT nextval('notifier.change_ids'))",
    "a column": "CREATE TABLE theirs (id int, row notifier.messages)",
}


@pytest.mark.parametrize("needs", NEEDS.values(), ids=NEEDS)
async def test_uninstall_drops_no_trigger_where_others_need_our_objects_while_writers_are_busy(
    database: Database, needs: str
) -> None:
    before = await database.fetchval(TRIGGERS)
    writer = await database.connect()
    async with writer.transaction():
        await new_company(writer)
        await database.execute(needs)
        with pytest.raises(
            DatabaseError, match=r"something else needs .*theirs.* depends on .*notifier\."
        ):
            await uninstall(database.dsn)
    assert await database.fetchval(TRIGGERS) == before
    kind = "VIEW" if "VIEW" in needs else "TABLE"
    await database.execute(f"DROP {kind} theirs")
    await uninstall(database.dsn)


async def test_uninstall_drops_no_trigger_without_the_rights_of_each_owner(
    database: Database,
) -> None:
    """TRIGGER on a table is enough for migrate, but only its owner can drop a trigger."""
    before = await database.fetchval(TRIGGERS)
    await database.execute(
        "ALTER TABLE events OWNER TO app; ALTER TABLE employees OWNER TO app;"
        "GRANT USAGE ON SCHEMA notifier TO app; GRANT SELECT ON ALL TABLES IN SCHEMA notifier TO app"
    )
    for statement, refusal in (
        ("SELECT", r"schema notifier belongs to .* can drop what is in it"),
        (
            "ALTER SCHEMA notifier OWNER TO app",
            r"table public\.companies belongs to .* its triggers",
        ),
    ):
        await database.execute(statement)
        with pytest.raises(DatabaseError, match=refusal):
            await uninstall(database.app_dsn)
        assert await database.fetchval(TRIGGERS) == before
    await database.execute("ALTER TABLE companies OWNER TO app")
    await uninstall(database.app_dsn)
    assert not await database.fetchval(TRIGGERS)
