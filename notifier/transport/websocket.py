"""WebSocket connections: uvicorn's protocol, extended by a direct way to write encoded frames.

An ASGI `send` for each client costs three times as much as a write to its asyncio transport. So
this class passes itself to the endpoint in `scope["extensions"]`, and the hub writes whole frames
to the asyncio transport, whose buffer is the queue and whose size is the bound. Handshake, control
frames, fragments, pings and the closing handshake remain uvicorn's and websockets'.

It uses members of uvicorn that are not documented: tests/unit/test_uvicorn.py names them all.
"""

from __future__ import annotations

import asyncio
import functools
from asyncio.transports import BaseTransport, Transport
from collections.abc import Coroutine, Sequence
from http import HTTPStatus
from typing import Any, NamedTuple, cast
from urllib.parse import unquote

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.extensions.permessage_deflate import (
    PerMessageDeflate,
    ServerPerMessageDeflateFactory,
)
from websockets.frames import Frame
from websockets.http11 import Request
from websockets.protocol import OPEN

from notifier import metrics
from notifier.delivery.encoding import DEFLATED, TEXT, Encoding
from notifier.delivery.transport import TransportListener, Write
from notifier.errors import Closure, TooMany, TooSlow
from notifier.frames import WINDOW_BITS, frame
from notifier.messages import Disconnect, encode
from notifier.transport.queues import Gate, Inbox, drained
from notifier.transport.refusals import Reason, Refusals

EXTENSION = "notifier.websocket"
"""The key of this class's instance in `scope["extensions"]`."""

HIGH_WATER = 256 * 1024
CLOSE_SECONDS = 5.0
"""How long the closing handshake may take before the connection is aborted."""

GRACE_SECONDS = 1.0
"""Added to the deadline of a pong that was due while this process may have been stopped."""

SLICE_BYTES = 4 * 1024
"""How much is parsed without returning to the event loop: a few hundred frames at most."""

IDLE_FRAMES, IDLE_SECONDS = 1000, 10.0
"""Control and continuation frames allowed per IDLE_SECONDS: they cost CPU but carry no message."""


_DEFLATE = ServerPerMessageDeflateFactory(
    server_no_context_takeover=True,
    client_no_context_takeover=True,
    server_max_window_bits=WINDOW_BITS,
    client_max_window_bits=WINDOW_BITS,
)


_PARSED = (
    b"connection",
    b"content-length",
    b"host",
    b"origin",
    b"sec-websocket-extensions",
    b"sec-websocket-key",
    b"sec-websocket-version",
    b"transfer-encoding",
    b"upgrade",
)
"""The headers that websockets reads. It refuses lines over 8 KiB and more than 128 headers."""


class Options(NamedTuple):
    """A node's settings for its connections. `max_buffer`: bytes that may wait for a slow client."""

    refusals: Refusals
    max_buffer: int = 1024 * 1024
    deflate: bool = False


class Handshake(NamedTuple):
    """A request as the HTTP parser received it; header names are in lower case."""

    target: bytes
    headers: list[tuple[bytes, bytes]]


class WebSocketProtocol(WebSocketsSansIOProtocol):
    """One connection. `configured` makes the value for `uvicorn.Config(ws=…)`."""

    listener: TransportListener | None = None
    ending: Closure | None = None
    write_direct: Write | None = None
    _unread: bytes = b""
    _idle_frames = 0
    _idle_since = 0.0
    _late = False
    _handshake: Handshake | None = None

    @classmethod
    def configured(cls, options: Options) -> type[asyncio.Protocol]:
        """This class with a node's options; uvicorn calls it like a class."""
        return cast("type[asyncio.Protocol]", functools.partial(cls, options))

    def __init__(self, options: Options, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.options = options
        if options.deflate:
            self.conn.available_extensions = [_DEFLATE]
        self.queue = cast("asyncio.Queue[Any]", Inbox(self.loop))
        self.writable = cast("asyncio.Event", Gate(self.loop))

    def connection_made(self, transport: BaseTransport) -> None:
        super().connection_made(transport)
        high = min(HIGH_WATER, self.options.max_buffer // 2)
        cast("Transport", transport).set_write_buffer_limits(high=high, low=high // 4)
        self.write_direct = self.transport.write

    @property
    def encoding(self) -> Encoding:
        """DEFLATED where the client accepts frames that were compressed once for all."""
        for agreed in self.conn.extensions:
            if (
                isinstance(agreed, PerMessageDeflate)
                and agreed.local_max_window_bits >= WINDOW_BITS
            ):
                return DEFLATED
        return TEXT

    def run_asgi(self) -> Coroutine[Any, Any, None]:
        cast("dict[str, Any]", self.scope["extensions"])[EXTENSION] = self
        return super().run_asgi()

    # --- the transport that a session writes to

    def write(self, frames: bytes, bodies: Sequence[bytes]) -> None:
        """Writes whole frames; closes with TooSlow when more than `max_buffer` waits."""
        if self.conn.state is not OPEN or self.transport.is_closing():
            return
        self.transport.write(frames)
        if (
            self.transport.get_write_buffer_size() > self.options.max_buffer
            and self.listener is not None
        ):
            self.listener.closed()
            self.end(TooSlow())

    async def drain(self) -> None:
        """Waits until the buffer has room. Raises TooSlow."""
        await drained(self.writable)

    def end(self, closure: Closure) -> None:
        """Sends Disconnect and closes; aborts when the peer does not answer in time."""
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
        """Unlike `transport.close`, this does not wait for a peer that never reads."""
        self.close_timer = self.loop.call_later(CLOSE_SECONDS, self.transport.abort)

    # --- the handshake

    def upgrade(self, method: bytes, target: bytes, headers: list[tuple[bytes, bytes]]) -> None:
        """Begins with a request that was parsed already.

        websockets parses again what it needs of it; `handle_connect` puts the rest into the scope.
        """
        self._handshake = Handshake(target, headers)
        path = b"/" if target.isascii() else target  # which websockets refuses
        lines = [b"%b %b HTTP/1.1" % (method, path)]
        lines += [b"%b: %b" % header for header in headers if header[0] in _PARSED]
        self.data_received(b"\r\n".join([*lines, b"", b""]))

    def handle_connect(self, event: Request) -> None:
        super().handle_connect(event)
        if self.response.status_code != HTTPStatus.SWITCHING_PROTOCOLS:
            self._refused(Reason.INVALID, str(self.conn.handshake_exc))
        elif self._handshake is not None:  # the application has not been started yet
            path, _, query = self._handshake.target.partition(b"?")
            scope = cast("dict[str, Any]", self.scope)
            scope["path"] = scope["root_path"] + unquote(path.decode("ascii"))
            scope["raw_path"] = scope["root_path"].encode() + path
            scope["query_string"] = query
            scope["headers"] = self._handshake.headers

    def _refused(self, reason: Reason, error: str) -> None:
        self.options.refusals.record(reason, self.client[0] if self.client else None, error=error)

    # --- input

    def data_received(self, data: bytes) -> None:
        """Parses in slices; bytes behind a message wait until the session has received it."""
        self._unread += data
        self._parse()
        if not self.handshake_initiated:  # uvicorn would leave an invalid request unanswered
            self._refused(Reason.INVALID, str(self.conn.handshake_exc))
            self.transport.write(b"".join(self.conn.data_to_send()))
            self.transport.close()

    def _parse(self) -> None:
        while self._unread and not self.read_paused:
            piece, self._unread = self._unread[:SLICE_BYTES], self._unread[SLICE_BYTES:]
            super().data_received(piece)

    def _read_on(self) -> None:
        """Continues where a message has paused the reading."""
        if self.read_paused and not self.transport.is_closing():
            self.read_paused = False
            self._parse()
            if not self.read_paused:
                self.transport.resume_reading()

    async def receive(self) -> Any:
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
        """Closes the connection at one frame too many, and parses nothing after it."""
        now = self.loop.time()
        if now > self._idle_since + IDLE_SECONDS:
            self._idle_since, self._idle_frames = now, 0
        self._idle_frames += 1
        if self._idle_frames == IDLE_FRAMES + 1:
            self.fail(TooMany())

    def fail(self, closure: Closure) -> None:
        """Closes at once: not even the answer to the close frame is parsed."""
        if self.conn.state is OPEN:
            self.transport.write(frame(encode(Disconnect.of(closure))))
        self.conn.fail(closure.code, closure.reason)
        self.handle_parser_exception()

    # --- callbacks of asyncio and uvicorn

    def pause_writing(self) -> None:
        super().pause_writing()
        self.write_direct = None
        if self.listener is not None:
            self.listener.paused()

    def resume_writing(self) -> None:
        super().resume_writing()
        self.write_direct = self.transport.write
        if self.listener is not None:
            self.listener.resumed()

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
        """A protocol error: sends the close frame, then reads nothing but the connection's end.

        Closing at once would reset a connection with unread bytes, and the close code be lost.
        """
        if self.ending is None and self.listener is not None:
            self.listener.closed()
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
        if self.listener is not None:
            self.listener.closed()
        super().handle_close(event)
        self._abort_later()

    def keepalive_timeout(self) -> None:
        """No pong came: aborts, since this peer would not answer a closing handshake either.

        If this process was stopped meanwhile, the pong may wait unread: so there is one more wait.
        """
        if not self._late:
            self._late = True
            self.pong_timer = self.loop.call_later(GRACE_SECONDS, self.keepalive_timeout)
            return
        if self.listener is not None:
            self.listener.closed()
        metrics.CLOSED.labels("1006").inc()
        self.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        if self.listener is not None:
            self.listener.closed()
            self.listener = None
        self.write_direct = None
        self._unread = b""
        super().connection_lost(exc)

    # --- memory

    def forget_handshake(self) -> None:
        """Frees the request, the response and the scope once the connection is accepted.

        The parser of websockets keeps the request for as long as the connection lives.
        """
        cast("dict[str, Any]", self.scope).clear()
        self._handshake = None
        self.request.headers.clear()
        del self.request, self.response
