"""Reads the columns of the watched tables from the catalogue, as the JSON that messages have for them.

How PostgreSQL's types become JSON: `to_json` in its manual (9.16), and `sql/functions/json_expression.sql`
for the types that an application made.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from notifier.database import configuration, schema, sql, tenants
from notifier.database.configuration import Stored
from notifier.database.connections import QUALIFIED, Connection, connected
from notifier.errors import NotifierError, SettingsError
from notifier.settings import Settings
from notifier.types.values import (
    Array,
    Composite,
    Enum,
    Field,
    Key,
    Property,
    Scalar,
    Table,
    Value,
    duplicates,
    merged,
)
from notifier.watches import Watch

SCALARS: Mapping[str, Scalar] = {
    "bool": Scalar("boolean", "bool"),
    "int2": Scalar("integer", "int2"),
    "int4": Scalar("integer", "int4"),
    "int8": Scalar("number", "int8"),
    "float4": Scalar("number", "float4"),
    "float8": Scalar("number", "float8"),
    "numeric": Scalar("number", "numeric"),
    "json": Scalar("json", "json"),
    "jsonb": Scalar("json", "jsonb"),
}
"""PostgreSQL's own types that do not become strings."""


class Column(msgspec.Struct, frozen=True):
    """A column, or a field of a composite type. `type` is an OID."""

    name: str
    type: int
    sql: str
    dimensions: int
    not_null: bool = False


class Type(msgspec.Struct, frozen=True):
    """A row of `pg_type`. `kind` is its `typtype`."""

    oid: int
    name: str
    kind: str
    base: int | None
    dimensions: int
    element: int | None
    labels: tuple[str, ...]
    fields: tuple[Column, ...]
    json_cast: bool


async def read(settings: Settings) -> tuple[Table, ...]:
    """The watched tables, sorted by entity. Raises NotifierError where one cannot be watched.

    They are those of `notifier.toml`; where it has none, those that the database was configured with.
    """
    async with connected(
        settings.listen_database, "types", pinned=False, standby=True
    ) as connection:
        await connection.execute(QUALIFIED)
        stored = await _watched(connection, settings)
        # after the tables themselves those at the end of their paths, which have the company
        relations = [each.relation for each in stored]
        relations += [each.steps[-1].relation if each.steps else each.relation for each in stored]
        rows = await connection.fetch(sql.query("column_types"), relations)
        columns = [msgspec.json.decode(row[0], type=list[Column]) for row in rows]
        rows = await connection.fetch(sql.query("types"), relations)
        types = [msgspec.json.decode(row[0], type=Type) for row in rows]
    catalogue = {each.oid: each for each in types}
    own, last = columns[: len(stored)], columns[len(stored) :]
    return merged(
        [
            _table(each, found, at_end, catalogue)
            for each, found, at_end in zip(stored, own, last, strict=True)
        ]
    )


async def _watched(connection: Connection, settings: Settings) -> list[Stored]:
    given: Sequence[Watch] | None = settings.given_watches
    if given is None and await connection.fetchval(
        sql.adapt("SELECT to_regclass('notifier.watches')")
    ):
        watches = [each.watch for each in (await configuration.load(connection)).values()]
        watches += (await configuration.load_patterns(connection)).values()
        given = list(dict.fromkeys(watches)) or None
    wanted = settings.watch if given is None else given
    patterns = [watch for watch in wanted if watch.pattern is not None]
    stored = await schema.resolve(connection, [each for each in wanted if each.pattern is None])
    return [
        each
        for _, each in sorted([*stored.items(), *(await _examples(connection, patterns)).items()])
    ]


async def _examples(connection: Connection, patterns: Sequence[Watch]) -> dict[str, Stored]:
    """For each pattern the first table that fits it: all of them should have the same columns."""
    found: dict[str, Stored] = {}
    for match in await tenants.find(connection, patterns, bounds=False):
        for each in match.watches if not match.problems else ():
            found.setdefault(each.watch.name, each)
    for watch in patterns:
        if watch.name not in found:
            raise SettingsError(f"table {watch.table}: there is no such schema yet")
    return found


def _table(
    stored: Stored, columns: Sequence[Column], at_end: Sequence[Column], types: Mapping[int, Type]
) -> Table:
    """A table. Its key and company are never null in messages: a row without them has none.

    `at_end`: the columns of the table at the end of its path, if it has one.
    """
    watch = stored.watch
    never_null = set(watch.identity)
    properties = {
        column.name: Property(
            watch.property(column.name),
            _value(column.type, column.dimensions, types),
            not (column.not_null or column.name in never_null),
            _sql(column, watch, types),
        )
        for column in columns
        if column.name not in watch.exclude
    }
    whole = list(properties.values())
    if not isinstance(watch.key, str):
        values = tuple(properties[column].value for column in watch.key)
        whole.insert(0, Property(watch.property(watch.key), Key(values), False, "the key"))
    if watch.path is not None and watch.scope is None:
        (company,) = (each for each in at_end if each.name == stored.steps[-1].value)
        value = _value(company.type, company.dimensions, types)
        whole.insert(0, Property(watch.company_property, value, False, _sql(company, watch, types)))
    if watch.adds_company:
        value = Scalar("string", "text")
        if watch.scope is not None:
            text = f"the company, with its scope: {watch.scope}:…"
        elif watch.company_column is None:
            text = "the company: the schema's name"
        else:
            named = properties[watch.company_column]
            value, text = named.value, f"the company: {named.name}"
        whole.insert(0, Property(watch.company_property, value, False, text))
    if found := duplicates([each.name for each in whole]):
        raise NotifierError(f"table {watch.table}: two columns would be sent as {found[0]}")
    return Table(watch, tuple(whole))


def _sql(column: Column, watch: Watch, types: Mapping[int, Type]) -> str:
    """The column's type for readers, and whether a timestamp without a zone is sent with an offset."""
    if types[column.type].name in ("timestamp", "_timestamp"):
        zone = watch.naive_timestamps
        return f"{column.sql}, sent {f'in {zone}' if zone else 'without an offset'}"
    return column.sql


def _value(oid: int, dimensions: int, types: Mapping[int, Type]) -> Value:
    """The JSON of a type. The number of an array's dimensions is that of its declaration."""
    found = types[oid]
    if found.base is not None:
        return _value(found.base, max(found.dimensions, dimensions), types)
    if found.element is not None:
        value = _value(found.element, 0, types)
        for _ in range(max(dimensions, 1)):
            value = Array(value)
        return value
    match found.kind:
        case "e":
            return Enum(found.labels)
        case "c":
            fields = (
                Field(each.name, _value(each.type, each.dimensions, types)) for each in found.fields
            )
            return Composite(found.name, tuple(fields))
        case _ if found.json_cast:
            return Scalar("json", found.name)
        case _:
            return SCALARS.get(found.name, Scalar("string", found.name))
