"""Many states that one user requests, and whose clients may have gone, do not hold up those of others."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest

from notifier.database.schema import migrate
from notifier.delivery.filter import Filter
from notifier.messages import JSON
from notifier.relay.changes import Source
from notifier.state import pages, reader
from notifier.state.reader import CONNECTIONS, StateReader
from notifier.watches import Watch
from tests.databases import Database
from tests.waiting import DEADLINE_SECONDS

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


NOTES = """
CREATE TABLE notes (id int PRIMARY KEY, team int REFERENCES teams, owner text, body text);
INSERT INTO notes SELECT n, 1, CASE WHEN n % 2 = 0 THEN 'ada' END, 'b' FROM generate_series(1, 20) AS n
"""
BODIES = Filter.parse(None, {"Note": {"Body": ["b"]}}, {"Note": frozenset({"Body"})})


@pytest.fixture
async def notes(empty: Database) -> AsyncIterator[StateReader]:
    """Reads the states of two teams, of which some rows are for some users only."""
    await empty.execute(f"{TEAMS};{NOTES}")
    await migrate(
        empty.dsn,
        watches=[
            Watch(table="teams", entity="Team", company="id", member="name"),
            Watch(table="notes", entity="Note", company="team", visible_to=("owner",)),
        ],
    )
    states = StateReader(empty.dsn, pooled=False, max_rows=100)
    yield states
    states.close()


async def test_rows_for_some_users_are_rendered_once_for_each_user_whatever_the_requests(
    notes: StateReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    rendered: list[tuple[str, str]] = []

    def counted(company: str, source: Source, images: Iterable[JSON], user: str) -> Iterable[JSON]:
        rendered.append((user, source.watch.entity))
        return pages.pages(company, source, images, user)

    monkeypatch.setattr(reader, "pages", counted)
    users = ["ada", "bob"] * 20
    states = await asyncio.gather(*(notes.read("1", BODIES, user) for user in users))
    assert sorted(rendered) == [
        (user, each) for user in ("ada", "bob") for each in ("Note", "Team")
    ]
    assert [each.pages for each in states] == [states[0].pages, states[1].pages] * 20
    seen = [b"".join(each.pages).count(b"NoteId") for each in states[:2]]
    assert seen == [20, 10]


class _Foreign(ThreadPoolExecutor):
    """Threads that others use: the relay, and the keys of the identity provider."""

    def submit(self, *_arguments: Any, **_keywords: Any) -> Future[Any]:
        raise AssertionError("a state waits for the threads of others, and others for it")


async def test_states_use_no_threads_of_others(notes: StateReader) -> None:
    await notes.read("2", None, "ada")  # it connects, for which names are looked up in threads
    asyncio.get_running_loop().set_default_executor(_Foreign(1))
    by_name = Filter.parse(["Team"], {"Team": {"Name": ["one"]}}, NAMES)
    for wanted in (None, BODIES, by_name):
        assert (await notes.read("1", wanted, "ada")).pages


async def test_a_rendering_is_of_pieces_and_ends_at_the_one_during_which_its_client_goes(
    notes: StateReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between them other readings have the threads."""
    compared: list[int] = []
    begun, goes = asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()

    def comparing(
        company: str, source: Source, images: list[JSON], wanted: Filter, user: str
    ) -> list[JSON]:
        compared.append(len(images))
        if user == "gone" and len(compared) == 2:
            loop.call_soon_threadsafe(begun.set)
            assert goes.wait(DEADLINE_SECONDS)
        return pages.passing(company, source, images, wanted, user)

    monkeypatch.setattr(reader, "passing", comparing)
    monkeypatch.setattr(reader, "MOST_ROWS", 3)
    leaving = asyncio.create_task(notes.read("1", BODIES, "gone"))
    beginning = asyncio.create_task(begun.wait())
    await asyncio.wait([beginning, leaving], return_when=asyncio.FIRST_COMPLETED)
    assert begun.is_set()
    leaving.cancel()
    await asyncio.wait([leaving])
    goes.set()
    state = await notes.read("1", BODIES, "ada")
    assert compared == [3, 3, 3, 3, 3, 3, 3, 3, 2]
    monkeypatch.setattr(reader, "PIECE_BYTES", 1)
    assert (await notes.read("1", BODIES, "ada")).pages == state.pages
