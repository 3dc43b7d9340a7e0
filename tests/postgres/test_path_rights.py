"""What a path's tables can do to capture: code in them, their renaming, locks on them, and who owns them."""

from __future__ import annotations

import asyncio

import asyncpg
import pytest

from notifier.access.membership import Membership
from notifier.access.tokens import Identity
from notifier.check.links import check
from notifier.database import functions
from notifier.database.query import Query
from notifier.database.schema import migrate, uninstall
from notifier.errors import DatabaseError, NotifierError, SettingsError, StateUnavailable
from notifier.settings import load
from notifier.state.reader import StateReader
from notifier.watches import CALENDAR, Watch
from tests.databases import Connection, Database
from tests.postgres.relays import Relayed
from tests.postgres.test_planner import CODE, TRAP
from tests.services import SECRET
from tests.waiting import until

POSTS = Watch(table="posts", entity="Post", company="member -> members.company_id")
TABLES = """
    ALTER TABLE members ALTER COLUMN company_id SET NOT NULL;
    CREATE TABLE posts (id int PRIMARY KEY, member int REFERENCES members);
    INSERT INTO members VALUES (1, 'c', 'u'), (2, 'd', 'v')
"""


async def watch(database: Database, **settings: str) -> list[str]:
    lines: list[str] = []
    await migrate(
        database.dsn, watches=[*CALENDAR, POSTS], report=lines.append, grant=settings.get("grant")
    )
    return lines


async def companies(database: Database) -> list[str | None]:
    """Of each change of a post that is in the log."""
    rows = await database.fetch(
        "SELECT coalesce(new, old) ->> '->Post' FROM notifier.changes WHERE entity = 'Post' ORDER BY id"
    )
    return [row[0] for row in rows]


@pytest.fixture
async def app(database: Database) -> Connection:
    """It owns the tables, a superuser has run `migrate`."""
    await database.execute("GRANT CREATE ON SCHEMA public TO app")
    app = await database.connect(app=True)
    await app.execute(f"{TRAP}; {TABLES}")
    await watch(database)
    return app


@pytest.fixture
async def fresh(database: Database) -> Connection:
    """A session that has planned nothing yet."""
    return await database.connect(app=True)


async def is_confined(database: Database) -> bool:
    return not await database.fetchval("SELECT rolsuper FROM pg_roles WHERE rolname = 'app'") and (
        not await database.fetch("SELECT * FROM trespasses")
    )


@pytest.mark.parametrize("code", [code for name, code in CODE.items() if name != "a partition key"])
async def test_code_that_the_planner_runs_has_the_rights_of_the_tables_owner_alone(
    database: Database, app: Connection, fresh: Connection, code: str
) -> None:
    await app.execute("INSERT INTO posts VALUES (1, 1)")
    await app.execute(code)
    await app.execute("INSERT INTO posts VALUES (2, 1)")
    await fresh.execute("INSERT INTO posts VALUES (3, 2)")
    await fresh.execute("UPDATE members SET company_id = 'e' WHERE id = 2")
    assert await companies(database) == ["c", "c", "d", "e"]
    assert await is_confined(database)
    assert not await database.fetchval("SELECT is_called FROM runs")


SEARCHED = """
    CREATE FUNCTION searched(text, text) RETURNS text LANGUAGE plpgsql AS $$
    BEGIN
        PERFORM public.attempt('ALTER ROLE app SUPERUSER');
        RETURN pg_catalog.concat($1, $2);
    END $$;
    CREATE FUNCTION "right"(text, int) RETURNS text LANGUAGE sql AS
        'SELECT public.searched(pg_catalog."right"($1, $2), NULL)';
    CREATE OPERATOR || (LEFTARG = text, RIGHTARG = text, FUNCTION = searched);
    CREATE FUNCTION turn(int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS $$
    BEGIN
        PERFORM set_config('search_path', 'public, pg_catalog', false);
        RETURN $1;
    END $$;
    CREATE INDEX ON members ((turn(1)))
"""
"""A setting that is not local outlives those of the functions in whose queries the planner runs the code that makes it."""


async def test_code_that_the_planner_runs_does_not_choose_what_capture_calls(
    database: Database, app: Connection, fresh: Connection
) -> None:
    await app.execute("INSERT INTO posts VALUES (1, 1)")
    await app.execute(SEARCHED)
    await fresh.execute(
        "UPDATE posts SET id = 2"
    )  # no foreign key is checked, so capture reads the members first
    snapshot = "BEGIN ISOLATION LEVEL REPEATABLE READ"
    await (await database.connect(app=True)).execute(f"{snapshot}; UPDATE posts SET id = 3; COMMIT")
    await (await database.connect(app=True)).execute("UPDATE members SET company_id = 'e'")
    assert await is_confined(database)
    assert (await companies(database))[:3] == ["c", None, None]


@pytest.mark.parametrize("code", [code for name, code in CODE.items() if name != "a partition key"])
async def test_code_that_the_planner_runs_for_a_state_can_write_nothing(
    database: Database, app: Connection, relay: Relayed, code: str
) -> None:
    """The node's role is a superuser here: a lesser role can do no more."""
    await app.execute("INSERT INTO posts VALUES (1, 1), (2, 2)")
    await app.execute(code)
    await relay.settled()
    states = StateReader(database.dsn, pooled=False, max_rows=10)
    (page,) = (await states.read("c", None, "u")).pages
    states.close()
    assert b'"PostId":1,' in page
    assert b'"PostId":2,' not in page
    assert await is_confined(database)
    assert not await database.fetchval("SELECT is_called FROM runs")


TAKEN = {
    "a view": "CREATE VIEW members AS SELECT id, company_id, user_id FROM members_old WHERE trap(id) > 0",
    "a table": "CREATE TABLE members (id int PRIMARY KEY, company_id text); CREATE INDEX ON members ((trap(1)));"
    "INSERT INTO members SELECT id, company_id FROM members_old",
}


@pytest.mark.parametrize("taken", TAKEN.values(), ids=TAKEN)
async def test_what_takes_the_place_of_a_table_is_not_read(
    database: Database, app: Connection, fresh: Connection, taken: str
) -> None:
    """Of another role: it could not make the table's owner run its code otherwise."""
    await database.execute(
        "DROP ROLE IF EXISTS intruder; CREATE ROLE intruder; GRANT CREATE ON SCHEMA public TO intruder"
    )
    await app.execute("INSERT INTO posts VALUES (1, 1)")
    await app.execute("ALTER TABLE members RENAME TO members_old")
    await app.execute("GRANT SELECT ON members_old TO PUBLIC")
    await database.execute(
        f"SET ROLE intruder; {taken}; GRANT ALL ON members TO PUBLIC; RESET ROLE"
    )
    await database.execute("DELETE FROM trespasses; ALTER SEQUENCE runs RESTART")  # its own
    await app.execute("INSERT INTO posts VALUES (2, 1)")
    await fresh.execute("INSERT INTO posts VALUES (3, 2)")
    assert await companies(database) == ["c", None, None]
    states = StateReader(database.dsn, pooled=False, max_rows=10)
    for company in ("c", "d"):
        with pytest.raises(StateUnavailable, match="its path, is gone"):
            await states.read(company, None, "u")
    states.close()
    assert await is_confined(database)
    assert not await database.fetchval("SELECT is_called FROM runs")
    await database.execute("DROP OWNED BY intruder; DROP ROLE intruder")


async def test_a_column_that_is_renamed_fails_closed_and_the_next_migrate_heals(
    database: Database, app: Connection, relay: Relayed
) -> None:
    settings = load({}, database_url=database.dsn, jwt_secret=SECRET, watch=[*CALENDAR, POSTS])
    await app.execute("INSERT INTO posts VALUES (1, 1)")
    await app.execute("ALTER TABLE members RENAME company_id TO org")
    await app.execute("UPDATE posts SET member = 2")
    await relay.settled()  # read together with the next write, it would give one Resync for both
    await app.execute("UPDATE members SET org = 'x' WHERE id = 2")
    messages = await relay.messages_of("c")
    assert [each["Type"] for each in messages] == ["PostCreated", "Resync", "Resync"]
    lines = [finding.line for finding in await check(settings) if finding.sound is False]
    assert any("public.members has no column company_id" in line for line in lines), lines
    with pytest.raises(SettingsError, match="table members has no column company_id"):
        await watch(database)
    await app.execute("ALTER TABLE members DROP COLUMN org, ADD COLUMN company_id text")
    await app.execute("UPDATE members SET company_id = 'c'")
    await watch(database)
    await relay.settled()  # a writer that is open while a move is read is a Resync
    await app.execute("UPDATE posts SET member = 1")
    assert (await relay.messages_of("c"))[-1]["Type"] == "PostUpdated"
    assert not [finding for finding in await check(settings) if finding.sound is False]


async def test_a_lock_on_the_path_neither_fails_nor_delays_the_write(
    database: Database, app: Connection, relay: Relayed
) -> None:
    await app.execute("INSERT INTO posts VALUES (1, NULL), (2, 2)")
    await database.execute("BEGIN; LOCK TABLE members")
    async with asyncio.timeout(20):
        await app.execute("UPDATE posts SET id = 3 WHERE id = 2")
    await database.execute("COMMIT")
    assert [each["Type"] for each in await relay.messages_of("d")] == ["PostCreated", "Resync"]


async def test_a_time_without_the_triggers_of_a_path_is_a_resync(
    database: Database, app: Connection, relay: Relayed
) -> None:
    await app.execute("INSERT INTO posts VALUES (1, 1)")
    await relay.looked()
    await app.execute("ALTER TABLE members DISABLE TRIGGER notifier_path")
    await app.execute("UPDATE members SET company_id = 'd' WHERE id = 1")
    problems = await database.fetch("SELECT object FROM notifier.watch_problems() WHERE fatal")
    assert [each["object"] for each in problems] == ["public.members"]
    await app.execute("ALTER TABLE members ENABLE TRIGGER notifier_path")

    async def resynced() -> bool:
        return bool((await relay.messages_of("c"))[-1]["Type"] == "Resync")

    await until(resynced)


async def test_rows_of_members_give_access_to_the_company_at_the_end_of_their_path(
    database: Database, app: Connection
) -> None:
    await app.execute(
        """
        CREATE TABLE agents (id int PRIMARY KEY, member int REFERENCES members, login text);
        INSERT INTO agents VALUES (1, 1, 'ada'), (2, 2, 'bob'), (3, NULL, 'eve')
        """
    )
    await database.execute("DROP ROLE IF EXISTS path_service; CREATE ROLE path_service")
    agents = Watch(
        table="agents", entity="Agent", company="member -> members.company_id", member="login"
    )
    await migrate(database.dsn, watches=[agents], grant="path_service")
    query = Query(database.dsn, "test", pooled=False, read_only=True)
    await query.fetch("SET ROLE path_service")
    membership = Membership(query, "employees", None)

    async def allowed() -> list[str]:
        return [
            f"{user}:{company}"
            for user in ("ada", "bob", "eve")
            for company in ("c", "d")
            if await membership.may_see(Identity(user, 1e12, None), company)
        ]

    assert await allowed() == ["ada:c", "bob:d"]
    await app.execute("UPDATE members SET company_id = 'c'")
    assert await allowed() == ["ada:c", "bob:c"]
    await app.execute("UPDATE agents SET member = NULL WHERE login = 'ada'")
    assert await allowed() == ["bob:c"]
    await app.execute("ALTER TABLE members RENAME company_id TO org")
    with pytest.raises(DatabaseError, match="agents or its column"):
        await allowed()
    query.close()
    changes = "SELECT array_agg(old::text) FROM notifier.changes WHERE entity = 'Agent' AND partial"
    assert await database.fetchval(changes) == ['{"->Agent":"d"}']
    await database.execute("DROP OWNED BY path_service; DROP ROLE path_service")


async def test_the_tables_owner_cannot_change_the_function_that_it_owns(
    database: Database, app: Connection
) -> None:
    """With it, it would have the rights of the role that has run `migrate`."""
    owner = "SELECT pg_get_userbyid(proowner) FROM pg_proc WHERE proname = 'path_company'"
    assert await database.fetchval(owner) == "app"
    for statement in (
        "ALTER FUNCTION notifier.path_company(text, int, text) SECURITY INVOKER",
        "DROP FUNCTION notifier.path_company(text, int, text)",
    ):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await app.execute(statement)
    with pytest.raises(NotifierError, match="role app, which may use the schema notifier"):
        await watch(database, grant="app")
    assert not await database.fetchval("SELECT has_schema_privilege('app', 'notifier', 'USAGE')")
    assert not await database.fetchval("SELECT has_schema_privilege('app', 'notifier', 'CREATE')")
    assert await watch(database) == []
    await database.execute("ALTER TABLE members OWNER TO CURRENT_USER")
    connection = await database.connect()
    assert [str(each) for each in await functions.outdated(connection)]
    await watch(database)
    assert await database.fetchval(owner) == await database.fetchval("SELECT current_user")
    await app.execute("INSERT INTO posts VALUES (1, 1)")
    assert await companies(database) == ["c"]


async def test_migrate_needs_the_rights_of_the_tables_owner(database: Database) -> None:
    await database.execute(
        """
        DROP ROLE IF EXISTS migrator; CREATE ROLE migrator LOGIN PASSWORD 'x';
        GRANT CREATE ON SCHEMA public TO app, migrator
        """
    )
    name = await database.fetchval("SELECT current_database()")
    await database.execute(f'GRANT CREATE ON DATABASE "{name}" TO migrator')
    await uninstall(database.dsn)
    app = await database.connect(app=True)
    await app.execute(f"{TRAP}; {TABLES}; GRANT TRIGGER, SELECT, REFERENCES ON members TO migrator")
    await app.execute("ALTER TABLE posts RENAME TO old_posts")
    await database.execute(
        "SET ROLE migrator; CREATE TABLE posts (id int PRIMARY KEY, member int REFERENCES members); RESET ROLE"
    )
    await database.execute("GRANT ALL ON posts TO app")
    dsn = database.app_dsn.replace("app:app@", "migrator:x@")
    with pytest.raises(SettingsError, match="role app, whose rights migrate needs: run it as"):
        await migrate(dsn, watches=[POSTS])
    await database.execute("GRANT app TO migrator")
    await migrate(dsn, watches=[POSTS])
    await app.execute("INSERT INTO posts VALUES (1, 1)")
    await app.execute("UPDATE members SET company_id = 'd' WHERE id = 1")
    assert await companies(database) == ["c", "d"]
    await uninstall(dsn)
    await database.execute("DROP OWNED BY migrator; DROP ROLE migrator")


@pytest.mark.parametrize("code", [code for name, code in CODE.items() if name != "a partition key"])
async def test_tables_whose_owner_is_not_that_of_the_function_are_not_read(
    database: Database, app: Connection, code: str
) -> None:
    """A superuser has taken over what the role owns, before that was dropped, and has given the new role its tables."""
    await database.execute(
        """
        REASSIGN OWNED BY app TO CURRENT_USER; ALTER TABLE members OWNER TO app; ALTER TABLE posts OWNER TO app;
        ALTER FUNCTION trap(int) OWNER TO app; GRANT ALL ON trespasses, runs TO PUBLIC
        """
    )
    fresh = await database.connect(app=True)
    await fresh.execute(code)
    await fresh.execute("INSERT INTO posts VALUES (1, 1)")
    await fresh.execute("UPDATE members SET company_id = 'e'")
    assert await is_confined(database)
    assert (await companies(database))[0] is None
    await watch(database)
    await fresh.execute("INSERT INTO posts VALUES (2, 1)")
    assert (await companies(database))[-1] == "e"
    assert await is_confined(database)
