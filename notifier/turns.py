"""Turns: a few run at once, and users take turns, however many of them each user waits for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager


class Turns:
    """At most `limit` turns run at once. The next one goes to the user whose last turn began longest ago."""

    def __init__(self, limit: int) -> None:
        self._free = limit
        self._number = 0
        self._waiting: dict[asyncio.Future[None], Collection[str]] = {}
        self._last: dict[str, int] = {}  # by user: the number of the last turn

    @asynccontextmanager
    async def turn(self, users: Collection[str]) -> AsyncIterator[None]:
        """Waits for a turn of any of `users`, to which users may be added meanwhile."""
        if self._free:
            self._free -= 1
            self._count(users)
        else:
            granted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting[granted] = users
            try:
                await granted
            except asyncio.CancelledError:
                if not granted.cancelled():  # it was granted at the same time
                    self._pass_on()
                raise
            finally:
                self._waiting.pop(granted, None)
        try:
            yield
        finally:
            self._pass_on()

    def _count(self, users: Collection[str]) -> None:
        self._number += 1
        self._last |= dict.fromkeys(users, self._number)

    def _pass_on(self) -> None:
        """A turn has ended: another one begins."""
        granted, first = None, self._number
        for each, users in self._waiting.items():
            last = min((self._last.get(user, 0) for user in users), default=0)
            if not each.done() and (granted is None or last < first):
                granted, first = each, last
                if not last:
                    break
        if granted is None:
            self._free += 1
            self._last.clear()
            return
        users = self._waiting.pop(granted)
        self._count(users)
        granted.set_result(None)
