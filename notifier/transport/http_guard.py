"""uvicorn's HTTP protocol with limits for a request's head and body, and a deadline for the whole request."""

from __future__ import annotations

import functools
import logging
from asyncio import TimerHandle
from asyncio.transports import BaseTransport, Transport
from typing import Any, cast

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from notifier.delivery.transport import TransportListener
from notifier.transport.refusals import Reason, Refusals, answer
from notifier.transport.websocket import WebSocketProtocol

EXTENSION = "notifier.http"
"""The key of this class's instance in `scope["extensions"]`."""

REQUEST_SECONDS = 10.0
"""How long a client may take to send a request, and to complete the TLS handshake."""

RESPONSE_SECONDS = 30.0
"""How long the write buffer may be over its high-water mark, or not empty while the connection closes."""

HEAD_BYTES = 64 * 1024
"""The largest head of a request: the request line and the headers."""

HEADERS = 1000
"""How many headers a request may have: 64 KiB of short ones would be forty times as many bytes in memory."""

BODY_BYTES = 1024 * 1024
"""The largest body of a request, with its trailers. None of our requests needs one."""

PIPELINED = 16
"""Requests that may wait for the response to the one before (RFC 9112, 9.3.2)."""

_PREFIXES = {
    b"PROXY ": Reason.PROXY_PROTOCOL,  # version 1, in text
    b"\r\n\r\n\0\r\nQUIT\n": Reason.PROXY_PROTOCOL,  # version 2
    b"\x16\x03": Reason.TLS,  # a ClientHello
    b"PRI * HTTP/2.0\r\n": Reason.HTTP2,  # with prior knowledge (RFC 9113, section 3.4)
}
"""How other protocols begin."""


_logger = logging.getLogger("uvicorn.error.http")
_logger.setLevel(
    logging.ERROR
)  # it warns of each request that it refuses; `Refusals` logs a reason once


class GuardedHttp(HttpToolsProtocol):
    """One connection before it becomes a WebSocket, or the HTTP requests on it.

    `configured` makes the value for `uvicorn.Config(http=…)`.
    """

    _deadline: TimerHandle | None = None
    _head: int | None = 0
    """Bytes of the present request's head; None while its body is read."""

    _body_bytes: int | None = BODY_BYTES
    _body = 0
    """Bytes of its body and the framing; without a limit, those since the last byte of the body."""

    _answered: RequestResponseCycle | None = None
    """The request that is answered now; further ones may wait in `pipeline`."""

    _former: RequestResponseCycle | None = None
    """The last request that was received to its end; `cycle` is this or the one after it."""

    _upgrades: bool | None = None
    """Whether the present request becomes a WebSocket; None until that was looked up."""

    _received = False
    _response_deadline: TimerHandle | None = None

    listener: TransportListener | None = None
    """Receives back-pressure and the end of the connection, in place of the application."""

    _streams = False

    @classmethod
    def configured(
        cls, refusals: Refusals, body_bytes: int | None = BODY_BYTES
    ) -> type[GuardedHttp]:
        """This class with a node's refusals; uvicorn calls it like a class.

        `body_bytes` None: a body may have any size, for applications that take uploads; uvicorn
        reads it as fast as the application. Chunk extensions and trailers stay limited to BODY_BYTES.
        """
        return cast("type[GuardedHttp]", functools.partial(cls, refusals, body_bytes))

    def __init__(
        self, refusals: Refusals, body_bytes: int | None, *arguments: Any, **named: Any
    ) -> None:
        super().__init__(*arguments, **named)
        self.logger = _logger
        self.refusals = refusals
        self._body_bytes = body_bytes

    def connection_made(self, transport: BaseTransport) -> None:
        super().connection_made(cast("Transport", transport))
        self._start_deadline()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_deadline()
        self._stop_response_deadline()
        listener, self.listener = self.listener, None
        if listener is not None:
            listener.closed()
        super().connection_lost(exc)
        if self._answered is not None:  # uvicorn lets only the last request know
            self._answered.disconnected = True
            self._answered.message_event.set()

    def pause_writing(self) -> None:
        super().pause_writing()
        if self.listener is not None:
            self.listener.paused()
        if not self._streams:
            self._start_response_deadline()

    def resume_writing(self) -> None:
        super().resume_writing()
        if not self.transport.is_closing():
            self._stop_response_deadline()
        if self.listener is not None:
            self.listener.resumed()

    def eof_received(self) -> None:
        """Ends a stream. asyncio closes the connection once the buffer is written, which has a deadline."""
        if self._streams and self.listener is not None:
            self.listener.closed()
        self._start_response_deadline()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self._deadline is not None:  # the connection is not idle: a further request has begun
            self._unset_keepalive_if_required()
        if self.transport.is_closing():
            self._start_response_deadline()

    def timeout_keep_alive_handler(self) -> None:
        super().timeout_keep_alive_handler()
        self._start_response_deadline()

    def data_received(self, data: bytes) -> None:
        """Parses as many bytes as the head or the body may still have; what follows is a byte too many."""
        if self._streams:
            return  # a further request, which is never answered
        if not self._received:
            self._received = True
            for prefix, reason in _PREFIXES.items():
                if data.startswith(prefix):
                    self._refuse(reason)
                    return
        while data and not self.transport.is_closing() and self.transport.get_protocol() is self:
            is_head = self._head is not None
            limit = BODY_BYTES if self._body_bytes is None else self._body_bytes
            room = limit - self._body if self._head is None else HEAD_BYTES - self._head
            if not room:
                self._refuse(Reason.TOO_LARGE if is_head else Reason.BODY)
                return
            piece, data = data[:room], data[room:]
            if self._head is not None:
                self._head += len(piece)
            else:
                self._body += len(piece)
            data = self._parse(piece) + data

    def _parse(self, piece: bytes) -> bytes:
        """Parses like uvicorn, which loses the bytes that are returned: those behind a refused upgrade.

        The deadline of an idle connection stays until a request begins: before it the parser skips empty lines.
        """
        try:
            self.parser.feed_data(piece)
        except httptools.HttpParserUpgrade as upgrade:
            if self.transport.is_closing() or not self._should_upgrade():
                return piece[upgrade.args[0] :]
            self.handle_websocket_upgrade()
        except httptools.HttpParserError:
            self._refuse(Reason.NOT_HTTP)
        return b""

    def on_message_begin(self) -> None:
        self._unset_keepalive_if_required()
        self._start_deadline()
        self._upgrades = None
        super().on_message_begin()
        cast("dict[str, Any]", self.scope)["extensions"] = {EXTENSION: self}

    def _should_upgrade(self) -> bool:
        """Like uvicorn's, which reads all headers whenever it is called: four times for each handshake."""
        if self._upgrades is None:
            self._upgrades = super()._should_upgrade()
        return self._upgrades

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._head is None:
            return  # a trailer, which nothing reads
        if len(self.headers) < HEADERS:
            super().on_header(name, value)
        else:
            self._refuse(Reason.TOO_LARGE)

    def on_headers_complete(self) -> None:
        self._head, self._body = None, 0
        if len(self.pipeline) >= PIPELINED:
            self._refuse(Reason.PIPELINED)
        elif self.parser.should_upgrade() and self._has_body():
            self._refuse(Reason.UPGRADE)  # llhttp does not find the end of such a body
        if not self.transport.is_closing():
            super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        if self._body_bytes is None:
            self._body = 0
        if not self.transport.is_closing():
            super().on_body(body)

    def on_message_complete(self) -> None:
        self._head, self._body = 0, 0  # of the next request
        self._stop_deadline()
        if not self.transport.is_closing():
            super().on_message_complete()
            self._former = self.cycle
            if not self._upgrades and self.cycle.response_complete:
                self._start_idle_deadline()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._answered = cycle
        super()._start_asgi_task(cycle, app)

    def stream(self, listener: TransportListener) -> None:
        """Lets a response be written to the transport directly, up to the end of the connection.

        No further request is parsed, and the headers of this one are freed. What is incomplete (a body, a further head)
        has no deadline any more, and uvicorn must not answer `Expect: 100-continue` within the response.
        """
        self.listener = listener
        self._streams = True
        self._stop_deadline()
        if self._answered is not None:
            self._answered.waiting_for_100_continue = False
        self.headers.clear()
        del self.parser

    def handle_websocket_upgrade(self) -> None:
        """Hands the connection over, with its headers beside those that websockets parses again.

        While an earlier request waits for its response, the connection is closed instead: the
        response would be written among the frames.
        """
        if self._is_former_due():
            self._refuse(Reason.PIPELINED)
            return
        self._stop_deadline()
        self._stop_response_deadline()
        self.connections.discard(self)
        protocol = cast(
            "WebSocketProtocol",
            cast("Any", self.ws_protocol_class)(
                config=self.config, server_state=self.server_state, app_state=self.app_state
            ),
        )
        protocol.connection_made(self.transport)
        protocol.upgrade(self.scope["method"].encode(), self.url, self.headers)
        self.transport.set_protocol(protocol)
        del self.parser  # breaks a reference cycle; the parser is not used any more

    def _refuse(self, reason: Reason) -> None:
        """Ends the connection, with an answer where no response to an earlier request is due."""
        if self.transport.is_closing():
            return
        self.refusals.record(reason, self.client[0] if self.client else None)
        if self._may_answer():
            self.transport.write(answer(reason))
            if self.cycle is not self._former:
                self.cycle.disconnected = True  # the application writes no second response
                self.cycle.message_event.set()
        self.transport.close()
        self._start_response_deadline()

    def _may_answer(self) -> bool:
        """Whether the next response is the one to the refused request, and has not begun."""
        begun = self.cycle is not self._former and self.cycle.response_started
        return not begun and not self._is_former_due()

    def _is_former_due(self) -> bool:
        """Whether the response to an earlier request is not complete."""
        return self._former is not None and not self._former.response_complete

    def _has_body(self) -> bool:
        """Whether the head announces a body (RFC 9112, section 6)."""
        return any(
            name == b"transfer-encoding" or (name == b"content-length" and value.strip(b" \t0"))
            for name, value in self.headers
        )

    def _start_deadline(self) -> None:
        if self._deadline is None:
            self._deadline = self.loop.call_later(REQUEST_SECONDS, self._expire)

    def _stop_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _start_idle_deadline(self) -> None:
        """As uvicorn does at the end of a response, for a request that was answered before its end."""
        self._unset_keepalive_if_required()
        self.timeout_keep_alive_task = self.loop.call_later(
            self.timeout_keep_alive, self.timeout_keep_alive_handler
        )

    def _start_response_deadline(self) -> None:
        if self._response_deadline is None:
            self._response_deadline = self.loop.call_later(RESPONSE_SECONDS, self.transport.abort)

    def _stop_response_deadline(self) -> None:
        if self._response_deadline is not None:
            self._response_deadline.cancel()
            self._response_deadline = None

    def _expire(self) -> None:
        if self._received:  # else a connection that was opened ahead, as browsers do
            self.refusals.record(Reason.TIMEOUT, self.client[0] if self.client else None)
        self.transport.abort()
