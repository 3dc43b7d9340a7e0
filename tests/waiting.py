"""Waits for what comes without a word: asked again and again, but not for ever."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")

DEADLINE_SECONDS = 45.0
"""Long enough for a machine that has ten other things to do: nothing that works ever waits for it."""


async def until(
    ask: Callable[[], Awaitable[T]], seconds: float = DEADLINE_SECONDS, every: float = 0.02
) -> T:
    """The first true answer. Raises TimeoutError that names the last one."""
    answer: T | None = None
    try:
        async with asyncio.timeout(seconds):
            while True:
                answer = await ask()
                if answer:
                    return answer
                await asyncio.sleep(every)
    except TimeoutError:
        raise TimeoutError(f"still {answer!r} after {seconds} s") from None
