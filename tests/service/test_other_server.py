"""The same app under a server that knows nothing of our wire: everything goes through ASGI's `send`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
import uvicorn
from prometheus_client import REGISTRY
from websockets.exceptions import InvalidStatus

from notifier.node import Node
from notifier.server import bind
from notifier.settings import load
from tests.conftest import Connect
from tests.databases import Database
from tests.service.calendars import Calendar, positions
from tests.services import SECRET, token
from tests.waiting import until

PIECE = "x" * 100_000


@pytest.fixture
async def url(database: Database) -> AsyncIterator[str]:
    settings = load(
        {},
        database_url=database.dsn,
        jwt_secret=SECRET,
        allowed_origins="https://app.example",
        max_buffer_bytes=1_000_000,
    )
    node = Node(settings)
    listening = bind("127.0.0.1", 0)
    server = uvicorn.Server(
        uvicorn.Config(node.app(), ws="websockets-sansio", lifespan="off", log_config=None)
    )
    running = [
        asyncio.create_task(node.run()),
        asyncio.create_task(server._serve(sockets=[listening])),
    ]

    async def ready() -> bool:
        return node.health.reason() is None

    await until(ready)
    yield f"ws://127.0.0.1:{listening.getsockname()[1]}/"
    await node.drain()
    server.should_exit = server.force_exit = True
    await running[1]
    running[0].cancel()
    await asyncio.wait(running)


async def test_changes_replays_and_company_switches_come_as_they_do_on_our_own_wire(
    database: Database, url: str, connect: Connect
) -> None:
    calendar = Calendar(database)
    first, second = await calendar.company("u1"), await calendar.company("u1")
    client = await connect(url, "u1", first)
    await calendar.events(first, 300)
    arrived = await client.received(lambda messages: messages[-1].get("Position") == 301)
    assert positions(arrived) == list(range(2, 302))
    again = await connect(url, "u1", first, 0, client.epoch)
    arrived = await again.received(lambda messages: messages[-1].get("Position") == 301)
    assert positions(arrived) == list(range(1, 302))
    await again.set_company(second)
    await calendar.event(first, "not followed")
    await calendar.event(second, "followed")
    assert (await again.next("EventCreated"))["Data"]["Title"] != "not followed"
    assert again.messages[-1]["Data"]["Title"] == "followed"


async def test_close_codes_are_the_same(url: str, connect: Connect) -> None:
    binary = await connect(url, "u1")
    await binary.send(b"{}")
    assert await binary.closed() == 1003
    assert binary.messages[-1]["Data"]["Code"] == 1003
    forger = await connect(url)
    assert not (await forger.authenticate(token="x"))["Success"]
    assert await forger.closed() == 4401
    other = await connect(url, "u1")
    await other.send({"type": "authenticate", "token": token("u2")})
    assert await other.closed() == 4409
    talker = await connect(url)
    for _ in range(101):
        await talker.send({"type": "ping"})
    assert await talker.closed() == 4429
    big = await connect(url)
    await big.send("x" * 70_000)
    assert await big.closed() == 1009


async def test_a_foreign_origin_is_refused_in_the_handshake(url: str, connect: Connect) -> None:
    with pytest.raises(InvalidStatus) as refused:
        await connect(url, origin="https://evil.example")
    assert refused.value.response.status_code == 403


async def test_d1_a_slow_reader_is_cut_and_its_neighbour_goes_on(
    database: Database, url: str, connect: Connect
) -> None:
    calendar = Calendar(database)
    company = await calendar.company("u1")
    slow = await connect(url, "u1", company, max_queue=1)
    neighbour = await connect(url, "u1", company)
    slow.socket.transport.pause_reading()
    position, before = 1, gauge()

    async def cut() -> bool:
        nonlocal position
        await calendar.event(company, PIECE)
        position += 1
        await neighbour.received(lambda messages: messages[-1].get("Position") == position)
        return gauge() > before

    await until(cut)
    slow.socket.transport.resume_reading()
    assert await slow.closed() == 4508
    assert positions(neighbour.messages) == list(range(2, position + 1))


def gauge() -> float:
    """How many readers were too slow, in all tests of this process."""
    return REGISTRY.get_sample_value("notifier_closed_total", {"code": "4508"}) or 0
