"""python -m bench [--quick] [ROW ...]      prints the table; `plots` draws the pictures instead.

Everything runs on 127.0.0.1, is bounded in time, and is stopped at the end. The exit status is 0 even
if a target is missed (the table shows that), 1 if nothing could be measured.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import asyncpg

from bench import (
    bulk,
    fanout,
    isolated,
    latency,
    machine,
    nodes,
    paths,
    plots,
    polls,
    postgres,
    programs,
    restricted,
    service,
    sockets,
    states,
    table,
    throughput,
    writers,
)
from bench.programs import BenchError
from bench.stand import Stand
from notifier.errors import NotifierError

RESULTS = Path(__file__).with_name("results.json")
WHOLE_SECONDS = 20 * 60.0


@dataclass(frozen=True)
class Measurement:
    """A function that fills rows of the table, its time limit, and whether it needs the C programs."""

    rows: tuple[str, ...]
    measure: Callable[[Stand, frozenset[str]], Awaitable[None]]
    seconds: float
    compiled: bool = True


MEASUREMENTS = (
    Measurement(("F0",), isolated.measure, 90),
    Measurement(("F1", "F1c", "F2", "F3", "F4", "F6"), fanout.measure, 220),
    Measurement(("F5",), restricted.measure, 200),
    Measurement(("W0",), writers.measure_audit, 90, compiled=False),
    Measurement(("W1", "W2"), writers.measure, 150),
    Measurement(("W3",), writers.measure_many, 90, compiled=False),
    Measurement(("W4",), paths.measure, 90, compiled=False),
    Measurement(("L1",), latency.measure_idle, 60),
    Measurement(("L2",), latency.measure_busy, 75),
    Measurement(("T1",), throughput.measure, 75),
    Measurement(("S1", "S2", "S3"), nodes.measure, 200),
    Measurement(("M1",), sockets.measure_memory, 75),
    Measurement(("M2",), sockets.measure_subscriptions, 240),
    Measurement(("P1", "P1c", "P1a"), polls.measure, 120, compiled=False),
    Measurement(("I1", "Q1"), sockets.measure_idle, 90),
    Measurement(("C1",), sockets.measure_connecting, 60),
    Measurement(("R1", "R1q"), sockets.measure_return, 120),
    Measurement(("B1", "B1q"), states.measure, 120, compiled=False),
    Measurement(("H1",), bulk.measure_delay, 150, compiled=False),
    Measurement(("B3", "B3m"), bulk.measure, 400),
)
DRIVER = (asyncpg.PostgresError, asyncpg.InterfaceError)
FILL = (postgres.SQL / "fill.sql").read_text()


@contextmanager
def scratch_directory() -> Iterator[Path]:
    """A directory that PostgreSQL can enter too, which may run as another user."""
    with tempfile.TemporaryDirectory(prefix="notifier-bench-") as name:
        directory = Path(name)
        directory.chmod(0o755)
        yield directory


async def prepare(stack: AsyncExitStack, quick: bool) -> Stand:
    """Compiles the programs, starts PostgreSQL and fills the template."""
    directory = stack.enter_context(scratch_directory())
    lacking = ""
    try:
        floor, load = [await programs.compiled(name, directory) for name in ("floor", "load")]
    except BenchError as error:
        lacking, floor, load = str(error), directory, directory
        print(f"Only W0, W3 and H1 can be measured: {lacking}.", file=sys.stderr)
    cluster = await stack.enter_async_context(postgres.started(directory / "postgres"))
    await cluster.execute(f"CREATE DATABASE {postgres.TEMPLATE}")
    template = cluster.url(postgres.TEMPLATE)
    await service.migrate(template, "--calendar")
    await service.uninstall(template)
    await cluster.execute(FILL, postgres.TEMPLATE)
    await cluster.execute("VACUUM ANALYZE", postgres.TEMPLATE)
    return Stand(cluster, directory, floor, load, table.Table(), quick, lacking)


async def measure(
    stand: Stand, measurement: Measurement, names: frozenset[str], seconds: float
) -> None:
    """Fills the rows, or records why that failed; within `seconds`."""
    print(f"{' '.join(sorted(names))} …", end=" ", file=sys.stderr, flush=True)
    began = time.monotonic()
    try:
        async with asyncio.timeout(seconds):
            await measurement.measure(stand, names)
    except TimeoutError:
        reason = f"not within {time.monotonic() - began:.0f} s"
    except (BenchError, NotifierError, OSError, *DRIVER) as error:
        reason = str(error)
    else:
        reason = ""
    for name in names if reason else ():
        stand.table.fail(name, reason)
    print(f"{time.monotonic() - began:.0f} s {reason}", file=sys.stderr, flush=True)


async def run(wanted: Sequence[str], quick: bool) -> None:
    stop_at_sigterm()
    began = time.monotonic()
    async with AsyncExitStack() as stack:
        stand = await prepare(stack, quick)
        if "plots" in wanted and not stand.lacking:
            await plots.draw(stand)
            return
        for measurement in MEASUREMENTS:
            names = frozenset(measurement.rows).intersection(wanted)
            if stand.lacking and measurement.compiled:
                for name in names:
                    stand.table.fail(name, stand.lacking)
            elif names:
                left = WHOLE_SECONDS - (time.monotonic() - began)
                await measure(stand, measurement, names, min(left, measurement.seconds))
        place = f"{machine.name()}, PostgreSQL {await stand.cluster.version()}"
    RESULTS.write_text(json.dumps({"machine": place, **stand.table.plain()}, indent=1))
    print(stand.table.markdown([name for name in table.ROWS if name in wanted]))
    print(f"Measured in {time.monotonic() - began:.0f} s on {place}.")


def stop_at_sigterm() -> None:
    """On SIGTERM, leaves the `async with` blocks and so stops all programs."""
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench", description="Measures the targets of bench/README.md."
    )
    choices = (*table.ROWS, "plots")
    rare = [name for name, row in table.ROWS.items() if not row.usual]
    parser.add_argument(
        "rows",
        nargs="*",
        metavar="ROW",
        help=f"of {', '.join(choices)}; default: all but {', '.join(rare)}",
    )
    parser.add_argument("--quick", action="store_true", help="one short run of everything")
    given = parser.parse_args()
    if unknown := set(given.rows) - set(choices):
        parser.error(f"no such row: {', '.join(sorted(unknown))}")
    return given


def main() -> int:
    given = options()
    if sys.platform != "linux":
        print("The benchmark needs Linux (epoll and /proc).", file=sys.stderr)
        return 1
    machine.raise_limits()
    usual = tuple(name for name, row in table.ROWS.items() if row.usual)
    try:
        asyncio.run(run(given.rows or usual, given.quick))
    except (KeyboardInterrupt, asyncio.CancelledError):
        return 130
    except (BenchError, NotifierError) as error:
        print(f"The benchmark cannot run: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
