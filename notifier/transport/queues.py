"""The queue of a connection's input, and the wait for room in its output.

asyncio's Queue and Event take 4.2 kB per socket (five deques, CPython 3.11), Inbox and Gate 0.2 kB.
They have only the methods that uvicorn and `websocket` call.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, MutableMapping
from typing import Any, TypeAlias

from notifier.errors import TooSlow

DRAIN_SECONDS = 15.0
"""How long the buffer of a connection may stay over its high-water mark while a writer waits."""

Event: TypeAlias = MutableMapping[str, Any]
"""An ASGI event."""


class Inbox:
    """asyncio.Queue for one reader. `on_event` is called where no reader waits for an item."""

    __slots__ = ("_items", "_loop", "_waiter", "on_event")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._items: list[Event] = []
        self._waiter: asyncio.Future[None] | None = None
        self.on_event: Callable[[], None] | None = None

    def put_nowait(self, item: Event) -> None:
        self._items.append(item)
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
        elif self.on_event is not None:
            self.on_event()

    def empty(self) -> bool:
        return not self._items

    async def get(self) -> Event:
        while not self._items:
            self._waiter = self._loop.create_future()
            await self._waiter
        self._waiter = None
        return self._items.pop(0)


class Gate:
    """asyncio.Event, which is set at first."""

    __slots__ = ("_loop", "_open", "_waiters")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._open = True
        self._waiters: tuple[asyncio.Future[None], ...] = ()

    def is_set(self) -> bool:
        return self._open

    def clear(self) -> None:
        self._open = False

    def set(self) -> None:
        self._open = True
        waiters, self._waiters = self._waiters, ()
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    async def wait(self) -> None:
        while not self._open:
            waiter = self._loop.create_future()
            self._waiters += (waiter,)
            await waiter


def bound(max_buffer: int, frames: bytes) -> int:
    """How many bytes may wait when these were written. A message that is larger than the limit does not count: a client that was
    closed for it would resume, and be written the same.
    """
    return max_buffer + len(frames) if len(frames) > max_buffer else max_buffer


async def drained(room: Gate | asyncio.Event) -> None:
    """Waits until a connection's buffer has room. Raises TooSlow after DRAIN_SECONDS."""
    if room.is_set():
        return
    try:
        async with asyncio.timeout(DRAIN_SECONDS):
            await room.wait()
    except TimeoutError:
        raise TooSlow from None
