"""Waits for a condition that sends no event, by polling it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")


async def until(
    poll: Callable[[], Awaitable[T]], seconds: float | None = None, every: float = 0.01
) -> T:
    """Returns the first true answer of `poll`. Raises TimeoutError with the last answer.

    `seconds`: the deadline; None where the caller has one.
    """
    answer: T | None = None
    try:
        async with asyncio.timeout(seconds) as deadline:
            while True:
                answer = await poll()
                if answer:
                    return answer
                await asyncio.sleep(every)
    except TimeoutError:
        if not deadline.expired():
            raise  # the poll's own
        raise TimeoutError(f"still {answer!r} after {seconds} s") from None
