"""Clients that are gone without a word, and a process that stood still itself."""

from __future__ import annotations

import asyncio
import json
import signal

from tests.conftest import Connect, Serve
from tests.databases import Database
from tests.service.calendars import Calendar, positions
from tests.service.raw import PING, PONG, Raw, frame
from tests.service.test_floods import follow, metric


async def test_d2_a_client_that_answers_no_ping_is_gone_with_its_session(
    database: Database, serve: Serve, connect: Connect, raw: Raw
) -> None:
    # A client on a busy machine may need a second for its pong.
    service, calendar = await serve(database, ping_seconds=3), Calendar(database)
    company = await calendar.company("u1")
    alive = await connect(service, "u1", company)
    dead = await raw.upgrade(service)
    await follow(dead, "u1", company)
    assert await metric(service, "notifier_subscribers ") == 2
    assert await dead.code() is None
    assert await metric(service, "notifier_subscribers ") == 1
    assert await metric(service, "notifier_sockets ") == 1
    assert alive.socket.close_code is None
    await alive.quiet()


async def test_d2_only_a_matching_pong_proves_life(
    database: Database, serve: Serve, raw: Raw
) -> None:
    service = await serve(database, ping_seconds=1)
    client = await raw.upgrade(service)
    assert (await client.frame()).opcode == PING
    await client.send(frame(PONG, b"some other"))
    assert await client.code() is None


async def test_d2_a_client_that_answers_pings_lives_while_its_commands_wait(
    database: Database, serve: Serve, raw: Raw
) -> None:
    """The second command waits for the first one, and the pongs behind it are not read."""
    service, calendar = await serve(database, state="on", ping_seconds=1), Calendar(database)
    company = await calendar.company("u1")
    client = await raw.upgrade(service)
    await follow(client, "u1", company)
    writer = await database.connect()
    await writer.execute("BEGIN; LOCK TABLE companies IN ACCESS EXCLUSIVE MODE")
    subscribe = {"type": "subscribe", "data": {"companyId": company, "state": True}}
    await client.send_text(json.dumps(subscribe))
    await database.blocked()
    await client.send_text(json.dumps({"type": "ping"}))
    pings = 0
    while pings < 4:
        message = await client.frame()
        if message.opcode == PING:
            pings += 1
            await client.send(frame(PONG, message.payload))
    await writer.execute("ROLLBACK")
    while b'"Pong"' not in (message := await client.frame()).payload:
        if message.opcode == PING:
            await client.send(frame(PONG, message.payload))


async def test_d17_a_process_that_stood_still_does_not_blame_its_clients(
    database: Database, serve: Serve, connect: Connect
) -> None:
    service, calendar = await serve(database, ping_seconds=2), Calendar(database)
    company = await calendar.company("u1")
    clients = [await connect(service, "u1", company) for _ in range(3)]
    service.send(signal.SIGSTOP)
    for _ in range(300):
        await calendar.event(company)
    await asyncio.sleep(8)  # the fault's own length: several times what a pong may take
    service.send(signal.SIGCONT)
    for client in clients:
        arrived = await client.received(lambda messages: messages[-1].get("Position") == 301)
        assert positions(arrived) == list(range(2, 302))
        await client.send({"type": "ping"})
        await client.next("Pong")
    assert await metric(service, "notifier_closed_total") == 0
    assert await metric(service, "notifier_loop_delay_seconds_sum") > 3
    assert "the event loop was blocked" in service.log()
