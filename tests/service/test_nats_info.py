"""A NATS server, or one in between, whose INFO has other values than the protocol has."""

from __future__ import annotations

import asyncio
import json

import pytest

from tests.conftest import Connect, Serve
from tests.databases import Database
from tests.natsd import NatsServer
from tests.servers import listening
from tests.service.between import Between
from tests.service.calendars import Calendar
from tests.waiting import until


class Info(Between):
    """Replaces properties of each INFO; `more` are sent behind the first PONG."""

    def __init__(self, server: int, changes: dict[str, object], more: bytes = b"") -> None:
        super().__init__("127.0.0.1", server)
        self._changes, self._more = changes, more
        self.sent = asyncio.Event()

    async def _attack(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        more = self._more
        while line := await reader.readline():
            if line.startswith(b"INFO "):
                line = b"INFO %b\r\n" % json.dumps(json.loads(line[5:]) | self._changes).encode()
            if line.startswith((b"MSG ", b"HMSG ")):
                line += await reader.readexactly(int(line.split()[-1]) + 2)
            writer.write(line)
            if line.startswith(b"PONG") and more:
                writer.write(more)
                more = b""
                self.sent.set()
        raise asyncio.IncompleteReadError(b"", None)


@pytest.mark.parametrize("size", [None, "1048576", [], 1.5, -1])
async def test_a_node_survives_a_server_that_names_no_size_of_messages(
    database: Database, serve: Serve, connect: Connect, nats: NatsServer, size: object
) -> None:
    between = Info(nats.port, {"max_payload": size})
    async with listening(between.serve) as port:
        calendar = Calendar(database)
        service = await serve(database, nats_url=f"nats://127.0.0.1:{port}")
        company = await calendar.company("u1")
        client = await connect(service, "u1", company)

        async def is_refused() -> bool:
            return "NATS cannot be used" in service.log()

        await until(is_refused)
        await calendar.event(company)
        await client.expect("EventCreated")
        await service.ready()


async def test_servers_that_a_server_names_do_not_hold_up_a_node(
    database: Database, serve: Serve, connect: Connect, nats: NatsServer
) -> None:
    urls = [f"10.1.{n // 250}.{n % 250}:4222" for n in range(30_000)]
    line = b"INFO %b\r\n" % json.dumps({"connect_urls": urls}).encode()
    between = Info(nats.port, {}, line * 3)
    async with listening(between.serve) as port:
        calendar = Calendar(database)
        service = await serve(database, nats_url=f"nats://127.0.0.1:{port}")
        await between.sent.wait()
        company = await calendar.company("u1")
        client = await connect(service, "u1", company)
        await calendar.event(company)
        await client.expect("EventCreated")
        assert "the event loop was blocked" not in service.log()


async def test_the_words_of_a_server_that_refuses_a_node_are_logged_in_part(
    database: Database, serve: Serve
) -> None:
    """The library takes a line of up to 32 KiB."""

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b'INFO {"max_payload": 1048576}\r\n')
        await reader.readline()
        writer.write(b"-ERR 'too %b'\r\n" % (b"much" * 5_000))
        await reader.read()

    async with listening(refuse) as port:
        service = await serve(database, nats_url=f"nats://127.0.0.1:{port}")

        async def is_reported() -> bool:
            return "too much" in service.log()

        await until(is_reported)
        assert max(map(len, service.log().splitlines())) < 1000
