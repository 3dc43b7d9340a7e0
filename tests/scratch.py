"""Directories of servers that a test starts: in memory where the machine has such a file system.

To copy a database is to create a thousand files: ten times the work on a disk.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

MEMORY = Path("/dev/shm")
ROOM = 4 * 2**30
"""Bytes that must be free there: a container usually has 64 MiB."""
PREFIX = "notifier-tests-"


@contextmanager
def directory() -> Iterator[Path]:
    """A directory that every user may enter: started by root, PostgreSQL runs as another one."""
    with tempfile.TemporaryDirectory(prefix=f"{PREFIX}{os.getpid()}-", dir=_parent()) as name:
        Path(name).chmod(0o755)
        yield Path(name)


@cache
def _parent() -> Path | None:
    """Where they are made; None: where temporary files usually are."""
    if not os.access(MEMORY, os.W_OK) or shutil.disk_usage(MEMORY).free < ROOM:
        return None
    _sweep()
    return MEMORY


def _sweep() -> None:
    """Removes directories of processes that were killed: these would stay in memory."""
    for left in MEMORY.glob(f"{PREFIX}*"):
        pid = left.name.removeprefix(PREFIX).partition("-")[0]
        if not Path("/proc", pid).exists():
            shutil.rmtree(left, ignore_errors=True)
