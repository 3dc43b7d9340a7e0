"""When a conversation that is not allowed ends, to the tenth of a second: an hour of it takes no time."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from notifier.access.tokens import Tokens
from notifier.delivery.session import REFUSED_SECONDS
from notifier.errors import BadToken, Expired, NotAuthenticated
from notifier.transport.asgi import AsgiTransport
from notifier.transport.queues import DRAIN_SECONDS
from notifier.transport.websocket import CLOSE_SECONDS
from tests.services import token
from tests.timeless import timeless
from tests.unit.test_tokens import FORGED, NOW, REFUSED, claims, pem, signed, tokens
from tests.unit.test_tokens import RSA as KEY
from tests.unit.worlds import A, B, World, authenticate, set_company

DEADLINE = 10.0


@asynccontextmanager
async def a_world() -> AsyncIterator[World]:
    world = World()
    world.services.auth_timeout = DEADLINE
    began, loop = time.time(), asyncio.get_running_loop()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(time, "time", lambda: began + loop.time())  # the clock goes with the timers
        yield world
    for session in world.sessions:
        session.closed()


# --- C1: the deadline


@timeless
async def test_c1_a_silent_client_is_ended_at_the_deadline_and_not_before() -> None:
    async with a_world() as world:
        _, line = world.open()
        await asyncio.sleep(DEADLINE - 0.1)
        assert line.ended is None
        await asyncio.sleep(0.2)
        assert isinstance(line.ended, NotAuthenticated)
        assert line.sent == []


@timeless
async def test_c1_other_messages_first_move_no_deadline() -> None:
    async with a_world() as world:
        session, line = world.open()
        for _ in range(3):
            await session.receive('{"type": "ping"}')
            await set_company(session, A)
            await session.receive("{")
            await asyncio.sleep(DEADLINE / 4)
        await asyncio.sleep(DEADLINE / 4 - 0.1)
        assert line.ended is None
        await asyncio.sleep(0.2)
        assert isinstance(line.ended, NotAuthenticated)
        assert line.types == ["Pong", "Error", "Error"] * 3


@timeless
async def test_c1_a_token_a_moment_before_the_deadline_is_in_time() -> None:
    async with a_world() as world:
        session, line = world.open()
        await asyncio.sleep(DEADLINE - 0.1)
        await authenticate(session)
        await asyncio.sleep(DEADLINE)
        assert line.ended is None
        assert line.types == ["AuthenticationResult"]


@timeless
async def test_c1_a_token_a_moment_after_the_deadline_is_ignored() -> None:
    async with a_world() as world:
        session, line = world.open()
        await asyncio.sleep(DEADLINE + 0.1)
        await authenticate(session)
        world.membership.members.add((A, "u"))
        await set_company(session, A)
        world.log.publish(A)
        assert isinstance(line.ended, NotAuthenticated)
        assert line.messages == []
        assert not session.live_subscriptions
        assert not world.admission._users


@timeless
async def test_c1_a_bad_token_at_the_deadline_prolongs_nothing() -> None:
    async with a_world() as world:
        session, line = world.open()
        await asyncio.sleep(DEADLINE - REFUSED_SECONDS / 2)
        with pytest.raises(BadToken):
            await session.receive('{"type": "authenticate", "token": "no token"}')
        assert isinstance(line.ended, NotAuthenticated)


# --- C2, C3: one answer, in one time


async def refusal(world: World, text: str) -> tuple[float, str]:
    """How long it took to refuse a token, and all that was sent."""
    loop = asyncio.get_running_loop()
    session, line = world.open()
    begun = loop.time()
    with pytest.raises((BadToken, Expired)) as refused:
        await session.receive(json.dumps({"type": "authenticate", "token": text}))
    sent = json.dumps([line.sent, refused.value.code, refused.value.reason])
    return round(loop.time() - begun, 6), sent


SAYABLE = {name: text for name, text in FORGED.items() if text.isprintable() and len(text) < 16_000}


@timeless
async def test_c2_every_forged_token_is_refused_in_the_same_words_and_time() -> None:
    async with a_world() as world:
        answers = set()
        by_key: dict[str, Tokens] = {
            "secret": tokens(),
            "key": tokens(public_key=pem(KEY)),
        }
        stolen = signed(claims(), {"alg": "HS256"}, key=pem(KEY))
        for parts in by_key.values():
            world.services.tokens = parts
            for text in (*SAYABLE.values(), stolen):
                answers.add(await refusal(world, text))
        ((seconds, sent),) = answers
        assert seconds == REFUSED_SECONDS
        assert "token_invalid" in sent
        assert "4401" in sent


@timeless
async def test_c3_every_wrong_claim_is_refused_in_the_same_words_and_time() -> None:
    async with a_world() as world:
        world.services.tokens = tokens()
        answers = set()
        for other in REFUSED.values():
            answers.add(await refusal(world, signed(claims(**other))))
        ((seconds, sent),) = answers
        assert seconds == REFUSED_SECONDS
        assert "4401" in sent
        expired = {
            await refusal(world, signed(claims(exp=exp))) for exp in (NOW - 10, 0, -(10**400))
        }
        ((seconds, sent),) = expired
        assert seconds == REFUSED_SECONDS
        assert "4419" in sent


# --- C6, C7: a token's end


@timeless
async def test_c6_nothing_is_sent_after_the_end_of_a_token_and_its_leeway() -> None:
    """Of a socket that follows, one in a replay, and one whose access is being checked."""
    async with a_world() as world:
        world.log.store(A, 500, pad=1000)
        world.log.deliver()
        live, replaying, doubted = [world.open() for _ in range(3)]
        world.membership.members = {(A, "u"), (A, "v"), (B, "v")}
        for (session, _), user in zip((live, replaying, doubted), "uuv", strict=True):
            await authenticate(session, user, ttl=20)
        await set_company(live[0], A)
        replaying[1].room.clear()
        replay = asyncio.create_task(set_company(replaying[0], A, 0))
        await set_company(doubted[0], B)
        await asyncio.sleep(1)
        world.membership.conclusive = False
        world.membership.open.clear()
        world.log.publish(B, revokes=("v",))
        await asyncio.sleep(20 + world.services.leeway - 2)
        world.log.publish(A)
        assert [line.ended for _, line in (live, replaying, doubted)] == [None] * 3
        await asyncio.sleep(2)
        sent = [len(line.sent) for _, line in (live, replaying, doubted)]
        world.log.publish(A)
        world.log.publish(B)
        replaying[1].room.set()
        world.membership.open.set()
        await replay
        await asyncio.sleep(60)
        for (_, line), before in zip((live, replaying, doubted), sent, strict=True):
            assert isinstance(line.ended, Expired)
            assert len(line.sent) == before


@timeless
async def test_c6_a_slow_reader_is_closed_within_the_time_that_a_close_may_take() -> None:
    """Under another server, where what was queued goes out text by text."""
    loop, sent = asyncio.get_running_loop(), 0

    async def send(_message: Any) -> None:
        nonlocal sent
        await asyncio.sleep(3)
        sent += 1

    wire = AsgiTransport(send, 1_000_000)
    for _ in range(1000):
        wire.write(b"", [b"{}"])
    running = asyncio.create_task(wire.run())
    await asyncio.sleep(4)
    assert sent == 1
    wire.end(Expired())
    await running
    assert sent <= 3
    assert loop.time() <= 4 + CLOSE_SECONDS + DRAIN_SECONDS


@timeless
async def test_c7_a_second_token_may_shorten_a_stay_and_a_bad_one_ends_it() -> None:
    async with a_world() as world:
        session, line = world.open()
        await authenticate(session, ttl=3600)
        await authenticate(session, ttl=20)
        await asyncio.sleep(20 + world.services.leeway + 1)
        assert isinstance(line.ended, Expired)
        for bad, closure in (
            ({"token": "x"}, BadToken),
            ({"token": token("u", ttl=-60)}, Expired),
        ):
            session, line = world.open()
            await authenticate(session)
            sent: dict[str, Any] = {"type": "authenticate", **bad}
            with pytest.raises(closure):
                await session.receive(json.dumps(sent))
            assert line.types == ["AuthenticationResult"] * 2
