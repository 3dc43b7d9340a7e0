"""Table names in which `*` stands for a part of the schema's name: a schema per tenant."""

from __future__ import annotations

import re
from typing import NamedTuple, Self

_PART = r'\s*("(?:[^"]|"")+"|[^".\s]+)\s*'
_QUALIFIED = re.compile(rf"{_PART}\.{_PART}")
_QUOTED = re.compile(r'"(?:[^"]|"")*"')


class Pattern(NamedTuple):
    """Names as the catalogue has them. `*` stands for any characters, in the schema alone."""

    schema: str
    table: str

    @classmethod
    def parse(cls, name: str) -> Self | None:
        """A table's name as in SQL, with `*` in its schema; None where it has none.

        Raises ValueError where `*` stands anywhere else.
        """
        parts = _QUALIFIED.fullmatch(name)
        if parts is not None and "*" in parts[1] and "*" not in _QUOTED.sub("", parts[2]):
            return cls(folded(parts[1]), folded(parts[2]))
        if "*" in _QUOTED.sub("", name):
            raise ValueError(
                "* can stand for a part of a schema's name only, such as workspace_*.person"
            )
        return None

    def matches(self, schema: str) -> bool:
        """Whether it matches a schema. `_` and `%` are characters like others."""
        return is_like(schema, self.schema)


class Only(NamedTuple):
    """Tables to which a command is restricted; `*` stands for any characters, in both names."""

    schema: str
    table: str

    @classmethod
    def parse(cls, text: str) -> Self:
        """`workspace_x.*`: a schema and a table as in SQL, with `*` in them. Raises ValueError."""
        parts = _QUALIFIED.fullmatch(text)
        if parts is None:
            raise ValueError("name a schema and its tables, such as workspace_x.*")
        return cls(folded(parts[1]), folded(parts[2]))

    def names(self, schema: str, table: str) -> bool:
        """Whether the table is one of them."""
        return is_like(schema, self.schema) and is_like(table, self.table)


def is_like(name: str, pattern: str) -> bool:
    """Whether a name matches a pattern in which `*` stands for any characters."""
    parts = map(re.escape, pattern.split("*"))
    return re.fullmatch(".*".join(parts), name, re.DOTALL) is not None


def folded(name: str) -> str:
    """A name as the catalogue has it, which may be written as in SQL: in quotes, or in capitals."""
    if name[:1] == name[1:][-1:] == '"':
        return name[1:-1].replace('""', '"')
    return name.lower()


def quoted(name: str) -> str:
    """A name of the catalogue as it is written in SQL."""
    plain = re.fullmatch(r"[a-z_][a-z0-9_]*", name)
    return name if plain else '"' + name.replace('"', '""') + '"'
