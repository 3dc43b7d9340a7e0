"""Captured changes, and the watched tables that they come from. Contains only value types."""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple

import msgspec

from notifier.messages import ALL_USERS, JSON
from notifier.watches import Watch

EVERY_COMPANY = ""
"""Stands for every company in the log; no company has this id."""

REVOKE_ALL = (ALL_USERS,)
"""As `revokes`: every user of the company is re-checked."""


SNAPSHOT = "->snapshot"
"""A column that capture adds to rows with a path: the writer's snapshot, where all its statements have the same."""

UNMOVED = "-> unmoved"
"""A column of the images of a row on a path that leads along another way to the same company. No entity has the name."""


class Source(msgspec.Struct, frozen=True, eq=False):
    """A watched table as the relay reads it: its watch, and its columns in the catalogue."""

    watch: Watch
    columns: frozenset[str] = frozenset()  # all that the table has
    json_columns: frozenset[str] = frozenset()  # their values are sent as they are
    time_columns: frozenset[str] = frozenset()  # timestamps: those without a zone are sent as UTC
    loose_columns: frozenset[str] = frozenset()  # equal values of theirs may have several texts
    column_versions: frozenset[str] = frozenset()  # of each: number, xmin in the catalogue, name
    is_respelled: bool = False  # equal keys may have several texts: 1.0 and 1.00
    is_key_awaited: bool = False  # to insert a key waits for its deletion to end
    virtual_columns: frozenset[str] = (
        frozenset()
    )  # generated on read, or another one has the name now
    hidden_columns: frozenset[str] = frozenset()  # excluded here, but captured for other watches
    tenant: str | None = None  # the company of all rows, where the table is of a schema per tenant
    scopes: frozenset[str] = frozenset()  # all that are configured
    foreign_columns: frozenset[str] = (
        frozenset()
    )  # added for other watches, or excluded under a former name
    others: tuple[Source, ...] = ()  # of the other watches of the table
    is_strayed: bool = False  # rows of another tenant's table are captured as those of this one

    def remembering(self, former: Source) -> Source:
        """This source with what `former` knows of columns that are gone: changes that have them may still be read.

        A column that was altered may have had other texts of its values in the same transaction: by another type, or a rewrite.
        """
        same = next((each for each in (former, *former.others) if each.watch == self.watch), self)
        return msgspec.structs.replace(
            self,
            json_columns=self.json_columns | (same.json_columns - self.columns),
            time_columns=self.time_columns | (same.time_columns - self.columns),
            loose_columns=self.loose_columns.union(
                same.loose_columns,
                (each.split(" ", 2)[2] for each in self.column_versions - same.column_versions),
            ),
            is_key_awaited=self.is_key_awaited and same.is_key_awaited,
            virtual_columns=self.virtual_columns | (same.virtual_columns - self.columns),
            others=tuple(each.remembering(former) for each in self.others),
        )

    @property
    def only_company(self) -> str:
        """The one company that rows of the table may belong to; EVERY_COMPANY where there are others."""
        companies = {source.tenant for source in (self, *self.others)}
        company = companies.pop()
        return EVERY_COMPANY if companies or company is None else company

    @property
    def grants(self) -> bool:
        """Whether a row of the table may give a user access to a company."""
        return any(source.watch.grants for source in (self, *self.others))


class Change(NamedTuple):
    """A row of `notifier.changes`: the images of a row before and after a write.

    There is no `old` for an insertion, no `new` for a deletion, and neither for a TRUNCATE. `partial`:
    the images have key and company only, or are missing although there was a row. The user of a partial
    member row is not in its images, so its `revokes` is REVOKE_ALL: every user of the company is re-checked.
    `traceparent`: as the writer set it, valid or not.
    """

    id: int
    xid: int
    entity: str
    old: JSON | None
    new: JSON | None
    partial: bool
    actor: str | None
    at: datetime
    traceparent: str | None = None

    @property
    def begins_epoch(self) -> bool:
        """Whether it is the mark of a `migrate` that has emptied the log (`announce_configuration.sql`)."""
        return not self.entity and self.partial

    @property
    def is_truncate(self) -> bool:
        """Whether the whole table was emptied."""
        return self.old is None and self.new is None and not self.partial
