"""Follows the path from a row to its company, and reports which steps found a row. No value is shown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import asyncpg

from notifier.access.member_rows import as_text
from notifier.companies import canonical
from notifier.database import paths, sql
from notifier.database.configuration import Stored
from notifier.database.connections import Connection, first_line
from notifier.database.query import fetch_read_only
from notifier.why.evidence import READ_SECONDS


class Trace(NamedTuple):
    """A path that was followed from a row. `found`: False where it could not be followed; the line is the reason.

    `company`: the one at its end; None where the path ends before.
    """

    found: bool
    company: str | None
    lines: tuple[str, ...]


async def follow(
    connection: Connection, stored: Stored, condition: str, key: Sequence[str]
) -> Trace | None:
    """Follows the path from the row with that key, as `condition` names it; None where there is no row."""
    steps = [
        row
        for row in await connection.fetch(paths.steps_query())
        if row["watch"] == stored.watch.name
    ]
    if not steps:
        return None
    first, *others = steps
    if any(None in (each["key_type"], each["value_type"], each["owner"]) for each in others):
        return Trace(False, None, (str(await paths.problem(connection, stored.watch)),))
    joins, columns, values = "", [], [f"row.{first['value']}"]
    for number, step in enumerate(others, start=1):
        joins += (
            f" LEFT JOIN ONLY {step['relation']} AS t{number}"
            f" ON t{number}.{step['key']} OPERATOR(pg_catalog.=) {values[-1]}"
        )
        columns += [f"{values[-1]} IS NOT NULL", f"t{number}.{step['key']} IS NOT NULL"]
        values.append(f"t{number}.{step['value']}")
    text = sql.query("why_path").format(
        reached=", ".join([*columns, f"{values[-1]} IS NOT NULL"]),
        company=as_text(values[-1], others[-1]["value_type"]),
        relation=stored.relation,
        joins=joins,
        condition=condition,
    )
    try:
        rows = await fetch_read_only(connection, text, *key, seconds=READ_SECONDS)
    except asyncpg.SyntaxOrAccessError as error:
        return Trace(False, None, (f"it cannot be followed: {first_line(error)}",))
    if not rows:
        return None
    (row,) = rows
    name, scope = row["company"], stored.watch.scope
    lines = tuple(_lines(steps, row["reached"]))
    if name is None:
        return Trace(True, None, lines)
    return Trace(True, canonical(name if scope is None else f"{scope}:{name}"), lines)


def _lines(steps: Sequence[asyncpg.Record], reached: Sequence[bool]) -> list[str]:
    """A line for each step up to the one that ends the path. `reached`: of each step, whether there is a value, and a row."""
    first, *others = steps
    column: str = first["value"]
    lines: list[str] = []
    for number, step in enumerate(others):
        has_value, has_row = reached[2 * number : 2 * number + 2]
        if not has_value:
            return [*lines, f"{column} is null: the row has no company"]
        if not has_row:
            return [
                *lines,
                f"{column} leads to no row of {step['relation']}: the row has no company",
            ]
        lines.append(f"{column} leads to a row of {step['relation']}")
        column = f"{step['relation']}.{step['value']}"
    if not reached[-1]:
        return [*lines, f"{column} is null: the row has no company"]
    return [*lines, f"{column} names a company"]
