"""Readings that requests share: those under way, those that wait, and the users who requested them."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Coroutine, Hashable
from traceback import clear_frames
from typing import Any, Generic, NamedTuple, TypeVar

from notifier.turns import Turns

COLLECT_SECONDS = 0.05
"""How long a reading waits for further requests when one of the same rows has just ended: many clients request them."""

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

Begun = Callable[[], None]
"""A reading calls it when it begins: later requests need another one, as it may be older than what their clients have already."""


class Loaded(NamedTuple, Generic[V]):
    """What was read. `make` makes the result of it: once for all users (`""`), or where they differ once for each."""

    by_user: bool
    make: Callable[[str], Coroutine[Any, Any, V]]


class Readings(Generic[K, V]):
    """`load` reads at most `limit` different keys at once, and each of them once at a time. Users take turns.

    Equal requests share a reading that has not begun. A reading whose requests were all cancelled before it began is not made.
    Results are made one after the other within the reading's turn, and only while a request waits for them.
    """

    def __init__(self, load: Callable[[K, Begun], Awaitable[Loaded[V]]], limit: int) -> None:
        self._load = load
        self._turns = Turns(limit)
        self._waiting: dict[K, _Reading[V]] = {}
        self._present: dict[K, _Reading[V]] = {}

    async def get(self, key: K, user: str) -> V:
        """The result of a reading that begins after this call. Raises what `load` and `make` raise."""
        if (reading := self._waiting.get(key)) is None:
            reading = self._waiting[key] = _Reading()
            reading.task = asyncio.create_task(self._read(key, reading))
        if (result := reading.results.get(user)) is None:
            result = reading.results[user] = asyncio.get_running_loop().create_future()
        reading.requests[user] += 1
        try:
            return await asyncio.shield(result)
        finally:
            reading.requests[user] -= 1
            if not reading.requests[user]:
                del reading.requests[user], reading.results[user]
            if not reading.requests and self._waiting.get(key) is reading:
                self._begin(key, reading)
                reading.task.cancel()
            reading.interrupt()

    async def _read(self, key: K, reading: _Reading[V]) -> None:
        while (former := self._present.get(key)) is not None:
            await asyncio.wait([former.task])
            await asyncio.sleep(COLLECT_SECONDS)
        self._present[key] = reading
        try:
            async with self._turns.turn(reading.requests):
                loaded = await self._load(key, lambda: self._begin(key, reading))
                self._begin(key, reading)
                if not loaded.by_user:
                    await reading.make(loaded, "", reading.requests)
                else:
                    for user in [*reading.requests]:
                        await reading.make(loaded, user, (user,))
        except Exception as error:
            reading.fail(error, reading.requests)
        finally:
            del self._present[key]
            self._begin(key, reading)
            reading.cancel()

    def _begin(self, key: K, reading: _Reading[V]) -> None:
        if self._waiting.get(key) is reading:
            del self._waiting[key]


class _Reading(Generic[V]):
    """`requests`: how many wait for it, by user. `results`: what they wait for."""

    task: asyncio.Task[None]

    def __init__(self) -> None:
        self.requests: Counter[str] = Counter()
        self.results: dict[str, asyncio.Future[V]] = {}
        self._making: asyncio.Task[V] | None = None
        self._users: Collection[str] = ()

    async def make(self, loaded: Loaded[V], user: str, users: Collection[str]) -> None:
        """Makes a result, for those of `users` whose clients have not gone."""
        if self.requests.keys().isdisjoint(users):
            return
        self._users, self._making = users, asyncio.create_task(loaded.make(user))
        await asyncio.wait([self._making])
        made, self._making = self._making, None
        if made.cancelled():
            return
        if (error := made.exception()) is not None:
            clear_frames(error.__traceback__)  # they have rows
            self.fail(error, users)
            return
        for each in self.requests.keys() & users:
            self.results[each].set_result(made.result())

    def fail(self, error: BaseException, users: Collection[str]) -> None:
        """Raises an error in the requests of users."""
        for each in self.requests.keys() & users:
            if not self.results[each].done():
                self.results[each].set_exception(error)

    def interrupt(self) -> None:
        """Makes a result no further for which no request waits any more."""
        if self._making is not None and self.requests.keys().isdisjoint(self._users):
            self._making.cancel()

    def cancel(self) -> None:
        """Ends what has no result yet."""
        if self._making is not None:
            self._making.cancel()
        for each in self.results.values():
            each.cancel()
