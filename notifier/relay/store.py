"""Stores messages and the relay's checkpoint. `sql/tables/log.sql` describes the tables."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Annotated, Any, TypeAlias

import asyncpg
import msgspec
import structlog
from msgspec.json import encode

from notifier.database import sql
from notifier.database.answers import Moment, Natural, expected, typed
from notifier.errors import LogAltered, SchemaMissing
from notifier.messages import JSON, Message, encode_views
from notifier.relay.changes import SNAPSHOT, Source
from notifier.relay.connection import RelayConnection
from notifier.relay.gaps import Capture, CaptureState, Saved, Triggers
from notifier.relay.images import company_named
from notifier.watches import Watch

SLOTS = 8
"""The partitions of `notifier.messages`; the oldest is emptied by TRUNCATE."""

REPLACED = "the log is another one now: it was made again, or restored"

NO_PARTITION = "the messages lack a partition; run: notifier migrate"

LONG_SECONDS = 60.0
"""Deadline of a statement that reads a good part of the log."""

EPOCH_SECONDS = 600.0
"""Deadline of each statement that begins an epoch: a million companies take half a minute."""

_log = structlog.get_logger("notifier.relay")


Snapshot: TypeAlias = Annotated[str, msgspec.Meta(pattern=r"^[0-9]{1,19}:[0-9]{1,19}:[0-9,]*$")]
"""A pg_snapshot as text."""


class Checkpoint(msgspec.Struct, frozen=True):
    """How far the relay has come.

    `cursor`: a snapshot; every change that it sees was read. `seq`: the last message. `slot`: where
    messages are stored since `slot_since`. While a backlog is read in pages, `target` is the snapshot
    at its end, and of its transactions those whose last change is at most `upto` were read. `unsettled`:
    changes of transactions before this transaction id may have been dropped (`disk.REOPENING`: of any).
    The types are narrow, because a value that no relay has written would be stored for the next relays.
    """

    epoch: Annotated[str, msgspec.Meta(min_length=1)]
    seq: Natural
    cursor: Snapshot
    slot: Annotated[int, msgspec.Meta(ge=0, lt=SLOTS)]
    slot_since: Moment
    target: Snapshot | None = None
    upto: Natural = 0
    unsettled: int | None = None


class RelayStore:
    """Appends to the log. It owns the checkpoint: no other object changes it.

    Raises the driver's exceptions.
    """

    def __init__(self, writer: RelayConnection, *, traces: bool = False) -> None:
        self._writer = writer
        self._traces = traces
        self._checkpoint: Checkpoint | None = None
        self.is_epoch_demanded = False

    @property
    def checkpoint(self) -> Checkpoint:
        """How far the relay has come; `load` must have been called."""
        assert self._checkpoint is not None
        return self._checkpoint

    async def load(self) -> str | None:
        """Loads the checkpoint. Returns the reason why an epoch must begin, None where it need not."""
        row = await self._writer.fetchrow(sql.query("load_checkpoint"))
        if row is None:
            raise SchemaMissing("the log is empty; run: notifier migrate")
        values = {name: row[name] for name in Checkpoint.__struct_fields__}
        self._checkpoint = _checked(values | {"upto": row["upto"] or 0})
        system, now_system = (row[name].split("/") for name in ("system", "now_system"))
        if row["ahead"] or system[0] != now_system[0]:
            self._move(unsettled=None)  # a transaction id of another cluster, or of a lost future
            return "epoch"
        if row["altered"]:
            _log.error("the log was emptied by migrate, or restored or altered by others")
            return "epoch"
        if system == now_system:
            return None
        if self.checkpoint.seq == 0 and system[:-1] == now_system[:-1]:
            # The copy of a database whose log was never read: its changes are valid here.
            copy = await self._writer.fetchrow(sql.query("adopt_copied_log"))
            self._move(epoch=copy["epoch"] if copy is not None else self.checkpoint.epoch)
            return None
        return "epoch"

    async def load_sources(self) -> dict[str, Source]:
        """The watched tables, as `notifier migrate` wrote them down, by the entity of their changes."""
        try:
            rows = await self._writer.fetch(sql.query("watches"))
        except (asyncpg.UndefinedTableError, asyncpg.UndefinedFunctionError) as error:
            raise SchemaMissing(
                "the schema is an older version's; run: notifier migrate"
            ) from error
        watches = [Watch.from_row(row) for row in rows]
        names = frozenset(rows[0]["all_scopes"]) if rows else frozenset()
        tables: dict[str, list[Source]] = {}
        for row, watch in zip(rows, watches, strict=True):
            renamed = dict(row["renamed"])
            source = Source(
                watch,
                columns=frozenset(row["columns"]),
                json_columns=frozenset(row["json_columns"]),
                time_columns=frozenset(row["time_columns"] if watch.naive_timestamps else ()),
                loose_columns=frozenset(row["loose_columns"]),
                column_versions=frozenset(row["column_versions"]),
                is_respelled=not set(watch.key_columns).isdisjoint(row["number_columns"]),
                is_key_awaited=row["is_key_awaited"],
                virtual_columns=frozenset(row["virtual_columns"]).union(
                    name for name in watch.visible_to if name in renamed and name in row["columns"]
                ),
                foreign_columns=frozenset(
                    now for name in watch.exclude if (now := renamed.get(name)) is not None
                ),
                tenant=row["tenant"] and company_named(encode(row["tenant"]), watch.scope),
                scopes=names,
                is_strayed=row["is_strayed"],
            )
            tables.setdefault(row["captured_as"], []).append(source)
        return {entity: _shared(sources) for entity, sources in tables.items()}

    async def begin_epoch(self, reason: str) -> None:
        """Empties the log. Every known company has a Resync as its first message in the new epoch.

        Changes that another cluster captured are deleted; see `sql/queries/begin_epoch.sql`.
        """
        async with self._writer.exclusive() as connection, connection.transaction():
            await connection.execute(f"SET LOCAL statement_timeout = '{EPOCH_SECONDS:.0f}s'")
            await connection.execute(sql.query("register_logged_companies"), timeout=EPOCH_SECONDS)
            await connection.execute("SET LOCAL lock_timeout = '1s'")
            await connection.execute("SAVEPOINT truncate")
            try:
                await connection.execute(
                    sql.adapt("TRUNCATE notifier.messages"), timeout=EPOCH_SECONDS
                )
            except asyncpg.LockNotAvailableError:  # a node or a backup reads
                await connection.execute("ROLLBACK TO SAVEPOINT truncate")
                await connection.execute(
                    sql.adapt("DELETE FROM notifier.messages"), timeout=EPOCH_SECONDS
                )
            await connection.execute("RELEASE SAVEPOINT truncate")
            row = await connection.fetchrow(
                sql.query("begin_epoch"),
                reason,
                self.checkpoint.seq,
                self.checkpoint.unsettled,
                timeout=EPOCH_SECONDS,
            )
        assert row is not None
        self.is_epoch_demanded = False
        self._move(
            epoch=row["epoch"], seq=row["seq"], cursor=row["cursor"], target=None, upto=0, slot=0
        )

    async def companies(self) -> list[str]:
        """Every company in the log."""
        rows = await self._writer.fetch(sql.query("known_companies"), seconds=LONG_SECONDS)
        return [company for (company,) in typed(rows, tuple[str])]

    async def heads(self, companies: Iterable[str]) -> dict[str, int]:
        """The last position of each company; 0 where it has none."""
        rows = await self._writer.fetch(sql.query("company_heads"), list(companies))
        return dict(typed([row[:2] for row in rows], tuple[str, Natural]))

    async def append(self, messages: Sequence[Message], cursor: str | None) -> None:
        """Stores messages and, with the last of them, the cursor; notifies the nodes. One statement.

        Raises LogAltered, and stores nothing, where `migrate` has emptied the log or others altered it: the
        messages may hold values of columns that are excluded now.
        """
        last = messages[-1]
        revoking = any(message.revokes for message in messages)
        restricting = any(message.views for message in messages)
        traced = self._traces and any(message.traceparent for message in messages)
        try:
            stored = await self._writer.fetchrow(
                sql.query("store_messages"),
                self.checkpoint.slot,
                messages[0].seq,
                [message.company for message in messages],
                [message.position for message in messages],
                [message.at for message in messages],
                last.stored,
                [message.body for message in messages],
                last.seq,
                cursor,
                [_array(message.revokes) for message in messages] if revoking else None,
                [encode_views(each.views) if each.views else None for each in messages]
                if restricting
                else None,
                [message.traceparent for message in messages] if traced else None,
                self.checkpoint.epoch,
            )
        except asyncpg.CheckViolationError as error:
            if error.constraint_name is not None:  # a check that an operator has added
                raise
            raise SchemaMissing(NO_PARTITION) from error
        if stored is None:
            raise LogAltered(
                "the log was emptied or altered by others: nothing more is stored in it"
            )
        self._move(seq=last.seq, cursor=cursor or self.checkpoint.cursor)

    async def save(self, **changes: Any) -> None:
        """Stores the checkpoint, with these fields changed, in the row of `notifier.log`. Raises LogAltered."""
        checkpoint = self._with(**changes)
        saved = await self._writer.fetchrow(
            sql.query("save_checkpoint"),
            checkpoint.seq,
            checkpoint.cursor,
            checkpoint.target,
            checkpoint.upto,
            checkpoint.slot,
            checkpoint.slot_since,
            checkpoint.unsettled,
            checkpoint.epoch,
        )
        if saved is None:
            raise LogAltered(REPLACED)
        self._checkpoint = checkpoint

    async def demand_epoch(self) -> None:
        """Makes this relay, or the next one, begin an epoch, as if others had altered the log."""
        await self._writer.fetchrow(sql.adapt("UPDATE notifier.log SET saved_by = '0'"))
        self.is_epoch_demanded = True

    async def load_moves(self) -> JSON:
        """Loads what `save_moves` has saved."""
        row = await self._writer.fetchrow(sql.adapt("SELECT moves FROM notifier.moves"))
        return b"[]" if row is None else bytes(row["moves"])

    async def save_moves(self, moves: JSON) -> None:
        """Stores the moves that another relay needs (`relay/moves.py`)."""
        await self._writer.fetchrow(
            sql.adapt("UPDATE notifier.moves SET moves = $1::text::json"), moves.decode()
        )

    async def transaction_id(self) -> int:
        """The number of a transaction of its own."""
        row = await self._writer.fetchrow("SELECT pg_current_xact_id()::text::bigint AS xid")
        assert row is not None
        xid: int = row["xid"]
        return xid

    async def load_capture(self) -> tuple[Saved | None, list[CaptureState]]:
        """The capture triggers as they were saved (None: never), and as they are."""
        rows = await self._writer.fetch(sql.query("capture_state"))
        saved = rows[0]["saved"] if rows else None
        return None if saved is None else msgspec.json.decode(saved, type=Saved), [
            CaptureState(
                row["entity"],
                Capture(row["root"], msgspec.json.decode(row["triggers"], type=Triggers)),
                frozenset(row["tables"]),
                row["captured"],
                row["dropped"],
            )
            for row in rows
        ]

    async def save_capture(self, saved: Saved) -> None:
        """Stores the state of the capture triggers."""
        text = msgspec.json.encode(saved).decode()
        await self._writer.fetchrow(sql.query("save_capture_state"), text)

    def nothing_until(self, cursor: str) -> None:
        """Moves the cursor past a read that found nothing; the next `append` or `save` stores it."""
        self._move(cursor=cursor)

    def begin_backlog(self, target: str) -> None:
        """A backlog up to the snapshot `target` is to be read; the next `save` stores that."""
        self._move(target=target, upto=0)

    def expect_end_before(self, unsettled: int | None) -> None:
        """Changes of transactions before this one may have been dropped; the next epoch, or the next `save`, stores that."""
        self._move(unsettled=unsettled)

    def pass_over(self, seq: int) -> None:
        """The log ends at `seq` or before, whatever others have written into it: the next epoch begins behind that."""
        self._move(seq=max(seq, self.checkpoint.seq))

    def use_slot(self, slot: int, since: datetime) -> None:
        """Messages go to this slot, which `Disk.prune` has emptied and saved."""
        self._move(slot=slot, slot_since=since)

    def _move(self, **changes: Any) -> None:
        self._checkpoint = self._with(**changes)

    def _with(self, **changes: Any) -> Checkpoint:
        return _checked(msgspec.structs.asdict(self.checkpoint) | changes)


def _checked(values: dict[str, Any]) -> Checkpoint:
    """The checkpoint, whose values are those of answers. Raises UnexpectedAnswer."""
    with expected():
        return msgspec.convert(values, Checkpoint)


def _array(users: tuple[str, ...]) -> str:
    """As a JSON array, "" for none: an id may hold any character that could separate it from the next."""
    return msgspec.json.encode(users).decode() if users else ""


def _shared(sources: Sequence[Source]) -> Source:
    """The source of a table. What all its watches exclude is not captured; the rest is hidden from one."""
    added = {each.watch.company_column for each in sources if each.watch.path is not None}
    if added:
        added.add(SNAPSHOT)
        sources = [
            msgspec.structs.replace(
                each, foreign_columns=each.foreign_columns | (added - {each.watch.company_column})
            )
            for each in sources
        ]
    excluded = [frozenset(source.watch.exclude) for source in sources]
    stripped = frozenset.intersection(*excluded)
    # Not sent either where the trigger is another than `migrate` made, such as that of a table that was restored alone.
    first, *others = (
        msgspec.structs.replace(
            source,
            hidden_columns=names - stripped,
            foreign_columns=source.foreign_columns | stripped,
        )
        for source, names in zip(sources, excluded, strict=True)
    )
    return msgspec.structs.replace(first, others=tuple(others))
