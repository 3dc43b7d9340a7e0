"""Compares the watches with the database's catalogue, and reports what cannot be watched."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager
from difflib import get_close_matches

import asyncpg
import msgspec

from notifier.database import sql
from notifier.database.connections import QUALIFIED, Connection, first_line, role_path
from notifier.errors import DatabaseError, SettingsError
from notifier.paths import ARROW
from notifier.watches import Watch


class Table(msgspec.Struct, frozen=True):
    """A table in the catalogue. `relation` is its full, quoted name."""

    relation: str
    kind: str
    columns: tuple[str, ...]
    virtual: tuple[str, ...]
    json: tuple[str, ...]
    nullable: tuple[str, ...]
    unique: tuple[tuple[str, ...], ...]
    """The columns of each unique index on all rows."""
    partitioned_by: tuple[str, ...]
    children: tuple[str, ...]
    """Tables that inherit from it and are no partitions."""


async def describe(connection: Connection, names: Sequence[str]) -> list[Table | None]:
    """The tables of these names, which are spelled as in SQL; None where there is none.

    Raises SettingsError for a name that is none in SQL.
    """
    try:
        return await describe_found(connection, await full_names(connection, names))
    except (asyncpg.SyntaxOrAccessError, asyncpg.DataError) as error:
        if isinstance(error, asyncpg.InsufficientPrivilegeError):
            raise
        raise SettingsError(f"[[watch]] table: {first_line(error)}") from error


async def describe_found(
    connection: Connection, relations: Sequence[str | None]
) -> list[Table | None]:
    """The tables of these full, quoted names, also in schemas that the role may not use."""
    rows = await connection.fetch(sql.query("tables"), relations)
    return [row[0] and msgspec.json.decode(row[0], type=Table) for row in rows]


async def similar(connection: Connection, name: str) -> str:
    """`; did you mean …?` for a table that is not there, or nothing."""
    return did_you_mean(name, await spellings(connection))


async def spellings(connection: Connection) -> list[str]:
    """Every table that could be meant, spelled as in SQL."""
    rows = await connection.fetch(sql.query("similar_tables"), await visible(connection))
    return [row[0] for row in rows]


async def full_names(connection: Connection, names: Sequence[str]) -> list[str | None]:
    """The full names of tables that are spelled as in SQL, by the role's own search_path; None where there is none."""
    async with _role_path(connection):
        rows = await connection.fetch(sql.query("named_tables"), list(names))
    oids = [row[0] for row in rows]
    return list(await connection.fetchval("SELECT $1::oid[]::regclass[]::text[]", oids))


async def first_schema(connection: Connection) -> str:
    """The schema in which the role creates tables that are named without one. Raises DatabaseError where there is none."""
    async with _role_path(connection):
        schema = await connection.fetchval("SELECT pg_catalog.current_schema()")
    if schema is None:
        raise DatabaseError(
            "no schema of the role's search_path exists: create one, or set another path"
        )
    return str(schema)


async def visible(connection: Connection) -> list[int]:
    """The OIDs of the relations that need no schema, by the role's own search_path."""
    async with _role_path(connection):
        rows = await connection.fetch(sql.query("visible_tables"))
    return [row[0] for row in rows]


@asynccontextmanager
async def _role_path(connection: Connection) -> AsyncIterator[None]:
    """Names without a schema are those that the role's own search_path finds, while the block runs."""
    async with connection.transaction():
        await connection.execute(f"SET LOCAL search_path TO DEFAULT; {role_path(migrated=False)}")
        yield
        await connection.execute(QUALIFIED)


def did_you_mean(name: str, names: Sequence[str]) -> str:
    """`; did you mean …?` where a name looks like another one, or nothing."""
    plain = {_plain(each): each for each in reversed(names)}
    last = {_plain(each).rpartition(".")[2]: each for each in reversed(names)}
    wanted = _plain(name)
    found = plain.get(wanted) or last.get(wanted.rpartition(".")[2])
    if found is None and (close := get_close_matches(wanted, plain, n=1, cutoff=0.75)):
        found = plain[close[0]]
    return f"; did you mean {found}?" if found is not None else ""


def problems(watch: Watch, table: Table, watched: Collection[str]) -> list[str]:
    """Why a table cannot be watched like that, a line each, with the remedy.

    `watched` are the full names of all watched tables.
    """
    if missing := [name for name in watch.columns if name not in table.columns]:
        return [
            f"table {watch.table} has no column {name}{did_you_mean(name, table.columns)}"
            for name in missing
        ]
    if reserved := [name for name in table.columns if name.startswith(ARROW)]:
        return [
            f"table {watch.table}: a column cannot be named {reserved[0]}: {ARROW} is for paths"
        ]
    found = []
    named = {*watch.keys, watch.member, *watch.member_if}
    if unseen := [name for name in table.virtual if name in named]:
        found.append(f"table {watch.table}: no trigger sees the virtual column {', '.join(unseen)}")
    conditions: dict[str | None, str] = {
        **dict.fromkeys(watch.member_if, "member_if"),
        watch.deleted_if: "deleted_if",
    }
    for column, option in conditions.items():
        if column in table.json:
            found.append(
                f"table {watch.table}: {option} names {column}, which holds JSON; choose a boolean or"
                " a column that may be null"
            )
    key = watch.key_columns
    if not _is_unique(watch, table):
        found.append(
            f"table {watch.table}: no unique index proves that {' and '.join(key)}"
            f" {'names' if len(key) == 1 else 'name'} one row; create one on {', '.join(key)} and make"
            f" {'it' if len(key) == 1 else 'them'} NOT NULL, or choose another key"
        )
    if children := [child for child in table.children if child not in watched]:
        found.append(
            f"table {watch.table}: rows of {', '.join(children)}, which inherits from it, are not"
            " captured; add a [[watch]] for it, or use partitions instead of inheritance"
        )
    properties: dict[str, str] = {}
    if watch.adds_company:
        properties[watch.property(())] = "[company]"
    if not isinstance(watch.key, str):
        properties[watch.property(watch.key)] = f"[{', '.join(key)}]"
    for column in table.columns:
        if column in watch.exclude or column in table.virtual:
            continue
        other = properties.setdefault(watch.property(column), column)
        if other != column:
            found.append(
                f"table {watch.table}: columns {other} and {column} would both be sent as"
                f' {watch.property(column)}; add rename = {{ {_toml_key(column)} = "…" }} to its'
                " [[watch]], or exclude one of them"
            )
    return found


def _is_unique(watch: Watch, table: Table) -> bool:
    """Whether a unique index is on exactly the key, or, where it is one column, on key and company.

    In a partitioned table PostgreSQL demands the partition key's columns as well; they are accepted.
    """
    key = set(watch.key_columns)
    if key & set(table.nullable):  # a unique index takes any number of nulls
        return False
    accepted = key | set(table.partitioned_by)
    if len(key) == 1 and watch.company_column is not None:
        accepted.add(watch.company_column)
    return any(key <= set(columns) <= accepted for columns in table.unique)


def _toml_key(name: str) -> str:
    """A column as a key of a TOML table, quoted where it has to be."""
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else msgspec.json.encode(name).decode()


def _plain(name: str) -> str:
    """A name without what is easily mistaken: quotes, case, underscores."""
    return name.replace('"', "").replace("_", "").lower()
