"""The queue of a connection's input, and the wait for room in its output.

asyncio's Queue and Event take 4.2 kB per socket (five deques, CPython 3.11), Inbox and Gate 0.2 kB.
They have only the methods that uvicorn and `websocket` call.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, MutableMapping
from typing import Any, Protocol, TypeAlias

from notifier.errors import TooSlow

DRAIN_SECONDS = 15.0
"""How long the buffer of a connection may stay over its high-water mark while a writer waits."""

Event: TypeAlias = MutableMapping[str, Any]
"""An ASGI event."""


class Receiver(Protocol):
    """Receives the events of an accepted connection."""

    async def receive(self, event: Event) -> None:
        """Handles one ASGI event, such as a text frame."""

    def end(self) -> None:
        """No more events come."""


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


class Bound:
    """How many bytes may wait for a client: `max_buffer`, beside one message that is larger.

    A client that was closed for such a message would resume, and be written the same. The message does not count until the buffer
    has drained, since others are written behind it. The high-water mark is half of `max_buffer`, or less.
    """

    __slots__ = ("_max_buffer", "_present")

    def __init__(self, max_buffer: int) -> None:
        self._max_buffer = self._present = max_buffer

    def is_exceeded(self, waiting: int, size: int) -> bool:
        """Whether more waits than may. `size`: of what was written last."""
        if (
            size > self._max_buffer and waiting > self._max_buffer // 2
        ):  # else it has drained already
            self._present = max(self._present, self._max_buffer + size)
        return waiting > self._present

    def paused(self, waiting: int) -> None:
        """The buffer is over its high-water mark since the last write, which may have been a direct one of any size."""
        self._present = max(self._max_buffer, waiting + self._max_buffer // 2)

    def drained(self) -> None:
        """The buffer has drained."""
        self._present = self._max_buffer


async def drained(room: Gate | asyncio.Event) -> None:
    """Waits until a connection's buffer has room. Raises TooSlow after DRAIN_SECONDS."""
    if room.is_set():
        return
    try:
        async with asyncio.timeout(DRAIN_SECONDS):
            await room.wait()
    except TimeoutError:
        raise TooSlow from None
