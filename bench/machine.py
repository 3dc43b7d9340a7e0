"""The machine: its name, what a process has used of it, and how much of it others took."""

from __future__ import annotations

import os
import platform
import resource
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")
TICKS = os.sysconf("SC_CLK_TCK")


def name() -> str:
    """Processor, cores, memory, kernel and Python in one line."""
    models = [
        line.partition(":")[2].strip()
        for line in (PROC / "cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    ]
    gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return (
        f"{os.cpu_count()} x {models[0] if models else platform.machine()}, {gib:.0f} GiB, "
        f"Linux {platform.release()}, Python {platform.python_version()}"
    )


def raise_limits() -> int:
    """Allows this process and its children as many open files as it may have; returns how many."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def _stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat from the state (field 3) on; none when the process is gone."""
    try:
        return (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def family(pid: int) -> list[int]:
    """The process and all its descendants."""
    children: dict[int, list[int]] = {}
    for entry in PROC.iterdir():
        if entry.name.isdigit() and (stat := _stat(int(entry.name))):
            children.setdefault(int(stat[1]), []).append(int(entry.name))
    found = [pid]
    for member in found:
        found.extend(children.get(member, ()))
    return found


def cpu_seconds(pid: int, *, ended: bool = False) -> float:
    """User and system time of the process and its descendants; `ended`: of those gone, too."""
    ticks = 0
    for member in family(pid):
        if stat := _stat(member):
            ticks += sum(int(field) for field in stat[11 : 15 if ended else 13])
    return ticks / TICKS


def resident_bytes(pid: int) -> int:
    """What the process and its descendants have in memory."""
    pages = 0
    for member in family(pid):
        if stat := _stat(member):
            pages += int(stat[21])
    return pages * os.sysconf("SC_PAGE_SIZE")


def peak_bytes(pid: int) -> int:
    """The most that the process has ever had in memory."""
    return _status(pid, "VmHWM")


def own_bytes(pid: int) -> int:
    """What it has in memory that is shared with nobody: without PostgreSQL's buffers."""
    return _status(pid, "RssAnon")


def _status(pid: int, name: str) -> int:
    """A line of /proc/PID/status; 0 when the process is gone."""
    try:
        lines = (PROC / str(pid) / "status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:")), 0)


@dataclass(frozen=True)
class Noise:
    """Shares of the whole machine (0 to 1) that were not ours."""

    stolen: float
    others: float


class Watch:
    """Sees from its making on what others take of the machine; `roots` are ours, with children."""

    def __init__(self, *roots: int) -> None:
        self._roots = roots
        self._before = self._look()

    def noise(self) -> Noise:
        """What others took since the watch was made."""
        whole, stolen, busy, ours = (
            after - before for after, before in zip(self._look(), self._before, strict=True)
        )
        return Noise(stolen / whole, max(0.0, busy - ours) / whole) if whole else Noise(0.0, 0.0)

    def _look(self) -> tuple[float, float, float, float]:
        line = (PROC / "stat").read_text().splitlines()[0]
        user, nice, system, *idle, stolen = (int(field) / TICKS for field in line.split()[1:9])
        ours = sum(cpu_seconds(root, ended=True) for root in self._roots)
        busy = user + nice + system
        return busy + sum(idle) + stolen, stolen, busy, ours
