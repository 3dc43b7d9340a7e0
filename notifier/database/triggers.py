"""The triggers on the watched tables: `migrate` creates, replaces and drops them as `notifier.watches` requires."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import NamedTuple

import asyncpg

from notifier.database import paths, sql
from notifier.database.connections import Connection
from notifier.errors import DatabaseError

WAIT_SECONDS = 0.3
"""How long we wait for locks on the application's tables, on all of them together. A writer that queues
behind us waits for that and for the work that follows. Also less than PostgreSQL's deadlock_timeout: of
an application's transaction and ours that wait for one another, ours gives up."""

_LEAST_MILLISECONDS = 10


class Locked(DatabaseError):
    """An application holds a lock on a table for longer than we may wait."""


class Trigger(NamedTuple):
    """A row of `notifier.capture_triggers`: `wanted` by the watches, `present` in the database,
    and `sound` where it is enabled and exactly what `statement` creates."""

    relation: str
    name: str
    statement: str | None
    wanted: bool
    present: bool
    sound: bool

    def __str__(self) -> str:
        return f"trigger {self.name} on {self.relation}"

    @property
    def state(self) -> str:
        """The problem of the trigger."""
        if not self.present:
            return "missing"
        return "disabled or differs from this version's" if self.wanted else "not needed"


async def differences(connection: Connection, relation: str | None = None) -> list[Trigger]:
    """The triggers that are missing, disabled, other than wanted, or not wanted: of a table, or all."""
    rows = await connection.fetch(sql.query("trigger_differences"), relation)
    return [Trigger(*row) for row in rows]


class Locks:
    """Locks on the application's tables, within one budget of waiting for all of them.

    Writers queue behind a lock that is waited for, and behind those that are held meanwhile. So the
    first should be taken as late before the commit as possible.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._until: float | None = None

    async def run(self, relation: str, *statements: str) -> str:
        """Runs statements that lock `relation`; returns the last one's status. Raises Locked where it stays locked."""
        now = time.monotonic()
        if self._until is None:
            self._until = now + WAIT_SECONDS
        left = max(_LEAST_MILLISECONDS, round((self._until - now) * 1000))
        try:
            return await self._connection.execute(
                "; ".join((f"SET LOCAL lock_timeout = '{left}ms'", *statements))
            )
        except asyncpg.LockNotAvailableError as error:
            raise Locked(
                f"table {relation} is locked by another transaction; nothing was changed, try again"
            ) from error

    async def hold(self, relation: str) -> None:
        """Locks a table as CREATE TRIGGER does, and keeps its name for it. Raises Locked where creating a trigger would run code.

        CREATE TRIGGER evaluates calls with constant arguments in the keys by which a table and its partitions are partitioned,
        as the current role. No such table can be watched: so this one has taken the name of another one meanwhile.
        """
        replaced = False
        if await self._connection.fetchval(sql.query("may_lock_schemas")):
            status = await self.run(
                relation, sql.query("lock_schema").format(relation=paths.literal(relation))
            )
            replaced = status != "SELECT 1"
        await self.run(relation, f"LOCK TABLE {relation} IN SHARE ROW EXCLUSIVE MODE")
        if replaced or await self._connection.fetchval(sql.query("expression_keys"), relation):
            raise Locked(
                f"table {relation} was replaced by another transaction; nothing was changed, try again"
            )

    async def exclude_writers(self) -> None:
        """Waits until no transaction that `capture` served is in flight, and lets none begin.

        A function that such a transaction may be in the middle of can be changed then.
        """
        for relation in await in_lock_order(self._connection, await captured(self._connection)):
            await self.run(relation, f"LOCK TABLE {relation} IN SHARE ROW EXCLUSIVE MODE")


async def captured(connection: Connection) -> set[str]:
    """The tables that have a trigger which calls a function of ours, clones left out."""
    return {row["relation"] for row in await present(connection)}


async def present(connection: Connection) -> list[asyncpg.Record]:
    """`relation` and `name` of each trigger that calls a function of ours, clones left out."""
    return await connection.fetch(sql.query("triggers"))


async def in_lock_order(connection: Connection, relations: Iterable[str]) -> list[str]:
    """Tables in the order in which most writers lock them: first those that none refers to."""
    rows = await connection.fetch(sql.query("lock_order"), list(relations))
    return [row["relation"] for row in rows]


async def synchronize(connection: Connection, locks: Locks, found: Iterable[Trigger]) -> list[str]:
    """Creates, replaces and drops triggers. Returns what was done, a line each."""
    by_relation: dict[str, list[Trigger]] = {}
    for trigger in found:
        by_relation.setdefault(trigger.relation, []).append(trigger)
    always = {
        (each["relation"], each["name"]) for each in await present(connection) if each["always"]
    }
    relations = await in_lock_order(connection, by_relation)
    # First: PostgreSQL clones the trigger of a table to partitions, which may have had one of that name of their own.
    for relation in relations:
        if dropped := [_drop(each) for each in by_relation[relation] if not each.wanted]:
            await locks.run(relation, *dropped)
    done = []
    for relation in relations:
        statements = []
        for trigger in by_relation[relation]:
            done.append(f"{trigger}: {_done(trigger)}")
            if not trigger.wanted or trigger.statement is None:
                continue
            if trigger.present:
                statements.append(_drop(trigger))
            statements.append(trigger.statement)
            if (relation, trigger.name) in always:
                statements.append(f"ALTER TABLE {relation} ENABLE ALWAYS TRIGGER {trigger.name}")
        if statements:
            await locks.hold(relation)
            await locks.run(relation, *statements)
    return done


def _drop(trigger: Trigger) -> str:
    return f"DROP TRIGGER {trigger.name} ON {trigger.relation}"


async def unwanted(connection: Connection) -> list[Trigger]:
    """Each trigger that calls a function of ours, as one that is not needed."""
    return [
        Trigger(row["relation"], row["name"], None, False, True, False)
        for row in await present(connection)
    ]


async def drop_all(connection: Connection, locks: Locks) -> list[str]:
    """Drops each trigger that calls a function of ours. Returns what was done, a line each."""
    return await synchronize(connection, locks, await unwanted(connection))


def _done(trigger: Trigger) -> str:
    if not trigger.wanted:
        return "dropped"
    # The relay takes it for a gap, as it does a trigger that was disabled.
    return "replaced: every company gets a Resync" if trigger.present else "created"
