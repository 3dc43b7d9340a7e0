"""The JSON that columns become in messages, and the messages of a table."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import attrgetter
from typing import Literal, TypeAlias

from notifier.errors import NotifierError
from notifier.watches import Watch


@dataclass(frozen=True)
class Scalar:
    """A value without parts. `number`: a string where it is beyond 2^53, not finite or not a number.

    `integer` is always below 2^53. `json` may be any value. `sql`: the plain name of the type.
    """

    kind: Literal["boolean", "integer", "number", "string", "json"]
    sql: str


@dataclass(frozen=True)
class Enum:
    """A string that is one of these labels."""

    labels: tuple[str, ...]


@dataclass(frozen=True)
class Array:
    """An array; each element may be null."""

    item: Value


@dataclass(frozen=True)
class Field:
    """A field of a composite value; it may be null."""

    name: str
    value: Value


@dataclass(frozen=True)
class Composite:
    """An object with one property for each field of a composite type."""

    name: str
    fields: tuple[Field, ...]


@dataclass(frozen=True)
class Key:
    """The values of a key of several columns, in their order, as one array."""

    items: tuple[Value, ...]


Value: TypeAlias = Scalar | Enum | Array | Composite | Key


@dataclass(frozen=True)
class Property:
    """A property of `Data`. `sql`: the column's type as SQL has it, with its length and precision."""

    name: str
    value: Value
    is_nullable: bool
    sql: str


@dataclass(frozen=True)
class Table:
    """A watched table: the properties of its rows in messages, and those of a `Partial` message."""

    watch: Watch
    properties: tuple[Property, ...]
    others: tuple[Watch, ...] = ()
    """Watches of other scopes with the same entity."""

    @property
    def keys(self) -> tuple[Property, ...]:
        """The properties that name a row and its company, whatever the scope."""
        names = set.intersection(*map(_key_names, (self.watch, *self.others)))
        return tuple(each for each in self.properties if each.name in names)

    @property
    def row_name(self) -> str:
        """The name of the type of its rows."""
        return f"{self.watch.entity}Row"

    @property
    def old_name(self) -> str:
        """The name of the type of its rows' former values."""
        return f"{self.watch.entity}Old"

    @property
    def keys_name(self) -> str:
        """The name of the type of its keys."""
        return f"{self.watch.entity}Keys"


def _key_names(watch: Watch) -> set[str]:
    return {watch.company_property, *map(watch.property, (watch.key, *watch.identity))}


def merged(tables: Sequence[Table]) -> tuple[Table, ...]:
    """One table for each entity, which watches of several scopes may share.

    A property is null if it is in one of the scopes. Raises NotifierError where the messages or properties of an entity differ.
    """
    entities: dict[str, list[Table]] = {}
    for table in tables:
        entities.setdefault(table.watch.entity, []).append(table)
    return tuple(_merge(group) for group in entities.values())


def _merge(group: Sequence[Table]) -> Table:
    first, *others = group
    if not others:
        return first
    found: dict[tuple[str, Value], list[Property]] = {}
    for each in (each for table in group for each in table.properties):
        found.setdefault((each.name, each.value), []).append(each)
    names = {table.watch.names for table in group}
    if len(names) > 1 or any(len(same) < len(group) for same in found.values()):
        raise NotifierError(
            f"table {first.watch.table}: the watches of {first.watch.entity} have different messages or properties;"
            " choose another entity for one of them"
        )
    properties = (
        Property(
            name,
            value,
            any(each.is_nullable for each in same),
            " or ".join(dict.fromkeys(each.sql for each in same)),
        )
        for (name, value), same in found.items()
    )
    return Table(first.watch, tuple(properties), tuple(table.watch for table in others))


@dataclass(frozen=True)
class Change:
    """A message about a table's rows. `has_old`: it is about an update, and has `Old`."""

    type: str
    table: Table
    has_old: bool


@dataclass(frozen=True)
class Message:
    """Every change that is sent with this `Type`: several tables, or operations, may share one.

    `name` is that of its type in the generated code.
    """

    name: str
    type: str
    changes: tuple[Change, ...]


def declared(tables: Sequence[Table]) -> set[str]:
    """The names of the tables' types. Raises NotifierError where two have the same name."""
    names: set[str] = set()
    for table in tables:
        inner = [name for name, _ in composites(table)]
        for name in (table.row_name, table.old_name, table.keys_name, *inner):
            if name in names:
                raise NotifierError(
                    f"table {table.watch.table}: a second type would be called {name};"
                    " choose another entity, or rename the column"
                )
            names.add(name)
    return names


def messages(tables: Sequence[Table], reserved: Collection[str] = ()) -> list[Message]:
    """The messages about rows, sorted. Their names are neither `reserved` nor those of other types."""
    taken = declared(tables) | {*reserved}
    found = sorted(
        {change for table in tables for change in _changes(table)},
        key=lambda change: (change.type, change.table.watch.entity, change.has_old),
    )
    result = []
    for type_, changes in groupby(found, attrgetter("type")):
        name = unused(identifier(type_), taken)
        taken.add(name)
        result.append(Message(name, type_, tuple(changes)))
    return result


def _changes(table: Table) -> Iterator[Change]:
    created, updated, deleted = table.watch.names
    for name, has_old in ((created, False), (updated, True), (deleted, False)):
        if name is not None:
            yield Change(name, table, has_old)


def composites(table: Table) -> Iterator[tuple[str, Composite]]:
    """The composite types in a table's rows, each with a name of its own; inner ones come first."""
    for each in table.properties:
        yield from _composites(each.value, f"{table.watch.entity}{identifier(each.name)}")


def _composites(value: Value, name: str) -> Iterator[tuple[str, Composite]]:
    match value:
        case Array(item):
            yield from _composites(item, name)
        case Composite(_, fields):
            for each in fields:
                yield from _composites(each.value, f"{name}{identifier(each.name)}")
            yield name, value
        case _:
            return


def identifier(name: str) -> str:
    """A word that is an identifier in every language: `starts_at` → `StartsAt`, `2nd-row` → `_2ndRow`."""
    words = [word for word in re.split(r"[^A-Za-z0-9]+", name) if word]
    joined = "".join(word[:1].upper() + word[1:] for word in words) or "_"
    return f"_{joined}" if joined[0].isdigit() else joined


def unused(name: str, taken: Collection[str]) -> str:
    """The name, with underscores behind it where another thing has it."""
    while name in taken:
        name += "_"
    return name


def one_line(text: str) -> str:
    """A text that can stand in a comment of any language."""
    line = " ".join(text.split()).replace("\\", "/").replace("*/", "* /")
    return re.sub('"{2,}', '"', line)


def duplicates(names: Sequence[str]) -> list[str]:
    """The names that occur more than once."""
    return sorted({name for name in names if names.count(name) > 1})
