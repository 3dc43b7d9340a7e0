"""The connection to NATS: to one of the servers, opened again after every failure.

The library's own reconnecting is not used: it notices a frozen server late (nats-io/nats.py#671), and
what was published meanwhile must be recorded as missed.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Sequence
from typing import Any, Protocol
from urllib.parse import ParseResult, unquote

import structlog
from nats.aio.subscription import Subscription

from notifier.cancellation import raise_if_cancelled
from notifier.database.connections import backoff
from notifier.nats.client import NatsClient
from notifier.nats.credentials import Credentials
from notifier.nats.payloads import SIGNATURE

CONNECT_SECONDS = 4.0
PING_SECONDS, PONG_SECONDS = 2.0, 4.0
"""How often the server must answer, and how soon."""

FLUSH_SECONDS = 2.0
STEADY_SECONDS = 10.0
"""A connection that lived this long was sound: the next attempt is made soon."""

PENDING_BYTES = 8 * 1024 * 1024
ROOM_SECONDS, ROOM_POLL_SECONDS = 3.0, 0.005
"""Bytes that may wait to be written. Beyond them `publish` waits for room: for how long, and how often it checks."""

NO_LIMIT = 1 << 40
"""Bytes that the library lets wait: at its own limit it waits without end, and ignores cancellation."""

REASON_CHARACTERS = 300
"""How much of a server's own words is logged: 32 KiB fit into one -ERR, and each attempt may bring another."""

_logger = structlog.get_logger("notifier.nats")


class Listener(Protocol):
    """Is notified of connections and messages. None of its methods may wait or raise."""

    def connected(self) -> None:
        """Commands can be sent; nothing is subscribed yet."""

    def lost(self) -> None:
        """The connection has ended, and every subscription with it."""

    def received(self, subject: str, payload: bytes, headers: bytes) -> None:
        """A message came."""


class Unusable(Exception):
    """There is no connection to NATS, or it does not answer."""


class Link:
    """One connection of a node. `servers`: their URLs, as `parse` returns them."""

    def __init__(
        self, servers: Sequence[ParseResult], credentials: Credentials | None, name: str
    ) -> None:
        self._servers = list(servers)
        self._credentials = credentials
        self._name = name
        self._context: ssl.SSLContext | None = None
        self._listeners: list[Listener] = []
        self._client: NatsClient | None = None
        self._flushing: asyncio.Task[None] | None = None
        self._reported = ""

    def add(self, listener: Listener) -> None:
        """Notifies it of all that comes from now on."""
        self._listeners.append(listener)

    @property
    def is_connected(self) -> bool:
        """Whether there is a connection."""
        return self._client is not None

    @property
    def max_payload(self) -> int:
        """Bytes that the server takes in one message, headers included."""
        return self._client.max_payload if self._client is not None else 0

    async def run(self) -> None:
        """Keeps a connection open until it is cancelled."""
        attempt = 0
        while True:
            started, server = time.monotonic(), self._servers[0]
            client = NatsClient(self._received)
            try:
                async with asyncio.timeout(CONNECT_SECONDS):
                    await self.open(client, server)
                raise_if_cancelled()
                await self._use(client, server)
            except Exception as error:  # none of NATS' failures may end the process
                self._report(server, client.reason or reason_of(error))
            finally:
                self._leave()
                await client.abort()
            raise_if_cancelled()
            attempt = 0 if time.monotonic() - started > STEADY_SECONDS else attempt + 1
            self._servers.append(self._servers.pop(0))
            await backoff(attempt)

    async def open(self, client: NatsClient, server: ParseResult) -> None:
        """Connects. Raises the exceptions of the library and the operating system."""
        options: dict[str, Any] = {}
        if server.password is not None:
            options["user"] = unquote(server.username or "")
            options["password"] = unquote(server.password)
        elif server.username:
            options["token"] = unquote(server.username)
        if self._credentials is not None:
            options["signature_cb"] = self._credentials.sign
            if jwt := self._credentials.jwt:
                options["user_jwt_cb"] = lambda: jwt
            else:
                client.use_public_key(self._credentials.public_key)
        if self._context is None:
            self._context = ssl.create_default_context()  # it reads SSL_CERT_FILE
        await client.connect(
            f"{server.scheme}://{place(server)}",
            name=self._name,
            tls=self._context,
            error_cb=client.reported,
            closed_cb=client.closed,
            allow_reconnect=False,
            max_reconnect_attempts=1,
            reconnect_time_wait=0,
            pending_size=NO_LIMIT,
            flusher_queue_size=0,  # no limit either
            **options,
        )

    async def _use(self, client: NatsClient, server: ParseResult) -> None:
        """Notifies the listeners, and pings the server until the connection ends."""
        if client.ended.is_set():
            raise Unusable(client.reason)
        self._client = client
        self._reported = ""
        _logger.info("connected to NATS", server=place(server))
        for listener in self._listeners:
            listener.connected()
        while True:
            try:
                async with asyncio.timeout(PING_SECONDS):
                    await client.ended.wait()
            except TimeoutError:
                await self._round_trip(client, PONG_SECONDS)
            else:
                raise Unusable(client.reason)

    def _leave(self) -> None:
        if self._client is None:
            return
        self._client = None
        for listener in self._listeners:
            listener.lost()

    def _report(self, server: ParseResult, reason: str) -> None:
        """Logs a failure once, until it is another one."""
        line = f"{place(server)}: {reason[:REASON_CHARACTERS]}"
        if line != self._reported:
            self._reported = line
            _logger.warning("NATS cannot be used; messages come from PostgreSQL", reason=line)

    def _received(self, subject: str, payload: bytes, headers: bytes) -> None:
        for listener in self._listeners:
            listener.received(subject, payload, headers)

    # --- for the listeners; all of them raise Unusable

    def _usable(self) -> NatsClient:
        if self._client is None or self._client.ended.is_set():
            raise Unusable("there is no connection to NATS")
        return self._client

    async def publish(self, subject: str, payload: bytes, signature: str) -> None:
        """Sends a message, or waits while too many bytes wait before it."""
        client = self._usable()
        if client.pending_data_size > PENDING_BYTES:
            await _wait_for_room(client)
        await _translated(client.publish(subject, payload, headers={SIGNATURE: signature}))

    async def subscribe(self, subject: str) -> Subscription:
        """Sends the subscription; `flush` waits until the server has it."""
        client = self._usable()
        subscription: Subscription = await _translated(client.subscribe(subject))
        return subscription

    async def unsubscribe(self, subscription: Subscription) -> None:
        """Ends a subscription."""
        self._usable()
        await _translated(subscription.unsubscribe())

    async def flush(self) -> None:
        """Waits until the server has executed all commands. Calls at the same time share a PING."""
        client = self._usable()
        if self._flushing is None:
            self._flushing = asyncio.create_task(self._flush(client))
            self._flushing.add_done_callback(_retrieve)
        await asyncio.shield(self._flushing)

    async def _flush(self, client: NatsClient) -> None:
        try:
            await asyncio.sleep(0)  # commands of the same turn of the loop come before the PING
        finally:
            self._flushing = None
        await self._round_trip(client, FLUSH_SECONDS)

    async def _round_trip(self, client: NatsClient, seconds: float) -> None:
        if not await client.answers(seconds):
            client.end("no answer in time")
        if client.ended.is_set():
            raise Unusable(client.reason)


def _retrieve(task: asyncio.Task[None]) -> None:
    """Its waiters may have been cancelled: no "never retrieved" warning."""
    if not task.cancelled():
        task.exception()


async def _wait_for_room(client: NatsClient) -> None:
    deadline = time.monotonic() + ROOM_SECONDS
    while client.pending_data_size > PENDING_BYTES:
        if time.monotonic() > deadline or client.ended.is_set():
            raise Unusable("the server is too slow")
        await asyncio.sleep(ROOM_POLL_SECONDS)


async def _translated(call: Any) -> Any:
    try:
        return await call
    except Exception as error:
        raise Unusable(reason_of(error)) from error


def place(server: ParseResult) -> str:
    """Host and port of a URL, without the user."""
    return server.netloc.rpartition("@")[2]


def reason_of(error: Exception) -> str:
    """Why NATS cannot be used, without the library's prefix."""
    if isinstance(error, TimeoutError):
        return "no answer in time"
    return str(error).removeprefix("nats: ") or type(error).__name__
