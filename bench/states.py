"""B1: the state of 10,000 rows to one client, and to 1,000 clients that request it at once."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

from bench import service
from bench.postgres import connected, uuid
from bench.programs import BenchError
from bench.service import Service
from bench.stand import Stand

COMPANY, ROWS, CLIENTS = 20, 10_000, 1_000
USERS = 10
"""Of the company, in the sample."""
SECONDS = 60.0
FILL = """
    INSERT INTO events (company_id, title, description, starts_at, ends_at)
    SELECT $1::uuid, 'Planning ' || n, repeat('agenda ', 10), now(), now()
    FROM generate_series(1, $2::int - (
        SELECT count(*) FROM employees WHERE company_id = $1::uuid)::int - (
        SELECT count(*) FROM events WHERE company_id = $1::uuid)::int - 1) AS n
"""

# Those of a state, of the watches and of access: a node's own go on beside them.
QUERIES = """
    SELECT coalesce(sum(calls), 0) FROM pg_stat_statements
    WHERE dbid = (SELECT oid FROM pg_database WHERE datname = current_database())
      AND query ~ '^(LOCK TABLE|WITH checkpoint|WITH RECURSIVE base|SELECT (w\\.\\*|row_to_json|position, at|ARRAY))'
"""

_END = b'{"Type":"StateEnd"'


class Client(asyncio.Protocol):
    """A WebSocket that does not look into the rows. `ends`: when StateEnd was received."""

    def __init__(self) -> None:
        self.bytes = 0
        self._transport: asyncio.Transport | None = None
        self._sought: tuple[bytes, asyncio.Future[float]] | None = None
        self._tail = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self.bytes += len(data)
        self._tail = (self._tail + data)[-400:] if len(data) < 400 else data[-400:]
        if self._sought is not None and self._sought[0] in self._tail:
            self._sought[1].set_result(time.perf_counter())
            self._sought = None

    def connection_lost(self, exc: Exception | None) -> None:
        if self._sought is not None:
            self._sought[1].set_exception(BenchError(f"a client was disconnected: {self._tail!r}"))
            self._sought = None

    async def exchange(self, sent: bytes, sought: bytes) -> float:
        """Sends, and returns the time at which the answer ended with `sought`."""
        found = asyncio.get_running_loop().create_future()
        self._tail, self._sought = b"", (sought, found)
        assert self._transport is not None
        self._transport.write(sent)
        ended: float = await found
        return ended

    def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()


def _frame(message: object) -> bytes:
    """A masked text frame of fewer than 65,536 bytes; the mask is zero."""
    body = json.dumps(message).encode()
    return b"\x81\xfe" + len(body).to_bytes(2, "big") + bytes(4) + body


REQUEST = _frame({"type": "subscribe", "data": {"companyId": uuid(COMPANY), "state": True}})


@asynccontextmanager
async def _clients(target: Service, count: int) -> AsyncIterator[list[Client]]:
    """Clients that have authenticated."""
    loop = asyncio.get_running_loop()
    found: list[Client] = []
    try:
        for number in range(count):
            _, client = await loop.create_connection(Client, "127.0.0.1", target.port)
            found.append(client)
            key = base64.b64encode(os.urandom(16))
            await client.exchange(
                b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: %b\r\n\r\n" % key,
                b"\r\n\r\n",
            )
            token = service.token(number % USERS + 1)
            await client.exchange(_frame({"type": "authenticate", "token": token}), b"ExpiresAt")
        yield found
    finally:
        for client in found:
            client.close()


async def _request(clients: Iterable[Client]) -> tuple[float, float]:
    """Seconds until the first and until the last client has its state."""
    began = time.perf_counter()
    try:
        async with asyncio.timeout(SECONDS):
            ends = await asyncio.gather(*(each.exchange(REQUEST, _END) for each in clients))
    except TimeoutError:
        raise BenchError(f"not every client has its state within {SECONDS:.0f} s") from None
    return min(ends) - began, max(ends) - began


async def measure(stand: Stand, _names: frozenset[str]) -> None:
    async with service.migrated(stand) as url:
        async with connected(url) as connection:
            await connection.execute("CREATE INDEX ON events (company_id)")
            await connection.execute("CREATE EXTENSION pg_stat_statements")
            await connection.execute("ALTER DATABASE ours SET pg_stat_statements.track = 'top'")
            await connection.execute(FILL, uuid(COMPANY), ROWS)
        for _ in stand.rounds(3):
            async with (
                service.serving(stand, url, state="on") as target,
                connected(url) as connection,
            ):
                watch = stand.watch()
                async with _clients(target, 1) as (client,):
                    await _request([client])  # opens the connection
                    received = client.bytes
                    _, seconds = await _request([client])
                    stand.table.add(
                        "B1", seconds * 1e3, watch.noise(), MB=(client.bytes - received) / 1e6
                    )
                async with _clients(target, CLIENTS) as clients:
                    before = await connection.fetchval(QUERIES)
                    first, last = await _request(clients)
                    queries = await connection.fetchval(QUERIES) - before
                    stand.table.add("B1q", float(queries), first_s=first, last_s=last)
