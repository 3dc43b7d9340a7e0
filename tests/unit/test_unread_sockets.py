"""WebSockets whose client sends no more and does not read: neither end of the process nor memory waits for them."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send

from notifier import server
from notifier.node import Node
from notifier.settings import load
from notifier.transport import http_guard, websocket
from tests.unit.connections import connected
from tests.unit.door import SECRET, request
from tests.waiting import until

CLOSE = b"\x88\x80\0\0\0\0"
CAP = 1024 * 1024
MORE_THAN_THE_KERNEL_TAKES = "x" * 10_000_000


class World:
    """A server, and the client's end of a socket whose buffer is full. `ended`: the application was disconnected."""

    def __init__(self, running: uvicorn.Server, client: socket.socket) -> None:
        self.running = running
        self.client = client
        self.ended = asyncio.Event()

    async def send(self, data: bytes) -> None:
        await asyncio.get_running_loop().sock_sendall(self.client, data)

    async def is_gone(self) -> bool:
        return not self.running.server_state.connections


@asynccontextmanager
async def serving(application: ASGIApp) -> AsyncIterator[tuple[uvicorn.Server, socket.socket]]:
    """A server of this application, and a client's end of a connection to it."""
    chosen = load(
        {},
        database_url="postgresql://none@127.0.0.1:1/none",
        jwt_secret=SECRET,
        max_buffer_bytes=CAP,
    )
    running = server._Server(server.configuration(chosen, application, Node(chosen).refusals))
    listening = server.bind("127.0.0.1", 0)
    task = asyncio.create_task(running.serve(sockets=[listening]))
    with socket.create_connection(listening.getsockname()) as client:
        client.setblocking(False)
        try:
            yield running, client
        finally:
            running.should_exit = running.force_exit = True
            await task


@asynccontextmanager
async def unread() -> AsyncIterator[World]:
    written = asyncio.Event()

    async def application(_: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.send", "text": MORE_THAN_THE_KERNEL_TAKES})
        written.set()
        assert (await receive())["type"] == "websocket.disconnect"
        world.ended.set()

    async with serving(application) as (running, client):
        world = World(running, client)
        await world.send(request())
        await written.wait()
        yield world


async def test_the_shutdown_passes_over_a_socket_that_its_client_has_closed() -> None:
    async with unread() as world:
        await world.send(CLOSE)
        await world.ended.wait()


async def test_a_socket_is_aborted_whose_client_has_ended_its_side_without_a_close_frame(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(websocket, "CLOSE_SECONDS", 0.1)
    async with unread() as world:
        world.client.shutdown(socket.SHUT_WR)
        await until(world.is_gone)
        await world.ended.wait()


async def test_a_stream_ends_whose_client_has_ended_its_side(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(http_guard, "RESPONSE_SECONDS", 0.1)
    begun, closed, lost = asyncio.Event(), asyncio.Event(), asyncio.Event()

    class Listener:
        def paused(self) -> None: ...

        def resumed(self) -> None: ...

        def closed(self) -> None:
            closed.set()

    async def application(_: Scope, receive: Receive, __: Send) -> None:
        protocol.stream(Listener())
        protocol.transport.write(MORE_THAN_THE_KERNEL_TAKES.encode())
        begun.set()
        while (await receive())["type"] != "http.disconnect":
            pass
        lost.set()

    protocol, _, writer = await connected(application)
    writer.write(request(headers=b""))
    await begun.wait()
    writer.write_eof()
    await closed.wait()
    await lost.wait()
    writer.close()


@pytest.mark.parametrize("direct", [False, True])
async def test_what_follows_a_message_that_is_larger_than_the_cap_closes_no_socket(
    direct: bool,
) -> None:
    """A Pong, for one, comes while the client reads the message. Beside it no more than the cap waits."""
    message, written, waiting = MORE_THAN_THE_KERNEL_TAKES.encode(), asyncio.Event(), list[int]()

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        own = scope["extensions"][websocket.EXTENSION]
        await receive()
        await send({"type": "websocket.accept"})
        if direct:
            own.write_direct(message)
        else:
            own.write(message, ())
        while not own.ending and len(waiting) < 100:
            waiting.append(own.transport.get_write_buffer_size())
            own.write(b"x" * (CAP // 4), ())
        written.set()

    async with serving(application) as (_, client):
        await asyncio.get_running_loop().sock_sendall(client, request())
        await written.wait()
    assert waiting[0] > CAP
    assert len(waiting) > 2
    assert waiting[-1] <= CAP + len(message)
