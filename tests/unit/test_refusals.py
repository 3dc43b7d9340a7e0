"""Refused handshakes: what is answered, counted and logged."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest
from starlette.applications import Starlette
from structlog.testing import capture_logs
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from notifier.transport import http_guard
from notifier.transport.http_guard import HEAD_BYTES
from notifier.transport.keepalive import Keepalive
from notifier.transport.refusals import EXPLANATIONS, FORGET_SECONDS, LOGGED_LIMIT, Reason, Refusals
from notifier.transport.websocket import Options, WebSocketProtocol
from tests.unit.connections import connected
from tests.unit.door import UPGRADE, open_door, refused, request
from tests.waiting import until


def test_every_reason_is_counted_from_the_start_and_explained() -> None:
    for reason in Reason:
        assert refused(reason) >= 0
        assert "\n" not in EXPLANATIONS[reason]


def test_a_refusal_is_logged_once_for_a_reason_and_an_address_until_it_is_forgotten() -> None:
    now = 0.0
    refusals = Refusals(lambda: now)
    with capture_logs() as logs:
        for host in ("192.0.2.1", "192.0.2.1", "192.0.2.2", "2001:db8::1", "2001:db8::2", None):
            refusals.record(Reason.ORIGIN, host, origin="https://a.example")
        refusals.record(Reason.PATH, "192.0.2.1", path="x" * 10_000)
    assert [(line["reason"], line["address"]) for line in logs] == [
        ("origin", "192.0.2.1"),
        ("origin", "192.0.2.2"),
        ("origin", "2001:db8::"),
        ("origin", "unknown"),
        ("path", "192.0.2.1"),
    ]
    assert len(logs[-1]["path"]) < 1000
    now = FORGET_SECONDS
    with capture_logs() as logs:
        refusals.record(Reason.ORIGIN, "192.0.2.1")
    assert len(logs) == 1


def test_addresses_without_end_neither_fill_the_log_nor_the_memory() -> None:
    refusals = Refusals()
    with capture_logs() as logs:
        for number in range(2 * LOGGED_LIMIT):
            refusals.record(Reason.PATH, f"host{number}")
    assert len(logs) == len(refusals._logged) == LOGGED_LIMIT


@pytest.mark.parametrize(
    ("origins", "origin", "status"),
    [
        (None, "https://any.example", 101),
        ("*", "https://any.example", 101),
        ("https://app.example/", "https://app.example", 101),
        ("HTTPS://App.example:443", "https://app.example", 101),
        ("https://app.example", "https://other.example", 403),
        ("https://app.example", "http://app.example", 403),
        ("https://app.example", "https://app.example:8443", 403),
        ("https://app.example", "null", 403),
    ],
)
async def test_case_e4_a_refused_origin_is_answered_counted_and_logged(
    origins: str | None, origin: str, status: int
) -> None:
    async with open_door(allowed_origins=origins) as door:
        before = refused(Reason.ORIGIN)
        with capture_logs() as logs:
            for _ in range(2):
                answer = await door.send(
                    request(headers=UPGRADE + f"Origin: {origin}\r\n".encode())
                )
        assert answer.startswith(b"HTTP/1.1 %d " % status)
        lines = [line for line in logs if line["event"] == "handshake refused"]
        if status == 403:
            assert b"ALLOWED_ORIGINS" in answer
            assert refused(Reason.ORIGIN) == before + 2
            assert [line["origin"] for line in lines] == [origin]
        else:
            assert not lines


@pytest.mark.parametrize(
    "header",
    [
        b"Cookie: sso=" + b"x" * 40_000 + b"\r\n",
        b"X-Many: 1\r\n" * 990,
        b"Sec-WebSocket-Protocol: " + b"t" * 16_000 + b"\r\n",
        b"Cookie: \xe9t\xe9\r\n",
    ],
    ids=["one long line", "many lines", "a token as a subprotocol", "ISO-8859-1"],
)
async def test_case_e2_a_handshake_may_have_64_kib_of_headers(header: bytes) -> None:
    async with open_door() as door:
        assert await door.status(request(headers=UPGRADE + header)) == 101
        assert await door.status(request(headers=header + UPGRADE)) == 101


async def test_case_e2_a_handshake_may_have_a_query_of_that_size_and_nothing_may_be_larger() -> (
    None
):
    async with open_door() as door:
        assert await door.status(request("/?q=" + "x" * 40_000)) == 101
        before = refused(Reason.TOO_LARGE)
        with capture_logs() as logs:
            for headers in (b"X: " + b"x" * HEAD_BYTES + b"\r\n", b"X: 1\r\n" * 20_000):
                answer = await door.send(request(headers=UPGRADE + headers))
                assert answer.startswith(b"HTTP/1.1 431 ")
                assert b"64 KiB" in answer
        assert refused(Reason.TOO_LARGE) == before + 2
        assert len([line for line in logs if line["event"] == "handshake refused"]) == 1


async def test_case_e2_the_address_of_the_client_is_logged_where_a_trusted_proxy_names_it() -> None:
    async with open_door(allowed_origins="https://a.example", trusted_proxies="127.0.0.1") as door:
        headers = UPGRADE + b"Origin: https://b.example\r\nX-Forwarded-For: 192.0.2.7\r\n"
        with capture_logs() as logs:
            assert await door.status(request(headers=headers)) == 403
        (line,) = [line for line in logs if line["event"] == "handshake refused"]
        assert line["address"] == "192.0.2.7"


@pytest.mark.parametrize(
    ("first", "reason", "word"),
    [
        (b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n", Reason.PROXY_PROTOCOL, b"PROXY protocol"),
        (b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c" + bytes(12), Reason.PROXY_PROTOCOL, b"send-proxy"),
        (b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03", Reason.TLS, b"TLS"),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", Reason.HTTP2, b"HTTP/2"),
        (b"\0\1\2\3", Reason.NOT_HTTP, b"not HTTP"),
        (b"SSH-2.0-OpenSSH_9.6\r\n", Reason.NOT_HTTP, b"not HTTP"),
    ],
    ids=["PROXY v1", "PROXY v2", "TLS", "HTTP/2", "binary", "ssh"],
)
async def test_another_protocol_is_named_in_the_answer_the_log_and_the_metric(
    first: bytes, reason: Reason, word: bytes
) -> None:
    async with open_door() as door:
        before = refused(reason)
        with capture_logs() as logs:
            answer = await door.send(first + request())
            await door.send(first)
        assert answer.startswith(b"HTTP/1.1 ")
        assert word in answer
        assert refused(reason) == before + 2
        (line,) = [line for line in logs if line["event"] == "handshake refused"]
        assert line["reason"] == reason.value


async def test_an_unfinished_request_is_counted_and_a_silent_connection_is_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(http_guard, "REQUEST_SECONDS", 0.1)
    async with open_door() as door:
        before = refused(Reason.TIMEOUT)
        assert await door.send() == b""
        monkeypatch.setattr(http_guard, "REQUEST_SECONDS", 2.0)  # in which the request must come
        assert await door.send(b"GET / HTTP/1.1\r\nX: ") == b""

        async def counted() -> bool:
            return refused(Reason.TIMEOUT) == before + 1

        await until(counted)


async def test_a_handshake_that_websockets_refuses_is_counted() -> None:
    async with open_door() as door:
        before = refused(Reason.INVALID)
        old = UPGRADE.replace(b"Version: 13", b"Version: 8")
        assert await door.status(request(headers=old)) == 400
        assert await door.status(request(headers=UPGRADE, method="POST")) in (400, 405)
        assert refused(Reason.INVALID) == before + 2


BODIES = {
    b"Content-Length: 5\r\n": b"hello",
    b"Transfer-Encoding: chunked\r\n": b"5\r\nhello\r\n0\r\n\r\n",
    b"Transfer-Encoding: identity\r\n": b"",
    b"Expect: 100-continue\r\nContent-Length: 5\r\n": b"",
}


@pytest.mark.parametrize("header", BODIES)
async def test_a_handshake_with_a_body_is_answered_counted_and_logged(
    header: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_door() as door:
        before = refused(Reason.UPGRADE)
        with capture_logs() as logs:
            for headers in (UPGRADE + header, header + UPGRADE):
                answer = await door.send(request(headers=headers) + BODIES[header])
                assert answer.startswith(b"HTTP/1.1 400 ")
                assert EXPLANATIONS[Reason.UPGRADE].encode() in answer
        assert refused(Reason.UPGRADE) == before + 2
        assert [line["reason"] for line in logs if "reason" in line] == ["upgrade"]
        assert not caplog.records


@pytest.mark.parametrize("length", [b"0", b"00", b" 0 "])
async def test_a_handshake_whose_body_is_empty_is_accepted(length: bytes) -> None:
    """As some proxies send it."""
    async with open_door() as door:
        assert (
            await door.status(request(headers=UPGRADE + b"Content-Length:%b\r\n" % length)) == 101
        )


async def test_a_handshake_that_cannot_be_read_is_answered_under_uvicorns_own_http() -> None:
    """As in an application that mounts Notifier and has its server-sent events from uvicorn."""
    protocol, reader, writer = await connected(Starlette(), cast("Any", HttpToolsProtocol))
    options = Options(Refusals(), Keepalive(25))
    cast("Any", protocol).ws_protocol_class = WebSocketProtocol.configured(options)
    before = refused(Reason.INVALID)
    protocol.data_received(request(headers=UPGRADE + b"Content-Length: 5\r\n"))
    async with asyncio.timeout(20):
        answer = await reader.read()
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert EXPLANATIONS[Reason.INVALID].encode() in answer
    assert refused(Reason.INVALID) == before + 1
    writer.close()
