"""A WebSocket client without manners: it sends the bytes that a test wants, and tells what came."""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from contextlib import suppress
from typing import NamedTuple

from tests.services import Service
from tests.waiting import DEADLINE_SECONDS

CONT, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA


def handshake(headers: str = "") -> bytes:
    """The request that makes a connection a WebSocket; `headers` are lines with their ends."""
    return (
        "GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
        f"{headers}\r\n"
    ).encode()


class Frame(NamedTuple):
    opcode: int
    payload: bytes


def frame(
    opcode: int,
    payload: bytes = b"",
    *,
    fin: bool = True,
    rsv: int = 0,
    mask: bool = True,
    length: int | None = None,
) -> bytes:
    """One frame of a client's; `length` is what its header claims, `rsv` the three reserved bits."""
    size = len(payload) if length is None else length
    head = bytes([fin << 7 | rsv << 4 | opcode])
    if size < 126:
        head += bytes([mask << 7 | size])
    elif size < 1 << 16:
        head += struct.pack("!BH", mask << 7 | 126, size)
    else:
        head += struct.pack("!BQ", mask << 7 | 127, size)
    if not mask:
        return head + payload
    key = os.urandom(4)
    body = int.from_bytes(payload) ^ int.from_bytes((key * (len(payload) // 4 + 1))[: len(payload)])
    return head + key + body.to_bytes(len(payload))


class RawSocket:
    """A connection to a service, before or after its handshake."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def send(self, data: bytes) -> None:
        """Sends it all, or as much as the peer takes before it closes."""
        with suppress(ConnectionError):
            self._writer.write(data)
            await self._writer.drain()

    async def send_text(self, text: str) -> None:
        """Sends a text frame."""
        await self.send(frame(TEXT, text.encode()))

    async def head(self) -> str:
        """The status line and headers of an HTTP answer; empty where there was none."""
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            async with asyncio.timeout(DEADLINE_SECONDS):
                return (await self._reader.readuntil(b"\r\n\r\n")).decode()
        return ""

    async def frame(self) -> Frame:
        """The next frame. Raises EOFError or ConnectionError at the end."""
        async with asyncio.timeout(DEADLINE_SECONDS):
            first, second = await self._reader.readexactly(2)
            size = second & 0x7F
            if size == 126:
                size = int.from_bytes(await self._reader.readexactly(2))
            elif size == 127:
                size = int.from_bytes(await self._reader.readexactly(8))
            return Frame(first & 0x0F, await self._reader.readexactly(size))

    async def read(self, size: int) -> bytes:
        """So many bytes at most, as soon as there are some; none at the end."""
        with suppress(ConnectionError):
            async with asyncio.timeout(DEADLINE_SECONDS):
                return await self._reader.read(size)
        return b""

    async def code(self) -> int | None:
        """The close code that comes, whatever comes before; None: the connection just ended."""
        with suppress(EOFError, ConnectionError):
            while True:
                opcode, payload = await self.frame()
                if opcode == CLOSE:
                    return int.from_bytes(payload[:2])
        return None

    async def ended(self) -> bytes:
        """What else came before the connection was gone."""
        rest = b""
        with suppress(ConnectionError):
            async with asyncio.timeout(DEADLINE_SECONDS):
                while data := await self._reader.read(1 << 16):
                    rest += data
        return rest

    @property
    def port(self) -> int:
        """Its own, on this side."""
        port: int = self._writer.get_extra_info("sockname")[1]
        return port

    def finish(self) -> None:
        """Sends nothing more, and says so."""
        self._writer.write_eof()

    async def drop(self) -> None:
        """Ends it with a reset, whatever was not sent."""
        own: socket.socket = self._writer.get_extra_info("socket")
        with suppress(OSError):
            own.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._writer.transport.abort()
        with suppress(ConnectionError):
            await self._writer.wait_closed()


class Raw:
    """Opens such sockets, and ends those that are still there."""

    def __init__(self) -> None:
        self._sockets: list[RawSocket] = []

    async def connect(self, service: Service, receive_bytes: int | None = None) -> RawSocket:
        """A TCP connection; `receive_bytes` keeps the kernel from buffering much for a slow one."""
        own = socket.socket()
        if receive_bytes is not None:
            own.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        own.setblocking(False)
        await asyncio.get_running_loop().sock_connect(own, ("127.0.0.1", service.port))
        reader, writer = await asyncio.open_connection(sock=own, limit=receive_bytes or 1 << 20)
        opened = RawSocket(reader, writer)
        self._sockets.append(opened)
        return opened

    async def upgrade(
        self, service: Service, headers: str = "", receive_bytes: int | None = None
    ) -> RawSocket:
        """A WebSocket."""
        opened = await self.connect(service, receive_bytes)
        await opened.send(handshake(headers))
        answer = await opened.head()
        assert answer.startswith("HTTP/1.1 101 "), answer
        return opened

    async def drop(self) -> None:
        """Ends them all."""
        for each in self._sockets:
            await each.drop()
