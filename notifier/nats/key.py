"""The key of the signatures, which nodes read from the database: only a publisher that has it is accepted.

It depends on the server and on a random value that no dump has: a copy of the database signs with another key.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress

import structlog

from notifier import metrics
from notifier.database import sql
from notifier.database.answers import typed
from notifier.database.connections import backoff
from notifier.database.query import Query
from notifier.errors import DatabaseError
from notifier.nats.payloads import Seal

RELOAD_SECONDS = 5.0
"""How often the key is read at most, whatever is received."""

CHECK_SECONDS = 60.0
"""How often the key is read at least: the database may have been restored, or the key replaced."""

_logger = structlog.get_logger("notifier.nats")


class Key:
    """Reads the key at first and whenever it may be another one. `seal` is None until then."""

    def __init__(self, query: Query) -> None:
        self._query = query
        self._stale = asyncio.Event()
        self._stale.set()
        self._rejected = 0
        self.seal: Seal | None = None

    def reload(self) -> None:
        """The key may have changed: the database was promoted, or a signature is wrong."""
        self._stale.set()

    def rejected(self) -> None:
        """A payload had a wrong signature: it is counted if the key, read again, is the one that this node had.

        PostgreSQL was restarted, promoted or restored otherwise, and the relay has the new key already.
        """
        self._rejected += 1
        self.reload()

    async def run(self) -> None:
        """Reads the key until it is cancelled."""
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(CHECK_SECONDS):
                    await self._stale.wait()
            self._stale.clear()
            started, attempt = time.monotonic(), 0
            while (problem := await self._load()) is not None:
                if not attempt:
                    _logger.warning("the key of the signatures cannot be read", error=problem)
                await backoff(attempt)
                attempt += 1
            await asyncio.sleep(max(0.0, started + RELOAD_SECONDS - time.monotonic()))

    async def _load(self) -> str | None:
        """Reads the key. Returns what is wrong where that fails."""
        try:
            keys = await self._query.read(
                lambda rows: typed(rows, tuple[bytes]), sql.query("signing_key")
            )
        except DatabaseError as error:
            return str(error)
        if not keys:
            return "it has no row; run: notifier migrate"
        former, self.seal = self.seal, Seal(keys[0][0])
        rejected, self._rejected = self._rejected, 0
        if self.seal == former:
            metrics.NATS_REJECTED.inc(rejected)
        return None
