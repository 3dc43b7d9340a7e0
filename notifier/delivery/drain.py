"""The drain of a node: each client gets a Disconnect, and the closes are spread out."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from typing import Protocol

import structlog

from notifier.errors import Closure, Restart

CLOSES_PER_SECOND = 200
RETURN_MS = 2000
"""Clients are sent a random wait up to this, which spreads their reconnects like the closes."""

_logger = structlog.get_logger("notifier.drain")


class Session(Protocol):
    """A session that must end."""

    def end(self, closure: Closure) -> None:
        """Ends it for a reason that the client gets."""


async def drain(sessions: Sequence[Session], seconds: float) -> None:
    """Ends the sessions in random order, in at most `seconds`."""
    loop = asyncio.get_running_loop()
    shuffled = random.sample(sessions, len(sessions))
    seconds = min(seconds, len(shuffled) / CLOSES_PER_SECOND)
    _logger.info("shutting down", connections=len(shuffled), seconds=round(seconds, 1))
    begun = loop.time()
    for number, session in enumerate(shuffled):
        due = begun + seconds * number / len(shuffled)
        await asyncio.sleep(max(0.0, due - loop.time()))
        session.end(Restart(retry_after_ms=random.randrange(0, RETURN_MS)))
