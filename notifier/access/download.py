"""The document at a URL. Blocks its caller; bounded in size and, as a whole, in time."""

from __future__ import annotations

import http.client
import socket
import threading
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Self, TypeVar


def download(url: str, seconds: float, most: int) -> bytes:
    """The body at an http:// or https:// URL, which may have `most` bytes. Takes so many seconds or a little more.

    Raises OSError, TimeoutError among it, http.client's errors, and ValueError for a body that is too big.
    """
    body = bytearray()
    with (
        _Deadline(seconds) as deadline,
        _opener(deadline).open(url, timeout=seconds) as response,
    ):
        while chunk := response.read1(64 * 1024):
            body += chunk
            if len(body) > most:
                raise ValueError("the answer is too big")
    return bytes(body)


class _Deadline:
    """Shuts a connection down when its time is over, whatever has come.

    The library's timeout is that of each read: a head that comes byte by byte would keep the fetch for days.
    Raises TimeoutError at the end of the block.
    """

    def __init__(self, seconds: float) -> None:
        self._timer = threading.Timer(seconds, self._end)
        self._timer.daemon = True
        self._socket: socket.socket | None = None
        self._is_over = False

    def __enter__(self) -> Self:
        self._timer.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()
        self._timer.join()
        if self._socket is not None:
            self._socket.close()
        if self._is_over:
            raise TimeoutError("the answer is too slow")

    def watch(self, connected: socket.socket) -> None:
        """Watches this connection. TLS takes the socket over, hence another one of the same connection."""
        self._socket = connected.dup()
        if self._is_over:
            self._end()

    def _end(self) -> None:
        self._is_over = True
        if self._socket is not None:
            with suppress(OSError):  # the peer has closed it
                self._socket.shutdown(socket.SHUT_RDWR)


class _Connection(http.client.HTTPConnection):
    """Is watched from its beginning: `connect` returns after the answer of a proxy, and after the TLS handshake."""

    watch: Callable[[socket.socket], None]

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._create_connection = self._connected

    def _connected(self, *arguments: Any) -> socket.socket:
        connected = socket.create_connection(*arguments)
        self.watch(connected)
        return connected


class _TlsConnection(http.client.HTTPSConnection, _Connection):
    """The same with TLS."""


_Kind = TypeVar("_Kind", bound=_Connection)


def _watched(kind: type[_Kind], deadline: _Deadline) -> Callable[..., _Kind]:
    def connection(*arguments: Any, **options: Any) -> _Kind:
        made = kind(*arguments, **options)
        made.watch = deadline.watch
        return made

    return connection


class _HttpHandler(urllib.request.HTTPHandler):
    def __init__(self, deadline: _Deadline) -> None:
        super().__init__()
        self._deadline = deadline

    def http_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(_watched(_Connection, self._deadline), req)


class _HttpsHandler(urllib.request.HTTPSHandler):
    def __init__(self, deadline: _Deadline) -> None:
        super().__init__()
        self._deadline = deadline

    def https_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(_watched(_TlsConnection, self._deadline), req)


def _opener(deadline: _Deadline) -> urllib.request.OpenerDirector:
    """Opens http:// and https:// URLs: it reads no files, and follows no redirects."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        _HttpHandler(deadline),
        _HttpsHandler(deadline),
        urllib.request.HTTPErrorProcessor(),
        urllib.request.HTTPDefaultErrorHandler(),
    ):
        opener.add_handler(handler)
    opener.addheaders = [("Accept", "application/json"), ("User-Agent", "notifier")]
    return opener
