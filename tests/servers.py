"""A TCP server within a test, whose connections end before the test does."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from typing import Any

TURNS = 5
"""After so many turns of the event loop an accepted connection has its task."""

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Coroutine[Any, Any, None]]
"""Serves one connection, which is closed after it, also when the other end has gone."""


@asynccontextmanager
async def listening(
    serve: Serve, port: int = 0, tls: ssl.SSLContext | None = None
) -> AsyncIterator[int]:
    """Serves connections until the end of the block, which cancels those that are left. Yields the port.

    Python's garbage collector warns of a connection that was left open (ResourceWarning), which fails the test that runs at
    that moment.
    """
    tasks: set[asyncio.Task[None]] = set()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            await serve(reader, writer)
            writer.close()
            await writer.wait_closed()
        except* (OSError, asyncio.IncompleteReadError):
            pass  # the other end has gone
        finally:
            writer.transport.abort()

    server = await asyncio.start_server(accept, "127.0.0.1", port, ssl=tls)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for _ in range(TURNS):
            await asyncio.sleep(0)
        for task in tasks:
            task.cancel()
        with suppress(asyncio.CancelledError):
            await asyncio.gather(*tasks, return_exceptions=True)
