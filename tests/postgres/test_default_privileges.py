"""Whatever a database's default privileges give away, our objects are for their owner and for who may serve."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from uuid import uuid4

import asyncpg
import pytest

from notifier.check.links import check
from notifier.database.schema import migrate
from notifier.settings import load
from tests.databases import Database
from tests.services import SECRET

GENEROUS = """
    ALTER DEFAULT PRIVILEGES GRANT ALL ON SCHEMAS TO app, PUBLIC;
    ALTER DEFAULT PRIVILEGES GRANT ALL ON TABLES TO app WITH GRANT OPTION;
    ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO PUBLIC;
    ALTER DEFAULT PRIVILEGES GRANT ALL ON SEQUENCES TO app, PUBLIC;
    ALTER DEFAULT PRIVILEGES GRANT EXECUTE ON FUNCTIONS TO app, PUBLIC;
"""


async def findings(database: Database) -> list[str]:
    found = await check(load({}, database_url=database.dsn, jwt_secret=SECRET))
    return [finding.line for finding in found if finding.sound is False]


async def is_closed(database: Database) -> bool:
    """Whether the application has no right on anything of ours."""
    held = await database.fetch(
        """
        SELECT oid::regprocedure::text FROM pg_proc
        WHERE pronamespace = 'notifier'::regnamespace AND has_function_privilege('app', oid, 'EXECUTE')
        UNION ALL SELECT 'schema' WHERE has_schema_privilege('app', 'notifier', 'USAGE, CREATE')
        UNION ALL SELECT oid::regclass::text FROM pg_class
        WHERE relnamespace = 'notifier'::regnamespace AND CASE
            WHEN relkind = 'S' THEN has_sequence_privilege('app', oid, 'SELECT, UPDATE, USAGE')
            WHEN relkind IN ('r', 'p', 'v') THEN
                has_any_column_privilege('app', oid, 'SELECT, INSERT, UPDATE, REFERENCES')
                OR has_table_privilege('app', oid, 'DELETE, TRUNCATE, TRIGGER')
            END
        """
    )
    assert not held
    return True


@pytest.fixture
async def generous(
    make_database: Callable[[], Awaitable[Database]],
) -> Database:
    """A database whose default privileges give everything to the application, not migrated yet."""
    database = await make_database()
    await database.execute("DROP SCHEMA notifier CASCADE")
    await database.execute(GENEROUS)
    return database


async def test_case_10_default_privileges_give_no_right_on_anything_of_ours(
    generous: Database,
) -> None:
    await migrate(generous.dsn)
    assert await is_closed(generous)
    assert await findings(generous) == []
    app = await generous.connect(app=True)
    await app.execute("CREATE TEMP TABLE bait (id text, company_id text)")
    for statement in (
        "SELECT * FROM notifier.messages",
        "INSERT INTO notifier.changes_0 (id, entity, partial) VALUES (1, 'Event', false)",
        "SELECT nextval('notifier.change_ids')",
        (
            "CREATE TRIGGER forged AFTER INSERT ON bait FOR EACH ROW"
            " EXECUTE FUNCTION notifier.capture('Event', 'id', 'company_id')"
        ),
    ):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await app.execute(statement)


async def test_default_privileges_on_sequences_do_not_open_the_log(
    make_database: Callable[[], Awaitable[Database]],
) -> None:
    database = await make_database()
    await database.execute(
        "DROP SCHEMA notifier CASCADE; ALTER DEFAULT PRIVILEGES GRANT ALL ON SEQUENCES TO app"
    )
    await migrate(database.dsn)
    assert await is_closed(database)


async def test_functions_that_come_with_a_later_migrate_are_closed_as_well(
    generous: Database,
) -> None:
    await migrate(generous.dsn)
    await generous.execute("DROP FUNCTION notifier.prune, notifier.reopen")
    await migrate(generous.dsn)
    assert await is_closed(generous)


@pytest.mark.parametrize(
    ("grant", "line"),
    [
        ("USAGE ON SCHEMA notifier TO app", "app has USAGE ON SCHEMA notifier"),
        ("SELECT ON notifier.messages TO app", "app has SELECT ON TABLE notifier.messages"),
        ("INSERT ON notifier.changes_1 TO PUBLIC", "PUBLIC has INSERT ON TABLE notifier.changes_1"),
        (
            "UPDATE (exclude) ON notifier.watches TO app",
            "app has UPDATE (exclude) ON TABLE notifier.watches",
        ),
        (
            "USAGE ON SEQUENCE notifier.change_ids TO app",
            "app has USAGE ON SEQUENCE notifier.change_ids",
        ),
        (
            "EXECUTE ON FUNCTION notifier.capture TO app",
            "app has EXECUTE ON FUNCTION notifier.capture()",
        ),
    ],
)
async def test_check_names_a_foreign_right_and_migrate_revokes_it(
    database: Database, grant: str, line: str
) -> None:
    await database.execute(f"GRANT {grant}")
    assert await findings(database) == [f"{line}; run: notifier migrate"]
    lines: list[str] = []
    await migrate(database.dsn, report=lines.append)
    right, role = line.split(" has ")[::-1]
    assert lines == [f"{right}: revoked from {role}"]
    assert await findings(database) == []
    assert await is_closed(database)


async def test_a_right_that_was_passed_on_is_revoked_from_both(database: Database) -> None:
    role = f"friend_{uuid4().hex[:8]}"
    await database.execute(f"CREATE ROLE {role}")
    try:
        await database.execute(
            "GRANT USAGE ON SCHEMA notifier TO app;"
            "GRANT SELECT ON notifier.messages TO app WITH GRANT OPTION"
        )
        app = await database.connect(app=True)
        await app.execute(f"GRANT SELECT ON notifier.messages TO {role}")
        await migrate(database.dsn)
        assert await is_closed(database)
        assert not await database.fetchval(
            "SELECT has_table_privilege($1, 'notifier.messages', 'SELECT')", role
        )
    finally:
        await database.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")


async def test_the_role_that_serves_keeps_what_it_needs(generous: Database) -> None:
    role = f"serving_{uuid4().hex[:8]}"
    await generous.execute(f'CREATE ROLE "{role} X" LOGIN')
    try:
        await migrate(generous.dsn, grant=f"{role} X")
        await migrate(generous.dsn)
        assert await generous.fetchval(
            "SELECT has_table_privilege($1, 'notifier.messages', 'SELECT, INSERT')", f"{role} X"
        )
        assert await findings(generous) == []
        assert await is_closed(generous)
    finally:
        await generous.execute(f'DROP OWNED BY "{role} X"; DROP ROLE "{role} X"')
