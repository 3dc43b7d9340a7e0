"""Transports for any ASGI server: a queue whose texts or events go through ASGI's `send`."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from starlette.types import Send

from notifier import metrics
from notifier.delivery.encoding import TEXT, Encoding
from notifier.delivery.transport import TransportListener
from notifier.errors import Closure, TooSlow
from notifier.messages import Disconnect, ServerMessage, encode
from notifier.transport.queues import DRAIN_SECONDS, Bound, drained
from notifier.transport.websocket import CLOSE_SECONDS


class AsgiTransport:
    """One WebSocket. `run` sends what the other methods queue; `max_buffer` bounds the queue, in bytes."""

    write_direct = None
    encoding: Encoding = TEXT
    listener: TransportListener | None = None

    def __init__(self, send: Send, max_buffer: int) -> None:
        self._send = send
        self._max_buffer = max_buffer
        self._bound = Bound(max_buffer)
        self._queue: asyncio.Queue[bytes | Closure | None] = asyncio.Queue()
        self._size = 0
        self._room = asyncio.Event()
        self._room.set()
        self._ended = False
        self._until: float | None = None

    def write(self, _frames: bytes, bodies: Sequence[bytes]) -> None:
        """Queues texts; closes with TooSlow beyond `max_buffer`."""
        self._put(bodies)

    def _put(self, items: Sequence[bytes]) -> None:
        if self._ended:
            return
        for item in items:
            self._queue.put_nowait(item)
            self._size += len(item)
        if self._size > self._max_buffer // 2:
            self._room.clear()
        largest = max(map(len, items), default=0)
        if self._bound.is_exceeded(self._size, largest) and self.listener is not None:
            self.listener.closed()
            self.end(TooSlow())

    async def drain(self) -> None:
        """Waits until the queue has room. Raises TooSlow."""
        await drained(self._room)

    def replayed(self) -> None:
        """Live messages need nothing else."""

    def end(self, closure: Closure) -> None:
        """Queues Disconnect and the close; after CLOSE_SECONDS the rest of the queue is dropped."""
        if not self._ended:
            self._ended = True
            self._until = asyncio.get_running_loop().time() + CLOSE_SECONDS
            metrics.CLOSED.labels(str(closure.code)).inc()
            self._queue.put_nowait(self._text(Disconnect.of(closure)))
            self._queue.put_nowait(closure.copy())

    def finish(self) -> None:
        """The connection is closed: `run` returns after what is queued."""
        self._ended = True
        self._queue.put_nowait(None)

    async def run(self) -> None:
        """Sends what is queued, until the end or a failure."""
        try:
            while (item := await self._queue.get()) is not None:
                async with asyncio.timeout(DRAIN_SECONDS), asyncio.timeout_at(self._until):
                    if isinstance(item, Closure):
                        await self._send_close(item)
                        return
                    await self._send_item(item)
                self._size -= len(item)
                if self._size <= self._max_buffer // 2:
                    self._bound.drained()
                    self._room.set()
        except (TimeoutError, OSError, RuntimeError):  # the peer is gone, or does not read
            self._ended = True
            self.closed()

    def closed(self) -> None:
        """Reports that the peer is gone."""
        if self.listener is not None:
            self.listener.closed()

    def _text(self, message: ServerMessage) -> bytes:
        return encode(message)

    async def _send_item(self, item: bytes) -> None:
        await self._send({"type": "websocket.send", "text": item.decode()})

    async def _send_close(self, closure: Closure) -> None:
        code, reason = closure.code, closure.reason
        await self._send({"type": "websocket.close", "code": code, "reason": reason})
