"""W0, W1, W2, W3: the cost of capture for the application's writes."""

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
"""Share of its company's changes that the subscriber must have when pgbench ends."""

ROWS_OF_MANY = 100_000


@dataclass(frozen=True)
class Writing:
    """Transactions a second, and the CPU seconds of PostgreSQL and the listener for each."""

    tps: float
    database: float
    listener: float = 0.0


async def write(
    stand: Stand, url: str, clients: int, seconds: float, listener: Program | None = None
) -> Writing:
    """Single-row updates over all events, for a whole number of seconds."""
    seconds = round(seconds)  # pgbench accepts no fractions
    mine = listener.cpu_seconds() if listener else 0.0
    database = stand.cluster.cpu_seconds()
    tps = await stand.cluster.pgbench(url, clients, seconds)
    database = stand.cluster.cpu_seconds() - database
    mine = listener.cpu_seconds() - mine if listener else 0.0
    return Writing(tps, database / (tps * seconds), mine / (tps * seconds))


async def without(stand: Stand, url: str, clients: int, seconds: float) -> Writing:
    """Without a trigger on the table."""
    return await write(stand, url, clients, seconds)


async def captured(stand: Stand, url: str, clients: int, seconds: float) -> Writing:
    """The same with our triggers, an awake relay and one subscriber.

    Raises BenchError if the relay did not keep up: its cost would be underestimated.
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
        raise BenchError(
            f"invalid run: {mark.deliveries} of some {expected:.0f} changes were relayed"
        )
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


async def measure_audit(stand: Stand, _names: frozenset[str]) -> None:
    """W0: capture without a relay, against a minimal audit trigger."""
    seconds = stand.seconds(5)
    async with (
        stand.cluster.copy("bare") as bare,
        stand.cluster.copy("audited") as audited,
        service.migrated(stand) as ours,
    ):
        await stand.cluster.execute((SQL / "audit.sql").read_text(), "audited")
        for _ in stand.rounds(3):
            watch = stand.watch()
            free = await write(stand, bare, CLIENTS, seconds)
            usual = await write(stand, audited, CLIENTS, seconds)
            mine = await write(stand, ours, CLIENTS, seconds)
            stand.table.add(
                "W0",
                mine.tps / usual.tps,
                watch.noise(),
                ours_tps=mine.tps,
                audit_tps=usual.tps,
                no_trigger_µs_each=free.database * 1e6,
                capture_µs_each=(mine.database - free.database) * 1e6,
                audit_trigger_µs_each=(usual.database - free.database) * 1e6,
            )


async def measure_many(stand: Stand, _names: frozenset[str]) -> None:
    """W3: the statement with its commit, without a relay."""
    many = "template_many"
    async with stand.cluster.copy(many):
        await stand.cluster.execute((SQL / "fill_many.sql").read_text(), many)
        async with stand.cluster.copy("bare", many) as bare, service.migrated(stand, many) as ours:
            for url in (bare, ours):  # the first update also extends the table: not counted
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
        status = await connection.execute("UPDATE events SET title = 'change ' || random()")
        seconds = time.monotonic() - began
    assert status == f"UPDATE {ROWS_OF_MANY}"
    return seconds
