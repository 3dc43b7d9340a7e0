"""The key of the signatures, which nodes read from the database: only a publisher that has it is accepted.

It depends on the server and on a random value that no dump has: a copy of the database signs with another key.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress

from notifier.database import sql
from notifier.database.connections import backoff
from notifier.database.query import Query
from notifier.errors import DatabaseError
from notifier.nats.payloads import Seal

RELOAD_SECONDS = 5.0
"""How often the key is read at most, whatever is received."""

CHECK_SECONDS = 60.0
"""How often the key is read at least: the database may have been restored, or the key replaced."""


class Key:
    """Reads the key at first and whenever it may be another one. `seal` is None until then."""

    def __init__(self, query: Query) -> None:
        self._query = query
        self._stale = asyncio.Event()
        self._stale.set()
        self.seal: Seal | None = None

    def reload(self) -> None:
        """The key may have changed: the database was promoted, or a signature is wrong."""
        self._stale.set()

    async def run(self) -> None:
        """Reads the key until it is cancelled."""
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(CHECK_SECONDS):
                    await self._stale.wait()
            self._stale.clear()
            started, attempt = time.monotonic(), 0
            while not await self._load():
                await backoff(attempt)
                attempt += 1
            await asyncio.sleep(max(0.0, started + RELOAD_SECONDS - time.monotonic()))

    async def _load(self) -> bool:
        try:
            ((key,),) = await self._query.fetch(sql.query("signing_key"))
        except (DatabaseError, ValueError):  # or the row is not there yet: `migrate` makes it
            return False
        self.seal = Seal(key)
        return True
