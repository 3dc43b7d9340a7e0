"""Server-sent events: their bytes, and a stream on a transport of asyncio's."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime
from typing import Any, cast

import pytest
from uvicorn.server import ServerState

from notifier.delivery.encoding import EVENT_CHUNKS, EVENTS, event
from notifier.delivery.subscription import Subscription
from notifier.errors import Expired, TooSlow
from notifier.messages import Message, Subscribed, SubscribeResult, at_text
from notifier.transport import events, queues
from notifier.transport.events import EventStream, place
from notifier.transport.http_guard import GuardedHttp
from tests.waiting import DEADLINE_SECONDS, until

AT = datetime(2026, 11, 22, 18, 0, 0, 123456, UTC)


def message(position: int, body: bytes = b'{"a":1}') -> Message:
    return Message(position, "c", position, AT, AT, body)


def body(data: bytes) -> bytes:
    """What a client reads of chunks, which must be complete."""
    whole = b""
    while data:
        size, _, data = data.partition(b"\r\n")
        length = int(size, 16)
        whole += data[:length]
        assert data[length : length + 2] == b"\r\n"
        data = data[length + 2 :]
    return whole


def test_an_event_has_the_place_and_the_text_of_its_message() -> None:
    expected = (
        b'id: e:7:2026-11-22T18:00:00.123456+00:00\ndata: {"a":1}\n\n'
        b'id: e:8:2026-11-22T18:00:00.123456+00:00\ndata: {"a":1}\n\n'
    )
    assert EVENTS.frames([message(7), message(8)], "e") == expected
    chunks = EVENT_CHUNKS.frames([message(7), message(8)], "e")
    assert body(chunks) == expected
    assert chunks == b"".join(EVENT_CHUNKS.frames([message(each)], "e") for each in (7, 8))


def test_the_id_of_an_answer_has_the_time_of_the_message_at_its_position() -> None:
    answer = Subscribed(company_id="c", position=7, epoch="e", at=at_text(AT))
    assert EVENTS.frames([message(7)], "e").startswith(b"id: %b\n" % place(answer).encode())
    assert place(Subscribed(company_id="c", position=0, epoch="e")) == "e:0"


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
def test_a_text_of_several_lines_keeps_its_meaning(end: bytes) -> None:
    text = b'{"a":' + end + end + b" [1," + end + b"2]}"
    lines = event(text).removesuffix(b"\n\n").split(b"\n")
    assert all(line.startswith(b"data: ") for line in lines)
    assert b"\r" not in event(text)
    data = b"\n".join(line.removeprefix(b"data: ") for line in lines)
    assert json.loads(data) == {"a": [1, 2]}


class Wire:
    """A transport of asyncio's that nothing drains."""

    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.closing = False
        self.abortion = asyncio.Event()

    def write(self, data: bytes) -> None:
        assert not self.closing
        self.written.append(data)

    def set_write_buffer_limits(self, high: int, low: int) -> None:
        assert low < high

    def get_write_buffer_size(self) -> int:
        return sum(map(len, self.written))

    def get_extra_info(self, _name: str) -> Any:
        return None

    def is_closing(self) -> bool:
        return self.closing

    def close(self) -> None:
        self.closing = True

    def abort(self) -> None:
        self.abortion.set()


class Protocol:
    """What a stream uses of uvicorn's protocol."""

    def __init__(self) -> None:
        self.transport = Wire()
        self.loop = asyncio.get_running_loop()
        self.server_state = ServerState()
        self.server_state.default_headers = [(b"date", b"Sun, 22 Nov 2026 18:00:00 GMT")]
        self.streams: list[EventStream] = []
        self.stream = self.streams.append


class Listener:
    def __init__(self) -> None:
        self.reports: list[str] = []

    def paused(self) -> None:
        self.reports.append("paused")

    def resumed(self) -> None:
        self.reports.append("resumed")

    def closed(self) -> None:
        self.reports.append("closed")


def opened(max_buffer: int = 10_000, *, chunked: bool = True) -> tuple[EventStream, Wire, Listener]:
    protocol, listener = Protocol(), Listener()
    stream = EventStream(
        cast("GuardedHttp", protocol), max_buffer, {"Vary": "Origin"}, chunked=chunked
    )
    stream.listener = listener
    data = Subscribed(company_id="c", position=41, epoch="e")
    stream.begin(SubscribeResult(success=True, data=data), cast("Subscription", None))
    assert protocol.streams == [stream]
    return stream, protocol.transport, listener


async def test_the_response_begins_with_its_head_and_the_answer() -> None:
    stream, wire, _ = opened()
    head, _, rest = wire.written[0].partition(b"\r\n\r\n")
    lines = head.decode().lower().split("\r\n")
    assert lines[0] == "http/1.1 200 ok"
    assert {
        "content-type: text/event-stream; charset=utf-8",
        "cache-control: no-store, no-transform",
        "x-accel-buffering: no",
        "transfer-encoding: chunked",
        "connection: close",
        "vary: origin",
        "date: sun, 22 nov 2026 18:00:00 gmt",
    } == set(lines[1:])
    assert body(rest).startswith(b'id: e:41\ndata: {"Type":"SubscribeResult","Success":true,')
    assert stream.write_direct == wire.write
    stream.closed()


async def test_a_client_without_chunks_gets_events_up_to_the_end_of_the_connection() -> None:
    stream, wire, _ = opened(chunked=False)
    stream.end(Expired())
    head, _, events = b"".join(wire.written).partition(b"\r\n\r\n")
    assert b"transfer-encoding" not in head.lower()
    assert b"connection: close" in head.lower()
    data = [line for line in events.split(b"\n") if line.startswith(b"data: ")]
    kinds = [json.loads(line.removeprefix(b"data: "))["Type"] for line in data]
    assert kinds == ["SubscribeResult", "Disconnect"]
    assert events.endswith(b"\n\n")
    stream.closed()


async def test_a_stream_under_back_pressure_has_no_direct_write() -> None:
    stream, wire, listener = opened()
    stream.paused()
    assert stream.write_direct is None
    draining = asyncio.create_task(stream.drain())
    await asyncio.sleep(0)
    assert not draining.done()
    stream.resumed()
    await draining
    assert stream.write_direct == wire.write
    assert listener.reports == ["paused", "resumed"]
    stream.closed()


async def test_more_than_the_cap_ends_the_stream() -> None:
    stream, wire, listener = opened(max_buffer=1000)
    stream.write(b"x" * 1000, ())
    assert listener.reports == ["closed"]
    assert b'"Code":4508' in wire.written[-2]
    assert wire.written[-1] == b"0\r\n\r\n"
    assert wire.closing
    count = len(wire.written)
    stream.write(b"more", ())
    assert len(wire.written) == count
    stream.closed()


async def test_one_message_that_is_larger_than_the_cap_ends_no_stream() -> None:
    """A client that was closed for it would resume before it."""
    stream, wire, listener = opened(max_buffer=1000)
    stream.write(b"x" * 5000, ())
    assert listener.reports == []
    stream.write(b"x" * (1000 - len(wire.written[0])), ())
    stream._comment()
    assert listener.reports == ["closed"]
    assert wire.closing
    stream.closed()


@pytest.mark.parametrize("direct", [False, True])
async def test_what_follows_a_message_that_is_larger_than_the_cap_ends_no_stream(
    direct: bool,
) -> None:
    """A comment, for one, comes while the client reads the message. Once it has, the cap holds again."""
    stream, wire, listener = opened(max_buffer=1000)
    assert stream.write_direct is not None
    wire.written.clear()
    if direct:
        stream.write_direct(b"x" * 5000)
    else:
        stream.write(b"x" * 5000, ())
    stream.paused()
    for _ in range(3):
        stream._comment()
    stream.write(b"x" * 400, ())
    assert listener.reports == ["paused"]
    wire.written.clear()
    stream.resumed()
    stream.write(b"x" * 1000, ())
    assert listener.reports == ["paused", "resumed"]
    stream.write(b"x", ())
    assert listener.reports == ["paused", "resumed", "closed"]
    stream.closed()


async def test_further_messages_that_are_larger_than_the_cap_end_the_stream() -> None:
    """Not more waits than one of them and the cap."""
    stream, wire, listener = opened(max_buffer=1000)
    wire.written.clear()
    stream.write(b"x" * 5000, ())
    stream.paused()
    stream.write(b"x" * 5000, ())
    assert listener.reports == ["paused", "closed"]
    stream.closed()


async def test_a_reader_that_does_not_drain_is_too_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queues, "DRAIN_SECONDS", 0)
    stream, _, _ = opened()
    stream.paused()
    with pytest.raises(TooSlow):
        await stream.drain()
    stream.closed()


async def test_a_stream_sends_one_disconnect_and_aborts_a_peer_that_does_not_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(events, "CLOSE_SECONDS", 0)
    stream, wire, _ = opened()
    stream.end(Expired())
    stream.end(Expired())
    sent = b"".join(wire.written)
    assert sent.count(b'"Type":"Disconnect"') == 1
    assert sent.endswith(b"\r\n0\r\n\r\n")
    async with asyncio.timeout(DEADLINE_SECONDS):
        await wire.abortion.wait()


async def test_comments_are_sent_until_the_connection_is_lost(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(events, "COMMENT_SECONDS", 0)
    stream, wire, _ = opened()

    async def commented() -> bool:
        return wire.written.count(b"3\r\n:\n\n\r\n") > 1

    await until(commented)
    stream.closed()
    count = len(wire.written)
    for _ in range(5):
        await asyncio.sleep(0)
    assert len(wire.written) == count


def test_a_comment_comes_at_least_every_15_seconds_and_a_dead_reader_is_found_in_45() -> None:
    assert events.COMMENT_SECONDS <= 15
    assert events.COMMENT_SECONDS + events.UNACKNOWLEDGED_MS / 1000 < 45


async def test_a_lost_connection_gets_no_further_writes() -> None:
    stream, wire, listener = opened()
    stream.closed()
    count = len(wire.written)
    stream.write(b"x", ())
    stream.end(Expired())
    assert len(wire.written) == count
    assert stream.write_direct is None
    assert listener.reports[0] == "closed"
