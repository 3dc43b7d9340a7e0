"""Chooses the transport of a client: a WebSocket, or HTTP where a network blocks WebSockets."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from typing import Any, Literal, TypeAlias

from notifier.client.closes import Disconnected
from notifier.client.http_socket import HttpSocket
from notifier.client.pace import Pace
from notifier.client.sockets import (
    ConnectionClosed,
    OpenSocket,
    Socket,
    is_blocked,
    open_in_time,
)

Transport: TypeAlias = Literal["websocket", "sse", "poll"]
Choice: TypeAlias = Literal["auto", "websocket", "sse", "poll"]

ORDER: tuple[Transport, ...] = ("websocket", "sse", "poll")

PATIENCE = 3
"""How many WebSockets in a row must fail before another transport is tried, if one has worked: the service may be away."""

RETURN_SECONDS, BLOCKED_SECONDS, MAX_RETURN_SECONDS = 1.0, 30.0, 300.0
"""Over HTTP a WebSocket is tried again after this time, if one has worked, and if none has; then after twice as long, …"""

PRIVATE_CODES = 4000
"""Close codes from here on are the server's own (RFC 6455, section 7.4.2)."""


class Transports:
    """Opens sockets by the first transport that works. `present`: the one that was opened last."""

    def __init__(
        self,
        url: str,
        choice: Choice,
        *,
        pace: Pace,
        open_websocket: OpenSocket,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        """Raises ValueError for a `choice` that is none."""
        if choice not in ("auto", *ORDER):
            raise ValueError(f"there is no transport {choice}: auto, websocket, sse, poll")
        self._url = url
        self._names = ORDER if choice == "auto" else (choice,)
        self._pace = pace
        self._open_websocket = open_websocket
        self._options = options or {}
        self._index = 0
        self._failures = 0
        self._websocket_worked = False
        self._returns = 0
        self._blocked: Disconnected | None = None  # why a WebSocket can never be opened

    @property
    def present(self) -> Transport:
        """The transport that is in use, or tried next."""
        return self._names[self._index]

    @property
    def may_return(self) -> bool:
        """Whether HTTP takes the place of a WebSocket."""
        return self._index > 0 and self._names[0] == "websocket"

    async def open(self) -> Socket:
        """An open socket. Raises Disconnected.

        Where the handshake of a WebSocket is refused in a way that another attempt would not change, HTTP takes its place at once.
        """
        if self.present != "websocket":
            return self._over_http()
        try:
            return await open_in_time(self._open_websocket, self._url, self._pace.timeout)
        except Disconnected as end:
            if len(self._names) == 1:
                raise
            if not is_blocked(end.error):
                self._failed()
                raise
            self._blocked = end
        self._index, self._failures = 1, 0
        return self._over_http()

    def _over_http(self) -> Socket:
        return HttpSocket(
            self._url, streams=self.present == "sse", pace=self._pace, options=self._options
        )

    def ended(
        self, socket: Socket, end: Disconnected, *, authenticated: bool
    ) -> Disconnected | None:
        """A connection has ended: chooses the transport of the next attempt. None: connect at once."""
        is_proven, fell_silent = authenticated, False
        if isinstance(socket, HttpSocket):
            is_proven, fell_silent = socket.is_proven, socket.fell_silent
        elif authenticated:
            self._websocket_worked, self._returns = True, 0
        if is_proven:
            self._blocked = None
        if is_proven and not fell_silent:
            self._failures = 0
            return end
        self._failed()
        if self._blocked is not None:
            if self.present != "websocket":
                return None
            blocked, self._blocked = self._blocked, None
            return blocked
        if end.final and len(self._names) > 1 and end.code is not None and end.code < PRIVATE_CODES:
            end.final = False  # something on the way does not speak the protocol
        return end

    def _failed(self) -> None:
        """The present transport did not work: takes the next one, of a proven one only after a while."""
        self._failures += 1
        patience = PATIENCE if self.present == "websocket" and self._websocket_worked else 1
        if self._failures >= patience:
            self._failures = 0
            self._index = (self._index + 1) % len(self._names)

    async def until_websocket(self, token: Callable[[], str]) -> None:
        """Returns once a WebSocket has authenticated: the next connection is to be one."""
        while True:
            first = RETURN_SECONDS if self._websocket_worked else BLOCKED_SECONDS
            seconds = min(first * 2.0**self._returns, MAX_RETURN_SECONDS)
            self._returns = min(self._returns + 1, 20)
            await asyncio.sleep(seconds * (0.5 + self._pace.jitter()))
            if await self._websocket_works(token()):
                self._index = self._failures = 0
                return

    async def _websocket_works(self, token: str) -> bool:
        try:
            socket = await open_in_time(self._open_websocket, self._url, self._pace.timeout)
        except Disconnected:
            return False
        try:
            async with asyncio.timeout(self._pace.timeout):
                await socket.send(json.dumps({"type": "authenticate", "token": token}))
                answer = json.loads(await socket.recv())
            return isinstance(answer, dict) and answer.get("Success") is True
        except (ConnectionClosed, TimeoutError, ValueError, RecursionError):
            return False
        finally:
            socket.transport.abort()
