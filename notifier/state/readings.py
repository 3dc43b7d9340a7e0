"""Readings that requests share: those under way, those that wait, and the users who requested them."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

from notifier.state.turns import Turns

COLLECT_SECONDS = 0.05
"""How long a reading waits for further requests when one of the same rows has just ended: many clients request them."""

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

Begun = Callable[[], None]
"""A reading calls it when it begins: later requests need another one, as it may be older than what their clients have already."""


class Readings(Generic[K, V]):
    """`load` reads at most `limit` different keys at once, and each of them once at a time. Users take turns.

    Equal requests share a reading that has not begun. A reading whose requests were all cancelled before it began is not made.
    """

    def __init__(self, load: Callable[[K, Begun], Awaitable[V]], limit: int) -> None:
        self._load = load
        self._turns = Turns(limit)
        self._waiting: dict[K, _Reading[V]] = {}
        self._present: dict[K, _Reading[V]] = {}

    async def get(self, key: K, user: str) -> V:
        """The result of a reading that begins after this call. Raises what `load` raises."""
        if (reading := self._waiting.get(key)) is None:
            reading = self._waiting[key] = _Reading()
            reading.task = asyncio.create_task(self._read(key, reading))
            reading.task.add_done_callback(_retrieve)  # its requests may all have been cancelled
        reading.requests[user] += 1
        try:
            return await asyncio.shield(reading.task)
        finally:
            reading.requests[user] -= 1
            if not reading.requests[user]:
                del reading.requests[user]
            if not reading.requests and self._waiting.get(key) is reading:
                self._begin(key, reading)
                reading.task.cancel()

    async def _read(self, key: K, reading: _Reading[V]) -> V:
        while (former := self._present.get(key)) is not None:
            await asyncio.wait([former.task])
            await asyncio.sleep(COLLECT_SECONDS)
        self._present[key] = reading
        try:
            async with self._turns.turn(reading.requests):
                return await self._load(key, lambda: self._begin(key, reading))
        finally:
            del self._present[key]
            self._begin(key, reading)

    def _begin(self, key: K, reading: _Reading[V]) -> None:
        if self._waiting.get(key) is reading:
            del self._waiting[key]


class _Reading(Generic[V]):
    """`requests`: how many wait for it, by user."""

    task: asyncio.Task[V]

    def __init__(self) -> None:
        self.requests: Counter[str] = Counter()


def _retrieve(task: asyncio.Task[V]) -> None:
    if not task.cancelled():
        task.exception()
