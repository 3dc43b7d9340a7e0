"""The members of nats-py that `notifier/nats/client.py` overrides or uses: another version may lack them."""

from __future__ import annotations

import asyncio
import inspect
import json
from urllib.parse import urlparse

import pytest
from nats.aio import client as library
from nats.errors import ProtocolError
from nats.protocol.parser import Parser

from notifier.nats import client as ours
from notifier.nats.client import NatsClient


def test_the_overridden_members_are_there_with_these_parameters() -> None:
    for name, parameters in {
        "_process_msg": ["self", "sid", "subject", "reply", "data", "headers"],
        "_process_info": ["self", "info", "initial_connection"],
        "_send_ping": ["self", "future"],
    }.items():
        for owner in (library.Client, NatsClient):
            assert list(inspect.signature(getattr(owner, name)).parameters) == parameters


def test_the_members_that_are_used_are_there() -> None:
    client = library.Client()
    assert (client._pongs, client._transport, client._current_server) == ([], None, None)
    assert client._public_nkey is None
    for name in ("_send_command", "_flush_pending"):
        assert inspect.iscoroutinefunction(getattr(client, name))
    assert library.PING_PROTO == b"PING\r\n"
    assert isinstance(client._ps, Parser)
    assert inspect.iscoroutinefunction(client._ps.parse)
    assert (client._ps.needed, len(client._ps.buf)) == (0, 0)


async def test_a_ping_is_sent_behind_the_commands_that_wait() -> None:
    client = NatsClient(lambda *_: None)
    client._flush_queue = asyncio.Queue()
    await client._send_command(b"SUB a  1\r\n")
    await client._send_ping()
    assert client._pending == [b"SUB a  1\r\n", b"PING\r\n"]


async def test_an_answer_that_comes_too_late_does_no_harm() -> None:
    client = NatsClient(lambda *_: None)
    client._flush_queue = asyncio.Queue()
    assert not await client.answers(0)
    await client._process_pong()
    answering = asyncio.create_task(client.answers(30))
    while not client._pongs:  # noqa: ASYNC110 - it comes within this turn of the loop
        await asyncio.sleep(0)
    await client._process_pong()
    assert await answering


async def test_a_function_that_fails_ends_the_connection_instead_of_its_reading() -> None:
    def fail(subject: str, payload: bytes, headers: bytes) -> None:
        raise ValueError

    client = NatsClient(fail)
    await client._process_msg(1, b"a", b"", b"", None)
    assert client.ended.is_set()
    assert client.reason == "a message could not be processed"


@pytest.mark.parametrize(
    "sent",
    [b"INFO {not JSON}\r\n", b"INFO \xff\r\n", b"-ERR '\xff'\r\n", b"HTTP/1.1 400\r\n"],
    ids=["no JSON", "no UTF-8", "an error that is no UTF-8", "another protocol"],
)
async def test_what_is_not_the_protocol_ends_the_connection(sent: bytes) -> None:
    """An exception of another class would be logged with its traceback."""
    client = NatsClient(lambda *_: None)
    with pytest.raises(ProtocolError):
        await client._ps.parse(sent)


@pytest.mark.parametrize(
    "head", [b"MSG a 1 999999999999\r\n", b"HMSG a 1 9 99999999\r\n", b"INFO "]
)
async def test_a_message_or_line_without_end_is_not_collected(
    head: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ours, "RECEIVED_BYTES", 100_000)
    client = NatsClient(lambda *_: None)
    with pytest.raises(ProtocolError):
        await client._ps.parse(head + b"x" * 100_001)
    assert len(client._ps.buf) == 0


async def test_the_largest_message_of_nats_is_received() -> None:
    received: list[int] = []
    client = NatsClient(lambda _, payload, __: received.append(len(payload)))
    size = 1 << 20
    await client._ps.parse(b"MSG a 1 %d\r\n" % size)
    await client._ps.parse(b"x" * size + b"\r\n")
    assert received == [size]


@pytest.mark.parametrize("size", ["null", '"1048576"', "true", "[]", "1.5", "0", "-1"])
async def test_a_server_that_names_no_size_of_messages_is_not_used(size: str) -> None:
    """The publisher computes with it, outside of what it catches."""
    client = NatsClient(lambda *_: None)
    client._current_server = library.Srv(urlparse("nats://127.0.0.1:4222"))
    with pytest.raises(ProtocolError):
        await client._process_info({"max_payload": json.loads(size)})


async def test_servers_that_a_server_names_are_not_collected() -> None:
    """The library compares each of them with each one that it has: two lines would occupy it for hours."""
    client = NatsClient(lambda *_: None)
    client._current_server = library.Srv(urlparse("nats://127.0.0.1:4222"))
    client.options = {"dont_randomize": True}
    await client._process_info({"connect_urls": [f"10.0.0.1:{port}" for port in range(1, 100)]})
    assert client._server_pool == []
