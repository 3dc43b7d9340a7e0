"""Readers that do not read: told and cut at their cap, while all others go on."""

from __future__ import annotations

import asyncio
import json

import psutil

from tests.conftest import Connect, Serve
from tests.databases import Database
from tests.service.calendars import Calendar, positions
from tests.service.raw import Raw
from tests.service.test_floods import follow, metric
from tests.services import Service
from tests.waiting import until

NEIGHBOURS = 200
PIECE = "x" * 100_000


async def write_until(
    calendar: Calendar, company: str, service: Service, name: str, value: float
) -> int:
    """Writes big changes until a metric has that value; how many it took."""
    written = 0

    async def reached() -> bool:
        nonlocal written
        await calendar.event(company, PIECE)
        written += 1
        return await metric(service, name) == value

    await until(reached)
    return written


async def test_d1_a_reader_that_stops_reading_is_told_and_closed_with_4508(
    database: Database, serve: Serve, raw: Raw
) -> None:
    service, calendar = await serve(database), Calendar(database)
    company = await calendar.company("u1")
    slow = await raw.upgrade(service, receive_bytes=4096)
    await follow(slow, "u1", company)
    await write_until(calendar, company, service, 'notifier_closed_total{code="4508"}', 1)
    said = b""
    while (received := await slow.frame()).opcode == 1:
        said = received.payload
    assert json.loads(said)["Data"]["Code"] == 4508
    assert int.from_bytes(received.payload[:2]) == 4508
    assert await slow.ended() == b""


async def test_d1_a_reader_that_never_reads_again_is_gone_and_its_neighbours_hear_everything(
    database: Database, serve: Serve, connect: Connect, raw: Raw
) -> None:
    service, calendar = await serve(database), Calendar(database)
    company = await calendar.company("u1")
    stuck = [await raw.upgrade(service, receive_bytes=4096) for _ in range(5)]
    for each in stuck:
        await follow(each, "u1", company)
    neighbours = await asyncio.gather(*(connect(service, "u1", company) for _ in range(NEIGHBOURS)))
    process = psutil.Process(service.pid)
    files = process.num_fds()
    written = await write_until(
        calendar, company, service, 'notifier_closed_total{code="4508"}', len(stuck)
    )
    last = await calendar.event(company, "the last")
    for client in neighbours:
        heard = await client.heard(
            lambda messages: messages[-1].get("Data", {}).get("EventId") == last
        )
        assert positions(heard) == list(range(2, written + 3))

    async def gone() -> bool:
        return process.num_fds() <= files - len(stuck) + 1

    await until(gone)
    assert await metric(service, "notifier_sockets ") == NEIGHBOURS
