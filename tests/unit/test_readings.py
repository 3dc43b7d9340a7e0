"""Requests that share a reading, and the results that are made of it."""

from __future__ import annotations

import asyncio
import gc
from weakref import ref

import pytest

from notifier.state.readings import Begun, Loaded, Readings
from tests.unit.worlds import settle


class Result:
    """What a user gets of a key."""

    def __init__(self, key: str, user: str) -> None:
        self.names = key, user


class World:
    """Readings that end at once, of which each result is made until the test ends that.

    `order`: what was loaded (a key), and which results were begun (a key and a user, "" for all users).
    """

    def __init__(self, limit: int = 1, *, by_user: bool = True) -> None:
        self.readings: Readings[str, Result] = Readings(self._load, limit)
        self.order: list[str | tuple[str, str]] = []
        self.interrupted: list[str] = []
        self.errors: dict[str, Exception] = {}
        self._by_user = by_user
        self._ends: dict[tuple[str, str], asyncio.Event] = {}

    async def _load(self, key: str, begun: Begun) -> Loaded[Result]:
        begun()
        self.order.append(key)
        await asyncio.sleep(0)
        if (error := self.errors.get(key)) is not None:
            raise error

        async def make(user: str) -> Result:
            self.order.append((key, user))
            rows = self.rows = Result(key, user)
            try:
                await self._ends.setdefault((key, user), asyncio.Event()).wait()
            except asyncio.CancelledError:
                self.interrupted.append(user)
                raise
            if (error := self.errors.get(user)) is not None:
                raise error
            return rows

        return Loaded(self._by_user, make)

    async def get(self, key: str, *users: str) -> list[asyncio.Task[Result]]:
        """Requests of users, all of them at the same time."""
        asked = [asyncio.create_task(self.readings.get(key, user)) for user in users]
        await settle()
        return asked

    async def end(self, key: str, user: str) -> None:
        """Ends the making of a result."""
        self._ends[key, user].set()
        await settle()


async def leave(*asked: asyncio.Task[Result]) -> None:
    """The clients of requests go."""
    for each in asked:
        each.cancel()
    await settle()


async def test_the_requests_of_a_user_share_one_result_which_waits_for_no_other_users() -> None:
    world = World()
    first, bob, second = await world.get("x", "ada", "bob", "ada")
    assert world.order == ["x", ("x", "ada")]
    await world.end("x", "ada")
    assert first.result() is second.result()
    assert first.result().names == ("x", "ada")
    assert not bob.done()
    await world.end("x", "bob")
    assert bob.result().names == ("x", "bob")
    assert world.order == ["x", ("x", "ada"), ("x", "bob")]


async def test_results_are_made_within_the_turn_of_their_reading() -> None:
    """Else the readings of one user pile up whose results are still to be made, each with its rows."""
    world = World()
    x, y, z = [
        *await world.get("x", "ada"),
        *await world.get("y", "ada"),
        *await world.get("z", "bob"),
    ]
    assert world.order == ["x", ("x", "ada")]
    await world.end("x", "ada")
    assert world.order[2:] == ["z", ("z", "bob")]
    await world.end("z", "bob")
    await world.end("y", "ada")
    assert world.order[4:] == ["y", ("y", "ada")]
    assert [each.result().names[0] for each in (x, y, z)] == ["x", "y", "z"]


async def test_nothing_is_made_for_users_whose_clients_have_gone() -> None:
    world = World()
    ada, again, bob, eve = await world.get("x", "ada", "ada", "bob", "eve")
    await leave(bob, ada)
    assert world.interrupted == [], "the other request of the user waits for it"
    await leave(again)
    assert world.interrupted == ["ada"]
    await world.end("x", "eve")
    assert eve.result().names == ("x", "eve")
    assert world.order == ["x", ("x", "ada"), ("x", "eve")]


async def test_one_result_for_all_users_is_made_as_long_as_one_of_them_waits() -> None:
    world = World(by_user=False)
    ada, bob = await world.get("x", "ada", "bob")
    (later,) = await world.get("x", "ada")
    await leave(ada)
    await world.end("x", "")
    assert bob.result().names == ("x", "")
    assert not later.done(), "what was read may be older than what its client has"
    await leave(later)
    (last,) = await world.get("y", "ada")
    await leave(last)
    assert world.interrupted == [""]
    assert world.order == ["x", ("x", ""), "y", ("y", "")]


async def test_an_error_of_a_reading_is_that_of_each_request_and_one_of_a_result_that_of_its_user() -> (
    None
):
    world = World()
    world.errors = {"x": ValueError("x"), "ada": ValueError("ada")}
    for each in await world.get("x", "ada", "bob"):
        assert each.exception() is world.errors["x"]
    ada, bob = await world.get("y", "ada", "bob")
    await world.end("y", "ada")
    assert ada.exception() is world.errors["ada"]
    await world.end("y", "bob")
    assert bob.result().names == ("y", "bob")


async def test_the_rows_of_a_result_that_failed_are_gone_though_no_garbage_is_collected() -> None:
    """An error has the frames in which it was raised."""
    world = World()
    world.errors = {"ada": ValueError("ada")}
    (ada,) = await world.get("x", "ada")
    rows = ref(world.rows)
    del world.rows
    gc.disable()
    try:
        await world.end("x", "ada")
        with pytest.raises(ValueError, match="ada"):
            await ada
        assert rows() is None
    finally:
        gc.enable()
