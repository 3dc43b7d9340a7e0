"""What filters may name: the entities that are watched, and the properties of their messages."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from math import inf
from typing import Any
from weakref import WeakValueDictionary

from notifier.database import sql
from notifier.database.answers import typed
from notifier.database.batching import Batcher
from notifier.database.query import Query
from notifier.delivery.filter import Filter, Properties
from notifier.errors import DatabaseError, UnknownName
from notifier.watches import Watch

REREAD_SECONDS = 1.0
"""How old the columns must be before an unknown name makes the node read them again without another version."""

READINGS = 3
"""How often a filter's columns are read at most, while other versions of the catalogue are found during each reading."""

VERSIONS = 100
"""How many versions are known at most: a connection pooler lends a session, and so a version, of many."""


class FilterCatalogue:
    """Parses filters. Reads the columns at the first one, and again where the catalogue has another version.

    The version (docs/decisions/24) is queried for a filter that names properties; filters that arrive during the query share
    the next one.

    `entities`: the entity of each `Type`, as watched now; it is the same object for ever. `restricts`: whether some rows
    are only for users whom they name.
    """

    def __init__(self, query: Query) -> None:
        self.entities: dict[str, str] = {}
        self.restricts = False
        self._query = query
        self._properties: Properties | None = None
        self._read_at = 0.0
        self._reading = asyncio.Lock()
        self._uses = self._discards = 0
        self._versions: set[int] = set()  # those in which the columns are what was read
        self._batcher = Batcher(self._query_version)
        # So that subscribers with equal filters are one group, and share its memory.
        self._filters: WeakValueDictionary[tuple[object, object], Filter] = WeakValueDictionary()

    def use(self, watches: Sequence[Watch]) -> None:
        """The configuration is another one: the columns are read again for the next filter."""
        self._uses += 1
        self._discard()
        self._replace_entities(watches)

    async def parse(self, entities: Any, where: Any) -> Filter | None:
        """The filter in a client's JSON; None where everything passes. Raises BadFilter, DatabaseError."""
        if entities is None and where is None:
            return None
        if where:
            with suppress(DatabaseError):  # the columns that are known, if any, must do
                await self._batcher.get(None)
        try:
            wanted = Filter.parse(entities, where, await self._current())
        except UnknownName:  # a restored or recreated table has no version before `migrate`
            wanted = Filter.parse(entities, where, await self._current(REREAD_SECONDS))
        if wanted.passes_all:
            return None
        return self._filters.setdefault((wanted.entities, wanted.where), wanted)

    async def _query_version(self, _: Sequence[None]) -> Mapping[None, None]:
        """Discards the columns unless this version of them is known. Each session has versions of its own."""
        ((version,),) = await self._query.read(
            lambda rows: typed(rows, tuple[int]), sql.adapt("SELECT notifier.catalogue_version()")
        )
        if version not in self._versions:
            self._discard()
            if len(self._versions) == VERSIONS:
                self._versions.clear()
            self._versions.add(version)
        return {None: None}

    def _discard(self) -> None:
        self._discards += 1
        self._properties = None

    async def _current(self, age: float = inf) -> Properties:
        """The properties, as they were read not longer ago than `age` seconds."""
        if (known := self._recent(age)) is not None:  # it does not wait for the reads of others
            return known
        async with self._reading:
            known = self._recent(age)
            return await self._read() if known is None else known

    def _recent(self, age: float) -> Properties | None:
        return self._properties if time.monotonic() <= self._read_at + age else None

    async def _read(self) -> Properties:
        readings = 0
        while True:
            uses, discards, self._read_at = self._uses, self._discards, time.monotonic()
            read = await self._query.read(
                lambda rows: [(Watch.from_row(row), list(row["columns"])) for row in rows],
                sql.query("watched_columns"),
            )
            readings += 1
            is_newest = discards == self._discards  # else the watches or the columns are newer
            if is_newest or (readings >= READINGS and uses == self._uses):
                break
        self._replace_entities([watch for watch, _ in read])
        found: dict[str, frozenset[str]] = {}
        for watch, columns in read:  # watches of two scopes may share an entity
            sent = [column for column in columns if column not in watch.exclude]
            names = {watch.company_property, *map(watch.property, sent)}
            found[watch.entity] = found.get(watch.entity, frozenset()) | names
        if is_newest:  # else they are new enough for this filter, which was sent before the reading
            self._properties = found
        return found

    def _replace_entities(self, watches: Sequence[Watch]) -> None:
        self.restricts = any(watch.visible_to for watch in watches)
        self.entities.clear()
        self.entities |= {
            name: watch.entity for watch in watches for name in watch.names if name is not None
        }
