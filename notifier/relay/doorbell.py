"""The doorbell: how a writer wakes the sleeping relay.

The sleeping relay holds the advisory lock DOORBELL_LOCK. A writer that cannot share the lock sends a NOTIFY
(`sql/functions/capture.sql`). NOTIFY serialises commits, so no writer sends one while the relay is awake.
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
        self._connection = leadership.connection
        self._writer = leadership.writer
        self._rung = asyncio.Event()
        self._armed = False

    async def listen(self) -> None:
        """Receives rings from now on."""
        await self._connection.add_listener(
            sql.channel("changes"), listener(lambda _payload: self._rung.set())
        )

    async def arm(self) -> bool:
        """Makes writers ring from now on. Returns False while the open transaction of a writer has the lock.

        When it returns True, every writer that will not ring has ended, so one more read finds its changes.
        """
        self._rung.clear()
        row = await self._writer.fetchrow(
            "SELECT pg_try_advisory_lock($1)", sql.lock(DOORBELL_LOCK)
        )
        self._armed = bool(row and row[0])
        return self._armed

    async def disarm(self) -> None:
        """Releases the lock: writers ring no longer. Does nothing where it is not held."""
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
