"""Subscriptions: what happens between a check of access and its answer, one interleaving after another."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Sequence
from contextlib import suppress
from datetime import timedelta
from typing import Any

import pytest

from notifier.access.tokens import Identity
from notifier.delivery import hub, subscription
from notifier.delivery.channel import SLICE
from notifier.delivery.encoding import DEFLATED, TEXT
from notifier.delivery.session import Stage
from notifier.errors import (
    Expired,
    NotReady,
    Restart,
    Unreachable,
)
from tests.unit.worlds import A, B, TwoPages, World, authenticate, set_company, settle

# --- between the check of access and joining


REMOVED = pytest.mark.parametrize("users", [("u",), ("*",), ("v", "u")])


@REMOVED
async def test_a_user_who_is_removed_while_the_company_is_opened_is_refused(
    world: World, users: tuple[str, ...]
) -> None:
    world.log.publish(A, 3)
    session, line, setting = await world.open_company()
    world.membership.members.remove((A, "u"))
    world.log.publish(A, revokes=users)
    world.log.open.set()
    await setting
    world.log.publish(A)
    assert line.messages == []
    assert line.sent[-1]["Error"]["Code"] == "company_forbidden"
    assert not session.live_subscriptions


@REMOVED
async def test_a_user_who_is_removed_while_the_position_is_looked_up_gets_only_company_revoked(
    world: World, users: tuple[str, ...]
) -> None:
    world.log.publish(A, 3)
    await world.enter("other")
    session, line, setting = await world.open_company(0)
    world.membership.members.remove((A, "u"))
    world.log.publish(A, revokes=users)
    world.log.open.set()
    await setting
    world.log.publish(A)
    assert line.messages == []
    assert line.types[-2:] == ["SetCompanyResult", "CompanyRevoked"]
    assert not session.live_subscriptions


@pytest.mark.parametrize("users", [("v",), ("uu",), ("u ",)])
async def test_the_removal_of_another_user_causes_no_check(
    world: World, users: tuple[str, ...]
) -> None:
    world.log.publish(A)
    session, line = await world.enter()
    checks = world.membership.checks
    world.log.publish(A, revokes=users)
    world.log.publish(B, revokes=("u", "*"))
    world.log.publish(A)
    await settle()
    assert line.messages == [(A, 2), (A, 3)]
    assert world.membership.checks == checks
    assert session.live_subscriptions


async def test_a_user_gets_the_removal_itself_and_nothing_after_it(world: World) -> None:
    session, line = await world.enter()
    assert line.sent[-1] == {
        "Type": "SetCompanyResult",
        "Success": True,
        "Data": {"CompanyId": A, "Position": 0, "Epoch": "e"},
    }
    _, other = await world.enter("v")
    checks = world.membership.checks
    world.log.store(A, 3, revokes=("u",))
    world.log.store(A, 2)
    world.log.deliver()
    assert line.messages == [(A, 1), (A, 2), (A, 3)]
    assert line.sent[-1] == {"Type": "CompanyRevoked", "Data": {"CompanyId": A}}
    assert other.messages == [(A, position) for position in range(1, 6)]
    assert world.membership.checks == checks  # where the row decides, its loss is conclusive
    assert not session.live_subscriptions
    assert line.ended is None


async def test_all_sockets_of_a_user_lose_the_company(world: World) -> None:
    lines = [(await world.enter(quick=quick))[1] for quick in (True, False, True)]
    world.log.publish(A, revokes=("u",))
    world.log.publish(A)
    for line in lines:
        assert line.messages == [(A, 1)]
        assert line.types[-1] == "CompanyRevoked"


async def test_a_socket_that_lost_a_company_can_follow_another(world: World) -> None:
    session, line = await world.enter()
    world.log.publish(A, revokes=("u",))
    world.membership.members = {(B, "u")}
    await set_company(session, A)
    assert line.sent[-1]["Error"]["Code"] == "company_forbidden"
    await set_company(session, B)
    world.log.publish(A)
    world.log.publish(B)
    assert line.messages == [(A, 1), (B, 1)]


# --- re-checks


async def test_a_user_who_may_have_lost_a_company_gets_nothing_until_that_is_checked(
    world: World,
) -> None:
    world.membership.conclusive = False
    session, line = await world.enter()
    world.membership.open.clear()
    world.log.publish(A, 2, revokes=("u",))
    world.log.publish(A, 3)
    await settle()
    assert line.messages == [(A, 1), (A, 2)]
    assert not session.live_subscriptions
    world.log.publish(A)
    world.membership.open.set()
    await settle()
    world.log.publish(A)
    assert line.messages == [(A, position) for position in range(1, 8)]
    assert line.types == ["AuthenticationResult", "SetCompanyResult"]


async def test_a_user_who_has_lost_a_company_gets_company_revoked_and_no_more(world: World) -> None:
    world.membership.conclusive = False
    _, line = await world.enter()
    world.membership.open.clear()
    world.log.publish(A, revokes=("*",))
    world.log.publish(A)
    world.membership.members.clear()
    world.membership.open.set()
    await settle()
    world.log.publish(A)
    assert line.messages == [(A, 1)]
    assert line.sent[-1] == {"Type": "CompanyRevoked", "Data": {"CompanyId": A}}


async def test_a_revocation_of_any_user_is_checked_for_each(world: World) -> None:
    stays, goes = [await world.enter(user) for user in ("stays", "goes")]
    world.membership.members.remove((A, "goes"))
    world.log.store(A, revokes=("*",))
    world.log.store(A)
    world.log.deliver()
    await settle()
    assert stays[1].messages == [(A, 1), (A, 2)]
    assert goes[1].messages == [(A, 1)]
    assert goes[1].types[-1] == "CompanyRevoked"


async def test_a_user_who_is_removed_again_during_a_check_is_checked_again(
    world: World,
) -> None:
    world.membership.conclusive = False
    _, line = await world.enter()
    world.membership.open.clear()
    world.log.publish(A, revokes=("u",))
    await settle()
    checks = world.membership.checks
    world.log.publish(A, revokes=("u",))
    world.membership.open.set()
    await settle()
    assert world.membership.checks == checks + 1
    assert line.messages == [(A, 1), (A, 2)]
    world.log.publish(A)
    assert line.messages[-1] == (A, 3)


@pytest.mark.parametrize(
    ("error", "code"), [(Unreachable("gone"), 4503), (RuntimeError("a fault of ours"), 4500)]
)
async def test_a_session_whose_access_cannot_be_checked_is_ended(
    world: World, error: Exception, code: int
) -> None:
    world.membership.conclusive = False
    _, line = await world.enter()
    world.membership.error = error
    world.log.publish(A, revokes=("u",))
    world.log.publish(A)
    await settle()
    assert line.messages == [(A, 1)]
    assert line.ended is not None
    assert line.ended.code == code


async def test_a_check_for_a_former_company_is_cancelled_with_its_subscription(
    world: World,
) -> None:
    world.membership.conclusive = False
    world.log.store(B, 2)
    await world.enter("v", B)
    session, line = await world.enter()
    world.membership.members.add((B, "u"))
    world.log.open.clear()
    setting = asyncio.create_task(set_company(session, B, 0))
    await settle()
    world.membership.open.clear()
    world.log.publish(A, revokes=("u",))
    await settle()
    world.log.open.set()
    await setting
    world.membership.open.set()
    await settle()
    world.log.publish(A)
    world.log.publish(B)
    assert line.messages == [(A, 1), (B, 1), (B, 2), (B, 3)]
    assert world.pins(A) == 0
    assert session.live_subscriptions


async def test_a_check_is_cancelled_with_its_socket(world: World) -> None:
    world.membership.conclusive = False
    session, line = await world.enter()
    world.log.publish(A, revokes=("u",))
    session.closed()
    await settle()
    assert world.pins(A) == 0
    assert line.ended is None


async def test_rows_are_not_checked_where_the_token_decides(world: World) -> None:
    world.membership.follows_rows = world.membership.may_change = world.membership.conclusive = (
        False
    )
    session, line = await world.enter()
    checks = world.membership.checks
    world.log.publish(A, revokes=("u", "*"))
    world.log.publish(A)
    await settle()
    assert line.messages == [(A, 1), (A, 2)]
    assert world.membership.checks == checks
    await authenticate(session)
    assert line.types[-1] == "AuthenticationResult"
    world.membership.members.clear()
    await authenticate(session)
    assert line.types[-2:] == ["AuthenticationResult", "CompanyRevoked"]
    world.log.publish(A)
    assert line.messages == [(A, 1), (A, 2)]


async def test_a_user_who_may_have_lost_every_company_is_checked_in_each(world: World) -> None:
    session, line = await world.enter("u", A)
    other, kept = await world.enter("v", A)
    checks = world.membership.checks
    world.membership.members.clear()
    world.log.hub.recheck("u")
    await settle()
    assert world.membership.checks == checks + 1
    world.log.publish(A)
    assert (line.types[-1], line.messages, kept.messages) == ("CompanyRevoked", [], [(A, 1)])
    assert not session.live_subscriptions
    assert other.live_subscriptions


async def test_a_user_who_may_have_lost_every_company_is_checked_during_a_replay(
    world: World,
) -> None:
    _, line, setting = await world.replay(1000)
    seen = len(line.messages)
    world.membership.members.clear()
    world.log.hub.recheck("v")
    world.log.hub.recheck("u")
    line.room.set()
    await setting
    assert seen < 1000
    assert len(line.messages) == seen
    assert line.types[-1] == "CompanyRevoked"


async def test_a_user_whose_account_has_changed_is_known_by_the_new_one(world: World) -> None:
    membership = world.membership
    membership.conclusive, membership.maps_users = False, True
    membership.accounts["u"] = "1"
    membership.members |= {(A, "1"), (A, "2")}
    session, line = await world.enter("u", A, member=False)
    world.log.publish(A, revokes=("u", "2"))
    assert session.live_subscriptions, "the row of another user"
    membership.accounts["u"] = "2"
    world.log.hub.recheck("1")
    await settle()
    membership.members.discard((A, "1"))
    world.log.publish(A, revokes=("1",))
    await settle()
    assert session.live_subscriptions
    membership.members.clear()
    world.log.publish(A, revokes=("2",))
    await settle()
    assert line.messages == [(A, 1), (A, 2), (A, 3)]
    assert line.types[-1] == "CompanyRevoked"


async def test_the_rows_of_a_state_are_those_of_one_user(world: World) -> None:
    """With USER_QUERY the user may become another one between two pages."""
    membership = world.membership
    membership.conclusive, membership.maps_users = False, True
    membership.accounts["u"] = "1"
    membership.members |= {(A, "1"), (A, "2")}
    world.services.states = TwoPages()
    session, line = await world.enter(company=None)
    line.room.clear()
    command = {"type": "subscribe", "data": {"companyId": A, "state": True}}
    subscribing = asyncio.create_task(session.receive(json.dumps(command)))
    await settle()
    membership.accounts["u"] = "2"
    world.log.hub.recheck("1")
    line.room.set()
    with pytest.raises(NotReady):
        await subscribing
    assert line.types[-2:] == ["SubscribeResult", "State"]


async def test_a_user_who_is_removed_again_during_a_check_gets_no_further_page_of_a_state(
    world: World,
) -> None:
    world.services.states = TwoPages()
    world.membership.members.add((A, "u"))
    session, line = await world.enter(company=None)
    line.room.clear()
    command = {"type": "subscribe", "data": {"companyId": A, "state": True}}
    subscribing = asyncio.create_task(session.receive(json.dumps(command)))
    await settle()
    answers = [True, False]

    async def may_see(identity: Identity, company: str) -> bool:
        allowed = answers.pop(0)
        if allowed:
            world.log.publish(company, revokes=("u",))  # after the rows of members were read
        return allowed

    world.membership.may_see = may_see  # type: ignore[method-assign]
    world.log.publish(A, revokes=("u",))
    line.room.set()
    await subscribing
    assert line.types[-3:] == ["SubscribeResult", "State", "CompanyRevoked"]


async def test_a_state_goes_on_though_each_check_is_overtaken_by_a_change_of_a_member_row(
    world: World,
) -> None:
    """The rows were read before each of the checks."""
    world.services.states = TwoPages()
    world.membership.members.add((A, "u"))
    session, line = await world.enter(company=None)
    line.room.clear()
    command = {"type": "subscribe", "data": {"companyId": A, "state": True}}
    subscribing = asyncio.create_task(session.receive(json.dumps(command)))
    await settle()

    overtaken = 0

    async def may_see(identity: Identity, company: str) -> bool:
        nonlocal overtaken
        overtaken += 1
        if overtaken < 20:
            world.log.publish(company, revokes=("*",))
        return True

    world.membership.may_see = may_see  # type: ignore[method-assign]
    world.log.publish(A, revokes=("*",))
    line.room.set()
    await subscribing
    begin = line.types.index("SubscribeResult")
    assert line.types[begin:][:4] == ["SubscribeResult", "State", "State", "StateEnd"]
    assert overtaken >= 20


async def test_a_subscription_whose_answer_closes_the_session_joins_no_channel(
    world: World,
) -> None:
    """Its transport has taken more than it may hold."""
    world.membership.members.add((A, "u"))
    session, line = await world.enter(company=None)
    write = line.write

    def overflowing(frames: bytes, bodies: Sequence[bytes]) -> None:
        write(frames, bodies)
        session.closed()

    line.write = overflowing  # type: ignore[method-assign]
    with suppress(asyncio.CancelledError):
        await session.receive(json.dumps({"type": "setCompany", "data": {"companyId": A}}))
    assert line.types[-1] == "SetCompanyResult"
    assert (channel := world.log.hub.channel(A)) is None or not channel.subscribers()


async def test_a_new_token_causes_no_check_where_rows_decide(world: World) -> None:
    session, line = await world.enter()
    world.membership.members.clear()
    await authenticate(session)
    assert line.types[-1] == "AuthenticationResult"
    assert session.live_subscriptions


# --- replay


@pytest.mark.parametrize("quick", [True, False])
async def test_a_replay_ends_when_access_is_lost(world: World, quick: bool) -> None:
    session, line, setting = await world.replay(2500, quick=quick)
    begun = len(line.messages)
    assert 0 < begun < 1000
    world.membership.members.clear()
    world.log.publish(A, revokes=("u",))
    line.room.set()
    await setting
    assert len(line.messages) == begun
    assert line.sent[-1] == {"Type": "CompanyRevoked", "Data": {"CompanyId": A}}
    assert not session.live_subscriptions


async def test_a_replay_continues_where_it_was_when_access_was_kept(world: World) -> None:
    _, line, setting = await world.replay(2500)
    world.log.publish(A, revokes=("*",))
    world.log.publish(A, 3)
    line.room.set()
    await setting
    world.log.publish(A)
    assert line.messages == [(A, position) for position in range(1, 2506)]
    assert "CompanyRevoked" not in line.types


@pytest.mark.parametrize("member", [True, False])
async def test_a_reader_too_slow_to_become_live_is_checked_every_minute(
    world: World, monkeypatch: pytest.MonkeyPatch, member: bool
) -> None:
    """No message announces a loss that no trigger saw, and the periodic re-check covers only live ones."""
    later, monotonic = 0.0, time.monotonic
    monkeypatch.setattr(time, "monotonic", lambda: monotonic() + later)
    session, line, setting = await world.replay(2500)
    begun, checks = len(line.messages), world.membership.checks
    if not member:
        world.membership.members.clear()
    later = subscription.REPLAY_SECONDS + 1
    line.room.set()
    await setting
    assert world.membership.checks == checks + 1
    assert len(line.messages) == (2500 if member else begun)
    assert bool(session.live_subscriptions) is member
    assert (line.types[-1] == "CompanyRevoked") is not member


async def test_nothing_is_replayed_that_the_stream_has_not_delivered(world: World) -> None:
    world.log.store(A, 5)
    await world.enter("v")
    world.log.store(A, revokes=("u",))
    world.log.store(A, 4)
    _, line = await world.enter(after=0)
    assert line.messages == [(A, position) for position in range(1, 6)]
    world.log.deliver()
    assert line.messages == [(A, position) for position in range(1, 7)]
    assert line.types[-1] == "CompanyRevoked"


async def test_a_user_who_was_removed_while_the_log_was_ahead_of_the_node_is_refused(
    world: World,
) -> None:
    _, line, setting = await world.open_company(0)
    world.membership.members.clear()
    world.log.store(A, revokes=("u",))
    world.log.store(A, 3)
    world.log.open.set()
    await setting
    assert line.sent[-1]["Error"]["Code"] == "company_forbidden"
    assert line.messages == []
    assert world.pins(A) == 0


async def test_a_channel_is_unpinned_when_access_cannot_be_checked_again(world: World) -> None:
    _, line, setting = await world.open_company()
    world.membership.error = Unreachable("gone")
    world.log.open.set()
    await setting
    assert line.sent[-1]["Error"]["Code"] == "unavailable"
    assert world.pins(A) == 0


async def test_access_to_an_open_channel_is_checked_once(world: World) -> None:
    await world.enter("v")
    checks = world.membership.checks
    await world.enter()
    assert world.membership.checks == checks + 1


async def test_a_removal_that_the_stream_delivers_late_still_revokes(world: World) -> None:
    world.log.store(A, 4, revokes=("u",))
    session, line = await world.enter()
    _, other = await world.enter("v")
    assert line.sent[-1]["Data"]["Position"] == 4
    world.membership.members.remove((A, "u"))
    world.log.deliver()
    await settle()
    assert line.types[-1] == "CompanyRevoked"
    assert not session.live_subscriptions
    assert other.messages == []
    world.log.publish(A)
    assert other.messages == [(A, 5)]


async def test_a_removal_that_is_delivered_after_the_user_returned_revokes_nothing(
    world: World,
) -> None:
    world.log.store(A, 4, revokes=("u",))
    session, line = await world.enter()  # the user is a member again
    checks = world.membership.checks
    world.log.deliver()
    await settle()
    assert world.membership.checks == checks + 1
    assert "CompanyRevoked" not in line.types
    assert session.live_subscriptions
    world.log.publish(A)
    assert line.messages == [(A, 5)]


@pytest.mark.parametrize("lag", [timedelta(seconds=1), timedelta(minutes=5)])
async def test_a_user_who_returned_and_subscribes_on_a_node_that_lags_behind_keeps_the_company(
    world: World, lag: timedelta
) -> None:
    _, other = await world.enter("v")
    world.log.later = -lag
    world.log.store(A, 3, revokes=("u",))  # not yet delivered here
    session, line = await world.enter()  # the user is a member again
    assert line.sent[-1]["Data"]["Position"] == 0
    world.log.store(A, 2)
    world.log.deliver()
    await settle()
    assert "CompanyRevoked" not in line.types
    assert session.live_subscriptions
    assert line.messages == other.messages == [(A, position) for position in range(1, 6)]


async def test_a_user_who_returned_before_a_relay_that_lags_stored_the_removal_keeps_the_company(
    world: World,
) -> None:
    session, line = await world.enter()  # the user is a member again
    world.log.later = timedelta(seconds=-1)
    world.log.publish(A, revokes=("u",))
    await settle()
    assert line.messages == [(A, 1)]
    assert "CompanyRevoked" not in line.types
    assert session.live_subscriptions


async def test_a_user_who_subscribes_on_a_node_that_lags_behind_and_is_removed_loses_the_company(
    world: World,
) -> None:
    await world.enter("v")
    world.log.later = timedelta(0)
    world.log.store(A, revokes=("u",))
    session, line = await world.enter()
    world.membership.members.remove((A, "u"))
    world.log.store(A)
    world.log.deliver()
    await settle()
    assert line.messages == [(A, 1)]
    assert line.types[-1] == "CompanyRevoked"
    assert not session.live_subscriptions


async def test_the_removal_of_other_users_causes_no_check_during_a_replay(world: World) -> None:
    _, line, setting = await world.replay(2500)
    checks = world.membership.checks
    world.log.publish(A, revokes=("v",))
    world.log.publish(B, revokes=("u", "*"))
    line.room.set()
    await setting
    assert world.membership.checks == checks
    assert line.messages == [(A, position) for position in range(1, 2502)]


async def test_another_epoch_during_a_check_ends_the_session(world: World) -> None:
    world.membership.conclusive = False
    session, line = await world.enter()
    world.membership.open.clear()
    world.log.publish(A, revokes=("u",))
    world.log.hub.begin_epoch("f")
    world.membership.open.set()
    await settle()
    world.log.publish(A)
    assert line.messages == [(A, 1)]
    assert isinstance(line.ended, NotReady)
    assert not session.live_subscriptions


async def test_another_epoch_during_a_replay_ends_the_session(world: World) -> None:
    _, line, setting = await world.replay(500)
    begun = len(line.messages)
    world.log.hub.begin_epoch("f")
    line.room.set()
    with pytest.raises(NotReady):
        await setting
    assert len(line.messages) == begun


async def test_a_channel_that_is_dropped_during_a_replay_ends_the_session(world: World) -> None:
    _, line, setting = await world.replay(500)
    world.log.hub.drop()
    line.room.set()
    with pytest.raises(NotReady):
        await setting


@pytest.mark.parametrize("end", ["the socket", "the epoch"])
async def test_the_socket_or_the_epoch_may_end_while_access_is_checked_during_a_replay(
    world: World, end: str
) -> None:
    session, line, setting = await world.replay(500)
    begun = len(line.messages)
    world.membership.open.clear()
    world.log.publish(A, revokes=("*",))
    line.room.set()
    await settle()
    if end == "the socket":
        session.end(Expired())
    else:
        world.log.hub.begin_epoch("f")
    world.membership.open.set()
    if end == "the socket":
        await setting
    else:
        with pytest.raises(NotReady):
            await setting
    world.log.publish(A)
    assert len(line.messages) == begun
    assert not session.live_subscriptions


async def test_a_socket_that_closes_during_a_replay_gets_no_more(
    world: World,
) -> None:
    session, line, setting = await world.replay(500)
    begun = len(line.messages)
    session.end(Expired())
    assert isinstance(line.ended, Expired)
    line.room.set()
    await setting
    assert len(line.messages) == begun
    assert world.pins(A) == 0


# --- many subscribers


async def test_when_a_batch_is_written_in_slices_removed_users_get_only_their_part(
    world: World,
) -> None:
    many = [
        await world.enter(f"u{number % 3}", quick=number % 2 == 0) for number in range(SLICE + 100)
    ]
    world.log.store(A, 2)
    world.log.store(A, revokes=("u1",))
    world.log.store(A, 2)
    world.log.deliver()
    await settle()
    for number, (_, line) in enumerate(many):
        last = 3 if number % 3 == 1 else 5
        assert line.messages == [(A, position) for position in range(1, last + 1)]
        assert (line.types[-1] == "CompanyRevoked") is (number % 3 == 1)


async def test_messages_queued_in_a_former_epoch_are_not_written_in_the_next(world: World) -> None:
    many = [await world.enter(f"u{number}") for number in range(SLICE + 100)]
    for _ in range(3):
        world.log.store(A, 2, revokes=("absent",))
    world.log.deliver()
    await asyncio.sleep(0)
    world.log.begin_epoch("f")  # its first message is a Resync
    await settle()
    world.log.publish(A)
    await settle()
    for _, line in many:
        assert line.messages == [(A, 1), (A, 2), (A, 2)]


async def test_messages_that_are_delivered_twice_are_written_once(world: World) -> None:
    _, line = await world.enter()
    world.log.publish(A, 3)
    world.log.hub.deliver(world.log.stored[A])
    world.log.publish(A)
    assert line.messages == [(A, position) for position in range(1, 5)]


async def test_a_socket_that_closes_between_two_slices_gets_no_more(world: World) -> None:
    many = [await world.enter(f"u{number}") for number in range(SLICE + 100)]
    world.log.publish(A)
    await asyncio.sleep(0)
    (left, silent), (_, last) = many[-1], many[-2]
    assert not silent.messages
    left.closed()
    await settle()
    assert silent.messages == []
    assert last.messages == [(A, 1)]


# --- back-pressure, and the end of a channel


async def test_a_paused_transport_gets_no_direct_writes(world: World) -> None:
    session, line = await world.enter()
    channel = world.log.hub.channel(A)
    assert channel is not None
    for pile, fast in ((session.paused, 0), (session.resumed, 1)):
        pile()
        assert len(channel._direct[TEXT]) == fast
        assert len(channel) == 1
        world.log.publish(A)
    line.write_direct = None  # a wire that never is
    session.paused()
    session.resumed()
    assert not channel._direct[TEXT]
    world.log.publish(A)
    assert line.messages == [(A, 1), (A, 2), (A, 3)]


async def test_a_subscription_joins_the_group_of_its_transport(world: World) -> None:
    ways = []
    for quick, encoding in ((False, TEXT), (True, TEXT), (True, DEFLATED)):
        session, line = world.open(quick=quick)
        line.encoding = encoding
        await authenticate(session)
        world.membership.members.add((A, "u"))
        await set_company(session, A)
        channel = world.log.hub.channel(A)
        assert channel is not None
        (own,) = session.live_subscriptions
        direct: dict[Any, Any] = channel._direct
        groups = [channel._paused, direct.get(TEXT, {}), direct.get(DEFLATED, {})]
        ways.append([own in group for group in groups])
        session.paused()
        assert own in channel._paused
        session.resumed()
        ways.append([own in group for group in groups])
    slow, fast, deflating = [[n == way for n in range(3)] for way in range(3)]
    assert ways == [slow, slow, fast, fast, deflating, deflating]


async def test_when_messages_are_missing_every_session_is_ended(world: World) -> None:
    session, line = await world.enter()
    world.log.publish(A, 3)
    world.log.hub.drop()
    session.end(Restart())  # too late
    assert isinstance(line.ended, NotReady)
    assert session.stage is Stage.ENDED
    assert world.log.hub.channel(A) is None
    assert world.log.hub._budget.used == 0


async def test_another_epoch_returns_the_bytes_of_the_former_to_the_budget(world: World) -> None:
    await world.enter()
    world.log.publish(A, 3)
    assert world.log.hub._budget.used > 0
    world.log.hub.begin_epoch("f")
    assert world.log.hub._budget.used == 0


async def test_an_idle_channel_that_a_revocation_removes_during_a_batch_stops_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    session, _ = await world.enter(company=B)
    other, line = await world.enter(company=A)
    session.closed()
    assert world.log.hub.channel(B) is not None
    monkeypatch.setattr(hub, "IDLE_CHANNELS", 1)
    world.log.store(A, revokes=("u",))  # closes the subscription of A, so the idle B is removed
    world.log.store(B)
    world.log.deliver()
    assert world.log.hub.channel(B) is None
    assert line.types[-1] == "CompanyRevoked"
    assert not other.live_subscriptions


async def test_a_newer_token_that_comes_while_the_account_is_looked_up_decides(
    world: World,
) -> None:
    membership = world.membership
    membership.conclusive, membership.maps_users = False, True
    membership.accounts["u"] = "1"
    membership.members.add((A, "1"))
    session, _line = await world.enter("u", A, member=False)
    asked: list[float] = []
    may_see = membership.may_see

    async def observed(identity: Identity, company: str) -> bool:
        asked.append(identity.expires_at)
        return await may_see(identity, company)

    membership.may_see = observed  # type: ignore[method-assign]
    membership.open.clear()
    world.log.hub.recheck("1")
    await settle()
    await authenticate(session, ttl=7200)
    membership.open.set()
    await settle()
    assert asked == [session.identity.expires_at]


async def test_a_newer_token_takes_a_company_away_that_is_replayed_after_a_check(
    world: World,
) -> None:
    """It is not live then, and was checked by the former token."""
    membership = world.membership
    membership.conclusive, membership.follows_rows, membership.maps_users = False, False, True
    membership.accounts["u"] = "1"
    membership.members.add((A, "1"))
    session, line = await world.enter("u", A, member=False)
    former = session.identity

    async def names(identity: Identity, company: str) -> bool:
        return identity is former

    membership.may_see = names  # type: ignore[method-assign]
    membership.open.clear()
    world.log.hub.recheck("1")
    await settle()
    world.log.publish(A)
    line.room.clear()
    membership.open.set()
    await settle()
    assert line.messages == [(A, 1)]
    await authenticate(session, ttl=7200)
    assert line.types[-1] == "CompanyRevoked"
    line.room.set()
    world.log.publish(A)
    await settle()
    assert line.messages == [(A, 1)]


async def test_messages_go_on_though_each_check_is_overtaken_by_a_change_of_a_member_row(
    world: World,
) -> None:
    """With MEMBERSHIP_QUERY each such change re-checks every user of the company."""
    world.membership.conclusive = False
    _, line = await world.enter()
    received: list[int] = []

    async def may_see(identity: Identity, company: str) -> bool:
        received.append(len(line.messages))
        await asyncio.sleep(0)
        allowed = len(received) < 10
        if allowed:
            world.log.publish(company, 2, revokes=("*",))
        return allowed

    world.membership.may_see = may_see  # type: ignore[method-assign]
    world.log.publish(A, revokes=("*",))
    await settle()
    await settle()
    assert received == [1, 1, 3, 5, 7, 9, 11, 13, 15, 17]
    assert line.messages == [(A, position) for position in range(1, 18)]
    assert line.types[-1] == "CompanyRevoked"


async def test_a_user_who_is_another_one_for_a_part_of_a_replay_has_a_resync(world: World) -> None:
    """What was replayed meanwhile has no rows that only the first one may see."""
    world.membership.maps_users, world.membership.conclusive = True, False
    world.membership.accounts = {"token": "ada"}
    world.membership.members = {(A, "ada"), (A, "bob")}
    world.log.hub.filters.restricts = True
    world.log.store(A, 300, pad=1000)
    world.log.deliver()
    session, line = await world.enter("token", company=None)
    users: list[str] = []

    async def drain() -> None:
        users.append(session._subscriptions[0].user)
        if len(users) <= 2:
            user, former = [("bob", "ada"), ("ada", "bob")][len(users) - 1]
            world.membership.accounts = {"token": user}
            world.log.hub.recheck(former)

    line.drain = drain  # type: ignore[method-assign]
    await set_company(session, A, 0)
    await settle()
    assert users[:3] == ["ada", "bob", "ada"]
    assert line.messages == [(A, n) for n in range(1, 301)]
    assert line.types[-1] == "Resync"
    assert line.types.count("Resync") == 1
    assert session.live_subscriptions
