"""A column that is excluded from now on: none of its former values stays readable in the log."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace

import pytest

from notifier.database import sql
from notifier.database.constants import TABLE_BIT
from notifier.database.schema import migrate
from notifier.messages import Message
from notifier.relay.reader import PAGE
from notifier.relay.store import RelayStore
from notifier.watches import CALENDAR, Watch
from tests.databases import Connection, Database
from tests.postgres.relays import Relayed, log_head, messages_of, new_event, types
from tests.waiting import until

EVENT, EMPLOYEE, COMPANY = CALENDAR
EXCLUDED = [replace(EVENT, exclude=("location",)), EMPLOYEE, COMPANY]

SECRET = "a secret place"


@pytest.fixture
def maintenance_is_never_due(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("notifier.relay.maintenance.AWAKE_SECONDS", 1e9)
    monkeypatch.setattr("notifier.relay.maintenance.ASLEEP_SECONDS", 1e9)


async def new_secrets(app: Connection, company: str, count: int = 1) -> None:
    """Inserts events, a hundred in a transaction, whose location is SECRET."""
    for first in range(0, count, 100):
        await app.execute(
            "INSERT INTO events (company_id, title, location, starts_at, ends_at)"
            " SELECT $1, n::text, $2, now(), now() FROM generate_series(1, $3::int) AS n",
            company,
            SECRET,
            min(100, count - first),
        )


async def secrets(database: Database) -> int:
    """The rows of the log in which SECRET can be read."""
    return int(
        await database.fetchval(
            "SELECT (SELECT count(*) FROM notifier.messages WHERE body::text LIKE $1)"
            " + (SELECT count(*) FROM notifier.changes WHERE concat(old, new) LIKE $1)",
            f"%{SECRET}%",
        )
    )


async def epoch_after(database: Database, before: str) -> None:
    """Returns when another epoch has begun."""

    async def begun() -> bool:
        return (await log_head(database))[0] != before

    await until(begun)


@pytest.mark.usefixtures("maintenance_is_never_due")
@pytest.mark.parametrize("table", [0, 1])
async def test_the_mark_of_migrate_begins_an_epoch_from_either_table_of_changes(
    table: int, database: Database, app: Connection, company: str
) -> None:
    await database.execute(f"SELECT setval('notifier.change_ids', {(table << TABLE_BIT) + 1000})")
    relay = Relayed(database)
    await relay.start()
    try:
        await new_secrets(app, company)
        await relay.settled()
        before, _ = await log_head(database)
        await migrate(database.dsn, watches=EXCLUDED)
        await epoch_after(database, before)
        assert await database.fetchval(
            f"SELECT count(*) FROM notifier.changes_{table} WHERE entity = '' AND partial"
        )
        assert await secrets(database) == 0
        assert types(await messages_of(database, company)) == ["Resync"]
    finally:
        await relay.stop()


@pytest.mark.parametrize("count", [1, PAGE + 500], ids=["one batch", "pages of a backlog"])
async def test_what_was_rendered_before_is_not_stored_afterwards(
    count: int,
    database: Database,
    app: Connection,
    company: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The relay has read and rendered the changes, and stores the messages after `migrate`."""
    rendered, go_on = asyncio.Event(), asyncio.Event()
    readable: list[int] = []
    append = RelayStore.append

    async def held(store: RelayStore, messages: Sequence[Message], cursor: str | None) -> None:
        if any(SECRET.encode() in message.body for message in messages):
            rendered.set()
            await go_on.wait()
            await append(store, messages, cursor)
            readable.append(await secrets(database))
        else:
            await append(store, messages, cursor)

    monkeypatch.setattr(RelayStore, "append", held)
    await database.execute(sql.query("register_companies"), [company])
    await new_secrets(app, company, count)
    relay = Relayed(database)
    await relay.start()
    try:
        await rendered.wait()
        before, _ = await log_head(database)
        await migrate(database.dsn, watches=EXCLUDED)
        go_on.set()
        await epoch_after(database, before)
        assert not any(readable)
        await new_event(app, company, "after")
        messages = await relay.messages_of(company)
        assert types(messages) == ["Resync", "EventCreated"]
        assert "Location" not in messages[1]["Data"]
        assert await secrets(database) == 0
    finally:
        await relay.stop()


async def test_a_column_is_excluded_although_its_table_has_another_entity_from_now_on(
    database: Database, app: Connection, company: str, relay: Relayed
) -> None:
    await new_secrets(app, company)
    await relay.settled()
    before, _ = await log_head(database)
    meeting = Watch(table="events", entity="Meeting", exclude=("location",))
    lines: list[str] = []
    await migrate(database.dsn, watches=[meeting, EMPLOYEE, COMPANY], report=lines.append)
    assert (
        "events: exclude +location: new messages without it; the log is emptied, new epoch" in lines
    )
    await epoch_after(database, before)
    assert await secrets(database) == 0
    await new_event(app, company)
    assert types(await relay.messages_of(company)) == ["Resync", "MeetingCreated"]
