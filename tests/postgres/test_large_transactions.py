"""Transactions that are too large for memory: netted company by company, whatever they hold beside rows of companies."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import uuid4

import pytest
from asyncpg.transaction import Transaction

from notifier.database.schema import migrate
from notifier.relay import backlog, pipeline, reader
from notifier.relay.changes import Change
from notifier.watches import CALENDAR, Watch
from tests.databases import Connection, Database
from tests.postgres.relays import MakeRelay, Relayed, new_company, new_event, types

MANY = (
    "INSERT INTO events (company_id, title, starts_at, ends_at)"
    " SELECT $1, 'x', now(), now() FROM generate_series(1, 10)"
)

LINK = "SELECT pid FROM pg_stat_activity WHERE application_name = 'notifier relay' AND datname = current_database()"


@pytest.fixture(autouse=True)
def small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    """A transaction of more than five changes is a large one."""
    for module in (backlog, reader):
        monkeypatch.setattr(module, "PAGE", 5)


async def test_of_equal_changes_for_every_company_in_a_large_transaction_the_last_is_held(
    app: Connection, company: str, relay: Relayed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There may be millions, as of rows without a company."""
    net_, held = pipeline.Pipeline.net, list[list[str]]()

    async def observed(self: pipeline.Pipeline, changes: Sequence[Change], *rest: Any) -> Any:
        held.append([change.entity for change in changes if change.is_truncate])
        return await net_(self, changes, *rest)

    await new_event(app, company, "before")
    await relay.settled()
    monkeypatch.setattr(pipeline.Pipeline, "net", observed)
    async with app.transaction():
        await app.execute(MANY, company)
        for _ in range(3):
            await app.execute("TRUNCATE events")
        await app.execute(MANY, company)
    assert types(await relay.messages_of(company)) == [
        "EventCreated",
        "Resync",
        *["EventCreated"] * 10,
    ]
    assert [entities for entities in held if entities] == [["Event"]]


@pytest.mark.parametrize("spelling", ["upper", "lower"])
async def test_a_company_in_another_spelling_only_where_its_row_counts_as_deleted_gets_a_resync(
    spelling: str, database: Database, app: Connection, make_relay: MakeRelay
) -> None:
    company = str(uuid4())
    await database.execute(
        "CREATE TABLE notes (id int PRIMARY KEY, company_id text, body text, gone boolean);"
        " GRANT ALL ON notes TO app"
    )
    note = Watch(table="notes", entity="Note", deleted_if="gone")
    await migrate(database.dsn, watches=[*CALENDAR, note])
    other = "lower" if spelling == "upper" else "upper"
    await app.execute(f"INSERT INTO notes VALUES (1, {other}($1), 'a')", company)
    relay = make_relay()
    await relay.start()
    await relay.settled()
    async with app.transaction():
        await app.execute("INSERT INTO notes SELECT n, 'c', '' FROM generate_series(2, 9) AS n")
        for company_id, body, gone in (
            (f"{spelling}(company_id)", "b", True),
            (f"{other}(company_id)", "c", False),
            ("company_id", "d", False),
        ):
            await app.execute(
                f"UPDATE notes SET company_id = {company_id}, body = $1, gone = $2 WHERE id = 1",
                body,
                gone,
            )
    message = (await relay.messages_of(company))[-1]
    assert (message["Type"], message["Data"].get("Reason")) == ("Resync", "bulk")
    assert types(await relay.messages_of("c")) == ["NoteCreated"] * 8


async def test_a_company_that_is_a_number_in_one_table_and_a_text_in_another_gets_its_messages(
    database: Database, app: Connection, make_relay: MakeRelay
) -> None:
    await database.execute(
        "CREATE TABLE notes (id int PRIMARY KEY, company_id text);"
        " CREATE TABLE tasks (id int PRIMARY KEY, company_id int);"
        " GRANT ALL ON notes, tasks TO app"
    )
    watches = [Watch(table="notes", entity="Note"), Watch(table="tasks", entity="Task")]
    await migrate(database.dsn, watches=[*CALENDAR, *watches])
    relay = make_relay()
    await relay.start()
    await relay.settled()
    async with app.transaction():
        for table in ("notes", "tasks"):
            await app.execute(f"INSERT INTO {table} SELECT n, '7' FROM generate_series(1, 5) AS n")
    assert sorted(types(await relay.messages_of("7"))) == ["NoteCreated"] * 5 + ["TaskCreated"] * 5


async def test_moves_in_a_large_transaction_are_left_to_the_watch_of_their_path(
    database: Database, app: Connection, make_relay: MakeRelay, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For another watch of the table they have no company: all of them were held, as changes for every company."""
    net_, held = pipeline.Pipeline.net, list[int]()

    async def observed(self: pipeline.Pipeline, changes: Sequence[Change], *rest: Any) -> Any:
        held.append(len(changes))
        return await net_(self, changes, *rest)

    await database.execute(
        "CREATE TABLE teams (id int PRIMARY KEY, account int);"
        " CREATE TABLE boards (id int PRIMARY KEY, team int REFERENCES teams, owner int);"
        " GRANT ALL ON teams, boards TO app;"
        " INSERT INTO teams SELECT n, n FROM generate_series(1, 20) AS n;"
        " INSERT INTO boards SELECT n, n, 1 FROM generate_series(1, 20) AS n"
    )
    watches = [
        Watch(table="boards", entity="Board", company="team -> teams.account", scope="account"),
        Watch(table="boards", entity="Own", company="owner", scope="user"),
    ]
    await migrate(database.dsn, watches=[*CALENDAR, *watches])
    relay = make_relay()
    await relay.start()
    await relay.settled()
    monkeypatch.setattr(pipeline.Pipeline, "net", observed)
    await app.execute("UPDATE teams SET account = account + 100")
    for company in (1, 20, 101, 120):
        assert types(await relay.messages_of(f"account:{company}")) == ["Resync"]
    assert await relay.messages_of("user:1") == []
    assert max(held) < 20


async def test_rows_that_a_truncate_has_removed_are_not_sent_where_their_company_has_none_after_it(
    app: Connection, company: str, relay: Relayed
) -> None:
    """They were sent behind the Resync of the TRUNCATE: clients kept them for good."""
    other = await new_company(app)
    await new_event(app, company, "before")
    await relay.settled()
    async with app.transaction():
        for number in range(6):
            await new_event(app, company, str(number))
        await app.execute("TRUNCATE events")
        await new_event(app, other, "after")
    assert types(await relay.messages_of(company)) == ["EventCreated", "Resync"]
    assert types(await relay.messages_of(other))[-1] == "EventCreated"


@pytest.mark.parametrize("read", ["weigh", "fetch"])
async def test_a_large_transaction_that_is_not_read_in_time_is_a_resync_for_every_company(
    read: str,
    database: Database,
    app: Connection,
    company: str,
    relay: Relayed,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its rows are too large together: to read it again would take as long."""
    await new_event(app, company, "before")
    await relay.settled()
    before = await database.fetchval(LINK)
    await database.execute("SELECT pg_advisory_lock(1)")
    await database.execute(
        "CREATE OR REPLACE FUNCTION notifier.readable_json(image json) RETURNS json LANGUAGE plpgsql"
        " AS $$ BEGIN PERFORM pg_advisory_lock_shared(1); RETURN image; END $$"
    )
    if read == "fetch":

        async def weigh(_self: reader.ChangeReader, _xid: int) -> list[reader.CompanySize]:
            return []

        monkeypatch.setattr(reader.ChangeReader, "weigh", weigh)
    monkeypatch.setattr(reader, "BACKLOG_SECONDS", 1.0)
    await app.execute(MANY, company)
    assert types(await relay.messages_of(company)) == ["EventCreated", "Resync"]
    assert await database.fetchval(LINK) == before


@pytest.mark.parametrize("call", ["BEGIN", "net"])
async def test_a_link_that_stalls_while_a_large_transaction_is_read_costs_no_message(
    call: str, app: Connection, company: str, relay: Relayed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is read again on another connection: its rows are not what takes long."""
    begin, net_, stalled = Transaction.start, pipeline.Pipeline.net, list[str]()

    async def start(self: Any) -> None:
        if call == "BEGIN" and self._connection is link and not stalled:
            stalled.append(call)
            raise TimeoutError
        await begin(self)

    async def net(self: pipeline.Pipeline, *arguments: Any) -> Any:
        if call == "net" and not stalled:
            stalled.append(call)
            raise TimeoutError  # from `refresh_sources`
        return await net_(self, *arguments)

    await new_event(app, company, "before")
    await relay.settled()
    assert relay.relay is not None
    assert relay.relay._term is not None
    link = relay.relay._term._leadership.reader
    monkeypatch.setattr(Transaction, "start", start)
    monkeypatch.setattr(pipeline.Pipeline, "net", net)
    await app.execute(MANY, company)
    assert types(await relay.messages_of(company)) == ["EventCreated"] * 11
    assert stalled == [call]
