"""M1, M2, I1, Q1, C1, R1: many sockets: memory, CPU and transactions while idle, connecting, reconnecting."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

from bench import feed, references, service
from bench.fanout import OUR_NUMBER
from bench.load import load
from bench.postgres import connected, uuid
from bench.service import Service
from bench.stand import Stand

WARM, IDLE = 50, 2_000
MANY, PART = 100, 250
"""Companies of each socket, and sockets that subscribe at once."""
CONNECTING = 2_000
RETURNING, COMPANIES, BEHIND = 5_000, 10, 100
SETTLE_SECONDS = 1.0
RESTING, IDLE_SECONDS = 5_000, 20.0
FEW = 20
"""Clients of the node whose transactions are counted."""
REPORTED_SECONDS = 12.0
"""PostgreSQL counts the transactions of an idle session up to ten seconds late: here, those of the start."""

COMMITS = "SELECT xact_commit FROM pg_stat_database WHERE datname = 'ours'"

# Transaction control is not counted.
QUERIES = """
    SELECT coalesce(sum(calls), 0) FROM pg_stat_statements
    WHERE dbid = (SELECT oid FROM pg_database WHERE datname = current_database())
      AND query !~* '^(BEGIN|START|COMMIT|ROLLBACK|SAVEPOINT|RELEASE)' AND query !~ 'pg_stat_statements'
"""


async def memory(
    stand: Stand, target: Service, warm: list[str], idle: list[str]
) -> tuple[float, float]:
    """Server memory per idle client that offers deflate, in KiB, and that of the process before, in MiB."""
    async with load(stand.load, target.port, warm, deflate=True) as first:
        await first.ready()
        await asyncio.sleep(SETTLE_SECONDS)
        before = target.program.resident_bytes()
        async with load(stand.load, target.port, idle, deflate=True) as others:
            await others.ready()
            await asyncio.sleep(SETTLE_SECONDS)
            grown = target.program.resident_bytes() - before
            return grown / len(idle) / 1024, before / 1024**2


async def measure_memory(stand: Stand, _names: frozenset[str]) -> None:
    """M1: a new process for each run, because freed memory is reused."""
    async with service.migrated(stand) as url, stand.cluster.notifying() as notifying:
        for _ in stand.rounds(2):
            warm, idle = service.subscribers(WARM), service.subscribers(IDLE)
            async with service.serving(stand, url) as target:
                mine, process = await memory(stand, target, warm, idle)
            async with references.starlette(stand, notifying) as loop:
                bare, _ = await memory(stand, loop, references.paths(WARM), references.paths(IDLE))
            stand.table.add("M1", mine, starlette_KiB=bare, process_MiB=process)


async def measure_subscriptions(stand: Stand, _names: frozenset[str]) -> None:
    """M2: the server's memory with many companies on each socket, sockets included."""

    def plan(sockets: int) -> list[str]:
        # Only ten users are in all companies.
        return [service.follower(n % 10 + 1, range(1, MANY + 1)) for n in range(sockets)]

    async with service.migrated(stand) as url:
        for _ in stand.rounds(1):
            async with (
                service.serving(stand, url, max_connections_per_user=str(IDLE)) as target,
                AsyncExitStack() as stack,
            ):
                first = await stack.enter_async_context(
                    load(stand.load, target.port, plan(WARM), deflate=True)
                )
                await first.ready()
                before = target.program.resident_bytes()
                for _ in range(IDLE // PART):
                    part = await stack.enter_async_context(
                        load(stand.load, target.port, plan(PART), deflate=True)
                    )
                    await part.ready()
                await asyncio.sleep(SETTLE_SECONDS)
                grown = target.program.resident_bytes() - before
                stand.table.add("M2", grown / (IDLE * MANY) / 1024, subscriptions=IDLE * MANY)


async def measure_idle(stand: Stand, names: frozenset[str]) -> None:
    """I1, Q1: CPU per idle socket, pings included; transactions of a node with twenty clients."""
    seconds = stand.seconds(IDLE_SECONDS)
    async with service.migrated(stand) as url:
        for _ in stand.rounds(1):
            async with service.serving(stand, url) as target:
                few, cpu_of_few = await _idle(stand, target, FEW, seconds)
                stand.table.add("Q1", few, own_cpu_ms_per_s=cpu_of_few * 1e3)
                if "I1" in names:
                    watch = stand.watch()
                    _, cpu = await _idle(stand, target, RESTING, seconds)
                    each = (cpu - cpu_of_few) / (RESTING - FEW) * 1e6
                    stand.table.add("I1", each, watch.noise(), sockets=RESTING)


async def _idle(stand: Stand, target: Service, sockets: int, seconds: float) -> tuple[float, float]:
    """Commits, and CPU seconds of the server, per second with this number of idle clients."""
    async with (
        load(stand.load, target.port, service.subscribers(sockets)) as clients,
        connected(stand.cluster.url("postgres")) as connection,
    ):
        await clients.ready()
        await asyncio.sleep(REPORTED_SECONDS)
        before, cpu = await connection.fetchval(COMMITS), target.program.cpu_seconds()
        await asyncio.sleep(seconds)
        commits = await connection.fetchval(COMMITS) - before
        (await clients.mark()).check()
        return commits / seconds, (target.program.cpu_seconds() - cpu) / seconds


async def measure_connecting(stand: Stand, _names: frozenset[str]) -> None:
    """C1: a hundred at a time, from the first connect() to the last acknowledgement."""
    async with service.migrated(stand) as url:
        for _ in stand.rounds(3):
            plan = [service.conversation(n + 1, n % COMPANIES + 1) for n in range(CONNECTING)]
            async with service.serving(stand, url) as target:
                watch = stand.watch()
                cpu, database = target.program.cpu_seconds(), stand.cluster.cpu_seconds()
                async with load(stand.load, target.port, plan) as clients:
                    seconds = (await clients.ready()).seconds
                    cpu = target.program.cpu_seconds() - cpu
                    database = stand.cluster.cpu_seconds() - database
                stand.table.add(
                    "C1",
                    CONNECTING / seconds,
                    watch.noise(),
                    seconds=seconds,
                    notifier_µs_each=cpu / CONNECTING * 1e6,
                    postgres_µs_each=database / CONNECTING * 1e6,
                )


async def measure_return(stand: Stand, _names: frozenset[str]) -> None:
    """R1: 500 clients in each of ten companies reconnect at once to a node that has just started."""
    async with service.migrated(stand) as url:
        async with service.serving(stand, url) as target:
            epoch = await _write_missed_changes(stand, url, target)
        await stand.cluster.execute("CREATE EXTENSION pg_stat_statements", "ours")
        await stand.cluster.execute("ALTER DATABASE ours SET pg_stat_statements.track = 'top'")
        for _ in stand.rounds(2):
            plan = [
                service.conversation(n + 1, n % COMPANIES + 1, after=0, epoch=epoch)
                for n in range(RETURNING)
            ]
            async with service.serving(stand, url) as target, connected(url) as connection:
                watch = stand.watch()
                before = await connection.fetchval(QUERIES)
                async with load(
                    stand.load, target.port, plan,
                    at_once=RETURNING, number=OUR_NUMBER, until=BEHIND,
                ) as clients:  # fmt: skip
                    seconds = await clients.level()
                    queries = await connection.fetchval(QUERIES) - before
                    (await clients.mark()).check()
                    ready = (await clients.ready()).seconds
                stand.table.add("R1", seconds, watch.noise(), subscribed_after_s=ready)
                stand.table.add("R1q", float(queries))


async def _write_missed_changes(stand: Stand, url: str, target: Service) -> str:
    """Writes a hundred changes in each company, awaited by one client of each; returns the epoch."""
    plan = service.subscribers(COMPANIES, range(1, COMPANIES + 1))
    async with (
        load(stand.load, target.port, plan, number=OUR_NUMBER, until=BEHIND) as clients,
        connected(url) as connection,
    ):
        answer = (await clients.ready()).answer
        for company in range(1, COMPANIES + 1):
            await connection.execute(feed.ALL_OF_A_COMPANY, 1, uuid(company))
        await clients.level()
    assert answer is not None
    return str(answer["Data"]["Epoch"])
