"""A node of a newer version waits for `notifier migrate` while the schema lacks a column of its watches."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import asyncpg
import pytest

from notifier.check.links import check
from notifier.database.query import Query
from notifier.database.schema import migrate, migrate_only
from notifier.errors import DatabaseError, SchemaMissing
from notifier.relay.connection import RelayConnection
from notifier.relay.store import RelayStore
from notifier.settings import Settings, load
from notifier.watchdogs import follow_configuration
from notifier.watches import Scope, Watch
from tests.databases import Database
from tests.waiting import until

OLDER = "ALTER TABLE notifier.watches RENAME COLUMN exclude TO not_yet"
NEWER = "ALTER TABLE notifier.watches RENAME COLUMN not_yet TO exclude"


class Counted(Query):
    """Counts its answers."""

    answers = 0

    async def fetch(self, *arguments: Any, **options: Any) -> list[asyncpg.Record]:
        rows = await super().fetch(*arguments, **options)
        self.answers += 1
        return rows


async def test_a_relay_reports_that_its_watches_lack_a_column(
    database: Database,
) -> None:
    await database.execute(OLDER)
    owner = await database.connect()
    with pytest.raises(SchemaMissing, match="has no column exclude; run: notifier migrate"):
        await RelayStore(RelayConnection(owner)).load_sources()


async def test_migrate_and_check_name_a_column_that_no_revision_adds(database: Database) -> None:
    await database.execute(OLDER)
    for attempt in (
        migrate(database.dsn),
        migrate(database.dsn, dry_run=True),
        migrate_only(database.dsn, "tenant_*.*"),
    ):
        with pytest.raises(DatabaseError, match="has no column exclude: restore it") as raised:
            await attempt
        assert "run: notifier migrate" not in str(raised.value)
    facts = [each.fact for each in await check(load({}, database_url=database.dsn))]
    assert any("has no column exclude: restore it" in fact for fact in facts), facts
    await database.execute(NEWER)
    await migrate(database.dsn)


async def test_a_node_waits_for_the_missing_column_of_its_watches(
    database: Database,
) -> None:
    await database.execute(OLDER)
    query = Counted(database.dsn, "test", pooled=False)
    changed = asyncio.Event()
    used: list[Sequence[Watch]] = []

    def use(watches: Sequence[Watch], scopes: Sequence[Scope]) -> None:
        used.append(watches)

    following = asyncio.create_task(follow_configuration(Settings(), query, changed, use))

    async def has_tried_again() -> bool:
        if following.done():
            following.result()
        return query.answers > 1

    await until(has_tried_again)
    assert used == []
    await database.execute(NEWER)

    async def is_used() -> bool:
        return used != []

    await until(is_used)
    assert {watch.entity for watch in used[0]} == {"Company", "Employee", "Event"}
    following.cancel()
    query.close()
