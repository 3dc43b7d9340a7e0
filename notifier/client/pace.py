"""The waiting times of a client: for answers, for signs of life, and between two attempts to connect."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import NamedTuple

STEADY_SECONDS = 5.0
"""A connection that lasts this long after its subscription is a success: the next wait is short again.

Proxies that cut every connection after a while then cause no longer gaps; a server that fails at
once still sees each client less and less often.
"""

MAX_DELAY_SECONDS = 3600.0
"""The longest wait before a reconnect, whatever the server requests."""


class Pace(NamedTuple):
    """Durations in seconds. `jitter` returns a random number in [0, 1)."""

    heartbeat: float = 15.0
    timeout: float = 10.0
    min_delay: float = 1.0
    max_delay: float = 30.0
    jitter: Callable[[], float] = random.random

    def delay(self, failures: int) -> float:
        """Full jitter: between zero and a bound that doubles with each failure up to `max_delay`."""
        return self.jitter() * min(self.max_delay, self.min_delay * 2.0 ** min(failures, 60))


class Backoff:
    """Counts failures in a row, for the delay before the next attempt."""

    def __init__(self, pace: Pace) -> None:
        self._pace = pace
        self._failures = 0

    def next_delay(self, floor: float = 0.0) -> float:
        """Counts a failure. Seconds to wait: `floor`, which the server requested, and the jitter."""
        delay = floor + self._pace.delay(self._failures)
        self._failures += 1
        return min(delay, MAX_DELAY_SECONDS)

    def reset(self) -> None:
        """The connection was a success: the next failure counts as the first one."""
        self._failures = 0
