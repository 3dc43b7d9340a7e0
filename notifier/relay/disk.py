"""Limits the log's disk usage: rotates the tables of changes, prunes messages, reopens a full log."""

from __future__ import annotations

from typing import NamedTuple

from notifier.database import sql
from notifier.database.constants import FULL_MARK, TABLE_BIT
from notifier.errors import LogAltered, SchemaMissing
from notifier.relay.connection import RelayConnection
from notifier.relay.store import LONG_SECONDS, NO_PARTITION, REPLACED, SLOTS, RelayStore

REOPENING = 1 << 62
"""In `Checkpoint.unsettled`: recovery from a full log has begun, and is repeated until it is complete."""


class Usage(NamedTuple):
    """The room that the log takes.

    `bytes`: of changes and messages together. `last_id`: of the last change. `tables`: bytes of both tables
    of changes. `slot_…`: of the slot that messages are stored in: its bytes, whether it holds any, and its age.
    `altered`: the row of `notifier.log` is not the version that this relay wrote, or there are messages of a former epoch.
    `last_seq`: of the last message, which this relay has stored unless others have added some.
    """

    bytes: int
    limit: int
    last_id: int
    tables: tuple[int, int]
    slot_bytes: int
    slot_used: bool
    slot_seconds: float
    altered: bool
    last_seq: int

    @property
    def is_full(self) -> bool:
        """Whether capture has stopped storing."""
        return self.last_id >= FULL_MARK


class Disk:
    """Room for changes and messages. Raises the driver's exceptions."""

    def __init__(self, writer: RelayConnection, store: RelayStore) -> None:
        self._writer = writer
        self._store = store

    async def usage(self) -> Usage:
        """The room that the log takes now. Raises SchemaMissing where there is no log any more, LogAltered where it is another one.

        A log that `uninstall` and `migrate` made again has another lock: this relay must not go on without it.
        """
        row = await self._writer.fetchrow(sql.query("log_usage"))
        if row is None:
            raise SchemaMissing("the log is empty; run: notifier migrate")
        if row["epoch"] != self._store.checkpoint.epoch:
            raise LogAltered(REPLACED)
        if row["slots"] != SLOTS:
            raise SchemaMissing(NO_PARTITION)
        return Usage(
            bytes=row["bytes"],
            limit=row["limit"],
            last_id=row["last_id"],
            tables=(row["zero"], row["one"]),
            slot_bytes=row["slot_bytes"],
            slot_used=row["slot_used"],
            slot_seconds=row["slot_seconds"],
            altered=row["altered"],
            last_seq=row["last_seq"],
        )

    async def reopen(self) -> int | None:
        """Empties each table of changes that no transaction writes to, and lets capture store again.

        Transactions that are in flight may have dropped changes: all of them are before the returned
        transaction id. None: there are none.
        """
        await self._writer.fetchrow(sql.adapt("SELECT notifier.reopen()"))
        # Not from a snapshot alone: it does not list transactions that began after the last one that has ended.
        later = await self._store.transaction_id()
        return None if await self.all_ended_before(later) else later

    async def running_before(self, xid: int) -> frozenset[int]:
        """The transactions before `xid` that have not ended."""
        row = await self._writer.fetchrow(
            "SELECT ARRAY(SELECT x::text::bigint FROM pg_snapshot_xip(pg_current_snapshot()) AS x"
            " WHERE x::text::bigint < $1) AS xids",
            xid,
        )
        return frozenset(row["xids"] if row else ())

    async def all_ended_before(self, xid: int) -> bool:
        """Whether every transaction before `xid` has ended."""
        row = await self._writer.fetchrow(
            "SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint >= $1", xid
        )
        return bool(row and row[0])

    async def rotate(self, usage: Usage, bytes_limit: int) -> bool:
        """Empties the idle table of changes, and makes it the current one if that pays.

        Returns whether it rotated. No unread change is lost: the table can be locked only when no
        transaction in flight has written to it, and then the cursor must see every row in it.
        """
        if usage.is_full:
            return False
        current = usage.last_id >> TABLE_BIT & 1
        if usage.tables[1 - current] and not await self._truncate(1 - current):
            return False
        if usage.tables[current] < bytes_limit:
            return False
        rotated = await self._writer.fetchrow(sql.adapt("SELECT notifier.rotate_changes()"))
        return bool(rotated and rotated[0])

    async def _truncate(self, table: int) -> bool:
        checkpoint = self._store.checkpoint
        row = await self._writer.fetchrow(
            sql.adapt("SELECT notifier.truncate_changes($1, $2, $3)"),
            table,
            checkpoint.cursor,
            checkpoint.seq,
        )
        return bool(row and row[0])

    async def prune(self, usage: Usage, retention_hours: float, bytes_limit: int) -> bool:
        """Moves on to the next slot of messages, and empties it, when this one is old or large enough.

        The companies keep their positions. Returns whether it moved on.
        """
        old = usage.slot_used and usage.slot_seconds > retention_hours * 3600 / (SLOTS - 2)
        if not old and usage.slot_bytes <= bytes_limit // SLOTS:
            return False
        checkpoint = self._store.checkpoint
        slot = (checkpoint.slot + 1) % SLOTS
        row = await self._writer.fetchrow(
            sql.adapt("SELECT notifier.prune($1, $2, $3)"),
            slot,
            checkpoint.cursor,
            checkpoint.seq,
            seconds=LONG_SECONDS,
        )
        if row is None or row[0] is None:
            return False
        self._store.use_slot(slot, row[0])
        return True
