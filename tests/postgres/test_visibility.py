"""`visible_to` in a database: capture and relay store who gets which form of a message."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any, TypeAlias

import pytest

from notifier.check.links import check
from notifier.database import sql
from notifier.database.schema import migrate
from notifier.errors import SettingsError
from notifier.messages import decode_views
from notifier.settings import load
from notifier.state.reader import StateReader
from notifier.watches import CALENDAR, Watch
from tests.databases import Connection, Database
from tests.installed import skip_before
from tests.postgres.relays import MakeRelay, Relayed
from tests.postgres.states import rows_of
from tests.waiting import until

NOTE = Watch(table="notes", entity="Note", deleted_if="gone", visible_to=("owner", "readers"))
TABLE = """
    CREATE TABLE notes (id int PRIMARY KEY, company_id text, body text, owner int, readers text[], gone boolean);
    GRANT ALL ON notes TO PUBLIC
"""

Seen: TypeAlias = list[tuple[str, str | None]]
"""The type of each message that a user gets, with the body of the note."""


async def watch(database: Database, note: Watch = NOTE) -> None:
    await database.execute(TABLE)
    await migrate(database.dsn, watches=[*CALENDAR, note])


async def migrate_and_wait(database: Database, note: Watch) -> None:
    """Runs `migrate` with another watch, and returns when the relay has begun an epoch for it."""
    epoch = await database.fetchval("SELECT epoch FROM notifier.log")
    await migrate(database.dsn, watches=[*CALENDAR, note])

    async def has_begun() -> bool:
        return bool(await database.fetchval("SELECT epoch FROM notifier.log") != epoch)

    await until(has_begun)


async def seen(database: Database, company: str, user: str) -> Seen:
    """What a user gets of the company's stored messages."""
    rows = await database.fetch(
        "SELECT body::text, views::text FROM notifier.messages WHERE company = $1 ORDER BY seq",
        company,
    )
    bodies = []
    for row in rows:
        views = decode_views(row["views"] and row["views"].encode())
        mine = [view.body for view in views if view.is_for(user)]
        assert len(mine) <= 1
        if views:
            assert json.loads(row["body"]).keys() == {"Type", "Data", "Position", "At"}
        bodies += mine or [row["body"]]
    messages: list[dict[str, Any]] = [json.loads(body) for body in bodies]
    first = messages[0]["Position"] if messages else 1
    assert [each["Position"] for each in messages] == list(range(first, first + len(messages)))
    return [
        (each["Type"], each["Data"].get("Body"))
        for each in messages
        if each["Type"] not in {"Skipped", "Resync"}
    ]


async def test_each_user_gets_the_changes_of_the_rows_that_the_user_sees(
    database: Database, app: Connection, relay: Relayed
) -> None:
    await watch(database)
    for statement in (
        "INSERT INTO notes VALUES (1, 'c', 'one', 1, '{2,NULL}'), (2, 'c', 'all', NULL, '{NULL}')",
        "UPDATE notes SET body = 'two' WHERE id = 1",
        "UPDATE notes SET readers = '{3}', body = 'three' WHERE id = 1",
        "UPDATE notes SET gone = true WHERE id = 1",
        "UPDATE notes SET gone = false, owner = NULL, readers = '{}' WHERE id = 1",
        "UPDATE notes SET company_id = 'd', owner = 2, body = 'moved' WHERE id = 1",
        "DELETE FROM notes",
    ):
        await app.execute(statement)
    await relay.settled()
    common = [("NoteCreated", "three"), ("NoteDeleted", "three"), ("NoteDeleted", "all")]
    assert await seen(database, "c", "1") == [
        ("NoteCreated", "one"),
        ("NoteCreated", "all"),
        ("NoteUpdated", "two"),
        ("NoteUpdated", "three"),
        ("NoteDeleted", "three"),
        *common,
    ]
    assert await seen(database, "c", "2") == [
        ("NoteCreated", "one"),
        ("NoteCreated", "all"),
        ("NoteUpdated", "two"),
        ("NoteDeleted", "two"),
        *common,
    ]
    assert await seen(database, "c", "3") == [
        ("NoteCreated", "all"),
        ("NoteCreated", "three"),
        ("NoteDeleted", "three"),
        *common,
    ]
    assert await seen(database, "c", "*") == [("NoteCreated", "all"), *common]
    assert await seen(database, "d", "1") == []
    assert await seen(database, "d", "2") == [("NoteCreated", "moved"), ("NoteDeleted", "moved")]


async def test_a_state_is_read_behind_a_message_with_an_escape_of_nul(
    database: Database, app: Connection, relay: Relayed
) -> None:
    """Of a message with views these name its transaction; `->` takes none that has such an escape."""
    await watch(database)
    await database.execute("ALTER TABLE notes ADD extra json")
    await app.execute(
        "INSERT INTO notes VALUES (1, '1', 'a', 7, NULL, NULL, $1::text::json)", r'"\u0000"'
    )
    await relay.settled()
    states = StateReader(database.dsn, pooled=False, max_rows=10)
    (row,) = (await rows_of(states, "1", None, "7"))["Note"]
    assert row["Extra"] == "\0"


async def test_rows_that_are_stored_with_their_keys_only_keep_their_readers(
    database: Database, app: Connection, relay: Relayed
) -> None:
    await watch(database)
    await app.execute("INSERT INTO notes VALUES (1, 'c', repeat('x', 3000000), 1, '{2}')")
    await app.execute("UPDATE notes SET body = repeat('y', 3000000), readers = '{3}'")
    await relay.settled()
    assert await seen(database, "c", "1") == [("NoteCreated", None), ("NoteUpdated", None)]
    assert await seen(database, "c", "2") == [("NoteCreated", None), ("NoteDeleted", None)]
    assert await seen(database, "c", "3") == [("NoteCreated", None)]
    assert await seen(database, "c", "9") == []


async def test_two_watches_of_a_table_decide_each_for_itself(
    database: Database, app: Connection, relay: Relayed
) -> None:
    other = Watch(
        table="notes",
        entity="Other",
        company="owner",
        visible_to=("body",),
        exclude=("company_id",),
    )
    await database.execute(TABLE)
    await migrate(database.dsn, watches=[*CALENDAR, NOTE, other])
    await app.execute("INSERT INTO notes VALUES (1, 'c', 'u1', 7, '{2}')")
    await app.execute("UPDATE notes SET readers = '{3}', body = repeat('x', 3000000)")
    await relay.settled()
    assert await seen(database, "c", "2") == [("NoteCreated", "u1"), ("NoteDeleted", None)]
    assert await seen(database, "c", "3") == [("NoteCreated", None)]
    assert await seen(database, "7", "u1") == [("OtherCreated", "u1"), ("OtherDeleted", None)]
    assert await seen(database, "7", "2") == []


async def test_a_large_transaction_keeps_the_readers_of_each_row(
    database: Database, app: Connection, make_relay: MakeRelay
) -> None:
    await watch(database)
    await app.execute(
        "INSERT INTO notes SELECT n, 'c', n, n, NULL FROM generate_series(1, 3000) AS n"
    )
    relay = make_relay(bulk_limit=5000)
    await relay.start()
    await relay.settled()
    assert await seen(database, "c", "77") == [("NoteCreated", "77")]
    assert await seen(database, "c", "0") == []


async def test_a_state_finds_the_transaction_of_a_restricted_message(
    database: Database, app: Connection, relay: Relayed
) -> None:
    await watch(database)
    await app.execute(
        "INSERT INTO notes VALUES (1, 'c', 'one', 1, NULL), (2, 'c', 'two', NULL, NULL)"
    )
    await relay.settled()
    epoch = await database.fetchval("SELECT epoch FROM notifier.log")
    rows = await database.fetch(sql.query("state_messages"), "c", 0, epoch)
    one, two = (json.loads(row["body"]) for row in rows)
    assert one["Tx"] == two["Tx"]


async def test_a_renamed_column_hides_the_rows_until_migrate(
    database: Database, app: Connection, relay: Relayed
) -> None:
    await watch(database)
    await app.execute("INSERT INTO notes VALUES (1, 'c', 'one', NULL, '{2}')")
    await database.execute("ALTER TABLE notes RENAME readers TO guests")
    await app.execute("UPDATE notes SET body = 'two'")
    await app.execute("INSERT INTO notes VALUES (2, 'c', 'three', NULL, NULL)")
    await relay.settled()
    problems = await database.fetch("SELECT object FROM notifier.watch_problems()")
    assert [row["object"] for row in problems] == ["public.notes.readers"]
    assert await seen(database, "c", "2") == [("NoteCreated", "one")]
    assert await seen(database, "c", "1") == []
    await migrate_and_wait(database, replace(NOTE, visible_to=("owner", "guests")))
    await app.execute("UPDATE notes SET body = 'four'")
    await relay.settled()
    assert await seen(database, "c", "2") == [("NoteUpdated", "four"), ("NoteUpdated", "four")]
    assert await seen(database, "c", "1") == [("NoteUpdated", "four")]


@pytest.mark.parametrize(
    ("change", "now", "fact"),
    [
        (
            "RENAME readers TO guests",
            "now guests",
            "notes: the column that was readers at the last migrate is guests now",
        ),
        (
            "DROP readers",
            "dropped and added again",
            "notes: a hidden column was created since the last migrate, or the database was restored; renamed, it would not stay hidden",
        ),
    ],
)
async def test_another_column_of_the_same_name_hides_the_rows_until_migrate(
    database: Database, app: Connection, relay: Relayed, change: str, now: str, fact: str
) -> None:
    """Its values name no users: every user would see the row."""
    await watch(database)
    await app.execute("INSERT INTO notes VALUES (1, 'c', 'one', NULL, '{2}')")
    await relay.settled()
    await database.execute(f"ALTER TABLE notes {change}; ALTER TABLE notes ADD readers text[]")
    problems = await database.fetch("SELECT object FROM notifier.watch_problems()")
    assert [row["object"] for row in problems] == [f"public.notes.readers ({now})"]
    findings = await check(load({}, database_url=database.dsn, watch=[*CALENDAR, NOTE]))
    assert fact in [each.fact for each in findings if each.sound is False]
    await app.execute("UPDATE notes SET body = 'two'")
    await app.execute("INSERT INTO notes VALUES (2, 'c', 'three', NULL, NULL)")
    await relay.settled()
    assert await seen(database, "c", "2") == [("NoteCreated", "one")]
    assert await seen(database, "c", "1") == []
    await migrate(database.dsn, watches=[*CALENDAR, NOTE])
    assert await database.fetch("SELECT FROM notifier.watch_problems()") == []

    async def is_visible() -> bool:
        """The relay reads what `migrate` has saved with its next maintenance."""
        await app.execute("UPDATE notes SET body = body || '.' WHERE id = 2")
        await relay.settled()
        return await seen(database, "c", "1") != []

    await until(is_visible)


async def test_a_new_visible_to_leaves_no_row_that_every_user_saw_in_the_log(
    database: Database, app: Connection, relay: Relayed
) -> None:
    await watch(database, replace(NOTE, visible_to=()))
    await app.execute("INSERT INTO notes VALUES (1, 'c', 'a secret', 1, NULL)")
    await relay.settled()
    await migrate_and_wait(database, NOTE)
    await app.execute("UPDATE notes SET body = 'another secret'")
    await relay.settled()
    assert await seen(database, "c", "2") == []
    await migrate(database.dsn, watches=[*CALENDAR, replace(NOTE, visible_to=())])
    await app.execute("UPDATE notes SET body = 'no secret'")
    await relay.settled()
    assert ("NoteUpdated", "no secret") in await seen(database, "c", "2")


async def test_triggers_of_tables_without_it_stay_as_they_are(database: Database) -> None:
    statement = (
        "SELECT oid, tgargs FROM pg_trigger WHERE tgfoid = 'notifier.capture'::regproc"
        " AND tgrelid <> coalesce(to_regclass('notes'), 0) ORDER BY oid"
    )
    before = await database.fetch(statement)
    await watch(database)
    assert await database.fetch(statement) == before


TYPES = {
    "text": ("u1", "u1"),
    "varchar(9)": ("u1", "u1"),
    "text[]": ("{u1,NULL}", "u1"),
    "int": ("1", "1"),
    "bigint[]": ("{9007199254740993}", "9007199254740993"),
    "numeric(9,2)": ("1", "1.00"),
    "uuid": ("ABCDEF00-0000-4000-8000-000000000001", "abcdef00-0000-4000-8000-000000000001"),
    "uuid[]": (
        "{ABCDEF00-0000-4000-8000-000000000001}",
        "abcdef00-0000-4000-8000-000000000001",
    ),
    "people": ("ünï", "ünï"),
    "people[]": ("{ünï}", "ünï"),
    "login": ("Ada", "Ada"),
    "login[]": ("{Ada}", "Ada"),
    "text[][]": ("{{u1},{NULL}}", "u1"),
    "jsonb": ('["u1", 7]', "7"),
}
"""Types of columns, a value of each, and the user that it names."""


async def test_every_type_of_column_names_its_users_to_the_letter(
    database: Database, relay: Relayed
) -> None:
    await database.execute(
        "CREATE TYPE people AS ENUM ('ünï', 'uni'); CREATE DOMAIN login AS text CHECK (value <> '')"
    )
    watches = []
    for number, kind in enumerate(TYPES):
        await database.execute(
            f"CREATE TABLE t{number} (id int PRIMARY KEY, company_id text, who {kind})"
        )
        watch = Watch(table=f"t{number}", entity=f"T{number}", visible_to=("who",))
        watches.append(watch)
    await migrate(database.dsn, watches=[*CALENDAR, *watches])
    for number, (value, _) in enumerate(TYPES.values()):
        await database.execute(f"INSERT INTO t{number} VALUES (1, 'c{number}', '{value}')")
    await relay.settled()
    for number, (_, user) in enumerate(TYPES.values()):
        others = {
            "", "*", "0", "1", "01", "+1", "1.0", "true", "null", "U1", "u1 ", "u1\0", "ada", "ADA", "uni",
            "u\u0308n\u0131\u0308", "9007199254740992", "9.007199254740993e15", "ABCDEF00-0000-4000-8000-000000000001",
            "{u1}", '["u1", 7]', f'"{user}"', f"{user},",
        }  # fmt: skip
        created = [(f"T{number}Created", None)]
        assert await seen(database, f"c{number}", user) == created, number
        for other in others - {user}:
            assert await seen(database, f"c{number}", other) == [], (number, other)


async def test_columns_that_cannot_decide_are_refused(database: Database) -> None:
    with pytest.raises(ValueError, match="exclude names readers, which is needed"):
        replace(NOTE, exclude=("readers",))
    with pytest.raises(SettingsError, match=r"no column reader; did you mean readers\?"):
        await watch(database, replace(NOTE, visible_to=("reader",)))


async def test_a_virtual_column_is_refused(database: Database) -> None:
    await skip_before(18, database, "virtual columns")
    await database.execute(
        "CREATE TABLE notes (id int PRIMARY KEY, company_id text, who text GENERATED ALWAYS AS ('u' || id) VIRTUAL)"
    )
    with pytest.raises(SettingsError, match="no trigger sees the virtual column who"):
        await migrate(
            database.dsn,
            watches=[Watch(table="notes", entity="Note", visible_to=("who",))],
        )
