"""The Python client over WebSocket, server-sent events and long polls, and through proxies that allow only some."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from notifier.client import (
    ArrivalError,
    Client,
    Message,
    Recovered,
    Report,
    Resync,
    Skipped,
    Status,
    connect,
)
from notifier.client import transports as ladder
from tests.conftest import Serve
from tests.databases import Database
from tests.http_proxy import HttpProxy
from tests.servers import listening
from tests.service.calendars import Calendar
from tests.services import Service, token
from tests.waiting import until

QUICK: dict[str, Any] = {"min_delay": 0.05, "max_delay": 0.2}


class Taken:
    """What a client has reported, taken by a task of its own."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.reports: list[Report] = []

    async def take(self) -> None:
        async for report in self.client:
            self.reports.append(report)

    def of(self, kind: type[Report], company: str) -> list[Any]:
        return [each for each in self.reports if type(each) is kind and each.company == company]

    def positions(self, company: str) -> list[int]:
        return [each.position for each in self.of(Message, company)]

    async def has(self, condition: Callable[[], object]) -> None:
        async def holds() -> bool:
            return bool(condition())

        await until(holds)

    async def has_messages(self, company: str, position: int) -> None:
        """Waits for the message at a position; those before it must be there, in order."""
        await self.has(lambda: position in self.positions(company))
        found = self.positions(company)
        assert found == list(range(found[0], found[0] + len(found)))


@asynccontextmanager
async def following(
    url: str, company: str | None, user: str = "u1", **options: Any
) -> AsyncIterator[Taken]:
    """A client whose reports are taken."""
    async with connect(url, lambda: token(user), company, **{**QUICK, **options}) as client:
        taken = Taken(client)
        taking = asyncio.create_task(taken.take())
        yield taken
        taking.cancel()


@pytest.fixture
async def proxy(service: Service) -> AsyncIterator[HttpProxy]:
    async with HttpProxy(service.port) as proxy:
        yield proxy


@pytest.mark.parametrize("transport", ["websocket", "sse", "poll"])
async def test_each_transport_has_the_same_reports_and_proofs(
    proxy: HttpProxy, calendar: Calendar, transport: str
) -> None:
    company, other = await calendar.company("u1", "u2"), await calendar.company("u1")
    async with following(proxy.url, company, transport=transport) as taken:
        client = taken.client
        mine = client.subscribe(other, where={"Event": {"Title": ["mine"]}})
        await taken.has(lambda: taken.of(Resync, company) and taken.of(Resync, other))
        assert client.transport == transport
        (start,) = taken.of(Resync, company)
        assert (start.reason, start.position) == ("start", 2)
        assert start.at is not None
        await calendar.event(company, title="one")
        await calendar.event(other, title="other")
        await calendar.event(other, title="mine")
        await taken.has_messages(company, 3)
        await taken.has_messages(other, 3)
        assert taken.of(Message, company)[0].data["Title"] == "one"
        assert taken.of(Message, company)[0].text.startswith(
            '{"Type":"EventCreated","Data":{"EventId":"'
        )
        assert [each.position for each in taken.of(Skipped, other)] == [2]

        before = len(taken.reports)
        proxy.cut()
        await calendar.event(company, title="two")
        await taken.has_messages(company, 4)
        # A poll that was not under way has lost nothing.
        assert transport == "poll" or taken.of(Recovered, company)
        assert not [each for each in taken.reports[before:] if isinstance(each, Resync)]

        tx = await calendar.database.fetchval(
            "WITH one AS (UPDATE events SET title = 'three' WHERE company_id = $1::uuid AND title = 'two')"
            " SELECT pg_current_xact_id()::text",
            company,
        )
        assert await client.arrived(tx) == 5
        with pytest.raises(ArrivalError) as late:
            await mine.arrived(2**40)
        assert late.value.code == ("unknown_tx" if transport == "websocket" else "timeout")

        mine.unsubscribe()
        await calendar.event(other, title="mine")
        await calendar.database.execute(
            "DELETE FROM employees WHERE company_id = $1::uuid AND user_id = 'u1'", company
        )
        await taken.has(lambda: client.status.reason == "revoked")
        assert len(taken.positions(other)) == 1
        unknown = client.subscribe("00000000-0000-0000-0000-000000000000")
        await taken.has(lambda: unknown.status.reason == "company_forbidden")


async def test_it_uses_what_the_network_lets_through_and_returns_to_a_websocket(
    proxy: HttpProxy, calendar: Calendar, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ladder, "BLOCKED_SECONDS", 0.2)
    monkeypatch.setattr(ladder, "MAX_RETURN_SECONDS", 0.4)
    company = await calendar.company("u1")
    proxy.blocks = True
    # A busy machine may take seconds for the first event of a stream, which counts as held back after `heartbeat`.
    async with following(proxy.url, company, heartbeat=5.0) as taken:
        client = taken.client
        await taken.has(lambda: client.transport == "sse" and client.status.state == "live")
        assert not [
            each for each in taken.reports if isinstance(each, Status) and each.state == "waiting"
        ]
        await calendar.event(company)
        await taken.has_messages(company, 2)

        proxy.buffers = True
        proxy.cut()
        await calendar.event(company)
        await taken.has_messages(company, 3)
        assert client.transport == "poll"

        proxy.blocks = False
        writing = asyncio.create_task(calendar.events(company, 20))
        await taken.has(lambda: client.transport == "websocket")
        await writing
        await taken.has_messages(company, 23)
        assert len(taken.of(Resync, company)) == 1


@pytest.mark.parametrize("transport", ["websocket", "sse", "poll"])
async def test_a_line_break_between_the_tokens_of_a_json_column_breaks_no_message(
    serve: Serve, database: Database, transport: str
) -> None:
    await database.execute("ALTER TABLE events ADD notes json")
    service, calendar = await serve(database), Calendar(database)
    company = await calendar.company("u1")
    async with following(service.url, company, transport=transport) as taken:
        await taken.has(lambda: taken.client.status.state == "live")
        await database.execute(
            "INSERT INTO events (company_id, title, starts_at, ends_at, notes)"
            " VALUES ($1, 'x', now(), now(), $2::text::json)",
            company,
            '{\n\r\n\n"a": [1.10,\n 2]}',
        )
        await taken.has_messages(company, 2)
        message = taken.of(Message, company)[0]
        assert message.data["Notes"] == {"a": [1.1, 2]}
        assert "1.10" in message.text


@pytest.mark.parametrize("transport", ["auto", "sse", "poll"])
async def test_connections_that_are_killed_again_and_again_lose_and_double_nothing(
    proxy: HttpProxy, calendar: Calendar, transport: str
) -> None:
    company = await calendar.company("u1")
    async with following(proxy.url, company, transport=transport) as taken:
        await taken.has(lambda: taken.client.status.state == "live")
        for position in range(2, 10):
            proxy.cut()
            await calendar.event(company)
            await taken.has_messages(company, position)
        assert len(taken.of(Resync, company)) == 1


async def test_a_server_that_knows_neither_path_is_named_by_the_refused_websocket() -> None:
    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")

    async with listening(refuse) as port, following(f"ws://127.0.0.1:{port}", "c") as taken:
        await taken.has(lambda: taken.client.status.state == "waiting")
        statuses = [
            each for each in taken.reports if isinstance(each, Status) and each.state == "waiting"
        ]
        assert statuses[0].reason == "HTTP 404"
        assert taken.client.transport is None
