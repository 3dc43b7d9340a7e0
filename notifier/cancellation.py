"""Cancellations that would get lost."""

from __future__ import annotations

import asyncio


def is_cancelled() -> bool:
    """Whether this task was cancelled before, and must end."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def raise_if_cancelled() -> None:
    """Raises CancelledError if this task was cancelled before, and what it waited for did not pass it on.

    An error of the cleaning up takes its place, such as that of a ROLLBACK on a connection that is lost. And
    `asyncio.wait_for`, which libraries use, returns a result instead that is there by then (before Python 3.12;
    python/cpython#86296).
    """
    if is_cancelled():
        raise asyncio.CancelledError
