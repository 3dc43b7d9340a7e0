"""Access is re-checked every minute, in pieces; sessions that cannot be checked are ended at last."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, cast

import pytest

from notifier.access.membership import Membership
from notifier.access.tokens import Identity
from notifier.delivery.recheck import BLIND_SECONDS, RECHECK_SECONDS, Recheck
from notifier.delivery.subscription import Subscription
from notifier.errors import Closure, DatabaseError
from tests.timeless import timeless


class Rows:
    """Membership that records when it was queried, and for whom."""

    follows_rows = True
    piece = 2

    def __init__(self) -> None:
        self.checks: list[tuple[float, str]] = []
        self.lost: set[str] = set()
        self.out: set[str] = set()
        """Users for whom the query fails."""

    async def may(self, identity: Identity, company: str) -> bool:
        self.checks.append((asyncio.get_running_loop().time(), identity.user))
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
        self.closure: Closure | None = None

    @property
    def live_subscriptions(self) -> list[Subscription]:
        return [cast("Subscription", self)] if self.live else []

    def revoke(self) -> None:
        self.live = False

    def end(self, closure: Closure) -> None:
        self.closure = closure
        self.live = False


@pytest.fixture
def rows() -> Rows:
    return Rows()


@pytest.fixture
def visitors() -> list[Visitor]:
    return []


@pytest.fixture
def recheck(rows: Rows, visitors: list[Visitor]) -> Recheck:
    return Recheck(visitors, cast("Membership", rows))


def visit(visitors: list[Visitor], *users: str) -> list[Visitor]:
    new = [Visitor(user) for user in users]
    visitors += new
    return new


async def during(seconds: float, running: Callable[[], Coroutine[Any, Any, None]]) -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(seconds):
            await running()


@timeless
async def test_each_user_of_a_company_is_checked_once_a_minute_in_pieces(
    recheck: Recheck, rows: Rows, visitors: list[Visitor]
) -> None:
    visit(visitors, *(f"u{number}" for number in range(5)), "u1", "u1")
    visit(visitors, "idle")[0].live = False
    await during(RECHECK_SECONDS + 1, recheck.run)
    times = sorted({time for time, _ in rows.checks})
    assert times == pytest.approx([RECHECK_SECONDS / 3 * number for number in (1, 2, 3)])
    users = [user for _, user in rows.checks]
    assert set(users) == {f"u{number}" for number in range(5)}
    for time in times:  # sessions of one user are checked together
        assert len({user for then, user in rows.checks if then == time}) <= 2
    rows.checks.clear()
    visitors.clear()
    (late,) = visit(visitors, "late")
    rows.lost = {"late"}
    await during(RECHECK_SECONDS + 1, recheck.run)
    assert not late.live
    assert late.closure is None


@timeless
async def test_only_the_session_that_cannot_be_checked_for_two_minutes_is_ended(
    recheck: Recheck, rows: Rows, visitors: list[Visitor]
) -> None:
    four = visit(visitors, "a", "b", "c", "d")
    (idle,) = visit(visitors, "idle")
    idle.live = False
    await during(1, recheck.run)
    rows.piece = 1
    rows.out = {"b"}
    await during(BLIND_SECONDS - 1, recheck.run)
    assert all(visitor.live for visitor in four)
    await during(BLIND_SECONDS + RECHECK_SECONDS * 2, recheck.run)
    assert [visitor.closure and visitor.closure.code for visitor in four] == [
        None, 4503, None, None,
    ]  # fmt: skip
    assert idle.closure is None


@timeless
async def test_a_check_that_succeeds_starts_the_two_minutes_again(
    recheck: Recheck, rows: Rows, visitors: list[Visitor]
) -> None:
    (visitor,) = visit(visitors, "a")

    async def flicker() -> None:
        for _ in range(5):
            rows.out = {"a"}
            await asyncio.sleep(RECHECK_SECONDS * 1.5)
            rows.out = set()
            await asyncio.sleep(RECHECK_SECONDS)

    flickering = asyncio.create_task(flicker())
    await during(RECHECK_SECONDS * 12, recheck.run)
    await flickering
    assert visitor.closure is None
    assert len(rows.checks) == 11
