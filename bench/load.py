"""The load client (`load.c`): its options and its counters."""

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
        """Raises BenchError unless every message arrived, in order, and no client was disconnected."""
        for name in ("resyncs", "unnumbered", "disordered", "closed"):
            if count := getattr(self, name):
                raise BenchError(f"invalid run: {count} {name}")


@dataclass(frozen=True)
class Ready:
    """All clients are subscribed: seconds since the start, and the last client's last answer."""

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
        """Reads the program's events until it exits. Raises BenchError if it fails."""
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
        """Waits until every client has `until` deliveries; returns the seconds since the start."""
        return await _in_time(self._level, LEVEL_SECONDS, "level")

    async def mark(self) -> Mark:
        """The present counters."""
        self._program.send_line()
        return await self._marks.get()

    async def until(self, deliveries: int) -> None:
        """Waits until this number of deliveries was reported (in steps of `step`)."""
        while self.deliveries < deliveries:
            self._progress.clear()
            await self._progress.wait()

    async def settle(self, deliveries: int) -> None:
        """Waits for the last delivery after the feed has stopped. Raises BenchError after SETTLE_SECONDS."""
        try:
            async with asyncio.timeout(SETTLE_SECONDS):
                await self.until(deliveries)
        except TimeoutError:
            came = (await self.mark()).deliveries
            raise BenchError(f"{came:,} of {deliveries:,} deliveries arrived") from None

    async def stamps(self) -> array.array[int]:
        """Stops the clients; returns numbers and arrival times (ns), alternating."""
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
    events: bool = False,
) -> AsyncIterator[Load]:
    """Clients that run while the block runs; `load.c` documents the options.

    Raises BenchError inside the block if the program fails.
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
    if events:
        options.append("--events")
    log = stem.with_suffix(".log")
    async with running(binary, *options, str(port), planned, log=log) as program:
        clients = Load(program, len(lines), stamps)
        async with beside(clients.listen()):
            yield clients


async def _in_time(event: asyncio.Future[T], seconds: float, state: str) -> T:
    try:
        return await asyncio.wait_for(asyncio.shield(event), seconds)
    except TimeoutError:
        raise BenchError(f"the clients are not {state} within {seconds:.0f} s") from None
