"""Selects changes by entity and by column values: the filter of a subscription.

    wanted = Filter.parse(["Event"], {"Event": {"OrganizerId": ["u1", None]}}, properties)
    index = FilterIndex()
    index.add(wanted)
    index.passing(Change(message.body, entities))

A filter saves traffic; it does not protect data.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Any, Self, TypeAlias

import msgspec

from notifier.errors import BadFilter, UnknownName
from notifier.messages import JSON

PROPERTY_LIMIT = 10
"""Properties that one filter may name, over all its entities."""

VALUE_LIMIT = 100
"""Values that one filter may list for one property."""

NAME_LIMIT = 100
"""The answer repeats this many characters of an unknown name."""

Value: TypeAlias = "str | int | float | tuple[str, bool] | None"
"""A JSON scalar that compares as in JSON: 1 is 1.0, but neither "1" nor true."""

Conditions: TypeAlias = tuple[tuple[str, frozenset[Value]], ...]
"""Properties and the values that pass; all of them must pass. In the order of the properties."""

Properties: TypeAlias = Mapping[str, frozenset[str]]
"""The properties of each entity that filters may name."""

Entities: TypeAlias = Mapping[str, str]
"""The entity of each `Type` of a message."""

ABSENT, _UNREAD, _NO_SCALAR = object(), object(), object()


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class Filter:
    """One filter, compared by identity: FilterCatalogue returns one object for equal filters.

    `entities`: None means all. `where`: the conditions of each entity that has some. Both have one
    form, however the client spelled them.
    """

    entities: frozenset[str] | None
    where: tuple[tuple[str, Conditions], ...] = ()

    @classmethod
    def parse(cls, entities: Any, where: Any, properties: Properties) -> Self:
        """From the JSON that a client sent, None where it sent nothing. Raises BadFilter."""
        if entities is not None:
            if not isinstance(entities, list) or not entities:
                raise BadFilter("entities must be a list of at least one entity")
            for entity in entities:
                _check_known(entity, properties, "entity")
        if where is None:
            where = {}
        if not isinstance(where, dict):
            raise BadFilter("where must be an object: entity, property, list of values")
        parsed = []
        for entity, given in sorted(where.items()):
            _check_known(entity, properties, "entity")
            if entities is not None and entity not in entities:
                raise BadFilter(f"where has {entity}, which entities leaves out")
            if conditions := _conditions(entity, given, properties[entity]):
                parsed.append((entity, conditions))
        if sum(len(conditions) for _, conditions in parsed) > PROPERTY_LIMIT:
            raise BadFilter(f"more than {PROPERTY_LIMIT} properties")
        return cls(None if entities is None else frozenset(entities), tuple(parsed))

    @property
    def passes_all(self) -> bool:
        """Whether it is the same as no filter."""
        return self.entities is None and not self.where

    def conditions(self, entity: str) -> Conditions | None:
        """The conditions for rows of this entity; None where no row passes."""
        if self.entities is not None and entity not in self.entities:
            return None
        return next((given for name, given in self.where if name == entity), ())

    def passes(self, change: Change) -> bool:
        """Whether the row passes before or after the change."""
        if change.entity is None:
            return True
        conditions = self.conditions(change.entity)
        if conditions is None:
            return False
        return not conditions or any(_meets(row, conditions) for row in change.rows)


class Change:
    """A message, as filters see it.

    `entity`: None where every filter passes: a Resync, or a table that is not watched any more.
    """

    __slots__ = ("_parsed", "_rows", "entity")

    def __init__(self, body: JSON, entities: Entities) -> None:
        self._rows: tuple[Row, ...] | None = None
        try:
            self._parsed = _decode(body)
        except _UNREADABLE:
            self.entity = None
        else:
            self.entity = entities.get(self._parsed.type)

    @property
    def rows(self) -> tuple[Row, ...]:
        """The row before and after the change, or the one of both that there is."""
        if self._rows is None:
            data = _columns(self._parsed.data)
            old = _columns(self._parsed.old)
            self._rows = (Row(data), Row({**data, **old})) if old else (Row(data),)
        return self._rows


class Row:
    """The values of a row, decoded when they are looked up: json columns hold what no decoder takes."""

    __slots__ = ("_columns", "_values")

    def __init__(self, columns: dict[str, msgspec.Raw]) -> None:
        self._columns = columns
        self._values: dict[str, object] = {}

    def get(self, name: str) -> object:
        """The value of a property as a Value, ABSENT, or something else that equals no Value."""
        if (value := self._values.get(name, _UNREAD)) is _UNREAD:
            raw = self._columns.get(name)
            value = self._values[name] = ABSENT if raw is None else _read(raw)
        return value


class FilterIndex:
    """Distinct filters by entity, and by the values of one property where they have conditions."""

    def __init__(self) -> None:
        self._filters: set[Filter] = set()
        self._entities: dict[str, _EntityIndex] = {}

    def __len__(self) -> int:
        return len(self._filters)

    def add(self, wanted: Filter) -> None:
        """Adds a filter."""
        self._filters.add(wanted)
        for index in self._entities.values():
            index.add(wanted)

    def remove(self, wanted: Filter) -> None:
        """Removes a filter that was added."""
        self._filters.remove(wanted)
        for index in self._entities.values():
            index.remove(wanted)

    def passing(self, change: Change) -> AbstractSet[Filter]:
        """The filters that a change passes."""
        if change.entity is None:
            return self._filters
        index = self._entities.get(change.entity)
        if index is None:
            index = self._entities[change.entity] = _EntityIndex(change.entity)
            for wanted in self._filters:
                index.add(wanted)
        return index.passing(change)


class _EntityIndex:
    """The filters that rows of one entity may pass."""

    def __init__(self, entity: str) -> None:
        self._entity = entity
        self._whole: set[Filter] = set()
        self._by_property: dict[str, _PropertyIndex] = {}

    def add(self, wanted: Filter) -> None:
        conditions = wanted.conditions(self._entity)
        if conditions is None:
            return
        if not conditions:
            self._whole.add(wanted)
            return
        name, values = narrowest = _narrowest(conditions)
        others = tuple(each for each in conditions if each is not narrowest)
        if (index := self._by_property.get(name)) is None:
            index = self._by_property[name] = _PropertyIndex()
        index.filters[wanted] = others
        for value in values:
            index.by_value.setdefault(value, {})[wanted] = others

    def remove(self, wanted: Filter) -> None:
        conditions = wanted.conditions(self._entity)
        if conditions is None:
            return
        if not conditions:
            self._whole.discard(wanted)
            return
        name, values = _narrowest(conditions)
        index = self._by_property[name]
        del index.filters[wanted]
        if not index.filters:
            del self._by_property[name]
            return
        for value in values:
            del index.by_value[value][wanted]
            if not index.by_value[value]:
                del index.by_value[value]

    def passing(self, change: Change) -> AbstractSet[Filter]:
        if not self._by_property:
            return self._whole
        found = set(self._whole)
        for name, index in self._by_property.items():
            for row in change.rows:
                value = row.get(name)
                # keys only: the other properties may pass
                candidates = index.filters if value is ABSENT else index.by_value.get(value, _NONE)
                for wanted, others in candidates.items():
                    if not others or _meets(row, others):
                        found.add(wanted)
        return found


class _PropertyIndex:
    """The filters whose narrowest condition is on one property, each with its other conditions."""

    __slots__ = ("by_value", "filters")

    def __init__(self) -> None:
        self.filters: dict[Filter, Conditions] = {}
        self.by_value: dict[object, dict[Filter, Conditions]] = {}


class _Body(msgspec.Struct, rename="pascal"):
    type: str
    data: msgspec.Raw
    old: msgspec.Raw = msgspec.Raw(b"{}")


_NONE: Mapping[Filter, Conditions] = {}

_decode = msgspec.json.Decoder(_Body).decode
_decode_columns = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode

_UNREADABLE = (msgspec.DecodeError, ValueError, RecursionError)


def _columns(row: msgspec.Raw) -> dict[str, msgspec.Raw]:
    try:
        return _decode_columns(row)
    except _UNREADABLE:  # as if it had its keys only
        return {}


def _read(raw: msgspec.Raw) -> object:
    text = bytes(raw)
    if text[:1] in b"[{":
        return _NO_SCALAR
    try:
        return _value(msgspec.json.decode(text))
    except _UNREADABLE:
        return _NO_SCALAR


def _narrowest(conditions: Conditions) -> tuple[str, frozenset[Value]]:
    """The condition with the fewest values."""
    return min(conditions, key=lambda condition: len(condition[1]))


def _meets(row: Row, conditions: Conditions) -> bool:
    """Whether every property that the row has passes; a message may have its keys only."""
    for name, values in conditions:
        value = row.get(name)
        if value is not ABSENT and value not in values:
            return False
    return True


def _value(value: Any) -> Value:
    """A JSON scalar so that true is not 1, as it is in Python."""
    return ("bool", value) if isinstance(value, bool) else value


def _conditions(entity: str, given: Any, properties: frozenset[str]) -> Conditions:
    if not isinstance(given, dict):
        raise BadFilter(f"where: {entity} must be an object: property, list of values")
    return tuple(
        (name, _values(f"{entity}.{name}", values))
        for name, values in sorted(given.items())
        if _check_known(name, properties, f"property of {entity}")
    )


def _values(name: str, values: Any) -> frozenset[Value]:
    if not isinstance(values, list) or not values:
        raise BadFilter(f"where: {name} must be a list of at least one value")
    if len(values) > VALUE_LIMIT:
        raise BadFilter(f"where: {name} has more than {VALUE_LIMIT} values")
    if not all(value is None or isinstance(value, str | int | float) for value in values):
        raise BadFilter(f"where: the values of {name} must be strings, numbers, booleans or null")
    return frozenset(map(_value, values))


def _check_known(name: Any, names: Iterable[str], kind: str) -> bool:
    """Returns True, or raises BadFilter."""
    if not isinstance(name, str):
        raise BadFilter("entities must be strings")
    if name not in names:
        raise UnknownName(f"unknown {kind}: {name[:NAME_LIMIT]}")
    return True
