"""The test stand: the environment of every measurement."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from bench.machine import Watch
from bench.postgres import Cluster
from bench.table import Table


@dataclass(frozen=True)
class Stand:
    """The running server and the extent of the measurements.

    `floor` and `load` are the compiled programs, `lacking` the reason if there are none; `quick` means
    one short run of everything.
    """

    cluster: Cluster
    directory: Path
    floor: Path
    load: Path
    table: Table
    quick: bool
    lacking: str = ""

    def rounds(self, count: int) -> range:
        return range(1 if self.quick else count)

    def seconds(self, length: float) -> float:
        return length / 2 if self.quick else length

    def watch(self) -> Watch:
        """Counts everything but the benchmark and its PostgreSQL as noise."""
        return Watch(os.getpid(), self.cluster.pid)
