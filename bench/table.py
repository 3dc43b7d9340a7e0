"""The table of DESIGN part 3: its rows, their targets, and what was measured."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from bench.machine import Noise


@dataclass(frozen=True)
class Row:
    """What is measured, and what it must reach: at least (or at most) `target` of `unit`."""

    name: str
    measure: str
    target: float
    at_least: bool
    unit: str = ""
    usual: bool = True  # measured also when no row is named

    def reached(self, value: float) -> bool:
        return value >= self.target if self.at_least else value <= self.target

    @property
    def bound(self) -> str:
        return f"{'≥' if self.at_least else '≤'} {number(self.target)}{self.unit}"


ROWS = {
    row.name: row
    for row in (
        Row("F1", "deliveries/s to 500 sockets, one change at a time / C `send()` loop", 0.8, True),
        Row("F1c", "the same in CPU per delivery, server / C loop", 1.4, False),
        Row("F2", "deliveries/s / Starlette loop of `send_text`", 3, True),
        Row("F3", "bursts of 100 changes / F1's C loop", 5, True),
        Row("W1", "pgbench, 32 clients: capture and an awake relay / neither", 0.75, True),
        Row("W2", "the same / a `pg_notify(row)` trigger and its listener", 3, True),
        Row("W3", "one 100,000-row update: with capture / without", 3, False),
        Row("L1", "commit → client, idle, median / bare relay + one committed INSERT", 2, False),
        Row("L2", "commit → client, p99, 500 writes/s, 500 sockets", 50, False, " ms"),
        Row("T1", "changes/s, sustained, trigger to socket", 20_000, True),
        Row("M1", "memory per idle subscribed socket, deflate offered", 20, False, " KiB"),
        Row("C1", "connect + authenticate + setCompany per second", 1_000, True),
        Row("R1", "5,000 reconnect, each 100 behind: until all are level", 10, False, " s"),
        Row("R1q", "the same: queries", 50, False),
        Row(
            "B3", "1,000,000 rows of one company by COPY: until told", 60, False, " s", usual=False
        ),
        Row("B3m", "the same of 1,000 companies, row by row", 60, False, " s", usual=False),
    )
}


@dataclass
class Samples:
    """One row's runs: the figure, and the absolute ones that it was made of."""

    values: list[float] = field(default_factory=list)
    beside: defaultdict[str, list[float]] = field(default_factory=lambda: defaultdict(list))


@dataclass
class Table:
    """What was measured so far."""

    samples: defaultdict[str, Samples] = field(default_factory=lambda: defaultdict(Samples))
    failures: dict[str, str] = field(default_factory=dict)
    noise: list[Noise] = field(default_factory=list)

    def add(self, name: str, value: float, noise: Noise | None = None, **beside: float) -> None:
        """One run's figure; `beside` says what it was made of, in words and numbers."""
        samples = self.samples[name]
        samples.values.append(value)
        for word, figure in beside.items():
            samples.beside[word].append(figure)
        if noise is not None:
            self.noise.append(noise)

    def fail(self, name: str, reason: str) -> None:
        """Why there is no figure (or no further one)."""
        self.failures[name] = reason

    def markdown(self, names: Sequence[str]) -> str:
        lines = [
            "| | measure | target | median | min - max | runs | | made of (medians) |",
            "|---|---|---|---|---|---|---|---|",
        ]
        lines += [self._line(ROWS[name]) for name in names]
        return "\n".join((*lines, "", *self._noise()))

    def plain(self) -> dict[str, object]:
        """Everything, for JSON."""
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
            f"{word.replace('_', ' ')} {number(statistics.median(figures))}"
            for word, figures in samples.beside.items()
        )
        verdict = "met" if row.reached(median) else "**missed**"
        if row.name in self.failures:
            verdict += f" ({self.failures[row.name]})"
        return (
            f"| {row.name} | {row.measure} | {row.bound} | {number(median)}{row.unit} | {spread} "
            f"| {len(values)} | {verdict} | {made_of} |"
        )

    def _noise(self) -> Iterator[str]:
        for what, shares in (
            ("stolen by the hypervisor", [noise.stolen for noise in self.noise]),
            ("taken by other processes", [noise.others for noise in self.noise]),
        ):
            if shares:
                yield (
                    f"Of the machine, while measuring, {what}: {statistics.median(shares):.0%} "
                    f"({min(shares):.0%} - {max(shares):.0%}).  "
                )


def number(value: float) -> str:
    """Three significant digits, thousands with a comma."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"
