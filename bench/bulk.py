"""B3, H1: very large transactions: until their messages arrive, and the delay of other companies."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from itertools import count
from typing import Any
from uuid import UUID

from websockets.asyncio.client import ClientConnection
from websockets.asyncio.client import connect as open_socket

from bench import feed, machine, service
from bench.load import load
from bench.postgres import connected, uuid
from bench.programs import BenchError
from bench.service import Service
from bench.stand import Stand

ROWS, QUICK_ROWS = 1_000_000, 100_000
EACH = 1_000
"""Rows per company in B3m: not above BULK_LIMIT, so each becomes a message."""

MANY, QUICK_MANY = 150_000, 20_000
MANY_COMPANIES = """
INSERT INTO companies (name) SELECT 'many' FROM generate_series(1, $1::int)
"""
MANY_EVENTS = """
INSERT INTO events (company_id, title, starts_at, ends_at)
SELECT id, 'new', now(), now() FROM companies WHERE name = 'many'
"""
_numbers = count(1)

ROOM = 8 * 1024**3
MOMENT = datetime(2026, 11, 23, 9, tzinfo=UTC)
SAMPLE_SECONDS = 0.05


async def copy(url: str, companies: int, rows: int) -> tuple[float, int]:
    """Seconds of the COPY with its commit, and the peak of its backend's private memory in bytes."""

    def events() -> Iterator[tuple[Any, ...]]:
        for number in range(rows):
            company = UUID(uuid(number % companies + 1))
            yield company, f"change {number}", MOMENT, MOMENT

    async with connected(url) as connection:
        backend = connection.get_server_pid()
        began = time.monotonic()
        copying = asyncio.create_task(
            connection.copy_records_to_table(
                "events",
                records=events(),
                columns=("company_id", "title", "starts_at", "ends_at"),
                timeout=300,
            )
        )
        largest = 0
        while not copying.done():
            largest = max(largest, machine.own_bytes(backend))
            await asyncio.wait([copying], timeout=SAMPLE_SECONDS)
        await copying
        return time.monotonic() - began, largest


@asynccontextmanager
async def client(target: Service, company: int) -> AsyncIterator[ClientConnection]:
    """A subscribed client."""
    async with open_socket(
        f"ws://127.0.0.1:{target.port}/", compression=None, proxy=None, max_size=None
    ) as socket:
        _, *commands = service.conversation(1, company).split("\t")
        for command in commands:
            await socket.send(command)
            answer = json.loads(await socket.recv())
            if not answer["Success"]:
                raise BenchError(f"not subscribed: {answer}")
        yield socket


async def measure(stand: Stand, names: frozenset[str]) -> None:
    rows = QUICK_ROWS if stand.quick else ROWS
    async with service.migrated(stand) as url:
        await stand.cluster.execute(
            f"UPDATE notifier.configuration SET max_log_bytes = {ROOM}", "ours"
        )
        await stand.cluster.execute(COMPANIES.format(rows // EACH), "ours")
        room = str(ROOM)
        if "B3" in names:
            async with (
                service.serving(stand, url, max_log_bytes=room) as target,
                client(target, 1) as one,
            ):
                watch = stand.watch()
                copied, backend = await copy(url, 1, rows)
                began = time.monotonic()
                message = json.loads(await one.recv())
                seconds = time.monotonic() - began
                if (message["Type"], message["Data"].get("Reason")) != ("Resync", "bulk"):
                    raise BenchError(f"unexpected message: {message['Type']}")
                stand.table.add("B3", seconds, watch.noise(), **figures(target, copied, backend))
        if "B3m" in names:
            companies = rows // EACH
            plan = service.subscribers(10, (1, companies))
            async with (
                service.serving(stand, url, max_log_bytes=room) as target,
                load(stand.load, target.port, plan, step=EACH) as clients,
            ):
                await clients.ready()
                watch = stand.watch()
                copied, backend = await copy(url, companies, rows)
                began = time.monotonic()
                async with asyncio.timeout(300):
                    await clients.until(EACH * 10)
                seconds = time.monotonic() - began
                (await clients.mark()).check()
                stand.table.add("B3m", seconds, watch.noise(), **figures(target, copied, backend))


async def measure_delay(stand: Stand, _names: frozenset[str]) -> None:
    """H1: a transaction over very many companies, and the next change of another company."""
    companies = QUICK_MANY if stand.quick else MANY
    async with service.migrated(stand) as url, connected(url) as connection:
        await connection.execute(MANY_COMPANIES, companies)
        async with service.serving(stand, url) as target, client(target, 1) as one:
            for _ in stand.rounds(2):
                watch = stand.watch()
                await connection.execute(MANY_EVENTS)
                committed = time.monotonic()
                await connection.execute(feed.ONE, next(_numbers), uuid(1))
                await one.recv()
                stand.table.add(
                    "H1", time.monotonic() - committed, watch.noise(), companies=companies
                )


COMPANIES = """
INSERT INTO companies (id, name)
SELECT lpad(to_hex(c), 32, '0')::uuid, '' FROM generate_series(101, {0}) AS c;
INSERT INTO employees (company_id, user_id, name)
SELECT lpad(to_hex(c), 32, '0')::uuid, 'user-' || u, ''
FROM generate_series(101, {0}) AS c, generate_series(1, 5) AS u
"""


def figures(target: Service, copied: float, backend: int) -> dict[str, float]:
    """The other costs of a run."""
    return {
        "copy_s": copied,
        "notifier_peak_MiB": machine.peak_bytes(target.program.pid) / 2**20,
        "writers_backend_MiB": backend / 2**20,
    }
