"""A state that is read while its table is altered: PostgreSQL's caches are newer than the transaction's snapshot."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from uuid import uuid4

import pytest

from notifier.database.schema import migrate
from notifier.errors import StateUnavailable
from notifier.state.reader import StateReader
from notifier.watches import Watch
from tests.databases import Database
from tests.postgres.states import rows_of, url_of

TABLES = """
CREATE TABLE teams (id int PRIMARY KEY, name text);
CREATE TABLE drafts (id int PRIMARY KEY, team_id int, owner text, reviewer text, body text);
INSERT INTO teams VALUES (1, 'one');
INSERT INTO drafts VALUES (1, 1, 'ada', NULL, 'of ada'), (2, 1, 'eve', 'ada', 'of eve')
"""
WATCHES = [
    Watch(table="teams", entity="Team", company="id", member="id"),
    Watch(table="drafts", entity="Draft", company="team_id", visible_to=("owner",)),
]


@pytest.fixture
async def role(empty: Database) -> AsyncIterator[str]:
    """A role that may serve states."""
    name = f"role_{uuid4().hex[:8]}"
    await empty.execute(f"CREATE ROLE {name} LOGIN PASSWORD 'app'; {TABLES}")
    await migrate(empty.dsn, watches=WATCHES, grant=name, state=True)
    yield name
    await empty.execute(f"DROP OWNED BY {name}; DROP ROLE {name}")


@pytest.mark.parametrize("pooled", [False, True])
async def test_a_column_that_takes_the_name_of_another_meanwhile_shows_no_row(
    empty: Database, role: str, pooled: bool
) -> None:
    """The reading waits for the lock of ALTER TABLE, and its snapshot shows the former names."""
    states = StateReader(url_of(empty, role), pooled=pooled, max_rows=100)
    writer = await empty.connect()
    await writer.execute("BEGIN; ALTER TABLE drafts RENAME owner TO made_by")
    await writer.execute("ALTER TABLE drafts RENAME reviewer TO owner")
    await writer.execute("ALTER TABLE drafts RENAME made_by TO reviewer")
    reading = asyncio.create_task(rows_of(states, "1", None, "eve"))
    await empty.blocked()
    await writer.execute("COMMIT")
    with pytest.raises(StateUnavailable, match="table drafts or one of its columns"):
        await reading


async def test_nor_does_a_new_column_for_a_role_that_may_read_the_whole_table(
    empty: Database,
) -> None:
    """Its values name no users: every user would see the rows."""
    await empty.execute(TABLES)
    await migrate(empty.dsn, watches=WATCHES)
    states = StateReader(empty.dsn, pooled=False, max_rows=100)
    writer = await empty.connect()
    await writer.execute("BEGIN; ALTER TABLE drafts RENAME owner TO made_by")
    await writer.execute("ALTER TABLE drafts ADD owner text")
    reading = asyncio.create_task(rows_of(states, "1", None, "eve"))
    await empty.blocked()
    await writer.execute("COMMIT")
    with pytest.raises(StateUnavailable, match="table drafts or one of its columns"):
        await reading


async def test_a_column_that_is_added_meanwhile_costs_no_state(empty: Database, role: str) -> None:
    states = StateReader(url_of(empty, role), pooled=False, max_rows=100)
    writer = await empty.connect()
    await writer.execute("BEGIN; ALTER TABLE drafts ADD extra text")
    reading = asyncio.create_task(rows_of(states, "1", None, "eve"))
    await empty.blocked()
    await writer.execute("COMMIT")
    found = await reading
    assert [row["Body"] for row in found["Draft"]] == ["of eve"]
