"""The writers: plain SQL, in a closed loop or at a fixed pace."""

from __future__ import annotations

import asyncio
import time
from itertools import count

from bench.load import Load
from bench.postgres import connected, uuid

ONE = "UPDATE events SET title = 'change ' || $1::bigint WHERE id = $2::uuid"
ALL_OF_A_COMPANY = "UPDATE events SET title = 'change ' || $1::bigint WHERE company_id = $2::uuid"
EVENTS = 100
"""Events per company of the sample; the last one of company n has number 100 n."""

_numbers = count(1)  # each is used once: an update that changes nothing sends no message


def event_of(company: int, number: int) -> str:
    """An event of the company; consecutive numbers cycle through its hundred events."""
    return uuid((company - 1) * EVENTS + number % EVENTS + 1)


async def one_by_one(
    url: str, load: Load, *, copies: int, window: int = 20, company: int = 1
) -> None:
    """Endless single-row transactions: at most `window` changes in flight to `copies` sockets."""
    async with connected(url) as connection:
        update = await connection.prepare(ONE)
        for made in count(1):
            await load.until((made - window) * copies)
            number = next(_numbers)
            await update.fetch(number, event_of(company, number))


async def in_bursts(
    url: str, load: Load, *, copies: int, window: int = 2, company: int = 1
) -> None:
    """Endless transactions of a hundred rows: at most `window` of them in flight."""
    async with connected(url) as connection:
        update = await connection.prepare(ALL_OF_A_COMPANY)
        for made in count(1):
            await load.until((made - window) * EVENTS * copies)
            await update.fetch(next(_numbers), uuid(company))


async def in_companies(
    url: str, load: Load, *, companies: int, seconds: float, window: int = 80, writers: int = 4
) -> int:
    """Transactions of a hundred rows, in each company in turn, with one socket per company.

    Returns the number of changes made.
    """
    turns = count(1)
    until = time.monotonic() + seconds
    done = 0

    async def write() -> None:
        nonlocal done
        async with connected(url) as connection:
            update = await connection.prepare(ALL_OF_A_COMPANY)
            while time.monotonic() < until:
                turn = next(turns)
                await load.until((turn - window) * EVENTS)
                await update.fetch(next(_numbers), uuid(turn % companies + 1))
                done += EVENTS

    async with asyncio.TaskGroup() as group:
        for _ in range(writers):
            group.create_task(write())
    return done


async def paced(
    url: str, *, per_second: float, changes: int, writers: int = 1, company: int = 1
) -> dict[int, int]:
    """Single-row transactions at a fixed rate: number → time of its commit's acknowledgement (ns)."""
    turns = iter(range(1, changes + 1))
    began = time.monotonic()
    acknowledged: dict[int, int] = {}

    async def write() -> None:
        async with connected(url) as connection:
            update = await connection.prepare(ONE)
            for turn in turns:
                await asyncio.sleep(began + turn / per_second - time.monotonic())
                number = next(_numbers)
                await update.fetch(number, event_of(company, number))
                acknowledged[number] = time.monotonic_ns()

    async with asyncio.TaskGroup() as group:
        for _ in range(writers):
            group.create_task(write())
    return acknowledged
