"""Who may do what in the database: the app's role, a stranger's, the service's."""

from __future__ import annotations

from collections.abc import AsyncIterator
from uuid import uuid4

import asyncpg
import pytest

from notifier.database.schema import migrate
from notifier.errors import DatabaseError
from tests.databases import Connection, Database, as_app
from tests.postgres.relays import Relayed, new_event, types

RIGHTS = ("SELECT", "INSERT", "UPDATE", "DELETE", "TRUNCATE", "REFERENCES", "TRIGGER")

RELATIONS = """
SELECT oid::regclass::text AS name, relkind FROM pg_class
WHERE relnamespace = 'notifier'::regnamespace AND relkind IN ('r', 'p', 'v', 'S')
"""


@pytest.fixture
async def stranger(database: Database) -> AsyncIterator[Connection]:
    """A role that may connect and nothing else."""
    role = f"stranger_{uuid4().hex[:8]}"
    await database.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'app'")
    connection = await asyncpg.connect(as_app(database.dsn).replace("app:app@", f"{role}:app@"))
    yield connection
    await connection.close()
    await database.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")


async def test_an_app_has_no_right_on_anything_of_ours(database: Database) -> None:
    relations = await database.fetch(RELATIONS)
    assert len(relations) > 15
    for name, kind in relations:
        rights = ("SELECT", "UPDATE", "USAGE") if kind == b"S" else RIGHTS
        check = "has_sequence_privilege" if kind == b"S" else "has_table_privilege"
        for right in rights:
            assert not await database.fetchval(f"SELECT {check}('app', $1, $2)", name, right), name
    for right in ("USAGE", "CREATE"):
        assert not await database.fetchval(
            "SELECT has_schema_privilege('app', 'notifier', $1)", right
        )


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT body FROM notifier.messages",
        "SELECT new FROM notifier.changes",
        "SELECT * FROM notifier.log",
        "INSERT INTO notifier.changes_0 VALUES (1, DEFAULT, 'Event', 'I', NULL, '{}', false)",
        "INSERT INTO notifier.messages VALUES (0, 1, '42', 1, now(), now(), '{}')",
        "UPDATE notifier.messages SET revokes = NULL",
        "DELETE FROM notifier.changes_0",
        "TRUNCATE notifier.changes_0",
        "UPDATE notifier.watches SET exclude = '{}'",
        "UPDATE notifier.log SET epoch = 'mine'",
        "SELECT nextval('notifier.change_ids')",
        "SELECT setval('notifier.change_ids', 4611686018427387904)",
        "SELECT notifier.is_full()",
        "CREATE TABLE notifier.changes_2 ()",
        "CREATE OR REPLACE FUNCTION notifier.capture() RETURNS trigger LANGUAGE sql AS ''",
        "ALTER FUNCTION notifier.capture() RESET search_path",
        "DROP SCHEMA notifier CASCADE",
        "ALTER TABLE events DISABLE TRIGGER ALL",
        "DROP TRIGGER notifier_capture ON events",
        "SET session_replication_role = replica",
    ],
)
async def test_an_application_role_has_no_rights_in_the_schema(
    app: Connection, statement: str
) -> None:
    with pytest.raises(
        (
            asyncpg.InsufficientPrivilegeError,
            asyncpg.UndefinedTableError,
            asyncpg.SyntaxOrAccessError,
        )
    ) as refused:
        await app.execute(statement)
    assert refused.value.sqlstate == "42501", refused.value


async def test_a_stranger_reads_and_writes_nothing(
    stranger: Connection, company: str, relay: Relayed
) -> None:
    for statement in (
        "SELECT * FROM events",
        "SELECT * FROM notifier.messages",
        "INSERT INTO notifier.changes_0 (id, entity, partial) VALUES (1, 'x', true)",
        "TRUNCATE events",
    ):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await stranger.execute(statement)
    await stranger.execute("CREATE TEMP TABLE bait (id text, company_id text)")
    for function in ("capture", "without", "keys"):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await stranger.execute(
                f"CREATE TRIGGER forged AFTER INSERT ON bait FOR EACH ROW"
                f" EXECUTE FUNCTION notifier.{function}('Event', 'id', 'company_id')"
            )
    assert await relay.messages_of(company) == []


async def test_a_stranger_may_knock_and_listen_and_learns_no_row(
    stranger: Connection, app: Connection, company: str, relay: Relayed
) -> None:
    payloads: list[str] = []
    for channel in ("notifier_changes", "notifier_messages"):
        await stranger.add_listener(channel, lambda *arguments: payloads.append(str(arguments[3])))
        await stranger.execute("SELECT pg_notify($1, '99999999999')", channel)
    await new_event(app, company, "a secret")
    assert types(await relay.messages_of(company)) == ["EventCreated"]
    await stranger.execute("SELECT")
    assert payloads
    assert all(payload == "" or payload.isdigit() for payload in payloads)


async def test_b17_objects_of_the_apps_own_stand_in_for_none_of_ours(
    database: Database, app: Connection, company: str, relay: Relayed
) -> None:
    """Temporary tables, operators and casts that its search path finds first."""
    await database.execute("CREATE SCHEMA mine; GRANT ALL ON SCHEMA mine TO app")
    await app.execute(
        """
        SET search_path = pg_temp, mine, public;
        CREATE TEMP TABLE watches (entity text);
        CREATE TEMP TABLE changes_0 (LIKE events);
        CREATE TEMP TABLE pg_class (oid oid);
        CREATE FUNCTION mine.pg_try_advisory_xact_lock_shared(int) RETURNS boolean
            LANGUAGE sql AS 'SELECT 1 / 0 = 0';
        CREATE FUNCTION mine.json_out(int, int) RETURNS boolean LANGUAGE sql AS 'SELECT 1 / 0 = 0';
        CREATE OPERATOR mine.>= (leftarg = int, rightarg = int, function = mine.json_out);
        CREATE OPERATOR mine.= (leftarg = int, rightarg = int, function = mine.json_out);
        """
    )
    await app.execute(
        "INSERT INTO public.events (company_id, title, starts_at, ends_at)"
        " VALUES ($1, 'Tea', now(), now())",
        company,
    )
    (message,) = await relay.messages_of(company)
    assert message["Data"]["Title"] == "Tea"


async def test_the_actor_is_stored_as_plain_text(
    app: Connection, company: str, relay: Relayed
) -> None:
    for actor in (
        '","Data":{"CompanyId":"x"}',
        "'; DROP TABLE events --",
        "\n\t\x01",
        "x" * 10_000,
    ):
        async with app.transaction():
            await app.execute("SELECT set_config('notifier.actor', $1, true)", actor)
            await new_event(app, company)
        (message,) = [m for m in await relay.messages_of(company) if m.get("Actor") == actor]
        assert message["Data"]["CompanyId"] == company


async def test_an_actor_takes_no_more_than_its_share(
    app: Connection, company: str, relay: Relayed
) -> None:
    async with app.transaction():
        await app.execute("SELECT set_config('notifier.actor', repeat('x', 1000000), true)")
        await new_event(app, company)
    (message,) = await relay.messages_of(company)
    assert message["Actor"] == "x" * 10_000
    assert message["Data"]["Title"] == "Tea"


async def test_the_trigger_function_belongs_to_the_migrating_role_and_runs_for_every_role(
    database: Database,
) -> None:
    functions = await database.fetch(
        "SELECT proname, prosecdef, has_function_privilege('public', oid, 'EXECUTE') AS open"
        " FROM pg_proc WHERE pronamespace = 'notifier'::regnamespace"
    )
    assert {row["proname"]: row["prosecdef"] for row in functions}["capture"]
    assert not any(row["open"] for row in functions)


async def test_only_the_service_role_receives_the_grants(
    database: Database, app: Connection
) -> None:
    role = f"serving_{uuid4().hex[:8]}"
    await database.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'serve'")
    try:
        await migrate(database.dsn, grant=role)
        assert await database.fetchval("SELECT has_schema_privilege($1, 'notifier', 'USAGE')", role)
        for table in ("events", "companies"):
            assert not await database.fetchval(
                "SELECT has_table_privilege($1, $2, 'SELECT')", role, table
            )
        for statement in ("SELECT * FROM notifier.messages", "SELECT notifier.log_bytes()"):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await app.execute(statement)
    finally:
        await database.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")


DEPENDENT = """
SELECT format('CREATE TEMP VIEW theirs AS SELECT %L::regclass, %L::regprocedure', c.oid, p.oid)
FROM pg_class AS c, pg_proc AS p
WHERE c.relname = 'changes' AND c.relnamespace = p.pronamespace AND p.proname = 'log_bytes'
"""


async def test_what_a_stranger_makes_depend_on_ours_does_not_keep_migrate_from_replacing_a_view(
    database: Database, stranger: Connection
) -> None:
    """A constant of type regclass depends on what it names, and PostgreSQL demands no right on that."""
    await database.execute("COMMENT ON VIEW notifier.changes IS 'that of a former version'")
    await stranger.execute(await stranger.fetchval(DEPENDENT))
    lines: list[str] = []
    await migrate(database.dsn, calendar=True, report=lines.append)
    assert lines == ["view changes: replaced"]
    await migrate(database.dsn, calendar=True, report=lines.append)
    assert len(lines) == 1


@pytest.mark.parametrize(
    "former",
    [
        "CREATE OR REPLACE VIEW notifier.changes AS SELECT *, 0 AS size, 0 AS more FROM notifier.changes_0",
        "DROP FUNCTION notifier.log_bytes(); CREATE FUNCTION notifier.log_bytes() RETURNS int LANGUAGE sql AS 'SELECT 1'",
    ],
)
async def test_what_a_stranger_makes_depend_on_ours_is_named_where_it_must_be_dropped(
    database: Database, stranger: Connection, former: str
) -> None:
    await database.execute(former)
    await stranger.execute(await stranger.fetchval(DEPENDENT))
    reason = r"^something else needs an object of ours: view pg_temp_\d+\.theirs depends on .*$"
    with pytest.raises(DatabaseError, match=reason):
        await migrate(database.dsn, calendar=True)
    await stranger.execute("DROP VIEW theirs")
    await migrate(database.dsn, calendar=True)
