"""`deleted_if` in a database: capture, large rows and transactions, and members whose row is marked."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace

import pytest

from notifier.access.membership import Membership
from notifier.access.tokens import Identity
from notifier.database.query import Query
from notifier.database.schema import migrate
from notifier.errors import DatabaseError, SettingsError
from notifier.watches import CALENDAR, Watch
from tests.databases import Connection, Database
from tests.postgres.relays import MakeRelay, Relayed, types

TABLE = "CREATE TABLE posts (id int PRIMARY KEY, company_id text, secret text, body text, deleted_at timestamp)"
POST = Watch(table="posts", entity="Post", deleted_if="deleted_at")
MEMBER = Watch(
    table="members", entity="Member", company="tenant", member="login", deleted_if="gone"
)


async def watch(database: Database, post: Watch = POST) -> None:
    await database.execute(f"{TABLE}; GRANT ALL ON posts TO PUBLIC")
    await migrate(database.dsn, watches=[*CALENDAR, post])


async def test_row_1_17_marks_are_deletions_and_creations_and_what_stays_marked_is_nothing(
    database: Database, app: Connection, relay: Relayed
) -> None:
    await watch(database, replace(POST, exclude=("secret",)))
    for statement in (
        "INSERT INTO posts VALUES (1, 'c', 'x', 'first', NULL), (2, 'c', 'x', 'never', now())",
        "UPDATE posts SET deleted_at = now() WHERE id = 1",
        "UPDATE posts SET body = 'edited'",
        "UPDATE posts SET company_id = 'd'",
        "UPDATE posts SET deleted_at = NULL WHERE id = 1",
        "UPDATE posts SET deleted_at = now()",
        "DELETE FROM posts",
    ):
        await app.execute(statement)
    messages = await relay.messages_of("c")
    assert types(messages) == ["PostCreated", "PostDeleted"]
    assert messages[1]["Data"] == {
        "PostId": 1,
        "CompanyId": "c",
        "Body": "first",
        "DeletedAt": None,
    }
    moved = await relay.messages_of("d")
    assert types(moved) == ["PostCreated", "PostDeleted"]
    assert moved[0]["Data"]["Body"] == "edited"


async def test_a_row_that_is_stored_with_its_keys_only_keeps_its_mark(
    database: Database, app: Connection, relay: Relayed
) -> None:
    await watch(database)
    await app.execute("INSERT INTO posts VALUES (1, 'c', '', repeat('x', 3000000), now())")
    await app.execute("UPDATE posts SET body = repeat('y', 3000000)")
    await app.execute("UPDATE posts SET deleted_at = NULL")
    (message,) = await relay.messages_of("c")
    assert message["Type"] == "PostCreated"
    assert message["Data"] == {"PostId": 1, "CompanyId": "c"}


async def test_a_large_transaction_of_rows_that_stay_deleted_is_nothing(
    database: Database, app: Connection, make_relay: MakeRelay
) -> None:
    await watch(database)
    await app.execute(
        "INSERT INTO posts SELECT n, 'c', '', '', now() FROM generate_series(1, 9000) AS n"
    )
    relay = make_relay(bulk_limit=10)
    await relay.start()
    await app.execute("UPDATE posts SET body = 'edited'")
    await app.execute("UPDATE posts SET deleted_at = NULL WHERE id < 3")
    assert types(await relay.messages_of("c")) == ["PostCreated", "PostCreated"]


async def test_triggers_of_tables_without_a_mark_stay_as_they_are(database: Database) -> None:
    statement = (
        "SELECT oid, tgargs FROM pg_trigger WHERE tgfoid = 'notifier.capture'::regproc"
        " AND tgrelid <> coalesce(to_regclass('posts'), 0) ORDER BY oid"
    )
    before = await database.fetch(statement)
    await watch(database)
    assert await database.fetch(statement) == before


@pytest.mark.parametrize("kind", ["json", "jsonb"])
async def test_a_mark_that_holds_json_is_refused(database: Database, kind: str) -> None:
    await database.execute(f"CREATE TABLE posts (id int PRIMARY KEY, company_id text, gone {kind})")
    with pytest.raises(SettingsError, match="deleted_if names gone, which holds JSON"):
        await migrate(database.dsn, watches=[replace(POST, deleted_if="gone")])


async def test_a_column_of_the_mark_that_is_not_there_is_refused(database: Database) -> None:
    with pytest.raises(SettingsError, match=r"no column deletedat; did you mean deleted_at\?"):
        await watch(database, replace(POST, deleted_if="deletedat"))


Allows = Callable[[str, str], Awaitable[bool]]


@pytest.fixture
async def allows(database: Database) -> AsyncIterator[Allows]:
    query = Query(database.dsn, "test", pooled=False)
    membership = Membership(query, "employees", None)

    async def allows(company: str, user: str) -> bool:
        return await membership.may_see(Identity(user, 1e12, None), company)

    yield allows
    query.close()


@pytest.mark.parametrize(
    ("kind", "unset", "mark"),
    [
        ("timestamptz", "NULL", "now()"),
        ("boolean", "NULL", "true"),
        ("boolean", "false", "true"),
        ("bigint", "NULL", "0"),
        ("numeric", "NULL", "0"),
        ("text", "NULL", "'2026'"),
        ("flag", "false", "true"),
        ("mood", "NULL", "'bad'"),
    ],
)
async def test_a_member_whose_row_is_marked_has_no_access(
    database: Database, allows: Allows, kind: str, unset: str, mark: str
) -> None:
    await database.execute(
        "CREATE DOMAIN flag AS boolean; CREATE TYPE mood AS ENUM ('bad');"
        f"CREATE TABLE members (id int PRIMARY KEY, tenant int, login int, gone {kind});"
        f"INSERT INTO members VALUES (1, 7, 8, {unset}), (2, 7, 9, {mark})"
    )
    await migrate(database.dsn, watches=[MEMBER])
    assert await allows("7", "8")
    assert not await allows("7", "9")
    await database.execute(f"UPDATE members SET gone = {mark}")
    assert not await allows("7", "8")
    await database.execute("ALTER TABLE members RENAME gone TO hidden")
    with pytest.raises(DatabaseError, match="members"):
        await allows("7", "8")


async def test_a_role_that_serves_may_read_the_mark(database: Database, app: Connection) -> None:
    await database.execute(
        "CREATE TABLE members (id int PRIMARY KEY, tenant int, login int, gone boolean)"
    )
    role = await app.fetchval("SELECT current_user")
    await migrate(database.dsn, watches=[MEMBER], grant=role)
    assert await database.fetchval(
        "SELECT has_column_privilege($1, 'members', 'gone', 'SELECT')", role
    )
