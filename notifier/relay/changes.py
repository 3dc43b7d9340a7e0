"""Captured changes, and the watched tables that they come from. Values only."""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple

import msgspec

from notifier.messages import JSON

EVERY_COMPANY = ""
"""Stands for every company that the log knows; no company has this id."""

ANY_USER = ("*",)
"""In `revokes`: any user may have lost the company, so each of them is re-checked."""


class Watched(msgspec.Struct, frozen=True, eq=False):
    """How the rows of one entity become messages. A message whose name is None is not sent."""

    entity: str
    key: str
    company: str
    member: str | None
    created: str | None
    updated: str | None
    deleted: str | None
    untouched: frozenset[str] = frozenset()  # json columns: their values are sent as they are
    virtual: frozenset[str] = frozenset()  # generated on read: triggers see null in them

    @property
    def grants(self) -> bool:
        """Whether a row of it may give a user access to a company."""
        return self.member is not None or self.key == self.company

    def property(self, column: str) -> str:
        """The property that a column is sent as: `starts_at` → `StartsAt`, the key → `EventId`."""
        if column == self.key:
            return f"{self.entity}Id"
        if column == self.company:
            return "CompanyId"
        return "".join(word[:1].upper() + word[1:] for word in column.split("_"))


class Change(NamedTuple):
    """A row of `notifier.changes`: the images of a row before and after a write.

    There is no `old` for an insertion, no `new` for a deletion, and neither for a TRUNCATE. `partial`:
    the images hold key and company only, or are missing although there was a row.
    """

    id: int
    xid: int
    entity: str
    old: JSON | None
    new: JSON | None
    partial: bool
    actor: str | None
    at: datetime

    @property
    def is_truncate(self) -> bool:
        """Whether the whole table was emptied."""
        return self.old is None and self.new is None and not self.partial
