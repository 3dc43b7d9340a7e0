"""The texts of the log and the key of the signatures are only read in DEFERRABLE transactions.

PostgreSQL's planner runs code of the application as the role of `serve` when that role reads a table of the application, which
it does in transactions that are not DEFERRABLE (docs/decisions/25-code-in-the-planner.md).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable
from uuid import uuid4

import asyncpg
import pytest

from notifier.access.tokens import Identity
from notifier.check.links import check
from notifier.database import configuration
from notifier.database.connections import connected
from notifier.database.schema import EXCESSIVE, NARROW, downgrade, migrate
from notifier.errors import NotifierError
from notifier.node import Node
from notifier.settings import Settings, load
from notifier.state.reader import StateReader
from notifier.watches import CALENDAR, Watch
from notifier.why.rows import find_row
from tests.databases import Connection, Database
from tests.postgres.relays import Relayed, new_company, new_event, types
from tests.postgres.states import url_of
from tests.services import SECRET

WATCHES = (*CALENDAR, Watch(table="members", entity="Member", member="user_id"))

BY_QUERY = "SELECT EXISTS (SELECT FROM public.members WHERE company_id = $1 AND user_id = $2)"
BY_USER = "SELECT user_id FROM public.members WHERE user_id = $1"

TRAP = """
    CREATE TABLE members (id int PRIMARY KEY, company_id text, user_id text);
    CREATE FUNCTION leak(text) RETURNS boolean LANGUAGE plpgsql IMMUTABLE COST 0.0001 AS $$
    BEGIN
        RAISE 'leaked' USING ERRCODE = 'triggered_action_exception';
    END $$;
    CREATE FUNCTION joined(relation text, value text) RETURNS boolean LANGUAGE plpgsql AS $$
    BEGIN
        EXECUTE format('SELECT FROM notifier.log AS l LEFT JOIN notifier.%I AS r ON public.leak(r.%I::text)', relation, value);
        RETURN true;
    EXCEPTION WHEN triggered_action_exception THEN
        RETURN true;
    WHEN OTHERS THEN
        RETURN false;
    END $$;
    CREATE FUNCTION read_whole(relation text) RETURNS boolean LANGUAGE plpgsql PARALLEL SAFE AS $$
    BEGIN
        EXECUTE format('SELECT FROM notifier.%I AS r WHERE r::text IS NOT NULL', relation);
        RETURN true;
    END $$;
    CREATE FUNCTION reads(way text, relation text) RETURNS boolean LANGUAGE plpgsql AS $$
    BEGIN
        EXECUTE way;
        EXECUTE format('SELECT public.read_whole(%L)', relation);
        RETURN true;
    EXCEPTION WHEN OTHERS THEN
        RETURN false;
    END $$;
    CREATE FUNCTION readable() RETURNS text LANGUAGE plpgsql AS $$
    DECLARE
        found text[] := '{}';
        relation text;
        way text[];
    BEGIN
        FOREACH way SLICE 1 IN ARRAY ARRAY[
            ['as it is', 'SELECT'],
            ['with SET', 'SET TRANSACTION READ WRITE'],
            ['with SET DEFERRABLE', 'SET TRANSACTION DEFERRABLE'],
            ['with a default', 'SET default_transaction_deferrable = on; SET default_transaction_read_only = off'],
            ['after RESET', 'RESET transaction_read_only'],
            ['after RESET DEFERRABLE', 'RESET transaction_deferrable'],
            ['in a worker', 'SET max_parallel_workers_per_gather = 2; SET {parallel} = on']
        ] LOOP
            FOREACH relation IN ARRAY ARRAY[
                'stored_messages', 'messages', 'messages_0', 'changes', 'changes_0', 'changes_1', 'signing_secret', 'signing_key'
            ] LOOP
                IF public.reads(way[2], relation) THEN
                    found := found || format('%s %s', relation, way[1]);
                END IF;
            END LOOP;
        END LOOP;
        FOREACH way SLICE 1 IN ARRAY ARRAY[
            ['stored_messages', 'body'], ['stored_messages', 'revokes'], ['stored_messages', 'views'], ['stored_messages', 'traceparent'],
            ['changes', 'old'], ['changes', 'new'], ['changes', 'actor'], ['changes', 'traceparent'], ['signing_secret', 'secret']
        ] LOOP
            IF public.joined(way[1], way[2]) THEN
                found := found || format('%s of %s in a join', way[2], way[1]);
            END IF;
        END LOOP;
        RETURN coalesce(nullif(array_to_string(found, ', '), ''), 'nothing');
    END $$;
    CREATE FUNCTION trap(int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS $$
    BEGIN
        IF current_user LIKE 'serving%' THEN
            RAISE 'reads %', public.readable() USING ERRCODE = 'object_not_in_prerequisite_state';
        END IF;
        RETURN $1;
    END $$;
    INSERT INTO members VALUES (1, 'c', 'u');
    CREATE INDEX ON members ((trap(1)))
"""
"""Fails each query of the role that serves with the names of the relations that code in an index can read whole."""


@pytest.fixture
async def role(database: Database) -> AsyncIterator[str]:
    name = f"serving_{uuid4().hex[:8]}"
    await database.execute(f"CREATE ROLE {name} LOGIN PASSWORD 'app'")
    yield name
    await database.execute(f"DROP OWNED BY {name}; DROP ROLE {name}")


@pytest.fixture
async def settings(database: Database, role: str) -> Settings:
    """Those of a node with the granted role, where the owner of `members` has put code into an index."""
    await database.execute("GRANT CREATE ON SCHEMA public TO app")
    app = await database.connect(app=True)
    major = int(await app.fetchval("SHOW server_version_num")) // 10000
    parallel = "debug_parallel_query" if major >= 16 else "force_parallel_mode"
    await app.execute(TRAP.replace("{parallel}", parallel))
    await migrate(database.dsn, watches=WATCHES, grant=role, state=True)
    await database.execute("""
        INSERT INTO notifier.messages (slot, seq, company, position, at, body, revokes, views, traceparent)
        VALUES (0, 1, 'd', 1, now(), '{}', '{u}', '[]', 't');
        INSERT INTO notifier.changes_0 (id, entity, old, new, partial, actor, traceparent)
        VALUES (1, 'Event', '{}', '{}', true, 'actor', 't')
    """)
    return load(
        {}, database_url=url_of(database, role), jwt_secret=SECRET, watch=WATCHES, state="on"
    )


async def outcome(query: Awaitable[object]) -> str:
    """What the trap raised, through whatever the product made of it."""
    try:
        await query
    except (asyncpg.PostgresError, NotifierError) as error:
        cause = error.__cause__ if isinstance(error.__cause__, asyncpg.PostgresError) else error
        return str(cause)
    return "nothing was raised"


async def test_code_in_an_index_reads_nothing_of_the_log(
    database: Database, settings: Settings
) -> None:
    """Checks of access by rows and by queries, of accounts, states, and `why`. Elsewhere the role reads the views."""
    found: dict[str, str] = {}
    user = Identity("u", 1e12, None)
    for name, query in (("rows", None), ("query", BY_QUERY)):
        node = Node(settings.model_copy(update={"membership_query": query}))
        found[name] = await outcome(node.membership.may_see(user, "c"))
        node.membership.close()
    node = Node(settings.model_copy(update={"user_query": BY_USER}))
    found["user"] = await outcome(node.membership.user_of(user, 0))
    node.membership.close()
    states = StateReader(settings.database, pooled=False, max_rows=10)
    found["state"] = await outcome(states.read("c", None, "u"))
    states.close()
    async with connected(settings.database, "test") as connection:
        stored = (await configuration.load(connection))["Member"]
        found["why"] = await outcome(find_row(connection, stored, ["1"]))
    async with connected(settings.database, "test") as connection:
        found["elsewhere"] = await outcome(
            connection.execute("SELECT FROM public.members WHERE id = 1")
        )
    assert found.pop("elsewhere").startswith(
        "reads stored_messages as it is, changes as it is, signing_secret as it is"
    )
    assert set(found.values()) == {"reads nothing"}, found


async def test_code_that_runs_when_a_query_is_parsed_reads_nothing_of_the_log(
    database: Database, settings: Settings
) -> None:
    """The literal is a value of the column's type, and PostgreSQL checks it before it plans."""
    app = await database.connect(app=True)
    await app.execute("""
        DROP INDEX members_trap_idx;
        CREATE FUNCTION trap_text(text) RETURNS boolean LANGUAGE sql AS 'SELECT public.trap(1) = 1';
        CREATE DOMAIN tag AS text CHECK (trap_text(VALUE));
        ALTER TABLE members ADD tags tag[]
    """)
    user = Identity("u", 1e12, None)
    tagged = " AND tags && '{a}'"
    by_query = BY_QUERY.removesuffix(")") + tagged + ")"
    node = Node(settings.model_copy(update={"membership_query": by_query}))
    assert await outcome(node.membership.may_see(user, "c")) == "reads nothing"
    assert await outcome(node.membership.require()) == "reads nothing"
    node.membership.close()
    node = Node(settings.model_copy(update={"user_query": BY_USER + tagged}))
    assert await outcome(node.membership.user_of(user, 0)) == "reads nothing"
    node.membership.close()


async def test_a_role_that_a_former_version_granted_keeps_its_rights_until_it_is_granted_again(
    database: Database, app: Connection, role: str
) -> None:
    """Nodes of that version go on while others are updated."""
    await migrate(database.dsn, grant=role)
    await database.execute(
        f"GRANT SELECT ON notifier.messages, notifier.messages_0, notifier.changes_0, notifier.changes_1,"
        f" notifier.signing_key TO {role}; GRANT UPDATE ON SEQUENCE notifier.change_ids TO {role}"
    )
    settings = load({}, database_url=url_of(database, role), jwt_secret=SECRET)
    lines: list[str] = []
    await migrate(database.dsn, report=lines.append)
    assert [line for line in lines if "may read the log" in line] == [
        f"warning: {EXCESSIVE}; {NARROW}".format(role=role)
    ]
    (note,) = [each for each in await check(settings) if each.fact == EXCESSIVE.format(role=role)]
    assert note.is_actionable
    older = await database.connect()
    await older.execute(f"SET ROLE {role}")
    await older.execute("SELECT body FROM notifier.messages; SELECT new FROM notifier.changes_0")
    await older.execute("BEGIN READ ONLY; SELECT id FROM notifier.changes; ROLLBACK")  # a state's

    await migrate(database.dsn, grant=role, report=lines.append)
    for relation, column in (("messages", "body"), ("changes_0", "new"), ("signing_key", "secret")):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await older.execute(f"SELECT {column} FROM notifier.{relation}")
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await older.execute(
            "SELECT setval('notifier.change_ids', last_value) FROM notifier.change_ids"
        )
    assert not [each for each in await check(settings) if "may read the log" in each.fact]
    relay = Relayed(database)
    relay.url = settings.database
    await relay.start()
    company = await new_company(app)
    await new_event(app, company)
    assert types(await relay.messages_of(company)) == ["EventCreated"]
    await relay.stop()


async def test_tables_of_several_owners_are_a_note_of_check(database: Database) -> None:
    settings = load({}, database_url=database.dsn, jwt_secret=SECRET)
    assert not [each for each in await check(settings) if "belong to" in each.fact]
    await database.execute(
        "CREATE TABLE members (id int PRIMARY KEY, company_id text, user_id text); ALTER TABLE members OWNER TO app"
    )
    await migrate(database.dsn, watches=WATCHES)
    settings = load({}, database_url=database.dsn, jwt_secret=SECRET, watch=WATCHES)
    (note,) = [each for each in await check(settings) if "belong to" in each.fact]
    assert "app, postgres" in note.fact
    assert note.sound is None
    assert not note.is_actionable


async def test_only_a_deferrable_transaction_sets_the_sequence_which_no_rollback_undoes(
    database: Database, role: str
) -> None:
    """Before PostgreSQL 16 code that the planner runs can make its transaction writable, but not DEFERRABLE."""
    await migrate(database.dsn, grant=role)
    link = await asyncpg.connect(url_of(database, role))
    ids = "SELECT last_value FROM notifier.change_ids"
    before = await link.fetchval(ids)
    administrator = await database.connect()
    await administrator.execute(f"SET ROLE {role}")  # as `migrate --grant` does
    for statement in (
        "SELECT setval('notifier.change_ids', 1::bigint << 62)",
        "SELECT nextval('notifier.change_ids')",
        "SELECT notifier.rotate_changes()",
        "SELECT notifier.reopen()",
    ):
        for session in (link, administrator):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await session.execute(statement)
    assert await link.fetchval(ids) == before
    await link.execute("SET default_transaction_deferrable = on")
    assert await link.fetchval("SELECT notifier.rotate_changes()")
    assert await link.fetchval(ids) > before
    await database.execute("SELECT setval('notifier.change_ids', (1::bigint << 62) + 7)")
    await link.execute("SELECT notifier.reopen()")
    assert await link.fetchval(ids) < 1 << 62
    await link.close()


async def test_a_role_that_is_a_member_of_one_with_more_rights_is_a_note_of_check(
    database: Database, app: Connection, role: str
) -> None:
    await migrate(database.dsn, grant=role)
    settings = load({}, database_url=url_of(database, role), jwt_secret=SECRET)

    async def notes() -> dict[str, str]:
        found = [each for each in await check(settings) if "is a member of" in each.fact]
        assert all(each.sound is None for each in found)
        facts = [each.fact.partition(" is a member of ")[2].partition(":")[0] for each in found]
        return dict(fact.split(", which ") for fact in facts)

    assert not await notes()
    between = f"{role}_between"
    owner = await database.fetchval("SELECT current_user")
    await database.execute(
        f"CREATE ROLE {between}; GRANT pg_read_all_data, app TO {between}; GRANT {between}, pg_monitor TO {role};"
        f" ALTER TABLE events OWNER TO app"
    )
    try:
        expected = {"app": "owns public.events", "pg_read_all_data": "has rights on all tables"}
        assert await notes() == expected
        await database.execute(f"GRANT {owner} TO {role}")
        assert await notes() == expected | {owner: "is a superuser"}
    finally:
        await database.execute(f"REVOKE {owner} FROM {role}; DROP ROLE {between}")


async def test_no_statistics_have_texts_of_the_log(database: Database) -> None:
    """An operator of the application could read them while PostgreSQL plans a query of a view. The columns are JSON or listed."""
    await downgrade(database.dsn, "0020")
    await database.execute("""
        INSERT INTO notifier.messages (slot, seq, company, position, at, body, revokes, traceparent)
        SELECT 3, n, 'c', n, now(), '{}', '{u}', 't' FROM generate_series(1, 100) AS n;
        INSERT INTO notifier.changes_0 (id, entity, partial, actor, traceparent)
        SELECT n, 'Event', false, 'actor', 't' FROM generate_series(1, 100) AS n;
        ANALYZE notifier.messages, notifier.messages_3, notifier.changes_0, notifier.signing_key
    """)
    gathered = """
        SELECT DISTINCT tablename || ' ' || attname FROM pg_stats
        WHERE schemaname = 'notifier' AND tablename ~ '^(messages|changes|signing_key)'
          AND coalesce(most_common_vals::text, most_common_elems::text, histogram_bounds::text) IS NOT NULL
          AND attname NOT IN ('slot', 'seq', 'company', 'position', 'at', 'stored', 'cursor', 'id', 'xid', 'entity', 'partial')
        ORDER BY 1
    """
    before = [name for (name,) in await database.fetch(gathered)]
    assert len(before) == 6, before
    await migrate(database.dsn, watches=CALENDAR)
    assert await database.fetch(gathered) == []
    await database.execute(
        "ANALYZE notifier.messages, notifier.messages_3, notifier.changes_0, notifier.signing_key"
    )
    assert await database.fetch(gathered) == []
