"""Pictures: deliveries by subscribers, transactions by writing clients, PostgreSQL's work by nodes."""

from __future__ import annotations

import statistics
from collections import defaultdict
from pathlib import Path

from bench import fanout, nodes, references, service, writers
from bench.stand import Stand
from bench.svg import Chart

PICTURES = Path(__file__).parent.parent / "docs" / "img"
SUBSCRIBERS = (100, 200, 500, 1_000, 2_000)
WRITERS = (1, 2, 4, 8, 16, 32)
NODES = (1, 2, 4, 8)
OURS = "notifier"

Runs = defaultdict[str, defaultdict[int, list[float]]]


async def draw(stand: Stand) -> None:
    """Measures and writes all pictures; every point is the median of its runs."""
    PICTURES.mkdir(parents=True, exist_ok=True)
    (PICTURES / "fanout.svg").write_text((await deliveries(stand)).svg())
    (PICTURES / "writers.svg").write_text((await transactions(stand)).svg())
    (PICTURES / "nodes.svg").write_text((await cost_of_nodes(stand)).svg())


async def deliveries(stand: Stand) -> Chart:
    seconds = stand.seconds(3)
    runs = _runs()
    async with (
        service.migrated(stand) as ours,
        stand.cluster.notifying() as notifying,
        service.serving(stand, ours) as target,
        references.starlette(stand, notifying) as loop,
    ):
        for _ in stand.rounds(2):
            for count in SUBSCRIBERS:
                floor = await fanout.floor(stand, count, seconds / 2)
                mine = await fanout.ours(stand, ours, target, count, bursts=False, seconds=seconds)
                peer = await fanout.starlette(stand, notifying, loop, count, seconds)
                runs["C send() loop"][count].append(floor.deliveries)
                runs[OURS][count].append(mine.deliveries)
                runs["Starlette loop"][count].append(peer.deliveries)
    return _chart(
        "Deliveries by subscribers of one company (20 single changes in flight)",
        "subscribers",
        "deliveries per second",
        runs,
    )


async def transactions(stand: Stand) -> Chart:
    seconds = stand.seconds(3)
    runs = _runs()
    async with (
        stand.cluster.copy("bare") as bare,
        service.migrated(stand) as ours,
        stand.cluster.notifying() as notifying,
    ):
        for _ in stand.rounds(2):
            for count in WRITERS:
                free = await writers.without(stand, bare, count, seconds)
                mine = await writers.captured(stand, ours, count, seconds)
                usual = await writers.notified(stand, notifying, count, seconds)
                runs["no trigger"][count].append(free.tps)
                runs[OURS][count].append(mine.tps)
                runs["pg_notify(row)"][count].append(usual.tps)
    return _chart(
        "Single-row updates by writing clients", "clients", "transactions per second", runs
    )


async def cost_of_nodes(stand: Stand) -> Chart:
    runs = _runs()
    async with nodes.nats_server(stand) as (nats, _), service.migrated(stand) as url:
        for _ in stand.rounds(2):
            for count in NODES:
                alone = await nodes.busy(stand, url, count)
                beside = await nodes.busy(stand, url, count, nats_url=nats)
                runs["PostgreSQL alone"][count].append(alone.database * 1e6)
                runs["with NATS"][count].append(beside.database * 1e6)
    return _chart(
        "PostgreSQL's work by number of nodes, all clients at one of them",
        "nodes",
        "µs of CPU per change, of all of its processes",
        runs,
    )


def _runs() -> Runs:
    return defaultdict(lambda: defaultdict(list))


def _chart(title: str, x_label: str, y_label: str, runs: Runs) -> Chart:
    lines = {
        name: [statistics.median(values) for values in points.values()]
        for name, points in runs.items()
    }
    return Chart(title, x_label, y_label, tuple(next(iter(runs.values()))), lines)
