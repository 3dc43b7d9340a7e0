"""Reads the rows of one table for a state, in the state's transaction."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any

import asyncpg

from notifier.database import sql
from notifier.database.connections import Connection
from notifier.errors import StateTooLarge
from notifier.messages import JSON
from notifier.state.tables import STATE_BYTES, Table

READ_SECONDS = 10.0

GROWTH, MOST_ROWS, FETCH_BYTES = 20, 1000, 512 * 1024
"""A fetch has at most GROWTH times the rows of those before it, at most MOST_ROWS, and aims at FETCH_BYTES. The first has one row."""


class Altered(Exception):
    """The table has other columns than the transaction's snapshot shows: who sees its rows cannot be determined by their names."""


def images_of(connection: Connection, table: Table, company: str) -> AsyncIterator[list[JSON]]:
    """The images of a company's rows in a table, in parts. Raises Altered."""
    return images(connection, table.statement, table.arguments(company), table)


async def images(
    connection: Connection, statement: str, arguments: Sequence[Any], table: Table | None = None
) -> AsyncIterator[list[JSON]]:
    """The rows of a query, in parts of about FETCH_BYTES as long as their sizes are alike. Raises Altered where the table's columns
    are not those of `table`.
    """
    # a cursor of the connection itself would name the statement, also in a session of a pooler
    prepared = await connection.prepare(statement, timeout=READ_SECONDS)
    cursor = await prepared.cursor(*arguments, timeout=READ_SECONDS)
    if table is not None:
        # The statement was parsed when its lock was granted, which an ALTER TABLE may have held up.
        try:
            names = await connection.fetchval(
                sql.query("state_columns"), table.oid, table.numbers, timeout=READ_SECONDS
            )
        except asyncpg.ProtocolError as error:
            # code of the application has replaced this statement: `restore` then names it
            raise Altered from error
        if names != table.names:
            raise Altered
    count, rows, size = 1, 0, 0
    while part := await cursor.fetch(count, timeout=READ_SECONDS):
        if part[-1][0] is None:
            raise StateTooLarge(f"more than {STATE_BYTES:,} bytes")
        found = [row[0].encode() for row in part]
        rows, size = rows + len(found), size + sum(map(len, found))
        yield found
        count = max(1, min(MOST_ROWS, GROWTH * rows, FETCH_BYTES * rows // (size + 1)))
