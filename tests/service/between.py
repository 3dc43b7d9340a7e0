"""A connection of a client that is led to a server through something in between, which changes what the server sends."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from contextlib import suppress


class Between(ABC):
    """What the client sends is passed on as it is."""

    def __init__(self, host: str, port: int) -> None:
        self._server = host, port

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection of a client."""
        with suppress(OSError, asyncio.IncompleteReadError):
            theirs, ours = await asyncio.open_connection(*self._server)
            try:
                await asyncio.gather(self._forward(reader, ours), self._attack(theirs, writer))
            finally:
                ours.close()
        writer.close()

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(data)
        raise asyncio.IncompleteReadError(b"", None)

    @abstractmethod
    async def _attack(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Passes on what the server sends, changed. Raises IncompleteReadError at its end."""
