"""Code in indexes, statistics and partition keys of a watched table, and in a view that takes its place.

PostgreSQL's planner simplifies the expressions of a table's indexes: a call of an immutable function with
constant arguments runs as the role of whichever query reads the table. So the queries that decide on access
run in transactions that cannot write, `migrate` queries no table of the application, and a view is not read.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress

import asyncpg
import pytest

from notifier.access.membership import Membership
from notifier.access.tokens import Identity
from notifier.check.links import check
from notifier.database import configuration, triggers
from notifier.database.connections import connect
from notifier.database.query import Query
from notifier.database.schema import migrate
from notifier.errors import DatabaseError, SettingsError
from notifier.node import Node
from notifier.settings import Settings, load
from notifier.state.reader import StateReader
from notifier.watches import CALENDAR, Watch
from notifier.why.rows import find_row
from tests.databases import Connection, Database
from tests.postgres.relays import Relayed
from tests.services import SECRET
from tests.waiting import until

WATCHES = (*CALENDAR, Watch(table="members", entity="Member", member="user_id"))

TRAP = """
    CREATE TABLE members (id int PRIMARY KEY, company_id text, user_id text);
    CREATE TABLE trespasses (by text);
    CREATE SEQUENCE runs;
    GRANT ALL ON trespasses, runs TO PUBLIC;
    CREATE FUNCTION attempt(statement text) RETURNS void LANGUAGE plpgsql AS $$
    BEGIN
        EXECUTE statement;
        EXECUTE format('INSERT INTO public.trespasses VALUES (%L)', statement);
    EXCEPTION WHEN OTHERS THEN
    END $$;
    CREATE FUNCTION trap(int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS $$
    BEGIN
        IF current_user <> 'app' THEN
            PERFORM public.attempt('RESET ROLE');
            PERFORM public.attempt('RESET default_transaction_read_only');
            PERFORM public.attempt('SET transaction_read_only = off');
            PERFORM public.attempt('ALTER ROLE app SUPERUSER');
            PERFORM public.attempt('GRANT USAGE ON SCHEMA notifier TO app');
            PERFORM public.attempt('DELETE FROM notifier.messages');
            PERFORM public.attempt('CREATE TABLE public.taken ()');
            PERFORM public.attempt('SELECT nextval(''public.runs'')');
        END IF;
        RETURN $1;
    END $$;
"""
"""The trap does with the rights of another role what it can. No rollback undoes what happens to the sequence."""

CODE = {
    "an index": "CREATE INDEX ON members ((trap(1)))",
    "the predicate of an index": "CREATE INDEX ON members (id) WHERE trap(1) = 1",
    "statistics": "CREATE STATISTICS traps ON (id + trap(1)), company_id FROM members",
    "a function that is inlined": """
        CREATE FUNCTION inlined(int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT $1 + public.trap(1)';
        CREATE INDEX ON members (inlined(id))
    """,
    "a partition key": """
        DROP TABLE members;
        CREATE TABLE members (id int, company_id text, user_id text) PARTITION BY RANGE ((id + trap(1)));
        CREATE TABLE members_1 PARTITION OF members FOR VALUES FROM (0) TO (10)
    """,
}
VIEW = """
    ALTER TABLE members RENAME TO members_old;
    CREATE VIEW members AS SELECT id, company_id, user_id FROM members_old WHERE trap(id) > 0;
    GRANT SELECT ON members TO PUBLIC
"""

QUERY = "SELECT EXISTS (SELECT FROM members WHERE company_id = $1 AND user_id = $2)"


@pytest.fixture
def settings(database: Database) -> Settings:
    return load({}, database_url=database.dsn, jwt_secret=SECRET, watch=WATCHES)


@pytest.fixture
async def app(database: Database) -> Connection:
    await database.execute("GRANT CREATE ON SCHEMA public TO app")
    app = await database.connect(app=True)
    await app.execute(TRAP)
    await migrate(database.dsn, watches=WATCHES)
    return app


async def is_confined(database: Database) -> bool:
    return not await database.fetchval("SELECT rolsuper FROM pg_roles WHERE rolname = 'app'") and (
        not await database.fetch("SELECT * FROM trespasses")
    )


async def may_see(settings: Settings, user: str) -> bool:
    """As a node decides."""
    node = Node(settings)
    try:
        return await node.membership.may_see(Identity(user, 1e12, None), "c")
    finally:
        node.membership.close()


@pytest.mark.parametrize("query", [None, QUERY], ids=["rows", "MEMBERSHIP_QUERY"])
@pytest.mark.parametrize("code", CODE.values(), ids=CODE)
async def test_code_that_the_planner_runs_in_a_check_can_write_nothing(
    database: Database, app: Connection, settings: Settings, code: str, query: str | None
) -> None:
    """The node's role is a superuser here: a lesser role can do no more."""
    settings = settings.model_copy(update={"membership_query": query})
    await app.execute(code)
    await app.execute("INSERT INTO members VALUES (1, 'c', 'u')")
    assert await may_see(settings, "u")
    assert not await may_see(settings, "v")
    await check(settings)
    assert await is_confined(database)


async def test_a_view_that_takes_the_place_of_a_table_is_not_read(
    database: Database, app: Connection, settings: Settings
) -> None:
    await app.execute("INSERT INTO members VALUES (1, 'c', 'u')")
    query = Query(database.dsn, "test", pooled=False, read_only=True)
    membership = Membership(query, "employees", None)
    assert await membership.may_see(Identity("u", 1e12, None), "c")
    await app.execute(VIEW)
    for _ in range(2):
        with pytest.raises(DatabaseError, match="members or its column"):
            await membership.may_see(Identity("u", 1e12, None), "c")
    query.close()
    assert [finding for finding in await check(settings) if finding.sound is False]
    assert await is_confined(database)


@pytest.mark.parametrize("code", CODE.values(), ids=CODE)
async def test_migrate_runs_no_code_of_the_application(
    database: Database, app: Connection, code: str
) -> None:
    """Also where it tries whether the role of --grant may read the rows of members."""
    await database.execute("DROP ROLE IF EXISTS planner_service; CREATE ROLE planner_service")
    await app.execute(code)
    with suppress(SettingsError):  # the key of the partitioned table has no unique index
        await migrate(database.dsn, watches=WATCHES, grant="planner_service")
    assert not await database.fetchval("SELECT is_called FROM runs")
    assert await is_confined(database)
    await database.execute("DROP OWNED BY planner_service; DROP ROLE planner_service")


SWAPS = {
    "a table": "ALTER TABLE own.members RENAME TO former; ALTER TABLE evil.members SET SCHEMA own",
    "a schema": "ALTER SCHEMA own RENAME TO former; ALTER SCHEMA evil RENAME TO own",
}
PARTITIONED = """
    CREATE TABLE {0} (id int, company_id text, user_id text) PARTITION BY RANGE ((id + trap(1)));
    CREATE TABLE {0}_1 PARTITION OF {0} FOR VALUES FROM (0) TO (10)
"""


@pytest.mark.parametrize("swap", SWAPS.values(), ids=SWAPS)
@pytest.mark.parametrize("dry_run", [False, True], ids=["", "--dry-run"])
async def test_migrate_runs_no_code_of_a_table_that_takes_the_name_of_another_meanwhile(
    database: Database, app: Connection, swap: str, dry_run: bool
) -> None:
    """CREATE TRIGGER on a partitioned table evaluates the expressions by which it is partitioned."""
    await database.execute(
        "CREATE SCHEMA own AUTHORIZATION app; CREATE SCHEMA evil AUTHORIZATION app"
    )
    await database.execute(f"GRANT CREATE ON DATABASE {database.name} TO app")
    await app.execute(
        "DROP TRIGGER notifier_capture ON members; ALTER TABLE members SET SCHEMA own"
    )
    await app.execute(PARTITIONED.format("evil.members"))
    watches = [Watch(table="own.members", entity="Member", member="user_id")]
    async with app.transaction():
        await app.execute("LOCK TABLE own.members")
        await app.execute(swap)
        migrating = asyncio.create_task(migrate(database.dsn, watches=watches, dry_run=dry_run))
        await database.blocked()
    with pytest.raises(SettingsError, match="no unique index"):
        await migrating
    assert not await database.fetchval("SELECT is_called FROM runs")
    assert await is_confined(database)


async def test_no_schema_is_renamed_while_migrate_creates_triggers(
    database: Database, app: Connection
) -> None:
    """Between the look at a table and CREATE TRIGGER, which finds it by its name."""
    await database.execute("CREATE SCHEMA own AUTHORIZATION app")
    await database.execute(f"GRANT CREATE ON DATABASE {database.name} TO app")
    await app.execute("ALTER TABLE members SET SCHEMA own; SET lock_timeout = '100ms'")
    migrating = await database.connect()
    async with migrating.transaction():
        await triggers.Locks(migrating).hold("own.members")
        for statement in (
            "ALTER SCHEMA own RENAME TO former",
            "DROP SCHEMA own CASCADE",
            "ALTER TABLE own.members RENAME TO former",
        ):
            with pytest.raises(asyncpg.LockNotAvailableError):
                await app.execute(statement)
    await app.execute("ALTER SCHEMA own RENAME TO former")


async def test_a_role_that_row_security_hides_rows_from_is_a_warning_of_grant(
    database: Database, app: Connection
) -> None:
    await database.execute("DROP ROLE IF EXISTS planner_service; CREATE ROLE planner_service")
    await app.execute("ALTER TABLE members ENABLE ROW LEVEL SECURITY")
    lines: list[str] = []
    await migrate(database.dsn, watches=WATCHES, grant="planner_service", report=lines.append)
    assert lines[-1] == (
        "warning: role planner_service cannot read the rows of members:"
        " row-level security applies to public.members"
    )
    await migrate(
        database.dsn,
        watches=WATCHES,
        grant="planner_service",
        membership_query="SELECT id = $1 FROM public.trespasses_of_others",
        report=lines.append,
    )
    assert lines[-1].startswith(
        "warning: role planner_service cannot read NOTIFIER_MEMBERSHIP_QUERY: "
    )
    await database.execute("DROP OWNED BY planner_service; DROP ROLE planner_service")


REMAINS = """
    CREATE SCHEMA evil;
    CREATE FUNCTION replace_statements() RETURNS void LANGUAGE plpgsql AS $$
    DECLARE
        s record;
    BEGIN
        PERFORM pg_advisory_lock(4711);
        PERFORM pg_notify('found', current_user);
        SET search_path = evil, pg_catalog;
        SET default_transaction_read_only = off;
        FOR s IN SELECT name, statement, array_to_string(parameter_types, ',') AS types
                 FROM pg_prepared_statements WHERE NOT from_sql AND parameter_types <> '{}' LOOP
            IF to_regclass('public.forgery') IS NOT NULL THEN
                EXECUTE format('DEALLOCATE %I', s.name);
                EXECUTE format('PREPARE %I (%s) AS SELECT ARRAY[true], %s, ARRAY['''']', s.name, s.types,
                               coalesce(substring(s.statement FROM 'FROM \\(SELECT (\\(.*\\)) AS signature'), '1'));
            END IF;
        END LOOP;
    END $$;
    CREATE FUNCTION leave(int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS $$
    BEGIN
        IF current_user <> 'app' THEN
            PERFORM public.replace_statements();
        END IF;
        RETURN $1;
    END $$;
    INSERT INTO members VALUES (1, 'c', 'u');
    CREATE INDEX ON members ((leave(1)))
"""
"""Code that changes the session in which a query of the service runs it: settings, locks, notifications, statements."""


@pytest.fixture
async def remaining(database: Database, app: Connection) -> Connection:
    name = await database.fetchval("SELECT current_database()")
    await database.execute(f'GRANT CREATE ON DATABASE "{name}" TO app')
    await app.execute(REMAINS)
    return app


async def test_code_that_the_planner_runs_leaves_nothing_in_the_session(
    database: Database, remaining: Connection
) -> None:
    received: list[object] = []
    await remaining.add_listener("found", lambda *given: received.append(given[-1]))
    query = Query(database.dsn, "test", pooled=False, read_only=True)
    membership = Membership(query, "employees", None)
    assert await membership.may_see(Identity("u", 1e12, None), "c")
    assert not await membership.may_see(Identity("v", 1e12, None), "c")
    ((path,),) = await query.fetch("SELECT pg_catalog.current_setting('search_path')")
    assert path == "pg_catalog, pg_temp"
    assert not await database.fetchval(
        "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = 4711"
    )
    query.close()
    await database.execute("NOTIFY found, 'the end'")

    async def ended() -> bool:
        return "the end" in received

    await until(ended)
    assert received == ["the end"]


async def test_code_that_the_planner_runs_replaces_no_statement_of_a_later_check(
    database: Database, remaining: Connection
) -> None:
    await remaining.execute("CREATE TABLE forgery ()")
    query = Query(database.dsn, "test", pooled=False, read_only=True)
    membership = Membership(query, "employees", None)
    for _ in range(3):
        with pytest.raises(DatabaseError, match="prepared statements in the service's session"):
            await membership.may_see(Identity("v", 1e12, None), "c")
    query.close()


async def test_code_that_the_planner_runs_leaves_nothing_in_the_session_of_why(
    database: Database, remaining: Connection
) -> None:
    """PostgreSQL keeps what an index's expression comes to: the code is run once in a session."""
    connection = await connect(database.dsn, "test")
    stored = (await configuration.load(connection))["Member"]
    assert await find_row(connection, stored, ["1"])
    assert await connection.fetchval("SHOW search_path") == "pg_catalog, pg_temp"
    connection.terminate()
    await remaining.execute("CREATE TABLE forgery ()")
    connection = await connect(database.dsn, "test")
    with pytest.raises(DatabaseError, match="prepared statements in the service's session"):
        await find_row(connection, stored, ["1"])
    connection.terminate()


async def test_the_queries_that_grant_tries_cannot_leave_the_role(
    database: Database, app: Connection
) -> None:
    """A superuser that migrates could run programs, also in a transaction that cannot write."""
    await database.execute("DROP ROLE IF EXISTS planner_service; CREATE ROLE planner_service")
    await app.execute(
        """
        CREATE FUNCTION try(statement text) RETURNS void LANGUAGE plpgsql AS $$
        BEGIN
            EXECUTE statement;
        EXCEPTION WHEN OTHERS THEN
        END $$;
        CREATE FUNCTION escape(int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS $$
        BEGIN
            IF current_user <> 'app' THEN
                PERFORM public.try('RESET ROLE');
                PERFORM public.try('SET SESSION AUTHORIZATION DEFAULT');
                RAISE 'it runs as %', current_user;
            END IF;
            RETURN $1;
        END $$;
        CREATE INDEX ON members ((escape(1)));
        GRANT SELECT ON members TO PUBLIC
        """
    )
    lines: list[str] = []
    await migrate(
        database.dsn,
        watches=WATCHES,
        grant="planner_service",
        membership_query=QUERY,
        report=lines.append,
    )
    assert lines[-1] == (
        "warning: role planner_service cannot read NOTIFIER_MEMBERSHIP_QUERY: it runs as planner_service"
    )
    await app.execute("DROP INDEX members_escape_idx")
    lines = []
    await migrate(
        database.dsn,
        watches=WATCHES,
        grant="planner_service",
        membership_query=QUERY,
        user_query="SELECT id FROM members WHERE user_id = $1",
        report=lines.append,
    )
    assert not [line for line in lines if line.startswith("warning")]
    assert not await database.fetchval("SELECT to_regprocedure('notifier.trial(text, text)')")
    await database.execute("DROP OWNED BY planner_service; DROP ROLE planner_service")


async def test_code_that_the_planner_runs_for_a_state_replaces_no_statement(
    database: Database, remaining: Connection, relay: Relayed
) -> None:
    await remaining.execute("CREATE TABLE forgery ()")
    await relay.settled()
    states = StateReader(database.dsn, pooled=False, max_rows=10)
    for _ in range(2):
        with pytest.raises(DatabaseError, match="prepared statements in the service's session"):
            await states.read("c", None, "u")
    await remaining.execute("DROP TABLE forgery")
    (page,) = (await states.read("c", None, "u")).pages
    assert b'"MemberId":1,' in page
    states.close()
