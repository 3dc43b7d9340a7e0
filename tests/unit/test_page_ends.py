"""Where the pages of a replay end depends on the sizes of all messages, which a subscription must not learn."""

from __future__ import annotations

import json
from typing import Any

import pytest
from msgspec import structs

from notifier.messages import Message, View
from tests.unit.worlds import A, World, authenticate

PAGE_BYTES = 1000


def limit_pages(monkeypatch: pytest.MonkeyPatch, world: World) -> None:
    """Pages of about PAGE_BYTES, as `pages.sql` ends them."""
    whole = world.log.page

    async def page(company: str, after: int, epoch: str) -> list[Message]:
        found: list[Message] = []
        for message in await whole(company, after, epoch):
            if sum(each.size for each in found) >= PAGE_BYTES:
                break
            found.append(message)
        return found

    monkeypatch.setattr(world.log, "page", page)


def store(world: World, count: int, visible: set[int], size: int) -> None:
    """Stores messages, some of which user u sees. The others are for user v, and so large."""
    for position in range(1, count + 1):
        message = world.log.store_change(A, "EventUpdated", {})
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
