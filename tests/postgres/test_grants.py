"""What `migrate` grants, and `uninstall` takes back: exactly that."""

from __future__ import annotations

from collections.abc import AsyncIterator
from uuid import uuid4

import pytest

from notifier.database.schema import migrate, uninstall
from notifier.watches import Watch
from tests.databases import Database


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
