"""F0: one isolated change to 5,000 sockets of one company, until the last of them has it."""

from __future__ import annotations

import array
import asyncio
import statistics
from collections.abc import Mapping
from itertools import islice

from bench import feed, references, service
from bench.fanout import OUR_NUMBER
from bench.latency import OUR_TITLE
from bench.load import load
from bench.programs import BenchError
from bench.service import Service
from bench.stand import Stand

SOCKETS = 5_000
CHANGES = 10
PER_SECOND = 1.5


async def ours(stand: Stand, url: str, target: Service) -> tuple[float, float]:
    """Median seconds from the commit's acknowledgement to the last socket."""
    plan = service.subscribers(SOCKETS)
    async with load(stand.load, target.port, plan, stamp=OUR_TITLE, step=SOCKETS) as clients:
        await clients.ready()
        cpu = target.program.cpu_seconds()
        acknowledged = await feed.paced(url, per_second=PER_SECOND, changes=CHANGES)
        await clients.settle(CHANGES * SOCKETS)
        cpu = target.program.cpu_seconds() - cpu
        return _median(await clients.stamps(), acknowledged), cpu / (CHANGES * SOCKETS)


async def floor(stand: Stand) -> float:
    """Median seconds from the C loop's first send() of a round to the last socket."""
    async with references.floor(stand, SOCKETS, paced=True) as loop:
        plan = references.paths(SOCKETS)
        async with load(stand.load, loop.port, plan, stamp=OUR_NUMBER, step=SOCKETS) as clients:
            await clients.ready()
            began: dict[int, int] = {}
            for number in range(1, CHANGES + 1):
                await asyncio.sleep(1 / PER_SECOND)
                loop.program.send_line()
                began[number] = (await loop.program.event())["at"]
            await clients.settle(CHANGES * SOCKETS)
            return _median(await clients.stamps(), began)


async def measure(stand: Stand, _names: frozenset[str]) -> None:
    async with service.migrated(stand) as url, service.serving(stand, url) as target:
        for _ in stand.rounds(2):
            watch = stand.watch()
            least, (mine, each) = await floor(stand), await ours(stand, url, target)
            stand.table.add(
                "F0",
                mine / least,
                watch.noise(),
                ours_ms=mine * 1e3,
                c_loop_ms=least * 1e3,
                µs_per_delivery=each * 1e6,
            )


def _median(stamps: array.array[int], began: Mapping[int, int]) -> float:
    """The median over all changes of the time until the last arrival, in seconds."""
    last: dict[int, int] = {}
    numbers, arrivals = islice(stamps, 0, None, 2), islice(stamps, 1, None, 2)
    for number, arrived in zip(numbers, arrivals, strict=True):
        last[number] = max(arrived, last.get(number, 0))
    if not last.keys() >= began.keys():
        raise BenchError("a change did not arrive")
    return statistics.median((last[number] - start) / 1e9 for number, start in began.items())
