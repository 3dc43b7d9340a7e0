"""A transport without a connection, for sessions that a test drives itself."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from typing import Any

from notifier.delivery.encoding import TEXT, Encoding
from notifier.delivery.transport import TransportListener
from notifier.errors import Closure
from tests.conformance import conforms


def texts(frames: bytes) -> list[bytes]:
    """The texts of uncompressed frames of a server."""
    found = []
    while frames:
        extended = {126: 2, 127: 8}.get(frames[1], 0)
        head = 2 + extended
        size = int.from_bytes(frames[2:head]) if extended else frames[1]
        found.append(frames[head : head + size])
        frames = frames[head + size :]
    return found


class Line:
    """Records what is sent. While `room` is not set, the client does not read."""

    def __init__(self, *, quick: bool) -> None:
        self.sent: list[dict[str, Any]] = []
        self.ended: Closure | None = None
        self.room = asyncio.Event()
        self.room.set()
        self.writes = 0
        self.encoding: Encoding = TEXT
        self.listener: TransportListener | None = None
        self.write_direct: Callable[[bytes], object] | None = self._write if quick else None

    def _write(self, frames: bytes) -> None:
        assert self.write_direct is not None
        self.writes += 1
        for text in texts(frames):
            self._record(text)

    def write(self, frames: bytes, bodies: Sequence[bytes]) -> None:
        if self.write_direct is None:
            self.writes += 1
            for text in bodies:
                self._record(text)
        else:
            self._write(frames)

    def _record(self, text: bytes) -> None:
        message = json.loads(text)
        if message["Type"] != "E":  # made up by a test
            conforms(message)
        self.sent.append(message)

    async def drain(self) -> None:
        await self.room.wait()

    def replayed(self) -> None: ...

    def end(self, closure: Closure) -> None:
        assert self.ended is None
        self.ended = closure

    @property
    def messages(self) -> list[tuple[str, int]]:
        """Companies and positions of the log's messages."""
        return [(m["Company"], m["Position"]) for m in self.sent if m["Type"] == "E"]

    @property
    def types(self) -> list[str]:
        """The types of all others."""
        return [m["Type"] for m in self.sent if m["Type"] != "E"]
