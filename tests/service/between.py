"""A connection of a client that is led to a server through something in between, which changes what the server sends."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod


class Between(ABC):
    """What the client sends is passed on as it is."""

    def __init__(self, host: str, port: int) -> None:
        self._server = host, port

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection of a client."""
        theirs, ours = await asyncio.open_connection(*self._server)
        try:
            async with asyncio.TaskGroup() as both:
                both.create_task(self._forward(reader, ours))
                both.create_task(self._attack(theirs, writer))
        except* (OSError, asyncio.IncompleteReadError):
            pass  # one of the ends has gone
        finally:
            ours.transport.abort()

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(data)
        raise asyncio.IncompleteReadError(b"", None)

    @abstractmethod
    async def _attack(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Passes on what the server sends, changed. Raises IncompleteReadError at its end."""
