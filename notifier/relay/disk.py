"""Keeps the log's room on disk: rotates the tables of changes, prunes messages, reopens a full log."""

from __future__ import annotations

from typing import NamedTuple

from notifier.database import sql
from notifier.database.constants import FULL_MARK, TABLE_BIT
from notifier.errors import SchemaMissing
from notifier.relay.store import LONG_SECONDS, Checkpoint, RelayStore
from notifier.relay.writer import Writer

SLOTS = 8
"""The partitions of `notifier.messages`; the oldest is emptied by TRUNCATE."""

REOPENING = 1 << 62
"""In `Checkpoint.unsettled`: recovery from a full log has begun, and must be done (again)."""


class Usage(NamedTuple):
    """Bytes of changes and messages together, and their limit.

    `altered`: the row of `notifier.log` is not the version that this relay wrote.
    """

    bytes: int
    limit: int
    altered: bool


class Disk:
    """Room for changes and messages. Raises the driver's exceptions."""

    def __init__(self, writer: Writer, store: RelayStore) -> None:
        self._writer = writer
        self._store = store

    async def usage(self) -> Usage:
        """The room that the log takes. Raises SchemaMissing where there is no log any more."""
        row = await self._writer.fetchrow(sql.query("log_sizes"))
        if row is None:
            raise SchemaMissing("the log is empty; run: notifier migrate")
        return Usage(row["bytes"], row["max_log_bytes"], bool(row["altered"]))

    async def is_full(self) -> bool:
        """Whether capture has stopped storing."""
        row = await self._writer.fetchrow("SELECT last_value FROM notifier.change_ids")
        return bool(row and row[0] >= FULL_MARK)

    async def reopen(self) -> int | None:
        """Empties each table of changes that no transaction writes to, and lets capture store again.

        Transactions that are in flight may have dropped changes: all of them are before the returned
        transaction id. None: there are none.
        """
        row = await self._writer.fetchrow("SELECT notifier.reopen() AS unsettled")
        return row["unsettled"] if row is not None else None

    async def all_ended_before(self, xid: int) -> bool:
        """Whether every transaction before `xid` has ended."""
        row = await self._writer.fetchrow(
            "SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint >= $1", xid
        )
        return bool(row and row[0])

    async def rotate(self, bytes_limit: int) -> bool:
        """Empties the idle table of changes, and makes it the current one where that is worth while.

        Returns whether it rotated. No unread change is lost: the table can be locked only when no
        transaction in flight has written to it, and then the cursor must see every row in it.
        """
        row = await self._writer.fetchrow(sql.query("change_table_sizes"))
        assert row is not None
        last = int(row["last_value"])
        if last >= FULL_MARK:
            return False
        current = last >> TABLE_BIT & 1
        sizes = (int(row["zero"]), int(row["one"]))
        if sizes[1 - current] and not await self._truncate(1 - current):
            return False
        if sizes[current] < bytes_limit:
            return False
        rotated = await self._writer.fetchrow("SELECT notifier.rotate_changes()")
        return bool(rotated and rotated[0])

    async def _truncate(self, table: int) -> bool:
        checkpoint = self._store.checkpoint
        row = await self._writer.fetchrow(
            "SELECT notifier.truncate_changes($1, $2, $3)", table, checkpoint.cursor, checkpoint.seq
        )
        return bool(row and row[0])

    async def prune(self, retention_hours: float, bytes_limit: int) -> bool:
        """Moves on to the next slot of messages, and empties it, when this one is old or large enough.

        The companies keep their positions. Returns whether it moved on.
        """
        checkpoint = self._store.checkpoint
        if not await self._slot_is_due(checkpoint, retention_hours, bytes_limit):
            return False
        slot = (checkpoint.slot + 1) % SLOTS
        row = await self._writer.fetchrow(
            "SELECT notifier.prune($1, $2, $3)",
            slot,
            checkpoint.cursor,
            checkpoint.seq,
            seconds=LONG_SECONDS,
        )
        if row is None or row[0] is None:
            return False
        self._store.use_slot(slot, row[0])
        return True

    async def _slot_is_due(
        self, checkpoint: Checkpoint, retention_hours: float, bytes_limit: int
    ) -> bool:
        row = await self._writer.fetchrow(
            sql.query("slot_is_due"),
            f"notifier.messages_{checkpoint.slot}",
            bytes_limit // SLOTS,
            checkpoint.slot_since,
            retention_hours / (SLOTS - 2),
        )
        return bool(row and row[0])
