"""Which failures to connect are permanent, and what is printed of a URL."""

from __future__ import annotations

import asyncio
import socket
import ssl
from contextlib import AbstractAsyncContextManager
from http import HTTPStatus
from typing import Any

import pytest
import trustme
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.datastructures import Headers
from websockets.exceptions import InvalidStatus
from websockets.http11 import Request, Response

from notifier.client.closes import Disconnected
from notifier.client.pace import Pace
from notifier.client.sockets import check_url, describe_url, is_permanent, open_in_time, opener
from notifier.client.transports import Transports
from tests.servers import listening
from tests.waiting import DEADLINE_SECONDS


def status(code: int) -> InvalidStatus:
    return InvalidStatus(Response(code, "", Headers()))


@pytest.mark.parametrize("code", [200, 301, 400, 401, 403, 404, 405, 426])
def test_most_http_statuses_are_permanent(code: int) -> None:
    assert is_permanent(status(code))


@pytest.mark.parametrize("code", [408, 429, 500, 502, 503, 504])
def test_a_busy_or_failing_server_may_recover(code: int) -> None:
    assert not is_permanent(status(code))


@pytest.mark.parametrize(
    ("error", "permanent"),
    [
        (socket.gaierror(socket.EAI_NONAME, "unknown host"), True),
        (socket.gaierror(socket.EAI_AGAIN, "try again"), False),
        (ssl.SSLCertVerificationError(1, "self-signed certificate"), True),
        (ssl.SSLError(1, "wrong version number"), True),
        (ssl.SSLEOFError(8, "EOF"), False),
        (ConnectionRefusedError(), False),
        (ConnectionResetError(), False),
        (TimeoutError(), False),
        (None, False),
        ({"Code": "unavailable"}, False),
    ],
)
def test_which_other_errors_are_permanent(error: object, permanent: bool) -> None:
    assert is_permanent(error) is permanent


async def failure(url: str) -> object:
    with pytest.raises(Disconnected) as caught:
        await open_in_time(opener({"proxy": None}), url, 10)
    return caught.value.error


def answering(answer: bytes, tls: ssl.SSLContext | None = None) -> AbstractAsyncContextManager[int]:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(answer)

    return listening(serve, tls=tls)


@pytest.mark.parametrize(
    ("scheme", "answer", "permanent"),
    [
        ("ws", b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", True),
        ("ws", b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n", False),
        ("ws", b"SSH-2.0-OpenSSH_9.2\r\n", True),
        ("ws", b"", False),
        ("wss", b"HTTP/1.1 400 Bad Request\r\n\r\n", True),
    ],
)
async def test_what_servers_answer(scheme: str, answer: bytes, permanent: bool) -> None:
    async with answering(answer) as port:
        assert is_permanent(await failure(f"{scheme}://127.0.0.1:{port}/")) is permanent


async def test_an_untrusted_certificate_is_permanent() -> None:
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(tls)
    async with answering(b"", tls) as port:
        assert is_permanent(await failure(f"wss://127.0.0.1:{port}/"))


async def test_a_server_that_never_answers_is_left_in_time() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        with pytest.raises(Disconnected, match="no answer"):
            await open_in_time(opener({"proxy": None}), f"ws://127.0.0.1:{port}/", 0.01)


@pytest.mark.parametrize(
    ("url", "described"),
    [
        ("wss://user:secret@host:8181/x", "wss://host:8181/x"),
        ("wss://host/?token=secret", "wss://host/"),
        ("http://user:sec@ret@host/", "http://host/"),
        ("not a url", "not a url"),
    ],
)
def test_a_url_is_described_without_secrets(url: str, described: str) -> None:
    assert describe_url(url) == described


def test_a_wrong_url_is_an_error_without_secrets() -> None:
    with pytest.raises(ValueError, match=r"^http://host/ is not a ws:// or wss:// URL$"):
        check_url("http://user:secret@host/?secret")


async def test_a_redirect_is_not_followed_to_where_the_token_would_be_sent() -> None:
    received: list[Any] = []

    async def listen(socket: ServerConnection) -> None:
        received.append(socket)

    def redirect(connection: ServerConnection, _: Request) -> Response:
        answer = connection.respond(HTTPStatus.TEMPORARY_REDIRECT, "")
        answer.headers["Location"] = f"ws://localhost:{port(other)}/"
        return answer

    def port(server: Server) -> int:
        return int(next(iter(server.sockets)).getsockname()[1])

    async with (
        serve(listen, "127.0.0.1", 0) as other,
        serve(listen, "127.0.0.1", 0, process_request=redirect) as first,
    ):
        with pytest.raises(Disconnected, match="HTTP 307"):
            await open_in_time(opener({}), f"ws://127.0.0.1:{port(first)}/", DEADLINE_SECONDS)
    assert received == []


async def test_a_websocket_whose_answer_is_nested_too_deeply_does_not_work() -> None:
    """The client goes on over HTTP, and tries again later."""

    async def answer(socket: ServerConnection) -> None:
        await socket.recv()
        await socket.send("[" * 100_000)

    async with serve(answer, "127.0.0.1", 0) as server:
        url = f"ws://127.0.0.1:{next(iter(server.sockets)).getsockname()[1]}/"
        transports = Transports(url, "auto", pace=Pace(), open_websocket=opener({}))
        assert not await transports._websocket_works("token")
