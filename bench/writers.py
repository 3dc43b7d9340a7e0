"""W1, W2, W3: what capture costs the app's own writes."""

from __future__ import annotations

import time
from contextlib import AsyncExitStack
from dataclasses import dataclass

from bench import references, service
from bench.fanout import OUR_NUMBER
from bench.load import load
from bench.postgres import SQL, connected
from bench.programs import BenchError, Program
from bench.stand import Stand

CLIENTS = 32
COMPANIES = 100
KEPT_UP = 0.5
"""What a subscriber must have of his company's share when pgbench ends; the share is random."""

ROWS_OF_MANY = 100_000


@dataclass(frozen=True)
class Writing:
    """Transactions a second, and what each cost PostgreSQL and the listener in CPU seconds."""

    tps: float
    database: float
    listener: float = 0.0


async def write(
    stand: Stand, url: str, clients: int, seconds: float, listener: Program | None = None
) -> Writing:
    """Single-row updates over all events, for so many whole seconds."""
    seconds = round(seconds)  # pgbench knows no others
    mine = listener.cpu_seconds() if listener else 0.0
    database = stand.cluster.cpu_seconds()
    tps = await stand.cluster.pgbench(url, clients, seconds)
    database = stand.cluster.cpu_seconds() - database
    mine = listener.cpu_seconds() - mine if listener else 0.0
    return Writing(tps, database / (tps * seconds), mine / (tps * seconds))


async def without(stand: Stand, url: str, clients: int, seconds: float) -> Writing:
    """When nothing watches the table."""
    return await write(stand, url, clients, seconds)


async def captured(stand: Stand, url: str, clients: int, seconds: float) -> Writing:
    """The same with our triggers, an awake relay and one subscriber.

    Raises BenchError when the relay did not keep up: then it has cost too little.
    """
    async with (
        service.serving(stand, url) as target,
        load(stand.load, target.port, service.subscribers(1), number=OUR_NUMBER) as listening,
    ):
        await listening.ready()
        writing = await write(stand, url, clients, seconds, target.program)
        mark = await listening.mark()
    mark.check()
    expected = writing.tps * round(seconds) / COMPANIES
    if mark.deliveries < expected * KEPT_UP:
        raise BenchError(f"unsound: {mark.deliveries} of some {expected:.0f} changes were relayed")
    return writing


async def notified(stand: Stand, url: str, clients: int, seconds: float) -> Writing:
    """The same with `pg_notify(row)` and the Starlette loop listening, with one subscriber."""
    async with (
        references.starlette(stand, url) as target,
        load(stand.load, target.port, references.paths(1)) as listening,
    ):
        await listening.ready()
        return await write(stand, url, clients, seconds, target.program)


async def measure(stand: Stand, names: frozenset[str]) -> None:
    seconds = stand.seconds(5)
    async with AsyncExitStack() as stack:
        bare = await stack.enter_async_context(stand.cluster.copy("bare"))
        ours = await stack.enter_async_context(service.migrated(stand))
        if "W2" in names:
            notifying = await stack.enter_async_context(stand.cluster.notifying())
        for _ in stand.rounds(3):
            watch = stand.watch()
            free = await without(stand, bare, CLIENTS, seconds)
            mine = await captured(stand, ours, CLIENTS, seconds)
            stand.table.add(
                "W1",
                mine.tps / free.tps,
                watch.noise(),
                ours_tps=mine.tps,
                no_trigger_tps=free.tps,
                postgres_µs_each=mine.database * 1e6,
                without_µs_each=free.database * 1e6,
                notifier_µs_each=mine.listener * 1e6,
            )
            if "W2" in names:
                usual = await notified(stand, notifying, CLIENTS, seconds)
                stand.table.add(
                    "W2", mine.tps / usual.tps, ours_tps=mine.tps, pg_notify_tps=usual.tps
                )


async def measure_many(stand: Stand, _names: frozenset[str]) -> None:
    """W3: the statement with its commit, nobody reading."""
    many = "template_many"
    async with stand.cluster.copy(many):
        await stand.cluster.execute((SQL / "fill_many.sql").read_text(), many)
        async with stand.cluster.copy("bare", many) as bare, service.migrated(stand, many) as ours:
            for url in (bare, ours):  # the first one also grows the table: it does not count
                await _update_all(url)
            for _ in stand.rounds(3):
                watch = stand.watch()
                free, mine = await _update_all(bare), await _update_all(ours)
                stand.table.add("W3", mine / free, watch.noise(), ours_s=mine, without_s=free)


async def _update_all(url: str) -> float:
    """Seconds for one update of all events."""
    async with connected(url) as connection:
        await connection.execute("VACUUM events")
        await connection.execute("CHECKPOINT")
        began = time.monotonic()
        said = await connection.execute("UPDATE events SET title = 'change ' || random()")
        seconds = time.monotonic() - began
    assert said == f"UPDATE {ROWS_OF_MANY}"
    return seconds
