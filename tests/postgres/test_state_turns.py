"""Many states that one user requests, and those of others."""

from __future__ import annotations

import asyncio

import pytest

from notifier.database.schema import migrate
from notifier.delivery.filter import Filter
from notifier.state import reader
from notifier.state.reader import StateReader
from notifier.watches import Watch
from tests.databases import Database

TABLES = "CREATE TABLE teams (id int PRIMARY KEY, name text); INSERT INTO teams VALUES (1, 'one'), (2, 'two')"
NAMES = {"Team": frozenset({"Name"})}


async def test_states_that_one_user_requests_hold_up_no_other_users(
    empty: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By filters that differ, each is read by itself."""
    monkeypatch.setattr(reader, "CONNECTIONS", 1)
    await empty.execute(TABLES)
    await migrate(
        empty.dsn, watches=[Watch(table="teams", entity="Team", company="id", member="id")]
    )
    states = StateReader(empty.dsn, pooled=False, max_rows=100)
    ended: list[str] = []

    async def read(name: str, user: str, company: str, wanted: Filter | None) -> None:
        assert (await states.read(company, wanted, user)).pages
        ended.append(name)

    filters = [Filter.parse(None, {"Team": {"Name": ["one", str(n)]}}, NAMES) for n in range(20)]
    writer = await empty.connect()
    await writer.execute("BEGIN; LOCK TABLE teams IN ACCESS EXCLUSIVE MODE")
    async with asyncio.TaskGroup() as tasks:
        for number, wanted in enumerate(filters):
            tasks.create_task(read(f"mallory {number}", "mallory", "1", wanted))
        await empty.blocked()
        tasks.create_task(read("alice", "alice", "2", None))
        tasks.create_task(read("bob", "bob", "1", filters[-1]))
        await asyncio.sleep(0)
        await writer.execute("COMMIT")
    states.close()
    assert ended[0] == "mallory 0"
    assert set(ended[1:4]) == {"alice", "bob", "mallory 19"}
