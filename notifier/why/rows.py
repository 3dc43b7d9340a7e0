"""Reads, for a row of a watched table, its company, whether it counts as deleted, and its transactions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import asyncpg

from notifier.companies import canonical
from notifier.database import sql
from notifier.database.configuration import Stored
from notifier.database.connections import Connection, first_line
from notifier.database.query import fetch_read_only
from notifier.why.evidence import READ_SECONDS
from notifier.why.paths import follow

_EPOCH = 1 << 32
"""Transaction ids of rows have 32 bits; those of `pg_current_xact_id` go on."""


class RowUnreadable(Exception):
    """The role may not read the table, or its type has no such key. The text is the reason."""


class Row(NamedTuple):
    """The present row.

    `company`: None where it has none, or where it cannot be read. `written_by`: the transaction that
    wrote it last. `held_by`: one that changes or locks it now, or did so. `path`: how its company was
    found along a path, in words; empty without one.
    """

    company: str | None
    has_company: bool
    is_deleted: bool
    written_by: int
    held_by: int | None
    path: str = ""


async def find_row(connection: Connection, stored: Stored, key: Sequence[str]) -> Row | None:
    """The row with that key, None where there is none. Raises RowUnreadable."""
    watch = stored.watch
    names = [*watch.identity, *([watch.deleted_if] if watch.deleted_if else [])]
    rows = await connection.fetch(sql.query("why_columns"), stored.relation, names)
    columns = {row["name"]: row for row in rows}
    if missing := [name for name in watch.key_columns if name not in columns]:
        raise RowUnreadable(f"{stored.relation} is no table with a column {missing[0]}")
    conditions = [
        _is(columns[name], number) for number, name in enumerate(watch.key_columns, start=1)
    ]
    has_company = watch.company_column in columns
    company = f"row.{columns[watch.company_column]['quoted']}" if has_company else "NULL"
    mark = columns.get(watch.deleted_if or "")
    text = sql.query("why_row").format(
        relation=stored.relation,
        condition=" AND ".join(conditions),
        company=f"CASE WHEN pg_catalog.num_nulls({company}) OPERATOR(pg_catalog.=) 0"
        f" THEN pg_catalog.format('%s', {company}) END",
        deleted="NULL::text"
        if mark is None
        else f"CASE WHEN pg_catalog.num_nulls(row.{mark['quoted']}) OPERATOR(pg_catalog.=) 0"
        f" THEN pg_catalog.format('%s', row.{mark['quoted']}) END",
    )
    try:
        # The planner evaluates code in the table's indexes as our role: it must not be able to write.
        rows = await fetch_read_only(connection, text, *key, seconds=READ_SECONDS)
    except asyncpg.DataError:  # not a value of the key's type
        raise RowUnreadable(f"this is no key of {stored.relation}") from None
    except asyncpg.SyntaxOrAccessError as error:
        raise RowUnreadable(first_line(error)) from error
    if not rows:
        return None
    found = rows[0]
    named = found["company"] if stored.tenant is None else stored.tenant
    row = Row(
        None if named is None else canonical(f"{watch.scope}:" * (watch.scope is not None) + named),
        has_company or stored.tenant is not None,
        found["deleted"] not in (None, "f"),
        completed(found["written_by"], found["next"]),
        completed(found["held_by"], found["next"]) if found["held_by"] else None,
    )
    if watch.path is None:
        return row
    trace = await follow(connection, stored, " AND ".join(conditions), key)
    if trace is None:  # deleted meanwhile
        return row
    path = f"company {watch.company}: {'; '.join(trace.lines)}"
    return row._replace(company=trace.company, has_company=trace.found, path=path)


def _is(column: asyncpg.Record, number: int) -> str:
    """The condition that a column has the text of a parameter. No application code runs in it."""
    quoted, kind = column["quoted"], column["type"]
    if kind is None:
        return f"pg_catalog.format('%s', row.{quoted}) OPERATOR(pg_catalog.=) ${number}"
    return f"row.{quoted} OPERATOR(pg_catalog.=) ${number}::text::{kind}"


def completed(xid: int, near: int) -> int:
    """The 64-bit number of the transaction that ends with `xid` and is nearest to the transaction `near`."""
    whole = near - near % _EPOCH + xid
    if whole - near > _EPOCH // 2:
        return max(whole - _EPOCH, xid)
    return whole if near - whole <= _EPOCH // 2 else whole + _EPOCH
