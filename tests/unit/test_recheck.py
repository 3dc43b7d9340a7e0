"""Access is checked again every minute, a few at a time; who cannot be asked about is closed in the end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from types import SimpleNamespace
from typing import Any, cast

import pytest

from notifier.access.membership import Membership
from notifier.access.tokens import Identity
from notifier.delivery.session import Session
from notifier.errors import Closure, DatabaseError
from notifier.node import BLIND_SECONDS, RECHECK_SECONDS, Node
from notifier.settings import load
from tests.services import SECRET
from tests.timeless import timeless


class Rows:
    """Membership that writes down when it was asked about whom."""

    follows_rows = True
    piece = 2

    def __init__(self) -> None:
        self.asked: list[tuple[float, str]] = []
        self.lost: set[str] = set()
        self.out: set[str] = set()
        """Whoever cannot be asked about."""

    async def may(self, identity: Identity, company: str) -> bool:
        self.asked.append((asyncio.get_running_loop().time(), identity.user))
        if identity.user in self.out:
            raise DatabaseError("nobody there")
        return identity.user not in self.lost


class Visitor:
    """A session that follows a company."""

    def __init__(self, user: str) -> None:
        self.identity = Identity(user, 1e12, None)
        self.channel = SimpleNamespace(company="a")
        self.follows = True
        self.closure: Closure | None = None

    @property
    def following(self) -> tuple[Identity, Any] | None:
        return (self.identity, self.channel) if self.follows else None

    def revoke(self, channel: object) -> None:
        assert channel is self.channel
        self.follows = False

    def end(self, closure: Closure) -> None:
        self.closure = closure
        self.follows = False


@pytest.fixture
def node() -> tuple[Node, Rows]:
    made, rows = Node(load({}, database_url="postgresql://nowhere", jwt_secret=SECRET)), Rows()
    made.membership = cast("Membership", rows)
    return made, rows


def visit(node: Node, *users: str) -> list[Visitor]:
    visitors = [Visitor(user) for user in users]
    node.admission.connections |= {cast("Session", visitor) for visitor in visitors}
    return visitors


async def during(seconds: float, running: Callable[[], Coroutine[Any, Any, None]]) -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(seconds):
            await running()


@timeless
async def test_everybody_is_asked_about_once_a_minute_a_few_at_a_time(
    node: tuple[Node, Rows],
) -> None:
    running, rows = node
    visit(running, *(f"u{number}" for number in range(5)), "u1", "u1")
    visit(running, "idle")[0].follows = False
    await during(RECHECK_SECONDS + 1, running._recheck)
    times = sorted({time for time, _ in rows.asked})
    assert times == pytest.approx([RECHECK_SECONDS / 3 * number for number in (1, 2, 3)])
    users = [user for _, user in rows.asked]
    assert set(users) == {f"u{number}" for number in range(5)}
    for time in times:  # sockets of one user share a question
        assert len({user for then, user in rows.asked if then == time}) <= 2
    rows.asked.clear()
    running.admission.connections.clear()
    (late,) = visit(running, "late")
    rows.lost = {"late"}
    await during(RECHECK_SECONDS + 1, running._recheck)
    assert not late.follows
    assert late.closure is None


@timeless
async def test_who_cannot_be_asked_about_for_two_minutes_is_closed_and_nobody_else(
    node: tuple[Node, Rows],
) -> None:
    running, rows = node
    visitors = visit(running, "a", "b", "c", "d")
    (idle,) = visit(running, "idle")
    idle.follows = False
    await during(1, running._recheck)
    rows.piece = 1
    rows.out = {"b"}
    await during(BLIND_SECONDS - 1, running._recheck)
    assert all(visitor.follows for visitor in visitors)
    await during(BLIND_SECONDS + RECHECK_SECONDS * 2, running._recheck)
    assert [visitor.closure and visitor.closure.code for visitor in visitors] == [
        None, 4503, None, None,
    ]  # fmt: skip
    assert idle.closure is None


@timeless
async def test_a_question_that_is_answered_again_begins_the_two_minutes_anew(
    node: tuple[Node, Rows],
) -> None:
    running, rows = node
    (visitor,) = visit(running, "a")

    async def now_and_then() -> None:
        for _ in range(5):
            rows.out = {"a"}
            await asyncio.sleep(RECHECK_SECONDS * 1.5)
            rows.out = set()
            await asyncio.sleep(RECHECK_SECONDS)

    flickering = asyncio.create_task(now_and_then())
    await during(RECHECK_SECONDS * 12, running._recheck)
    await flickering
    assert visitor.closure is None
    assert len(rows.asked) == 11
