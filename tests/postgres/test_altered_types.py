"""Types and tables that are altered while a change is captured, or a write waits for their lock, run no code."""

from __future__ import annotations

import asyncio
import io
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
                if (
                    "TABLE others" in change
                ):  # which counts as not plain: no write waits for another table
                    await writer
                else:
                    await database.blocked()
            await writer
        assert await App(database, altering).is_confined()
    finally:
        await database.execute("ALTER ROLE app NOSUPERUSER")
    captured = await database.fetch("SELECT entity FROM notifier.changes WHERE entity = 'Doc'")
    assert len(captured) == 1


MOODS = f"""
    CREATE TYPE mood AS ENUM ('calm', 'glad');
    CREATE TABLE docs (id int PRIMARY KEY, company_id text, initcap text);
    CREATE TABLE others (id int PRIMARY KEY, company_id text, mood mood);
    CREATE FUNCTION mood_json(mood) RETURNS json LANGUAGE plpgsql AS $$ BEGIN {SPRING} RETURN '1'; END $$;
    CREATE FUNCTION others_text(others) RETURNS text LANGUAGE plpgsql AS $$ BEGIN {SPRING} RETURN ''; END $$;
    ALTER TABLE others ADD COLUMN initcap text;
    CREATE CAST (mood AS json) WITH FUNCTION mood_json(mood);
    CREATE CAST (others AS text) WITH FUNCTION others_text(others) AS IMPLICIT;
"""

TABLES = {
    "a column is added": ("docs", "ADD COLUMN mood mood DEFAULT 'glad'"),
    "a column gets another type": (
        "docs",
        "ALTER initcap TYPE mood USING 'glad', ALTER initcap SET DEFAULT 'glad'",
    ),
    "a column is renamed": ("others", "RENAME initcap TO renamed"),
    "a column is dropped": ("others", "DROP initcap"),
}


@pytest.mark.parametrize("table", TABLES.values(), ids=TABLES)
@pytest.mark.parametrize("isolation", ["read committed", "read uncommitted", "repeatable read"])
@pytest.mark.parametrize("write", ["COPY", "EXPLAIN ANALYZE EXECUTE", "EXECUTE"])
async def test_a_table_that_is_altered_while_a_write_waits_for_it_is_no_way_in(
    database: Database, write: str, isolation: str, table: tuple[str, str]
) -> None:
    """COPY and EXPLAIN have their snapshot before they have the table's lock."""
    await database.execute(
        "CREATE TABLE trespasses (by text); GRANT CREATE ON SCHEMA public TO app"
    )
    altering = await database.connect(app=True)
    writing = await database.connect(app=True)
    await altering.execute(MOODS)
    await migrate(database.dsn, watches=WATCHES)
    name, alteration = table
    try:
        await writing.execute(
            f"SET default_transaction_isolation = '{isolation}';"
            f" PREPARE statement AS INSERT INTO {name} (id, company_id) VALUES (1, 'c')"
        )
        async with altering.transaction():
            await altering.execute(f"ALTER TABLE {name} {alteration}")
            writer = asyncio.create_task(
                writing.copy_to_table(
                    name, source=io.BytesIO(b"1\tc\n"), columns=["id", "company_id"]
                )
                if write == "COPY"
                else writing.execute(f"{write} statement")
            )
            await database.blocked()
        await writer
        assert await App(database, altering).is_confined()
    finally:
        await database.execute("ALTER ROLE app NOSUPERUSER")
    captured = await database.fetch(
        "SELECT new IS NOT NULL AS whole FROM notifier.changes WHERE entity IN ('Doc', 'Other')"
    )
    assert [row["whole"] for row in captured] == [True]
