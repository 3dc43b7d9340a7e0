"""S1, S2, S3: what further nodes cost, with NATS and without."""

from __future__ import annotations

import asyncio
import sysconfig
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from bench import feed, service
from bench.fanout import OUR_NUMBER
from bench.latency import OUR_TITLE, latencies_of
from bench.load import Load, load
from bench.programs import BenchError, Program, running
from bench.service import Service
from bench.stand import Stand

NODES = 4
COMPANIES = 20
REST_SECONDS = 3.0
PER_SECOND = 500.0
WRITERS = 8
NATS_SERVER = Path(sysconfig.get_path("scripts"), "nats-server")
PATH_SECONDS = 30.0


@dataclass(frozen=True)
class Cost:
    """CPU seconds for each change: of PostgreSQL, of the node that relays and serves all clients, and of
    one that serves no company, beyond what it takes at rest; and of the server of NATS."""

    database: float
    relay: float
    idle: float
    nats: float = 0.0


@asynccontextmanager
async def nats_server(stand: Stand) -> AsyncIterator[tuple[str, Program]]:
    """A plain server; yields its URL, and the process."""
    port = service.free_port()
    command = (NATS_SERVER, "-a", "127.0.0.1", "-p", str(port))
    log = stand.directory / "nats.log"
    async with running(*command, log=log, events=False, patience=2.0) as program:
        yield f"nats://127.0.0.1:{port}", program


async def measure(stand: Stand, names: frozenset[str]) -> None:
    async with nats_server(stand) as (nats, server), service.migrated(stand) as url:
        for _ in stand.rounds(2):
            watch = stand.watch()
            if names & {"S1", "S2"}:
                one = await busy(stand, url, 1)
                without = await busy(stand, url, NODES)
                many = await busy(stand, url, NODES, server, nats_url=nats)
                stand.table.add(
                    "S1",
                    many.database / one.database,
                    watch.noise(),
                    one_node_µs=one.database * 1e6,
                    four_nodes_µs=many.database * 1e6,
                    four_without_nats_µs=without.database * 1e6,
                    nats_server_µs=many.nats * 1e6,
                )
                stand.table.add(
                    "S2",
                    many.idle / many.relay,
                    idle_µs=many.idle * 1e6,
                    relay_µs=many.relay * 1e6,
                    idle_without_nats_µs=without.idle * 1e6,
                )
            if "S3" in names:
                relay, beside = await paced(stand, url, nats_url=nats)
                stand.table.add(
                    "S3",
                    (beside - relay) * 1e3,
                    watch.noise(),
                    relay_ms=relay * 1e3,
                    by_nats_ms=beside * 1e3,
                )


@asynccontextmanager
async def serving(
    stand: Stand, url: str, count: int, settings: dict[str, str]
) -> AsyncIterator[list[Service]]:
    """So many nodes; the first one relays."""
    async with AsyncExitStack() as stack:
        services = [
            await stack.enter_async_context(service.serving(stand, url, **settings))
            for _ in range(count)
        ]
        for each in services if settings else ():
            await _on_nats(each)
        yield services


async def busy(
    stand: Stand, url: str, count: int, nats: Program | None = None, **settings: str
) -> Cost:
    """S1, S2: as T1, with all clients at the relay's node."""
    async with serving(stand, url, count, settings) as services:
        plan = service.subscribers(COMPANIES, range(1, COMPANIES + 1))
        async with load(
            stand.load, services[0].port, plan, number=OUR_NUMBER, step=feed.EVENTS
        ) as clients:
            await clients.ready()
            await asyncio.sleep(REST_SECONDS)
            idle = _cpu(services)
            await asyncio.sleep(REST_SECONDS)
            idle = [
                (now - then) / REST_SECONDS for now, then in zip(_cpu(services), idle, strict=True)
            ]
            broker = nats.cpu_seconds() if nats else 0.0
            began, before, database = time.monotonic(), _cpu(services), stand.cluster.cpu_seconds()
            changes = await feed.in_companies(
                url, clients, companies=COMPANIES, seconds=stand.seconds(5)
            )
            await clients.settle(changes)
            database = stand.cluster.cpu_seconds() - database
            broker = nats.cpu_seconds() - broker if nats else 0.0
            seconds = time.monotonic() - began
            spent = [
                now - then - rest * seconds
                for now, then, rest in zip(_cpu(services), before, idle, strict=True)
            ]
            (await clients.mark()).check()
    others = spent[1:] or [0.0]
    idle_node = max(0.0, sum(others) / len(others) / changes)
    return Cost(database / changes, spent[0] / changes, idle_node, broker / changes)


async def paced(stand: Stand, url: str, **settings: str) -> tuple[float, float]:
    """S3: p99 of the latencies at the relay's node and at the other one, in seconds."""
    changes = int(PER_SECOND * stand.seconds(6))
    async with serving(stand, url, 2, settings) as services, AsyncExitStack() as stack:
        clients = [
            await stack.enter_async_context(
                load(
                    stand.load,
                    each.port,
                    service.subscribers(1),
                    number=OUR_NUMBER,
                    stamp=OUR_TITLE,
                    step=1,
                )
            )
            for each in services
        ]
        for client in clients:
            await client.ready()
        acknowledged = await feed.paced(
            url, per_second=PER_SECOND, changes=changes, writers=WRITERS
        )
        for client in clients:
            await client.settle(changes)
        relay, beside = [await _p99(client, acknowledged) for client in clients]
    return relay, beside


def _cpu(services: Sequence[Service]) -> list[float]:
    return [each.program.cpu_seconds() for each in services]


async def _p99(client: Load, acknowledged: dict[int, int]) -> float:
    (await client.mark()).check()
    found = sorted(latencies_of(await client.stamps(), acknowledged))
    return found[int(len(found) * 0.99)]


async def _on_nats(target: Service) -> None:
    """Waits until the node gets its messages by NATS."""
    deadline = time.monotonic() + PATH_SECONDS
    while not await _uses_nats(target):
        if time.monotonic() > deadline:
            raise BenchError(f"{target.program.name} does not use NATS")
        await asyncio.sleep(0.1)


async def _uses_nats(target: Service) -> bool:
    metrics = await service.get(target.port, "/metrics")
    return 'notifier_stream_path{path="nats"} 1' in metrics.text
