"""Sessions: commands and their answers, limits, switching companies."""

from __future__ import annotations

import asyncio
import time

import pytest

from notifier.access import admission
from notifier.access.admission import Admission
from notifier.access.tokens import Identity, Tokens
from notifier.delivery import session as sessions
from notifier.delivery.hub import BEHIND_SECONDS
from notifier.delivery.session import Session
from notifier.errors import (
    AnotherUser,
    BadToken,
    Closure,
    DatabaseError,
    Expired,
    Forbidden,
    KeysUnavailable,
    Malformed,
    NotAuthenticated,
    NotReady,
    Restart,
    TooBig,
    TooMany,
)
from tests.services import SECRET
from tests.timeless import timeless
from tests.unit.lines import Line
from tests.unit.worlds import A, B, World, authenticate, set_company, settle

# --- switching


async def test_a_refused_or_failed_set_company_keeps_the_former_company(world: World) -> None:
    session, line = await world.enter()
    await set_company(session, B)
    assert line.sent[-1]["Error"]["Code"] == "company_forbidden"
    world.membership.error = DatabaseError("out of reach")
    await set_company(session, B)
    assert line.sent[-1]["Error"]["Code"] == "unavailable"
    world.log.publish(A)
    assert line.messages == [(A, 1)]


async def test_messages_of_the_former_company_end_with_the_acknowledgement(
    world: World,
) -> None:
    session, line = await world.enter()
    world.membership.members.add((B, "u"))
    world.log.open.clear()
    setting = asyncio.create_task(set_company(session, B))
    await settle()
    world.log.publish(A)
    world.log.open.set()
    await setting
    world.log.publish(A)
    world.log.publish(B)
    assert [m.get("Company", m["Type"]) for m in line.sent[1:]] == [
        "SetCompanyResult",
        A,
        "SetCompanyResult",
        B,
    ]
    assert world.pins(A) == 0


async def test_losing_a_former_company_does_not_revoke_the_present_one(world: World) -> None:
    session, line = await world.enter()
    world.membership.members.add((B, "u"))
    await set_company(session, B)
    world.log.publish(A, revokes=("u",))
    world.log.publish(A, revokes=("*",))
    world.log.publish(B)
    await settle()
    assert line.messages == [(B, 1)]
    assert line.types == ["AuthenticationResult", "SetCompanyResult", "SetCompanyResult"]


async def test_revoking_a_former_subscription_does_not_revoke_the_present_one(world: World) -> None:
    session, line = await world.enter()
    (former,) = session.live_subscriptions
    world.membership.members.add((B, "u"))
    await set_company(session, B)
    former.revoke()
    world.log.publish(B)
    assert line.messages == [(B, 1)]
    assert "CompanyRevoked" not in line.types


async def test_set_company_without_a_token_is_answered_with_not_authenticated(world: World) -> None:
    session, line = world.open()
    world.membership.members.add((A, ""))
    await set_company(session, A)
    assert line.sent[-1]["Error"]["Code"] == "not_authenticated"
    assert world.membership.checks == 0
    assert not session.live_subscriptions


async def test_ten_refused_companies_are_answered_and_the_next_ends_the_session(
    world: World,
) -> None:
    session, line = await world.enter(company=None)
    for _ in range(10):
        await set_company(session, A)
    assert [message.get("Success") for message in line.sent] == [True] + [False] * 10
    with pytest.raises(Forbidden):
        await set_company(session, A)


async def test_a_refused_company_is_answered_after_a_delay(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sessions, "REFUSED_SECONDS", 3600.0)
    session, line = await world.enter(company=None)
    guessing = asyncio.create_task(set_company(session, A))
    await settle()
    assert not guessing.done()
    assert line.types == ["AuthenticationResult"]
    guessing.cancel()


# --- admission


async def test_a_socket_counts_for_its_user_until_it_is_closed(world: World) -> None:
    world.admission = world.services.admission = Admission(3, 1)
    session, _ = await world.enter(company=None)
    second, _ = world.open()
    with pytest.raises(TooMany):
        await authenticate(second)
    await authenticate(session)  # the same socket again
    third, _ = world.open()
    with pytest.raises(TooMany):
        world.open()
    session.closed()
    session.closed()
    await authenticate(third)
    world.admission.closed = True
    second.closed()
    with pytest.raises(Restart):
        world.open()


async def test_the_sockets_of_each_user_are_counted_as_they_open_and_close(world: World) -> None:
    world.admission = world.services.admission = Admission(100, 3)
    mine = [await world.enter("u", None) for _ in range(3)]
    await world.enter("v", None)
    for session, _ in mine[:2]:
        session.closed()
    mine[0][0].closed()
    for _ in range(2):
        await world.enter("u", None)
    for _ in range(2):
        with pytest.raises(TooMany):
            await world.enter("u", None)
    world.open()[0].closed()  # it has no user
    with pytest.raises(TooMany):
        await world.enter("u", None)


async def test_a_socket_that_closes_before_its_token_was_verified_is_not_counted(
    world: World,
) -> None:
    class LateTokens(Tokens):
        async def verify(self, token: str) -> Identity:
            await late.wait()
            return await super().verify(token)

    late = asyncio.Event()
    world.admission = world.services.admission = Admission(3, 1)
    world.services.tokens = LateTokens(secret=SECRET)
    session, line = world.open()
    authenticating = asyncio.create_task(authenticate(session))
    await settle()
    session.end(NotAuthenticated())
    late.set()
    await authenticating
    assert line.types == []
    await world.enter(company=None)


# --- tokens


async def test_a_token_that_cannot_be_verified_now_is_not_called_invalid(world: World) -> None:
    class KeylessTokens(Tokens):
        async def verify(self, token: str) -> Identity:
            raise KeysUnavailable("no keys")

    world.services.tokens = KeylessTokens(secret=SECRET)
    session, line = world.open()
    with pytest.raises(NotReady):
        await authenticate(session)
    assert line.sent == []


@pytest.mark.parametrize(
    ("ttl", "code", "closure"),
    [(-60, "token_expired", Expired), (10**20, "token_invalid", BadToken)],
)
async def test_a_refused_token_is_answered_and_ends_the_session(
    world: World, ttl: float, code: str, closure: type[Closure]
) -> None:
    session, line = world.open()
    with pytest.raises(closure):
        await authenticate(session, ttl=ttl, nbf=10**12 if ttl > 0 else 0)
    (answer,) = line.sent
    assert answer["Success"] is False
    assert answer["Error"]["Code"] == code


async def test_a_bad_token_is_answered_after_a_delay(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sessions, "REFUSED_SECONDS", 3600.0)
    session, line = world.open()
    guessing = asyncio.create_task(authenticate(session, ttl=-60))
    await settle()
    assert not guessing.done()
    assert line.sent == []
    guessing.cancel()


async def test_a_token_of_another_user_ends_the_session_and_changes_no_user(world: World) -> None:
    session, _ = await world.enter()
    with pytest.raises(AnotherUser):
        await authenticate(session, "v")
    assert session.user == "u"


# --- limits by address


async def guess(session: Session) -> None:
    await session.receive('{"type": "authenticate", "token": "no token"}')


async def test_c17_an_address_has_no_more_sockets_than_allowed(world: World) -> None:
    world.admission = world.services.admission = Admission(100, 100, 2)
    first, _ = world.open("192.0.2.1")
    world.open("192.0.2.1")
    for _ in range(2):
        with pytest.raises(TooMany):
            world.open("192.0.2.1")
    for _ in range(2):
        world.open("192.0.2.2")
    for _ in range(3):
        world.open()  # from an unknown address
        world.sessions.append(Session(world.services, Line(quick=True)))
    first.closed()
    first.closed()
    world.open("192.0.2.1")
    with pytest.raises(TooMany):
        world.open("192.0.2.1")
    assert len(world.admission.connections) == 10


async def test_c17_bad_tokens_of_an_address_queue_and_good_ones_do_not(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sessions, "REFUSED_SECONDS", 0.0)
    monkeypatch.setattr(admission, "QUEUE_STEP_SECONDS", 3600.0)
    first, _ = world.open("192.0.2.1")
    with pytest.raises(BadToken):
        await guess(first)
    guessing = [asyncio.create_task(guess(world.open("192.0.2.1")[0])) for _ in range(3)]
    await settle()
    assert [task.done() for task in guessing] == [True, False, False]
    good, line = world.open("192.0.2.1")
    await authenticate(good)
    assert line.types == ["AuthenticationResult"]
    late = [authenticate(world.open("192.0.2.1")[0], ttl=-60) for _ in range(3)]
    for end in await asyncio.gather(*late, return_exceptions=True):
        assert isinstance(end, Expired)  # a good one that is too late
    with pytest.raises(BadToken):
        await guess(world.open("192.0.2.2")[0])
    for task in guessing:
        task.cancel()
    await asyncio.gather(*guessing, return_exceptions=True)
    with pytest.raises(BadToken):  # the line is gone with them
        await guess(world.open("192.0.2.1")[0])


async def test_c17_while_an_address_has_too_many_bad_tokens_none_is_verified(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:

    class CountingTokens(Tokens):
        async def verify(self, token: str) -> Identity:
            visited.append(token)
            return await super().verify(token)

    visited: list[str] = []
    monkeypatch.setattr(sessions, "REFUSED_SECONDS", 3600.0)
    monkeypatch.setattr(admission, "QUEUE_LIMIT", 2)
    world.services.tokens = CountingTokens(secret=SECRET)
    known, line = world.open("192.0.2.1")
    await authenticate(known)
    guessing = [asyncio.create_task(guess(world.open("192.0.2.1")[0])) for _ in range(2)]
    await settle()
    assert len(visited) == 3
    for attempt in (guess, authenticate):
        with pytest.raises(TooMany):
            await attempt(world.open("192.0.2.1")[0])
    assert len(visited) == 3
    await authenticate(known)  # an authenticated session may renew its token
    await authenticate(world.open("192.0.2.2")[0])
    assert line.types == ["AuthenticationResult"] * 2
    for task in guessing:
        task.cancel()
    await asyncio.gather(*guessing, return_exceptions=True)
    await authenticate(world.open("192.0.2.1")[0])


# --- limits


@pytest.mark.parametrize("known", [False, True])
async def test_a_message_beyond_the_limit_ends_the_session(world: World, known: bool) -> None:
    session, line = world.open()
    if known:
        await authenticate(session)
    limit = 64 * 1024
    ping = '{"type": "ping", "x": "%s"}'
    room = limit - len(ping) + 2
    for letter in ("x", "é", "🗝"):
        size = len(letter.encode())
        await session.receive(ping % (letter * (room // size) + "x" * (room % size)))
        with pytest.raises(TooBig):
            await session.receive(ping % (letter * (room // size) + "x" * (room % size + 1)))
    assert line.types[-3:] == ["Pong"] * 3


async def test_a_hundred_messages_in_ten_seconds_are_handled_and_no_more(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    session, line = world.open()
    await session.receive('{"type": "ping"}')
    now += 5
    for _ in range(99):
        await session.receive('{"type": "ping"}')
    with pytest.raises(TooMany):
        await session.receive('{"type": "ping"}')
    assert line.types == ["Pong"] * 100
    now += 5  # the first is forgotten, the others and the refused one are not
    with pytest.raises(TooMany):
        await session.receive('{"type": "ping"}')
    now += 5
    for _ in range(99):
        await session.receive('{"type": "ping"}')
    with pytest.raises(TooMany):
        await session.receive('{"type": "ping"}')


async def test_ten_malformed_messages_are_answered_and_the_next_ends_the_session(
    world: World,
) -> None:
    session, line = world.open()
    for _ in range(10):
        await session.receive("{")
        await session.receive('{"type": "ping"}')
    assert line.types == ["Error", "Pong"] * 10
    assert line.sent[0]["Error"]["Code"] == "malformed"
    with pytest.raises(Malformed):
        await session.receive("{")


async def test_set_company_waits_until_the_log_was_read() -> None:
    world = World(started=False)
    entering = asyncio.create_task(world.enter())
    await settle()
    assert not entering.done()
    world.log.hub.begin_epoch("e")
    session, line = await entering
    assert line.sent[-1]["Data"]["Epoch"] == "e"
    assert session.live_subscriptions


@timeless
async def test_while_the_log_cannot_be_read_set_company_is_answered_with_unavailable() -> None:
    world = World(started=False)
    requested_at = asyncio.get_running_loop().time()
    session, line = await world.enter()
    assert asyncio.get_running_loop().time() - requested_at == pytest.approx(
        BEHIND_SECONDS, abs=0.1
    )
    assert line.sent[-1]["Error"]["Code"] == "unavailable"
    assert not session.live_subscriptions


@timeless
async def test_a_session_that_ends_while_the_log_is_not_read_holds_nothing() -> None:
    world = World(started=False)
    entering = asyncio.create_task(world.enter())
    await settle()
    world.sessions[0].closed()
    world.log.hub.begin_epoch("e")
    await entering
    assert world.pins(A) == 0


# --- back-pressure, and the end of a channel


async def test_a_session_without_a_company_may_be_paused(world: World) -> None:
    session, _ = world.open()
    session.paused()
    session.resumed()
    assert not session.live_subscriptions


# --- what a session has requested ends with it


@pytest.mark.parametrize("waits_for", ["access", "position", "page", "room"])
async def test_a_command_is_interrupted_where_its_session_ends(
    world: World, waits_for: str
) -> None:
    world.log.store(A, 5, pad=1000)
    world.log.deliver()
    session, line = await world.enter(company=None)
    world.membership.members.add((A, "u"))
    if waits_for == "access":
        world.membership.open.clear()
    elif waits_for == "room":
        line.room.clear()
    else:
        if waits_for == "page":
            await world.enter("v")
        world.log.open.clear()
    handling = asyncio.create_task(set_company(session, A, 0))
    await settle()
    assert not handling.done()
    session.closed()
    await settle()
    assert handling.done()
    await handling
    assert world.pins(A) == (1 if waits_for == "page" else 0), "the other user's alone"
    assert not session.live_subscriptions
