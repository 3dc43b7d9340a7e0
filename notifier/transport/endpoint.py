"""Where a socket meets a session: the ASGI conversation of one WebSocket."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import structlog
from starlette.datastructures import Headers
from starlette.types import Message, Receive, Scope, Send

from notifier import metrics
from notifier.access.admission import address_group
from notifier.delivery.session import Parts, Session
from notifier.errors import Binary, Closure, Internal, TooSlow
from notifier.messages import Disconnect, encode
from notifier.transport.websocket import CLOSE_SECONDS, DRAIN_SECONDS, EXTENSION, Flow, WireProtocol

_log = structlog.get_logger("notifier.endpoint")


class Endpoint:
    """An ASGI app for WebSockets. `origins`: where a browser may come from; None: anywhere."""

    def __init__(self, parts: Parts, origins: tuple[str, ...] | None, max_buffer: int) -> None:
        self._parts = parts
        self._origins = None if origins is None else frozenset(origins)
        self._max_buffer = max_buffer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await receive()  # websocket.connect
        if not self._welcome(scope):
            await send({"type": "websocket.close", "code": 4403})  # before accept: HTTP 403
            return
        await send({"type": "websocket.accept"})
        peer = scope.get("client")
        address = address_group(peer[0]) if peer else ""
        wire = scope.get("extensions", {}).get(EXTENSION)
        if isinstance(wire, WireProtocol):
            wire.forget_handshake()
            await self._talk(wire, receive, address)
            return
        async with asyncio.TaskGroup() as tasks:
            slow = AsgiWire(send, self._max_buffer)
            tasks.create_task(slow.run())
            try:
                await self._talk(slow, receive, address)
            finally:
                slow.finish()

    def _welcome(self, scope: Scope) -> bool:
        """Native clients send no Origin; browsers always do, and it must be one of ours exactly."""
        origins = Headers(scope=scope).getlist("origin")
        return (
            self._origins is None
            or not origins
            or (len(origins) == 1 and origins[0] in self._origins)
        )

    async def _talk(self, wire: WireProtocol | AsgiWire, receive: Receive, address: str) -> None:
        session: Session | None = None
        try:
            session = Session(self._parts, wire, address)
            wire.flow = session
            while True:
                event = await receive()
                if event["type"] == "websocket.disconnect":
                    return
                await session.hear(_text(event))
        except Closure as closure:
            if session is not None:
                session.forget()
            wire.end(closure)
        except Exception:
            _log.exception("a session failed")
            wire.end(Internal())
        finally:
            if session is not None:
                session.forget()


def _text(event: Message) -> str:
    """The text of a frame. Raises Binary where it is none."""
    text = event.get("text")
    if not isinstance(text, str):
        raise Binary
    return text


class AsgiWire:
    """The wire under a server that knows nothing of ours: each text goes through ASGI's `send`."""

    fast = None
    deflates = False
    flow: Flow | None = None

    def __init__(self, send: Send, max_buffer: int) -> None:
        self._send = send
        self._max_buffer = max_buffer
        self._queue: asyncio.Queue[bytes | Closure | None] = asyncio.Queue()
        self._size = 0
        self._room = asyncio.Event()
        self._room.set()
        self._over = False
        self._until: float | None = None

    def write(self, _frames: bytes, bodies: Sequence[bytes]) -> None:
        """Queues texts; a reader that lets too much pile up is cut."""
        if self._over:
            return
        for body in bodies:
            self._queue.put_nowait(body)
            self._size += len(body)
        if self._size > self._max_buffer // 2:
            self._room.clear()
        if self._size > self._max_buffer and self.flow is not None:
            self.flow.forget()
            self.end(TooSlow())

    async def drain(self) -> None:
        """Until the queue has room. Raises TooSlow."""
        try:
            async with asyncio.timeout(DRAIN_SECONDS):
                await self._room.wait()
        except TimeoutError:
            raise TooSlow from None

    def end(self, closure: Closure) -> None:
        """Says Disconnect and closes, after what was said before; a slow reader is not waited for."""
        if not self._over:
            self._over = True
            self._until = asyncio.get_running_loop().time() + CLOSE_SECONDS
            metrics.CLOSED.labels(str(closure.code)).inc()
            self._queue.put_nowait(encode(Disconnect.of(closure)))
            self._queue.put_nowait(closure)

    def finish(self) -> None:
        """The conversation is over: nothing more will be said."""
        self._over = True
        self._queue.put_nowait(None)

    async def run(self) -> None:
        """The one that writes."""
        try:
            while (item := await self._queue.get()) is not None:
                async with asyncio.timeout(DRAIN_SECONDS), asyncio.timeout_at(self._until):
                    if isinstance(item, Closure):
                        await self._send(
                            {"type": "websocket.close", "code": item.code, "reason": item.reason}
                        )
                        return
                    await self._send({"type": "websocket.send", "text": item.decode()})
                self._size -= len(item)
                if self._size <= self._max_buffer // 2:
                    self._room.set()
        except (TimeoutError, OSError, RuntimeError):  # gone, or as good as gone
            self._over = True
            if self.flow is not None:
                self.flow.forget()
