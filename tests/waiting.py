"""Waits for a condition that sends no event, by polling it with a deadline."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")

DEADLINE_SECONDS = 45.0
"""Long enough for a very busy machine; only a failing test waits this long."""


async def until(
    poll: Callable[[], Awaitable[T]], seconds: float = DEADLINE_SECONDS, every: float = 0.02
) -> T:
    """Returns the first true answer of `poll`. Raises TimeoutError with the last answer."""
    answer: T | None = None
    try:
        async with asyncio.timeout(seconds):
            while True:
                answer = await poll()
                if answer:
                    return answer
                await asyncio.sleep(every)
    except TimeoutError:
        raise TimeoutError(f"still {answer!r} after {seconds} s") from None
