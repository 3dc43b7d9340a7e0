"""Access is re-checked every minute, in pieces; sessions that cannot be checked are ended within 70 s."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from itertools import pairwise
from typing import Any, cast

import pytest

from notifier.access.membership import Membership
from notifier.access.tokens import Identity
from notifier.delivery.periodic_recheck import RECHECK_SECONDS, PeriodicRecheck
from notifier.delivery.subscription import Subscription
from notifier.errors import Closure, DatabaseError, NotReady
from tests.timeless import timeless


class Rows:
    """Membership that records when it was queried, and for whom."""

    follows_rows = may_change = True
    maps_users = False
    piece = 2

    def __init__(self) -> None:
        self.checks: list[tuple[float, str]] = []
        self.lost: set[str] = set()
        self.out: set[str] = set()
        """Users for whom the query fails."""
        self.hangs = False
        self.ages: list[float] = []
        self.accounts_out = False

    async def user_of(self, identity: Identity, max_age: float) -> str:
        self.ages.append(max_age)
        if self.accounts_out:
            raise DatabaseError("out of reach")
        return identity.user

    async def may_see(self, identity: Identity, company: str) -> bool:
        self.checks.append((asyncio.get_running_loop().time(), identity.user))
        if self.hangs:
            await asyncio.Event().wait()
        if identity.user in self.out:
            raise DatabaseError("out of reach")
        return identity.user not in self.lost


class Visitor:
    """A session and its only subscription."""

    company = "a"

    def __init__(self, user: str) -> None:
        self.user = user
        self.identity = Identity(user, 1e12, None)
        self.live = True
        self.checked = time.monotonic()
        self.ended_at: float | None = None
        self.closure: Closure | None = None

    @property
    def live_subscriptions(self) -> list[Subscription]:
        return [cast("Subscription", self)] if self.live else []

    def revoke(self) -> None:
        self.live = False

    def end(self, closure: Closure) -> None:
        self.closure = closure
        self.ended_at = time.monotonic()
        self.live = False


LIMIT = 70.0
"""Promise 4: what no trigger sees takes effect in this time, and so does a check that is impossible."""


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """The monotonic clock is that of the loop, whose time passes at once."""
    monkeypatch.setattr(time, "monotonic", lambda: asyncio.get_running_loop().time())


@pytest.fixture
def rows() -> Rows:
    return Rows()


@pytest.fixture
def visitors() -> list[Visitor]:
    return []


@pytest.fixture
def recheck(rows: Rows, visitors: list[Visitor]) -> PeriodicRecheck:
    return PeriodicRecheck(visitors, cast("Membership", rows))


def visit(visitors: list[Visitor], *users: str) -> list[Visitor]:
    new = [Visitor(user) for user in users]
    visitors += new
    return new


async def during(seconds: float, running: Callable[[], Coroutine[Any, Any, None]]) -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(seconds):
            await running()


@pytest.mark.parametrize("count", [1, 5, 200])
@timeless
async def test_each_user_of_a_company_is_checked_once_a_minute_in_pieces(
    recheck: PeriodicRecheck, rows: Rows, visitors: list[Visitor], count: int
) -> None:
    users = [f"u{number}" for number in range(count)]
    visit(visitors, *users, "u0", "u0")
    visit(visitors, "idle")[0].live = False
    await during(RECHECK_SECONDS * 10, recheck.run)
    assert {user for _, user in rows.checks} == set(users)
    for user in users[:: max(1, count // 5)]:
        times = [0.0, *(then for then, checked in rows.checks if checked == user)]
        gaps = [after - before for before, after in pairwise(times) if after != before]
        assert max(gaps) <= RECHECK_SECONDS
        assert min(gaps) >= RECHECK_SECONDS / 2
    steps = {then for then, _ in rows.checks}
    largest = max(len({user for at, user in rows.checks if at == then}) for then in steps)
    assert largest <= max(rows.piece, count / 3)


@pytest.mark.parametrize("token_decides", [False, True])
@timeless
async def test_sessions_that_rows_answer_alike_share_a_check(
    recheck: PeriodicRecheck, rows: Rows, visitors: list[Visitor], token_decides: bool
) -> None:
    """Tokens of one user may name different companies."""
    rows.follows_rows = not token_decides
    rows.maps_users = token_decides
    visit(visitors, *["u"] * 50)
    for number, visitor in enumerate(visitors):
        companies = frozenset("a") if number % 2 else frozenset("b")
        visitor.identity = Identity("u", 1e12, companies if token_decides else None)
    await during(RECHECK_SECONDS, recheck.run)
    assert len(rows.checks) == (2 if token_decides else 1)
    assert len({visitor.checked for visitor in visitors}) == 1
    rows.lost = {"u"}
    await during(LIMIT, recheck.run)
    assert not any(visitor.live for visitor in visitors)


@timeless
async def test_a_newer_token_of_one_session_does_not_decide_for_others(
    recheck: PeriodicRecheck, rows: Rows, visitors: list[Visitor]
) -> None:
    """It comes while the account is looked up, and names other companies."""
    rows.follows_rows, rows.maps_users = False, True
    renewed, other = visit(visitors, "u", "u")
    renewed.identity = other.identity = Identity("u", 1e12, frozenset("a"))

    async def user_of(identity: Identity, max_age: float) -> str:
        renewed.identity = Identity("u", 1e12, frozenset())
        return identity.user

    async def may_see(identity: Identity, company: str) -> bool:
        return company in (identity.companies or ())

    rows.user_of, rows.may_see = user_of, may_see  # type: ignore[method-assign]
    await during(RECHECK_SECONDS, recheck.run)
    assert other.live


@timeless
async def test_a_user_who_lost_the_company_is_revoked_within_70_seconds(
    recheck: PeriodicRecheck, rows: Rows, visitors: list[Visitor]
) -> None:
    (kept, lost) = visit(visitors, "kept", "lost")
    rows.lost = {"lost"}
    await during(LIMIT, recheck.run)
    assert not lost.live
    assert lost.closure is None
    assert kept.live


@timeless
async def test_cases_16_only_the_session_that_cannot_be_checked_is_ended_within_70_seconds(
    recheck: PeriodicRecheck, rows: Rows, visitors: list[Visitor]
) -> None:
    four = visit(visitors, "a", "b", "c", "d")
    (idle,) = visit(visitors, "idle")
    idle.live = False
    rows.piece = 1
    rows.out = {"b"}
    await during(RECHECK_SECONDS, recheck.run)
    assert all(visitor.live for visitor in four)
    await during(RECHECK_SECONDS * 10, recheck.run)
    assert [visitor.closure and visitor.closure.code for visitor in four] == [
        None, 4503, None, None,
    ]  # fmt: skip
    assert RECHECK_SECONDS < (four[1].ended_at or 0) <= LIMIT
    assert idle.closure is None


@pytest.mark.parametrize("late", range(0, 60, 7))
@timeless
async def test_cases_16_a_check_that_hangs_ends_every_session_within_70_seconds_of_its_last_check(
    recheck: PeriodicRecheck, rows: Rows, visitors: list[Visitor], late: int
) -> None:
    """Whenever in the round the database went away, and whenever the session came."""

    async def go_away() -> None:
        await asyncio.sleep(100 + late)
        rows.hangs = True

    going = asyncio.create_task(go_away())
    early = visit(visitors, *(f"u{number}" for number in range(20)))
    await during(RECHECK_SECONDS * 5, recheck.run)
    await going
    for visitor in early:
        assert visitor.closure is not None
        assert (visitor.ended_at or 0) - visitor.checked <= LIMIT


@timeless
async def test_a_check_that_succeeds_again_keeps_the_session(
    recheck: PeriodicRecheck, rows: Rows, visitors: list[Visitor]
) -> None:
    (visitor,) = visit(visitors, "a")

    async def flicker() -> None:
        for _ in range(10):
            rows.out = {"a"}
            await asyncio.sleep(RECHECK_SECONDS * 0.4)
            rows.out = set()
            await asyncio.sleep(RECHECK_SECONDS * 0.4)

    flickering = asyncio.create_task(flicker())
    await during(RECHECK_SECONDS * 8, recheck.run)
    await flickering
    assert visitor.closure is None


@timeless
async def test_accounts_are_looked_up_with_each_check(
    recheck: PeriodicRecheck, rows: Rows, visitors: list[Visitor]
) -> None:
    """Of tables that are not watched, no message comes."""
    rows.maps_users = True
    (visitor,) = visit(visitors, "a")
    await during(RECHECK_SECONDS, recheck.run)
    assert visitor.live
    assert rows.ages == [0]
    rows.accounts_out = True
    await during(LIMIT + RECHECK_SECONDS, recheck.run)
    assert not visitor.live
    assert isinstance(visitor.closure, NotReady)


@timeless
async def test_nothing_is_checked_where_only_tokens_decide(
    recheck: PeriodicRecheck, rows: Rows, visitors: list[Visitor]
) -> None:
    visit(visitors, "a")
    rows.may_change = False
    await recheck.run()
    assert rows.checks == []
