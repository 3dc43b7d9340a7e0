"""What `migrate` writes down for capture, relay and nodes, and what a change of it means for clients."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import asyncpg
import msgspec

from notifier.database import sql
from notifier.database.connections import Connection
from notifier.watches import Condition, Watch

RESYNCED = (
    "key",
    "company",
    "member",
    "member_if",
    "deleted_if",
    "created",
    "updated",
    "deleted",
    "naive_timestamps",
)
"""Fields that change what a client has: it must read the state again."""

RESYNC = "every company gets a Resync"


class Stored(NamedTuple):
    """A watch, and the full name of its table."""

    watch: Watch
    relation: str


class Change(NamedTuple):
    """One field of a watch that differs, and what follows from it."""

    entity: str
    line: str
    is_resync: bool = False
    """What clients have may be wrong now."""
    is_secret: bool = False
    """The log holds values that must not be sent any more."""

    def __str__(self) -> str:
        return self.line


async def load(connection: Connection) -> dict[str, Stored]:
    """The watches in the database, by entity."""
    rows: list[asyncpg.Record] = await connection.fetch("SELECT * FROM notifier.watches")
    return {row["entity"]: Stored(Watch.from_row(row), row["relation"]) for row in rows}


def compare(former: Mapping[str, Stored], wanted: Mapping[str, Stored]) -> Iterator[Change]:
    """Every field that differs."""
    for entity, stored in former.items():
        if entity not in wanted:
            line = f"{stored.watch.table}: no longer watched as {entity}: its changes are not sent"
            yield Change(entity, line)
    for entity, stored in wanted.items():
        if entity in former:
            yield from _fields(former[entity], stored)
            continue
        line = f"{stored.watch.table}: watched as {entity}: its changes are sent from now on"
        yield Change(entity, line)
        for each in former.values():
            if each.relation == stored.relation:  # it had another entity
                yield from _excluded(each.watch, stored.watch)


def _fields(former: Stored, wanted: Stored) -> Iterator[Change]:
    table, entity = wanted.watch.table, wanted.watch.entity
    if former.relation != wanted.relation:
        line = f"{table}: table {former.relation} → {wanted.relation}: {RESYNC}"
        yield Change(entity, line, is_resync=True)
    for name in RESYNCED:
        before, after = getattr(former.watch, name), getattr(wanted.watch, name)
        if before != after:
            line = f"{table}: {name} {_shown(before)} → {_shown(after)}: {RESYNC}"
            yield Change(entity, line, is_resync=True)
    for name, before, after in _spellings(former.watch, wanted.watch):
        line = f"{table}: {name} {before} → {after}: {RESYNC}"
        yield Change(entity, line, is_resync=True)
    yield from _excluded(former.watch, wanted.watch)
    for column in former.watch.exclude:
        if column not in wanted.watch.exclude:
            yield Change(entity, f"{table}: exclude -{column}: new messages have it")


def _shown(value: str | tuple[str, ...] | Mapping[str, Condition] | None) -> str:
    if isinstance(value, Mapping):
        value = tuple(f"{column} = {json.dumps(wanted)}" for column, wanted in value.items())
    return (", ".join(value) if isinstance(value, tuple) else value) or "none"


def _spellings(former: Watch, wanted: Watch) -> Iterator[tuple[str, str, str]]:
    """What differs in the names of properties: the field, before and after."""
    if former.case != wanted.case:
        yield "case", former.case, wanted.case
    for column in sorted({*former.rename, *wanted.rename}):
        before, after = former.rename.get(column), wanted.rename.get(column)
        if before != after:
            yield f"rename {column}", before or "none", after or "none"


def _excluded(former: Watch, wanted: Watch) -> Iterator[Change]:
    """The columns whose values are in the changes of `former` and must not be sent any more."""
    for column in wanted.exclude:
        if column not in former.exclude:
            line = (
                f"{wanted.table}: exclude +{column}: new messages without it; the log is emptied,"
                " new epoch"
            )
            yield Change(former.entity, line, is_secret=True)


async def save(connection: Connection, wanted: Sequence[Stored]) -> None:
    """Replaces the watches in the database."""
    rows = [{"relation": stored.relation, **stored.watch.to_row()} for stored in wanted]
    await connection.execute("DELETE FROM notifier.watches")
    await connection.execute(sql.query("save_watches"), msgspec.json.encode(rows).decode())


async def forget_messages(connection: Connection) -> None:
    """Empties the log's messages; the relay begins an epoch when the transaction commits."""
    # First, as the relay does before it saves its checkpoint: else both could wait for one another.
    await connection.execute("LOCK TABLE notifier.messages")
    await connection.execute(sql.query("save_positions"))
    await connection.execute("TRUNCATE notifier.messages")


async def announce(connection: Connection, changes: Sequence[Change]) -> None:
    """Makes the changes take effect in running nodes, when the transaction commits.

    Must come after the triggers were replaced: what follows in the log is captured in the new way.
    """
    if secret := sorted({change.entity for change in changes if change.is_secret}):
        await connection.execute(sql.query("forget_changes_0"), secret)
        await connection.execute(sql.query("forget_changes_1"), secret)
    resync = sorted({change.entity for change in changes if change.is_resync})
    await connection.execute(sql.query("announce_configuration"), resync, bool(secret))
