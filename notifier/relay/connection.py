"""The relay's writing connection, used for one call at a time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import asyncpg

from notifier.database.connections import DEADLINE_SECONDS, Connection


class RelayConnection:
    """Serialises the calls on the connection that holds the relay's lock.

    Whatever stores goes through it, so a relay that lost its lock cannot write.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._busy = asyncio.Lock()
        self.used_at = 0.0  # when the last call ended, by the monotonic clock

    async def fetchrow(
        self, query: str, *arguments: Any, seconds: float = DEADLINE_SECONDS
    ) -> asyncpg.Record | None:
        """The first row, within `seconds`. Raises the driver's exceptions."""
        async with self._busy:
            row = await self._connection.fetchrow(query, *arguments, timeout=seconds)
            self.used_at = time.monotonic()
            return row

    async def fetch(
        self, query: str, *arguments: Any, seconds: float = DEADLINE_SECONDS
    ) -> list[asyncpg.Record]:
        """All rows, within `seconds`. Raises the driver's exceptions."""
        async with self._busy:
            rows = await self._connection.fetch(query, *arguments, timeout=seconds)
            self.used_at = time.monotonic()
            return rows

    async def beat(self) -> None:
        """Lets the server answer, also where a statement of a transaction has failed and `Isolation` is about to roll it back."""
        async with self._busy:
            with suppress(asyncpg.InFailedSQLTransactionError):
                await self._connection.fetchrow("SELECT", timeout=DEADLINE_SECONDS)
            self.used_at = time.monotonic()

    @asynccontextmanager
    async def exclusive(self) -> AsyncIterator[Connection]:
        """The connection itself, with no call of others in between."""
        async with self._busy:
            yield self._connection

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[None]:
        """The calls in the block are one transaction, which may take long.

        Others may call in between, above all the heartbeat. After a failure the connection must be
        closed: the transaction is not rolled back here.
        """
        transaction = self._connection.transaction()
        async with self._busy:
            await transaction.start()
        yield
        async with self._busy:
            await transaction.commit()
