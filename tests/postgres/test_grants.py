"""What `migrate` grants, and `uninstall` takes back: exactly that."""

from __future__ import annotations

from collections.abc import AsyncIterator
from uuid import uuid4

import pytest

from notifier.check.links import check
from notifier.database.schema import migrate, uninstall
from notifier.settings import load
from notifier.state.reader import StateReader
from notifier.watches import Watch
from tests.databases import Database
from tests.postgres.states import url_of
from tests.services import SECRET


@pytest.fixture
async def role(empty: Database) -> AsyncIterator[str]:
    """A role without rights."""
    name = f"role_{uuid4().hex[:8]}"
    await empty.execute(f"CREATE ROLE {name} LOGIN")
    yield name
    await empty.execute(f"DROP OWNED BY {name}; DROP ROLE {name}")


async def test_case_9_uninstall_leaves_the_grants_that_a_role_had_before(
    empty: Database, role: str
) -> None:
    await empty.execute(
        "CREATE SCHEMA hr; CREATE TABLE hr.staff (id int PRIMARY KEY, company_id text, who text);"
        f"GRANT USAGE ON SCHEMA hr TO {role}; GRANT SELECT (who) ON hr.staff TO {role}"
    )
    staff = Watch(table="hr.staff", entity="Employee", member="who")
    await migrate(empty.dsn, watches=[staff], grant=role)
    await uninstall(empty.dsn)
    rights = await empty.fetchval(
        "SELECT ARRAY[has_schema_privilege($1, 'hr', 'USAGE'),"
        " has_column_privilege($1, 'hr.staff', 'who', 'SELECT'),"
        " has_column_privilege($1, 'hr.staff', 'company_id', 'SELECT')]",
        role,
    )
    assert rights == [True, True, False]


SERVING = """
    bounding_type capture_triggers catalogue_version columns_of elect is_plain_type json_expression log_bytes planning_time
    prune readable_json refuse_reading relation_of relay_holders renamed_columns reopen rotate_changes sanitize_json system transaction_status
    truncate_changes wait_for_changes watch_problems
"""
"""The functions that queries of `serve`, `check` and `why` and the views call, and the functions that these call."""


async def test_a_role_that_serves_may_execute_what_its_queries_call_and_no_other_function(
    empty: Database, role: str
) -> None:
    await empty.execute(
        "CREATE TYPE size AS (width int, height int);"
        "CREATE TABLE boxes (id int PRIMARY KEY, company_id text, size size, who text);"
        "INSERT INTO boxes VALUES (1, 'c', (2, 3), 'ada')"
    )
    boxes = Watch(table="boxes", entity="Box", member="who")
    await migrate(empty.dsn, watches=[boxes], grant=role, state=True)
    granted = await empty.fetchval(
        "SELECT array_agg(proname::text ORDER BY proname) FROM pg_proc"
        " WHERE pronamespace = 'notifier'::regnamespace AND has_function_privilege($1, oid, 'EXECUTE')",
        role,
    )
    assert granted == SERVING.split()
    await empty.execute(f"ALTER ROLE {role} PASSWORD 'app'")
    dsn = url_of(empty, role)
    states = StateReader(dsn, pooled=False, max_rows=10)
    (page,) = (await states.read("c", None, "ada")).pages
    states.close()
    assert b'"Size":{"width":2,"height":3}' in page
    settings = load({}, database_url=dsn, jwt_secret=SECRET, watch=[boxes], state="on")
    assert [each.line for each in await check(settings) if each.sound is False] == []


async def test_a_role_that_is_gone_keeps_migrate_from_nothing_and_the_next_of_its_name_from_the_log(
    database: Database,
) -> None:
    """As after a restore into another cluster, for which `migrate` is documented."""
    role = f"gone_{uuid4().hex[:8]}"
    may_read = "SELECT has_table_privilege($1, 'notifier.stored_messages', 'SELECT')"
    await database.execute(f"CREATE ROLE {role}")
    await migrate(database.dsn, grant=role, state=True)
    assert await database.fetchval(may_read, role)
    await database.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")
    await migrate(database.dsn)
    await database.execute(f"CREATE ROLE {role}")
    await migrate(database.dsn)
    assert not await database.fetchval(may_read, role)
    await migrate(database.dsn, grant=role)
    assert await database.fetchval(may_read, role)
    await database.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")
    await uninstall(database.dsn)
