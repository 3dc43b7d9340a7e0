"""What sessions wait for: one query for all of them, an end for each, and nothing while none waits."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from notifier.delivery import arrivals
from notifier.delivery.session import Session
from notifier.delivery.subscription import Subscription
from notifier.errors import DatabaseError, NotReady, TooMany
from tests.timeless import timeless
from tests.unit.lines import Line
from tests.unit.worlds import A, B, TwoPages, World, set_company, settle


async def send_await(session: Session, company: str, tx: int) -> None:
    await session.receive(
        json.dumps({"type": "await", "data": {"companyId": company, "tx": str(tx)}})
    )


@timeless
async def test_all_sessions_share_a_query_and_none_is_made_without_them() -> None:
    world = World()
    (one, first), (two, second) = await world.enter(), await world.enter("v")
    world.transactions.present = {7: "running", 8: "running"}
    for session in (one, two):
        await send_await(session, A, 7)
    await send_await(two, A, 8)
    await asyncio.sleep(1)
    reads = world.transactions.reads
    assert 10 <= len(reads) <= 21
    assert all(read == [7, 8] for read in reads)
    world.transactions.present = {7: "stored", 8: "stored"}
    await asyncio.sleep(1)
    assert [m["Data"]["Tx"] for m in first.sent if m["Type"] == "Arrived"] == ["7"]
    assert [m["Data"]["Tx"] for m in second.sent if m["Type"] == "Arrived"] == ["7", "8"]
    before = len(reads)
    await asyncio.sleep(60)
    assert len(reads) == before


@timeless
async def test_arrived_waits_until_the_node_has_delivered_the_head() -> None:
    world = World()
    session, line = await world.enter()
    world.transactions.present = {7: "stored"}
    world.log.store(A, 2)
    await send_await(session, A, 7)
    await asyncio.sleep(1)
    assert line.sent[-1]["Type"] == "SetCompanyResult"
    world.log.deliver()
    await asyncio.sleep(1)
    assert [m["Type"] for m in line.sent[-3:]] == ["E", "E", "Arrived"]
    assert line.sent[-1]["Data"]["Position"] == 2


@timeless
async def test_a_position_of_another_epoch_proves_nothing() -> None:
    world = World()
    session, line = await world.enter()
    world.transactions.present = {7: "stored"}
    world.log.hub.begin_epoch("f")  # the fake log still reports heads of "e"
    await send_await(session, A, 7)
    await asyncio.sleep(1)
    assert line.sent[-1]["Type"] == "SetCompanyResult"
    await asyncio.sleep(10)
    assert line.sent[-1]["Error"]["Code"] == "timeout"


@timeless
@pytest.mark.parametrize("state", ["running", "unread", "no database", "a bug"])
async def test_what_does_not_arrive_in_time_is_a_timeout(state: str) -> None:
    world = World()
    session, line = await world.enter()
    world.transactions.present = {7: state}
    if state == "no database":
        world.transactions.error = DatabaseError("out of reach")
    if state == "a bug":
        world.transactions.error = KeyError("a bug")
    await send_await(session, A, 7)
    await asyncio.sleep(9.9)
    assert line.sent[-1]["Type"] == "SetCompanyResult"
    await asyncio.sleep(0.2)
    assert line.sent[-1]["Error"]["Code"] == "timeout"
    assert line.sent[-1]["Data"] == {"CompanyId": A, "Tx": "7"}


@timeless
async def test_a_number_that_was_not_given_out_yet_is_unknown() -> None:
    world = World()
    session, line = await world.enter()
    await send_await(session, A, 7)
    await asyncio.sleep(0.1)
    assert line.sent[-1]["Error"]["Code"] == "unknown_tx"
    assert line.sent[-1]["Data"] == {"CompanyId": A, "Tx": "7"}
    for impossible in (0, 2**63, 10**20 - 1):
        await send_await(session, A, impossible)  # answered without the database
        assert last(line, 1) == ["unknown_tx"]
        assert line.sent[-1]["Data"]["Tx"] == str(impossible)
    assert world.transactions.reads == [[7]]


@timeless
@pytest.mark.parametrize("company", [B, "unknown"])
async def test_only_a_company_that_is_subscribed_can_be_awaited(company: str) -> None:
    world = World()
    session, line = await world.enter()
    world.log.publish(B)
    await send_await(session, company, 7)
    assert last(line, 1) == ["not_subscribed"]
    assert line.sent[-1]["Data"] == {"CompanyId": company, "Tx": "7"}
    assert world.transactions.reads == []


@timeless
async def test_one_more_than_the_limit_is_refused() -> None:
    world = World()
    session, line = await world.enter()
    world.transactions.present = {7: "running"}
    for _ in range(100):
        await send_await(session, A, 7)
    assert line.sent[-1]["Type"] == "SetCompanyResult"
    await send_await(session, A, 7)
    assert line.sent[-1]["Error"]["Code"] == "too_many_waiting"
    world.transactions.present = {7: "stored"}
    await asyncio.sleep(1)
    assert len([m for m in line.sent if m["Type"] == "Arrived"]) == 100
    await send_await(session, A, 7)
    await asyncio.sleep(1)
    assert line.sent[-1]["Type"] == "Arrived"


@timeless
async def test_another_company_ends_the_waiting_and_so_does_the_end_of_the_session() -> None:
    world = World()
    session, line = await world.enter()
    world.membership.members.add((B, "u"))
    world.transactions.present = {7: "running"}
    await send_await(session, A, 7)
    await set_company(session, B)
    await asyncio.sleep(1)
    assert line.sent[-1]["Error"]["Code"] == "not_subscribed"
    await send_await(session, B, 7)
    session.closed()
    sent = len(line.sent)
    await settle()
    world.transactions.present = {7: "stored"}
    reads = len(world.transactions.reads)
    await asyncio.sleep(20)
    assert len(line.sent) == sent
    assert len(world.transactions.reads) <= reads + 1


@timeless
async def test_a_batch_that_is_being_written_in_slices_is_not_delivered_yet() -> None:
    world = World()
    entered = [await world.enter(user) for user in ("u", "v") for _ in range(300)]
    session, line = entered[-1]
    world.log.store(A)
    world.log.deliver()
    await asyncio.sleep(0)  # the first slice is written
    assert line.messages == []  # its slice comes later
    subscription = session.subscription_to(A)
    assert subscription is not None
    assert not subscription.has_delivered(1)
    await settle()
    assert line.messages == [(A, 1)]
    assert subscription.has_delivered(1)


@timeless
async def test_awaits_have_the_rate_of_subscribe_not_that_of_the_other_commands() -> None:
    world = World()
    session, line = await world.enter()
    for _ in range(500):
        await send_await(session, A, 0)
    await session.receive('{"type": "ping"}')
    assert line.sent[-1] == {"Type": "Pong"}
    with pytest.raises(TooMany):
        await send_await(session, A, 0)


async def send_subscribe(session: Session, kind: str, company: str, after: int | None) -> None:
    data = {"companyId": company} | ({} if after is None else {"after": after, "epoch": "e"})
    await session.receive(json.dumps({"type": kind, "data": data}))


def last(line: Line, count: int) -> list[Any]:
    """The types of the last messages, with the code of an Error or the position of a change."""
    return [
        m["Error"]["Code"] if m["Type"] == "Error" else m.get("Position", m["Type"])
        for m in line.sent[-count:]
    ]


@timeless
async def test_each_company_of_a_socket_can_be_awaited() -> None:
    world = World()
    session, line = await world.enter()
    world.membership.members.add((B, "u"))
    await send_subscribe(session, "subscribe", B, None)
    world.transactions.present = {7: "stored", 8: "running"}
    world.log.store(B)
    for company in (A, B):
        await send_await(session, company, 7)
        await send_await(session, company, 8)
    await asyncio.sleep(1)
    assert line.sent[-1]["Data"] == {"CompanyId": A, "Tx": "7", "Position": 0}
    world.log.deliver()
    await asyncio.sleep(1)
    assert last(line, 2) == [1, "Arrived"]
    await send_subscribe(session, "unsubscribe", A, None)
    await asyncio.sleep(1)
    assert last(line, 2) == ["UnsubscribeResult", "not_subscribed"]
    world.transactions.present[8] = "stored"
    await asyncio.sleep(1)
    assert line.sent[-1]["Data"] == {"CompanyId": B, "Tx": "8", "Position": 1}


@timeless
@pytest.mark.parametrize("after", [None, 0])
async def test_a_subscription_that_replaces_another_goes_on_waiting(after: int | None) -> None:
    world = World()
    session, line = await world.enter()
    world.transactions.present = {7: "stored"}
    world.log.store(A)
    await send_await(session, A, 7)
    await asyncio.sleep(1)
    await send_subscribe(session, "subscribe", A, after)
    await asyncio.sleep(1)
    assert last(line, 1) == ["SubscribeResult"]
    world.log.deliver()
    await asyncio.sleep(1)
    assert last(line, 3) == ["SubscribeResult", 1, "Arrived"]


@timeless
async def test_arrived_waits_for_a_replay_that_is_held_up() -> None:
    world = World()
    session, line, setting = await world.replay(500)
    world.transactions.present = {7: "stored"}
    world.arrivals.wait(session, A, 7)  # a command would wait for the replay itself
    await asyncio.sleep(1)
    assert 0 < len(line.messages) < 500
    assert line.sent[-1]["Type"] != "Arrived"
    line.room.set()
    await setting
    await asyncio.sleep(1)
    assert last(line, 2) == [500, "Arrived"]


@timeless
async def test_arrived_waits_for_the_end_of_a_state() -> None:
    """The rows of the state may be those that the transaction wrote."""
    world = World()
    world.services.states = TwoPages()
    session, line = await world.enter()
    world.transactions.present = {7: "running"}
    await send_await(session, A, 7)
    line.room.clear()
    command = {"type": "subscribe", "data": {"companyId": A, "state": True}}
    subscribing = asyncio.create_task(session.receive(json.dumps(command)))
    world.transactions.present = {7: "stored"}
    await asyncio.sleep(1)
    assert last(line, 2) == ["SubscribeResult", "State"]
    line.room.set()
    await subscribing
    await asyncio.sleep(1)
    assert last(line, 4) == ["State", "State", "StateEnd", "Arrived"]


@timeless
async def test_what_was_replayed_of_a_former_epoch_proves_nothing() -> None:
    world = World()
    session, line, setting = await world.replay(500)
    subscription = session.subscription_to(A)
    assert subscription is not None
    assert subscription.has_delivered(1)
    world.log.hub.begin_epoch("f")
    assert not subscription.has_delivered(1)
    line.room.set()
    with pytest.raises(NotReady):
        await setting


@timeless
async def test_arrived_waits_for_the_queue_of_a_paused_socket() -> None:
    world = World()
    session, line = await world.enter()
    session.paused()
    world.transactions.present = {7: "stored"}
    await send_await(session, A, 7)
    world.log.publish(A, 3)
    await asyncio.sleep(1)
    assert last(line, 2) == [3, "Arrived"]


async def test_very_many_transactions_are_looked_at_in_slices(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One user can await 100 transactions on each of a thousand sockets, each with 100 companies."""
    monkeypatch.setattr(arrivals, "SLICE", 10)
    sessions = [(await world.enter(str(number)))[0] for number in range(5)]
    turns, looked_at, looked_up = 0, list[int](), list[str]()
    has_delivered, subscription_to = Subscription.has_delivered, Session.subscription_to

    def counted(subscription: Subscription, position: int) -> bool:
        looked_at.append(turns)
        return has_delivered(subscription, position)

    def noted(session: Session, company: str) -> Subscription | None:
        looked_up.append(company)
        return subscription_to(session, company)

    monkeypatch.setattr(Subscription, "has_delivered", counted)
    monkeypatch.setattr(Session, "subscription_to", noted)
    world.transactions.present = {7: "stored"}
    world.log.store(A, 1)  # not delivered yet
    for session in sessions:
        for _ in range(10):
            await send_await(session, A, 7)
    looked_up.clear()
    while len(looked_at) < 100:
        await asyncio.sleep(0)
        turns += 1
    assert len(set(looked_at[:50])) == 5
    assert not looked_up, "no subscription is looked up again while it is open"
    for session in sessions:
        session.closed()
