"""F1, F1c, F2, F3, F4, F6: one company, 500 sockets, deliveries per second and what they cost.

The C loop runs directly before and after every run; a ratio is relative to the mean of the two.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from contextlib import AsyncExitStack, nullcontext
from dataclasses import dataclass

from bench import feed, references, service
from bench.beside import beside
from bench.load import Load, load
from bench.machine import Noise
from bench.service import Service
from bench.stand import Stand

SOCKETS = 500
FILTERS = 50
OUR_NUMBER = '"Position":'
WARM_SECONDS = 0.5

Feed = Callable[[Load], Coroutine[object, object, None]]


@dataclass(frozen=True)
class Rate:
    """Deliveries per second, and the server's CPU seconds for each."""

    deliveries: float
    cpu: float
    noise: Noise


async def rate(
    stand: Stand,
    target: Service,
    plan: Sequence[str],
    number: str | None,
    feeding: Feed | None,
    *,
    seconds: float,
    events: bool = False,
) -> Rate:
    """Subscribes the plan's clients, runs the feed (or starts a reference that has none), counts."""
    async with load(
        stand.load, target.port, plan, number=number, step=len(plan), events=events
    ) as clients:
        await clients.ready()
        if feeding is None:
            target.program.send_line()
        async with beside(feeding(clients)) if feeding else nullcontext():
            await asyncio.sleep(WARM_SECONDS)
            watch, cpu, first = stand.watch(), target.program.cpu_seconds(), await clients.mark()
            await asyncio.sleep(seconds)
            last, cpu = await clients.mark(), target.program.cpu_seconds() - cpu
            noise = watch.noise()
        last.check()
        target.program.check()
    deliveries = last.deliveries - first.deliveries
    return Rate(deliveries / ((last.at - first.at) / 1e9), cpu / max(deliveries, 1), noise)


async def floor(stand: Stand, sockets: int, seconds: float) -> Rate:
    async with references.floor(stand, sockets) as loop:
        return await rate(stand, loop, references.paths(sockets), OUR_NUMBER, None, seconds=seconds)


async def ours(
    stand: Stand,
    url: str,
    target: Service,
    sockets: int,
    *,
    seconds: float,
    bursts: bool = False,
    events: bool = False,
    filters: int = 0,
) -> Rate:
    write = feed.in_bursts if bursts else feed.one_by_one
    if events:
        plan = [service.request(number + 1, 1) for number in range(sockets)]
    elif filters:
        plan = [service.filtered(number + 1, 1, number % filters) for number in range(sockets)]
    else:
        plan = service.subscribers(sockets)
    return await rate(
        stand,
        target,
        plan,
        OUR_NUMBER,
        lambda clients: write(url, clients, copies=sockets),
        seconds=seconds,
        events=events,
    )


async def starlette(stand: Stand, url: str, target: Service, sockets: int, seconds: float) -> Rate:
    plan = references.paths(sockets)
    return await rate(
        stand,
        target,
        plan,
        None,
        lambda clients: feed.one_by_one(url, clients, copies=sockets),
        seconds=seconds,
    )


async def measure(stand: Stand, names: frozenset[str]) -> None:
    seconds, floor_seconds = stand.seconds(4), stand.seconds(2)
    async with AsyncExitStack() as stack:
        url = await stack.enter_async_context(service.migrated(stand))
        target = await stack.enter_async_context(service.serving(stand, url))
        if "F2" in names:
            notifying = await stack.enter_async_context(stand.cluster.notifying())
            loop = await stack.enter_async_context(references.starlette(stand, notifying))
        before = await floor(stand, SOCKETS, floor_seconds)
        for _ in stand.rounds(3):
            single = await ours(stand, url, target, SOCKETS, seconds=seconds)
            after = await floor(stand, SOCKETS, floor_seconds)
            _add(stand, "F1", single, before, after)
            _add_cpu(stand, single, before, after)
            before = after
            if "F4" in names:
                filtered = await ours(stand, url, target, SOCKETS, filters=FILTERS, seconds=seconds)
                _add_pair(stand, "F4", filtered=filtered, unfiltered=single)
                before = await floor(stand, SOCKETS, floor_seconds)
            if "F6" in names:
                streams = await ours(stand, url, target, SOCKETS, events=True, seconds=seconds)
                _add_pair(stand, "F6", sse=streams, websocket=single)
                before = await floor(stand, SOCKETS, floor_seconds)
            if "F2" in names:
                peer = await starlette(stand, notifying, loop, SOCKETS, seconds)
                stand.table.add(
                    "F2",
                    single.deliveries / peer.deliveries,
                    peer.noise,
                    ours=single.deliveries,
                    starlette=peer.deliveries,
                )
                before = await floor(stand, SOCKETS, floor_seconds)
            if "F3" in names:
                burst = await ours(stand, url, target, SOCKETS, bursts=True, seconds=seconds)
                after = await floor(stand, SOCKETS, floor_seconds)
                _add(stand, "F3", burst, before, after)
                before = after


def _add(stand: Stand, name: str, rate: Rate, before: Rate, after: Rate) -> None:
    reference = (before.deliveries + after.deliveries) / 2
    stand.table.add(
        name, rate.deliveries / reference, rate.noise, ours=rate.deliveries, c_loop=reference
    )


def _add_pair(stand: Stand, name: str, **rates: Rate) -> None:
    """Adds the first rate by the second one, which is F1's run directly before it."""
    measured, reference = rates.values()
    figures = {kind: rate.deliveries for kind, rate in rates.items()}
    figures |= {f"{kind}_µs": rate.cpu * 1e6 for kind, rate in rates.items()}
    stand.table.add(name, measured.deliveries / reference.deliveries, measured.noise, **figures)


def _add_cpu(stand: Stand, rate: Rate, before: Rate, after: Rate) -> None:
    reference = (before.cpu + after.cpu) / 2
    stand.table.add("F1c", rate.cpu / reference, ours_µs=rate.cpu * 1e6, c_loop_µs=reference * 1e6)
