"""Resumes of a user whom the rows name otherwise now (USER_QUERY, `visible_to`): rows of the new user from before are missing."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest

from notifier.messages import at_text
from tests.unit.test_company_messages import Exchange, waiting
from tests.unit.worlds import A, World, settle


@pytest.fixture
def world() -> World:
    """A log with three messages from a minute ago, of which some are not for all users."""
    world = World()
    world.membership.maps_users, world.membership.conclusive = True, False
    world.membership.accounts = {"u": "1"}
    world.membership.members = {(A, "1"), (A, "2")}
    world.log.hub.filters.restricts = True
    world.log.later = timedelta(minutes=-1)
    world.log.publish(A, 3)
    return world


@pytest.fixture
async def exchange(world: World) -> AsyncIterator[Exchange]:
    exchange = Exchange(world)
    await exchange.open()
    yield exchange
    exchange.writer.close()


def place(world: World, position: int = 3) -> dict[str, Any]:
    """What a client sends that has this message."""
    at = at_text(world.log.stored[A][position - 1].at)
    return {"after": position, "epoch": "e", "at": at}


async def poll(exchange: Exchange, **sent: Any) -> dict[str, Any]:
    query = "&".join(f"{name}={value}" for name, value in sent.items()).replace("+", "%2B")
    exchange.request(f"?wait=0&{query}")
    answer = await exchange.answer()
    assert answer.status == 200
    page: dict[str, Any] = json.loads(answer.body)
    return page


def following(page: dict[str, Any]) -> dict[str, Any]:
    """What the client of a poll sends next."""
    names = {"Position": "after", "Epoch": "epoch", "At": "at"}
    return {names[name]: page[name] for name in names if name in page}


@pytest.mark.parametrize("proof", [True, False])
async def test_a_socket_that_subscribes_again_as_another_user_is_not_recovered(
    world: World, *, proof: bool
) -> None:
    session, line = await world.enter(member=False)
    sent = place(world)
    if not proof:
        del sent["at"]
    command = json.dumps({"type": "subscribe", "data": {"companyId": A, **sent}})
    await session.receive(command)
    world.membership.accounts["u"] = "2"
    await session.receive(command)
    world.log.hub.recheck("1")
    await settle()
    answers = [each["Data"] for each in line.sent if each["Type"] == "SubscribeResult"]
    assert [each["Recovered"] for each in answers] == [True, False]
    assert ["At" in each for each in answers] == [True, False]


async def test_a_socket_whose_re_check_is_under_way_is_not_recovered_either(world: World) -> None:
    """The re-check would have sent a Resync; another subscription replaces the one that is checked."""
    session, line = await world.enter(member=False)
    world.membership.accounts["u"] = "2"
    await world.membership.user_of(session.identity, 0)
    world.membership.open.clear()
    world.log.hub.recheck("1")
    await settle()
    world.membership.open.set()
    data = {"companyId": A, "after": 3, "epoch": "e"}
    await session.receive(json.dumps({"type": "subscribe", "data": data}))
    assert line.sent[-1]["Data"]["Recovered"] is False or "Resync" in line.types


@pytest.mark.parametrize("proof", [True, False])
async def test_a_poll_that_finds_another_user_is_not_recovered_and_the_next_one_is(
    world: World, exchange: Exchange, *, proof: bool
) -> None:
    sent = place(world)
    if not proof:
        del sent["at"]
    assert (await poll(exchange, **sent))["Recovered"] is True
    world.membership.accounts["u"] = "2"
    page = await poll(exchange, **sent)
    assert page["Recovered"] is False
    assert (await poll(exchange, **following(page)))["Recovered"] is True


async def test_each_client_that_was_between_two_polls_is_not_recovered(
    world: World, exchange: Exchange
) -> None:
    """Another one has found the change; the rows that both have are those of the former user."""
    ours, other = [await poll(exchange, **place(world)) for _ in range(2)]
    world.membership.accounts["u"] = "2"
    for former in (ours, other):
        page = await poll(exchange, **following(former))
        assert page["Recovered"] is False
        for _ in range(2):
            page = await poll(exchange, **following(page))
            assert page["Recovered"] is True


async def test_a_message_that_was_made_since_is_one_of_the_present_user(
    world: World, exchange: Exchange
) -> None:
    await poll(exchange, **place(world))
    world.membership.accounts["u"] = "2"
    assert (await poll(exchange, **place(world)))["Recovered"] is False
    world.log.later = timedelta(minutes=1)
    world.log.publish(A)
    page = await poll(exchange, **place(world, 4))
    assert page["Recovered"] is True
    assert "At" in page


async def test_where_all_users_see_all_rows_nothing_is_missing(
    world: World, exchange: Exchange
) -> None:
    world.log.hub.filters.restricts = False
    await poll(exchange, **place(world))
    world.membership.accounts["u"] = "2"
    page = await poll(exchange, **place(world))
    assert page["Recovered"] is True
    assert "At" in page


async def test_the_resync_of_a_re_check_lets_the_next_poll_be_recovered(
    world: World, exchange: Exchange
) -> None:
    exchange.request("?wait=20&after=3&epoch=e")
    await waiting(world)
    world.membership.accounts["u"] = "2"
    world.log.hub.recheck("1")
    page = json.loads((await exchange.answer()).body)
    assert [each["Type"] for each in page["Messages"]] == ["Resync"]
    assert (await poll(exchange, **following(page)))["Recovered"] is True
