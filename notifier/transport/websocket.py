"""The socket: uvicorn's WebSocket protocol with a way to write frames that were made once for all.

An ASGI `send` per client costs three times what a transport's `write` does. So this subclass hands
itself to the endpoint in `scope["extensions"]`; the hub writes whole frames straight to the
transport, whose buffer is the queue and whose size is the bound. Handshake, control frames,
fragments, pings and the close handshake stay the library's.
"""

from __future__ import annotations

import asyncio
from asyncio import TimerHandle
from asyncio.transports import BaseTransport, Transport
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Protocol, cast

from uvicorn._types import ASGIReceiveEvent
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.extensions.permessage_deflate import (
    PerMessageDeflate,
    ServerPerMessageDeflateFactory,
)
from websockets.frames import Frame
from websockets.protocol import OPEN

from notifier import metrics
from notifier.errors import Closure, TooMany, TooSlow
from notifier.frames import WINDOW_BITS, frame
from notifier.messages import Disconnect, encode

EXTENSION = "notifier.wire"

MESSAGE_BYTES = 64 * 1024
"""The largest message that is read; `session` takes less before authentication."""

HIGH_WATER = 256 * 1024
DRAIN_SECONDS = 15.0
CLOSE_SECONDS = 5.0
"""How long a closing handshake may take before the socket is aborted."""

GRACE_SECONDS = 1.0
"""What is added to the time for a pong."""

HANDSHAKE_SECONDS = 10.0
HEAD_BYTES = 64 * 1024
"""How long a request may take, and how much it may say before its body."""

HEAD_TOO_LARGE = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\n"
    b"connection: close\r\ncontent-length: 0\r\n\r\n"
)

SLICE_BYTES = 4 * 1024
"""What is parsed without letting others have their turn: some hundreds of frames at most."""

IDLE_FRAMES, IDLE_SECONDS = 1000, 10.0
"""Pings, pongs and further fragments, which make work and say nothing, that a client may send."""


_DEFLATE = ServerPerMessageDeflateFactory(
    server_no_context_takeover=True,
    client_no_context_takeover=True,
    server_max_window_bits=WINDOW_BITS,
    client_max_window_bits=WINDOW_BITS,
)


class Flow(Protocol):
    """What whoever uses the wire hears of it."""

    def slow_down(self) -> None:
        """The transport piles up."""

    def speed_up(self) -> None:
        """It has drained."""

    def forget(self) -> None:
        """It is closing or gone."""


class WireProtocol(WebSocketsSansIOProtocol):
    """One connection. `max_buffer` and `deflate` are set once for the process, before it serves."""

    max_buffer: ClassVar[int] = 1024 * 1024
    deflate: ClassVar[bool] = False

    flow: Flow | None = None
    ending: Closure | None = None
    fast: Callable[[bytes], object] | None = None
    _unread: bytes = b""
    _idle_frames = 0
    _idle_since = 0.0
    _late = False

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        if self.deflate:
            self.conn.available_extensions = [_DEFLATE]
        # Four of asyncio's deques would be a tenth of what an idle socket costs.
        self.queue = cast("asyncio.Queue[ASGIReceiveEvent]", _Inbox(self.loop))
        self.writable = cast("asyncio.Event", _Gate(self.loop))

    def connection_made(self, transport: BaseTransport) -> None:
        super().connection_made(transport)
        high = min(HIGH_WATER, self.max_buffer // 2)
        cast("Transport", transport).set_write_buffer_limits(high=high, low=high // 4)
        self.fast = self.transport.write

    @property
    def deflates(self) -> bool:
        """Whether the client takes frames that were compressed for all."""
        return any(
            isinstance(agreed, PerMessageDeflate) and agreed.local_max_window_bits >= WINDOW_BITS
            for agreed in self.conn.extensions
        )

    async def run_asgi(self) -> None:
        cast("dict[str, Any]", self.scope["extensions"])[EXTENSION] = self
        await super().run_asgi()

    # --- the wire, as a session sees it

    def write(self, frames: bytes, bodies: Sequence[bytes]) -> None:
        """Queues whole frames; a reader that lets too much pile up is cut."""
        if self.conn.state is not OPEN or self.transport.is_closing():
            return
        self.transport.write(frames)
        if self.transport.get_write_buffer_size() > self.max_buffer and self.flow is not None:
            self.flow.forget()
            self.end(TooSlow())

    async def drain(self) -> None:
        """Until the transport has room. Raises TooSlow."""
        if self.writable.is_set():
            return
        try:
            async with asyncio.timeout(DRAIN_SECONDS):
                await self.writable.wait()
        except TimeoutError:
            raise TooSlow from None

    def end(self, closure: Closure) -> None:
        """Says Disconnect and closes; aborts when the peer does not answer in time."""
        if self.ending is not None or self.conn.state is not OPEN or self.transport.is_closing():
            return
        self.ending = closure
        metrics.CLOSED.labels(str(closure.code)).inc()
        self.stop_keepalive()
        self.transport.write(frame(encode(Disconnect.of(closure))))
        self.conn.send_close(closure.code, closure.reason)
        self.transport.write(b"".join(self.conn.data_to_send()))
        self.close_sent = True
        self.queue.put_nowait({"type": "websocket.disconnect", "code": closure.code})
        self._read_on()
        self._abort_later()

    def _abort_later(self) -> None:
        """`transport.close` waits for a reader that may never read: this one does not."""
        self.close_timer = self.loop.call_later(CLOSE_SECONDS, self.transport.abort)

    # --- what comes in

    def data_received(self, data: bytes) -> None:
        """Takes it in slices; what stands behind a message waits until that was heard."""
        self._unread += data
        self._parse()
        if not self.handshake_initiated:  # no WebSocket request; uvicorn would leave it at that
            self.transport.write(b"".join(self.conn.data_to_send()))
            self.transport.close()

    def _parse(self) -> None:
        while self._unread and not self.read_paused:
            piece, self._unread = self._unread[:SLICE_BYTES], self._unread[SLICE_BYTES:]
            super().data_received(piece)

    def _read_on(self) -> None:
        """Goes on where a message has stopped the reading."""
        if self.read_paused and not self.transport.is_closing():
            self.read_paused = False
            self._parse()
            if not self.read_paused:
                self.transport.resume_reading()

    async def receive(self) -> ASGIReceiveEvent:
        message = await self.queue.get()
        if self.queue.empty():
            self._read_on()
        return message

    def handle_ping(self) -> None:
        self._count_idle()
        if not self.conn.eof_sent:
            super().handle_ping()

    def handle_pong(self, event: Frame) -> None:
        self._count_idle()
        self._late = False
        super().handle_pong(event)

    def handle_cont(self, event: Frame) -> None:
        self._count_idle()
        super().handle_cont(event)

    def _count_idle(self) -> None:
        """One too many ends the conversation, and nothing is parsed any more."""
        now = self.loop.time()
        if now > self._idle_since + IDLE_SECONDS:
            self._idle_since, self._idle_frames = now, 0
        self._idle_frames += 1
        if self._idle_frames == IDLE_FRAMES + 1:
            self.fail(TooMany())

    def fail(self, closure: Closure) -> None:
        """Ends it with somebody who floods: not even the answer to the close is parsed."""
        if self.conn.state is OPEN:
            self.transport.write(frame(encode(Disconnect.of(closure))))
        self.conn.fail(closure.code, closure.reason)
        self.handle_parser_exception()

    # --- what uvicorn tells

    def pause_writing(self) -> None:
        super().pause_writing()
        self.fast = None
        if self.flow is not None:
            self.flow.slow_down()

    def resume_writing(self) -> None:
        super().resume_writing()
        self.fast = self.transport.write
        if self.flow is not None:
            self.flow.speed_up()

    def send_receive_event_to_app(self) -> None:
        if self.curr_msg_data_type == "text" and not self.close_sent:
            try:
                b"".join(self.frames).decode()
            except UnicodeDecodeError:
                self.frames = []
                self.conn.fail(1007, "invalid UTF-8")
                self.handle_parser_exception()
                return
        super().send_receive_event_to_app()

    def handle_parser_exception(self) -> None:
        """A broken client: it is told why, then nothing more is read but its end.

        Closing at once would reset the connection while its bytes are unread, and lose the code.
        """
        if self.ending is None and self.flow is not None:
            self.flow.forget()
        sent = self.conn.close_sent
        if sent is None:  # there was no handshake yet
            self.transport.abort()
        elif not self.close_sent:
            metrics.CLOSED.labels(str(sent.code)).inc()
            self.queue.put_nowait({"type": "websocket.disconnect", "code": sent.code})
            self.transport.write(b"".join(self.conn.data_to_send()))
            self.close_sent = True
            self.stop_keepalive()
            if self.transport.can_write_eof():
                self.transport.write_eof()
            self._abort_later()
        self._read_on()

    def handle_close(self, event: Frame) -> None:
        if self.flow is not None:
            self.flow.forget()
        super().handle_close(event)
        self._abort_later()

    def keepalive_timeout(self) -> None:
        """No pong: whoever does not answer will not answer a closing handshake either.

        When it was this process that stood still, the pong is there and was not read yet.
        """
        if not self._late:
            self._late = True
            self.pong_timer = self.loop.call_later(GRACE_SECONDS, self.keepalive_timeout)
            return
        if self.flow is not None:
            self.flow.forget()
        metrics.CLOSED.labels("1006").inc()
        self.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        if self.flow is not None:
            self.flow.forget()
            self.flow = None
        self.fast = None
        self._unread = b""
        super().connection_lost(exc)

    # --- what an idle socket need not keep

    def forget_handshake(self) -> None:
        """Call it once the socket is accepted: request, response and scope are needed no more."""
        cast("dict[str, Any]", self.scope).clear()
        del self.request, self.response


class _Inbox:
    """asyncio.Queue for one reader, as far as uvicorn uses it."""

    __slots__ = ("_items", "_loop", "_waiter")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._items: list[ASGIReceiveEvent] = []
        self._waiter: asyncio.Future[None] | None = None

    def put_nowait(self, item: ASGIReceiveEvent) -> None:
        self._items.append(item)
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def empty(self) -> bool:
        return not self._items

    async def get(self) -> ASGIReceiveEvent:
        while not self._items:
            self._waiter = self._loop.create_future()
            await self._waiter
        self._waiter = None
        return self._items.pop(0)


class _Gate:
    """asyncio.Event, open at first, as far as it is used here."""

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


class GuardedHttp(HttpToolsProtocol):
    """HTTP with a bound for a request's head and a deadline for all of it: uvicorn has neither."""

    _guard: TimerHandle | None = None
    _head: int | None = 0

    def connection_made(self, transport: BaseTransport) -> None:
        super().connection_made(cast("Transport", transport))
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        self._relax()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Takes as much as a head may still say; what is left is of the body, or one byte too many."""
        while data and not self.transport.is_closing() and self.transport.get_protocol() is self:
            room = len(data) if self._head is None else HEAD_BYTES - self._head
            if not room:
                self.transport.write(HEAD_TOO_LARGE)
                self.transport.close()
                return
            piece, data = data[:room], data[room:]
            if self._head is not None:
                self._head += len(piece)
            super().data_received(piece)

    def on_message_begin(self) -> None:
        self._watch()
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._head = None
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        self._head = 0  # of the next request
        self._relax()
        super().on_message_complete()

    def handle_websocket_upgrade(self) -> None:
        self._relax()
        super().handle_websocket_upgrade()
        del self.parser  # the two hold one another, and neither is needed any more

    def _watch(self) -> None:
        if self._guard is None:
            self._guard = self.loop.call_later(HANDSHAKE_SECONDS, self.transport.abort)

    def _relax(self) -> None:
        if self._guard is not None:
            self._guard.cancel()
            self._guard = None
