"""A reverse proxy that serves the demo under a prefix, which it strips, as `location /x/` of nginx."""

from __future__ import annotations

import asyncio
from contextlib import closing, suppress
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

PREFIX = "/calendar/"
NOT_FOUND = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


class PrefixProxy:
    """Forwards one request per connection; other paths are not found. `page` is the new address."""

    def __init__(self, page: str) -> None:
        target = urlsplit(page)
        self._host, self._port = target.hostname, target.port
        self.page = ""
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        port = self._server.sockets[0].getsockname()[1]
        self.page = f"http://127.0.0.1:{port}{PREFIX}"
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._forward(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with closing(writer), suppress(OSError, asyncio.IncompleteReadError):
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            method, path, rest = head.split(" ", 2)
            if not path.startswith(PREFIX):
                writer.write(NOT_FOUND)
                return
            path = "/" + path.removeprefix(PREFIX)
            if "upgrade: websocket" not in head.lower():
                rest = rest.replace("Connection: keep-alive", "Connection: close")
            await self._pipe(f"{method} {path} {rest}".encode("latin-1"), reader, writer)

    async def _pipe(
        self, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        answers, server = await asyncio.open_connection(self._host, self._port)
        with closing(server):
            server.write(head)
            requests = asyncio.create_task(_copy(reader, server))
            try:
                await _copy(answers, writer)
            finally:
                requests.cancel()
                await asyncio.gather(requests, return_exceptions=True)


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
