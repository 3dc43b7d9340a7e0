"""The table: its rows, their targets, and the measured values."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from bench.machine import Noise


@dataclass(frozen=True)
class Row:
    """A measure and its target: at least (or at most) `target`, in `unit`."""

    name: str
    measure: str
    target: float
    at_least: bool
    unit: str = ""
    usual: bool = True  # measured even if no row is named

    def reached(self, value: float) -> bool:
        return value >= self.target if self.at_least else value <= self.target

    @property
    def bound(self) -> str:
        return f"{'≥' if self.at_least else '≤'} {number(self.target)}{self.unit}"


ROWS = {
    row.name: row
    for row in (
        Row("F0", "one change to 5,000 sockets, to the last one / C loop of one round", 1.3, False),
        Row("F1", "deliveries/s to 500 sockets, one change at a time / C `send()` loop", 2.5, True),
        Row("F1c", "the same in CPU per delivery, server / C loop", 0.3, False),
        Row("F2", "deliveries/s / Starlette loop of `send_text`", 8, True),
        Row("F3", "bursts of 100 changes / F1's C loop", 12, True),
        Row("F4", "F1 with 50 different filters, which all pass / without", 0.8, True),
        Row("F5", "CPU to deliver a change that one of 5,000 users sees / per delivery", 20, False),
        Row("F6", "F1 with server-sent events / with WebSockets", 0.8, True),
        Row("W0", "pgbench, 32 clients: capture, no relay / minimal audit trigger", 0.95, True),
        Row("W1", "pgbench, 32 clients: capture and an awake relay / neither", 0.6, True),
        Row("W2", "the same / a `pg_notify(row)` trigger and its listener", 3, True),
        Row("W3", "one 100,000-row update: with capture / without", 2.5, False),
        Row("W4", "CPU that a path of two steps adds to each of 20,000 rows", 15, False, " µs"),
        Row("L1", "commit → client, idle, median / bare relay + one committed INSERT", 1.3, False),
        Row("L2", "commit → client, p99, 500 writes/s, 500 sockets", 25, False, " ms"),
        Row("T1", "changes/s, sustained, trigger to socket", 25_000, True),
        Row("S1", "PostgreSQL's CPU per change with 4 nodes and NATS / with 1", 1.1, False),
        Row("S2", "CPU per change of a node that serves none / of the relay's", 0.01, False),
        Row("S3", "extra latency at p99 by way of NATS", 3, False, " ms"),
        Row("M1", "memory per idle subscribed socket, deflate offered", 10.5, False, " KiB"),
        Row(
            "M2",
            "memory per subscription, 2,000 sockets with 100 companies each",
            1,
            False,
            " KiB",
            usual=False,
        ),
        Row("P1", "memory per long poll, 10,000 of one company", 20, False, " KiB", usual=False),
        Row("P1c", "the same: CPU per poll and second", 2.3, False, " µs", usual=False),
        Row("P1a", "the same: one change, to the last answer", 5, False, " s", usual=False),
        Row("I1", "CPU per idle socket and second, pings included", 2.3, False, " µs"),
        Row("Q1", "transactions per second of an idle node with 20 clients", 2, False),
        Row("C1", "connect + authenticate + setCompany per second", 2_000, True),
        Row("R1", "5,000 reconnect, each 100 behind: until all are level", 2, False, " s"),
        Row("R1q", "the same: queries", 25, False),
        Row("B1", "state of 10,000 rows to one client", 300, False, " ms"),
        Row("B1q", "state of 10,000 rows to 1,000 clients at once: queries", 20, False),
        Row("H1", "150,000 companies in one transaction: delay of another", 5, False, " s"),
        Row(
            "B3",
            "1,000,000 rows of one company by COPY: until delivered",
            60,
            False,
            " s",
            usual=False,
        ),
        Row("B3m", "the same of 1,000 companies, row by row", 60, False, " s", usual=False),
    )
}


@dataclass
class Samples:
    """One row's runs: the values, and the absolute figures behind them."""

    values: list[float] = field(default_factory=list)
    beside: defaultdict[str, list[float]] = field(default_factory=lambda: defaultdict(list))


@dataclass
class Table:
    """The results so far."""

    samples: defaultdict[str, Samples] = field(default_factory=lambda: defaultdict(Samples))
    failures: dict[str, str] = field(default_factory=dict)
    noise: list[Noise] = field(default_factory=list)

    def add(self, name: str, value: float, noise: Noise | None = None, **beside: float) -> None:
        """Adds one run's value; `beside` has the absolute figures behind it, by name."""
        samples = self.samples[name]
        samples.values.append(value)
        for label, figure in beside.items():
            samples.beside[label].append(figure)
        if noise is not None:
            self.noise.append(noise)

    def fail(self, name: str, reason: str) -> None:
        """Records why there is no value (or no further one)."""
        self.failures[name] = reason

    def markdown(self, names: Sequence[str]) -> str:
        lines = [
            "| | measure | target | median | min - max | runs | | made of (medians) |",
            "|---|---|---|---|---|---|---|---|",
        ]
        lines += [self._line(ROWS[name]) for name in names]
        return "\n".join((*lines, "", *self._noise()))

    def plain(self) -> dict[str, object]:
        """All results, for JSON."""
        return {
            "rows": {
                name: {
                    "measure": ROWS[name].measure,
                    "target": ROWS[name].bound,
                    "values": samples.values,
                    "beside": samples.beside,
                }
                for name, samples in self.samples.items()
            },
            "failures": self.failures,
            "noise": [{"stolen": noise.stolen, "others": noise.others} for noise in self.noise],
        }

    def _line(self, row: Row) -> str:
        samples = self.samples.get(row.name)
        if samples is None:
            reason = self.failures.get(row.name, "not measured")
            return f"| {row.name} | {row.measure} | {row.bound} | | | 0 | **{reason}** | |"
        values = samples.values
        median = statistics.median(values)
        spread = f"{number(min(values))} - {number(max(values))}"
        made_of = ", ".join(
            f"{label.replace('_', ' ')} {number(statistics.median(figures))}"
            for label, figures in samples.beside.items()
        )
        verdict = "met" if row.reached(median) else "**missed**"
        if row.name in self.failures:
            verdict += f" ({self.failures[row.name]})"
        return (
            f"| {row.name} | {row.measure} | {row.bound} | {number(median)}{row.unit} | {spread} "
            f"| {len(values)} | {verdict} | {made_of} |"
        )

    def _noise(self) -> Iterator[str]:
        for label, shares in (
            ("stolen by the hypervisor", [noise.stolen for noise in self.noise]),
            ("taken by other processes", [noise.others for noise in self.noise]),
        ):
            if shares:
                yield (
                    f"Of the machine, while measuring, {label}: {statistics.median(shares):.0%} "
                    f"({min(shares):.0%} - {max(shares):.0%}).  "
                )


def number(value: float) -> str:
    """Three significant digits, thousands with a comma."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"
