"""The rows of a state: nothing keeps them once their client is gone, though no garbage is collected.

The collector counts objects, not bytes: on an idle node it may not run for hours.
"""

from __future__ import annotations

import asyncio
import gc
import json
import socket
from collections.abc import AsyncIterator
from typing import Any, cast
from weakref import ref

import pytest
import uvicorn
from starlette.types import Receive, Scope, Send

from notifier import server
from notifier.delivery.filter import Filter
from notifier.delivery.state import State
from notifier.settings import load
from notifier.transport import events, http_guard, queues, websocket
from notifier.transport.asgi import AsgiTransport
from notifier.transport.company_messages import PATH, CompanyMessages
from notifier.transport.conversation import Conversation
from notifier.transport.cors import Cors
from notifier.transport.endpoint import Endpoint
from notifier.transport.refusals import Refusals
from tests.service.raw import TEXT, frame
from tests.services import token
from tests.unit.door import SECRET, request
from tests.unit.worlds import A, World
from tests.waiting import until

PAGE = b"x" * 250_000


class Pages(list[bytes]):
    """A list that weak references may refer to."""


class LargeStates:
    """States that no socket buffers. `pages`: of the last one."""

    def __init__(self) -> None:
        self.pages: ref[Pages] | None = None

    async def read(self, _company: str, _wanted: Filter | None, _user: str) -> State:
        head = b'{"Type":"State","Data":{"Entity":"Event","Rows":["%b"]}}'
        pages = Pages([head % PAGE] * 40)
        self.pages = ref(pages)
        return State("e", 0, None, cast("Any", pages))

    async def gone(self) -> bool:
        """Whether a state was read, and is not in memory any more."""
        return self.pages is not None and self.pages() is None


@pytest.fixture
def world() -> World:
    world = World()
    world.membership.members.add((A, "u"))
    world.services.states = LargeStates()
    return world


@pytest.fixture
async def client(world: World) -> AsyncIterator[socket.socket]:
    """A connection to a server of this process, on which nothing is read."""
    refusals = Refusals()
    endpoint = Endpoint(world.services, None, 1_000_000, refusals)
    messages = CompanyMessages(world.services, Cors(None, credentials=False), 1_000_000)

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await endpoint(scope, receive, send)
            return
        found = PATH.fullmatch(scope["raw_path"].decode())
        assert found is not None
        await messages.serve(found[1], scope, receive, send)

    chosen = load({}, database_url="postgresql://none@127.0.0.1:1/none", jwt_secret=SECRET)
    running: uvicorn.Server = server._Server(server.configuration(chosen, application, refusals))
    listening = server.bind("127.0.0.1", 0)
    serving = asyncio.create_task(running.serve(sockets=[listening]))
    gc.disable()
    with socket.create_connection(listening.getsockname()) as client:
        yield client
    gc.enable()
    running.should_exit = running.force_exit = True
    await serving


COMMANDS = (
    {"type": "authenticate", "token": token("u")},
    {"type": "subscribe", "data": {"companyId": A, "state": True}},
)


def requests(kind: str) -> bytes:
    """What a client sends for the state of A, over each transport."""
    if kind == "socket":
        return b"".join(frame(TEXT, json.dumps(each).encode()) for each in COMMANDS)
    head = f"Authorization: Bearer {token('u')}\r\nAccept: {kind}\r\n".encode()
    return request("/companies/company%20a/messages?state=true", headers=head)


@pytest.mark.parametrize("kind", ["socket", "text/event-stream", "application/json"])
async def test_the_rows_of_a_client_that_does_not_read_are_gone_with_its_connection(
    kind: str, world: World, client: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queues, "DRAIN_SECONDS", 0.1)
    monkeypatch.setattr(http_guard, "RESPONSE_SECONDS", 0.1)
    for module in (websocket, events):
        monkeypatch.setattr(module, "CLOSE_SECONDS", 0.1)
    if kind == "socket":
        client.sendall(request())
        assert b" 101 " in await asyncio.to_thread(client.recv, 1000)
    client.sendall(requests(kind))
    await until(cast("LargeStates", world.services.states).gone)


async def test_nor_does_the_transport_for_other_servers_keep_them(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queues, "DRAIN_SECONDS", 0.1)
    sent: list[object] = []

    async def send(event: object) -> None:
        sent.append(event)
        await asyncio.Event().wait()

    transport = AsgiTransport(send, 15_000_000)
    running = asyncio.create_task(transport.run())
    conversation = Conversation.begin(world.services, transport, "")
    assert conversation is not None
    gc.disable()
    try:
        for command in COMMANDS:
            await conversation.receive({"type": "websocket.receive", "text": json.dumps(command)})
        assert conversation.ended
        assert sent
        await until(cast("LargeStates", world.services.states).gone)
    finally:
        gc.enable()
        running.cancel()
