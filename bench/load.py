"""The load client (`load.c`): what it is told to do and what it has counted."""

from __future__ import annotations

import array
import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from bench.beside import beside
from bench.programs import BenchError, Program, running

READY_SECONDS = 30.0
SETTLE_SECONDS = 20.0
LEVEL_SECONDS = 45.0

T = TypeVar("T")


@dataclass(frozen=True)
class Mark:
    """The counters at one moment (`at`: CLOCK_MONOTONIC in ns)."""

    at: int
    deliveries: int
    frames: int
    bytes: int
    compressed: int
    resyncs: int
    unnumbered: int
    disordered: int
    closed: int
    cpu: float

    def check(self) -> None:
        """Raises BenchError unless everything came, in order, and nobody was cut."""
        for what in ("resyncs", "unnumbered", "disordered", "closed"):
            if count := getattr(self, what):
                raise BenchError(f"unsound: {count} {what}")


@dataclass(frozen=True)
class Ready:
    """All clients are subscribed: after how many seconds, and the last answer to the last one."""

    seconds: float
    answer: dict[str, Any] | None


class Load:
    """N clients of one server."""

    def __init__(self, program: Program, clients: int, stamps: Path) -> None:
        self.clients = clients
        self.deliveries = 0
        self._program = program
        self._stamps = stamps
        self._ready: asyncio.Future[Ready] = asyncio.get_running_loop().create_future()
        self._level: asyncio.Future[float] = asyncio.get_running_loop().create_future()
        self._marks: asyncio.Queue[Mark] = asyncio.Queue()
        self._progress = asyncio.Event()

    async def listen(self) -> None:
        """Takes the program's events until it ends. Raises BenchError when it fails."""
        while True:
            try:
                event = await self._program.event()
            except EOFError:
                return
            kind = event.pop("event")
            if kind == "delivered":
                self.deliveries = event["deliveries"]
                self._progress.set()
            elif kind == "ready":
                seconds = (event["at"] - event["began"]) / 1e9
                self._ready.set_result(Ready(seconds, event["answer"]))
            elif kind == "level":
                self._level.set_result((event["at"] - event["began"]) / 1e9)
            else:
                self._marks.put_nowait(Mark(**event))

    async def ready(self) -> Ready:
        """Waits until all clients are subscribed."""
        return await _in_time(self._ready, READY_SECONDS, "subscribed")

    async def level(self) -> float:
        """Waits until every client has as many deliveries as `until` said: seconds since the start."""
        return await _in_time(self._level, LEVEL_SECONDS, "level")

    async def mark(self) -> Mark:
        """The counters as they are now."""
        self._program.say()
        return await self._marks.get()

    async def until(self, deliveries: int) -> None:
        """Waits until so many deliveries were reported (in steps of `step`)."""
        while self.deliveries < deliveries:
            self._progress.clear()
            await self._progress.wait()

    async def settle(self, deliveries: int) -> None:
        """Waits for the last of so many deliveries, when no more are made."""
        try:
            async with asyncio.timeout(SETTLE_SECONDS):
                await self.until(deliveries)
        except TimeoutError:
            came = (await self.mark()).deliveries
            raise BenchError(f"{came:,} of {deliveries:,} deliveries came") from None

    async def stamps(self) -> array.array[int]:
        """Ends the clients; numbers and arrivals (ns), in turn."""
        await self._program.finish()
        found = array.array("Q")
        found.frombytes(self._stamps.read_bytes())
        return found


@asynccontextmanager
async def load(
    binary: Path,
    port: int,
    plan: Iterable[str],
    *,
    at_once: int = 100,
    number: str | None = None,
    stamp: str | None = None,
    step: int = 0,
    until: int = 0,
    deflate: bool = False,
) -> AsyncIterator[Load]:
    """Clients for as long as the block lasts; `load.c` says what the options mean.

    When the program fails, the block is left with a BenchError.
    """
    lines = list(plan)
    stem = binary.with_name(f"load-{port}-{len(lines)}")
    planned, stamps = stem.with_suffix(".plan"), stem.with_suffix(".stamps")
    planned.write_text("".join(f"{line}\n" for line in lines))
    options = [f"--at-once={at_once}", f"--step={step}", f"--until={until}"]
    if number is not None:
        options.append(f"--number={number}")
    if stamp is not None:
        options += [f"--stamp={stamp}", f"--stamps={stamps}"]
    if deflate:
        options.append("--deflate")
    log = stem.with_suffix(".log")
    async with running(binary, *options, str(port), planned, log=log) as program:
        clients = Load(program, len(lines), stamps)
        async with beside(clients.listen()):
            yield clients


async def _in_time(event: asyncio.Future[T], seconds: float, what: str) -> T:
    try:
        return await asyncio.wait_for(asyncio.shield(event), seconds)
    except TimeoutError:
        raise BenchError(f"the clients are not {what} within {seconds:.0f} s") from None
