"""Ports to listen on, outside the range from which the kernel takes ports for outgoing connections.

An ephemeral port may be taken between its choice and its use, or while its owner restarts, and a
client that connects to a free one may be connected to itself.
"""

from __future__ import annotations

import itertools
import os
import random
import socket
from collections.abc import Iterator
from contextlib import suppress

FIRST, EACH, WORKERS = 10_000, 2_000, 11
"""Each worker of pytest-xdist has its own range of ports."""


def _ports() -> Iterator[int]:
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    first = FIRST + worker % WORKERS * EACH
    start = random.randrange(EACH)  # another run of the tests may be under way
    for step in itertools.count(start):
        yield first + step % EACH


_offered = _ports()


def free_port() -> int:
    """A port of 127.0.0.1 that no process listens on; the same one is not returned again soon."""
    for port in _offered:
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port
    raise AssertionError("unreachable: the ports are an endless iterator")
