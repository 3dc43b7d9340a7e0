"""Tables of one owner, and the writes to those of another: what capture's plan has of all tables."""

from __future__ import annotations

import asyncio
from typing import Literal

import pytest

from notifier.database.schema import migrate
from notifier.delivery.filter import Filter
from notifier.errors import StateUnavailable
from notifier.state.reader import StateReader
from notifier.watches import CALENDAR, Watch
from tests.databases import Connection, Database
from tests.postgres.relays import Relayed, new_company, new_event
from tests.postgres.states import rows_of

DEEP = """
    CREATE TYPE bottom AS ENUM ('a');
    CREATE DOMAIN deep_0 AS bottom[];
    DO $$ BEGIN
        FOR n IN 1 .. 1000 LOOP
            EXECUTE format('CREATE DOMAIN deep_%s AS deep_%s[]', n, n - 1);
        END LOOP;
    END $$;
    ALTER TABLE docs ADD deep deep_1000
"""
WIDE = """
    CREATE TYPE bottom AS ENUM ('a');
    CREATE TYPE wide_0 AS (a bottom, b bottom);
    DO $$ BEGIN
        FOR n IN 1 .. 17 LOOP
            EXECUTE format('CREATE TYPE wide_%s AS (a wide_%s, b wide_%s)', n, n - 1, n - 1);
        END LOOP;
    END $$;
    ALTER TABLE docs ADD wide wide_17
"""
"""Made of a quarter of a million others."""


@pytest.fixture
async def docs(database: Database) -> None:
    """A watched table of another owner."""
    await database.execute("CREATE TABLE docs (id int PRIMARY KEY, company_id text)")
    await migrate(database.dsn, watches=[*CALENDAR, Watch(table="docs", entity="Doc")])


@pytest.mark.parametrize("isolation", ["read_committed", "repeatable_read", "serializable"])
@pytest.mark.usefixtures("docs")
async def test_a_locked_table_keeps_no_write_to_another_waiting(
    isolation: Literal["read_committed", "repeatable_read", "serializable"],
    database: Database,
    app: Connection,
    relay: Relayed,
) -> None:
    """A transaction with one snapshot looks at the columns of all tables when it first writes."""
    company = await new_company(database)
    holder = await database.connect()
    await holder.execute("BEGIN; LOCK TABLE docs")
    async with asyncio.timeout(10), app.transaction(isolation=isolation):
        await new_event(app, company)
    await holder.execute("ROLLBACK")
    (message,) = await relay.messages_of(company)
    assert "Partial" not in message


@pytest.mark.parametrize("types", [DEEP, WIDE], ids=["deep", "wide"])
@pytest.mark.usefixtures("docs")
async def test_types_without_bounds_disturb_no_other_table(
    types: str, database: Database, app: Connection, relay: Relayed
) -> None:
    """Neither its writes, of which each would make a plan that fails, nor the states of companies without such rows."""
    company = await new_company(database)
    await database.execute(types)
    await migrate(database.dsn, watches=[*CALENDAR, Watch(table="docs", entity="Doc")])
    async with asyncio.timeout(20):
        await new_event(app, company)
        await new_event(app, company)
    assert ["Partial" in each for each in await relay.messages_of(company)] == [False, False]
    known = {"Event": frozenset[str]()}
    for wanted in (Filter.parse(["Event"], None, known), None):
        states = StateReader(database.dsn, pooled=False, max_rows=10)
        rows = await rows_of(states, company, wanted, "u1")
        assert len(rows["Event"]) == 2
    assert "Doc" not in rows


@pytest.mark.parametrize("types", [DEEP, WIDE], ids=["deep", "wide"])
@pytest.mark.usefixtures("docs")
async def test_rows_with_a_type_without_bounds_are_sent_whole_where_they_have_no_value_of_it(
    types: str, database: Database, relay: Relayed
) -> None:
    await database.execute(types)
    await migrate(database.dsn, watches=[*CALENDAR, Watch(table="docs", entity="Doc")])
    column = "deep" if types == DEEP else "wide"
    value = "'{}'" if types == DEEP else "ROW(NULL, NULL)"
    await database.execute(f"INSERT INTO docs VALUES (1, 'c', NULL), (2, 'd', {value})")
    assert ["Partial" in each for each in await relay.messages_of("c")] == [False]
    assert ["Partial" in each for each in await relay.messages_of("d")] == [True]
    states = StateReader(database.dsn, pooled=False, max_rows=10)
    ((row,),) = [each for each in (await rows_of(states, "c", None, "u1")).values() if each]
    assert row["DocId"] == 1
    assert row[column.title()] is None
    states = StateReader(database.dsn, pooled=False, max_rows=10)
    with pytest.raises(StateUnavailable):
        await rows_of(states, "d", None, "u1")
