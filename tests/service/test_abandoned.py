"""What was requested by clients that have left is not done: they do not count as connections any more."""

from __future__ import annotations

import asyncio
import gc
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
import uvicorn
from prometheus_client import REGISTRY

from notifier import server
from notifier.database import query
from notifier.node import Node
from notifier.settings import load
from notifier.state.reader import StateReader
from tests import waiting
from tests.conftest import Connect
from tests.databases import Database
from tests.service.calendars import Calendar
from tests.service.http_streams import poll, stream
from tests.services import SECRET
from tests.waiting import until

CLIENTS = 5
TRANSPORTS = ("websocket", "sse", "poll")


class World:
    """A node in this process, and its clients."""

    def __init__(self, node: Node, port: int, connect: Connect) -> None:
        self.node = node
        self.address = f"127.0.0.1:{port}"
        self._connect = connect
        self._leave: list[Callable[[], Awaitable[None]]] = []

    async def request(self, transport: str, company: str, title: str) -> None:
        """Requests the state with a filter of its own, by a client that then leaves."""
        where = {"Event": {"Title": [title]}}
        if transport == "websocket":
            client = await self._connect(f"ws://{self.address}/", "u1")
            data = {"companyId": company, "state": True, "where": where}
            await client.send({"type": "subscribe", "data": data})
            self._leave.append(client.drop)
            return
        given: dict[str, Any] = {"state": "true", "where": json.dumps(where)}

        async def read() -> None:
            url = f"http://{self.address}"
            if transport == "poll":
                await poll(url, "u1", company, **given)
            else:
                async with stream(url, "u1", company, **given):
                    pass

        reading = asyncio.create_task(read())

        async def leave() -> None:
            reading.cancel()
            with suppress(asyncio.CancelledError):
                await reading

        self._leave.append(leave)

    async def leave(self) -> None:
        """Ends all connections; returns when nothing handles what came over them."""
        for each in self._leave:
            await each()
        self._leave.clear()

        async def left() -> bool:
            return not self.node.admission.connections and not any(map(connections, TRANSPORTS))

        await until(left)

    async def subscribe(self, company: str) -> None:
        """A client that stays until it has the state."""
        client = await self._connect(f"ws://{self.address}/", "u1")
        data = {"companyId": company, "state": True}
        await client.send({"type": "subscribe", "data": data})
        await client.next("StateEnd")
        await client.drop()
        await self.leave()

    def pins(self, company: str) -> int:
        channel = self.node.hub.channel(company)
        return 0 if channel is None else channel.pins


def connections(transport: str) -> float:
    return REGISTRY.get_sample_value("notifier_connections", {"transport": transport}) or 0


@asynccontextmanager
async def serving(
    database: Database, connect: Connect, *, own: bool, **settings: Any
) -> AsyncIterator[World]:
    """A node behind our protocols, or on a server that has none of them."""
    chosen = load({}, database_url=database.dsn, jwt_secret=SECRET, state="on", **settings)
    node = Node(chosen)
    running = (
        server._Server(server.configuration(chosen, node.app(), node.refusals))
        if own
        else uvicorn.Server(
            uvicorn.Config(node.app(), ws="websockets-sansio", lifespan="off", log_config=None)
        )
    )
    listening = server.bind("127.0.0.1", 0)
    tasks = [
        asyncio.create_task(node.run()),
        asyncio.create_task(running._serve(sockets=[listening])),
    ]

    async def ready() -> bool:
        return node.health.reason() is None

    await until(ready)
    try:
        yield World(node, listening.getsockname()[1], connect)
    finally:
        await node.drain()
        running.should_exit = running.force_exit = True
        await tasks[1]
        tasks[0].cancel()
        await asyncio.wait(tasks)


@pytest.fixture
def quiet(
    caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> Callable[[], bool]:
    """Whether no error was logged, nor is left in a task."""

    def check() -> bool:
        gc.collect()
        written = caplog.text + "".join(capsys.readouterr())
        return not any(word in written for word in ("Traceback", "never retrieved", "failed"))

    return check


@pytest.mark.parametrize("own", [True, False])
@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_a_state_is_not_read_whose_client_has_left(
    database: Database, connect: Connect, quiet: Callable[[], bool], transport: str, own: bool
) -> None:
    async with serving(database, connect, own=own) as world:
        company = await Calendar(database).company("u1")
        states = world.node.states
        assert isinstance(states, StateReader)
        turns = states._readings._turns
        free, turns._free = turns._free, 0

        async def wait() -> bool:
            return len(turns._waiting) == CLIENTS

        for number in range(CLIENTS):
            await world.request(transport, company, str(number))
        await until(wait)
        await world.leave()
        assert not turns._waiting
        assert not world.pins(company)
        turns._free = free
        await world.subscribe(company)
        assert states.reads == 1
        assert not world.pins(company)
    assert quiet()


QUERY = "SELECT $1::text <> '' AND $2::text <> '' FROM pg_advisory_xact_lock_shared(1)"


@pytest.mark.parametrize("own", [True, False])
@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_access_is_not_checked_of_a_client_that_has_left(
    database: Database,
    connect: Connect,
    quiet: Callable[[], bool],
    monkeypatch: pytest.MonkeyPatch,
    transport: str,
    own: bool,
) -> None:
    """By MEMBERSHIP_QUERY, which takes a turn for each."""
    async with serving(database, connect, own=own, membership_query=QUERY) as world:
        company = await Calendar(database).company("u1")
        monkeypatch.setattr(
            query, "DEADLINE_SECONDS", 2 * waiting.DEADLINE_SECONDS
        )  # the first one waits
        operator = world.node.membership._operator(QUERY)
        checks, check = list[str](), operator._check_one

        async def counted(company: str, user: str) -> bool:
            checks.append(company)
            return await check(company, user)

        monkeypatch.setattr(operator, "_check_one", counted)
        slow = await database.connect()
        await slow.execute("SELECT pg_advisory_lock(1)")
        await world.request(transport, company, "")
        await database.blocked()

        async def wait() -> bool:
            return operator._batcher._keys == CLIENTS

        for number in range(CLIENTS):
            await world.request(transport, f"another {number}", "")
        await until(wait)
        await world.leave()
        assert len(checks) == 1
        await slow.execute("SELECT pg_advisory_unlock(1)")
        await world.subscribe(company)
        assert {*checks} == {company}
        assert not world.pins(company)
    assert quiet()
