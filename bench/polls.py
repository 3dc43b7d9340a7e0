"""P1, P1c, P1a: many long polls that wait: the server's memory and CPU for each, and the time until all have an answer."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

from bench import service
from bench.postgres import connected, uuid
from bench.programs import BenchError
from bench.service import Service
from bench.stand import Stand

COMPANY, USERS = 1, 5_000
WARM, WAITING = 100, 9_900
WAIT_SECONDS = 55
IDLE_SECONDS = 10.0
SETTLE_SECONDS = 1.0
SECONDS = 60.0

CHANGE = "UPDATE events SET title = title || '.' WHERE id = (SELECT id FROM events WHERE company_id = $1::uuid LIMIT 1)"


class Poll(asyncio.Protocol):
    """One request on a connection of its own. `ended`: when its response was complete."""

    def __init__(self, request: bytes) -> None:
        self.ended: asyncio.Future[float] = asyncio.get_running_loop().create_future()
        self._request = request
        self._received = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, end, body = self._received.partition(b"\r\n\r\n")
        length = head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]
        if not end or len(body) < int(length) or self.ended.done():
            return
        if head.startswith(b"HTTP/1.1 200 ") and b'"Type":"EventUpdated"' in body:
            self.ended.set_result(time.perf_counter())
        else:
            self.ended.set_exception(BenchError(f"not the change: {self._received!r}"))

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.ended.done():
            self.ended.set_exception(BenchError(f"a poll was disconnected: {self._received!r}"))

    def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()


async def _present(target: Service) -> str:
    """The query of a request after the company's present position."""
    headers = {"Authorization": f"Bearer {service.token(1)}"}
    page = (await service.get(target.port, f"/companies/{uuid(COMPANY)}/messages", headers)).json()
    return f"after={page['Position']}&epoch={page['Epoch']}&wait={WAIT_SECONDS}"


async def _count(target: Service) -> int:
    """How many polls are waiting."""
    for line in (await service.get(target.port, "/metrics")).text.splitlines():
        if line.startswith("notifier_subscribers "):
            return int(float(line.split()[1]))
    raise BenchError("there is no metric notifier_subscribers")


@asynccontextmanager
async def _waiting(target: Service, query: str, count: int) -> AsyncIterator[list[Poll]]:
    """So many more polls, of which each one waits at the server."""
    loop, polls, before = asyncio.get_running_loop(), list[Poll](), await _count(target)
    path = f"/companies/{uuid(COMPANY)}/messages?{query}"
    try:
        for number in range(count):
            request = (
                f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: application/json\r\n"
                f"Authorization: Bearer {service.token(number % USERS + 1)}\r\n\r\n"
            ).encode()
            _, poll = await loop.create_connection(partial(Poll, request), "127.0.0.1", target.port)
            polls.append(poll)
        while await _count(target) < before + count:
            target.program.check()
            if ended := [each for each in polls if each.ended.done()]:
                ended[0].ended.result()
                raise BenchError("a poll has ended before all were waiting")
            await asyncio.sleep(0.05)
        yield polls
    finally:
        for poll in polls:
            poll.close()


async def measure(stand: Stand, _names: frozenset[str]) -> None:
    async with service.migrated(stand) as url:
        for _ in stand.rounds(1):
            async with (
                service.serving(stand, url, max_connections_per_address="0") as target,
                connected(url) as connection,
            ):
                query = await _present(target)
                async with _waiting(target, query, WARM) as first:
                    await asyncio.sleep(SETTLE_SECONDS)
                    memory, opening = target.program.resident_bytes(), target.program.cpu_seconds()
                    async with _waiting(target, query, WAITING) as others:
                        opening = target.program.cpu_seconds() - opening
                        await asyncio.sleep(SETTLE_SECONDS)
                        memory = target.program.resident_bytes() - memory
                        watch, idle = stand.watch(), target.program.cpu_seconds()
                        await asyncio.sleep(IDLE_SECONDS)
                        idle = target.program.cpu_seconds() - idle
                        noise, answering = watch.noise(), target.program.cpu_seconds()
                        began = time.perf_counter()
                        await connection.execute(CHANGE, uuid(COMPANY))
                        async with asyncio.timeout(SECONDS):
                            ends = await asyncio.gather(*(each.ended for each in first + others))
                        answering = target.program.cpu_seconds() - answering
                stand.table.add(
                    "P1",
                    memory / WAITING / 1024,
                    opened_µs=opening / WAITING * 1e6,
                )
                stand.table.add("P1c", idle / IDLE_SECONDS / (WARM + WAITING) * 1e6, noise)
                stand.table.add(
                    "P1a",
                    max(ends) - began,
                    answered_µs=answering / (WARM + WAITING) * 1e6,
                    first_s=min(ends) - began,
                )
