"""The test stand: what every measurement needs to know."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from bench.machine import Watch
from bench.postgres import Cluster
from bench.table import Table


@dataclass(frozen=True)
class Stand:
    """What is running, and how much is to be measured.

    `floor` and `load` are the compiled programs, `lacking` says why there are none; `quick` asks
    for one short run of everything.
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
        """Everything but the bench and its PostgreSQL is noise."""
        return Watch(os.getpid(), self.cluster.pid)
