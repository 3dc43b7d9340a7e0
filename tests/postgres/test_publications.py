"""A database whose tables are all published, as Debezium does by default, and blue/green switches do."""

from __future__ import annotations

import pytest

from notifier.database.schema import migrate
from notifier.watches import CALENDAR, Watch
from tests.databases import Connection, Database
from tests.postgres.relays import Relayed, log_head, new_event, types
from tests.postgres.test_continuity import epoch_after


@pytest.fixture
async def published(database: Database) -> Database:
    await database.execute("CREATE PUBLICATION everything FOR ALL TABLES")
    return database


@pytest.mark.parametrize("is_read", [False, True])
async def test_an_epoch_begins(
    published: Database, app: Connection, company: str, relay: Relayed, is_read: bool
) -> None:
    """It deletes changes of other clusters, and messages where they are being read: both without a primary key."""
    await new_event(app, company, "before")
    await relay.settled()
    before, _ = await log_head(published)
    reading = await published.connect()
    async with reading.transaction():
        if is_read:
            await reading.fetch("SELECT count(*) FROM notifier.messages")
        await published.execute("UPDATE notifier.log SET saved_by = '0'")
        await epoch_after(published, before)
    await new_event(app, company, "after")
    assert types(await relay.messages_of(company)) == ["Resync", "EventCreated"]


async def test_a_column_is_hidden(
    published: Database, app: Connection, company: str, relay: Relayed
) -> None:
    await new_event(app, company, "before")
    await relay.settled()
    before, _ = await log_head(published)
    events = Watch(table="events", entity="Event", exclude=("description",))
    await migrate(published.dsn, watches=[events, *CALENDAR[1:]])
    await epoch_after(published, before)
    await new_event(app, company, "after")
    assert types(await relay.messages_of(company))[-1] == "EventCreated"
