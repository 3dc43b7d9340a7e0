"""What the HTTP side of the wire takes for a request's head, however it comes in pieces."""

from __future__ import annotations

import asyncio

import pytest
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.types import Receive, Scope, Send

from notifier import Notifier
from notifier.settings import load
from notifier.transport import http_guard
from notifier.transport.http_guard import EXTENSION, HEAD_BYTES, HEADERS, GuardedHttp
from notifier.transport.refusals import EXPLANATIONS, Reason
from tests.unit.connections import connected
from tests.waiting import DEADLINE_SECONDS

SIZE = 2 * HEAD_BYTES


async def measure(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers with the size of the body."""
    body = await Request(scope, receive).body()
    await PlainTextResponse(str(len(body)))(scope, receive, send)


async def answer(*pieces: bytes) -> bytes:
    """The response, when the kernel gives a request in these pieces."""
    protocol, reader, writer = await connected(measure)
    for piece in pieces:
        protocol.data_received(piece)
    async with asyncio.timeout(20):
        received = await reader.read()
    writer.close()
    return received


@pytest.mark.parametrize("cut", [None, 10, -2])
async def test_a_body_in_one_piece_with_its_head_is_no_part_of_it(cut: int | None) -> None:
    head = b"POST / HTTP/1.1\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % SIZE
    cut = 0 if cut is None else cut % len(head)
    request = head + b"x" * SIZE
    received = await answer(*filter(None, (request[:cut], request[cut:])))
    assert received.startswith(b"HTTP/1.1 200 ")
    assert received.endswith(b"\r\n\r\n%d" % SIZE)


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


async def test_a_head_may_have_a_thousand_headers_and_no_more_are_kept() -> None:
    """Objects for 64 KiB of short ones take forty times as many bytes."""
    beginning, end = b"GET / HTTP/1.1\r\nConnection: close\r\n", b"\r\n"
    assert (await answer(beginning + b"a:\r\n" * (HEADERS - 1) + end)).startswith(b"HTTP/1.1 200 ")
    protocol, reader, writer = await connected(measure)
    protocol.data_received(beginning + b"a:\r\n" * 15_000)
    assert (await reader.read()).startswith(b"HTTP/1.1 431 ")
    assert len(protocol.headers) == HEADERS
    writer.close()


async def test_bytes_that_are_no_request_are_refused_once() -> None:
    received = await answer(b"\0" * SIZE)
    assert received.count(b"HTTP/1.1 ") == 1


GET = b"GET / HTTP/1.1\r\n\r\n"
LARGE = 16 * 1024 * 1024
"""Bytes that no pair of sockets buffers."""


async def fill(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers with more than a client that does not read can have buffered."""
    await PlainTextResponse("x" * LARGE)(scope, receive, send)


async def test_a_response_that_is_not_read_is_aborted_at_its_deadline(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(http_guard, "RESPONSE_SECONDS", 0)
    protocol, reader, writer = await connected(fill)
    protocol.data_received(GET)
    async with asyncio.timeout(DEADLINE_SECONDS):
        assert len(await reader.read()) < LARGE
    writer.close()


async def test_a_response_that_is_read_has_no_deadline_left() -> None:
    protocol, reader, writer = await connected(fill)
    protocol.data_received(GET)
    async with asyncio.timeout(DEADLINE_SECONDS):
        await reader.readuntil(b"\r\n\r\n")
        await reader.readexactly(LARGE)
        await protocol.flow.drain()
    assert protocol._response_deadline is None
    writer.close()


class Listener:
    """Records what a protocol reports. `begun`, `lost`: the response, and its connection."""

    def __init__(self) -> None:
        self.reports: list[str] = []
        self.begun, self.lost = asyncio.Event(), asyncio.Event()

    async def stream(self, scope: Scope, receive: Receive, _send: Send) -> None:
        """A response that is written to the transport directly."""
        protocol = scope["extensions"][EXTENSION]
        protocol.stream(self)
        protocol.transport.write(b"x" * LARGE)
        self.begun.set()
        while (await receive())["type"] != "http.disconnect":
            pass

    def paused(self) -> None:
        self.reports.append("paused")

    def resumed(self) -> None:
        self.reports.append("resumed")

    def closed(self) -> None:
        self.reports.append("closed")
        self.lost.set()


async def test_a_stream_is_reported_back_pressure_and_the_end_of_its_connection(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(http_guard, "RESPONSE_SECONDS", 0)  # for streams there is none
    listener = Listener()
    protocol, reader, writer = await connected(listener.stream)
    protocol.data_received(GET)
    async with asyncio.timeout(DEADLINE_SECONDS):
        await listener.begun.wait()
        assert await reader.readexactly(LARGE) == b"x" * LARGE
        writer.close()
        await listener.lost.wait()
    assert listener.reports == ["paused", "resumed", "closed"]


async def test_what_a_client_sends_during_a_stream_is_ignored() -> None:
    listener = Listener()
    protocol, reader, writer = await connected(listener.stream)
    protocol.data_received(GET)
    await listener.begun.wait()
    protocol.data_received(b"\0" * SIZE)
    protocol.data_received(GET)
    writer.write_eof()
    async with asyncio.timeout(DEADLINE_SECONDS):
        assert await reader.read() == b"x" * LARGE
    writer.close()


@pytest.mark.parametrize(
    ("expect", "behind"),
    [(b"Expect: 100-continue\r\n", b""), (b"", b"GET /"), (b"Content-Length: 2\r\n", b"x")],
)
async def test_nothing_in_a_request_interrupts_the_stream_that_answers_it(
    expect: bytes, behind: bytes
) -> None:
    """No interim response is written into it, and no deadline for what is incomplete ends it."""
    listener = Listener()
    protocol, reader, writer = await connected(listener.stream)
    protocol.data_received(b"GET / HTTP/1.1\r\n%b\r\n%b" % (expect, behind))
    await listener.begun.wait()
    assert protocol._deadline is None
    writer.write_eof()
    async with asyncio.timeout(DEADLINE_SECONDS):
        assert await reader.read() == b"x" * LARGE
    writer.close()


async def test_a_closing_stream_keeps_its_deadline_when_a_part_of_the_rest_is_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(http_guard, "RESPONSE_SECONDS", 0)
    listener = Listener()
    protocol, reader, writer = await connected(listener.stream)
    protocol.data_received(GET)
    await listener.begun.wait()
    protocol.eof_received()
    protocol.transport.close()
    protocol.resume_writing()
    async with asyncio.timeout(DEADLINE_SECONDS):
        assert len(await reader.read()) < LARGE
    writer.close()


@pytest.mark.parametrize("end", ["close", "keep-alive", "refusal", "eof"])
async def test_a_closing_connection_is_aborted_at_its_deadline_however_little_is_left_to_write(
    end: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_guard, "RESPONSE_SECONDS", 0)
    completed = asyncio.Event()

    async def complete(scope: Scope, receive: Receive, send: Send) -> None:
        await fill(scope, receive, send)
        completed.set()

    protocol, reader, writer = await connected(complete)
    protocol.transport.set_write_buffer_limits(high=2 * LARGE)  # so the response stays below it
    protocol.timeout_keep_alive = 0 if end == "keep-alive" else 1000
    protocol.data_received(
        b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n" if end == "close" else GET
    )
    async with asyncio.timeout(DEADLINE_SECONDS):
        await completed.wait()
        if end == "refusal":
            protocol.data_received(b"\0")
        elif end == "eof":
            protocol.eof_received()
        assert len(await reader.read()) < LARGE
    writer.close()


CHUNKED = b"GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"
MIB = 1024 * 1024


def receive_until_closed(protocol: GuardedHttp, piece: bytes) -> None:
    """Passes the piece to the protocol again and again, which closes the connection after about a MiB."""
    sent = 0
    while not protocol.transport.is_closing():
        protocol.data_received(piece)
        sent += len(piece)
        assert sent < 1.2 * MIB
    assert sent > 0.9 * MIB


@pytest.mark.parametrize(
    ("beginning", "piece"),
    [
        (CHUNKED + b"0\r\n", b"X: trailer\r\n" * 1000),
        (CHUNKED + b"0\r\nX: ", b"x" * 60_000),
        (CHUNKED + b"1;", b"x" * 60_000),
        (CHUNKED, b"ea60\r\n" + b"x" * 60_000 + b"\r\n"),
        (b"GET / HTTP/1.1\r\nContent-Length: 99999999\r\n\r\n", b"x" * 60_000),
    ],
    ids=["trailers", "a trailer", "a chunk's extension", "chunks", "a body"],
)
async def test_what_follows_a_head_is_bounded_and_no_trailer_is_kept(
    beginning: bytes, piece: bytes
) -> None:
    async def ignore(_scope: Scope, _receive: Receive, _send: Send) -> None:
        await asyncio.Event().wait()

    protocol, reader, writer = await connected(ignore)
    protocol.data_received(beginning)
    receive_until_closed(protocol, piece)
    assert len(protocol.headers) == 1
    received = await reader.read()
    assert received.startswith(b"HTTP/1.1 413 ")
    assert received.count(b"HTTP/1.1 ") == 1
    writer.close()
    for task in protocol.tasks:
        task.cancel()


def embedded() -> type[GuardedHttp]:
    """The protocol for an application that Notifier runs in."""
    settings = load({}, database_url="postgresql://h/d", jwt_secret="s" * 32)
    http: type[GuardedHttp] = Notifier(settings).uvicorn_options(events=True)["http"]
    return http


@pytest.mark.parametrize("chunked", [True, False])
async def test_where_it_is_embedded_a_body_may_have_any_size(chunked: bool) -> None:
    protocol, reader, writer = await connected(measure, embedded())
    piece, number = b"x" * 60_000, 80
    if chunked:
        protocol.data_received(CHUNKED)
    else:
        length = number * len(piece)
        protocol.data_received(b"POST / HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % length)
    for _ in range(number):
        protocol.data_received(b"ea60\r\n" + piece + b"\r\n" if chunked else piece)
    if chunked:
        protocol.data_received(b"0\r\n\r\n")
    async with asyncio.timeout(DEADLINE_SECONDS):
        assert (await reader.readuntil(b"%d" % (number * len(piece)))).startswith(b"HTTP/1.1 200 ")
    writer.close()


@pytest.mark.parametrize(
    ("beginning", "piece"),
    [
        (b"0\r\n", b"X: trailer\r\n" * 1000),
        (b"0\r\nX: ", b"x" * 60_000),
        (b"1;", b"x" * 60_000),
    ],
    ids=["trailers", "a trailer", "a chunk's extension"],
)
async def test_where_it_is_embedded_trailers_and_chunk_extensions_are_bounded(
    beginning: bytes, piece: bytes
) -> None:
    protocol, reader, writer = await connected(measure, embedded())
    protocol.data_received(CHUNKED + b"4\r\nbody\r\n")
    protocol.data_received(beginning)
    receive_until_closed(protocol, piece)
    assert (await reader.read()).startswith(b"HTTP/1.1 413 ")
    await asyncio.gather(*protocol.tasks)
    writer.close()


async def test_a_body_that_is_refused_during_its_response_ends_the_connection() -> None:
    """The client has read a part of the response, or all: a second one would not be its own."""

    async def begin(_scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"begun", "more_body": True})
        while (await receive())["type"] != "http.disconnect":
            pass

    for application in (begin, path):
        protocol, reader, writer = await connected(application)
        protocol.data_received(b"POST / HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % (2 * MIB))
        async with asyncio.timeout(DEADLINE_SECONDS):
            await reader.readuntil(b"begun" if application is begin else b">")
            protocol.data_received(b"x" * 2 * MIB)
            assert b"HTTP/1.1" not in await reader.read()
            await asyncio.gather(*protocol.tasks)
        writer.close()


async def test_an_application_writes_no_response_behind_a_refusal() -> None:
    """On uvloop a closed transport still sends what is written while its buffer is not empty."""
    waiting, ended = asyncio.Event(), asyncio.Event()

    async def late(scope: Scope, receive: Receive, send: Send) -> None:
        waiting.set()
        while (await receive())["type"] != "http.disconnect":
            pass
        await PlainTextResponse("late")(scope, receive, send)
        ended.set()

    protocol, reader, writer = await connected(late)
    protocol.data_received(b"POST / HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % (2 * MIB))
    await waiting.wait()
    protocol.data_received(b"x" * 2 * MIB)
    assert protocol.cycle.disconnected
    async with asyncio.timeout(DEADLINE_SECONDS):
        await ended.wait()
        assert (await reader.read()).count(b"HTTP/1.1 ") == 1
    writer.close()


@pytest.mark.parametrize("requests", [18, 19, 20, 5000])
async def test_requests_that_wait_for_the_one_before_are_bounded(requests: int) -> None:
    begun: list[Scope] = []

    async def wait(scope: Scope, receive: Receive, _send: Send) -> None:
        begun.append(scope)
        while (await receive())["type"] != "http.disconnect":
            pass

    protocol, reader, writer = await connected(wait)
    protocol.data_received(GET * requests)
    assert len(protocol.pipeline) == http_guard.PIPELINED
    async with asyncio.timeout(DEADLINE_SECONDS):
        assert await reader.read() == b""
    await asyncio.gather(*protocol.tasks)
    assert len(begun) == 1
    writer.close()


UPGRADE_H2C = b"Connection: Upgrade\r\nUpgrade: h2c\r\n"
HANDSHAKE = b"GET /2 HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"


def get(number: int, headers: bytes = b"") -> bytes:
    return b"GET /%d HTTP/1.1\r\n%b\r\n" % (number, headers)


async def path(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers with the path."""
    await PlainTextResponse(f"<{scope['path']}>")(scope, receive, send)


async def test_as_many_requests_as_may_wait_are_answered_in_their_order() -> None:
    protocol, reader, writer = await connected(path)
    numbers = range(1, http_guard.PIPELINED + 2)
    protocol.data_received(b"".join(get(number) for number in numbers))
    async with asyncio.timeout(DEADLINE_SECONDS):
        for number in numbers:
            assert (await reader.readuntil(b">")).endswith(b"</%d>" % number)
    writer.close()


async def test_a_request_behind_a_refused_upgrade_in_one_piece_with_it_is_answered() -> None:
    protocol, reader, writer = await connected(path)
    protocol.data_received(get(1, UPGRADE_H2C) + get(2) + get(3, UPGRADE_H2C))
    protocol.data_received(get(4))
    async with asyncio.timeout(DEADLINE_SECONDS):
        for number in range(1, 5):
            assert (await reader.readuntil(b">")).endswith(b"</%d>" % number)
    writer.close()


@pytest.mark.parametrize("length", [b"Content-Length: 20", b"Transfer-Encoding: chunked"])
@pytest.mark.parametrize("in_one_piece", [True, False])
async def test_the_body_of_a_refused_upgrade_is_no_request(
    length: bytes, in_one_piece: bool
) -> None:
    head = b"POST /1 HTTP/1.1\r\n" + length + b"\r\n" + UPGRADE_H2C + b"\r\n"
    protocol, reader, writer = await connected(path)
    for piece in (head + get(2),) if in_one_piece else (head, get(2)):
        protocol.data_received(piece)
    async with asyncio.timeout(DEADLINE_SECONDS):
        received = await reader.read()
    assert received.startswith(b"HTTP/1.1 400 ")
    assert received.count(b"HTTP/1.1 ") == 1
    assert EXPLANATIONS[Reason.UPGRADE].encode() in received
    writer.close()


@pytest.mark.parametrize(
    "following",
    [
        b"\0",
        b"GET\0",
        b"GET /2 HTTP/1.1\r\nX: " + b"x" * SIZE,
        HANDSHAKE,
        b"POST /2 HTTP/1.1\r\nContent-Length: 1\r\n" + UPGRADE_H2C + b"\r\nx",
        b"POST /2 HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n",
        b"CONNECT a:1 HTTP/1.1\r\n\r\n",
    ],
    ids=["binary", "a method", "a head", "a WebSocket", "an upgrade", "a chunk", "a tunnel"],
)
@pytest.mark.parametrize("begun", [True, False])
@pytest.mark.parametrize("in_one_piece", [True, False])
async def test_a_refusal_is_not_written_in_the_place_of_an_earlier_response(
    following: bytes, begun: bool, in_one_piece: bool
) -> None:
    waiting = asyncio.Event()

    async def wait(_scope: Scope, receive: Receive, send: Send) -> None:
        if begun:
            await send({"type": "http.response.start", "status": 200, "headers": []})
        waiting.set()
        while (await receive())["type"] != "http.disconnect":
            pass

    protocol, reader, writer = await connected(wait)
    protocol.data_received(get(1) + (following if in_one_piece else b""))
    if not in_one_piece:
        await waiting.wait()
        protocol.data_received(following)
    async with asyncio.timeout(DEADLINE_SECONDS):
        received = await reader.read()
        assert received.count(b"HTTP/1.1 ") == (begun and not in_one_piece)
        assert b"400" not in received
        await asyncio.gather(*protocol.tasks)
    writer.close()


async def test_a_request_with_others_behind_it_is_notified_of_the_end_of_its_connection() -> None:
    """It would write to a closed transport, which uvloop answers with an exception."""
    ended = asyncio.Event()

    async def wait(_scope: Scope, receive: Receive, _send: Send) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        ended.set()

    protocol, _, writer = await connected(wait)
    protocol.data_received(GET * 3)
    await asyncio.sleep(0)
    protocol.transport.abort()
    async with asyncio.timeout(DEADLINE_SECONDS):
        await ended.wait()
    writer.close()


async def test_requests_that_are_no_http_are_logged_once_alone(
    caplog: pytest.LogCaptureFixture,
) -> None:
    for _ in range(3):
        await answer(b"GET / HTTP/1.1\r\nHost : x\r\n\r\n")
        await answer(b"GET / HTTP/1.1\r\nConnection: upgrade, close\r\nUpgrade: h2c\r\n\r\n")
    assert [record.name for record in caplog.records if record.name.startswith("uvicorn")] == []


@pytest.mark.parametrize("lines", [b"\r\n", b"\n\n\n"])
async def test_empty_lines_behind_a_request_keep_no_connection_open(lines: bytes) -> None:
    """The parser skips them (RFC 9112, 2.2): no request begins, whose deadline would end the connection."""
    protocol, reader, writer = await connected(measure)
    protocol.timeout_keep_alive = 1
    writer.write(GET)
    async with asyncio.timeout(DEADLINE_SECONDS):
        await reader.readuntil(b"\r\n\r\n0")
        writer.write(lines)
        assert await reader.read() == b""
    writer.close()


async def test_an_idle_connection_that_sends_another_request_is_not_ended_within_it() -> None:
    protocol, reader, writer = await connected(measure)
    protocol.data_received(GET)
    async with asyncio.timeout(DEADLINE_SECONDS):
        await reader.readuntil(b"\r\n\r\n0")
        protocol.data_received(b"\r\n")
        assert protocol.timeout_keep_alive_task is not None
        protocol.data_received(b"G")
        assert protocol.timeout_keep_alive_task is None
        protocol.data_received(GET[1:])
        await reader.readuntil(b"\r\n\r\n0")
    protocol.transport.abort()
    writer.close()


async def test_a_request_that_begins_before_the_former_response_is_complete_is_not_ended_as_idle() -> (
    None
):
    complete, done = asyncio.Event(), asyncio.Event()

    async def wait(scope: Scope, receive: Receive, send: Send) -> None:
        await complete.wait()
        await measure(scope, receive, send)
        done.set()

    protocol, reader, writer = await connected(wait)
    protocol.data_received(GET + GET[:5])
    complete.set()
    async with asyncio.timeout(DEADLINE_SECONDS):
        await reader.readuntil(b"\r\n\r\n0")
        await done.wait()
        complete.clear()
        protocol.data_received(GET[5:])
        assert protocol.timeout_keep_alive_task is None
        complete.set()
        await reader.readuntil(b"\r\n\r\n0")
        assert protocol.timeout_keep_alive_task is not None
    protocol.transport.abort()
    writer.close()


async def test_a_connection_is_idle_from_the_end_of_a_request_that_was_answered_before_it() -> None:
    """As where a page takes no body: otherwise the connection would stay open without a deadline."""
    protocol, reader, writer = await connected(path)
    protocol.timeout_keep_alive = 1
    protocol.data_received(b"POST /1 HTTP/1.1\r\nContent-Length: 2\r\n\r\nx")
    async with asyncio.timeout(DEADLINE_SECONDS):
        await reader.readuntil(b">")
        assert protocol.timeout_keep_alive_task is None
        protocol.data_received(b"x")
        assert protocol._deadline is None
        assert await reader.read() == b""
    writer.close()
