"""A task that was cancelled ends, also where what it waited for did not pass the cancellation on."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from notifier.cancellation import raise_if_cancelled


async def test_a_cancellation_that_was_not_passed_on_is_raised_again() -> None:
    waits = asyncio.Event()

    async def work() -> None:
        raise_if_cancelled()
        with suppress(asyncio.CancelledError):
            waits.set()
            await asyncio.Event().wait()
        raise_if_cancelled()

    working = asyncio.create_task(work())
    await waits.wait()
    working.cancel()
    await asyncio.wait([working])
    assert working.cancelled()


async def test_a_deadline_that_has_passed_is_no_cancellation() -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(0):
            await asyncio.Event().wait()
    raise_if_cancelled()
