"""The client under test as a process, and what it prints."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import Callable, Sequence
from contextlib import suppress

from notifier.conformance.peer import Wrong
from notifier.conformance.script import Line
from notifier.errors import NotifierError

OUTPUT_SECONDS = 30.0
"""How long a client may take to print what it has received."""

STOP_SECONDS = 3.0

SHOWN_LINES = 2
"""How many lines of its stderr are reported from the beginning, and from the end: some runtimes print the error first, others last."""

KEPT_BYTES = 2048
"""What is kept of the beginning of its stderr, and of the end."""


class Program:
    """A client that prints each message as a line of JSON, and `resync` where it reads its state again."""

    def __init__(self, process: asyncio.subprocess.Process, on_end: Callable[[], None]) -> None:
        self._process = process
        self._lines: list[Line] = []
        self._first_errors = self._last_errors = b""
        self._printed = asyncio.Event()
        self._on_end = on_end
        self._reading = asyncio.create_task(self._read())
        self._draining = asyncio.create_task(self._drain())

    @classmethod
    async def start(cls, command: Sequence[str], on_end: Callable[[], None]) -> Program:
        """`on_end` is called when its output ends. Raises NotifierError where it cannot be started."""
        try:
            process = await asyncio.create_subprocess_exec(
                *command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                limit=1024 * 1024,
            )
        except OSError as error:
            raise NotifierError(f"cannot start {command[0]}: {error.strerror}") from error
        return cls(process, on_end)

    async def check(self, expected: Sequence[Line]) -> None:
        """Waits until it has printed this; raises Wrong for anything else.

        The first `resync` may be missing, and so may messages that another one makes obsolete.
        """
        with suppress(TimeoutError):
            async with asyncio.timeout(OUTPUT_SECONDS):
                while not (self._reading.done() or _fits(self._lines, expected)):
                    self._printed.clear()
                    await self._printed.wait()
        if not _fits(self._lines, expected):
            raise Wrong(f"printed {self._lines} instead of {list(expected)}")

    async def stop(self) -> str:
        """Ends it; returns the first and the last lines of its stderr, as one."""
        self._signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(STOP_SECONDS):
                await self._process.wait()
        except TimeoutError:
            self._signal(signal.SIGKILL)
            await self._process.wait()
        self._reading.cancel()
        self._draining.cancel()
        await asyncio.wait([self._reading, self._draining])
        errors = (self._first_errors + self._last_errors).decode(errors="replace")
        lines = [line for each in errors.split("\n") if (line := each.strip())]
        if len(lines) > 2 * SHOWN_LINES:
            lines[SHOWN_LINES:-SHOWN_LINES] = ["…"]
        return "; ".join(lines)

    def _signal(self, number: signal.Signals) -> None:
        """As `Process.send_signal`, which would take the exit status away from asyncio."""
        if self._process.returncode is None:
            with suppress(ProcessLookupError):
                os.kill(self._process.pid, number)

    async def _read(self) -> None:
        assert self._process.stdout is not None
        try:
            while line := await self._process.stdout.readline():
                if (found := _line(line)) is not None:
                    self._lines.append(found)
                    self._printed.set()
        finally:
            self._printed.set()
            self._on_end()

    async def _drain(self) -> None:
        assert self._process.stderr is not None
        while data := await self._process.stderr.read(4096):
            room = KEPT_BYTES - len(self._first_errors)
            self._first_errors += data[:room]
            self._last_errors = (self._last_errors + data[room:])[-KEPT_BYTES:]


def _line(line: bytes) -> Line | None:
    """The report in a line; None for a line that is not one."""
    if line.lower().startswith(b"resync"):
        return "resync"
    try:
        message = json.loads(line)
    except ValueError:
        return None
    if not isinstance(message, dict) or not isinstance(message.get("Position"), int):
        return None
    return "resync" if message.get("Type") == "Resync" else int(message["Position"])


def _fits(lines: Sequence[Line], expected: Sequence[Line]) -> bool:
    """Whether it printed this. A client may leave out the `resync` at the start."""
    first, wanted = lines[:1] == ["resync"], _parts(expected[1:])
    return _covers(_parts(lines[first:]), wanted) or _covers(_parts(lines), wanted)


def _covers(printed: Sequence[list[Line]], wanted: Sequence[list[Line]]) -> bool:
    return (
        len(printed) == len(wanted)
        and printed[-1] == wanted[-1]
        and all(some == whole[: len(some)] for some, whole in zip(printed, wanted, strict=True))
    )


def _parts(lines: Sequence[Line]) -> list[list[Line]]:
    """The messages between two resyncs."""
    parts: list[list[Line]] = [[]]
    for line in lines:
        if line == "resync":
            parts.append([])
        else:
            parts[-1].append(line)
    return parts
