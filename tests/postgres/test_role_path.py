"""The schema that "$user" in the search_path stands for: a role with CREATE on the database can make one.

Names in MEMBERSHIP_QUERY, USER_QUERY and [[watch]] are looked up by the role's own search_path.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from notifier.access.tokens import Identity
from notifier.check.links import check
from notifier.database import sql
from notifier.database.configuration import load as load_watches
from notifier.database.connections import connected
from notifier.database.grants import refusal
from notifier.database.query import Query
from notifier.database.schema import migrate
from notifier.errors import DatabaseError
from notifier.node import Node
from notifier.settings import Settings, load
from notifier.watches import CALENDAR, Watch
from tests.databases import Connection, Database
from tests.postgres.states import url_of
from tests.services import SECRET

BY_QUERY = "SELECT EXISTS (SELECT FROM members WHERE company_id = $1 AND user_id = $2)"
BY_USER = "SELECT user_id FROM members WHERE user_id = $1"
SETTINGS = "SELECT current_setting('search_path'), current_setting('row_security')"
TABLE = "(id int PRIMARY KEY, company_id text, user_id text)"


@pytest.fixture
async def role(database: Database) -> AsyncIterator[str]:
    """The role of `serve`, and a table `members` that it may read."""
    name = f"service_{database.name[-12:]}"
    await database.execute(f"CREATE ROLE {name} LOGIN PASSWORD 'app'")
    await database.execute(f"CREATE TABLE members {TABLE}; GRANT SELECT ON members TO {name}")
    await database.execute("INSERT INTO members VALUES (1, 'c', 'u')")
    await migrate(database.dsn, grant=name)
    yield name
    await database.execute(f"DROP OWNED BY {name}; DROP ROLE {name}")


@pytest.fixture
async def trap(database: Database, app: Connection, role: str) -> str:
    """Statements of the application that give the role's schema a table of its own."""
    await database.execute(f"GRANT CREATE ON DATABASE {database.name} TO app")
    return f"""
        CREATE SCHEMA {role} CREATE TABLE members {TABLE};
        INSERT INTO {role}.members VALUES (1, 'c', 'v');
        GRANT USAGE ON SCHEMA {role} TO PUBLIC; GRANT SELECT ON {role}.members TO PUBLIC
    """


@pytest.fixture
async def settings(database: Database, role: str) -> Settings:
    return load(
        {}, database_url=url_of(database, role), jwt_secret=SECRET, membership_query=BY_QUERY
    )


async def seen(node: Node) -> list[str]:
    """The users who may see the company `c`."""
    users = [Identity(name, 1e12, None) for name in ("u", "v")]
    return [each.user for each in users if await node.membership.may_see(each, "c")]


async def accounts(database: Database, role: str, pooled: bool) -> list[str]:
    """The users whom USER_QUERY finds."""
    link = Query(url_of(database, role), "test", pooled=pooled, pinned=False, read_only=True)
    try:
        return [row[0] for name in ("u", "v") for row in await link.fetch(BY_USER, name)]
    finally:
        link.close()


@pytest.mark.parametrize("pooled", [False, True])
async def test_no_query_of_the_operator_finds_tables_in_a_schema_that_another_role_has_made(
    database: Database, app: Connection, settings: Settings, role: str, trap: str, pooled: bool
) -> None:
    """Neither in sessions that began before, nor in later ones."""
    node = Node(settings)
    assert await seen(node) == ["u"]
    await app.execute(trap)
    assert await seen(node) == ["u"]
    node.membership.close()
    assert await seen(node) == ["u"]
    node.membership.close()
    assert await accounts(database, role, pooled) == ["u"]
    (note,) = [each for each in await check(settings) if f"schema {role}" in each.fact]
    assert "belongs to app" in note.fact
    assert note.is_actionable


async def test_migrate_grant_tries_the_queries_with_the_same_tables(
    database: Database, app: Connection, role: str, trap: str
) -> None:
    await app.execute(trap)
    await app.execute(f"REVOKE SELECT ON {role}.members FROM PUBLIC")
    async with connected(database.dsn, "test", pinned=False) as connection:
        assert await refusal(connection, role, BY_QUERY, BY_USER) is None


@pytest.mark.parametrize("owner", ["role", "the owner of the database", "a member of the role"])
async def test_a_schema_of_the_roles_own_is_searched(
    database: Database, app: Connection, settings: Settings, role: str, trap: str, owner: str
) -> None:
    await app.execute(trap)
    if owner == "a member of the role":
        await database.execute(f"GRANT {role} TO app")
    elif owner == "role":
        await database.execute(f"ALTER SCHEMA {role} OWNER TO {role}")
    else:
        await database.execute(f"ALTER SCHEMA {role} OWNER TO CURRENT_USER")
    node = Node(settings)
    assert await seen(node) == ["v"]
    node.membership.close()
    assert not [each for each in await check(settings) if f"schema {role}" in each.fact]
    await database.execute(f"DROP SCHEMA {role} CASCADE")


async def test_a_schema_with_a_watched_table_is_searched(
    database: Database, app: Connection, settings: Settings, role: str, trap: str
) -> None:
    await app.execute(trap)
    watch = Watch(table=f"{role}.members", entity="Member", member="user_id")
    await migrate(database.dsn, watches=(*CALENDAR, watch))
    node = Node(settings)
    assert await seen(node) == ["v"]
    node.membership.close()


async def test_a_path_without_any_schema_finds_nothing(
    database: Database, app: Connection, settings: Settings, role: str, trap: str
) -> None:
    await app.execute(trap)
    await database.execute(f"""ALTER ROLE {role} SET search_path = "$user" """)
    node = Node(settings)
    with pytest.raises(DatabaseError, match='"members" does not exist'):
        await seen(node)
    node.membership.close()


@pytest.mark.parametrize(
    ("name", "arguments"), [("arrival_heads", ["c"]), ("transaction_states", [1])]
)
async def test_through_a_pooler_no_query_of_ours_runs_a_function_of_the_application(
    database: Database, app: Connection, name: str, arguments: list[object]
) -> None:
    """A session of a pooler has the role's own path; PostgreSQL prefers a function of exactly the type to its own of any."""
    await database.execute("GRANT CREATE ON SCHEMA public TO app")
    for kind in ("text", "xid8"):
        await app.execute(
            f"""CREATE FUNCTION public.unnest({kind}[]) RETURNS SETOF {kind} LANGUAGE plpgsql AS
                $$ BEGIN RAISE 'run by %', current_user; END $$"""
        )
    link = Query(database.dsn, "test", pooled=True)
    assert len(await link.fetch(sql.query(name), arguments)) == 1
    link.close()


@pytest.mark.parametrize("read_only", [False, True])
async def test_each_transaction_through_a_pooler_has_our_path(
    database: Database, read_only: bool
) -> None:
    link = Query(database.dsn, "test", pooled=True, read_only=read_only)
    found = [(*row,) for row in await link.fetch(SETTINGS)]
    assert found == [("pg_catalog, pg_temp", "off")]
    link.close()


async def test_migrate_watches_no_table_in_a_schema_that_another_role_has_made(
    database: Database, app: Connection
) -> None:
    migrator = f"migrator_{database.name[-12:]}"
    await database.execute(f"CREATE ROLE {migrator} SUPERUSER LOGIN PASSWORD 'app'")
    await database.execute(f"GRANT CREATE ON DATABASE {database.name} TO app")
    await app.execute(
        f"""CREATE SCHEMA {migrator};
            CREATE TABLE {migrator}.events (LIKE public.events INCLUDING ALL);
            CREATE TABLE {migrator}.employees (LIKE public.employees INCLUDING ALL);
            CREATE TABLE {migrator}.companies (LIKE public.companies INCLUDING ALL)"""
    )
    try:
        await migrate(url_of(database, migrator), calendar=True)
        async with connected(database.dsn, "test") as connection:
            stored = await load_watches(connection)
        assert {each.relation for each in stored.values()} == {
            "public.companies",
            "public.employees",
            "public.events",
        }
    finally:
        await database.execute(f"DROP OWNED BY {migrator} CASCADE; DROP ROLE {migrator}")


@pytest.mark.parametrize("attributes", ["SUPERUSER", "CREATEROLE"])
async def test_migrate_does_not_run_as_a_role_that_the_owner_of_the_database_has_set(
    empty: Database, attributes: str
) -> None:
    """The owner of the database would own the schema `notifier`, and triggers in it could RESET ROLE."""
    owner, administrator = f"owner_{empty.name[-12:]}", f"administrator_{empty.name[-12:]}"
    await empty.execute(f"CREATE ROLE {owner}")
    await empty.execute(f"CREATE ROLE {administrator} {attributes} LOGIN PASSWORD 'app'")
    await empty.execute(
        f"""GRANT {owner} TO {administrator}; ALTER DATABASE {empty.name} OWNER TO {owner};
            SET ROLE {owner}; ALTER DATABASE {empty.name} SET role = {owner}; RESET ROLE"""
    )
    dsn = url_of(empty, administrator)
    try:
        with pytest.raises(DatabaseError, match=f"act as {owner}.*RESET role"):
            await migrate(dsn, calendar=True)
        assert not await empty.fetchval("SELECT to_regnamespace('notifier') IS NOT NULL")
        # an administrator's own choice
        await empty.execute(f"ALTER ROLE {administrator} SET role = {owner}")
        await migrate(dsn, calendar=True)
        found = await empty.fetchval(
            "SELECT nspowner::regrole::text FROM pg_namespace WHERE nspname = 'notifier'"
        )
        assert found == owner
    finally:
        await empty.execute(
            f"""ALTER DATABASE {empty.name} OWNER TO CURRENT_USER; DROP OWNED BY {owner}, {administrator} CASCADE;
                DROP ROLE {owner}, {administrator}"""
        )


async def test_the_path_is_planned_once_for_all_queries_of_a_session(
    database: Database, role: str
) -> None:
    """To plan it takes longer than most queries, and each check of access is one."""
    planned = """SELECT sum(generic_plans) FROM pg_catalog.pg_prepared_statements
                 WHERE strpos(statement, 'set_config(''search_path''') > 0"""
    link = Query(url_of(database, role), "test", pooled=False).for_operator()
    try:
        counts = [(await link.fetch(planned))[0][0] for _ in range(3)]
    finally:
        link.close()
    assert counts == [1, 2, 3]
