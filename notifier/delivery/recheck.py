"""The periodic re-check of access, for what no message announces: a query's answer that changed."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence
from typing import Protocol

import structlog

from notifier.access.membership import Membership, Pair
from notifier.access.tokens import Identity
from notifier.delivery.subscription import Subscription
from notifier.errors import Closure, DatabaseError, NotReady

RECHECK_SECONDS = 60.0
BLIND_SECONDS = 120.0
"""A session whose access could not be checked for so long is ended."""

_logger = structlog.get_logger("notifier.recheck")


class Session(Protocol):
    """A session, as far as its access is concerned."""

    @property
    def identity(self) -> Identity:
        """Who has authenticated."""

    @property
    def live_subscriptions(self) -> Sequence[Subscription]:
        """The subscriptions that get messages now."""

    def end(self, closure: Closure) -> None:
        """Ends the session."""


class Recheck:
    """Checks every live subscription once in RECHECK_SECONDS.

    Each pair of company and user is checked once, in pieces that are spread over that time, so
    other queries get their turns in between. `sessions` is looked at again for every round.
    """

    def __init__(self, sessions: Collection[Session], membership: Membership) -> None:
        self._sessions = sessions
        self._membership = membership
        self._checked: dict[Subscription, float] = {}

    async def run(self) -> None:
        """Runs for ever; returns at once where only tokens decide."""
        while self._membership.follows_rows:
            await self._round()

    async def _round(self) -> None:
        loop, size = asyncio.get_running_loop(), self._membership.piece
        begun = loop.time()
        pairs: dict[Pair, list[tuple[Session, Subscription]]] = {}
        for session in self._sessions:
            for subscription in session.live_subscriptions:
                pair = (subscription.company, subscription.user)
                pairs.setdefault(pair, []).append((session, subscription))
        live = [each for same in pairs.values() for each in same]
        self._checked = {each: self._checked.get(each, begun) for _, each in live}
        keys = list(pairs)
        pieces = [keys[start : start + size] for start in range(0, len(keys), size)] or [[]]
        for number, piece in enumerate(pieces, 1):
            due = begun + RECHECK_SECONDS * number / len(pieces)
            await asyncio.sleep(max(0.0, due - loop.time()))
            now = loop.time()
            checked = [each for pair in piece for each in pairs[pair] if each[1].live]
            try:
                await self._check(checked)
            except DatabaseError as error:
                _logger.warning("access could not be checked", error=str(error))
                self._end_unchecked(live, now)
            else:
                self._checked |= {subscription: now for _, subscription in checked}

    async def _check(self, live: Sequence[tuple[Session, Subscription]]) -> None:
        """Revokes the subscriptions of users who may not see the company. Raises DatabaseError."""
        answers = await asyncio.gather(
            *(self._membership.may(session.identity, each.company) for session, each in live)
        )
        for (_, subscription), allowed in zip(live, answers, strict=True):
            if not allowed and subscription.live:
                subscription.revoke()

    def _end_unchecked(self, live: Sequence[tuple[Session, Subscription]], now: float) -> None:
        for session, subscription in live:
            if now - self._checked[subscription] > BLIND_SECONDS and subscription.live:
                session.end(NotReady())
