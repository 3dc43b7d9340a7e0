"""Election: the node that holds the relay's advisory lock is the only one that relays."""

from __future__ import annotations

import asyncio
import codecs
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

import asyncpg

from notifier.database import sql
from notifier.database.connections import DEADLINE_SECONDS, Connection, connected
from notifier.errors import Misplaced, Unreachable
from notifier.relay.connection import RelayConnection

ELECTION_SECONDS = 2.0
"""How often a standby tries to become the relay."""

RETRY_SECONDS = 0.1
"""The wait after a hanging relay was terminated, or the lock's key replaced."""

FROZEN_MILLISECONDS = "12000"
"""After which PostgreSQL ends the session of a relay that sends nothing: `elect` cannot terminate it with `track_activities = off`, nor as
another role."""

CURSOR_MILLISECONDS = "120000"
"""How long the reader's cursor on a large transaction may wait for a chunk of messages to be netted and stored. Where this node is
frozen, the tables of changes stay locked as long."""

UNREADABLE = (
    UnicodeDecodeError,
    asyncpg.UntranslatableCharacterError,
    asyncpg.CharacterNotInRepertoireError,
)
"""Errors of text that the reader does not take unless `any_text` is demanded."""

WITHOUT_CODEC = ("EUC_TW", "MULE_INTERNAL")
"""Encodings that Python does not know."""


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
async def lead(url: str, *, any_text: bool = False) -> AsyncIterator[Leadership]:
    """Waits until this node is elected; it leads while the block runs. `any_text`: see `_read_any_text`."""
    # A message that was delivered must survive a crash, whatever the database's default.
    async with connected(
        url, "relay", synchronous_commit="on", idle_session_timeout=FROZEN_MILLISECONDS
    ) as writer:
        with suppress(asyncpg.PostgresError):  # some operating systems do not support it
            # A backend that waits for a table lock must notice that its client is gone: it holds the
            # relay's lock.
            await writer.execute("SET client_connection_check_interval = '2s'")
        await _elected(writer)
        async with (
            _beating(writer) as stop,
            connected(
                url,
                "relay reader",
                enable_seqscan="off",
                enable_bitmapscan="off",
                plan_cache_mode="force_generic_plan",
                idle_in_transaction_session_timeout=CURSOR_MILLISECONDS,
                statement_timeout="0",
            ) as reader,
        ):
            await stop()
            await _require_one_server(writer, reader)
            await _read_any_text(reader, demanded=any_text)
            yield Leadership(writer, reader)


@asynccontextmanager
async def _beating(writer: Connection) -> AsyncIterator[Callable[[], Awaitable[None]]]:
    """Uses the connection every few seconds until the function that it yields is called.

    The first of several hosts may not answer, so that the next connection takes long: another node would terminate this one
    as one that hangs.
    """
    stopping = asyncio.Event()

    async def beat() -> None:
        while not stopping.is_set():
            with suppress(TimeoutError):
                async with asyncio.timeout(ELECTION_SECONDS):
                    await stopping.wait()
                    return
            await writer.execute("SELECT", timeout=DEADLINE_SECONDS)

    beating = asyncio.create_task(beat())

    async def stop() -> None:
        stopping.set()
        await beating

    try:
        yield stop
    finally:
        stopping.set()
        beating.cancel()
        await asyncio.gather(beating, return_exceptions=True)


async def _elected(writer: Connection) -> None:
    while True:
        result = await writer.fetchval(
            sql.adapt("SELECT notifier.elect()"), timeout=DEADLINE_SECONDS
        )
        if result == "elected":
            return
        await asyncio.sleep(RETRY_SECONDS if result == "retry" else ELECTION_SECONDS)


async def _require_one_server(writer: Connection, reader: Connection) -> None:
    """Raises Misplaced unless the reader's server is the one on which the writer holds the lock.

    Several hosts, and a proxy, may lead to another one: its changes would be stored here, and its snapshots as the cursor.
    """
    # Not the number that the driver knows: a pooler has its own.
    pid = await writer.fetchval("SELECT pg_backend_pid()")
    holds = sql.adapt(
        "SELECT EXISTS (SELECT FROM notifier.log, notifier.relay_holders(log.relay_lock) AS h WHERE h.pid = $1)"
    )
    if not await reader.fetchval(holds, pid):
        raise Misplaced(
            "two connections of the relay lead to different servers: name one primary in the URL"
        )


async def _read_any_text(reader: Connection, *, demanded: bool) -> None:
    """Lets the reader accept bytes that are not valid in the database's encoding, and characters without an equivalent in UTF-8.

    A SQL_ASCII database does not validate any text. Others do not validate the settings of a session that come with its
    connection, and encodings such as WIN1252 have codes without an equivalent: there it is `demanded` after a read has
    failed. In settings and names, what cannot be decoded is replaced. In the image of a row it becomes invalid JSON, so
    that the relay sends the row by its keys.
    """
    encoding = reader.get_settings().server_encoding
    if encoding in WITHOUT_CODEC or not (demanded or encoding == "SQL_ASCII"):
        return
    await reader.execute(f"SET client_encoding = '{encoding}'")
    is_utf8 = encoding in ("SQL_ASCII", "UTF8")
    codec = codecs.lookup("utf-8") if is_utf8 else reader.get_settings().get_text_codec()
    errors = "replace" if is_utf8 else "backslashreplace"  # U+FFFD could not be stored
    await reader.set_type_codec(
        "text",
        schema="pg_catalog",
        encoder=lambda text: codec.encode(text)[0],
        decoder=lambda text: codec.decode(bytes(text), errors)[0],
        format="binary",
    )
    if not is_utf8:
        await reader.set_type_codec(
            "json",
            schema="pg_catalog",
            encoder=bytes,
            decoder=lambda image: codec.decode(bytes(image), errors)[0].encode(),
            format="binary",
        )
