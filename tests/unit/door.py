"""A node's application on a port of this process, without a database: the door to it."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import uvicorn
from prometheus_client import REGISTRY

from notifier import server
from notifier.node import Node
from notifier.settings import load
from notifier.transport.refusals import Reason

SECRET = "a secret of the tests that is long enough"
KEY = b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
UPGRADE = b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n" + KEY


def request(target: str = "/", headers: bytes = UPGRADE, method: str = "GET") -> bytes:
    """A request; with the default headers it is a WebSocket handshake."""
    return f"{method} {target} HTTP/1.1\r\nHost: localhost\r\n".encode() + headers + b"\r\n"


class Door:
    """An address where requests are sent."""

    def __init__(self, port: int) -> None:
        self.port = port

    async def send(self, *pieces: bytes) -> bytes:
        """The answer to what is sent: all of it, or up to the end of a 101's head."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            for piece in pieces:
                writer.write(piece)
                await writer.drain()
            async with asyncio.timeout(20):
                answer = b""
                while data := await reader.read(65536):
                    answer += data
                    if is_whole(answer):
                        break
                return answer
        finally:
            writer.close()

    async def status(self, *pieces: bytes) -> int:
        """The status of the answer."""
        return int((await self.send(*pieces)).split(b" ", 2)[1])


def is_whole(answer: bytes) -> bool:
    """Whether an answer without a body, or with a Content-Length, has arrived. The end of any other is
    the end of its connection.
    """
    head, end, body = answer.partition(b"\r\n\r\n")
    if not end:
        return False
    if int(head.split(b" ", 2)[1]) in {101, 204, 304}:
        return True
    length = re.search(rb"\r\ncontent-length: (\d+)", head, re.IGNORECASE)
    return length is not None and len(body) >= int(length[1])


def refused(reason: Reason) -> float:
    """How many handshakes were refused for this reason."""
    value = REGISTRY.get_sample_value("notifier_handshakes_refused_total", {"reason": reason.value})
    assert value is not None, "the reason is not there from the start"
    return value


@asynccontextmanager
async def open_door(
    wrap: Callable[[Any], Any] = lambda app: app, **settings: Any
) -> AsyncIterator[Door]:
    """Serves a node's application with these settings, wrapped into another one."""
    chosen = load(
        {}, database_url="postgresql://none@127.0.0.1:1/none", jwt_secret=SECRET, **settings
    )
    node = Node(chosen)
    config = server.configuration(chosen, wrap(node.app()), node.refusals)
    running: uvicorn.Server = server._Server(config)
    listening = server.bind("127.0.0.1", 0)
    task = asyncio.create_task(running.serve(sockets=[listening]))
    try:
        yield Door(listening.getsockname()[1])
    finally:
        running.should_exit = running.force_exit = True
        await task
