"""Paths along foreign keys in the database: their proof, and the SQL that follows them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import asyncpg
import msgspec

from notifier.database import catalogue, sql
from notifier.database.connections import Connection, first_line
from notifier.errors import SettingsError
from notifier.paths import ARROW
from notifier.watches import Watch

_COMPATIBLE = (
    {"smallint", "integer", "bigint"},
    {"uuid"},
    {"text", "character varying"},
)
"""Types whose values can be compared: what a path may go along."""

_FEW = 3
"""Conditions that are tried one after the other."""

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
    except asyncpg.InsufficientPrivilegeError as error:
        return f"{_place(watch)}: {first_line(error)}"
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
            sql.query("path_tables").format(type=_type("a.attname")),
            await catalogue.full_names(connection, names),
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
    lookups, locks = {}, {}
    tables: dict[str, list[Sequence[asyncpg.Record]]] = {}
    lacking = set()
    owner: str | None = None
    for watch, steps in paths.items():
        entity = steps[0]["entity"]
        if any(None in (each["key_type"], each["value_type"], each["owner"]) for each in steps):
            lacking.add(entity)
            continue  # a column is gone: its changes get no company, and all companies a Resync
        owner = owner or steps[0]["owner"]
        locks[watch] = _locks(watch, steps, owner)
        lookups[watch] = "".join(_lookup(watch, steps[number:]) for number in range(len(steps)))
        tables.setdefault(entity, []).append(steps)
    if owner is None:
        owner = str(await connection.fetchval(sql.query("schema_owner")))
    members = {
        entity: _members(entity, each, owner)
        for entity, each in tables.items()
        if entity not in lacking
    }
    return {
        "path_company": _choice("watch", lookups),
        "path_members": _choice("entity", members),
        "resolve_path": _choice("watch", locks),
    }, owner


def _choice(name: str, cases: Mapping[str, str]) -> str:
    """The statements of all cases, each under its own condition that `name` has its value, an ASCII text.

    Many are halved by `name` first: each condition takes half a microsecond of a transaction.
    """
    if len(cases) <= _FEW:
        return "".join(cases.values())
    values = sorted(cases)
    middle = len(values) // 2
    lower, upper = (
        _choice(name, {value: cases[value] for value in half})
        for half in (values[:middle], values[middle:])
    )
    return (
        f'    IF {name} < {literal(values[middle])} COLLATE "C" THEN\n{lower}    ELSE\n{upper}'
        "    END IF;\n"
    )


def _members(entity: str, paths: Sequence[Sequence[asyncpg.Record]], owner: str) -> str:
    """The statements that find the companies of all paths of a table."""
    companies = "".join(
        sql.query("path_member").format(
            start=literal(steps[0]["start"]),
            owner=literal(owner),
            relations=_relations(steps),
            before="'{'" if number == 0 else "members",
            member=literal(f"{msgspec.json.encode(ARROW + steps[0]['watch']).decode()}:"),
            watch=literal(steps[0]["watch"]),
        )
        for number, steps in enumerate(paths)
    )
    tables = _tables([step for steps in paths for step in steps])
    return sql.query("path_members").format(
        entity=literal(entity), tables=tables, companies=companies
    )


def _tables(steps: Sequence[asyncpg.Record]) -> str:
    """The tables on paths, each once, for LOCK TABLE."""
    return ", ".join(f"ONLY {name}" for name in dict.fromkeys(each["relation"] for each in steps))


def _relations(steps: Sequence[asyncpg.Record]) -> str:
    """The same as constants: a plan that has them ends when one of the tables is altered."""
    names = dict.fromkeys(each["relation"] for each in steps)
    return ", ".join(f"{literal(name)}::regclass" for name in names)


def _locks(watch: str, steps: Sequence[asyncpg.Record], owner: str) -> str:
    return sql.query("path_lock").format(
        watch=literal(watch),
        tables=_tables(steps),
        owner=literal(owner),
        relations=_relations(steps),
        enforced=str(all(each["enforced"] for each in steps)).lower(),
    )


def _lookup(watch: str, steps: Sequence[asyncpg.Record]) -> str:
    """The statement that finds the company of a row of the first of these steps.

    The subqueries take rows by keys: the planner may read a small table as a whole for a join.
    """
    first, last = steps[0], steps[-1]
    company = f"coalesce(to_json(t{len(steps)}.{last['value']}::{last['value_type']}), 'null')"
    for number in range(len(steps) - 1, 0, -1):
        step, following = steps[number - 1], steps[number]
        company = sql.query("path_subquery").format(
            near=f"t{number}.{step['value']}",
            company=company,
            table=following["relation"],
            row=f"t{number + 1}",
            key=following["key"],
            key_type=following["key_type"],
        )
    return sql.query("path_lookup").format(
        watch=literal(watch),
        step=first["step"],
        company=f"{company} FROM ONLY {first['relation']} AS t1",
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
