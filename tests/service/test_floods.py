"""Clients that would exhaust memory, time or files are closed, and disturb no other client."""

from __future__ import annotations

import asyncio
import json
import resource
from contextlib import suppress
from itertools import product

import psutil
import pytest
from websockets.exceptions import InvalidHandshake

from notifier.transport.refusals import EXPLANATIONS, Reason
from tests.clients import Client
from tests.conftest import Connect, Serve
from tests.databases import Database
from tests.service.calendars import Calendar
from tests.service.crowd import Crowd
from tests.service.raw import (
    CONT,
    PING,
    PONG,
    TEXT,
    Raw,
    RawSocket,
    frame,
    handshake,
)
from tests.services import Service, token
from tests.waiting import until

SILENT = 2000
MANY = min(10_000, resource.getrlimit(resource.RLIMIT_NOFILE)[1] // 2)
"""As many as there may be files: those of the clients are in this process."""


async def metric(service: Service, name: str) -> float:
    """The sum of a metric over its labels; `name` may end with some of them."""
    lines = (await service.get("/metrics")).text.splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(name))


async def follow(client: RawSocket, user: str, company: str) -> None:
    """Authenticates and follows the company."""
    await client.send_text(json.dumps({"type": "authenticate", "token": token(user)}))
    await client.send_text(json.dumps({"type": "setCompany", "data": {"companyId": company}}))
    for _ in range(2):
        assert b'"Success":true' in (await client.frame()).payload


@pytest.fixture
async def witness(service: Service, calendar: Calendar, connect: Connect) -> tuple[Client, str]:
    """A client that follows a company, and that company."""
    company = await calendar.company("witness")
    return await connect(service, "witness", company), company


async def disturbed(calendar: Calendar, witness: tuple[Client, str]) -> None:
    """The witness hears of a change as before."""
    client, company = witness
    event = await calendar.event(company)
    assert (await client.expect("EventCreated"))["Data"]["EventId"] == event


# --- frames that say nothing


async def flood(client: RawSocket, opening: bytes, repeated: bytes) -> int | None:
    """Sends it 50,000 times; the code that it was closed with."""
    sending = asyncio.create_task(client.send(opening + repeated * 50_000))
    code = await client.code()
    await client.drop()
    await sending
    return code


@pytest.mark.parametrize(
    "repeated",
    [frame(PING), frame(PING, b"x" * 125), frame(PONG, b"x" * 125)],
    ids=["pings", "long pings", "pongs"],
)
async def test_d10_pings_and_pongs_without_end_are_closed_with_4429(
    service: Service, calendar: Calendar, witness: tuple[Client, str], raw: Raw, repeated: bytes
) -> None:
    assert await flood(await raw.upgrade(service), b"", repeated) == 4429
    await disturbed(calendar, witness)


@pytest.mark.parametrize(
    "repeated",
    [
        frame(CONT, fin=False),
        frame(CONT, b"x", fin=False),
        frame(CONT, b"x", fin=False) + frame(PING),
    ],
    ids=["empty", "of a byte", "with pings between"],
)
async def test_d5_fragments_without_end_are_closed_with_4429(
    service: Service, calendar: Calendar, witness: tuple[Client, str], raw: Raw, repeated: bytes
) -> None:
    client = await raw.upgrade(service)
    assert await flood(client, frame(TEXT, fin=False), repeated) == 4429
    await disturbed(calendar, witness)


async def test_d5_fragments_that_never_end_are_no_message(
    database: Database, serve: Serve, raw: Raw
) -> None:
    """A client that sends only fragments has sent no message, and is not authenticated in time."""
    service = await serve(database, auth_timeout_seconds=0.5)
    client = await raw.upgrade(service)
    await client.send(frame(TEXT, b'{"type": "ping"', fin=False) + frame(CONT, b"}", fin=False))
    disconnect = json.loads((await client.frame()).payload)
    assert (disconnect["Type"], disconnect["Data"]["Code"]) == ("Disconnect", 4408)
    assert await client.code() == 4408


async def test_d10_pings_whose_pongs_are_not_read_take_no_memory(
    service: Service, calendar: Calendar, witness: tuple[Client, str], raw: Raw
) -> None:
    before = psutil.Process(service.pid).memory_info().rss
    for _ in range(20):
        client = await raw.upgrade(service, receive_bytes=4096)
        await client.send(frame(PING, b"x" * 125) * 20_000)
    assert psutil.Process(service.pid).memory_info().rss - before < 10_000_000
    await raw.drop()
    await disturbed(calendar, witness)


async def test_d11_messages_without_end_are_closed_with_4429(
    service: Service, calendar: Calendar, witness: tuple[Client, str], raw: Raw
) -> None:
    client = await raw.upgrade(service)
    sending = asyncio.create_task(client.send(frame(TEXT, b'{"type": "ping"}') * 50_000))
    assert await client.code() == 4429
    await client.drop()
    await sending
    await disturbed(calendar, witness)


async def test_d11_empty_messages_without_end_are_closed_with_4400(
    service: Service, raw: Raw
) -> None:
    client = await raw.upgrade(service)
    sending = asyncio.create_task(client.send(frame(TEXT) * 50_000))
    assert await client.code() == 4400
    await client.drop()
    await sending


async def test_d11_deep_and_long_json_does_no_harm(
    service: Service, calendar: Calendar, witness: tuple[Client, str], connect: Connect
) -> None:
    client = await connect(service, "u1")
    for text in (
        "[" * 65_000,
        '{"a":' * 13_000,
        "9" * 65_000,
        "-" * 65_000,
        '"' + "\\u0000" * 10_000,
    ):
        await client.send(text)
        assert (await client.expect("Error"))["Error"]["Code"] == "malformed"
    await disturbed(calendar, witness)


# --- before the handshake


@pytest.mark.slow
async def test_d3_a_silent_connection_is_ended(
    service: Service, calendar: Calendar, witness: tuple[Client, str], raw: Raw
) -> None:
    """The deadline is ten seconds: one test for all that it is for."""
    silent = [await raw.connect(service) for _ in range(SILENT)]
    half = [await raw.connect(service) for _ in range(3)]
    await half[0].send(handshake()[:-2])
    await half[1].send(b"P")
    await half[2].send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\n")
    assert " 405 " in await half[2].head()
    later = await raw.connect(service)
    await later.send(b"GET /livez HTTP/1.1\r\nHost: a\r\n\r\nGET /livez HTTP/1.1\r\nHost: ")
    assert " 200 " in await later.head()
    slow = await raw.connect(service)
    dripping = asyncio.create_task(drip(slow))
    await disturbed(calendar, witness)
    for client in (*silent, *half, later, slow):
        await client.ended()
    await disturbed(calendar, witness)
    dripping.cancel()


async def drip(client: RawSocket) -> None:
    """A head of a byte a second, that takes minutes."""
    for byte in handshake():
        await client.send(bytes([byte]))
        await asyncio.sleep(1)  # the fault's own rhythm


async def test_d3_a_head_without_end_is_refused(service: Service, raw: Raw) -> None:
    beginnings = (
        b"GET /",
        b"GET / HTTP/1.1\r\nHost: a\r\nX: ",
        b"GET / HTTP/1.1\r\nHost: a\r\n",
    )
    for beginning, size in product(beginnings, (100_000, 10_000_000)):
        client = await raw.connect(service)
        sending = asyncio.create_task(client.send(beginning + b"x" * size))
        assert (await client.head())[:12] in {"HTTP/1.1 431", "HTTP/1.1 400", ""}
        await client.ended()
        await sending


async def test_d3_a_head_of_64_kib_is_waited_for_and_a_byte_more_is_refused(
    service: Service, raw: Raw
) -> None:
    client = await raw.connect(service)
    beginning = b"GET /livez HTTP/1.1\r\nHost: a\r\nX: "
    await client.send(beginning + b"x" * (64 * 1024 - len(beginning)))
    await client.send(b"x")
    assert (await client.head()).startswith("HTTP/1.1 431 ")
    assert await client.ended() == f"{EXPLANATIONS[Reason.TOO_LARGE]}\n".encode()


@pytest.mark.parametrize(
    "headers", ["X: y\r\n" * 12_000, f"X: {'y' * 66_000}\r\n"], ids=["too many", "too long"]
)
async def test_d3_a_handshake_with_too_much_in_it_is_refused(
    service: Service, raw: Raw, headers: str
) -> None:
    client = await raw.connect(service)
    await client.send(handshake(headers))
    assert (await client.head()).startswith("HTTP/1.1 431 ")
    await client.ended()


async def test_a_client_that_leaves_during_the_handshake_leaves_nothing_behind(
    service: Service, raw: Raw
) -> None:
    for size in range(0, len(handshake()), 7):
        client = await raw.connect(service)
        await client.send(handshake()[:size])
        await client.drop()
    for _ in range(50):
        client = await raw.connect(service)
        await client.send(handshake())
        await client.drop()

    async def is_empty() -> bool:
        return await metric(service, "notifier_sockets ") == 0

    await until(is_empty)


# --- many


async def test_d4_three_hundred_that_die_at_once_leave_nothing(
    service: Service, calendar: Calendar, witness: tuple[Client, str], raw: Raw
) -> None:
    company = await calendar.company("u1")
    clients = await asyncio.gather(*(raw.upgrade(service) for _ in range(300)))
    await asyncio.gather(*(follow(client, "u1", company) for client in clients))
    process = psutil.Process(service.pid)
    files = process.num_fds()
    assert await metric(service, "notifier_subscribers ") == 301
    await calendar.events(company, 10)
    await asyncio.gather(*(client.drop() for client in clients))

    async def only_the_witness() -> bool:
        return await metric(service, "notifier_subscribers ") == 1

    await until(only_the_witness)
    assert process.num_fds() < files - 290
    await disturbed(calendar, witness)


@pytest.mark.slow
@pytest.mark.timeout(600)
async def test_d4_ten_thousand_come_at_once_stay_and_die_at_once(
    database: Database, serve: Serve, connect: Connect, crowd: Crowd
) -> None:
    service = await serve(
        database,
        max_connections_per_user=MANY,
        max_connections_per_address=0,
        auth_timeout_seconds=600,  # a busy machine needs minutes for ten thousand
        ping_seconds=600,
    )
    calendar = Calendar(database)
    company, own = await calendar.company("u1"), await calendar.company("witness")
    witness = await connect(service, "witness", own)
    process = psutil.Process(service.pid)
    files = process.num_fds()
    members = crowd(MANY, "u1", company)
    await asyncio.gather(*(each.insist(service) for each in members))
    assert await metric(service, "notifier_subscribers ") == MANY + 1
    await calendar.event(company)

    async def has_received() -> bool:
        return all(each.positions == [2] for each in members)

    await until(has_received)
    for each in members:
        each.drop(reset=True)

    async def is_empty() -> bool:
        return (
            await metric(service, "notifier_subscribers ") == 1 and process.num_fds() <= files + 1
        )

    await until(is_empty)
    await disturbed(calendar, (witness, own))
    later = await connect(service, "u1", company)
    await later.quiet()


async def test_no_user_has_more_sockets_than_allowed(
    database: Database, serve: Serve, connect: Connect
) -> None:
    service = await serve(database, max_connections_per_user=2, max_connections=4)
    for _ in range(2):
        await connect(service, "u1")
    third = await connect(service)
    await third.send({"type": "authenticate", "token": token("u1")})
    assert await third.closed() == 4429
    for _ in range(2):
        await connect(service, "u2")
    fifth = await connect(service)
    assert await fifth.closed() == 4429


async def test_d16_without_a_file_to_spare_the_old_stay_and_the_new_come_later(
    database: Database, serve: Serve, connect: Connect, raw: Raw
) -> None:
    service = await serve(database)
    calendar = Calendar(database)
    company = await calendar.company("u1")
    old = await connect(service, "u1", company)
    process = psutil.Process(service.pid)
    room = process.num_fds() + 5
    process.rlimit(psutil.RLIMIT_NOFILE, (room, room))
    many = [await raw.connect(service) for _ in range(20)]
    await calendar.event(company)
    await old.expect("EventCreated")
    for client in many:
        await client.drop()

    async def another() -> Client | None:
        with suppress(InvalidHandshake, OSError):
            return await connect(service, "u1", company)
        return None

    new = await until(another)
    assert new is not None
    await calendar.event(company)
    await new.expect("EventCreated")
    await old.expect("EventCreated")
