"""Election: the node that holds the relay's advisory lock is the only one that relays."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import asyncpg

from notifier.database import sql
from notifier.database.connections import DEADLINE_SECONDS, Connection, connected
from notifier.errors import Unreachable
from notifier.relay.connection import RelayConnection

ELECTION_SECONDS = 2.0
"""How often a standby tries to become the relay."""

RETRY_SECONDS = 0.1
"""The wait after a hanging relay was terminated, or the lock's key replaced."""


class Leadership:
    """The two connections of the node that relays.

    `writer` holds the lock and stores. `reader` reads the next changes meanwhile.
    """

    def __init__(self, writer: Connection, reader: Connection) -> None:
        self.connection = writer
        self.writer = RelayConnection(writer)
        self.reader = reader
        self._ended = asyncio.Event()
        for connection in (writer, reader):
            connection.add_termination_listener(lambda _: self._ended.set())

    async def wait_or_fail(self, seconds: float) -> None:
        """Sleeps, but raises Unreachable as soon as one of the connections closes."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._ended.wait()
                raise Unreachable("the database closed the relay's connection")


@asynccontextmanager
async def lead(url: str) -> AsyncIterator[Leadership]:
    """Waits until this node is elected; it leads while the block runs."""
    # A message that was delivered must survive a crash, whatever the database's default.
    async with connected(url, "relay", synchronous_commit="on") as writer:
        with suppress(asyncpg.PostgresError):  # some operating systems do not support it
            # A backend that waits for a table lock must notice that its client is gone: it holds the
            # relay's lock.
            await writer.execute("SET client_connection_check_interval = '2s'")
        await _elected(writer)
        async with connected(
            url,
            "relay reader",
            enable_seqscan="off",
            enable_bitmapscan="off",
            plan_cache_mode="force_generic_plan",
            statement_timeout="0",
        ) as reader:
            await _read_any_encoding(reader)
            yield Leadership(writer, reader)


async def _elected(writer: Connection) -> None:
    while True:
        result = await writer.fetchval(
            sql.adapt("SELECT notifier.elect()"), timeout=DEADLINE_SECONDS
        )
        if result == "elected":
            return
        await asyncio.sleep(RETRY_SECONDS if result == "retry" else ELECTION_SECONDS)


async def _read_any_encoding(reader: Connection) -> None:
    """In a SQL_ASCII database text may be bytes of any encoding: invalid ones are replaced."""
    if reader.get_settings().server_encoding == "SQL_ASCII":
        await reader.execute("SET client_encoding = 'SQL_ASCII'")
        await reader.set_type_codec(
            "text",
            schema="pg_catalog",
            encoder=str.encode,
            decoder=lambda text: bytes(text).decode(errors="replace"),
            format="binary",
        )
