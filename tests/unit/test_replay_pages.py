"""The pages of replays: those that are selected leave other tasks and other users their turns."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from datetime import UTC, datetime
from typing import Any, cast

import pytest

from notifier.delivery import replay_pages
from notifier.delivery.channel import Channel
from notifier.delivery.encoding import TEXT, Chunk
from notifier.delivery.filter import Change, Filter
from notifier.delivery.recent import Budget
from notifier.delivery.replay_pages import SELECTED, ReplayPages
from notifier.delivery.skipping import Selection
from notifier.messages import Message, View
from tests.unit.worlds import A, World, catalogue, set_company, settle

NOW = datetime.now(UTC)


class Turns:
    """Counts the messages that filters look at between two turns of the loop."""

    def __init__(self) -> None:
        self.looked = self.most = self.turns = 0
        self._task = asyncio.create_task(self._count())

    async def _count(self) -> None:
        while True:
            self.looked = 0
            self.turns += 1
            await asyncio.sleep(0)

    def look(self) -> None:
        self.looked += 1
        self.most = max(self.most, self.looked)

    async def end(self) -> None:
        self._task.cancel()
        await asyncio.wait([self._task])


class CountingFilter:
    """A filter that no change passes."""

    def __init__(self, turns: Turns) -> None:
        self._turns = turns

    def passes(self, _change: Change) -> bool:
        self._turns.look()
        return False


def filter_of(turns: Turns) -> Filter:
    return cast("Filter", CountingFilter(turns))


def messages(count: int, views: tuple[View, ...] = ()) -> list[Message]:
    return [
        Message(n, A, n, NOW, NOW, b'{"Type":"EventUpdated","Data":{}}', (), views)
        for n in range(1, count + 1)
    ]


def channel() -> Channel:
    return Channel(A, "e", 0, NOW, Budget(), entities={})


def positions(chunks: Sequence[Chunk]) -> list[int]:
    return [chunk.last for chunk in chunks]


def at_once(replay: Coroutine[Any, Any, list[Chunk]]) -> list[Chunk]:
    """What a coroutine returns that waits for nothing."""
    try:
        replay.send(None)
    except StopIteration as stop:
        return cast("list[Chunk]", stop.value)
    replay.close()
    raise AssertionError("it waits")


@pytest.mark.parametrize("count", [20, SELECTED, 4 * SELECTED])
async def test_pages_under_filters_that_differ_leave_other_tasks_their_turns(count: int) -> None:
    pages, turns = ReplayPages(catalogue()), Turns()
    page = messages(count)
    replays = [pages.chunks(channel(), page, TEXT, "u", filter_of(turns)) for _ in range(100)]
    found = await asyncio.gather(*replays)
    assert [positions(chunks) for chunks in found] == [[count]] * 100
    assert turns.most <= SELECTED
    assert turns.turns >= 100 * count // SELECTED
    await turns.end()


async def test_pages_with_views_leave_other_tasks_their_turns(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    turns = Turns()
    view = View(users=frozenset(["v"]), others=False, body=b'{"Type":"EventUpdated","Data":{}}')

    class Counting(Selection):
        def add(self, messages: Sequence[Message]) -> None:
            for _ in messages:
                turns.look()
            super().add(messages)

    monkeypatch.setattr(replay_pages, "Selection", Counting)
    pages, page = ReplayPages(catalogue()), messages(4 * SELECTED, (view,))
    found = await asyncio.gather(
        *(pages.chunks(channel(), page, TEXT, "u", None) for _ in range(20))
    )
    assert [positions(chunks) for chunks in found] == [[4 * SELECTED]] * 20
    assert turns.most <= SELECTED
    assert turns.turns >= 80
    await turns.end()


async def test_a_user_with_very_many_pages_to_select_holds_up_no_other() -> None:
    pages, turns, page = ReplayPages(catalogue()), Turns(), messages(2 * SELECTED)
    done: list[str] = []

    async def replay(user: str) -> None:
        await pages.chunks(channel(), page, TEXT, user, filter_of(turns))
        done.append(user)

    await asyncio.gather(*(replay("u") for _ in range(50)), replay("v"))
    assert done.index("v") <= 2
    assert done.count("u") == 50
    await turns.end()


async def test_a_page_that_is_the_same_for_all_waits_for_no_turn() -> None:
    pages, turns, page = ReplayPages(catalogue()), Turns(), messages(4 * SELECTED)
    selecting = asyncio.create_task(pages.chunks(channel(), page, TEXT, "u", filter_of(turns)))
    await asyncio.sleep(0)
    chunks = at_once(pages.chunks(channel(), page, TEXT, "u", None))
    assert not selecting.done()
    assert sum(len(chunk.bodies) for chunk in chunks) == 4 * SELECTED
    await selecting
    await turns.end()


async def test_a_short_page_is_selected_at_once_where_no_other_is() -> None:
    pages, turns = ReplayPages(catalogue()), Turns()
    chunks = at_once(pages.chunks(channel(), messages(20), TEXT, "u", filter_of(turns)))
    assert positions(chunks) == [20]
    await turns.end()


async def test_equal_pages_are_selected_once() -> None:
    pages, turns, page = ReplayPages(catalogue()), Turns(), messages(2 * SELECTED)
    looks = 0

    class Once(CountingFilter):
        def passes(self, change: Change) -> bool:
            nonlocal looks
            looks += 1
            return super().passes(change)

    wanted = cast("Filter", Once(turns))
    one = channel()
    found = await asyncio.gather(*(pages.chunks(one, page, TEXT, "u", wanted) for _ in range(5)))
    assert looks == 2 * SELECTED
    assert all(chunks is found[0] for chunks in found)
    await turns.end()


async def test_a_page_that_waited_for_its_turn_has_the_epoch_of_its_messages() -> None:
    pages, turns, one = ReplayPages(catalogue()), Turns(), channel()
    wanted = filter_of(turns)
    replaying = asyncio.create_task(pages.chunks(one, messages(2 * SELECTED), TEXT, "u", wanted))
    await asyncio.sleep(0)
    one.begin_epoch("f")
    await replaying
    assert [key[1] for key in pages._encoded] == ["e"]
    await turns.end()


async def test_what_waited_for_its_turn_is_not_sent_to_a_user_who_has_lost_the_company(
    world: World,
) -> None:
    world.log.store(A, 3)
    world.log.deliver()
    session, line = await world.enter(company=None)
    world.membership.members.add((A, "u"))
    hub, begun = world.log.hub, asyncio.Event()
    replay = hub.replay

    async def wait(*place: Any, **until: Any) -> list[Chunk]:
        chunks = await replay(*place, **until)
        await begun.wait()
        return chunks

    hub.replay = wait  # type: ignore[method-assign]
    setting = asyncio.create_task(set_company(session, A, 0))
    await settle()
    world.membership.members.clear()
    world.log.publish(A, revokes=("u",))
    begun.set()
    await setting
    await settle()
    assert line.messages == []
    assert "CompanyRevoked" in line.types


async def test_a_page_is_selected_once_though_access_comes_into_doubt_during_each_selection(
    world: World,
) -> None:
    """With MEMBERSHIP_QUERY each change of a member row re-checks every user of the company."""
    world.membership.conclusive = False
    world.log.store(A, 3)
    world.log.deliver()
    session, line = await world.enter(company=None)
    world.membership.members.add((A, "u"))
    hub = world.log.hub
    replay, starts = hub.replay, list[int]()

    async def overtaken(channel: Channel, after: int, *place: Any, **until: Any) -> list[Chunk]:
        chunks = await replay(channel, after, *place, **until)
        starts.append(after)
        if len(starts) < 10:
            world.log.publish(A, revokes=("*",))
        return chunks

    hub.replay = overtaken  # type: ignore[method-assign]
    setting = asyncio.create_task(set_company(session, A, 0))
    await settle()
    await setting
    assert starts == [0, *range(3, 12)]
    assert line.messages == [(A, n) for n in range(1, 13)]


async def test_the_rest_of_a_page_is_not_selected_again_after_a_check_of_access(
    world: World,
) -> None:
    world.membership.conclusive = False
    world.log.store(A, 300, pad=1000)
    world.log.deliver()
    session, line = await world.enter(company=None)
    world.membership.members.add((A, "u"))
    hub = world.log.hub
    replay, starts, drained = hub.replay, list[int](), 0

    async def count(channel: Channel, after: int, *place: Any, **until: Any) -> list[Chunk]:
        starts.append(after)
        return await replay(channel, after, *place, **until)

    async def drain() -> None:
        nonlocal drained
        drained += 1
        if drained <= 3:
            world.log.publish(A, revokes=("*",))

    hub.replay, line.drain = count, drain  # type: ignore[method-assign]
    await set_company(session, A, 0)
    await settle()
    assert starts == [0, 300]
    assert line.messages == [(A, n) for n in range(1, 304)]
