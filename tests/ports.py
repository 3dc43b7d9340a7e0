"""Ports to listen on, outside the range from which the kernel takes ports for outgoing connections.

An ephemeral port may be taken between its choice and its use, or while its owner restarts, and a
client that connects to a free one may be connected to itself.

Several runs of the tests may be under way on a machine: a port is reserved by a lock on the byte of its
number in a file that they share (fcntl(2), "Advisory record locking"), until its process ends or has
taken KEPT others.
"""

from __future__ import annotations

import fcntl
import itertools
import os
import random
import socket
import tempfile
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path

FIRST, EACH, WORKERS = 10_000, 2_000, 11
"""Each worker of pytest-xdist has its own range of ports."""
KEPT = 200


def _ports() -> Iterator[int]:
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    first = FIRST + worker % WORKERS * EACH
    start = random.randrange(EACH)  # another run of the tests may be under way
    for step in itertools.count(start):
        yield first + step % EACH


_offered = _ports()
_reserved: deque[int] = deque()


@cache
def reservations() -> int:
    """The file of the locks, which must stay open: to close it would release them."""
    path = Path(tempfile.gettempdir()) / f"notifier-test-ports-{os.getuid()}"
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)


def free_port() -> int:
    """A port of 127.0.0.1 that no process listens on; the same one is not returned again soon."""
    for port in _offered:
        with suppress(OSError):
            fcntl.lockf(reservations(), fcntl.LOCK_EX | fcntl.LOCK_NB, 1, port)
            with socket.create_server(("127.0.0.1", port)):
                pass
            _reserved.append(port)
            if len(_reserved) > KEPT:
                fcntl.lockf(reservations(), fcntl.LOCK_UN, 1, _reserved.popleft())
            return port
    raise AssertionError("unreachable: the ports are an endless iterator")
