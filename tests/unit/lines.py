"""A wire without a socket, for sessions that a test holds in its hand."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from typing import Any

from notifier.errors import Closure
from notifier.frames import body
from tests.conformance import conforms


class Line:
    """Writes down what is said. While `room` is not set, nobody reads."""

    deflates = False

    def __init__(self, *, quick: bool) -> None:
        self.said: list[dict[str, Any]] = []
        self.ended: Closure | None = None
        self.room = asyncio.Event()
        self.room.set()
        self.writes = 0
        self.fast: Callable[[bytes], object] | None = self._take if quick else None

    def _take(self, frames: bytes) -> None:
        self.writes += 1
        while frames:
            length = {126: 4 + int.from_bytes(frames[2:4]), 127: 10 + int.from_bytes(frames[2:10])}
            size = length.get(frames[1], 2 + frames[1])
            self._note(body(frames[:size]))
            frames = frames[size:]

    def write(self, frames: bytes, bodies: Sequence[bytes]) -> None:
        if self.fast is None:
            self.writes += 1
            for text in bodies:
                self._note(text)
        else:
            self._take(frames)

    def _note(self, text: bytes) -> None:
        message = json.loads(text)
        if message["Type"] != "E":  # what a test has made up
            conforms(message)
        self.said.append(message)

    async def drain(self) -> None:
        await self.room.wait()

    def end(self, closure: Closure) -> None:
        assert self.ended is None
        self.ended = closure

    @property
    def heard(self) -> list[tuple[str, int]]:
        """Companies and positions of the messages."""
        return [(m["Company"], m["Position"]) for m in self.said if m["Type"] == "E"]

    @property
    def kinds(self) -> list[str]:
        """All types but those of messages."""
        return [m["Type"] for m in self.said if m["Type"] != "E"]
