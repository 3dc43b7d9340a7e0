"""The client's HTTP: responses as servers and proxies send them, and connections that are used again."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from itertools import count

import pytest

from notifier.client import Client, Status, connect, http_reader
from notifier.client import arrivals as client_arrivals
from notifier.client.http import HttpConnection, HttpError
from notifier.client.http_requests import Failure, check, http_url, path_of
from tests.servers import Serve, listening
from tests.waiting import until

EVENT_STREAM = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"


@asynccontextmanager
async def serving(*connections: Sequence[bytes]) -> AsyncIterator[tuple[str, list[bytes]]]:
    """A server that gives each connection these responses, then closes it. Yields its URL, and the requests."""
    requests: list[bytes] = []
    waiting = list(connections)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for response in waiting.pop(0) if waiting else ():
            requests.append(await reader.readuntil(b"\r\n\r\n"))
            writer.write(response)

    async with listening(serve) as port:
        yield f"http://127.0.0.1:{port}/base/", requests


@pytest.mark.parametrize(
    ("response", "expected"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc", b"abc"),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n2\r\nbc\r\n0\r\n\r\n",
            b"abc",
        ),
        (b"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\na", b"a"),
        (b"HTTP/1.0 200 OK\r\n\r\nuntil the end", b"until the end"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc", None),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 11\r\n\r\nmore than 10", None),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab", None),
        (b"SSH-2.0-OpenSSH\r\n\r\n", None),
        (b"", None),
    ],
)
async def test_a_response_is_whole_or_an_error(response: bytes, expected: bytes | None) -> None:
    async with serving([response]) as (url, requests):
        connection = HttpConnection(url)
        if expected is None:
            with pytest.raises(HttpError):
                await (await connection.get("a?b=c", {"X": "y"})).read(10)
        else:
            found = await connection.get("a?b=c", {"X": "y"})
            assert (found.status, await found.read(20)) == (200, expected)
        connection.close()
        assert requests[0].startswith(b"GET /base/a?b=c HTTP/1.1\r\nHost: 127.0.0.1:")
        assert b"\r\nX: y\r\n" in requests[0]


async def test_a_connection_is_used_again_and_replaced_where_the_server_has_closed_it() -> None:
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\na"
    async with serving([answer, answer], [answer]) as (url, requests):
        connection = HttpConnection(url)
        for _ in range(3):
            assert await (await connection.get("", {})).read(1) == b"a"
        assert len(requests) == 3
        connection.close()


async def test_a_refusal_is_what_its_problem_document_states() -> None:
    body = b'{"code": "too_many", "detail": "too many connections"}'
    head = b"HTTP/1.1 429 Too Many Requests\r\nRetry-After: 7\r\nContent-Length: %d\r\n\r\n"
    others = b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 6\r\n\r\n<html>"
    async with serving([head % len(body) + body], [others]) as (url, _):
        connection = HttpConnection(url)
        with pytest.raises(Failure, match="too many connections") as refused:
            await check(await connection.get("", {}))
        data = {"Code": 4429, "Reason": "too many connections", "Reconnect": True}
        assert refused.value.farewell == {**data, "RetryAfterMs": 7000}
        connection.close()
        with pytest.raises(Failure, match="HTTP 502") as unknown:
            await check(await connection.get("", {}))
        assert unknown.value.farewell is None
        connection.close()


async def test_each_poll_proves_the_position_with_the_time_of_its_message() -> None:
    page = (
        b'{"CompanyId":"c","Messages":[],"Position":4,"Epoch":"e","At":"2026-11-30T00:00:00+00:00"}'
    )
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(page), page)
    async with serving([answer, b""]) as (url, requests):
        client = connect(f"ws{url.removeprefix('http')}", lambda: "t", "c", transport="poll")

        async def take() -> None:
            async for _ in client:
                pass

        async def has_polled_twice() -> bool:
            return len(requests) > 1

        async with client:
            taking = asyncio.create_task(take())
            await until(has_polled_twice)
        await taking
    first, second = (each.split()[1] for each in requests[:2])
    assert b"after" not in first
    assert b"after=4&epoch=e&at=2026-11-30T00%3A00%3A00%2B00%3A00&" in second


BEGUN = (
    b"HTTP/1.1 200 OK\r\nContent-Length: 56\r\n\r\n"
    b'{"CompanyId":"c","Messages":[],"Position":4,"Epoch":"e"}'
)
"""The answer of a poll without a position."""


def poll(position: int, *transactions: str) -> bytes:
    """The answer of a poll: the position, and a message of each transaction up to it."""
    first = position - len(transactions) + 1
    messages = [
        {"Type": "EventUpdated", "Data": {"CompanyId": "c"}, "Position": first + n, "Tx": tx}
        for n, tx in enumerate(transactions)
    ]
    place = {"Position": position, "Epoch": "e", "Recovered": True}
    page = json.dumps({"CompanyId": "c", **place, "Messages": messages}).encode()
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(page), page)


async def test_a_new_token_that_has_expired_too_is_not_replaced_without_a_wait() -> None:
    """As where the clock of the server is ahead: each attempt would request another token at once."""
    problem = b'{"code":"token_expired"}'
    refusal = b"HTTP/1.1 401 Unauthorized\r\nContent-Length: %d\r\n\r\n%b" % (len(problem), problem)
    tokens = (f"t{number}" for number in count())
    async with serving([BEGUN, refusal], *[[refusal]] * 9) as (url, requests):
        address = f"ws{url.removeprefix('http')}"
        async with connect(address, lambda: next(tokens), "c", transport="poll") as client:
            async for report in client:
                if isinstance(report, Status) and report.state == "waiting":
                    assert report.code == 4419
                    break
        assert len(requests) == 3


async def test_polls_that_are_answered_at_once_without_messages_are_spaced(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As by a cache that does not respect `no-store`."""
    slept: list[float] = []
    sleep = asyncio.sleep

    async def record(seconds: float) -> None:
        slept.append(seconds)
        await sleep(seconds)

    monkeypatch.setattr(asyncio, "sleep", record)
    monkeypatch.setattr(http_reader, "PAUSE_SECONDS", 0.0123)
    async with serving([BEGUN, *[poll(4)] * 4]) as (url, requests):
        address = f"ws{url.removeprefix('http')}"
        async with connect(address, lambda: "t", "c", transport="poll") as client:
            async for report in client:
                if isinstance(report, Status) and report.state == "waiting":
                    break
    assert len(requests) == 5
    assert slept.count(0.0123) == 4


@pytest.mark.parametrize("value", [b"9" * 400, b"-1", b"Mon, 30 Nov 2026 00:00:00 GMT"])
async def test_a_retry_after_that_is_no_number_of_seconds_is_none(value: bytes) -> None:
    problem = b'{"code":"too_many"}'
    head = b"HTTP/1.1 429 Too Many Requests\r\nRetry-After: %b\r\nContent-Length: %d\r\n\r\n"
    async with serving([head % (value, len(problem)) + problem]) as (url, _):
        connection = HttpConnection(url)
        with pytest.raises(Failure) as refused:
            await check(await connection.get("", {}))
        connection.close()
    assert refused.value.farewell == {"Code": 4429, "Reason": "HTTP 429", "Reconnect": True}


@asynccontextmanager
async def following(serve: Serve) -> AsyncIterator[Client]:
    """A client that takes the messages of a stream from a server with this function."""
    async with listening(serve) as port:
        async with connect(f"ws://127.0.0.1:{port}", lambda: "t", "c", transport="sse") as client:

            async def take() -> None:
                async for _ in client:
                    pass

            taking = asyncio.create_task(take())
            yield client
        await taking


async def test_a_transaction_has_arrived_when_a_poll_from_its_message_on_has_no_other() -> None:
    streamed = (
        b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"
        b'data: {"Type":"SubscribeResult","Success":true,"Data":{"CompanyId":"c","Position":4,"Epoch":"e"}}\n\n'
        b'data: {"Type":"EventUpdated","Data":{"CompanyId":"c"},"Position":5,"Tx":"7"}\n\n'
    )
    last = b'data: {"Type":"EventUpdated","Data":{"CompanyId":"c"},"Position":6,"Tx":"7"}\n\n'
    polls, requests = [poll(6, "7"), poll(6)], list[str]()
    confirmed = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        requests.append(head.split()[1])
        if "event-stream" in head:
            writer.write(streamed)
            await confirmed.wait()
            writer.write(last)
            await reader.read()
        else:
            writer.write(polls.pop(0))

    async def has_polled() -> bool:
        return len(requests) == 2

    async with following(serve) as client:
        arriving = asyncio.create_task(client.arrived(7))
        await until(has_polled)
        assert not arriving.done()
        confirmed.set()
        assert await arriving == 6
    assert [request.partition("?")[2] for request in requests[1:]] == [
        "after=5&epoch=e&wait=0",
        "after=6&epoch=e&wait=0",
    ]


def test_the_path_has_the_id_as_one_segment_and_the_filter() -> None:
    request = {"companyId": "team:7/ä", "entities": ["Event"], "where": {"Event": {"A": [None]}}}
    assert path_of(request, {"after": 4, "epoch": "e", "at": None}, {"wait": 0}) == (
        "companies/team%3A7%2F%C3%A4/messages?after=4&epoch=e&wait=0&entities=Event"
        "&where=%7B%22Event%22%3A+%7B%22A%22%3A+%5Bnull%5D%7D%7D"
    )
    assert http_url("wss://a.example:9/x/?token=1") == "https://a.example:9/x/"


@pytest.mark.parametrize(
    "response",
    [
        b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 100_000,
        b"HTTP/1.1 200 OK\r\nX: " + b"y" * 400_000,
        b"HTTP/1.1 103 Early Hints\r\n\r\n" * 20_000,
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n" + b"X: y\r\n" * 100_000,
    ],
    ids=["headers", "a header", "informational responses", "trailers"],
)
async def test_a_head_or_trailers_without_end_are_not_collected(response: bytes) -> None:
    async with serving([response]) as (url, _):
        connection = HttpConnection(url)
        with pytest.raises(HttpError, match="without end"):
            await (await connection.get("", {})).read(1000)
        connection.close()


@pytest.mark.parametrize(
    "lines",
    [
        b"data:" + b"x" * http_reader.EVENT_BYTES,
        b"data: x\r\n" * (http_reader.EVENT_BYTES // 8),
        b"data:\n" * (http_reader.EVENT_BYTES // 4),
    ],
    ids=["a line", "lines", "empty lines"],
)
async def test_an_event_without_end_is_not_collected(lines: bytes) -> None:
    async with serving([EVENT_STREAM + lines]) as (url, _):
        connection = HttpConnection(url)
        response = await connection.get("", {})
        with pytest.raises(Failure, match="unreadable message"):
            async for _ in http_reader._events(response):
                pass
        connection.close()


async def test_events_may_come_in_any_pieces() -> None:
    text = b": c\n\nid: 1\r\ndata: {\r\ndata: }\r\n\r\n\ndata:2\n\n:\n\n"
    chunks = b"".join(b"1\r\n%c\r\n" % letter for letter in text)
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    for response in (EVENT_STREAM + text, head + chunks + b"0\r\n\r\n"):
        async with serving([response]) as (url, _):
            connection = HttpConnection(url)
            found = [each async for each in http_reader._events(await connection.get("", {}))]
            assert found == [None, b"{\n}", b"2", None]
            connection.close()


DEEP = b"[" * 2_000 + b"]" * 2_000
UPGRADE = b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\n"


async def test_what_is_no_answer_to_a_request_is_an_error_of_the_link() -> None:
    problem = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: %d\r\n\r\n" % len(DEEP)
    async with serving([UPGRADE], [problem + DEEP]) as (url, _):
        connection = HttpConnection(url)
        with pytest.raises(HttpError, match="another protocol"):
            await connection.get("", {})
        with pytest.raises(Failure, match="HTTP 503"):
            await check(await connection.get("", {}))
        with pytest.raises(HttpError, match="a character"):
            await connection.get("", {"Authorization": "Bearer €"})
        connection.close()


def page_with(messages: bytes) -> bytes:
    body = b'{"CompanyId":"c","Position":4,"Epoch":"e","Recovered":true,"Messages":[%b]}' % messages
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)


async def test_a_page_that_is_nested_too_deeply_is_an_unreadable_message() -> None:
    message = b'{"Type":"EventCreated","Position":5,"Data":%b}' % DEEP
    async with (
        serving([page_with(b""), page_with(message)]) as (url, _),
        connect(url.replace("http", "ws"), lambda: "t", "c", transport="poll") as client,
    ):
        async for report in client:
            if isinstance(report, Status) and report.state == "waiting":
                assert report.reason == "unreadable message"
                break


@pytest.mark.parametrize(
    "answer", [UPGRADE, page_with(DEEP)], ids=["an upgrade", "a page that is nested too deeply"]
)
async def test_a_log_that_cannot_be_read_for_an_arrival_is_read_again(
    answer: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_arrivals, "RETRY_SECONDS", 0)
    streamed = (
        EVENT_STREAM
        + b'data: {"Type":"SubscribeResult","Success":true,"Data":{"CompanyId":"c","Position":4,"Epoch":"e"}}\n\n'
        b'data: {"Type":"EventUpdated","Data":{"CompanyId":"c"},"Position":5,"Tx":"7"}\n\n'
    )
    polls = [answer, page_with(b"")]

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if b"event-stream" in await reader.readuntil(b"\r\n\r\n"):
            writer.write(streamed)
            await reader.read()
        else:
            writer.write(polls.pop(0))

    async with following(serve) as client:
        assert await client.arrived(7) == 5
    assert polls == []
