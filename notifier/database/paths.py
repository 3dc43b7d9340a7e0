"""Paths along foreign keys in the database: their proof, and the SQL that follows them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import NamedTuple

import asyncpg
import msgspec

from notifier.database import catalogue, sql
from notifier.database.connections import Connection
from notifier.errors import SettingsError
from notifier.paths import ARROW
from notifier.watches import Watch

_COMPATIBLE = (
    {"smallint", "integer", "bigint"},
    {"uuid"},
    {"text", "character varying"},
)
"""Types whose values can be compared: what a path may go along."""

TYPES = "smallint, integer, bigint, uuid, text and varchar"


class Reference(msgspec.Struct, frozen=True):
    """A foreign key of one column."""

    column: str
    relation: str
    key: str
    is_valid: bool


class Table(msgspec.Struct, frozen=True):
    """A table in the catalogue. `types`: of its columns, None where a path cannot go along one.

    `unique`: single columns with a unique index, the primary key first.
    """

    relation: str
    kind: str
    owner: str
    types: Mapping[str, str | None]
    unique: tuple[str, ...]
    references: tuple[Reference, ...]


class Step(NamedTuple):
    """A step of a path, as in `notifier.steps`; step 0 is the watched table itself."""

    watch: str
    step: int
    relation: str
    key: str | None
    value: str
    enforced: bool


async def resolve(connection: Connection, watches: Sequence[Watch]) -> dict[str, tuple[Step, ...]]:
    """The steps of each watch by name, none without a path. Raises SettingsError where one leads nowhere."""
    found: dict[str, tuple[Step, ...]] = {watch.name: () for watch in watches}
    owners: dict[str, str] = {}
    for watch in watches:
        if watch.path is not None:
            found[watch.name] = await _resolve(connection, watch, owners)
    if len(owners) > 1:
        first, second, *_ = owners.items()
        raise SettingsError(
            f"paths cross {first[1]} of role {first[0]} and {second[1]} of role {second[0]}: give the tables"
            " one owner"
        )
    return found


async def require_separate_owner(connection: Connection) -> None:
    """Raises SettingsError where the owner of the tables on paths could change the function that it owns."""
    if owner := await connection.fetchval(sql.query("path_owner")):
        raise SettingsError(
            f"paths cross tables of role {owner}, which may use the schema {sql.schema()}: run migrate as {owner},"
            " or let another role serve"
        )


async def problem(connection: Connection, watch: Watch) -> str | None:
    """Why the path that `migrate` has stored for a watch leads nowhere now, in one line; None where it does."""
    rows = await connection.fetch(
        sql.adapt(
            "SELECT watch, step, relation, key, value, enforced FROM notifier.steps WHERE watch = $1 ORDER BY step"
        ),
        watch.name,
    )
    stored = [Step(*row) for row in rows]
    names = [f"{step.relation}.{sql.identifier(step.value)}" for step in stored[1:]]
    given = f" {ARROW} ".join([*(sql.identifier(step.value) for step in stored[:1]), *names])
    try:
        given_watch = replace(watch, table=stored[0].relation, company=given) if stored else watch
        found = await _resolve(connection, given_watch, {})
    except SettingsError as error:
        return str(error)
    return None if list(found) == stored else f"{_place(watch)}: it is proven in another way now"


async def _resolve(
    connection: Connection, watch: Watch, owners: dict[str, str]
) -> tuple[Step, ...]:
    """The steps of one path. Adds the owners of its tables, each with a table."""
    path = watch.path
    assert path is not None
    names = [watch.table, *(step.table for step in path.steps)]
    try:
        rows = await connection.fetch(
            sql.query("path_tables").format(type=_type("a.attname")), names
        )
    except asyncpg.PostgresSyntaxError as error:
        raise SettingsError(f"table {watch.table}: company {watch.company}: {error}") from error
    tables = [row[0] and msgspec.json.decode(row[0], type=Table) for row in rows]
    near, column = tables[0], path.start
    if near is None:  # refused elsewhere
        return ()
    _type_of(watch, watch.table, near, column)
    steps = [Step(watch.name, 0, near.relation, None, column, False)]
    for number, (wanted, table) in enumerate(zip(path.steps, tables[1:], strict=True), start=1):
        if table is None:
            similar = await catalogue.similar(connection, wanted.table)
            raise SettingsError(f"{_place(watch)}: no table {wanted.table}{similar}")
        if table.kind != "r":
            raise SettingsError(
                f"{_place(watch)}: {wanted.table} is partitioned; a path can cross ordinary tables only"
            )
        _type_of(watch, wanted.table, table, wanted.column)
        key, enforced = _key(watch, near, column, wanted.table, table)
        owners.setdefault(table.owner, wanted.table)
        steps.append(Step(watch.name, number, table.relation, key, wanted.column, enforced))
        near, column = table, wanted.column
    return tuple(steps)


def _key(watch: Watch, near: Table, column: str, name: str, table: Table) -> tuple[str, bool]:
    """The column of the next table that `column` refers to, and whether a foreign key enforces it."""
    own = [each for each in near.references if each.column == column]
    for reference in own:
        if reference.relation == table.relation:
            return reference.key, reference.is_valid
    kind = _type_of(watch, near.relation, near, column)
    keys = [
        each
        for each in table.unique
        if any({kind, table.types.get(each)} <= group for group in _COMPATIBLE)
    ]
    if own:
        raise SettingsError(f"{_place(watch)}: {column} refers to {own[0].relation}, not to {name}")
    if not keys:
        raise SettingsError(
            f"{_place(watch)}: nothing proves that {column} leads to one row of {name}; add a foreign key"
            " from it, or a unique index on one column of the same type there"
        )
    return keys[0], False


def _type_of(watch: Watch, name: str, table: Table, column: str) -> str:
    if column not in table.types:
        near = catalogue.did_you_mean(column, [*table.types])
        raise SettingsError(f"{_place(watch)}: table {name} has no column {column}{near}")
    kind = table.types[column]
    if kind is None:
        raise SettingsError(
            f"{_place(watch)}: a path cannot go along {name}.{column}: its type must be one of {TYPES}"
        )
    return kind


def _place(watch: Watch) -> str:
    return f"table {watch.table}: company {watch.company}"


def joins(row: str) -> str:
    """A subquery: what joins the tables along the path of a watch to its rows, whose alias is `row`."""
    return sql.query("path_joins").format(row=row)


def steps_query() -> str:
    """The steps of all paths, as `path_steps.sql` describes them."""
    return sql.query("path_steps").format(key_type=_type("s.key"), value_type=_type("s.value"))


async def statements(connection: Connection) -> tuple[dict[str, str], str]:
    """The statements in the bodies of the functions that follow paths, by function; and the owner of the tables.

    The owner is that of the schema where there is no path.
    """
    rows = await connection.fetch(steps_query())
    paths: dict[str, list[asyncpg.Record]] = {}
    for row in rows:
        if row["step"] > 0:
            paths.setdefault(row["watch"], []).append(row)
    lookups, locks = [], []
    owner: str | None = None
    for watch, steps in paths.items():
        if any(None in (each["key_type"], each["value_type"], each["owner"]) for each in steps):
            continue  # a column is gone: its changes get no company, and all companies a Resync
        owner = owner or steps[0]["owner"]
        locks.append(_locks(watch, steps, owner))
        lookups += [_lookup(watch, steps[number:]) for number in range(len(steps))]
    if owner is None:
        owner = str(await connection.fetchval(sql.query("schema_owner")))
    return {"path_company": "".join(lookups), "resolve_path": "".join(locks)}, owner


def _locks(watch: str, steps: Sequence[asyncpg.Record], owner: str) -> str:
    tables = list(dict.fromkeys(each["relation"] for each in steps))
    return sql.query("path_lock").format(
        watch=literal(watch),
        tables=", ".join(f"ONLY {table}" for table in tables),
        owner=literal(owner),
        relations=", ".join(f"{literal(table)}::regclass" for table in tables),
        enforced=str(all(each["enforced"] for each in steps)).lower(),
    )


def _lookup(watch: str, steps: Sequence[asyncpg.Record]) -> str:
    """The statement that finds the company of a row of the first of these steps."""
    first, last = steps[0], len(steps)
    tables = [f"ONLY {first['relation']} AS t1"]
    cases = []
    for number, (step, following) in enumerate(pairwise(steps), start=1):
        tables.append(
            f"LEFT JOIN ONLY {following['relation']} AS t{number + 1} ON t{number + 1}.{following['key']}"
            f" OPERATOR(pg_catalog.=) t{number}.{step['value']}::{following['key_type']}"
        )
        cases.append(
            f"WHEN t{number}.{step['value']} IS NULL THEN 'null'"
            f" WHEN t{number + 1}.{following['key']} IS NULL THEN NULL"
        )
    value = f"coalesce(to_json(t{last}.{steps[-1]['value']}::{steps[-1]['value_type']}), 'null')"
    return sql.query("path_lookup").format(
        watch=literal(watch),
        step=first["step"],
        company=f"CASE {' '.join(cases)} ELSE {value} END" if cases else value,
        tables=" ".join(tables),
        key=first["key"],
        key_type=first["key_type"],
    )


def _type(column: str) -> str:
    """The subquery for the type of a column of the relation `c`."""
    return sql.query("path_type").format(column=column)


def literal(text: str) -> str:
    """A constant, whatever `standard_conforming_strings` is."""
    escaped = text.replace("\\", "\\\\").replace("'", "''")
    return f"E'{escaped}'"
