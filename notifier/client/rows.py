"""The rows of one company, kept from its state and the messages after it. No I/O."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from notifier.client.reports import CompanyState, Message, Row

_NAMES = re.compile(r"(.+?)(Created|Added|Updated|Deleted|Removed)")


class Names(NamedTuple):
    """The names of an entity's messages in `notifier.toml`, and the property that names a row, where that is not `EventId`."""

    created: str | None = None
    updated: str | None = None
    deleted: str | None = None
    key: str | None = None


class UnknownNames(Exception):
    """A message or a row cannot be attributed: give the entity's `Names` in `tables`."""


class Rows:
    """The rows of one entity, as of the client's position; of the one before while the state is read again.

    A number and its text are one key; the key of several columns is a list.
    """

    def __init__(self, entity: str, names: Names) -> None:
        self.entity = entity
        self._key = names.key
        self._rows: dict[str, Row] = {}

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[Row]:
        return iter(list(self._rows.values()))

    def __contains__(self, key: object) -> bool:
        return _text(key) in self._rows

    def get(self, key: object) -> Row | None:
        """The row with this key."""
        return self._rows.get(_text(key))

    def all(self) -> list[Row]:
        """All rows."""
        return list(self._rows.values())

    def key_of(self, row: Row) -> str:
        """The key of a row, as text. Raises UnknownNames."""
        if self._key is None:
            wanted = f"{self.entity}id".lower()
            found = (name for name in row if name.replace("_", "").lower() == wanted)
            self._key = next(found, None)
        if self._key is None or self._key not in row:
            raise UnknownNames(f"the key of {self.entity} is not known: give it in tables")
        return _text(row[self._key])

    def put(self, row: Row) -> None:
        """Adds a row, or replaces the one with its key."""
        self._rows[self.key_of(row)] = row

    def remove(self, row: Row) -> None:
        """Removes the row with its key."""
        self._rows.pop(self.key_of(row), None)

    def clear(self) -> None:
        """Removes all rows."""
        self._rows.clear()


class Store:
    """The rows of a company by entity. `names`: those of its messages, where they are not the usual ones."""

    def __init__(self, names: Mapping[str, Names] | None = None) -> None:
        self._names = dict(names or {})
        self._rows: dict[str, Rows] = {}
        self._where: Mapping[str, Mapping[str, list[Any]]] = {}

    def rows(self, entity: str) -> Rows:
        """Those of an entity; always the same object."""
        if entity not in self._rows:
            self._rows[entity] = Rows(entity, self._names.get(entity, Names()))
        return self._rows[entity]

    def replace(self, state: CompanyState) -> None:
        """Takes a state; what is not in it is removed. Raises UnknownNames."""
        self.restore(state.rows, state.where)

    def restore(
        self, rows: Mapping[str, list[Row]], where: Mapping[str, Mapping[str, list[Any]]] | None
    ) -> None:
        """The same, of rows that were saved."""
        self.clear()
        self._where = where or {}
        for entity, given in rows.items():
            table = self.rows(entity)
            for row in given:
                table.put(row)

    def apply(self, message: Message) -> None:
        """Takes a change. Raises UnknownNames."""
        entity, deletes = self._named(message)
        conditions = self._where.get(entity, {})
        # A row that has left the filter is reported once more. Keys only do not show whether it has.
        passes = all(
            name not in message.data or any(_same(message.data[name], value) for value in values)
            for name, values in conditions.items()
        )
        table = self.rows(entity)
        if deletes or not passes:
            table.remove(message.data)
        else:
            table.put(message.data)

    def clear(self) -> None:
        """Removes all rows."""
        for table in self._rows.values():
            table.clear()

    def saved(self) -> dict[str, list[Row]]:
        """All rows by entity, for JSON."""
        return {entity: table.all() for entity, table in self._rows.items()}

    def _named(self, message: Message) -> tuple[str, bool]:
        """The entity that a message is about, and whether the row is deleted."""
        for entity, names in self._names.items():
            if names.key is not None and names.key not in message.data:
                continue  # tables may share the name of a message
            if message.type in (names.created, names.updated):
                return entity, False
            if message.type == names.deleted:
                return entity, True
        match = _NAMES.fullmatch(message.type)
        if match is None:
            raise UnknownNames(
                f"the entity of {message.type} is not known: give its names in tables"
            )
        return match[1], match[2] in ("Deleted", "Removed")


def _text(key: object) -> str:
    return json.dumps(key) if isinstance(key, list | tuple | dict) else str(key)


def _same(one: object, other: object) -> bool:
    """Whether two values are equal as JSON: 1 is 1.0, and neither true nor "1"."""
    return isinstance(one, bool) is isinstance(other, bool) and one == other
