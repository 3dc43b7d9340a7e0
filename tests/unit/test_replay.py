"""Resuming: every message after the position, or `Recovered` is false."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from notifier.delivery.history import Head
from notifier.errors import (
    NotReady,
)
from tests.unit.lines import Line
from tests.unit.worlds import A, World, set_company, settle

# --- resume


def recovered(line: Line) -> tuple[bool, int]:
    """Whether the last company was recovered, and from where on."""
    data = next(m for m in reversed(line.sent) if m["Type"] == "SetCompanyResult")["Data"]
    return data["Recovered"], data["Position"]


@pytest.mark.parametrize("delivered", [True, False])
async def test_a_resume_is_complete_or_recovered_is_false(world: World, delivered: bool) -> None:
    world.log.store(A, 1500)
    if delivered:
        await world.enter("v")
        world.log.deliver()
    for after in (0, 1, 999, 1000, 1499, 1500):
        _, line = await world.enter(after=after)
        assert recovered(line) == (True, after)
        assert line.messages == [(A, position) for position in range(after + 1, 1501)]
    for after in (1501, 10**30):
        _, line = await world.enter(after=after)
        assert recovered(line) == (False, 1500)
        assert line.messages == []


async def test_a_resume_in_another_epoch_replays_nothing(world: World) -> None:
    world.log.publish(A, 3)
    session, line = await world.enter()
    for epoch in ({"epoch": "f"}, {"epoch": ""}, {}):
        data = {"companyId": A, "after": 1} | epoch
        await session.receive(json.dumps({"type": "setCompany", "data": data}))
        assert recovered(line) == (False, 3)
    assert line.messages == []


@pytest.mark.parametrize("kept", [True, False])
async def test_messages_beyond_the_retention_are_not_recovered(world: World, kept: bool) -> None:
    world.log.store(A, 10)
    world.log.age(A, 5, 25)
    if kept:
        await world.enter("v")
        world.log.deliver()
    for after in range(11):
        _, line = await world.enter(after=after)
        assert recovered(line) == ((True, after) if after >= 5 else (False, 10))


@pytest.mark.parametrize("after", [3, 4, 5])
async def test_the_oldest_missing_message_decides_whether_the_retention_allows_a_resume(
    world: World, after: int
) -> None:
    world.log.store(A, 10)
    world.log.age(A, 5, 25)
    _, line = await world.enter(after=after)
    assert recovered(line) == ((True, after) if after == 5 else (False, 10))


async def test_messages_that_were_pruned_are_not_recovered(world: World) -> None:
    world.log.store(A, 10)
    del world.log.stored[A][:4]
    for after in range(11):
        _, line = await world.enter(after=after)
        assert recovered(line) == ((True, after) if after >= 4 else (False, 10))


async def test_messages_that_are_pruned_during_a_replay_end_the_session(world: World) -> None:
    world.log.store(A, 2500)
    session, line = await world.enter(company=None)
    world.membership.members.add((A, "u"))
    line.room.clear()
    setting = asyncio.create_task(set_company(session, A, 0))
    await settle()
    del world.log.stored[A][:2000]
    line.room.set()
    with pytest.raises(NotReady):
        await setting
    assert line.messages == [(A, position) for position in range(1, len(line.messages) + 1)]


@pytest.mark.parametrize("after", [5, 6])
async def test_a_client_that_comes_from_a_faster_node_waits_for_this_one(
    world: World, after: int
) -> None:
    world.log.publish(A, 2)
    await world.enter("v")
    world.log.store(A, 4)
    session, line = await world.enter(company=None)
    world.membership.members.add((A, "u"))
    setting = asyncio.create_task(set_company(session, A, after))
    await settle()
    assert not setting.done()
    world.log.deliver()
    await settle()
    assert setting.done()
    assert recovered(line) == (True, after)
    assert line.messages == [(A, position) for position in range(after + 1, 7)]


async def test_a_client_that_is_up_to_date_costs_no_query(world: World) -> None:
    world.log.publish(A, 2)
    await world.enter("v")
    world.log.open.clear()
    _, line = await world.enter(after=2)
    assert recovered(line) == (True, 2)
    assert world.log.page_reads == 0


@pytest.mark.parametrize("room", [0, 1_000_000])
@pytest.mark.parametrize("after", range(11))
async def test_a_resume_is_complete_whatever_the_node_has_kept(
    world: World, monkeypatch: pytest.MonkeyPatch, after: int, room: int
) -> None:
    monkeypatch.setattr("notifier.delivery.recent.RECENT_BYTES", room)
    world.log.store(A, 10)
    if not room:
        await world.enter("v")
        world.log.store(A, 1)
        world.log.deliver()
    last = world.log.stored[A][-1].position
    _, line = await world.enter(after=after)
    assert recovered(line) == (True, after)
    assert line.messages == [(A, position) for position in range(after + 1, last + 1)]


async def test_a_client_from_a_faster_node_is_closed_when_this_one_stays_behind(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("notifier.delivery.hub.BEHIND_SECONDS", 0.01)
    world.log.publish(A, 2)
    await world.enter("v")
    world.log.store(A, 4)
    with pytest.raises(NotReady):
        await world.enter(after=5)


@pytest.mark.parametrize("after", [0, 5])
async def test_another_epoch_while_the_position_is_looked_up_is_not_recovered(
    world: World, after: int
) -> None:
    world.log.store(A, 2)
    await world.enter("v")
    session, line = await world.enter(company=None)
    world.membership.members.add((A, "u"))
    if after:
        world.log.store(A, 5)
    else:
        world.log.open.clear()
    setting = asyncio.create_task(set_company(session, A, after))
    await settle()
    assert not setting.done()
    world.log.hub.begin_epoch("f")
    world.log.open.set()
    await setting
    assert recovered(line) == (False, 0)
    assert line.sent[-1]["Data"]["Epoch"] == "f"
    assert line.messages == []


async def test_many_clients_that_resume_cost_one_page(world: World) -> None:
    world.log.store(A, 900)
    for _ in range(5):
        _, line = await world.enter(after=0)
        assert len(line.messages) == 900
    assert world.log.page_reads == 1


# --- what a client proves to have (cases.md, 4)


def answer(line: Line) -> dict[str, Any]:
    """The data of the last SetCompanyResult."""
    data = next(m for m in reversed(line.sent) if m["Type"] == "SetCompanyResult")["Data"]
    assert isinstance(data, dict)
    return data


def at(world: World, position: int) -> str:
    """`At` of a message of company A, as its text has it."""
    return world.log.stored[A][position - 1].at.isoformat(timespec="microseconds")


@pytest.mark.parametrize("delivered", [True, False])
async def test_an_answer_has_the_at_of_the_message_at_its_position(
    world: World, delivered: bool
) -> None:
    world.log.store(A, 10)
    if delivered:
        await world.enter("v")
        world.log.deliver()
    _, line = await world.enter()
    assert answer(line)["At"] == at(world, 10)
    for after in range(1, 11):
        _, line = await world.enter(after=after)
        assert (answer(line)["At"], answer(line)["Recovered"]) == (at(world, after), True)
    _, line = await world.enter(after=11)
    assert (answer(line)["At"], answer(line)["Recovered"]) == (at(world, 10), False)


async def test_the_at_of_an_answer_follows_the_messages(world: World) -> None:
    await world.enter("v")
    for position in (1, 2):
        world.log.publish(A)
        _, line = await world.enter()
        assert answer(line)["At"] == at(world, position)


async def test_position_0_has_no_at(world: World) -> None:
    _, line = await world.enter()
    assert "At" not in answer(line)
    world.log.publish(A, 3)
    _, line = await world.enter(after=0)
    assert recovered(line) == (True, 0)
    assert "At" not in answer(line)
    _, line = await world.enter(after=0, at=at(world, 1))
    assert recovered(line) == (False, 3)


@pytest.mark.parametrize("delivered", [True, False])
@pytest.mark.parametrize("after", [1, 2, 5, 9, 10])
async def test_cases_4_a_client_that_holds_another_message_is_not_recovered(
    world: World, after: int, delivered: bool
) -> None:
    world.log.store(A, 10)
    if delivered:
        await world.enter("v")
        world.log.deliver()
    _, line = await world.enter(after=after, at=at(world, after))
    assert recovered(line) == (True, after)
    assert line.messages == [(A, position) for position in range(after + 1, 11)]
    for other in {after - 1, after + 1} & set(range(1, 11)):
        _, line = await world.enter(after=after, at=at(world, other))
        assert recovered(line) == (False, 10)
        assert answer(line)["At"] == at(world, 10)
        assert line.messages == []


async def test_cases_4_a_client_of_the_rewound_log_is_not_recovered_once_the_log_has_passed_it(
    world: World,
) -> None:
    world.log.store(A, 8)
    held = at(world, 8)
    del world.log.stored[A][4:]
    for last in range(5, 12):
        world.log.publish(A)
        _, line = await world.enter(f"u{last}", after=8, at=held)
        assert recovered(line) == (False, last)


@pytest.mark.parametrize(
    "spelled",
    [
        lambda text: text.replace("+00:00", "Z"),
        lambda text: text.replace("T", " "),
        lambda text: (
            datetime.fromisoformat(text).astimezone(timezone(timedelta(hours=2))).isoformat()
        ),
    ],
)
async def test_an_at_may_be_spelled_otherwise(world: World, spelled: Callable[[str], str]) -> None:
    world.log.store(A, 3)
    _, line = await world.enter(after=2, at=spelled(at(world, 2)))
    assert recovered(line) == (True, 2)


@pytest.mark.parametrize(
    "text", ["", "yesterday", "2026", "1", "2026-11-22T18:00:00.123456", "9" * 500]
)
async def test_an_at_that_cannot_be_compared_is_not_recovered(world: World, text: str) -> None:
    world.log.store(A, 3)
    for after in (2, 3):
        _, line = await world.enter(after=after, at=text)
        assert recovered(line) == (False, 3)


async def test_a_message_that_was_pruned_cannot_be_compared(world: World) -> None:
    world.log.store(A, 10)
    held = at(world, 4)
    del world.log.stored[A][:4]
    _, line = await world.enter(after=4)
    assert recovered(line) == (True, 4)
    assert "At" not in answer(line)
    _, line = await world.enter(after=4, at=held)
    assert recovered(line) == (False, 10)
    assert answer(line)["At"] is not None


async def test_the_last_message_may_be_pruned_while_its_position_is_known(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def head(company: str) -> Head:
        return Head(7, None)

    monkeypatch.setattr(world.log, "head", head)
    _, line = await world.enter()
    assert answer(line) == {"CompanyId": A, "Position": 7, "Epoch": "e"}
    _, line = await world.enter(after=7)
    assert recovered(line) == (True, 7)
    _, line = await world.enter(after=7, at=datetime.now(UTC).isoformat())
    assert recovered(line) == (False, 7)


async def test_proof_costs_no_query_where_the_node_has_the_message(world: World) -> None:
    await world.enter("v")
    world.log.publish(A, 100)
    for after in (1, 50, 99, 100):
        _, line = await world.enter(after=after, at=at(world, after))
        assert recovered(line) == (True, after)
    assert world.log.page_reads == 0


async def test_many_clients_that_prove_what_they_hold_cost_one_page(world: World) -> None:
    world.log.store(A, 900)
    for _ in range(5):
        _, line = await world.enter(after=1, at=at(world, 1))
        assert len(line.messages) == 899
    assert world.log.page_reads == 1


async def test_in_another_epoch_the_at_of_the_former_is_forgotten(world: World) -> None:
    world.log.store(A, 2)
    await world.enter("v")
    world.log.hub.begin_epoch("f")
    world.log.stored.clear()
    _, line = await world.enter()
    assert answer(line) == {"CompanyId": A, "Position": 0, "Epoch": "f"}
