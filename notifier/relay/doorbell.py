"""The doorbell: how a writer wakes the sleeping relay.

While it sleeps, the relay holds the advisory lock DOORBELL_LOCK. A writer that cannot acquire it in shared mode sends
a NOTIFY (`sql/functions/capture.sql`, `store_change.sql`). Because NOTIFY serialises commits, the relay releases the
lock when it wakes up. docs/decisions/23-the-doorbell.md explains why no change is missed.
"""

from __future__ import annotations

import asyncio

from notifier.database import sql
from notifier.database.connections import listener
from notifier.database.constants import DOORBELL_LOCK
from notifier.relay.leadership import Leadership


class Doorbell:
    """Takes and releases the lock, and receives the rings."""

    def __init__(self, leadership: Leadership) -> None:
        self._connection = leadership.connection  # the session of `writer`, which holds the lock
        self._writer = leadership.writer
        self._rung = asyncio.Event()
        self._armed = False

    async def listen(self) -> None:
        """Receives rings from now on."""
        await self._connection.add_listener(
            sql.channel("changes"), listener(lambda _payload: self._rung.set())
        )

    async def arm(self) -> bool:
        """Makes writers ring from now on. Returns False while another session holds the lock.

        That is a writer; or any other session, as any role may hold an advisory lock.

        True means that no open transaction holds it. What was committed until then is visible to the next read, since
        a commit becomes visible before it releases its locks. A transaction that failed to get the lock rings with its commit.
        """
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
