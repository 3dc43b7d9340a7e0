"""The periodic re-check of access: detects revocations that no message announces."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Collection, Sequence
from math import ceil
from typing import Protocol, TypeAlias

import structlog

from notifier.access.membership import Membership
from notifier.access.operator_query import Pair
from notifier.access.tokens import Identity
from notifier.delivery.subscription import Subscription
from notifier.errors import Closure, DatabaseError, NotReady

RECHECK_SECONDS = 60.0
"""A live subscription is checked again in the second half of this time after its last check."""

STEPS = 12
"""The steps in RECHECK_SECONDS: in each of them some of the subscriptions are checked."""

BLIND_SECONDS = 63.0
"""After this time without a successful check a session is ended, at most a step late: before 70 s."""

SLICE = 50
"""Sessions that are looked at before other tasks get a turn; each may have a hundred subscriptions."""

Live: TypeAlias = "tuple[Session, Subscription]"

_logger = structlog.get_logger("notifier.recheck")


class Session(Protocol):
    """A session, as far as its access is concerned."""

    @property
    def identity(self) -> Identity:
        """The authenticated user."""

    @property
    def live_subscriptions(self) -> Sequence[Subscription]:
        """The subscriptions that get messages now."""

    def end(self, closure: Closure) -> None:
        """Ends the session."""


class PeriodicRecheck:
    """Checks every live subscription once in RECHECK_SECONDS.

    Sessions of one user in one company share a check. The oldest checks are repeated first, a part of
    them in each step, and in pieces: other queries get their turns in between.
    """

    def __init__(self, sessions: Collection[Session], membership: Membership) -> None:
        self._sessions = sessions
        self._membership = membership
        self._tried: dict[Pair, float] = {}  # when each was last checked, or could not be

    async def run(self) -> None:
        """Runs for ever; returns at once where only tokens decide."""
        if not self._membership.may_change:
            return
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._check_steps())
            tasks.create_task(self._end_unchecked())  # also while a check hangs

    async def _check_steps(self) -> None:
        while True:
            await asyncio.sleep(RECHECK_SECONDS / STEPS)
            if failures := await self._step():
                _logger.warning("access could not be checked", error=str(failures[-1]))

    async def _step(self) -> list[DatabaseError]:
        """Checks the pairs that are due, oldest first. Returns the failures, which stop no other check."""
        now = time.monotonic()
        total, last_checked = await self._due(now - RECHECK_SECONDS / 2)
        # By the last attempt: a pair whose check fails must not delay the others.
        self._tried = {
            pair: max(at, self._tried.get(pair, 0.0)) for pair, at in last_checked.items()
        }
        size = self._membership.piece
        count = max(size, ceil(total * 3 / STEPS))  # all of them in a third of the time
        due = sorted(last_checked, key=self._tried.__getitem__)[:count]
        subscriptions = await self._subscriptions_of(due)
        failures: list[DatabaseError] = []
        for start in range(0, len(due), size):
            piece = due[start : start + size]
            self._tried |= dict.fromkeys(piece, now)
            live = [each for pair in piece for each in subscriptions[pair] if each[1].live]
            failures += await self._check(live)
        return failures

    async def _due(self, latest: float) -> tuple[int, dict[Pair, float]]:
        """The number of live subscriptions, and the pairs last checked before `latest`, with that time."""
        total, last_checked = 0, dict[Pair, float]()
        async for session in self._each_session():
            for subscription in session.live_subscriptions:
                total += 1
                if (checked := subscription.checked) <= latest:
                    pair = (subscription.company, subscription.user)
                    last_checked[pair] = min(checked, last_checked.get(pair, checked))
        return total, last_checked

    async def _subscriptions_of(self, pairs: Sequence[Pair]) -> dict[Pair, list[Live]]:
        found: dict[Pair, list[Live]] = {pair: [] for pair in pairs}
        async for session in self._each_session():
            for subscription in session.live_subscriptions:
                pair = (subscription.company, subscription.user)
                if (live := found.get(pair)) is not None:
                    live.append((session, subscription))
        return found

    async def _check(self, live: Sequence[Live]) -> list[DatabaseError]:
        """Revokes the subscriptions of users who may not see the company; returns the failures."""
        begun = time.monotonic()
        alike: dict[tuple[Identity | str, str], list[Live]] = {}
        for session, subscription in live:
            user = session.identity.user if self._membership.follows_rows else session.identity
            alike.setdefault((user, subscription.company), []).append((session, subscription))
        checks = [
            self._may_see(group[0][0].identity, company) for (_, company), group in alike.items()
        ]
        answers = await asyncio.gather(*checks, return_exceptions=True)
        failures: list[DatabaseError] = []
        for group, allowed in zip(alike.values(), answers, strict=True):
            if isinstance(allowed, DatabaseError):
                failures.append(allowed)
            elif isinstance(allowed, BaseException):
                raise allowed
            else:
                for _, subscription in group:
                    if allowed:
                        subscription.checked = max(begun, subscription.checked)
                    elif subscription.live:
                        subscription.revoke()
        return failures

    async def _may_see(self, identity: Identity, company: str) -> bool:
        """By the token that all sessions of a group had: that of one may be renewed meanwhile."""
        if self._membership.maps_users:
            await self._membership.user_of(identity, max_age=0)
        return await self._membership.may_see(identity, company)

    async def _end_unchecked(self) -> None:
        while True:
            await asyncio.sleep(RECHECK_SECONDS / STEPS)
            latest = time.monotonic() - BLIND_SECONDS
            async for session in self._each_session():
                for subscription in session.live_subscriptions:
                    if subscription.checked < latest:
                        session.end(NotReady())
                        break

    async def _each_session(self) -> AsyncIterator[Session]:
        """All sessions; other tasks get a turn after every few."""
        for number, session in enumerate(list(self._sessions)):
            if number % SLICE == SLICE - 1:
                await asyncio.sleep(0)
            yield session
