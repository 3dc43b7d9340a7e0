"""The WebSocket under a client, from the package `websockets`."""

from __future__ import annotations

import asyncio
import re
import socket
import ssl
from collections.abc import Awaitable, Callable
from typing import Any, Protocol, TypeAlias

from websockets.asyncio.client import connect
from websockets.exceptions import (
    ConnectionClosed,
    ConnectionClosedError,
    InvalidMessage,
    InvalidStatus,
    InvalidURI,
    WebSocketException,
)
from websockets.uri import parse_uri

from notifier.client.closes import BROKEN_LINK, Disconnected

__all__ = [
    "ConnectionClosed",
    "OpenSocket",
    "Socket",
    "check_url",
    "closed_error",
    "describe_url",
    "is_blocked",
    "is_permanent",
    "open_in_time",
    "opener",
]

TEMPORARY_STATUSES = frozenset({408, 425, 429, *range(500, 600)})
"""HTTP statuses after which another attempt may succeed."""

UNKNOWN_HOST = frozenset({socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME)})


class Abortable(Protocol):
    """The connection under a socket."""

    def abort(self) -> None: ...


class Socket(Protocol):
    """The part of a `websockets` connection that a client uses."""

    @property
    def close_code(self) -> int | None: ...
    @property
    def close_reason(self) -> str | None: ...
    @property
    def transport(self) -> Abortable: ...
    async def send(self, message: str) -> None: ...
    async def recv(self) -> str | bytes: ...
    async def close(self) -> None: ...


OpenSocket: TypeAlias = Callable[[str], Awaitable[Socket]]


class _Connect(connect):
    """Follows no redirect, as in browsers: the token would be sent to another server."""

    def process_redirect(self, exc: Exception) -> Exception:
        return exc


def check_url(url: str) -> None:
    """Raises ValueError for what is not a ws:// or wss:// URL."""
    try:
        parse_uri(url)
    except InvalidURI as error:
        raise ValueError(f"{describe_url(url)} is not a ws:// or wss:// URL") from error


def opener(options: dict[str, Any]) -> OpenSocket:
    """Opens sockets with these options of `websockets`.

    The client sends its own pings, and limits the time for opening by itself.
    """
    chosen = {"compression": None, "ping_interval": None, "close_timeout": 1.0, **options}

    async def open_socket(url: str) -> Socket:
        return await _Connect(url, open_timeout=None, **chosen)

    return open_socket


async def open_in_time(open_socket: OpenSocket, url: str, seconds: float) -> Socket:
    """An open socket. Raises Disconnected, at the latest after `seconds`."""
    try:
        async with asyncio.timeout(seconds):
            return await open_socket(url)
    except TimeoutError as error:
        raise Disconnected("no answer", code=BROKEN_LINK) from error
    except InvalidStatus as error:
        reason = f"HTTP {error.response.status_code}"
        raise Disconnected(reason, code=BROKEN_LINK, error=error) from error
    except (OSError, WebSocketException) as error:
        raise Disconnected("cannot connect", code=BROKEN_LINK, error=error) from error


def closed_error() -> ConnectionClosed:
    """The error of a socket that has ended without a close frame."""
    return ConnectionClosedError(None, None)


def is_blocked(error: object) -> bool:
    """Whether the server or a proxy has answered the handshake, and does so again: it lets no WebSocket through."""
    return isinstance(error, InvalidStatus | InvalidMessage) and is_permanent(error)


def is_permanent(error: object) -> bool:
    """Whether another attempt to connect would fail in the same way, as far as is known.

    An unknown host, an untrusted certificate, a server that speaks no TLS or no HTTP, and an HTTP
    status such as 404 are permanent. A refused or broken connection is not.
    """
    match error:
        case InvalidStatus():
            return error.response.status_code not in TEMPORARY_STATUSES
        case InvalidMessage():
            return not isinstance(error.__cause__, EOFError | OSError)
        case socket.gaierror():
            return error.errno in UNKNOWN_HOST
        case ssl.SSLError():
            return not isinstance(error, ssl.SSLEOFError | ssl.SSLZeroReturnError)
        case _:
            return False


def describe_url(url: str) -> str:
    """A URL for messages: without credentials and query, which may be secret."""
    return re.sub(r"//[^/]*@", "//", url.partition("?")[0])
