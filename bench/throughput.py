"""T1: changes a second from the trigger to the socket."""

from __future__ import annotations

import time

from bench import feed, service
from bench.fanout import OUR_NUMBER
from bench.load import load
from bench.stand import Stand

COMPANIES = 20


async def measure(stand: Stand, _names: frozenset[str]) -> None:
    """T1: one socket in each of twenty companies, transactions of a hundred rows, to the last delivery."""
    async with service.migrated(stand) as url, service.serving(stand, url) as target:
        for _ in stand.rounds(3):
            plan = service.subscribers(COMPANIES, range(1, COMPANIES + 1))
            async with load(
                stand.load, target.port, plan, number=OUR_NUMBER, step=feed.EVENTS
            ) as clients:
                await clients.ready()
                watch, began = stand.watch(), time.monotonic()
                ours, database = target.program.cpu_seconds(), stand.cluster.cpu_seconds()
                changes = await feed.in_companies(
                    url, clients, companies=COMPANIES, seconds=stand.seconds(5)
                )
                await clients.settle(changes)
                seconds = time.monotonic() - began
                ours = target.program.cpu_seconds() - ours
                database = stand.cluster.cpu_seconds() - database
                (await clients.mark()).check()
            stand.table.add(
                "T1",
                changes / seconds,
                watch.noise(),
                notifier_µs_each=ours / changes * 1e6,
                postgres_µs_each=database / changes * 1e6,
            )
