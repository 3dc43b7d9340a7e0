"""NOTIFIER_DEFLATE: off unless asked for; then compressed once for all who take it."""

from __future__ import annotations

import zlib

import pytest

from tests.conftest import Connect, Serve
from tests.databases import Database
from tests.service.calendars import Calendar, positions
from tests.service.raw import TEXT, Raw, frame, handshake
from tests.services import Service

OFFER = "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n"


@pytest.fixture
async def deflating(database: Database, serve: Serve) -> Service:
    return await serve(database, deflate="on")


async def test_deflate_is_only_negotiated_when_offered(service: Service, raw: Raw) -> None:
    socket = await raw.connect(service)
    await socket.send(handshake(OFFER))
    head = await socket.head()
    assert head.startswith("HTTP/1.1 101 ")
    assert "extensions" not in head.lower()


async def test_it_is_agreed_to_without_context(deflating: Service, raw: Raw) -> None:
    socket = await raw.connect(deflating)
    await socket.send(handshake(OFFER))
    head = await socket.head()
    for word in ("server_no_context_takeover", "client_no_context_takeover"):
        assert word in head


async def test_clients_with_and_without_deflate_receive_the_same(
    deflating: Service, database: Database, connect: Connect
) -> None:
    calendar = Calendar(database)
    company = await calendar.company("u1")
    packed = await connect(deflating, "u1", company, compression="deflate")
    plain = await connect(deflating, "u1", company, compression=None)
    await calendar.events(company, 300, "x" * 500)
    late = await connect(deflating, "u1", company, compression="deflate")
    await late.set_company(company, 1, late.epoch)
    for client in (packed, plain, late):
        await client.received(lambda messages: messages[-1].get("Position") == 301)
    assert positions(packed.messages) == list(range(2, 302))
    assert [m for m in packed.messages if "Position" in m] == [
        m for m in plain.messages if "Position" in m
    ]


async def test_d6_a_bomb_is_closed_with_1009(deflating: Service, raw: Raw) -> None:
    socket = await raw.connect(deflating)
    await socket.send(handshake(OFFER))
    await socket.head()
    packer = zlib.compressobj(wbits=-12)
    bomb = (packer.compress(b" " * 10_000_000) + packer.flush(zlib.Z_SYNC_FLUSH))[:-4]
    await socket.send(frame(TEXT, bomb, rsv=0b100))
    assert await socket.code() == 1009
