"""The proxy of the fault tests does what its methods promise."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from tests.proxy import Proxy
from tests.servers import listening
from tests.waiting import DEADLINE_SECONDS, until


class Line:
    """A client's end of a connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def send(self, word: bytes) -> None:
        self.writer.write(word)

    async def receive(self, count: int) -> bytes:
        async with asyncio.timeout(DEADLINE_SECONDS):
            return await self.reader.readexactly(count)


class Echo:
    """A server that sends back what it receives; `received` is all of it."""

    def __init__(self) -> None:
        self.received = b""
        self.ends = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65536):
                self.received += data
                writer.write(data)
                await writer.drain()
        except ConnectionResetError:
            pass
        finally:
            self.ends += 1
            writer.close()


@pytest.fixture
def echo() -> Echo:
    return Echo()


@pytest.fixture
async def proxy(echo: Echo) -> AsyncIterator[Proxy]:
    async with listening(echo.serve) as port, Proxy("127.0.0.1", port) as proxy:
        yield proxy


@asynccontextmanager
async def line(proxy: Proxy) -> AsyncIterator[Line]:
    """A connection through the proxy over which the other end has received something."""
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    opened = Line(reader, writer)
    try:
        opened.send(b"hello")
        assert await opened.receive(5) == b"hello"
        yield opened
    finally:
        writer.transport.abort()


async def settled(turns: int = 100) -> None:
    """Until all has gone as far as it can: client, proxy and server are turns of this one loop."""
    for _ in range(turns):
        await asyncio.sleep(0)


async def test_bytes_and_end_of_file_are_forwarded_whole(proxy: Proxy, echo: Echo) -> None:
    spoken = bytes(range(256)) * 4096
    async with line(proxy) as one, line(proxy) as other:
        one.send(spoken)
        other.send(b"x")
        assert await one.receive(len(spoken)) == spoken
        assert await other.receive(1) == b"x"
        assert proxy.links == 2
        one.writer.write_eof()
        assert await one.reader.read() == b""
        assert echo.ends == 1


async def test_a_cut_link_ends_at_both_sides(proxy: Proxy, echo: Echo) -> None:
    async with line(proxy) as cut:
        await proxy.cut()
        assert proxy.links == 0
        assert await cut.reader.read() == b""
        await until(lambda: _is(echo.ends == 1))
    async with line(proxy):
        assert proxy.links == 1


async def test_a_reset_is_an_error_for_the_client(proxy: Proxy, echo: Echo) -> None:
    async with line(proxy) as reset:
        await proxy.reset()
        with pytest.raises(ConnectionResetError):
            await reset.reader.read()
        await until(lambda: _is(echo.ends == 1))


async def test_a_frozen_link_forwards_nothing_and_loses_nothing(proxy: Proxy, echo: Echo) -> None:
    async with line(proxy) as frozen, line(proxy) as leaving:
        proxy.freeze()
        frozen.send(b"lost?")
        leaving.writer.write_eof()
        await settled()
        assert echo.received == b"hello" * 2
        assert echo.ends == 0
        proxy.thaw()
        assert await frozen.receive(5) == b"lost?"
        assert await leaving.reader.read() == b""


async def test_a_one_way_link_still_forwards_to_the_server(proxy: Proxy, echo: Echo) -> None:
    async with line(proxy) as half:
        proxy.one_way()
        half.send(b" there")
        waiting = asyncio.create_task(half.receive(6))
        await until(lambda: _is(echo.received == b"hello there"))
        await settled()
        assert not waiting.done()
        proxy.thaw()
        assert await waiting == b" there"


async def test_refused_connections_fail_and_old_ones_stay(proxy: Proxy) -> None:
    async with line(proxy) as old:
        proxy.refuse()
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", proxy.port)
        old.send(b"still")
        assert await old.receive(5) == b"still"
        port = proxy.port
        await proxy.accept()
        assert proxy.port == port
        async with line(proxy):
            assert proxy.links == 2


async def test_a_throttled_link_brings_everything_in_pieces(proxy: Proxy) -> None:
    async with line(proxy) as slow:
        proxy.throttle(200_000)
        spoken = b"x" * 30_000
        slow.send(spoken)
        first = await slow.reader.read(65536)
        assert len(first) < len(spoken)
        assert first + await slow.receive(len(spoken) - len(first)) == spoken
        proxy.throttle(None)
        slow.send(b"fast")
        assert await slow.receive(4) == b"fast"


async def test_a_reader_that_stops_is_felt_by_the_writer(proxy: Proxy) -> None:
    async with line(proxy) as full:
        proxy.freeze()
        full.writer.write(b"x" * 32_000_000)
        draining = asyncio.create_task(full.writer.drain())
        await settled(2000)
        assert full.writer.transport.get_write_buffer_size() > 24_000_000, "the proxy hoards"
        assert not draining.done()
        proxy.thaw()
        assert await full.receive(32_000_000) == b"x" * 32_000_000
        await draining


async def test_without_a_server_a_connection_ends_at_once(proxy: Proxy) -> None:
    async with Proxy("127.0.0.1", 1) as nowhere:
        reader, writer = await asyncio.open_connection("127.0.0.1", nowhere.port)
        assert await reader.read() == b""
        writer.close()


async def _is(truth: bool) -> bool:
    return truth


async def test_a_lossy_link_is_late_and_loses_nothing(proxy: Proxy) -> None:
    async with line(proxy) as lossy:
        # With 0.5 one piece of 65,000 would be lost 16 times, for a minute: each loss doubles the wait.
        proxy.lose(0.2, retransmission=0.001)
        for number in range(50):
            word = b"%02d" % number
            lossy.send(word)
            assert await lossy.receive(2) == word


async def test_a_long_link_is_late_and_keeps_the_order(proxy: Proxy) -> None:
    async with line(proxy) as long:
        proxy.delay(0.05)
        for number in range(50):
            long.send(b"%02d" % number)
        assert await long.receive(100) == b"".join(b"%02d" % number for number in range(50))
        long.writer.write_eof()
        assert await long.reader.read() == b""


async def test_a_link_freezes_after_so_many_answers(proxy: Proxy, echo: Echo) -> None:
    async with line(proxy) as freezing:
        proxy.freeze_after(2)
        for word in (b"one", b"two"):
            freezing.send(word)
            assert await freezing.receive(3) == word
        freezing.send(b"three")
        await settled()
        assert echo.received == b"helloonetwo"
        proxy.thaw()
        assert await freezing.receive(5) == b"three"
