"""Readers that do not read: told and cut at their cap, while all others go on."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import psutil
import pytest

from tests.conftest import Serve
from tests.databases import Database
from tests.service.calendars import Calendar
from tests.service.crowd import Crowd, visit_all
from tests.service.raw import Raw, RawSocket
from tests.service.test_floods import follow, metric
from tests.services import Service
from tests.waiting import until

CAP = 24 * 1024 * 1024
PIECE = "x" * 100_000
PATIENCE = 120
"""Seconds between pings: a reader that does not read answers none, and is to be cut for its queue."""


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


async def test_d1_a_reader_that_stops_is_sent_the_reason_and_closed_with_4508(
    database: Database, serve: Serve, raw: Raw
) -> None:
    service, calendar = await serve(database, ping_seconds=PATIENCE), Calendar(database)
    company = await calendar.company("u1")
    slow = await raw.upgrade(service, receive_bytes=4096)
    await follow(slow, "u1", company)
    await write_until(calendar, company, service, 'notifier_closed_total{code="4508"}', 1)
    last = b""
    while (received := await slow.frame()).opcode == 1:
        last = received.payload
    assert json.loads(last)["Data"]["Code"] == 4508
    assert int.from_bytes(received.payload[:2]) == 4508
    assert await slow.ended() == b""


async def test_d1_a_reader_of_a_kilobyte_now_and_then_is_cut_as_well(
    database: Database, serve: Serve, raw: Raw
) -> None:
    service, calendar = await serve(database, ping_seconds=PATIENCE), Calendar(database)
    company = await calendar.company("u1")
    slow = await raw.upgrade(service, receive_bytes=4096)
    await follow(slow, "u1", company)

    async def cut() -> bool:
        await calendar.event(company, PIECE)
        await slow.read(1000)
        return await metric(service, 'notifier_closed_total{code="4508"}') == 1

    await until(cut)
    await slow.ended()


async def last(calendar: Calendar, company: str) -> int:
    """Bytes of a company's messages that are in the log."""
    size: int = await calendar.database.fetchval(
        "SELECT sum(octet_length(body::text)) FROM notifier.messages WHERE company = $1", company
    )
    return size


def in_the_kernel(service: Service, client: RawSocket) -> int:
    """Bytes on their way from a service to a client: unsent, or not read by it."""
    ports = service.port, client.port
    size = 0
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        _, here, there, _, queues, *_ = line.split()
        ends = int(here.rpartition(":")[2], 16), int(there.rpartition(":")[2], 16)
        sent, received = (int(queue, 16) for queue in queues.split(":"))
        if ends == ports:
            size += sent
        elif ends == ports[::-1]:
            size += received
    return size


async def resumed(service: Service) -> bool:
    """Whether a client is subscribed."""
    return await metric(service, 'notifier_resumes_total{recovered="true"}') == 1


async def test_d1_a_client_that_switches_companies_without_reading_is_cut(
    database: Database, serve: Serve, raw: Raw
) -> None:
    service, calendar = await serve(database, ping_seconds=PATIENCE), Calendar(database)
    first, second = await calendar.company("u1"), await calendar.company("u1")
    stuck = await raw.upgrade(service, receive_bytes=4096)
    await follow(stuck, "u1", first)

    async def piled_up() -> bool:
        await calendar.event(first, PIECE)
        # What the log does not have yet would pile up without being counted, beyond the cap.
        await database.relayed()
        return await last(calendar, first) - in_the_kernel(service, stuck) > 6 * len(PIECE)

    await until(piled_up)
    data = {"companyId": second, "after": 1, "epoch": await calendar.epoch()}
    await stuck.send_text(json.dumps({"type": "setCompany", "data": data}))
    await until(partial(resumed, service))
    await write_until(calendar, second, service, 'notifier_closed_total{code="4508"}', 1)


@pytest.mark.slow
async def test_d1_of_a_thousand_the_one_that_never_reads_is_gone_with_its_memory(
    database: Database, serve: Serve, raw: Raw, crowd: Crowd, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its 999 neighbours hear everything, in order, before, while and after it is cut."""
    # What is as large as a frame goes back to the system at once, and can be seen to.
    monkeypatch.setenv("MALLOC_MMAP_THRESHOLD_", str(len(PIECE) // 2))
    service = await serve(database, max_buffer_bytes=CAP, ping_seconds=PATIENCE)
    calendar = Calendar(database)
    company, own = await calendar.company("u1", "u2"), await calendar.company("u2")
    neighbours = crowd(999, "u1", company)
    await visit_all(neighbours, service)
    stuck = await raw.upgrade(service, receive_bytes=4096)
    await follow(stuck, "u2", own)
    process = psutil.Process(service.pid)
    files, memory = process.num_fds(), process.memory_info().rss
    # Alone with its company it piles up nearly as much as it may, and stays.
    for _ in range((CAP - 1_000_000) // len(PIECE)):
        await calendar.event(own, PIECE)

    async def nearly_full() -> bool:
        await database.relayed()  # as above
        if await last(calendar, own) - in_the_kernel(service, stuck) > CAP - 3 * len(PIECE):
            return True
        await calendar.event(own, PIECE)
        return False

    await until(nearly_full)

    async def piled_up() -> bool:
        return process.memory_info().rss > memory + CAP // 2

    await until(piled_up)
    assert await metric(service, "notifier_sockets ") == 1000
    data = {"companyId": company, "after": 2, "epoch": await calendar.epoch()}
    await stuck.send_text(json.dumps({"type": "setCompany", "data": data}))
    await until(partial(resumed, service))
    full = process.memory_info().rss
    for _ in range(20):
        await calendar.event(company, "before")
    written = 20 + await write_until(
        calendar, company, service, 'notifier_closed_total{code="4508"}', 1
    )

    async def gone() -> bool:
        return (
            process.num_fds() < files and process.memory_info().rss < full - (CAP - 2_000_000) // 2
        )

    await until(gone)
    for _ in range(20):
        await calendar.event(company, "one of the last")

    async def level() -> bool:
        return all(each.positions[-1:] == [written + 22] for each in neighbours)

    await until(level)
    for each in neighbours:
        assert each.positions == list(range(3, written + 23))
    assert await metric(service, "notifier_sockets ") == 999
    assert await metric(service, "notifier_closed_total") == 1
