"""A column that is excluded from now on: none of its former values stays readable in the log."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from uuid import uuid4

import pytest

from notifier.check.links import check
from notifier.database import sql
from notifier.database.constants import TABLE_BIT
from notifier.database.schema import migrate
from notifier.errors import SettingsError
from notifier.messages import Message
from notifier.relay.reader import PAGE
from notifier.relay.store import RelayStore
from notifier.settings import load
from notifier.watches import CALENDAR, Watch
from tests.databases import Connection, Database
from tests.postgres.relays import Relayed, log_head, messages_of, new_event, types
from tests.waiting import until

EVENT, EMPLOYEE, COMPANY = CALENDAR
EXCLUDED = [replace(EVENT, exclude=("location",)), EMPLOYEE, COMPANY]

SECRET = "a secret place"


@pytest.fixture
def maintenance_is_never_due(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("notifier.relay.maintenance.AWAKE_SECONDS", 1e9)
    monkeypatch.setattr("notifier.relay.maintenance.ASLEEP_SECONDS", 1e9)


async def new_secrets(app: Connection, company: str, count: int = 1) -> None:
    """Inserts events, a hundred in a transaction, whose location is SECRET."""
    for first in range(0, count, 100):
        await app.execute(
            "INSERT INTO events (company_id, title, location, starts_at, ends_at)"
            " SELECT $1, n::text, $2, now(), now() FROM generate_series(1, $3::int) AS n",
            company,
            SECRET,
            min(100, count - first),
        )


async def secrets(database: Database) -> int:
    """The rows of the log in which SECRET can be read."""
    return int(
        await database.fetchval(
            "SELECT (SELECT count(*) FROM notifier.messages WHERE body::text LIKE $1)"
            " + (SELECT count(*) FROM notifier.changes WHERE concat(old, new) LIKE $1)",
            f"%{SECRET}%",
        )
    )


async def epoch_after(database: Database, before: str) -> None:
    """Returns when another epoch has begun."""

    async def begun() -> bool:
        return (await log_head(database))[0] != before

    await until(begun)


@pytest.mark.usefixtures("maintenance_is_never_due")
@pytest.mark.parametrize("table", [0, 1])
async def test_the_mark_of_migrate_begins_an_epoch_from_either_table_of_changes(
    table: int, database: Database, app: Connection, company: str
) -> None:
    await database.execute(f"SELECT setval('notifier.change_ids', {(table << TABLE_BIT) + 1000})")
    relay = Relayed(database)
    await relay.start()
    try:
        await new_secrets(app, company)
        await relay.settled()
        before, _ = await log_head(database)
        await migrate(database.dsn, watches=EXCLUDED)
        await epoch_after(database, before)
        assert await database.fetchval(
            f"SELECT count(*) FROM notifier.changes_{table} WHERE entity = '' AND partial"
        )
        assert await secrets(database) == 0
        assert types(await messages_of(database, company)) == ["Resync"]
    finally:
        await relay.stop()


@pytest.mark.parametrize("count", [1, PAGE + 500], ids=["one batch", "pages of a backlog"])
async def test_what_was_rendered_before_is_not_stored_afterwards(
    count: int,
    database: Database,
    app: Connection,
    company: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The relay has read and rendered the changes, and stores the messages after `migrate`."""
    rendered, go_on = asyncio.Event(), asyncio.Event()
    readable: list[int] = []
    append = RelayStore.append

    async def held(store: RelayStore, messages: Sequence[Message], cursor: str | None) -> None:
        if any(SECRET.encode() in message.body for message in messages):
            rendered.set()
            await go_on.wait()
            await append(store, messages, cursor)
            readable.append(await secrets(database))
        else:
            await append(store, messages, cursor)

    monkeypatch.setattr(RelayStore, "append", held)
    await database.execute(sql.query("register_companies"), [company])
    await new_secrets(app, company, count)
    relay = Relayed(database)
    await relay.start()
    try:
        await rendered.wait()
        before, _ = await log_head(database)
        await migrate(database.dsn, watches=EXCLUDED)
        go_on.set()
        await epoch_after(database, before)
        assert not any(readable)
        await new_event(app, company, "after")
        messages = await relay.messages_of(company)
        assert types(messages) == ["Resync", "EventCreated"]
        assert "Location" not in messages[1]["Data"]
        assert await secrets(database) == 0
    finally:
        await relay.stop()


async def test_a_column_is_excluded_although_its_table_has_another_entity_from_now_on(
    database: Database, app: Connection, company: str, relay: Relayed
) -> None:
    await new_secrets(app, company)
    await relay.settled()
    before, _ = await log_head(database)
    meeting = Watch(table="events", entity="Meeting", exclude=("location",))
    lines: list[str] = []
    await migrate(database.dsn, watches=[meeting, EMPLOYEE, COMPANY], report=lines.append)
    assert (
        "events: exclude +location: new messages without it; the log is emptied, new epoch" in lines
    )
    await epoch_after(database, before)
    assert await secrets(database) == 0
    await new_event(app, company)
    assert types(await relay.messages_of(company)) == ["Resync", "MeetingCreated"]


RENAMES = {
    "another column takes its name": "ALTER TABLE members RENAME secret TO former; ALTER TABLE members ADD COLUMN secret text",
    "two columns change places": "ALTER TABLE members RENAME secret TO third; ALTER TABLE members RENAME note TO secret;"
    " ALTER TABLE members RENAME third TO note",
}


@pytest.mark.parametrize("rename", RENAMES)
@pytest.mark.parametrize("partitioned", [False, True], ids=["a table", "partitions"])
async def test_a_column_stays_excluded_when_another_takes_its_name(
    database: Database, rename: str, partitioned: bool
) -> None:
    await database.execute(
        "CREATE TABLE members (id int PRIMARY KEY, company_id text, dropped int, secret text, note text)"
        + (" PARTITION BY RANGE (id); CREATE TABLE part PARTITION OF members DEFAULT" * partitioned)
    )
    watches = [*CALENDAR, Watch(table="members", entity="Member", exclude=("secret",))]
    await migrate(database.dsn, watches=watches)
    await database.execute("INSERT INTO members VALUES (1, 'c', 0, 'hush', 'one')")
    older = await database.connect()
    await older.execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM companies")
    await database.execute(RENAMES[rename])
    assert [
        row["object"] for row in await database.fetch("SELECT * FROM notifier.watch_problems()")
    ] == [f"public.members.secret (now {'former' if 'former' in RENAMES[rename] else 'note'})"]
    facts = [each.fact for each in await check(load({}, database_url=database.dsn, watch=watches))]
    assert any(
        "members: the column that was secret at the last migrate is" in each for each in facts
    )
    await older.execute("UPDATE members SET company_id = 'd'; COMMIT")
    await database.execute("UPDATE members SET company_id = 'c'")
    await database.execute("DELETE FROM members")
    stored = await database.fetch(
        "SELECT old::text, new::text, partial FROM notifier.changes WHERE entity = 'Member' ORDER BY id"
    )
    assert "hush" not in str(stored)
    assert [row["partial"] for row in stored] == [False, True, True, True]
    with pytest.raises(
        SettingsError, match=r"was excluded as secret is (former|note) now; exclude it"
    ):
        await migrate(database.dsn, watches=watches)
    now = "former" if "former" in RENAMES[rename] else "note"
    both = Watch(table="members", entity="Member", exclude=("secret", now))
    await migrate(database.dsn, watches=[*CALENDAR, both])
    assert not await database.fetch("SELECT * FROM notifier.watch_problems()")
    await database.execute("INSERT INTO members (id, company_id, dropped) VALUES (2, 'c', 7)")
    assert await database.fetchval("SELECT new FROM notifier.changes WHERE new ->> 'id' = '2'") == (
        '{ "id" : 2, "company_id" : "c", "dropped" : 7'
        + (', "note" : null' if now == "former" else "")
        + " }"
    )
    await migrate(
        database.dsn, watches=[*CALENDAR, replace(both, exclude=("secret",))]
    )  # on purpose


@pytest.fixture
async def upgraded(database: Database, postgres: str) -> AsyncIterator[Database]:
    """A copy in which the tables keep their numbers, as pg_upgrade makes one, and what identifies the database does not."""
    await database.execute(
        "CREATE TABLE members (id int PRIMARY KEY, company_id text, secret text, note text)"
    )
    await migrate(database.dsn, watches=SECRETIVE)
    database.leave()
    copy = Database(postgres, f"notifier_test_{uuid4().hex[:12]}")
    await copy.create(database.name)
    yield copy
    await copy.drop()


SECRETIVE = [*CALENDAR, Watch(table="members", entity="Member", exclude=("secret",))]


async def problems(database: Database) -> list[str]:
    settings = load({}, database_url=database.dsn, watch=SECRETIVE, jwt_secret=SECRET * 4)
    return [each.line for each in await check(settings) if each.sound is False]


async def test_a_column_stays_excluded_after_pg_upgrade(upgraded: Database) -> None:
    assert await problems(upgraded) == []
    await upgraded.execute(RENAMES["two columns change places"])
    await upgraded.execute("INSERT INTO members (id, company_id, note) VALUES (1, 'c', 'hush')")
    assert "hush" not in str(await upgraded.fetch("SELECT new::text FROM notifier.changes"))
    (line,) = await problems(upgraded)
    assert "the column that was secret at the last migrate is note now" in line
    with pytest.raises(SettingsError, match="was excluded as secret is note now; exclude it"):
        await migrate(upgraded.dsn, watches=SECRETIVE)


async def test_what_a_restored_dump_knows_of_other_tables_is_found_by_check_and_healed_by_migrate(
    upgraded: Database,
) -> None:
    """Its tables have other numbers: those of its records mean nothing, or other tables."""
    await upgraded.execute(
        "UPDATE notifier.hidden_columns SET relation = relation::int + 100000, database = '1/2'"
    )
    (line,) = await problems(upgraded)
    assert (
        "members: a hidden column was created since the last migrate, or the database was" in line
    )
    assert line.endswith("run: notifier migrate")
    await upgraded.execute("INSERT INTO members VALUES (1, 'c', 'hush', 'note')")
    assert "hush" not in str(await upgraded.fetch("SELECT new::text FROM notifier.changes"))
    await migrate(upgraded.dsn, watches=SECRETIVE)
    assert await problems(upgraded) == []
    await upgraded.execute("UPDATE notifier.hidden_columns SET number = 4, database = '1/2'")
    await upgraded.execute("UPDATE members SET note = 'hush'")
    assert "hush" not in str(await upgraded.fetch("SELECT new::text FROM notifier.changes"))
    assert await problems(upgraded) == [line]
    await migrate(upgraded.dsn, watches=SECRETIVE)
    assert await problems(upgraded) == []
    await upgraded.execute("UPDATE members SET note = 'shown'")
    assert "shown" in str(await upgraded.fetch("SELECT new::text FROM notifier.changes"))


async def test_a_column_that_one_watch_excludes_stays_hidden_under_a_name_that_is_gone_when_it_is_read(
    database: Database,
) -> None:
    await database.execute(
        "CREATE TABLE members (id int PRIMARY KEY, company_id text, secret text);"
        "INSERT INTO members VALUES (1, 'c', 'hush')"
    )
    excluding = Watch(table="members", entity="Member", exclude=("secret",))
    await migrate(
        database.dsn, watches=[*CALENDAR, excluding, Watch(table="members", entity="Whole")]
    )
    relay = Relayed(database)
    await relay.start()
    await database.execute(
        "BEGIN; ALTER TABLE members RENAME secret TO former; ALTER TABLE members ADD COLUMN secret text;"
        "UPDATE members SET secret = former, company_id = 'd'; ALTER TABLE members DROP COLUMN former; COMMIT"
    )
    messages = await relay.messages_of("d")
    await relay.stop()
    (member,) = (message for message in messages if message["Type"] == "MemberCreated")
    assert "hush" not in str(member)
    assert member["Partial"] is True


async def test_a_column_that_one_watch_excludes_stays_hidden_from_it_when_another_takes_its_name(
    database: Database,
) -> None:
    await database.execute(
        "CREATE TABLE members (id int PRIMARY KEY, company_id text, secret text, viewer text);"
        "INSERT INTO members VALUES (1, 'c', 'hush', 'u1')"
    )
    watches = [
        *CALENDAR,
        Watch(table="members", entity="Member", exclude=("secret",), visible_to=("viewer",)),
        Watch(table="members", entity="Whole"),
    ]
    await migrate(database.dsn, watches=watches)
    await database.execute(
        f"{RENAMES['another column takes its name']};"
        "ALTER TABLE members RENAME viewer TO first_viewer; ALTER TABLE members ADD COLUMN viewer text"
    )
    relay = Relayed(database)
    await relay.start()
    await database.execute("UPDATE members SET company_id = 'd'")
    messages = await relay.messages_of("d")
    await relay.stop()
    member, whole = sorted(messages, key=lambda message: message["Type"])
    assert member["Type"] == "Skipped"
    assert whole["Data"]["Former"] == "hush"
    views = await database.fetch("SELECT views FROM notifier.messages WHERE views IS NOT NULL")
    assert "hush" not in str(views)


@pytest.mark.parametrize("is_shared", [False, True])
async def test_a_table_that_is_restored_with_an_older_trigger_sends_no_excluded_column(
    database: Database, app: Connection, company: str, relay: Relayed, is_shared: bool
) -> None:
    """A dump of the table alone, from before the column was excluded, has the trigger of then."""
    older = await database.fetchval(
        "SELECT pg_get_triggerdef(oid) FROM pg_trigger"
        " WHERE tgname = 'notifier_capture' AND tgrelid = 'events'::regclass"
    )
    other = Watch(table="events", entity="Meeting", exclude=("location", "description"))
    watches = [*EXCLUDED, other] if is_shared else EXCLUDED
    before, _ = await log_head(database)
    await migrate(database.dsn, watches=watches)

    async def begun() -> bool:
        return (await log_head(database))[0] != before

    await until(begun)
    await database.execute(f"DROP TRIGGER notifier_capture ON events; {older}")
    await app.execute(
        "INSERT INTO events (company_id, title, description, location, starts_at, ends_at)"
        " VALUES ($1, 'Tea', 'a text', $2, now(), now())",
        company,
        SECRET,
    )
    messages = await relay.messages_of(company)
    assert SECRET not in str(messages)
    (event,) = [each for each in messages if each["Type"] == "EventCreated"]
    assert event["Data"]["Description"] == "a text"
    if is_shared:
        (meeting,) = [each for each in messages if each["Type"] == "MeetingCreated"]
        assert "Description" not in meeting["Data"]
