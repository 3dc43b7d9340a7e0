"""A proxy that reads the head of each HTTP request: it blocks WebSockets or holds back streams, as some corporate proxies do."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Self

from tests.ports import free_port

HEAD_BYTES = 64 * 1024


class HttpProxy:
    """Listens on 127.0.0.1 and forwards to a port there. Each connection carries one request.

    `blocks`: WebSockets get 403. `buffers`: a stream's response is held back until it ends. `lifetime`: each connection
    is aborted after so many seconds; `ended` counts these. `requests`: the headers of each request.
    """

    def __init__(self, target: int) -> None:
        self._target = target
        self._server: asyncio.Server | None = None
        self._links: set[asyncio.Task[None]] = set()
        self.blocks = False
        self.buffers = False
        self.lifetime: float | None = None
        self.ended = 0
        self.port = 0
        self.requests: list[dict[str, str]] = []

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.port}/"

    async def __aenter__(self) -> Self:
        await self.accept()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.refuse()

    async def accept(self) -> None:
        """Accepts connections, always on the same port."""
        self.port = self.port or free_port()
        self._server = await asyncio.start_server(
            self._serve, "127.0.0.1", self.port, limit=HEAD_BYTES
        )

    async def refuse(self) -> None:
        """Refuses further connections, and ends those that are open."""
        assert self._server is not None
        self._server.close()
        self.cut()
        await asyncio.gather(*self._links, return_exceptions=True)

    def cut(self) -> None:
        """Ends all connections."""
        for link in self._links:
            link.cancel()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        link = asyncio.current_task()
        assert link is not None
        self._links.add(link)
        try:
            async with asyncio.timeout(self.lifetime) as life:
                await self._forward(reader, writer)
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            if life.expired():
                self.ended += 1
                writer.transport.abort()
        finally:
            self._links.discard(link)
            writer.close()

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        first, *lines = head.rstrip().split(b"\r\n")
        headers = {
            name.strip().lower(): value.strip()
            for name, _, value in (line.partition(b":") for line in lines)
        }
        self.requests.append({name.decode(): value.decode() for name, value in headers.items()})
        is_socket = headers.get(b"upgrade", b"").lower() == b"websocket"
        is_stream = headers.get(b"accept") == b"text/event-stream"
        if is_socket and self.blocks:
            writer.write(
                b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
            )
            return
        upstream, downstream = await asyncio.open_connection("127.0.0.1", self._target)
        try:
            if not is_socket:
                kept = [line for line in lines if not line.lower().startswith(b"connection:")]
                head = b"\r\n".join([first, *kept, b"Connection: close", b"", b""])
            downstream.write(head)
            held = is_stream and self.buffers
            pumps = [
                asyncio.create_task(_pump(reader, downstream)),
                asyncio.create_task((_hold if held else _pump)(upstream, writer)),
            ]
            try:
                await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for pump in pumps:
                    pump.cancel()
        finally:
            downstream.close()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while chunk := await reader.read(65536):
            writer.write(chunk)
            await writer.drain()


async def _hold(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        writer.write(await reader.read(-1))
