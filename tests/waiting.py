"""Waits for a condition that sends no event, with the deadline of this suite."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
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


async def until_accepting(
    process: asyncio.subprocess.Process, port: int, log: Callable[[], str]
) -> None:
    """Returns when a process accepts connections. Fails with its log when it ends before."""

    async def accepts() -> bool:
        assert process.returncode is None, log()
        with suppress(OSError):
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.close()
            return True
        return False

    await until(accepts)
