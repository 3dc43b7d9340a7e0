"""A TCP proxy that injects network faults on demand.

async with Proxy("127.0.0.1", 5432) as proxy:
    connection = await asyncpg.connect(host="127.0.0.1", port=proxy.port, …)
    proxy.freeze()
"""

from __future__ import annotations

import asyncio
import random
import socket
import struct
from asyncio.trsock import TransportSocket
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Protocol, Self

from tests.ports import free_port

CHUNK = 65536
BUFFER = 65536
"""Kernel buffer of each side of a link: small, so that back-pressure on a frozen link is quick."""
SLICES = 20
"""A throttled link moves its bytes in so many pieces a second."""

# l_onoff, l_linger: close discards unsent data and sends RST.
RESET = struct.pack("ii", 1, 0)


class Reader(Protocol):
    """What a link forwards."""

    async def read(self, size: int) -> bytes:
        """So many bytes at most; none at the end."""


class _Limited:
    """A reader that gives up to `limit` bytes, then cuts the link."""

    def __init__(self, reader: Reader, limit: int, cut: Callable[[], object]) -> None:
        self._reader = reader
        self._left = limit
        self._cut = cut

    async def read(self, size: int) -> bytes:
        if not self._left:
            self._cut()
            return b""
        data = await self._reader.read(min(size, self._left))
        self._left -= len(data)
        return data


class _Held:
    """A reader that gives everything at the end."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._held: bytes | None = None

    async def read(self, size: int) -> bytes:
        if self._held is None:
            held = b""
            while data := await self._reader.read(size):
                held += data
            self._held = held
        data, self._held = self._held[:size], self._held[size:]
        return data


class Proxy:
    """Listens on 127.0.0.1:`port` and forwards to `host`:`target`; a fault applies to all links.

    Bytes that a frozen link holds back are forwarded after the thaw, as TCP would retransmit them: a
    stream may stop or end, but never has a hole.
    """

    def __init__(self, host: str, target: int) -> None:
        self.port = 0
        self._host = host
        self._target = target
        self._server: asyncio.Server | None = None
        self._links: dict[asyncio.Task[None], tuple[asyncio.StreamWriter, ...]] = {}
        self._to_server = _open()
        self._to_client = _open()
        self._rate: float | None = None
        self._latency = 0.0
        self._loss = 0.0
        self._retransmission = 0.0
        self._left: int | None = None
        self._limit: int | None = None
        self._holds = False

    @property
    def links(self) -> int:
        """The number of open connections."""
        return len(self._links)

    async def accept(self) -> None:
        """Accepts connections, as at the start."""
        if self._server is None:
            self.port = self.port or free_port()
            self._server = await asyncio.start_server(self._join, "127.0.0.1", self.port)

    def refuse(self) -> None:
        """Refuses new connections; open ones stay."""
        if self._server is not None:
            self._server.close()
            self._server = None

    async def cut(self) -> None:
        """Closes every link, on both sides, with FIN."""
        await self._end(reset=False)

    async def reset(self) -> None:
        """Ends every link, on both sides, with RST."""
        await self._end(reset=True)

    def freeze(self) -> None:
        """Forwards nothing in either direction and closes nothing: a black hole."""
        self._to_server.clear()
        self._to_client.clear()

    def forget(self) -> None:
        """Makes the open links black holes for good; new ones are forwarded."""
        self.freeze()
        self._to_server, self._to_client = _open(), _open()

    @property
    def frozen(self) -> bool:
        """Whether the links are frozen."""
        return not self._to_client.is_set()

    def freeze_after(self, answers: int) -> None:
        """Freezes after so many more pieces were forwarded to clients."""
        self._left = answers

    def cut_after(self, size: int | None) -> None:
        """Cuts each link once so many bytes were forwarded to its client; None: no more."""
        self._limit = size

    def hold(self) -> None:
        """Forwards nothing to a client until the server has ended the link, as proxies do that buffer."""
        self._holds = True

    def one_way(self) -> None:
        """Forwards from client to server only."""
        self._to_server.set()
        self._to_client.clear()

    def thaw(self) -> None:
        """Forwards everything again, beginning with what was held back."""
        self._left = None
        self._to_server.set()
        self._to_client.set()

    def throttle(self, bytes_per_second: float | None) -> None:
        """Limits each link's rate towards its client; None removes the limit."""
        self._rate = bytes_per_second

    def delay(self, seconds: float) -> None:
        """Adds latency in each direction, without limiting the rate."""
        self._latency = seconds

    def lose(self, share: float, retransmission: float = 0.2) -> None:
        """Loses that share of the pieces: each arrives `retransmission` seconds later, twice as late if
        lost again, and so on. The pieces behind it wait, as in TCP.

        A proxy has no packets to drop; this is how a lossy network looks to a user of TCP.
        """
        self._loss, self._retransmission = share, retransmission

    async def __aenter__(self) -> Self:
        await self.accept()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.refuse()
        await self.reset()

    async def _join(self, reader: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._links[task] = (client,)
        try:
            answers, server = await self._reach()
            self._links[task] = (client, server)
            _hold_little(client)
            async with asyncio.TaskGroup() as pumps:
                pumps.create_task(self._pump(reader, server, self._to_server))
                answering = self._bounded(answers, task)
                pumps.create_task(self._pump(answering, client, self._to_client))
        except (OSError, asyncio.CancelledError):
            pass  # the server is not there, or a fault ended the link
        finally:
            for writer in self._links.pop(task):
                writer.close()

    async def _reach(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection(self._host, self._target, limit=CHUNK)
        _hold_little(writer)
        return reader, writer

    def _bounded(self, reader: asyncio.StreamReader, link: asyncio.Task[None]) -> Reader:
        """What the server sends on a link, as far as `cut_after` and `hold` let it through."""
        if self._holds:
            return _Held(reader)
        return reader if self._limit is None else _Limited(reader, self._limit, link.cancel)

    async def _pump(
        self, reader: Reader, writer: asyncio.StreamWriter, gate: asyncio.Event
    ) -> None:
        """Forwards one direction, its end included."""
        flying: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(maxsize=1000)
        clock = asyncio.get_running_loop().time
        async with asyncio.TaskGroup() as both:
            landing = both.create_task(self._land(flying, writer, gate))
            with suppress(OSError):
                while (data := await reader.read(CHUNK)) and not landing.done():
                    await flying.put((clock() + self._latency, data))
                    if not self._latency:
                        # A link without latency buffers nothing: a slow reader holds up the writer.
                        await flying.join()
            await flying.put((clock() + self._latency, b""))

    async def _land(
        self,
        flying: asyncio.Queue[tuple[float, bytes]],
        writer: asyncio.StreamWriter,
        gate: asyncio.Event,
    ) -> None:
        clock = asyncio.get_running_loop().time
        with suppress(OSError):
            while True:
                due, data = await flying.get()
                try:
                    if due > clock():
                        await asyncio.sleep(due - clock())
                    if not data:
                        break
                    wait = self._retransmission
                    while random.random() < self._loss:
                        await asyncio.sleep(wait)
                        wait *= 2
                    await self._forward(data, writer, gate)
                finally:
                    flying.task_done()
        await gate.wait()
        with suppress(OSError):
            writer.write_eof()
        while not flying.empty():  # `join` must not wait for pieces that were lost with the link
            flying.get_nowait()
            flying.task_done()

    async def _forward(
        self, data: bytes, writer: asyncio.StreamWriter, gate: asyncio.Event
    ) -> None:
        while data:
            rate = self._rate if gate is self._to_client else None
            size = CHUNK if rate is None else max(1, int(rate / SLICES))
            await gate.wait()
            writer.write(data[:size])
            await writer.drain()
            data = data[size:]
            if rate is not None:
                await asyncio.sleep(1 / SLICES)
        if gate is self._to_client and self._left is not None:
            self._left -= 1
            if self._left <= 0:
                self.freeze()

    async def _end(self, *, reset: bool) -> None:
        links = dict(self._links)
        for task, writers in links.items():
            for writer in writers:
                if reset:
                    with suppress(OSError):  # it may have ended by itself
                        _socket(writer).setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
                    writer.transport.abort()
                else:
                    writer.close()
            task.cancel()
        await asyncio.gather(*links, return_exceptions=True)


def _open() -> asyncio.Event:
    gate = asyncio.Event()
    gate.set()
    return gate


def _hold_little(writer: asyncio.StreamWriter) -> None:
    for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
        _socket(writer).setsockopt(socket.SOL_SOCKET, option, BUFFER)


def _socket(writer: asyncio.StreamWriter) -> TransportSocket:
    peer: TransportSocket = writer.get_extra_info("socket")
    return peer
