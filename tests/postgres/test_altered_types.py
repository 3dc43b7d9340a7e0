"""Types that are altered while a change with a snapshot of its own is captured, and wait for a lock, run no code."""

from __future__ import annotations

import asyncio
from typing import Literal

import pytest

from notifier.database.schema import migrate
from notifier.watches import CALENDAR, Watch
from tests.databases import Database
from tests.postgres.test_application_code import SPRING, App

WATCHES = (*CALENDAR, Watch(table="docs", entity="Doc"), Watch(table="others", entity="Other"))

TYPES = f"""
    CREATE TYPE place AS (name text, initcap text);
    CREATE TABLE docs (id int PRIMARY KEY, company_id text, place place);
    CREATE TABLE others (id int PRIMARY KEY, company_id text, initcap text);
    CREATE FUNCTION spring(value anyelement) RETURNS text LANGUAGE plpgsql AS $$ BEGIN {SPRING} RETURN ''; END $$;
    CREATE FUNCTION place_text(place) RETURNS text LANGUAGE sql AS 'SELECT public.spring($1)';
    CREATE FUNCTION others_text(others) RETURNS text LANGUAGE sql AS 'SELECT public.spring($1)';
    CREATE CAST (place AS text) WITH FUNCTION place_text(place) AS IMPLICIT;
    CREATE CAST (others AS text) WITH FUNCTION others_text(others) AS IMPLICIT;
"""

CHANGES = {
    "an attribute is renamed": "ALTER TYPE place RENAME ATTRIBUTE initcap TO renamed",
    "an attribute is dropped": "ALTER TYPE place DROP ATTRIBUTE initcap",
    "a column of another table is renamed": "ALTER TABLE others RENAME initcap TO renamed",
    "a domain takes the name of the type": """
        ALTER TYPE place RENAME ATTRIBUTE name TO name_;
        ALTER TYPE place RENAME ATTRIBUTE name_ TO name;
        ALTER TYPE place RENAME TO former;
        CREATE DOMAIN place AS former CHECK (spring(VALUE) = '')
    """,
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
@pytest.mark.parametrize("isolation", ["repeatable_read", "serializable"])
async def test_a_type_that_is_altered_while_a_row_is_captured_is_no_way_in(
    database: Database, isolation: Literal["repeatable_read", "serializable"], change: str
) -> None:
    """Names that were read before the lock was waited for are those of functions when they are gone behind it."""
    await database.execute(
        "CREATE TABLE trespasses (by text); GRANT CREATE ON SCHEMA public TO app"
    )
    altering = await database.connect(app=True)
    writing = await database.connect(app=True)
    await altering.execute(TYPES)
    await migrate(database.dsn, watches=WATCHES)
    try:
        async with writing.transaction(isolation=isolation):
            await writing.execute("SELECT FROM companies")
            async with altering.transaction():
                await altering.execute(change)
                writer = asyncio.create_task(
                    writing.execute("INSERT INTO docs VALUES (1, 'c', NULL)")
                )
                await database.blocked()
            await writer
        assert await App(database, altering).is_confined()
    finally:
        await database.execute("ALTER ROLE app NOSUPERUSER")
    captured = await database.fetch("SELECT entity FROM notifier.changes WHERE entity = 'Doc'")
    assert len(captured) == 1
