"""The doorbell: how a writer wakes the sleeping relay.

While it sleeps, the relay holds the advisory lock DOORBELL_LOCK. A writer that cannot acquire it in shared mode sends
a NOTIFY (`sql/functions/capture.sql`, `store_change.sql`). Because NOTIFY serialises commits, the relay releases the
lock when it wakes up. docs/decisions/23-the-doorbell.md explains why no change is missed.
"""

from __future__ import annotations

import asyncio

import structlog

from notifier.database import sql
from notifier.database.connections import listener
from notifier.database.constants import DOORBELL_LOCK
from notifier.database.floods import Flood
from notifier.relay.leadership import Leadership

_log = structlog.get_logger("notifier.relay")


class Doorbell:
    """Takes and releases the lock, and receives the rings. For a minute after a flood of notifications it does neither."""

    def __init__(self, leadership: Leadership, flood: Flood) -> None:
        self._flood = flood
        self._listens = False
        self._connection = leadership.connection  # the session of `writer`, which holds the lock
        self._writer = leadership.writer
        self._rung = asyncio.Event()
        self._armed = False

    async def listen(self) -> None:
        """Receives rings from now on, unless a flood began less than a minute ago."""
        if not self._listens and not self._flood.is_on:
            async with self._writer.exclusive() as connection:  # the heartbeat may be using it
                await connection.add_listener(sql.channel("changes"), listener(self._ring))
            self._listens = True

    def _ring(self, _payload: str) -> None:
        self._rung.set()
        if self._flood.begins() and not self._connection.is_closed():
            _log.warning("too many notifications: this link does not listen", link="relay")
            self._connection.terminate()  # discards those that are on their way: answers come behind them

    async def arm(self) -> bool:
        """Makes writers ring from now on. Returns False while another session holds the lock, and after a flood.

        That is a writer; or any other session, as any role may hold an advisory lock.

        True means that no open transaction holds it. What was committed until then is visible to the next read, since
        a commit becomes visible before it releases its locks. A transaction that failed to get the lock rings with its commit.
        """
        await self.listen()
        if not self._listens:
            return False
        self._rung.clear()
        row = await self._writer.fetchrow(
            "SELECT pg_try_advisory_lock($1)", sql.lock(DOORBELL_LOCK)
        )
        self._armed = bool(row and row[0])
        return self._armed

    async def disarm(self) -> None:
        """Releases the lock, so that writers no longer ring. Does nothing where it is not held."""
        if self._armed:
            self._armed = False
            await self._writer.fetchrow("SELECT pg_advisory_unlock($1)", sql.lock(DOORBELL_LOCK))

    async def wait_for_ring(self, seconds: float) -> bool:
        """Waits for a ring. Returns False where none comes within `seconds`."""
        try:
            async with asyncio.timeout(seconds):
                return await self._rung.wait()
        except TimeoutError:
            return False
