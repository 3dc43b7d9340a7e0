"""What TCP knows about a peer, on connections of this machine."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import pytest

from notifier.transport.acknowledgement import acknowledges
from tests.waiting import until

NEVER, EVER = 0.0, 3600.0
"""Seconds within which no acknowledgement has come, or the last one."""

MORE_THAN_THE_KERNEL_TAKES = b"x" * 20_000_000


@asynccontextmanager
async def connection() -> AsyncIterator[tuple[asyncio.Transport, socket.socket]]:
    """The node's end, and the client's, which nothing reads."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        client = socket.create_connection(listening.getsockname())
        accepted, _ = listening.accept()
    with client:
        transport, _ = await asyncio.get_running_loop().connect_accepted_socket(
            asyncio.Protocol, accepted
        )
        yield transport, client
        transport.abort()


async def answers(expected: bool, ask: Callable[[], bool]) -> None:
    async def answered() -> bool:
        return ask() is expected

    await until(answered)


async def test_a_peer_that_has_acknowledged_everything_lives_however_long_ago_that_was() -> None:
    async with connection() as (transport, _):
        transport.write(b"a ping")
        await answers(True, partial(acknowledges, transport, NEVER))


async def test_a_peer_that_has_not_must_have_acknowledged_something_lately() -> None:
    async with connection() as (transport, _):
        transport.write(MORE_THAN_THE_KERNEL_TAKES)
        assert not acknowledges(transport, NEVER)
        assert acknowledges(transport, EVER)


async def test_what_the_kernel_keeps_is_not_acknowledged() -> None:
    async with connection() as (transport, client):
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 200_000)
        transport.write(b"x" * 150_000)
        assert not transport.get_write_buffer_size()
        assert not acknowledges(transport, NEVER)


@pytest.mark.parametrize("end", [lambda end: end.close(), lambda end: end.shutdown(1)])
async def test_a_peer_that_has_ended_the_connection_does_not_live(
    end: Callable[[Any], None],
) -> None:
    async with connection() as (transport, client):
        transport.pause_reading()
        end(client)
        await answers(False, partial(acknowledges, transport, EVER))
        assert not transport.is_closing()


async def test_a_connection_that_is_being_closed_is_not_waited_for() -> None:
    async with connection() as (transport, _):
        transport.write(MORE_THAN_THE_KERNEL_TAKES)
        transport.close()
        assert not acknowledges(transport, EVER)


async def test_a_socket_that_is_not_tcp_acknowledges_nothing_and_counts_as_alive() -> None:
    ours, theirs = socket.socketpair()
    with theirs:
        transport, _ = await asyncio.get_running_loop().connect_accepted_socket(
            asyncio.Protocol, ours
        )
        transport.write(MORE_THAN_THE_KERNEL_TAKES)
        assert acknowledges(transport, NEVER)
        transport.abort()
