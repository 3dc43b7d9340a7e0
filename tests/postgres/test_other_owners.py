"""Tables of one owner, and the writes to those of another: what capture's plan has of all tables."""

from __future__ import annotations

import asyncio
from typing import Literal

import pytest

from notifier.database.schema import migrate
from notifier.watches import CALENDAR, Watch
from tests.databases import Connection, Database
from tests.postgres.relays import Relayed, new_company, new_event


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
