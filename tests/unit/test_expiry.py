"""The timer of a session: the deadline for authentication, the end of a token, and the clock."""

from __future__ import annotations

import asyncio
import time

import pytest

from notifier.access.tokens import Tokens
from notifier.delivery import expiry
from notifier.delivery.session import Session, Stage
from notifier.errors import (
    Expired,
    NotAuthenticated,
)
from notifier.messages import timestamp
from tests.services import SECRET
from tests.timeless import timeless
from tests.unit.worlds import World, authenticate, settle


@pytest.fixture
def shifted(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """On a timeless loop the clock goes with it, and goes wrong by the sum of these seconds."""
    began, wrong = float(int(time.time())), list[float]()
    monkeypatch.setattr(
        time, "time", lambda: began + asyncio.get_running_loop().time() + sum(wrong)
    )
    return wrong


def due(session: Session) -> float:
    """In how many seconds the timer fires."""
    return session._expiry._timer.when() - asyncio.get_running_loop().time()


# --- tokens


@pytest.mark.parametrize(("life", "warned"), [(3600, 3540), (100, 40), (50, 40), (10, 8)])
@timeless
async def test_a_client_is_warned_a_minute_ahead_or_at_four_fifths_of_a_short_life(
    shifted: list[float], life: float, warned: float
) -> None:
    session, _ = World().open()
    await authenticate(session, ttl=life)
    assert due(session) == pytest.approx(warned)


# --- the clock


@timeless
async def test_c15_a_clock_that_is_set_moves_the_end_of_a_token(shifted: list[float]) -> None:
    session, line = await World().enter(company=None)
    shifted.append(3600 - 30)
    session.clock_was_set()
    await asyncio.sleep(0)
    assert line.ended is None
    shifted.append(30 + 5)
    session.clock_was_set()
    await settle()
    assert line.types[-1] == "TokenExpiring"
    assert line.ended is None  # the leeway
    assert due(session) == pytest.approx(5)
    session._expiry._timer.cancel()
    session._expiry._expire()
    assert line.ended is None
    assert due(session) == pytest.approx(5)
    shifted.append(6)
    session._expiry._expire()
    assert isinstance(line.ended, Expired)


async def test_c15_a_clock_that_is_set_back_gives_a_token_its_time(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = time.time
    session, line = await world.enter(company=None)
    monkeypatch.setattr(time, "time", lambda: now() - 3600)
    session._expiry._expire()
    session.clock_was_set()
    await settle()
    assert line.ended is None
    assert line.types == ["AuthenticationResult"]


async def test_a_session_that_has_ended_sets_no_timer(world: World) -> None:
    session, _ = await world.enter(company=None)
    session.closed()
    before = session._expiry._timer
    session.clock_was_set()
    session._expiry.renew(time.time() + 3600)
    assert session._expiry._timer is before
    assert before.cancelled()


async def test_a_session_that_has_ended_sends_no_warning(world: World) -> None:
    session, line = world.open()
    session.clock_was_set()
    assert line.types == []
    await authenticate(session, ttl=1)
    session.closed()
    session.clock_was_set()
    session._expiry._warn()
    await settle()
    assert line.types == ["AuthenticationResult"]
    assert line.ended is None


async def test_a_life_of_years_is_waited_for_in_pieces(world: World) -> None:
    session, line = world.open()
    await authenticate(session, ttl=10**10)
    session._expiry._timer.cancel()
    session._expiry._wait(expiry.LONGEST_TIMER * 2)
    left = session._expiry._timer.when() - asyncio.get_running_loop().time()
    assert 0 < left <= expiry.LONGEST_TIMER
    assert line.types == ["AuthenticationResult"]


@timeless
async def test_a_session_that_does_not_authenticate_is_ended_at_the_deadline() -> None:
    world = World()
    session, line = world.open()
    await asyncio.sleep(world.services.auth_timeout - 0.1)
    assert line.ended is None
    await asyncio.sleep(0.2)
    assert isinstance(line.ended, NotAuthenticated)
    assert session.stage is Stage.ENDED


@pytest.mark.parametrize(
    ("life", "warned"), [(3 * 24 * 3600.0, 3 * 24 * 3600.0 - 60), (61, 1), (60, 48), (5, 4)]
)
@timeless
async def test_a_token_is_good_until_it_expires_after_a_warning(
    shifted: list[float], life: float, warned: float
) -> None:
    world, ends = World(), timestamp(time.time() + life)
    session, line = world.open()
    await authenticate(session, ttl=life)
    await asyncio.sleep(warned - 0.1)
    assert line.types == ["AuthenticationResult"]
    await asyncio.sleep(0.2)
    assert line.sent[1:] == [{"Type": "TokenExpiring", "Data": {"ExpiresAt": ends}}]
    await asyncio.sleep(life - warned + world.services.leeway - 0.2)
    assert line.ended is None
    await asyncio.sleep(0.2)
    assert isinstance(line.ended, Expired)
    assert len(line.sent) == 2


@timeless
async def test_a_token_that_is_only_within_its_leeway_is_warned_of_and_expires(
    shifted: list[float],
) -> None:
    world = World()
    world.services.tokens = Tokens(secret=SECRET, clock=time.time)
    session, line = world.open()
    await authenticate(session, ttl=-9.5)
    await asyncio.sleep(0.4)
    assert line.types == ["AuthenticationResult", "TokenExpiring"]
    assert line.ended is None
    await asyncio.sleep(0.2)
    assert isinstance(line.ended, Expired)


@timeless
async def test_a_clock_that_is_wrong_at_the_end_is_read_once_a_minute(
    shifted: list[float],
) -> None:
    world = World()
    session, line = world.open()
    await authenticate(session, ttl=100)
    await asyncio.sleep(50)
    shifted.append(-0.5)
    await asyncio.sleep(60.1)
    assert line.ended is None  # half a second is left
    shifted.append(-1000)
    await asyncio.sleep(1)
    assert line.ended is None
    shifted.append(1000)
    await asyncio.sleep(59.6)
    assert isinstance(line.ended, Expired)
