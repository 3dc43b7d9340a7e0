"""uvicorn's HTTP protocol with a limit for a request's head and a deadline for the whole request."""

from __future__ import annotations

from asyncio import TimerHandle
from asyncio.transports import BaseTransport, Transport
from typing import cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

REQUEST_SECONDS = 10.0
"""How long a client may take to send a request, and to complete the TLS handshake."""

HEAD_BYTES = 64 * 1024
"""The largest head of a request: the request line and the headers."""

HEAD_TOO_LARGE = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\n"
    b"connection: close\r\ncontent-length: 0\r\n\r\n"
)


class GuardedHttp(HttpToolsProtocol):
    """One connection before it becomes a WebSocket, or the HTTP requests on it."""

    _deadline: TimerHandle | None = None
    _head: int | None = 0
    """Bytes of the present request's head; None while its body is read."""

    def connection_made(self, transport: BaseTransport) -> None:
        super().connection_made(cast("Transport", transport))
        self._start_deadline()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_deadline()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parses as many bytes as the head may still have; the rest is body, or one byte too many."""
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
        self._start_deadline()
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._head = None
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        self._head = 0  # of the next request
        self._stop_deadline()
        super().on_message_complete()

    def handle_websocket_upgrade(self) -> None:
        self._stop_deadline()
        super().handle_websocket_upgrade()
        del self.parser  # breaks a reference cycle; the parser is not used any more

    def _start_deadline(self) -> None:
        if self._deadline is None:
            self._deadline = self.loop.call_later(REQUEST_SECONDS, self.transport.abort)

    def _stop_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
