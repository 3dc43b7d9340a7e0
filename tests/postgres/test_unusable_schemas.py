"""A migrating role that is no superuser, and a tenant's schema that it may not use: the other tenants go on."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import NamedTuple
from uuid import uuid4

import pytest

from notifier.check.links import check
from notifier.database.schema import migrate, migrate_only, uninstall
from notifier.errors import DatabaseError
from notifier.settings import load
from notifier.types.columns import read
from notifier.watches import CALENDAR, Watch
from tests.databases import Database
from tests.postgres.relays import MakeRelay, Relayed
from tests.postgres.states import url_of
from tests.services import SECRET

MEMBER = Watch(
    table="t_*.members",
    entity="Member",
    company="schema",
    member="login",
    exclude=("pin",),
    state_where="login <> 'x'",
)
TEAM = Watch(table="teams.teams", entity="Team", company="id")
PATH = Watch(table="teams.notes", entity="Note", company="team -> teams.teams.id")
TABLE = """
    CREATE SCHEMA {0}; CREATE TYPE {0}.mood AS ENUM ('good');
    CREATE TABLE {0}.members (id int PRIMARY KEY, login text, pin text, mood {0}.mood)
"""
WATCHES = [*CALENDAR, MEMBER, TEAM, PATH]


Lose = Callable[[Database], Awaitable[None]]


class Roles(NamedTuple):
    migrating: str
    serving: str


@pytest.fixture
async def roles(database: Database) -> AsyncIterator[Roles]:
    """Two roles without other rights. The first one owns the tables of t_a and t_b, and has migrated."""
    await uninstall(database.dsn)
    suffix = uuid4().hex[:8]
    roles = Roles(f"migrating_{suffix}", f"serving_{suffix}")
    await database.execute(
        f"CREATE ROLE {roles.migrating} LOGIN PASSWORD 'app'; CREATE ROLE {roles.serving} LOGIN PASSWORD 'app';"
        f"GRANT CREATE ON DATABASE {database.name} TO {roles.migrating}"
    )
    for table in ("companies", "employees", "events"):
        await database.execute(f"ALTER TABLE {table} OWNER TO {roles.migrating}")
    await as_role(
        database,
        roles.migrating,
        f"""{TABLE.format("t_a")}; {TABLE.format("t_b")}; CREATE SCHEMA teams;
            CREATE TABLE teams.teams (id int PRIMARY KEY);
            CREATE TABLE teams.notes (id int PRIMARY KEY, team int REFERENCES teams.teams)""",
    )
    await migrate(
        url_of(database, roles.migrating), watches=WATCHES, grant=roles.serving, state=True
    )
    yield roles
    for role in roles:
        await database.execute(f"DROP OWNED BY {role} CASCADE; DROP ROLE {role}")


async def as_role(database: Database, role: str, statements: str) -> None:
    await database.execute(f"SET ROLE {role}; {statements}; RESET ROLE")


async def make_again(database: Database) -> None:
    await database.execute(f"DROP SCHEMA t_a CASCADE; {TABLE.format('t_a')}")


async def make_again_with_usage(database: Database) -> None:
    await make_again(database)
    await database.execute("GRANT USAGE ON SCHEMA t_a TO PUBLIC")


async def give_away(database: Database) -> None:
    """The table and our triggers stay as they are."""
    await database.execute(
        "ALTER SCHEMA t_a OWNER TO CURRENT_USER; REVOKE ALL ON SCHEMA t_a FROM PUBLIC"
    )
    for (role,) in await database.fetch(
        "SELECT rolname FROM pg_roles WHERE rolname ~ '^(migrat|serv)ing_'"
    ):
        await database.execute(f"REVOKE ALL ON SCHEMA t_a FROM {role}")


LOSSES = pytest.mark.parametrize("lose", [make_again, make_again_with_usage, give_away])


@LOSSES
async def test_migrate_completes_the_tables_of_the_other_schemas(
    lose: Lose, database: Database, roles: Roles, make_relay: MakeRelay
) -> None:
    """And names the table of that one, which keeps what was there."""
    relay = await relaying(database, roles, make_relay)
    hidden = await hidden_columns(database)
    await lose(database)
    await as_role(database, roles.migrating, TABLE.format("t_c"))
    lines: list[str] = []
    with pytest.raises(DatabaseError, match=r"not watched as set: table t_a\.members: permission"):
        await migrate(url_of(database, roles.migrating), watches=WATCHES, report=lines.append)
    assert "schema t_c: watched (1 of 2)" in lines
    assert [line for line in lines if line.startswith(f"warning: role {roles.serving} lacks")]
    await require_complete(database, relay, roles, "t_c")
    if lose is give_away:
        assert hidden < await hidden_columns(database)


@LOSSES
async def test_migrate_only_completes_the_tables_of_another_schema(
    lose: Lose, database: Database, roles: Roles, make_relay: MakeRelay
) -> None:
    relay = await relaying(database, roles, make_relay)
    hidden = await hidden_columns(database)
    await lose(database)
    await as_role(database, roles.migrating, TABLE.format("t_c"))
    lines: list[str] = []
    await migrate_only(
        url_of(database, roles.migrating), "t_c.*", watches=WATCHES, report=lines.append
    )
    assert lines == ["schema t_c: 1 tables are watched"]
    await require_complete(database, relay, roles, "t_c")
    assert hidden < await hidden_columns(database)
    with pytest.raises(DatabaseError, match=r"not watched as set: table t_a\.members: permission"):
        await migrate_only(url_of(database, roles.migrating), "t_a.*")


@pytest.mark.parametrize("only", [True, False])
async def test_rights_that_the_migrating_role_may_not_grant_are_named(
    only: bool, database: Database, roles: Roles
) -> None:
    """PostgreSQL warns, and reports no error, where a role has a right without its grant option."""
    await database.execute(
        f"{TABLE.format('t_c')}; GRANT USAGE ON SCHEMA t_c TO {roles.migrating};"
        f"GRANT ALL ON t_c.members TO {roles.migrating}"
    )
    lines: list[str] = []
    url = url_of(database, roles.migrating)
    if only:
        await migrate_only(url, "t_c.*", watches=WATCHES, report=lines.append)
    else:
        await migrate(url, watches=WATCHES, report=lines.append)
    lacking = [line for line in lines if line.startswith(f"warning: role {roles.serving} lacks")]
    assert [line for line in lacking if "USAGE ON SCHEMA t_c" in line]
    assert [line for line in lacking if "ON t_c.members" in line]
    assert len({*lacking}) == len(lacking)
    recorded = "SELECT privilege FROM notifier.grants WHERE privilege LIKE '%t_c%'"
    assert not await database.fetch(recorded)


@LOSSES
@pytest.mark.parametrize("number", [0, 1])
async def test_check_compares_the_tables_of_the_other_schemas(
    lose: Lose, number: int, database: Database, roles: Roles
) -> None:
    await lose(database)
    await as_role(database, roles.migrating, TABLE.format("t_c"))
    settings = load(
        {}, database_url=url_of(database, roles[number]), jwt_secret=SECRET, watch=WATCHES
    )
    facts = [each.fact for each in await check(settings) if each.sound is False]
    assert "schema t_c is not watched yet" in facts
    assert not [fact for fact in facts if "permission denied" in fact], facts
    assert any(" lacks " in fact and "t_a" in fact for fact in facts)
    assert {"Member", "Note", "Team"} < {each.watch.entity for each in await read(settings)}


async def relaying(database: Database, roles: Roles, make_relay: MakeRelay) -> Relayed:
    relay = make_relay()
    relay.url = url_of(database, roles.serving)
    await relay.start()
    return relay


async def hidden_columns(database: Database) -> set[tuple[int, str]]:
    rows = await database.fetch("SELECT relation::oid::int8, name FROM notifier.hidden_columns")
    return {(row[0], row[1]) for row in rows}


async def require_complete(database: Database, relay: Relayed, roles: Roles, schema: str) -> None:
    """Its column is hidden, the role may read its members, and running nodes use its watch."""
    relation = await database.fetchval("SELECT $1::regclass::oid::int8", f"{schema}.members")
    assert (relation, "pin") in await hidden_columns(database)
    assert await database.fetchval(
        "SELECT has_column_privilege($1, $2, 'login', 'SELECT')", roles.serving, f"{schema}.members"
    )
    await database.execute(f"INSERT INTO {schema}.members VALUES (1, 'ada', '1234')")
    await database.execute("INSERT INTO t_b.members VALUES (1, 'bob', '5678')")
    for company in (schema, "t_b"):
        (message,) = await relay.messages_of(company)
        assert (message["Type"], "Partial" in message) == ("MemberCreated", False)
