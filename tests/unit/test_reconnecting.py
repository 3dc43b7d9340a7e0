"""A link that fails is opened again: at once after steady work, later after repeated failures."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest

from notifier.database import connections
from notifier.errors import Unreachable


class Stop(Exception):
    """Ends the loop from inside."""


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The attempts that the loop waited for, instead of waiting."""
    attempts: list[int] = []

    async def wait(attempt: int) -> None:
        attempts.append(attempt)

    monkeypatch.setattr(connections, "backoff", wait)
    return attempts


async def run(failures: int) -> int:
    """Runs a link that fails so many times, then raises Stop; the number of its runs."""
    runs = 0

    async def once() -> None:
        nonlocal runs
        runs += 1
        if runs > failures:
            raise Stop
        raise Unreachable("lost")

    with suppress(Stop):
        await connections.reconnecting("test", once)
    return runs


async def test_attempts_grow_while_a_link_fails_at_once(waits: list[int]) -> None:
    assert await run(3) == 4
    assert waits == [1, 2, 3]


async def test_attempts_start_over_after_a_link_that_worked_steadily(
    waits: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "STEADY_SECONDS", -1.0)
    await run(3)
    assert waits == [0, 0, 0]


async def test_an_error_that_is_not_the_databases_ends_the_loop(waits: list[int]) -> None:
    async def once() -> None:
        raise Stop

    with pytest.raises(Stop):
        await connections.reconnecting("test", once)
    assert waits == []


async def test_a_cancelled_loop_ends(waits: list[int]) -> None:
    async def once() -> None:
        await asyncio.Event().wait()

    running = asyncio.create_task(connections.reconnecting("test", once))
    await asyncio.sleep(0)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
