"""A NATS server, or one in between, that drops, repeats, reorders, misdirects and alters messages."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from itertools import cycle

import pytest

from tests.conftest import Connect, Serve
from tests.databases import Database
from tests.natsd import NatsServer
from tests.ports import free_port
from tests.servers import listening
from tests.service.between import Between
from tests.service.calendars import Calendar
from tests.service.test_floods import metric
from tests.service.test_nats import on_path, reach
from tests.waiting import until


class InBetween(Between):
    """Between NATS and its clients; what it does to the next message of a company is the next of `DEEDS`."""

    DEEDS = ("pass", "drop", "repeat", "hold", "misdirect", "alter", "repeat an old one")

    def __init__(self, server: int) -> None:
        super().__init__("127.0.0.1", server)
        self._deeds = cycle(self.DEEDS)
        self._held: list[bytes] = []
        self._old: list[bytes] = []
        self.port = free_port()
        self.companies: list[str] = []
        self.done: set[str] = set()
        self.is_hostile = False

    async def _attack(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            message = line
            if line.startswith((b"MSG ", b"HMSG ")):
                message += await reader.readexactly(int(line.split()[-1]) + 2)
            if self.is_hostile and b".company." in line:
                for each in self._changed(message):
                    writer.write(each)
            else:
                writer.write(message)
        raise asyncio.IncompleteReadError(b"", None)

    def _changed(self, message: bytes) -> list[bytes]:
        deed = next(self._deeds)
        self.done.add(deed)
        held, self._held = self._held, []
        self._old.append(message)
        one, other = (company.encode() for company in self.companies)
        head, _, rest = message.partition(b"\r\n")
        match deed:
            case "drop":
                return held
            case "repeat":
                return [message, *held, message]
            case "hold":
                self._held = [message]
                return held
            case "misdirect":
                subject = head.replace(one, other) if one in head else head.replace(other, one)
                return [subject + b"\r\n" + rest, *held]
            case "alter":
                return [re.sub(rb'(?<="Title":").', b"F", message), *held]
            case "repeat an old one":
                return [self._old[0], message, *held]
        return [message, *held]


@pytest.fixture
async def between(nats: NatsServer) -> AsyncIterator[InBetween]:
    between = InBetween(nats.port)
    async with listening(between.serve, between.port):
        yield between


async def test_each_client_gets_the_messages_of_its_company_all_the_same(
    database: Database, serve: Serve, connect: Connect, nats: NatsServer, between: InBetween
) -> None:
    calendar = Calendar(database)
    relay = await serve(database, nats_url=nats.url)
    node = await serve(database, nats_url=f"nats://127.0.0.1:{between.port}")
    for service in (relay, node):
        await on_path(service, "nats")
    between.companies = [await calendar.company("u1"), await calendar.company("u2")]
    clients = [
        await connect(node, f"u{n}", company) for n, company in enumerate(between.companies, 1)
    ]
    between.is_hostile = True
    for number in range(30):
        for company in between.companies:
            await database.execute(
                "INSERT INTO events (company_id, title, starts_at, ends_at) VALUES ($1, $2, now(), now())",
                company,
                f"{company} {number}",
            )
        for company in between.companies:  # what is stored together is published together
            await calendar.reaches(company, number + 2)
    between.is_hostile = False
    for client, company in zip(clients, between.companies, strict=True):
        await calendar.event(company)
        await reach(client, 32)
        titles = [each["Data"]["Title"] for each in client.messages if "Position" in each]
        assert titles[:-1] == [f"{company} {number}" for number in range(30)]
    assert between.done == set(between.DEEDS)

    async def rejections_are_counted() -> bool:  # once the node has read the key again
        return await metric(node, "notifier_nats_rejected_total") > 0

    await until(rejections_are_counted)
    assert await metric(node, "notifier_healed_messages_total") > 0
