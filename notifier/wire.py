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

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.frames import Frame
from websockets.protocol import OPEN

from notifier import metrics
from notifier.errors import Closure, TooSlow
from notifier.frames import frame
from notifier.messages import Disconnect, encode

EXTENSION = "notifier.wire"

MESSAGE_BYTES = 64 * 1024
"""The largest message that is read; `session` takes less before authentication."""

HIGH_WATER = 256 * 1024
DRAIN_SECONDS = 15.0
CLOSE_SECONDS = 5.0
"""How long a closing handshake may take before the socket is aborted."""

HANDSHAKE_SECONDS = 10.0


class Flow(Protocol):
    """What whoever uses the wire hears of it."""

    def slow_down(self) -> None:
        """The transport piles up."""

    def speed_up(self) -> None:
        """It has drained."""

    def forget(self) -> None:
        """It is closing or gone."""


class WireProtocol(WebSocketsSansIOProtocol):
    """One connection. `max_buffer` is set once for the process, before the server starts."""

    max_buffer: ClassVar[int] = 1024 * 1024

    flow: Flow | None = None
    ending: Closure | None = None
    fast: Callable[[bytes], object] | None = None

    def connection_made(self, transport: BaseTransport) -> None:
        super().connection_made(transport)
        high = min(HIGH_WATER, self.max_buffer // 2)
        cast("Transport", transport).set_write_buffer_limits(high=high, low=high // 4)
        self.fast = self.transport.write

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
        if self.read_paused:
            self.read_paused = False
            self.transport.resume_reading()
        self._abort_later()

    def _abort_later(self) -> None:
        """`transport.close` waits for a reader that may never read: this one does not."""
        self.close_timer = self.loop.call_later(CLOSE_SECONDS, self.transport.abort)

    # --- what uvicorn tells

    def pause_writing(self) -> None:
        super().pause_writing()
        if self.flow is not None:
            self.flow.slow_down()

    def resume_writing(self) -> None:
        super().resume_writing()
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
        if sent is not None and not self.close_sent:
            metrics.CLOSED.labels(str(sent.code)).inc()
            self.queue.put_nowait({"type": "websocket.disconnect", "code": sent.code})
            self.transport.write(b"".join(self.conn.data_to_send()))
            self.close_sent = True
            self.stop_keepalive()
            if self.transport.can_write_eof():
                self.transport.write_eof()
            self._abort_later()
        if self.read_paused:
            self.read_paused = False
            self.transport.resume_reading()

    def handle_close(self, event: Frame) -> None:
        if self.flow is not None:
            self.flow.forget()
        mine = self.close_sent
        super().handle_close(event)
        if not mine:
            self._abort_later()

    def keepalive_timeout(self) -> None:
        """No pong: whoever does not answer will not answer a closing handshake either."""
        if self.flow is not None:
            self.flow.forget()
        metrics.CLOSED.labels("1006").inc()
        self.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        if self.flow is not None:
            self.flow.forget()
            self.flow = None
        self.fast = None
        super().connection_lost(exc)


class GuardedHttp(HttpToolsProtocol):
    """HTTP with a deadline for the first request: uvicorn has none."""

    _guard: TimerHandle | None = None

    def connection_made(self, transport: BaseTransport) -> None:
        socket = cast("Transport", transport)
        super().connection_made(socket)
        self._guard = self.loop.call_later(HANDSHAKE_SECONDS, socket.abort)

    def connection_lost(self, exc: Exception | None) -> None:
        self._relax()
        super().connection_lost(exc)

    def on_headers_complete(self) -> None:
        self._relax()
        super().on_headers_complete()

    def _relax(self) -> None:
        if self._guard is not None:
            self._guard.cancel()
            self._guard = None
