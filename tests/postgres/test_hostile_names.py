"""Names that an application gives to its objects never become SQL of ours.

An owner may rename the triggers on its tables, and name tables, columns, types, partitions and schemas as it likes.
`migrate`, `check` and `uninstall` build statements from such names, with the rights of the role that runs them.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from notifier.access.membership import Membership
from notifier.access.tokens import Identity
from notifier.check.links import check
from notifier.database.query import Query
from notifier.database.schema import migrate, uninstall
from notifier.settings import Settings, load
from notifier.watches import CALENDAR, Watch
from tests.databases import Connection, Database
from tests.postgres.relays import Relayed, types
from tests.services import SECRET

NAMES = {
    "without quotes": "IF EXISTS x ON docs;ALTER ROLE app SUPERUSER--",
    "in double quotes": 'x" ON docs;ALTER ROLE app SUPERUSER--',
    "in quotes": "x';ALTER ROLE app SUPERUSER--",
    "in a string with escapes": "x\\';ALTER ROLE app SUPERUSER--",
    "in a function's body": "x$$;ALTER ROLE app SUPERUSER--",
    "in an array": '"},{,NULL\\\\',
    "in templates": "{0}{relation}%s%I%%$1:relations:paths",
    "over lines": "a\nALTER ROLE app SUPERUSER;\n\tb",
}
"""How each would leave the place where it stands, if it stood there as it is."""


def quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


@pytest.fixture
async def app(database: Database) -> AsyncIterator[Connection]:
    """It owns its tables; a superuser runs `migrate`."""
    await database.execute(
        f"GRANT CREATE ON SCHEMA public TO app; GRANT CREATE ON DATABASE {database.name} TO app"
    )
    yield await database.connect(app=True)
    await database.execute("ALTER ROLE app NOSUPERUSER")


async def is_confined(database: Database) -> bool:
    return not await database.fetchval("SELECT rolsuper FROM pg_roles WHERE rolname = 'app'")


def settings(database: Database, *watches: Watch) -> Settings:
    return load({}, database_url=database.dsn, jwt_secret=SECRET, watch=(*CALENDAR, *watches))


async def test_a_trigger_that_its_tables_owner_renames_is_replaced(
    database: Database, app: Connection
) -> None:
    tables = {f"docs{n}" if n else "docs": quoted(name) for n, name in enumerate(NAMES.values())}
    watches = [Watch(table=table, entity=table.title()) for table in tables]
    for table in tables:
        await app.execute(f"CREATE TABLE {table} (id int PRIMARY KEY, company_id text)")
    await migrate(database.dsn, watches=(*CALENDAR, *watches))
    rename = [
        f"ALTER TRIGGER notifier_capture ON {table} RENAME TO {name}"
        for table, name in tables.items()
    ]
    await app.execute("; ".join(rename))
    lines: list[str] = []
    await migrate(database.dsn, watches=(*CALENDAR, *watches), report=lines.append)
    assert await is_confined(database)
    assert len(lines) == 2 * len(tables), "one is dropped, one created"
    assert not [each for each in await check(settings(database, *watches)) if each.sound is False]
    await app.execute("; ".join(rename))
    await uninstall(database.dsn)
    assert not await database.fetch(
        "SELECT FROM pg_trigger WHERE tgrelid::regclass::text LIKE 'docs%'"
    )
    assert await is_confined(database)


async def test_every_name_of_the_applications_is_quoted(
    database: Database, app: Connection
) -> None:
    """Those of tables, partitions, types and columns: of the key, the company, the member, and excluded ones."""
    watches: list[Watch] = []
    await app.execute("CREATE TABLE docs (id int)")
    for n, name in enumerate(NAMES.values()):
        given, longer = quoted(name), quoted(f"{name[:50]} {n}")
        await app.execute(
            f"""
            CREATE TYPE {longer} AS ENUM ('glad');
            CREATE TABLE {given} ({given} text, id int PRIMARY KEY, other text, {longer} {longer});
            CREATE TABLE parts{n} ({given} int PRIMARY KEY, company_id text, user_id text)
                PARTITION BY RANGE ({given});
            CREATE TABLE {quoted(name[:50] + " part")} PARTITION OF parts{n} DEFAULT;
            CREATE TABLE secrets{n} (id int PRIMARY KEY, {given} text);
            INSERT INTO parts{n} VALUES (1, 'c{n}', 'before')
            """
        )
        watches += [
            Watch(table=given, entity=f"Doc{n}", company=given, member="other"),
            Watch(table=f"parts{n}", entity=f"Part{n}", key=given, member="user_id"),
            Watch(table=f"secrets{n}", entity=f"Secret{n}", company="id", exclude=(given,)),
        ]
    await database.execute("DROP ROLE IF EXISTS names_service; CREATE ROLE names_service")
    await migrate(database.dsn, watches=(*CALENDAR, *watches), grant="names_service", state=True)
    assert not [each for each in await check(settings(database, *watches)) if each.sound is False]
    query = Query(database.dsn, "test", pooled=False, read_only=True)
    membership = Membership(query, "employees", None)
    relay = Relayed(database)
    await relay.start()
    for n, name in enumerate(NAMES.values()):
        await app.execute(f"INSERT INTO {quoted(name)} VALUES ('c{n}', 1, 'u', 'glad')")
        await app.execute(f"UPDATE parts{n} SET user_id = 'v'")
        await app.execute(f"INSERT INTO secrets{n} VALUES ({n}, 'secret')")
        messages = await relay.messages_of(f"c{n}")
        assert types(messages) == [f"Doc{n}Created", f"Part{n}Updated"]
        (secret,) = await relay.messages_of(n)
        assert secret["Data"] == {"CompanyId": n, f"Secret{n}Id": n}
        for user, may_see in {"u": True, "v": True, "before": False, name: False}.items():
            assert await membership.may_see(Identity(user, 1e12, None), f"c{n}") is may_see
    query.close()
    await relay.stop()
    await uninstall(database.dsn)
    assert not await database.fetch("SELECT FROM pg_trigger WHERE tgname LIKE 'notifier%'")
    assert await is_confined(database)
    await database.execute("DROP OWNED BY names_service; DROP ROLE names_service")


@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)
async def test_every_name_along_a_path_and_of_a_role_is_quoted(
    database: Database, app: Connection, name: str
) -> None:
    """A key along a path has the name. So has a role that owns the path's tables, may serve, and owns our tables, in turn."""
    role = quoted(name)
    await database.execute(
        f"""
        DROP ROLE IF EXISTS {role}; CREATE ROLE {role}; GRANT USAGE ON SCHEMA public TO {role};
        CREATE TABLE teams ({role} int PRIMARY KEY, company_id text NOT NULL);
        CREATE TABLE posts (id int PRIMARY KEY, team int REFERENCES teams);
        ALTER TABLE teams OWNER TO {role}; ALTER TABLE posts OWNER TO {role}
        """
    )
    posts = Watch(table="posts", entity="Post", company="team -> teams.company_id")
    await migrate(database.dsn, watches=[*CALENDAR, posts])
    owner = "SELECT pg_get_userbyid(proowner) FROM pg_proc WHERE proname = 'path_company'"
    assert await database.fetchval(owner) == name
    await migrate(database.dsn, watches=CALENDAR, grant=name)
    reads = "SELECT has_table_privilege($1::name, $2, 'SELECT')"
    assert await database.fetchval(reads, name, "notifier.stored_messages")
    await database.execute(f"GRANT SELECT ON notifier.messages TO {role}")
    await migrate(database.dsn, watches=CALENDAR, grant=name)
    assert not await database.fetchval(reads, name, "notifier.messages")
    await uninstall(database.dsn)
    await migrate(database.dsn, watches=CALENDAR)
    await database.execute(
        f"ALTER TABLE notifier.version OWNER TO {role};"
        f" GRANT TRIGGER ON events, employees, companies TO {role}"
    )
    await migrate(database.dsn, watches=CALENDAR)
    owner = "SELECT pg_get_userbyid(nspowner) FROM pg_namespace WHERE nspname = 'notifier'"
    assert await database.fetchval(owner) == name
    await uninstall(database.dsn)
    assert await is_confined(database)
    await database.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")
