"""L1, L2: from the acknowledged commit to the client's recv()."""

from __future__ import annotations

import array
import asyncio
import re
import statistics
import time
from itertools import islice

from bench import feed, references, service
from bench.fanout import OUR_NUMBER
from bench.load import load
from bench.postgres import connected
from bench.programs import BenchError
from bench.references import ROW_NUMBER
from bench.service import Service
from bench.stand import Stand

OUR_TITLE = '"Title":"change '
IDLE_PER_SECOND = 20.0

JOURNAL = "CREATE TABLE journal (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, body json)"
ENTRY = "INSERT INTO journal (body) SELECT row_to_json(e) FROM events AS e WHERE id = $1::uuid"


async def idle(stand: Stand, url: str, target: Service, plan: list[str], stamp: str) -> float:
    """Median latency of isolated changes to one client: seconds from the commit's acknowledgement."""
    changes = 50 if stand.quick else 100
    async with load(stand.load, target.port, plan, stamp=stamp, step=1) as client:
        await client.ready()
        acknowledged = await feed.paced(url, per_second=IDLE_PER_SECOND, changes=changes)
        await client.settle(changes)
        return statistics.median(latencies_of(await client.stamps(), acknowledged))


async def insert(url: str, count: int) -> float:
    """Median duration of a committed single-row INSERT, at the same rate: seconds."""
    taken = []
    async with connected(url) as connection:
        entry = await connection.prepare(ENTRY)
        for number in range(count):
            await asyncio.sleep(1 / IDLE_PER_SECOND)
            began = time.monotonic()
            await entry.fetch(feed.event_of(1, number))
            taken.append(time.monotonic() - began)
    return statistics.median(taken)


async def measure_idle(stand: Stand, _names: frozenset[str]) -> None:
    async with (
        service.migrated(stand) as ours,
        stand.cluster.notifying() as notifying,
        service.serving(stand, ours) as target,
        references.relay(stand, notifying) as bare,
    ):
        await stand.cluster.execute(JOURNAL, "notifying")
        for _ in stand.rounds(3):
            watch = stand.watch()
            mine = await idle(stand, ours, target, service.subscribers(1), OUR_TITLE)
            least = await idle(stand, notifying, bare, references.paths(1), ROW_NUMBER)
            durable = await insert(notifying, 50)
            stand.table.add(
                "L1",
                mine / (least + durable),
                watch.noise(),
                ours_ms=mine * 1e3,
                bare_ms=least * 1e3,
                insert_ms=durable * 1e3,
            )


async def measure_busy(stand: Stand, _names: frozenset[str]) -> None:
    """L2: all 500 sockets receive every change: 250,000 deliveries a second."""
    sockets, per_second, seconds = 500, 500, stand.seconds(4)
    changes = int(per_second * seconds)
    async with service.migrated(stand) as url, service.serving(stand, url) as target:
        for _ in stand.rounds(3):
            plan = service.subscribers(sockets)
            async with load(
                stand.load,
                target.port,
                plan,
                number=OUR_NUMBER,
                stamp=OUR_TITLE,
                step=sockets,
            ) as clients:
                await clients.ready()
                before = await stages_of(target)
                watch, began = stand.watch(), time.monotonic()
                acknowledged = await feed.paced(
                    url, per_second=per_second, changes=changes, writers=8
                )
                written = changes / (time.monotonic() - began)
                await clients.settle(changes * sockets)
                (await clients.mark()).check()
                noise = watch.noise()
                latencies = sorted(latencies_of(await clients.stamps(), acknowledged))
            stages = stages_between(before, await stages_of(target))
            p50, p99 = (latencies[int(len(latencies) * share)] * 1e3 for share in (0.5, 0.99))
            stand.table.add("L2", p99, noise, p50_ms=p50, writes_per_s=written, **stages)


Counts = dict[str, list[tuple[float, float]]]
"""By stage: how many batches took at most so many seconds."""

BUCKET = re.compile(r'notifier_stage_seconds_bucket{le="([^"]+)",stage="(\w+)"} (\S+)')


async def stages_of(target: Service) -> Counts:
    """The present counts of `notifier_stage_seconds`."""
    counts: Counts = {}
    for bound, stage, count in BUCKET.findall((await service.get(target.port, "/metrics")).text):
        counts.setdefault(stage, []).append((float(bound), float(count)))
    return counts


def stages_between(before: Counts, after: Counts) -> dict[str, float]:
    """By stage: the bound, in ms, that 99 of 100 batches of the run did not exceed."""
    found = {}
    for stage, buckets in after.items():
        counted = [
            (bound, now - then)
            for (bound, now), (_, then) in zip(buckets, before[stage], strict=True)
        ]
        enough = 0.99 * counted[-1][1]
        bound = next(bound for bound, count in counted if count >= enough)
        found[f"{stage}_p99_ms_at_most"] = bound * 1e3
    return found


def latencies_of(stamps: array.array[int], acknowledged: dict[int, int]) -> list[float]:
    """Seconds from acknowledgement to arrival; negative if the client was faster."""
    numbers, arrivals = islice(stamps, 0, None, 2), islice(stamps, 1, None, 2)
    found = [
        (arrived - acknowledged[number]) / 1e9
        for number, arrived in zip(numbers, arrivals, strict=True)
        if number in acknowledged
    ]
    if not found:
        raise BenchError("no change arrived")
    return found
