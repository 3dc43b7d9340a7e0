"""What the HTTP side of the wire takes for a request's head, however it comes in pieces."""

from __future__ import annotations

import asyncio
import socket

import pytest
import uvicorn
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.types import Receive, Scope, Send
from uvicorn.server import ServerState

from notifier.transport.http_guard import HEAD_BYTES, GuardedHttp
from notifier.transport.refusals import Refusals

SIZE = 2 * HEAD_BYTES


async def measure(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers with the size of the body."""
    body = await Request(scope, receive).body()
    await PlainTextResponse(str(len(body)))(scope, receive, send)


async def answer(*pieces: bytes) -> bytes:
    """What is answered when the kernel gives a request in these pieces."""
    config = uvicorn.Config(measure, lifespan="off", log_config=None)
    config.load()
    ours, theirs = socket.socketpair()
    _, protocol = await asyncio.get_running_loop().connect_accepted_socket(
        lambda: GuardedHttp(Refusals(), config, ServerState(), {}), ours
    )
    reader, writer = await asyncio.open_connection(sock=theirs)
    for piece in pieces:
        protocol.data_received(piece)
    async with asyncio.timeout(20):
        said = await reader.read()
    writer.close()
    return said


@pytest.mark.parametrize("cut", [None, 10, -2])
async def test_a_body_in_one_piece_with_its_head_is_no_part_of_it(cut: int | None) -> None:
    head = b"POST / HTTP/1.1\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % SIZE
    cut = 0 if cut is None else cut % len(head)
    request = head + b"x" * SIZE
    said = await answer(*filter(None, (request[:cut], request[cut:])))
    assert said.startswith(b"HTTP/1.1 200 ")
    assert said.endswith(b"\r\n\r\n%d" % SIZE)


async def test_a_head_in_one_piece_may_not_be_larger_than_in_many() -> None:
    head = b"GET / HTTP/1.1\r\nConnection: close\r\nX: " + b"x" * SIZE + b"\r\n\r\n"
    assert (await answer(head)).startswith(b"HTTP/1.1 431 ")
    pieces = [head[at : at + 4096] for at in range(0, len(head), 4096)]
    assert (await answer(*pieces[:-1])).startswith(b"HTTP/1.1 431 ")


async def test_a_head_may_be_as_large_as_that_and_not_a_byte_larger() -> None:
    beginning, end = b"GET / HTTP/1.1\r\nConnection: close\r\nX: ", b"\r\n\r\n"
    head = beginning.ljust(HEAD_BYTES - len(end), b"x")
    assert (await answer(head, end)).startswith(b"HTTP/1.1 200 ")
    assert (await answer(head, b"x", end)).startswith(b"HTTP/1.1 431 ")
    assert (await answer(head + b"x" * len(end), b"x")).startswith(b"HTTP/1.1 431 ")


async def test_bytes_that_are_no_request_are_refused_once() -> None:
    said = await answer(b"\0" * SIZE)
    assert said.count(b"HTTP/1.1 ") == 1
