"""Companies that are found along foreign keys, in the writer's transaction."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace

import pytest

from notifier.check.links import check
from notifier.database import sql
from notifier.database.schema import migrate, uninstall
from notifier.errors import SettingsError
from notifier.messages import Message
from notifier.relay.changes import Change
from notifier.relay.maintenance import Maintenance
from notifier.relay.reader import ChangeReader
from notifier.relay.store import RelayStore
from notifier.schema_names import DEFAULT
from notifier.settings import load
from notifier.types import columns
from notifier.watches import CALENDAR, Watch
from tests.databases import Connection, Database
from tests.postgres.relays import Json, MakeRelay, Relayed
from tests.services import SECRET
from tests.waiting import until

DESK = """
    CREATE TABLE inboxes (id int PRIMARY KEY, account bigint);
    CREATE TABLE conversations (id uuid PRIMARY KEY DEFAULT gen_random_uuid(), no int UNIQUE,
                                inbox int REFERENCES inboxes ON DELETE CASCADE, subject text);
    CREATE TABLE messages (id int PRIMARY KEY, conversation uuid REFERENCES conversations ON DELETE CASCADE, body text);
    GRANT ALL ON inboxes, conversations, messages TO PUBLIC;
    INSERT INTO inboxes VALUES (1, 7), (2, 8), (3, NULL), (4, 7);
    INSERT INTO conversations (no, inbox) VALUES (11, 1), (12, 2), (13, NULL), (14, 3), (15, 4)
"""
MESSAGES = Watch(
    table="messages",
    entity="Message",
    company="conversation -> conversations.inbox -> inboxes.account",
)
CONVERSATIONS = Watch(
    table="conversations",
    entity="Conversation",
    company="inbox -> public.inboxes.account",
    exclude=("no",),
)


async def watch(
    database: Database, watches: Sequence[Watch] = (MESSAGES, CONVERSATIONS)
) -> list[str]:
    lines: list[str] = []
    await migrate(database.dsn, watches=[*CALENDAR, *watches], report=lines.append)
    return lines


def conversation(no: int) -> str:
    return f"(SELECT id FROM conversations WHERE no = {no})"


def seen(messages: Sequence[Json]) -> list[tuple[str, object]]:
    return [
        (each["Type"], each["Data"].get("MessageId", each["Data"].get("Reason")))
        for each in messages
    ]


@pytest.fixture
async def desk(database: Database, relay: Relayed) -> Database:
    await database.execute(DESK)
    await watch(database)
    return database


async def test_a_row_belongs_to_the_company_at_the_end_of_its_path(
    desk: Database, app: Connection, relay: Relayed
) -> None:
    await app.execute(
        f"INSERT INTO messages VALUES (1, {conversation(11)}, 'a'), (2, {conversation(12)}, 'b'),"
        f" (3, {conversation(13)}, 'c'), (4, {conversation(14)}, 'd'), (5, NULL, 'e')"
    )
    await app.execute("UPDATE messages SET body = body || '!'")
    await app.execute(f"UPDATE messages SET conversation = {conversation(12)} WHERE id IN (1, 5)")
    await app.execute("DELETE FROM messages WHERE id = 2")
    seven = await relay.messages_of("7")
    assert seen(seven) == [("MessageCreated", 1), ("MessageUpdated", 1), ("MessageDeleted", 1)]
    data = seven[1]["Data"]
    assert data.pop("Conversation") == str(await app.fetchval(f"SELECT {conversation(11)}"))
    assert data == {"MessageId": 1, "CompanyId": 7, "Body": "a!"}
    assert seven[1]["Old"] == {"Body": "a"}
    assert seen(await relay.messages_of("8")) == [
        ("MessageCreated", 2),
        ("MessageUpdated", 2),
        ("MessageCreated", 1),
        ("MessageCreated", 5),
        ("MessageDeleted", 2),
    ]
    assert await watch(desk) == []


async def fill(app: Connection) -> None:
    """A message in each conversation, with its number."""
    await app.execute("INSERT INTO messages SELECT no, id, '' FROM conversations")


async def test_a_row_on_the_path_that_leads_elsewhere_is_a_resync_for_both_companies(
    desk: Database, app: Connection, relay: Relayed
) -> None:
    await fill(app)
    for statement in (
        "UPDATE conversations SET subject = 'same', inbox = inbox",
        "UPDATE conversations SET inbox = 4 WHERE no = 11",
        "UPDATE conversations SET inbox = 2 WHERE no = 11",
        "UPDATE inboxes SET account = NULL WHERE id = 2",
        "UPDATE conversations SET inbox = NULL WHERE no = 15",
        "UPDATE conversations SET inbox = 4 WHERE no = 15",
    ):
        await app.execute(statement)
        await relay.settled()  # else one could have been concurrent with the one before
    seven, eight = [
        [(kind, no) for kind, no in seen(await relay.messages_of(company)) if kind == "Resync"]
        for company in ("7", "8")
    ]
    assert seven == [("Resync", "bulk")] * 3
    assert eight == [("Resync", "bulk")] * 2
    await app.execute("UPDATE messages SET body = 'x' WHERE id = 11")
    assert (await relay.messages_of("8"))[-1]["Type"] == "Resync", "it has no company now"
    await app.execute("TRUNCATE inboxes CASCADE")
    for company in ("7", "8"):
        assert (await relay.messages_of(company))[-1]["Data"]["Reason"] == "truncate"


@pytest.mark.parametrize("deferrable", ["", "DEFERRABLE INITIALLY DEFERRED"])
async def test_what_goes_with_its_parents_is_deleted_for_its_company(
    desk: Database, app: Connection, relay: Relayed, deferrable: str
) -> None:
    """By a foreign key that cascades, by hand and parents first, and by a key that is set to null."""
    await fill(app)
    await app.execute("DELETE FROM inboxes WHERE id = 1")
    assert [kind for kind, _ in seen(await relay.messages_of("7"))][-2:] == [
        "ConversationDeleted",
        "MessageDeleted",
    ]
    await desk.execute(
        "ALTER TABLE messages DROP CONSTRAINT messages_conversation_fkey, ADD FOREIGN KEY (conversation)"
        f" REFERENCES conversations {deferrable or 'ON DELETE SET NULL'}"
    )
    await watch(desk)
    async with app.transaction():
        await app.execute("DELETE FROM conversations WHERE no = 15")
        if deferrable:
            await app.execute("DELETE FROM messages WHERE id = 15")
        else:
            await app.execute("UPDATE messages SET body = 'without'")
    messages = await relay.messages_of("7")
    assert seen(messages)[-2:] in (
        [("ConversationDeleted", None), ("MessageDeleted", 15)],
        [("MessageDeleted", 15), ("ConversationDeleted", None)],
    )
    await app.execute("BEGIN; DELETE FROM conversations WHERE no = 14; ROLLBACK")
    await app.execute("DELETE FROM messages")
    await app.execute("DELETE FROM conversations")
    assert await desk.fetchval("SELECT count(*) FROM notifier.vanished") <= 6, "old ones go"
    assert not any(kind == "Resync" for kind, _ in seen(await relay.messages_of("8")))


READ = """
    SELECT sum(pg_stat_get_xact_tuples_returned(c.oid))::int FROM pg_class AS c
    WHERE c.oid = 'notifier.vanished'::regclass
       OR c.oid IN (SELECT indexrelid FROM pg_index WHERE indrelid = 'notifier.vanished'::regclass)
"""
"""The rows of the table and entries of its indexes that this transaction has read."""


async def test_many_rows_on_a_path_are_deleted_without_reading_the_records_of_all_for_each(
    desk: Database,
) -> None:
    """Those of former transactions go meanwhile, so that they do not pile up."""
    writer = await desk.connect()
    await writer.execute(
        "INSERT INTO conversations (no, inbox) SELECT n, 1 FROM generate_series(1000, 2999) AS n"
    )
    for first in (1000, 2000):
        async with writer.transaction():
            await writer.execute(
                "DELETE FROM conversations WHERE no >= $1 AND no < $1 + 1000", first
            )
            assert await writer.fetchval(READ) < 10_000
    assert await desk.fetchval("SELECT count(*) FROM notifier.vanished") == 1000


async def test_a_row_that_goes_with_a_parent_that_was_replaced_belongs_to_the_last_company(
    database: Database, app: Connection, relay: Relayed
) -> None:
    await database.execute(
        """
        CREATE TABLE teams (id int PRIMARY KEY, account int);
        CREATE TABLE posts (id int PRIMARY KEY, team int REFERENCES teams ON DELETE CASCADE);
        GRANT ALL ON teams, posts TO PUBLIC;
        INSERT INTO teams VALUES (1, 7), (2, 9)
        """
    )
    await watch(database, [Watch(table="posts", entity="Post", company="team -> teams.account")])
    await app.execute("INSERT INTO posts VALUES (1, 2)")
    await app.execute(
        """
        BEGIN; DELETE FROM teams WHERE id = 1; INSERT INTO teams VALUES (1, 8);
        UPDATE posts SET team = 1; DELETE FROM teams WHERE id = 1; COMMIT
        """
    )
    assert seen(await relay.messages_of("9")) == [("PostCreated", None), ("PostDeleted", None)]
    for company in ("7", "8"):  # whose row it never was before a transaction or after one
        kinds = {kind for kind, _ in seen(await relay.messages_of(company))}
        assert kinds <= {"Resync"}


async def test_a_unique_index_proves_a_step_without_a_foreign_key(
    database: Database, app: Connection, relay: Relayed
) -> None:
    """The row that it leads to may come later, and may go: each is a Resync."""
    await database.execute(
        "CREATE TABLE teams (slug varchar UNIQUE, owner text);"
        "CREATE TABLE posts (id int PRIMARY KEY, team text);"
        "GRANT ALL ON teams, posts TO PUBLIC"
    )
    await watch(database, [Watch(table="posts", entity="Post", company="team -> teams.owner")])
    for statement in (
        "INSERT INTO posts VALUES (1, 'red')",
        "INSERT INTO teams VALUES ('red', 'ada')",
        "UPDATE posts SET id = 2",
        "UPDATE teams SET slug = 'blue'",
        "UPDATE teams SET slug = 'red'",
        "DELETE FROM teams",
        "UPDATE posts SET id = 3",
    ):
        await app.execute(statement)
        await relay.settled()
    assert [each["Type"] for each in await relay.messages_of("ada")] == [
        *("Resync", "PostDeleted", "PostCreated", "Resync", "Resync", "Resync"),
    ]


async def test_large_rows_and_transactions_have_their_companies(
    database: Database, app: Connection, make_relay: MakeRelay
) -> None:
    await database.execute(DESK)
    await watch(database)
    relay = make_relay(bulk_limit=100)
    await relay.start()
    await app.execute(f"INSERT INTO messages VALUES (1, {conversation(12)}, repeat('x', 3000000))")
    (large,) = await relay.messages_of("8")
    assert large["Partial"] is True
    assert large["Data"] == {"MessageId": 1, "CompanyId": 8}
    await app.execute(
        f"""
        WITH many AS (INSERT INTO messages SELECT n, {conversation(11)}, repeat('x', 5000)
                      FROM generate_series(10, 9000) AS n)
        INSERT INTO messages VALUES (2, {conversation(12)}, '');
        UPDATE conversations SET inbox = 2 WHERE no = 15
        """
    )
    assert seen(await relay.messages_of("7")) == [("Resync", "bulk")]
    assert seen(await relay.messages_of("8"))[1:] == [
        ("MessageCreated", 2),
        ("ConversationCreated", None),
        ("Resync", "bulk"),
    ]


WRONG = {
    "conversation -> conversation.inbox -> inboxes.account": "no table conversation; did you mean conversations?",
    "conversation -> conversations.inbx -> inboxes.account": "table conversations has no column inbx; did you mean inbox?",
    "conversatio -> conversations.inbox -> inboxes.account": "has no column conversatio; did you mean conversation?",
    "conversation -> inboxes.account": "conversation refers to public.conversations, not to inboxes",
    "id -> conversations.inbox": None,
    "body -> conversations.inbox": "nothing proves that body leads to one row of conversations; add a foreign key",
    "conversation -> conversations.subject -> parts.id": "parts is partitioned",
    "conversation -> conversations.mood": "its type must be one of smallint, integer",
    "conversation -> foreigners.id": "conversation refers to public.conversations, not to foreigners",
    "body -> foreigners.id": "paths cross foreigners of role app and",
}


@pytest.mark.parametrize("path", WRONG)
async def test_a_wrong_path_is_refused_before_anything_is_changed(
    database: Database, path: str
) -> None:
    await database.execute(
        f"""
        {DESK};
        CREATE TYPE mood AS ENUM ('glad');
        ALTER TABLE conversations ADD COLUMN mood mood;
        CREATE TABLE parts (id text PRIMARY KEY) PARTITION BY LIST (id);
        CREATE TABLE foreigners (id text PRIMARY KEY);
        ALTER TABLE foreigners OWNER TO app
        """
    )
    before = await database.fetch("SELECT * FROM notifier.watches ORDER BY entity")
    watches = [Watch(table="messages", entity="Message", company=path), MESSAGES]
    wanted = [watches[0], CONVERSATIONS] if "foreigners" in path else watches[:1]
    if (expected := WRONG[path]) is None:
        await watch(database, wanted)
        return
    with pytest.raises(SettingsError) as refused:
        await watch(database, wanted)
    assert expected in str(refused.value)
    assert "\n" not in str(refused.value)
    assert await database.fetch("SELECT * FROM notifier.watches ORDER BY entity") == before


@pytest.mark.parametrize("restart", [False, True], ids=["", "another relay"])
@pytest.mark.parametrize("isolation", ["READ COMMITTED", "REPEATABLE READ"])
async def test_a_writer_that_has_not_seen_a_move_is_a_resync_again(
    desk: Database, app: Connection, relay: Relayed, isolation: str, restart: bool
) -> None:
    """Its row belongs to the other company when it commits, whose clients have read their state before."""
    other = await desk.connect(app=True)
    await other.execute(f"BEGIN ISOLATION LEVEL {isolation}; SELECT 1 FROM inboxes")
    if isolation == "READ COMMITTED":
        await other.execute(f"INSERT INTO messages VALUES (1, {conversation(11)}, '')")
    await app.execute("UPDATE conversations SET inbox = 2 WHERE no = 11")
    assert (await relay.messages_of("7"))[-1]["Type"] == "Resync"
    if restart:
        await relay.stop()
        await relay.start()
    await other.execute(f"INSERT INTO messages VALUES (2, {conversation(11)}, ''); COMMIT")
    assert (await relay.messages_of("7"))[-1]["Type"] == "Resync"
    eight = seen(await relay.messages_of("8"))
    assert eight[:2] == [("ConversationCreated", None), ("Resync", "bulk")]
    assert eight[2 if isolation == "REPEATABLE READ" else 3 :] == [("Resync", "bulk")]
    await app.execute(f"INSERT INTO messages VALUES (3, {conversation(11)}, '')")
    assert seen(await relay.messages_of("8"))[len(eight) :] == [("MessageCreated", 3)]
    assert await desk.fetchval("SELECT moves::text FROM notifier.moves") == "[]"


@pytest.mark.parametrize("isolation", ["READ COMMITTED", "REPEATABLE READ"])
async def test_a_writer_that_has_not_seen_several_moves_is_a_resync_for_the_last_company_too(
    desk: Database, app: Connection, relay: Relayed, isolation: str
) -> None:
    other = await desk.connect(app=True)
    await other.execute(f"BEGIN ISOLATION LEVEL {isolation}; SELECT 1 FROM inboxes")
    if isolation == "READ COMMITTED":
        await other.execute(f"INSERT INTO messages VALUES (1, {conversation(11)}, '')")
    for account in (20, 21, 22):
        await app.execute(f"UPDATE inboxes SET account = {account} WHERE id = 1")
        await relay.settled()
    before = len(await relay.messages_of("22"))
    if isolation == "REPEATABLE READ":
        await other.execute(f"INSERT INTO messages VALUES (1, {conversation(11)}, '')")
    await other.execute("COMMIT")
    await relay.settled()
    assert seen(await relay.messages_of("22"))[before:] == [("Resync", "bulk")]


async def test_a_move_by_a_writer_that_has_not_seen_another_move_is_a_resync_again(
    database: Database, app: Connection, relay: Relayed
) -> None:
    """Only messages are watched, so that no row of a conversation has the writer's snapshot."""
    await database.execute(DESK)
    await watch(database, [MESSAGES])
    await app.execute(f"INSERT INTO messages VALUES (1, {conversation(11)}, '')")
    inbox = await app.fetchval("SELECT inbox FROM conversations WHERE no = 11")
    other = await database.connect(app=True)
    await other.execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1 FROM inboxes")
    await app.execute(f"UPDATE inboxes SET account = 99 WHERE id = {inbox}")
    await relay.settled()
    assert seen(await relay.messages_of("99")) == [("Resync", "bulk")]
    await other.execute(
        f"UPDATE conversations SET inbox = (SELECT min(id) FROM inboxes WHERE id <> {inbox}) WHERE no = 11"
    )
    await other.execute("COMMIT")
    await relay.settled()
    assert seen(await relay.messages_of("99")) == [("Resync", "bulk")] * 2


async def test_a_relay_that_ends_before_it_stores_a_late_row_leaves_the_resync_to_the_next(
    desk: Database, app: Connection, relay: Relayed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the doorbell, so that the relay reads on while it stores whether the row woke it up or not."""
    await relay.stop()
    relay = Relayed(desk, doorbell=False)
    await relay.start()
    other = await desk.connect(app=True)
    await other.execute(f"BEGIN; INSERT INTO messages VALUES (1, {conversation(11)}, '')")
    await app.execute("UPDATE conversations SET inbox = 2 WHERE no = 11")
    assert (await relay.messages_of("7"))[-1]["Type"] == "Resync"
    reads: list[tuple[str, Sequence[object] | None]] = []
    read_new = ChangeReader.read_new
    stores = asyncio.Event()

    async def idle(*_: object, **__: object) -> None:
        """Maintenance waits for what is being stored before it begins."""

    async def hang(*_: object) -> None:
        stores.set()
        await asyncio.Event().wait()

    async def counted(reader: ChangeReader, since: str) -> tuple[str, list[Change] | None]:
        reads.append(read := await read_new(reader, since))
        return read

    async def has_read_on() -> bool:
        found = [bool(changes) for _, changes in reads]
        return stores.is_set() and any(found) and not found[-1]

    with monkeypatch.context() as patched:
        patched.setattr(RelayStore, "append", hang)
        patched.setattr(Maintenance, "run", idle)
        patched.setattr(ChangeReader, "read_new", counted)
        await other.execute("INSERT INTO messages VALUES (2, NULL, ''); COMMIT")
        await until(has_read_on)
        await relay.stop()
    await relay.start()
    assert seen(await relay.messages_of("7"))[-2:] == [("MessageCreated", 1), ("Resync", "bulk")]
    assert seen(await relay.messages_of("8"))[-1] == ("Resync", "bulk")
    await relay.stop()


async def test_a_relay_that_ends_within_a_backlog_leaves_its_moves_to_the_next(
    desk: Database, app: Connection, relay: Relayed, monkeypatch: pytest.MonkeyPatch
) -> None:
    await relay.settled()
    await relay.stop()
    monkeypatch.setattr("notifier.relay.reader.PAGE", 1)
    monkeypatch.setattr("notifier.relay.backlog.PAGE", 1)
    other = await desk.connect(app=True)
    await other.execute(f"BEGIN; INSERT INTO messages VALUES (1, {conversation(11)}, '')")
    await app.execute("UPDATE conversations SET inbox = 2 WHERE no = 11")
    await other.execute("INSERT INTO messages VALUES (2, NULL, ''); COMMIT")
    late = asyncio.Event()
    append = RelayStore.append

    async def hang(store: RelayStore, messages: Sequence[Message], cursor: str | None) -> None:
        if any(b"MessageCreated" in message.body for message in messages):
            late.set()
            await asyncio.Event().wait()
        await append(store, messages, cursor)

    with monkeypatch.context() as patched:
        patched.setattr(RelayStore, "append", hang)
        await relay.start()
        await late.wait()
        await relay.stop()
    await relay.start()
    assert seen(await relay.messages_of("7"))[-2:] == [("MessageCreated", 1), ("Resync", "bulk")]


async def test_each_path_of_a_table_has_its_messages_and_none_has_columns_of_another(
    database: Database, app: Connection, relay: Relayed
) -> None:
    """Attendees of bookings: of the team of the booking's type, and of the user."""
    await database.execute(
        """
        CREATE TABLE "EventType" (id int PRIMARY KEY, "teamId" int);
        CREATE TABLE "Booking" (id int PRIMARY KEY, "eventTypeId" int REFERENCES "EventType", "userId" int);
        CREATE TABLE "Attendee" (id int PRIMARY KEY, "bookingId" int REFERENCES "Booking", email text, seat int);
        GRANT ALL ON "EventType", "Booking", "Attendee" TO PUBLIC;
        INSERT INTO "EventType" VALUES (1, 3), (2, NULL), (3, 5);
        INSERT INTO "Booking" VALUES (1, 1, 3), (2, 2, 4)
        """
    )
    attendee = Watch(
        table='"Attendee"',
        entity="Attendee",
        company='"bookingId" -> "Booking"."eventTypeId"->"EventType"."teamId"',
        scope="team",
        exclude=("email",),
    )
    await watch(
        database,
        [
            attendee,
            replace(
                attendee, company='"bookingId" -> "Booking"."userId"', scope="user", exclude=()
            ),
            replace(attendee, entity="Seat", company="seat", scope=None, case="column"),
        ],
    )
    await app.execute("""INSERT INTO "Attendee" VALUES (1, 1, 'a@b', 9), (2, 2, 'c@d', 9)""")
    await app.execute("""UPDATE "Booking" SET "userId" = 6 WHERE id = 1""")
    await app.execute("""UPDATE "Booking" SET "eventTypeId" = 3 WHERE id = 1""")
    data = {"AttendeeId": 1, "BookingId": 1, "Seat": 9}
    team = await relay.messages_of("team:3")
    assert team[0]["Data"] == {"CompanyId": "team:3", **data}
    assert [each["Type"] for each in team] == ["AttendeeCreated", "Resync"]
    user = await relay.messages_of("user:3")
    assert user[0]["Data"] == {"CompanyId": "user:3", **data, "Email": "a@b"}
    assert [each["Type"] for each in user] == ["AttendeeCreated", "Resync"]
    assert [each["Type"] for each in await relay.messages_of("team:5")] == ["Resync"]
    assert [each["Type"] for each in await relay.messages_of("user:6")] == ["Resync"]
    assert [each["Data"] for each in await relay.messages_of("9")] == [
        {"id": number, "bookingId": number, "seat": 9} for number in (1, 2)
    ]


async def test_each_of_many_paths_has_its_own_company(
    database: Database, app: Connection, relay: Relayed
) -> None:
    """More of them than are tried one after the other; each table has two."""
    names = ("Zone", "a1", "A10", "b", "Ab", "z9", "M", "m")
    await database.execute(
        "CREATE TABLE homes (id int PRIMARY KEY, city int, guild int); GRANT ALL ON homes TO PUBLIC"
    )
    watches = []
    for number, name in enumerate(names, start=1):
        await database.execute(
            f"""
            INSERT INTO homes VALUES ({number}, {number + 100}, {number + 200}), ({number + 10}, 0, NULL);
            CREATE TABLE t{number} (id int PRIMARY KEY, home int REFERENCES homes, guest int REFERENCES homes);
            GRANT ALL ON t{number} TO PUBLIC
            """
        )
        by_home = Watch(table=f"t{number}", entity=name, company="home -> homes.city", scope="city")
        watches += [by_home, replace(by_home, company="guest -> homes.guild", scope="guild")]
    await watch(database, watches)
    for number, name in enumerate(names, start=1):
        await app.execute(f"INSERT INTO t{number} VALUES (1, {number}, {number})")
        await app.execute(f"UPDATE t{number} SET id = 2, guest = {number + 10}")
        await app.execute(f"UPDATE t{number} SET home = NULL, guest = {number}")
        city = await relay.messages_of(f"city:{number + 100}")
        assert [each["Type"] for each in city] == [
            *(f"{name}Created", f"{name}Deleted", f"{name}Created", f"{name}Deleted")
        ]
        guild = await relay.messages_of(f"guild:{number + 200}")
        assert [each["Type"] for each in guild] == [
            *(f"{name}Created", f"{name}Deleted", f"{name}Created")
        ]


async def test_a_path_is_followed_in_another_schema_alone(
    database: Database, app: Connection
) -> None:
    """No schema `notifier` is there to stand in for it."""
    await database.execute(DESK)
    await uninstall(database.dsn)
    watches = [*CALENDAR, MESSAGES, CONVERSATIONS]
    sql.use_schema("billing")
    try:
        await watch(database)
        assert await watch(database) == []
        await app.execute(f"INSERT INTO messages VALUES (1, {conversation(11)}, '')")
        findings = await check(
            load({}, database_url=database.dsn, jwt_secret=SECRET, watch=watches, schema="billing")
        )
    finally:
        sql.use_schema(DEFAULT)
    assert [each.line for each in findings if each.sound is False] == []
    assert await database.fetchval("SELECT new ->> '->Message' FROM billing.changes") == "7"


async def test_types_have_the_company_at_the_end_of_the_path(desk: Database) -> None:
    settings = load({}, database_url=desk.dsn, jwt_secret=SECRET)
    tables = {table.watch.entity: table for table in await columns.read(settings)}
    company = tables["Message"].properties[0]
    assert (company.name, company.sql, company.is_nullable) == ("CompanyId", "bigint", False)
    assert [each.name for each in tables["Message"].keys] == ["CompanyId", "MessageId"]
