"""Limits how many commands a client may send within a time window."""

from __future__ import annotations

import time

from notifier.errors import TooMany

RATE_SECONDS = 10.0


def count_command(times: list[float], limit: int) -> None:
    """Adds now to the times of a client's commands. Raises TooMany beyond `limit` in RATE_SECONDS.

    A plain list, as every session has one.
    """
    now = time.monotonic()
    while times and times[0] <= now - RATE_SECONDS:
        del times[0]
    times.append(now)
    if len(times) > limit:
        raise TooMany
