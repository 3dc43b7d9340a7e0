"""The machine: its name, the resources that a process used, and the share that other processes used."""

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
    """Raises the limit of open files of this process and its children to the maximum; returns it."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def _stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat from the state (field 3) on; empty if the process has exited."""
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
    """User and system time of the process and its descendants; `ended`: also of those that exited."""
    ticks = 0
    for member in family(pid):
        if stat := _stat(member):
            ticks += sum(int(field) for field in stat[11 : 15 if ended else 13])
    return ticks / TICKS


def resident_bytes(pid: int) -> int:
    """Resident memory of the process and its descendants."""
    pages = 0
    for member in family(pid):
        if stat := _stat(member):
            pages += int(stat[21])
    return pages * os.sysconf("SC_PAGE_SIZE")


def peak_bytes(pid: int) -> int:
    """Peak resident memory of the process."""
    return _status(pid, "VmHWM")


def own_bytes(pid: int) -> int:
    """Private memory of the process: without PostgreSQL's shared buffers."""
    return _status(pid, "RssAnon")


def _status(pid: int, name: str) -> int:
    """A line of /proc/PID/status, in bytes; 0 if the process has exited."""
    try:
        lines = (PROC / str(pid) / "status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:")), 0)


@dataclass(frozen=True)
class Noise:
    """Shares of the machine (0 to 1) used by others."""

    stolen: float
    others: float


class Watch:
    """Measures, from its creation on, what other processes use; `roots` and their children are ours."""

    def __init__(self, *roots: int) -> None:
        self._roots = roots
        self._before = self._read()

    def noise(self) -> Noise:
        """The shares used by others since the watch was created."""
        whole, stolen, busy, ours = (
            after - before for after, before in zip(self._read(), self._before, strict=True)
        )
        return Noise(stolen / whole, max(0.0, busy - ours) / whole) if whole else Noise(0.0, 0.0)

    def _read(self) -> tuple[float, float, float, float]:
        line = (PROC / "stat").read_text().splitlines()[0]
        user, nice, system, *idle, stolen = (int(field) / TICKS for field in line.split()[1:9])
        ours = sum(cpu_seconds(root, ended=True) for root in self._roots)
        busy = user + nice + system
        return busy + sum(idle) + stolen, stolen, busy, ours
