"""WebSocket connections: uvicorn's protocol, extended by a direct way to write encoded frames.

An ASGI `send` for each client takes three times as long as a write to its asyncio transport. So this class passes itself to the
endpoint in `scope["extensions"]`, and the hub writes whole frames to the asyncio transport, whose buffer is the queue and is limited
in size. uvicorn and websockets still process handshakes, control frames, fragments, pings and closing handshakes.

It uses members of uvicorn that are not documented: tests/unit/test_uvicorn.py names them all.
"""

from __future__ import annotations

import asyncio
import functools
from asyncio.transports import BaseTransport, Transport
from collections.abc import Sequence
from http import HTTPStatus
from typing import Any, NamedTuple, cast

from uvicorn.protocols.utils import ClientDisconnected
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
from notifier.transport.acknowledgement import acknowledges
from notifier.transport.handshake import Handshake
from notifier.transport.keepalive import PONG_SECONDS, Keepalive, Slot
from notifier.transport.queues import Bound, Gate, Inbox, Receiver, drained
from notifier.transport.refusals import Reason, Refusals, answer

EXTENSION = "notifier.websocket"
"""The key of this class's instance in `scope["extensions"]`."""

HIGH_WATER = 256 * 1024
CLOSE_SECONDS = 5.0
"""How long the closing handshake may take before the connection is aborted."""

GRACE_SECONDS = 1.0
"""Added to the deadline of a pong."""

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


class Options(NamedTuple):
    """Options that a node's connections share. `max_buffer`: bytes that may wait for a slow client."""

    refusals: Refusals
    keepalive: Keepalive
    max_buffer: int = 1024 * 1024
    deflate: bool = False


class WebSocketProtocol(WebSocketsSansIOProtocol):
    """One connection. `configured` makes the value for `uvicorn.Config(ws=…)`."""

    listener: TransportListener | None = None
    ending = False
    write_direct: Write | None = None
    _unread: bytes = b""
    _idle_frames = 0
    _idle_since = 0.0
    _slot: Slot | None = None
    _handshake: Handshake | None = None
    _detached = False
    _receiver: Receiver | None = None
    _bound: Bound
    _receiving: asyncio.Task[None] | None = None

    @classmethod
    def configured(cls, options: Options) -> type[asyncio.Protocol]:
        """This class with a node's options; uvicorn calls it like a class."""
        return cast("type[asyncio.Protocol]", functools.partial(cls, options))

    def __init__(self, options: Options, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.options = options
        if options.deflate:
            self.conn.available_extensions = [_DEFLATE]
        self.queue: Inbox = Inbox(self.loop)  # type: ignore[assignment]
        self.writable = cast("asyncio.Event", Gate(self.loop))
        self._bound = Bound(options.max_buffer)

    def connection_made(self, transport: BaseTransport) -> None:
        super().connection_made(transport)
        high = min(HIGH_WATER, self.options.max_buffer // 2)
        cast("Transport", transport).set_write_buffer_limits(high=high, low=high // 4)
        self.write_direct = self.transport.write

    @property
    def encoding(self) -> Encoding:
        """DEFLATED where the client accepts frames that were compressed once for all."""
        for each in self.conn.extensions:
            if isinstance(each, PerMessageDeflate) and each.local_max_window_bits >= WINDOW_BITS:
                return DEFLATED
        return TEXT

    async def run_asgi(self) -> None:
        """Runs the application. Unlike uvicorn's, the connection stays open where it has detached."""
        cast("dict[str, Any]", self.scope["extensions"])[EXTENSION] = self
        try:
            await self.app(self.scope, self.receive, self.send)
        except ClientDisconnected:
            pass
        except Exception:
            self.logger.exception("the ASGI application failed")
        finally:
            if not self.handshake_complete:
                self.send_500_response()
            if not self._detached and self.close_timer is None:
                self.transport.close()

    def detach(self, receiver: Receiver | None) -> None:
        """Gives all further events to `receiver`, and lets the application return. None: the connection has ended already.

        A task lives only while there are events: a waiting one would cost 3 KiB of each idle socket.
        """
        self._detached = True
        self._forget_handshake()
        self._receiver = receiver
        self.queue.on_event = self._start_receiving
        if not self.queue.empty():
            self._start_receiving()

    def _start_receiving(self) -> None:
        if self._receiving is None and self._receiver is not None:
            self._receiving = self.loop.create_task(self._receive_events(self._receiver))
            self.tasks.add(self._receiving)
            self._receiving.add_done_callback(self.on_task_complete)

    async def _receive_events(self, receiver: Receiver) -> None:
        try:
            while not self.queue.empty():
                await receiver.receive(await self.receive())
        except BaseException:
            receiver.end()
            raise
        finally:
            self._receiving = None

    # --- the transport that a session writes to

    def write(self, frames: bytes, bodies: Sequence[bytes]) -> None:
        """Writes whole frames; closes with TooSlow when more waits than may."""
        if self.conn.state is not OPEN or self.transport.is_closing():
            return
        self.transport.write(frames)
        if self._bound.is_exceeded(self.transport.get_write_buffer_size(), len(frames)):
            self._close_listener()
            self.end(TooSlow())

    async def drain(self) -> None:
        """Waits until the buffer has room. Raises TooSlow."""
        await drained(self.writable)

    def replayed(self) -> None:
        """Live messages need nothing else."""

    def end(self, closure: Closure) -> None:
        """Sends Disconnect and closes; aborts when the peer does not answer in time."""
        if self.ending or self.conn.state is not OPEN or self.transport.is_closing():
            return
        self.ending = True
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
        self._handshake = Handshake(method, target, headers)
        self.data_received(self._handshake.parsed_again())

    def handle_connect(self, event: Request) -> None:
        super().handle_connect(event)
        if self.response.status_code != HTTPStatus.SWITCHING_PROTOCOLS:
            self._refused(Reason.INVALID, str(self.conn.handshake_exc))
        elif self._handshake is not None:  # the application has not been started yet
            self._handshake.complete(cast("dict[str, Any]", self.scope))

    def _refused(self, reason: Reason, error: str) -> None:
        self.options.refusals.record(reason, self.client[0] if self.client else None, error=error)

    # --- input

    def data_received(self, data: bytes) -> None:
        """Parses in slices; bytes behind a message wait until the session has received it."""
        self._unread += data
        self._parse()
        if not self.handshake_initiated:  # uvicorn would leave an invalid request unanswered
            self._refused(Reason.INVALID, str(self.conn.handshake_exc))
            self.transport.write(b"".join(self.conn.data_to_send()) or answer(Reason.INVALID))
            self.transport.close()

    def _parse(self) -> None:
        while self._unread and not self.read_paused:
            piece, self._unread = self._unread[:SLICE_BYTES], self._unread[SLICE_BYTES:]
            super().data_received(piece)

    def _read_on(self) -> None:
        """Continues where a message has paused the reading."""
        if self.read_paused and not self.transport.is_closing():
            self.read_paused = False
            if self.pong_timer is not None:  # the pong may be behind the message
                self.pong_timer.cancel()
                self.pong_timer = self.loop.call_later(GRACE_SECONDS, self._drop_dead)
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
        if event.data == self.pending_ping_payload:
            self.pending_ping_payload = None
            if self.pong_timer is not None:
                self.pong_timer.cancel()
                self.pong_timer = None

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

    def shutdown(self) -> None:
        """Closes the connection, unless it is closing: websockets raises at a second close frame."""
        if not self.transport.is_closing():
            super().shutdown()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._bound.paused(self.transport.get_write_buffer_size())
        self.write_direct = None
        if self.listener is not None:
            self.listener.paused()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._bound.drained()
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
        """A protocol error: sends the close frame, then reads only the end of the connection.

        Closing at once would reset a connection with unread bytes, and the close code be lost.
        """
        if not self.ending:
            self._close_listener()
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
        self._close_listener()
        super().handle_close(event)
        self._abort_later()

    def eof_received(self) -> None:
        """asyncio closes the connection once the buffer is written, which a client that does not read prevents."""
        self._close_listener()
        if self.close_timer is None:
            self._abort_later()

    def _close_listener(self) -> None:
        if self.listener is not None:
            self.listener.closed()

    def start_keepalive(self) -> None:
        self._slot = self.options.keepalive.add(self)

    def stop_keepalive(self) -> None:
        super().stop_keepalive()
        if self._slot is not None:
            self.options.keepalive.remove(self, self._slot)
            self._slot = None

    def ping(self, frame: bytes, payload: bytes) -> None:
        is_closing = self.close_sent or self.transport.is_closing()
        if self.pending_ping_payload is None and not is_closing:
            self.pending_ping_payload = payload
            self.transport.write(frame)

    def check_pong(self) -> None:
        """Waits for GRACE_SECONDS more: after this process was stopped, the pong may wait unread."""
        if self.pending_ping_payload is not None and self.pong_timer is None:
            self.pong_timer = self.loop.call_later(GRACE_SECONDS, self._drop_dead)

    def _drop_dead(self) -> None:
        """No pong came: aborts, since this peer would not answer a closing handshake either."""
        self.pong_timer = None
        if self.read_paused and acknowledges(self.transport, PONG_SECONDS):
            self.pending_ping_payload = None  # the pong may wait behind a message: ping again
            return
        self._close_listener()
        metrics.CLOSED.labels("1006").inc()
        self.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._close_listener()
        self.listener = self.write_direct = None
        self._unread = b""
        super().connection_lost(exc)
        self.queue.on_event = self._receiver = None

    # --- memory

    def _forget_handshake(self) -> None:
        """Frees the request, the response and the scope once the connection is accepted.

        The parser of websockets keeps the request for as long as the connection lives.
        """
        cast("dict[str, Any]", self.scope).clear()
        self._handshake = None
        self.request.headers.clear()
        del self.request, self.response
