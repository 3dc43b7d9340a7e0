"""Where the pages of a replay end depends on the sizes of all messages, which a subscription must not learn."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from msgspec import structs

from notifier.commands import FilteredRequest
from notifier.delivery import recent
from notifier.delivery.http_session import HttpSession
from notifier.messages import Message, View
from notifier.transport.polling import LongPoll
from tests.services import token
from tests.unit.worlds import A, World, authenticate, settle

PAGE_BYTES = 1000
POLLED_BYTES = 400_000
"""Of a page of the log, where a long poll has some of them."""


def limit_pages(monkeypatch: pytest.MonkeyPatch, world: World, size: int = PAGE_BYTES) -> None:
    """Pages of about `size` bytes, as `pages.sql` ends them."""
    whole = world.log.page

    async def page(company: str, after: int, epoch: str) -> list[Message]:
        found: list[Message] = []
        for message in await whole(company, after, epoch):
            if sum(each.size for each in found) >= size:
                break
            found.append(message)
        return found

    monkeypatch.setattr(world.log, "page", page)


def store(world: World, count: int, visible: set[int], size: int, pad: int = 0) -> None:
    """Stores messages, some of which user u sees. The others are for user v, and so large."""
    for position in range(1, count + 1):
        message = world.log.store_change(A, "EventUpdated", {"Title": "x" * pad} if pad else {})
        if position not in visible:
            view = View(frozenset({"v"}), False, b'"%b"' % (b"x" * size))
            world.log.stored[A][-1] = structs.replace(message, views=(view,))
    world.log.deliver()


async def replayed(world: World, **data: Any) -> list[tuple[str, int]]:
    """The types and positions of what user u gets from the beginning."""
    session, line = world.open()
    world.membership.members.add((A, "u"))
    await authenticate(session)
    data = {"companyId": A, "after": 0, "epoch": "e", **data}
    await session.receive(json.dumps({"type": "subscribe", "data": data}))
    assert line.sent[1]["Data"]["Recovered"]
    session.closed()
    return [(each["Type"], each["Position"]) for each in line.sent[2:]]


@pytest.mark.parametrize(
    ("visible", "expected"),
    [
        (set(), [("Skipped", 40)]),
        ({40}, [("Skipped", 39), ("EventUpdated", 40)]),
        ({1, 20}, [("EventUpdated", 1), ("Skipped", 19), ("EventUpdated", 20), ("Skipped", 40)]),
    ],
)
@pytest.mark.parametrize("size", [0, 100, 5000])
async def test_a_replay_does_not_reveal_the_sizes_of_rows_that_the_user_does_not_see(
    world: World,
    monkeypatch: pytest.MonkeyPatch,
    visible: set[int],
    expected: list[tuple[str, int]],
    size: int,
) -> None:
    limit_pages(monkeypatch, world)
    store(world, 40, visible, size)
    assert await replayed(world) == expected


async def test_every_message_of_pages_of_any_length_comes(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit_pages(monkeypatch, world)
    for size in range(0, 1500, 100):
        world.log.stored.clear()
        store(world, 9, {3, 4, 7}, size)
        assert await replayed(world) == [
            ("Skipped", 2),
            ("EventUpdated", 3),
            ("EventUpdated", 4),
            ("Skipped", 6),
            ("EventUpdated", 7),
            ("Skipped", 9),
        ]
        world.log.hub.drop()
        world.log._seq = world.log._delivered = 0


async def test_a_long_replay_without_messages_moves_the_position(world: World) -> None:
    """Else a client that is cut off in between would begin again."""
    store(world, 2500, set(), 0)
    assert await replayed(world) == [("Skipped", each) for each in (1000, 2000, 2500)]
    assert await replayed(world, entities=["Company"]) == [
        ("Skipped", each) for each in (1000, 2000, 2500)
    ]


async def test_a_client_resumes_behind_a_message_that_fills_a_page(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It names very many users: those who see its row."""
    limit_pages(monkeypatch, world)
    store(world, 4, {1, 3, 4}, PAGE_BYTES)
    for after in range(5):
        assert await replayed(world, after=after) == [
            ("EventUpdated" if each != 2 else "Skipped", each) for each in range(after + 1, 5)
        ]
        world.log.hub.drop()


async def polled(world: World, after: int, wait: float = 0) -> dict[str, Any]:
    """The answer to a long poll of user u."""
    poll = LongPoll(immediate=False)
    session = HttpSession(world.services, poll, "")
    await session.authenticate(token("u"))
    assert await session.subscribe(FilteredRequest(company_id=A, after=after, epoch="e"))
    await poll.wait(wait)
    page: dict[str, Any] = json.loads(b"".join(poll.page().parts()))
    session.leave()
    return page


async def test_a_long_poll_does_not_reveal_the_sizes_of_rows_that_the_user_does_not_see(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It ends where it has enough messages, not with what it is sent at once."""
    limit_pages(monkeypatch, world, POLLED_BYTES)
    world.membership.members.add((A, "u"))
    counts = set()
    for size in range(0, 40_000, 3_000):
        store(world, 120, {each for each in range(121) if each % 2}, size, pad=10_000)
        positions: list[int] = []
        while (after := positions[-1] if positions else 0) < 120:
            page = await polled(world, after)
            positions += [each["Position"] for each in page["Messages"]]
            counts.add((after, len(page["Messages"])))
            assert page["Position"] == positions[-1]
            assert page["At"] == page["Messages"][-1]["At"]
        assert positions == list(range(1, 121))
        world.log.stored.clear()
        world.log.hub.drop()
        world.log._seq = world.log._delivered = 0
    assert len(counts) == len({after for after, _ in counts}) > 1


async def test_a_poll_that_waits_for_a_check_of_access_does_not_reveal_the_sizes_either(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Messages that have come meanwhile are replayed."""
    limit_pages(monkeypatch, world, POLLED_BYTES)
    monkeypatch.setattr(recent, "RECENT_BYTES", POLLED_BYTES)
    world.membership.members.add((A, "u"))
    ends = set()
    for size in range(0, 40_000, 3_000):
        store(world, 1, {1}, 0)
        polling = asyncio.create_task(polled(world, 1, 3600))
        await settle()
        world.membership.open.clear()
        world.log.hub.recheck("u")
        await settle()
        store(world, 60, {each for each in range(61) if each % 2}, size, pad=10_000)
        world.membership.open.set()
        page = await polling
        ends.add((page["Position"], len(page["Messages"])))
        world.log.stored.clear()
        world.log.hub.drop()
        world.log._seq = world.log._delivered = 0
    ((position, count),) = ends
    assert position > 1
    assert count > 20
