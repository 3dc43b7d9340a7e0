"""Sessions with several companies: subscribe, unsubscribe, their limits and their losses."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from itertools import product
from typing import Any

import pytest

from notifier.delivery import hub as hubs
from notifier.delivery.filter import Filter
from notifier.delivery.session import Session
from notifier.delivery.state import NoStates, State
from notifier.delivery.subscription import Subscription
from notifier.errors import DatabaseError, Forbidden, TooMany
from notifier.messages import at_text
from tests.timeless import timeless
from tests.unit.lines import Line
from tests.unit.worlds import (
    A,
    B,
    FakeColumns,
    World,
    authenticate,
    catalogue,
    set_company,
    settle,
)


async def send(session: Session, kind: str, company: str, **data: Any) -> None:
    await session.receive(json.dumps({"type": kind, "data": {"companyId": company, **data}}))


async def subscribed(world: World, *companies: str) -> tuple[Session, Line]:
    """A session that has subscribed to these companies."""
    session, line = await world.enter(company=None)
    for company in companies:
        world.membership.members.add((company, "u"))
        await send(session, "subscribe", company)
    return session, line


def failures(line: Line) -> list[tuple[str, str]]:
    """The company and the code of each failed answer."""
    return [(m["Data"]["CompanyId"], m["Error"]["Code"]) for m in line.sent if "Error" in m]


class Unreadable(NoStates):
    """The database does not answer when a state is read."""

    async def read(self, _company: str, _wanted: Filter | None, _user: str) -> State:
        raise DatabaseError("out of reach")


def places(line: Line) -> list[tuple[int, str]]:
    """Position and type of what was sent since the last answer."""
    answer = max(n for n, m in enumerate(line.sent) if m["Type"] == "SubscribeResult")
    return [(m["Position"], m["Type"]) for m in line.sent[answer + 1 :]]


async def test_several_companies_are_followed_on_one_socket(world: World) -> None:
    world.log.publish(B, 3)
    _, line = await subscribed(world, A, B)
    world.log.publish(A)
    world.log.publish(B)
    world.log.publish(A)
    assert line.messages == [(A, 1), (B, 4), (A, 2)]
    answers = [m for m in line.sent if m["Type"] == "SubscribeResult"]
    assert [(m["Success"], m["Data"]["CompanyId"], m["Data"]["Position"]) for m in answers] == [
        (True, A, 0),
        (True, B, 3),
    ]
    assert answers[0]["Data"]["Epoch"] == "e"
    assert all("Recovered" not in answer["Data"] for answer in answers)


async def test_after_unsubscribe_only_the_other_company_is_followed(world: World) -> None:
    session, line = await subscribed(world, A, B)
    await send(session, "unsubscribe", A)
    assert line.sent[-1] == {"Type": "UnsubscribeResult", "Success": True, "Data": {"CompanyId": A}}
    world.log.publish(A)
    world.log.publish(B)
    assert line.messages == [(B, 1)]
    assert world.pins(A) == 0


async def test_unsubscribing_what_is_not_subscribed_fails_with_the_company(world: World) -> None:
    session, line = await subscribed(world, A)
    await send(session, "unsubscribe", B)
    assert failures(line) == [(B, "not_subscribed")]
    world.log.publish(A)
    assert line.messages == [(A, 1)]


async def test_set_company_leaves_all_other_companies(world: World) -> None:
    session, line = await subscribed(world, A, B, "company c")
    await set_company(session, B)
    for company in (A, B, "company c"):
        world.log.publish(company)
    assert line.messages == [(B, 1)]
    assert [world.pins(each) for each in (A, B, "company c")] == [0, 1, 0]


async def test_set_company_has_no_filter(world: World) -> None:
    session, line = await subscribed(world)
    world.membership.members.add((A, "u"))
    await send(session, "subscribe", A, entities=["Employee"])
    await send(session, "setCompany", A, entities=["Employee"])
    world.log.store_change(A, "EventCreated", {"Title": "a"})
    world.log.deliver()
    assert line.types[-2:] == ["SetCompanyResult", "EventCreated"]


async def test_set_company_leaves_as_many_companies_as_a_socket_may_have(world: World) -> None:
    world.services.max_companies = 2
    session, line = await subscribed(world, A, B)
    world.membership.members.add(("company c", "u"))
    await set_company(session, "company c")
    assert line.sent[-1]["Success"]
    assert [world.pins(each) for each in (A, B, "company c")] == [0, 0, 1]


async def test_a_company_has_one_subscription_however_its_id_is_spelled(world: World) -> None:
    lower = "3f2504e0-4f89-11d3-9a0c-0305e82c3301"
    session, line = await subscribed(world)
    world.membership.members.add((lower, "u"))
    for spelling in (lower.upper(), lower, lower.upper()):
        await send(session, "subscribe", spelling)
        assert line.sent[-1]["Data"]["CompanyId"] == lower
    world.log.publish(lower)
    assert line.messages == [(lower, 1)]
    await send(session, "unsubscribe", lower.upper())
    assert line.sent[-1]["Success"]
    assert line.sent[-1]["Data"] == {"CompanyId": lower}
    assert world.pins(lower) == 0


async def test_subscribe_keeps_what_set_company_follows(world: World) -> None:
    session, line = await world.enter()
    world.membership.members.add((B, "u"))
    await send(session, "subscribe", B)
    world.log.publish(A)
    world.log.publish(B)
    assert line.messages == [(A, 1), (B, 1)]


async def test_each_company_resumes_from_its_own_position(world: World) -> None:
    world.log.publish(A, 3)
    world.log.publish(B, 3)
    session, line = await subscribed(world)
    world.membership.members |= {(A, "u"), (B, "u")}
    await send(session, "subscribe", A, after=2, epoch="e")
    await send(session, "subscribe", B, after=1, epoch="e")
    assert line.messages == [(A, 3), (B, 2), (B, 3)]
    assert [m["Data"]["Recovered"] for m in line.sent if m["Type"] == "SubscribeResult"] == [
        True,
        True,
    ]


async def test_subscribing_again_replaces_the_subscription(world: World) -> None:
    session, line = await subscribed(world, A, A)
    world.log.publish(A)
    assert line.messages == [(A, 1)]
    assert world.pins(A) == 1
    await send(session, "unsubscribe", A)
    assert world.pins(A) == 0


async def test_nothing_of_the_former_filter_comes_after_the_answer(world: World) -> None:
    """Even while a long replay delays the subscription that replaces it."""
    session, line = await subscribed(world)
    world.membership.members.add((A, "u"))
    await send(session, "subscribe", A, entities=["Event"])
    world.log.store_change(A, "CompanyUpdated", {"Name": "a"})
    world.log.deliver()
    line.room.clear()
    again = {"entities": ["Company"], "after": 0, "epoch": "e"}
    replacing = asyncio.create_task(send(session, "subscribe", A, **again))
    await settle()
    world.log.store_change(A, "EventCreated", {"Title": "a"})
    world.log.store_change(A, "CompanyUpdated", {"Name": "b"})
    world.log.deliver()
    line.room.set()
    await replacing
    assert places(line) == [(1, "CompanyUpdated"), (2, "Skipped"), (3, "CompanyUpdated")]


async def test_a_bad_filter_leaves_the_subscription_and_no_other_trace(world: World) -> None:
    session, line = await subscribed(world, A)
    for company in (A, B):
        world.membership.members.add((company, "u"))
        await send(session, "subscribe", company, entities=["Nothing"])
    assert failures(line) == [(A, "bad_filter"), (B, "bad_filter")]
    world.log.publish(A)
    assert line.messages == [(A, 1)]
    assert (world.pins(A), world.pins(B)) == (1, 0)


async def test_a_refused_or_failed_subscribe_leaves_every_subscription_as_it_was(
    world: World,
) -> None:
    session, line = await subscribed(world, A)
    await send(session, "subscribe", B)
    world.membership.error = DatabaseError("out of reach")
    await send(session, "subscribe", A)
    assert failures(line) == [(B, "company_forbidden"), (A, "unavailable")]
    world.log.publish(A)
    assert line.messages == [(A, 1)]


@pytest.mark.parametrize(
    "request_",
    [{"where": {"Event": {"Title": ["a"]}}}, {"after": 1, "epoch": "e"}, {"state": True}],
    ids=["filter", "resume", "state"],
)
async def test_while_the_database_does_not_answer_subscribe_is_answered_with_unavailable(
    world: World, request_: dict[str, Any]
) -> None:
    session, line = await subscribed(world, A, B)
    columns = FakeColumns()
    world.log.hub.filters = catalogue(columns)
    world.log.error = columns.error = DatabaseError("out of reach")
    world.services.states = Unreadable()
    await send(session, "subscribe", A, **request_)
    assert failures(line) == [(A, "unavailable")]
    world.log.publish(A)
    world.log.publish(B)
    assert line.messages == [(A, 1), (B, 1)]
    assert (world.pins(A), world.pins(B)) == (1, 1)


async def test_refused_subscriptions_count_with_refused_companies(world: World) -> None:
    session, _ = await subscribed(world)
    for _ in range(5):
        await set_company(session, A)
        await send(session, "subscribe", A)
    with pytest.raises(Forbidden):
        await send(session, "subscribe", A)


async def test_losing_one_company_leaves_the_others(world: World) -> None:
    _, line = await subscribed(world, A, B)
    world.membership.members.discard((A, "u"))
    world.log.publish(A, revokes=("u",))
    await settle()
    world.log.publish(A)
    world.log.publish(B)
    assert line.messages == [(A, 1), (B, 1)]
    revoked = [m for m in line.sent if m["Type"] == "CompanyRevoked"]
    assert revoked == [{"Type": "CompanyRevoked", "Data": {"CompanyId": A}}]


@timeless
async def test_under_a_filter_skipped_covers_the_rest_of_replays_and_of_live_messages() -> None:
    world = World()
    log = world.log
    kinds = ["CompanyUpdated", "EventCreated", "CompanyUpdated", "CompanyUpdated"]
    ats = [at_text(log.store_change(A, kind, {}).at) for kind in kinds]
    log.deliver()
    world.membership.members.add((A, "u"))
    lines = []
    for wanted in ({"entities": ["Event"]}, {"entities": ["Company"]}, {}):
        session, line = await world.enter(company=None)
        await send(session, "subscribe", A, after=0, epoch="e", **wanted)
        lines.append(line)
    events, companies, everything = lines
    assert places(events) == [(1, "Skipped"), (2, "EventCreated"), (4, "Skipped")]
    assert [m["At"] for m in events.sent[-3:]] == [ats[0], ats[1], ats[3]]
    changes = [*enumerate(kinds, start=1)]
    assert places(everything) == changes
    changes[1] = (2, "Skipped")
    assert places(companies) == changes
    log.store_change(A, "EventUpdated", {})
    last = at_text(log.store_change(A, "CompanyUpdated", {}).at)
    log.deliver()
    await asyncio.sleep(5)
    assert places(events)[3:] == [(5, "EventUpdated"), (6, "Skipped")]
    assert events.sent[-1] == {
        "Type": "Skipped", "Data": {"CompanyId": A}, "Position": 6, "At": last,
    }  # fmt: skip
    assert places(companies)[4:] == [(5, "Skipped"), (6, "CompanyUpdated")]
    assert places(everything)[4:] == [(5, "EventUpdated"), (6, "CompanyUpdated")]


async def test_a_subscription_that_is_behind_when_access_is_checked_again_has_no_gap(
    world: World,
) -> None:
    world.membership.conclusive = False
    session, line = await subscribed(world)
    world.membership.members.add((A, "u"))
    await send(session, "subscribe", A, entities=["Event"])
    world.log.store_change(A, "CompanyUpdated", {}, revokes=("u",))
    world.log.deliver()
    await settle()
    world.log.store_change(A, "EventCreated", {})
    world.log.deliver()
    assert places(line) == [(1, "Skipped"), (2, "EventCreated")]


@pytest.mark.parametrize("conclusive", [True, False])
async def test_revoking_a_company_of_one_user_touches_no_subscription_of_others(
    world: World, monkeypatch: pytest.MonkeyPatch, conclusive: bool
) -> None:
    """Nor does it check the access of others, or write to their sockets."""
    companies, users = [f"company {n}" for n in range(10)], [f"u{n}" for n in range(20)]
    lines: dict[tuple[str, int], Line] = {}
    for user, number in product(users, range(2)):
        session, lines[user, number] = world.open()
        await authenticate(session, user)
        for company in companies:
            world.membership.members.add((company, user))
            await send(session, "subscribe", company)
    touched: list[tuple[str, str]] = []
    for name in ("access_in_doubt", "revoke", "close", "write", "deliver", "paused", "dropped"):
        method = getattr(Subscription, name)

        def touching(self: Subscription, *args: Any, _method: Any = method, **named: Any) -> Any:
            touched.append((self.user, self.company))
            return _method(self, *args, **named)

        monkeypatch.setattr(Subscription, name, touching)
    world.membership.conclusive = conclusive
    world.membership.members.discard(("company 3", "u7"))
    checks = world.membership.checks
    writes = {name: line.writes for name, line in lines.items()}
    world.log.publish("company 3", revokes=("u7",))
    await settle()
    assert set(touched) == {("u7", "company 3")}
    assert world.membership.checks - checks == (0 if conclusive else 2)
    for (user, number), line in lines.items():
        written = line.writes - writes[user, number]
        assert written == (2 if user == "u7" else 1)  # the message itself, and CompanyRevoked
    assert all(len(session.live_subscriptions) >= 9 for session in world.sessions)


async def test_there_are_at_most_so_many_companies_and_any_of_them_can_be_replaced(
    world: World,
) -> None:
    world.services.max_companies = 2
    session, line = await subscribed(world, A, B, "company c")
    assert failures(line) == [("company c", "too_many_companies")]
    await send(session, "subscribe", B)
    assert line.sent[-1]["Success"]
    await send(session, "unsubscribe", A)
    await send(session, "subscribe", "company c")
    assert line.sent[-1]["Success"]


async def test_subscribe_and_unsubscribe_have_a_rate_of_their_own(world: World) -> None:
    session, line = await subscribed(world, A)
    for _ in range(99):  # and authenticate
        await session.receive('{"type": "ping"}')
    for _ in range(499):
        await send(session, "unsubscribe", B)
    assert line.types.count("Pong") == 99
    with pytest.raises(TooMany):
        await send(session, "unsubscribe", B)
    with pytest.raises(TooMany):
        await session.receive('{"type": "ping"}')


async def test_subscribe_before_authenticate_is_an_error(world: World) -> None:
    session, line = world.open()
    for kind in ("subscribe", "unsubscribe"):
        await send(session, kind, A)
        assert line.sent[-1]["Type"] == "Error"
        assert line.sent[-1]["Error"]["Code"] == "not_authenticated"


async def test_every_company_waits_and_goes_on_with_back_pressure(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    session, line = await subscribed(world, A, B)
    queued: list[bytes] = []
    write = line.write

    def queue(frames: bytes, bodies: Sequence[bytes]) -> None:
        queued.append(frames)
        write(frames, bodies)

    monkeypatch.setattr(line, "write", queue)
    write_direct, line.write_direct = line.write_direct, None
    session.paused()
    world.log.publish(A)
    world.log.publish(B)
    line.write_direct = write_direct
    session.resumed()
    waited = len(queued)
    world.log.publish(B)
    world.log.publish(A)
    assert line.messages == [(A, 1), (B, 1), (B, 2), (A, 2)]
    assert (waited, len(queued)) == (2, 2)


async def test_a_closed_session_leaves_every_channel(world: World) -> None:
    session, _ = await subscribed(world, A, B)
    session.closed()
    assert (world.pins(A), world.pins(B)) == (0, 0)


async def test_every_company_is_rechecked(world: World) -> None:
    session, _ = await subscribed(world, A, B)
    assert {each.company for each in session.live_subscriptions} == {A, B}


async def test_a_channel_that_is_removed_while_a_batch_is_delivered_stops_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    session, _ = await world.enter(company=B)
    other, _ = await world.enter(company=A)
    session.closed()  # B is idle now
    monkeypatch.setattr(hubs, "IDLE_CHANNELS", 1)
    world.log.store(A, revokes=("u",))  # A is closed, so B is removed
    world.log.store(B)
    world.log.deliver()
    assert world.log.hub.channel(B) is None
    assert not other.live_subscriptions
