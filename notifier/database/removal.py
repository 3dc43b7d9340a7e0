"""Removes the objects that `migrate` created from a database, one by one, and no others."""

from __future__ import annotations

from enum import Enum

import asyncpg

from notifier.database import grants, revisions, sql, triggers
from notifier.database.connections import Connection
from notifier.database.functions import MANAGED, RELEASED
from notifier.database.transactions import (
    Report,
    exclusive,
    in_transaction,
    session,
    table_by_table,
)
from notifier.errors import DatabaseError

TABLES = (
    *("version", "configuration", "watches", "patterns", "scopes", "grants", "log", "positions"),
    *("messages", "changes_0", "changes_1", "signing_key", "moves", "steps", "vanished"),
    "hidden_columns",
)
SEQUENCE = "change_ids"

_OBJECTS = (TABLES, SEQUENCE, MANAGED, RELEASED)
"""The arguments of the queries that find our objects."""


class State(Enum):
    """The state of the schema `notifier`."""

    ABSENT = "absent"
    FOREIGN = "foreign"
    """There is one, but `migrate` did not make what is in it."""
    EMPTY_COPY = "empty copy"
    """Copied without its rows, by a dump of the definitions alone."""
    OURS = "ours"


async def state(connection: Connection) -> State:
    """The present state of the schema `notifier`."""
    row = await connection.fetchrow(sql.query("schema_state"))
    assert row is not None
    if not row["present"]:
        return State.ABSENT
    if not row["versioned"]:
        return State.FOREIGN if row["occupied"] else State.OURS
    if row["logged"] and not await connection.fetchval(
        sql.adapt("SELECT EXISTS (TABLE notifier.version)")
    ):
        return State.EMPTY_COPY
    return State.OURS


async def remove(connection: Connection, locks: triggers.Locks) -> list[str]:
    """Removes all of it. Returns what was done, a line each. Raises DatabaseError."""
    match await state(connection):
        case State.ABSENT:
            return [f"schema {sql.schema()}: was not there"]
        case State.FOREIGN:
            return [f"schema {sql.schema()}: left alone, migrate did not make it"]
    if await connection.fetchval(sql.adapt("SELECT to_regclass('notifier.grants') IS NOT NULL")):
        await grants.revoke(connection)
    lines = await triggers.drop_all(connection, locks)
    ours = await connection.fetchval(
        sql.adapt(
            "SELECT coalesce(obj_description('notifier'::regnamespace, 'pg_namespace') = $1, false)"
            " OR to_regclass('notifier.grants') IS NULL"
        ),
        MANAGED,
    )
    await _drop_objects(connection)
    return [
        *lines,
        await _drop_schema(connection)
        if ours
        else f"schema {sql.schema()}: emptied, but kept: it was there before",
    ]


async def uninstall(url: str, report: Report) -> None:
    """Removes all of it: the triggers first, a table at a time. Raises DatabaseError."""

    async def once(connection: Connection) -> list[str]:
        return await remove(connection, triggers.Locks(connection))

    async with session(url) as connection:
        await _require_possible(connection)
        await _drop_triggers(connection, report)
    await in_transaction(url, once, report)


async def _require_possible(connection: Connection) -> None:
    """Raises DatabaseError where a newer version has objects that this one does not know, objects of others need ours,
    or the current role does not own a table with a trigger.

    It locks nothing that writers use. What others create after it makes the removal fail later.
    """
    async with exclusive(connection):
        if await state(connection) in (State.OURS, State.EMPTY_COPY):
            if revisions.is_newer(found := await revisions.current(connection)):
                raise DatabaseError(revisions.newer(found))
            problem = await connection.fetchval(sql.query("removal_problems"), *_OBJECTS)
            if problem is not None:
                raise DatabaseError(problem)


async def _drop_triggers(connection: Connection, report: Report) -> None:
    """Drops the triggers on the application's tables, each table's in a transaction of its own. Raises Locked."""
    found: dict[str, list[triggers.Trigger]] = {}
    async with exclusive(connection):
        if await state(connection) in (State.OURS, State.EMPTY_COPY):
            for trigger in await triggers.unwanted(connection):
                found.setdefault(trigger.relation, []).append(trigger)
        relations = await triggers.in_lock_order(connection, found)

    async def drop(relation: str) -> list[str]:
        locks = triggers.Locks(connection)
        return await triggers.synchronize(connection, locks, found[relation])

    await table_by_table(connection, relations, drop, report)


async def _drop_objects(connection: Connection) -> None:
    """Drops our objects in the schema. Raises DatabaseError."""
    statements = [row[0] for row in await connection.fetch(sql.query("drop_objects"), *_OBJECTS)]
    try:
        for statement in statements:
            await connection.execute(statement)
    except asyncpg.DependentObjectsStillExistError as error:
        raise DatabaseError(f"something else needs an object of ours: {error.detail}") from error


async def _drop_schema(connection: Connection) -> str:
    try:
        async with connection.transaction():
            await connection.execute(f"DROP SCHEMA {sql.schema()}")
    except asyncpg.DependentObjectsStillExistError:
        return (
            f"schema {sql.schema()}: emptied, but kept: it holds objects that migrate did not make"
        )
    return f"schema {sql.schema()}: dropped"
