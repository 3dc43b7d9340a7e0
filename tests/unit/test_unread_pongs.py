"""WebSockets that are not read for a while, as a message waits for a command: a pong behind it proves nothing yet."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from starlette.types import Receive, Scope, Send

from notifier.transport import websocket
from notifier.transport.websocket import WebSocketProtocol
from tests.service.raw import PONG, TEXT, frame
from tests.unit.door import request
from tests.unit.test_unread_sockets import MORE_THAN_THE_KERNEL_TAKES, serving
from tests.unit.worlds import settle
from tests.waiting import DEADLINE_SECONDS, until

PING_FRAME, PAYLOAD = b"\x89\x04ping", b"ping"


class World:
    """A connection with one unread message behind which nothing is read."""

    protocol: WebSocketProtocol
    client: socket.socket

    def __init__(self) -> None:
        self.accepted = asyncio.Event()
        self.read_on, self.read = asyncio.Event(), asyncio.Event()

    async def send(self, data: bytes) -> None:
        await asyncio.get_running_loop().sock_sendall(self.client, data)

    async def receive(self, end: bytes) -> None:
        """Returns when the client has received bytes that end like this."""
        data = b""
        async with asyncio.timeout(DEADLINE_SECONDS):
            while not data.endswith(end):
                piece = await asyncio.get_running_loop().sock_recv(self.client, 4096)
                assert piece, "the connection has ended"
                data += piece


@asynccontextmanager
async def paused() -> AsyncIterator[World]:
    world = World()

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        world.protocol = scope["extensions"][websocket.EXTENSION]
        await send({"type": "websocket.accept"})
        world.accepted.set()
        await world.read_on.wait()
        assert (await receive())["type"] == "websocket.receive"
        world.read.set()
        assert (await receive())["type"] == "websocket.disconnect"

    async with serving(application) as (_, world.client):
        await world.send(request())
        await world.accepted.wait()
        await world.receive(b"\r\n\r\n")
        await world.send(frame(TEXT, b"a message"))

        async def is_paused() -> bool:
            return world.protocol.read_paused

        await until(is_paused)
        try:
            yield world
        finally:
            world.read_on.set()


async def test_a_pong_behind_a_message_is_not_missing_while_tcp_acknowledges_the_ping(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(websocket, "GRACE_SECONDS", 0)
    async with paused() as world:
        for _ in range(3):
            world.protocol.ping(PING_FRAME, PAYLOAD)
            await world.receive(PING_FRAME)
            world.protocol.check_pong()
            await settle()
        assert not world.protocol.transport.is_closing()


async def test_a_peer_that_acknowledges_nothing_is_gone_though_nothing_is_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(websocket, "GRACE_SECONDS", 0)
    monkeypatch.setattr(websocket, "PONG_SECONDS", 0)
    async with paused() as world:
        world.protocol.transport.write(MORE_THAN_THE_KERNEL_TAKES.encode())
        world.protocol.ping(PING_FRAME, PAYLOAD)
        world.protocol.check_pong()
        await settle()
        assert world.protocol.transport.is_closing()


async def test_a_pong_has_its_time_from_the_end_of_the_pause_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(websocket, "GRACE_SECONDS", 3600)
    async with paused() as world:
        protocol = world.protocol
        protocol.ping(PING_FRAME, PAYLOAD)
        protocol.check_pong()
        former = protocol.pong_timer
        assert former is not None
        world.read_on.set()
        await world.read.wait()
        assert former.cancelled()
        assert protocol.pong_timer is not None
        await world.send(frame(PONG, PAYLOAD))

        async def answered() -> bool:
            return protocol.pong_timer is None

        await until(answered)
