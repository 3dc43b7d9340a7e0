"""A path along foreign keys to a row's company: `"bookingId" -> "Booking"."eventTypeId" -> "EventType"."teamId"`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Self

ARROW = "->"

_NAME = r'(?:"(?:[^"]|"")+"|[^\s".>-][^\s".>]*)'
_STEP = re.compile(rf"\s*((?:{_NAME}\.)*{_NAME})\s*")


@dataclass(frozen=True)
class Step:
    """A table on the path, as in SQL, and its column that leads on: to the next table, or the company."""

    table: str
    column: str


@dataclass(frozen=True)
class Path:
    """From the column `start` of the watched table over `steps`; columns as the catalogue has them."""

    start: str
    steps: tuple[Step, ...]

    @classmethod
    def parse(cls, text: str) -> Self:
        """Raises ValueError, in one line."""
        parts = [_STEP.fullmatch(part) for part in _split(text)]
        names = [re.findall(_NAME, part[1]) if part is not None else [] for part in parts]
        if len(names[0]) != 1 or any(len(each) not in (2, 3) for each in names[1:]):
            raise ValueError(
                f"company {text} is no path: write a column of the table, then -> TABLE.COLUMN for each"
                """ foreign key, as in '"bookingId" -> "Booking"."teamId"'"""
            )
        steps = (Step(".".join(table), unquoted(column)) for *table, column in names[1:])
        return cls(unquoted(names[0][0]), tuple(steps))


def is_path(text: str) -> bool:
    """Whether a company is named by a path, not by a column."""
    return len(_split(text)) > 1


def normalized(text: str) -> str:
    """The same path with one space around each arrow."""
    return f" {ARROW} ".join(part.strip() for part in _split(text))


def _split(text: str) -> list[str]:
    """At the arrows that are not within quotes."""
    return re.split(r'->(?=(?:[^"]*"[^"]*")*[^"]*$)', text)


def unquoted(column: str) -> str:
    """A column as the catalogue has it; it may be written as in SQL, in quotes."""
    if column[:1] == column[1:][-1:] == '"':
        return column[1:-1].replace('""', '"')
    return column
