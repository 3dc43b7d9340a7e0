"""Waits for a condition that sends no event, with the deadline of this suite."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from notifier.testing import waiting

T = TypeVar("T")

DEADLINE_SECONDS = 45.0
"""Long enough for a very busy machine; only a failing test waits this long."""


async def until(
    poll: Callable[[], Awaitable[T]], seconds: float = DEADLINE_SECONDS, every: float = 0.02
) -> T:
    """Returns the first true answer of `poll`. Raises TimeoutError with the last answer."""
    return await waiting.until(poll, seconds, every)
