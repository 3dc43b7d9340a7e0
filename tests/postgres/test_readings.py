"""Many states that one user requests, and whose clients may have gone, do not hold up those of others."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from notifier.database.schema import migrate
from notifier.delivery.filter import Filter
from notifier.state.reader import CONNECTIONS, StateReader
from notifier.watches import Watch
from tests.databases import Database

REQUESTS = 40
TEAMS = "CREATE TABLE teams (id int PRIMARY KEY, name text); INSERT INTO teams VALUES (1, 'one'), (2, 'two')"
NAMES = {"Team": frozenset({"Name"})}


def wanted(number: int) -> Filter:
    """A filter that no other request has."""
    return Filter.parse(None, {"Team": {"Name": [str(number)]}}, NAMES)


@pytest.fixture
async def states(empty: Database) -> AsyncIterator[StateReader]:
    """Reads the states of two teams."""
    await empty.execute(TEAMS)
    await migrate(
        empty.dsn, watches=[Watch(table="teams", entity="Team", company="id", member="name")]
    )
    states = StateReader(empty.dsn, pooled=False, max_rows=100)
    yield states
    states.close()


async def test_states_that_one_user_requests_hold_up_no_other_users(
    empty: Database, states: StateReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By filters that differ, each is read by itself."""
    monkeypatch.setattr(states._readings._turns, "_free", 1)
    ended: list[str] = []

    async def read(name: str, user: str, company: str, wanted: Filter | None) -> None:
        assert (await states.read(company, wanted, user)).pages
        ended.append(name)

    filters = [Filter.parse(None, {"Team": {"Name": ["one", str(n)]}}, NAMES) for n in range(20)]
    writer = await empty.connect()
    await writer.execute("BEGIN; LOCK TABLE teams IN ACCESS EXCLUSIVE MODE")
    async with asyncio.TaskGroup() as tasks:
        for number, each in enumerate(filters):
            tasks.create_task(read(f"mallory {number}", "mallory", "1", each))
        await empty.blocked()
        tasks.create_task(read("alice", "alice", "2", None))
        tasks.create_task(read("bob", "bob", "1", filters[-1]))
        await asyncio.sleep(0)
        await writer.execute("COMMIT")
    assert ended[0] == "mallory 0"
    assert set(ended[1:4]) == {"alice", "bob", "mallory 19"}


async def test_a_state_whose_clients_have_gone_before_it_is_read_is_not_read(
    states: StateReader,
) -> None:
    reading = [
        asyncio.create_task(states.read("1", wanted(number), "u")) for number in range(REQUESTS)
    ]
    again = asyncio.create_task(states.read("1", wanted(REQUESTS - 1), "u"))
    await asyncio.sleep(0)
    for each in reading:
        each.cancel()
    await asyncio.gather(*reading, return_exceptions=True)
    assert (await again).pages == ()
    assert states.reads <= CONNECTIONS + 1
    assert (await states.read("1", wanted(0), "u")).pages == (), "it was not read then"
