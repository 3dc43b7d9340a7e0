"""Users take turns, however many each of them waits for."""

from __future__ import annotations

import asyncio
from collections.abc import Collection

from notifier.turns import Turns
from tests.unit.worlds import settle


class Line:
    """Those who wait for turns, and whose turns have begun."""

    def __init__(self, limit: int) -> None:
        self.turns = Turns(limit)
        self.begun: list[str] = []
        self.tasks: dict[str, asyncio.Task[None]] = {}
        self._ends: dict[str, asyncio.Event] = {}

    async def wait(self, name: str, users: Collection[str]) -> None:
        """Lets a turn wait for `users`."""
        self._ends[name] = asyncio.Event()
        self.tasks[name] = asyncio.create_task(self._take(name, users))
        await settle()

    async def _take(self, name: str, users: Collection[str]) -> None:
        async with self.turns.turn(users):
            self.begun.append(name)
            await self._ends[name].wait()

    async def end(self, name: str) -> None:
        """Ends a turn that has begun."""
        self._ends[name].set()
        await settle()


async def test_a_user_who_waits_for_many_turns_holds_up_no_other() -> None:
    line = Line(2)
    for number in range(9):
        await line.wait(f"a{number}", {"a"})
    await line.wait("b0", {"b"})
    await line.wait("b1", {"b"})
    await line.wait("c0", {"c"})
    assert line.begun == ["a0", "a1"]
    for name in ("a0", "a1", "b0", "c0"):
        await line.end(name)
    assert line.begun == ["a0", "a1", "b0", "c0", "a2", "b1"]
    for number in range(2, 9):
        await line.end("b1" if number == 2 else f"a{number - 1}")
    assert line.begun[6:] == [f"a{number}" for number in range(3, 9)]


async def test_a_turn_that_another_user_waits_for_too_is_granted_for_either() -> None:
    line, users = Line(1), {"a"}
    await line.wait("a0", {"a"})
    await line.wait("a1", {"a"})
    await line.wait("shared", users)
    users.add("b")
    await line.end("a0")
    assert line.begun == ["a0", "shared"]


async def test_a_cancelled_turn_is_passed_on() -> None:
    line = Line(1)
    for name in ("a0", "a1", "a2"):
        await line.wait(name, {"a"})
    line.tasks["a1"].cancel()
    await settle()
    line._ends["a0"].set()
    await settle()
    assert line.begun == ["a0", "a2"]
    await line.wait("a3", {"a"})
    await line.wait("a4", {"a"})
    line._ends["a2"].set()
    for _ in range(50):
        if len(line.turns._waiting) == 1:  # a3 has its turn, and has not begun
            break
        await asyncio.sleep(0)
    line.tasks["a3"].cancel()
    await settle()
    assert line.begun == ["a0", "a2", "a4"]


async def test_a_turn_that_ends_as_others_are_cancelled_goes_to_one_that_still_waits() -> None:
    line = Line(1)
    for name in ("a0", "b0", "c0"):
        await line.wait(name, {name[0]})
    line.tasks["a0"].cancel()
    line.tasks["b0"].cancel()
    await settle()
    assert line.begun == ["a0", "c0"]
