"""More changes than fit into memory: relayed completely, in order, in bounded memory."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any
from uuid import uuid4

import pytest

from notifier.database import sql
from notifier.database.connections import _Bounded
from notifier.database.schema import migrate
from notifier.relay import backlog, pipeline, reader
from notifier.relay.backlog import CHUNK
from notifier.relay.changes import Change
from notifier.relay.netting import Transaction, net
from notifier.relay.reader import PAGE
from notifier.relay.rendering import Draft
from notifier.relay.store import RelayStore
from notifier.watches import CALENDAR, Watch
from tests.databases import Connection, Database
from tests.postgres.relays import (
    MakeRelay,
    Relayed,
    messages_of,
    new_company,
    new_event,
    types,
)
from tests.waiting import until

MANY = 100_000
EACH = 1_000
"""Employees of each company, where there are many companies."""


async def companies_with_employees(database: Database, count: int) -> list[str]:
    """Companies with `EACH` employees, none of which were captured."""
    await database.execute("ALTER TABLE employees DISABLE TRIGGER USER")
    rows = await database.fetch(
        "INSERT INTO companies (name) SELECT '' FROM generate_series(1, $1::int) RETURNING id::text",
        count,
    )
    companies = [row["id"] for row in rows]
    await database.execute(
        "INSERT INTO employees (company_id, user_id, name)"
        " SELECT company::uuid, 'u' || n, 'Ann' FROM unnest($1::text[]) AS company,"
        " generate_series(1, $2::int) AS n",
        companies,
        EACH,
    )
    await database.execute("ALTER TABLE employees ENABLE TRIGGER USER")
    return companies


# --- a hundred thousand rows


@pytest.mark.slow
@pytest.mark.parametrize("limit", [EACH - 1, EACH], ids=["more than BULK_LIMIT", "no more"])
async def test_b3_an_update_of_a_hundred_thousand_rows_is_relayed_in_bounded_memory(
    limit: int,
    database: Database,
    app: Connection,
    make_relay: MakeRelay,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """B3: above BULK_LIMIT each company gets one Resync, else each row, chunk by chunk."""
    companies = await companies_with_employees(database, MANY // EACH)
    at_once: list[int] = []
    append = RelayStore.append

    async def counted(store: RelayStore, messages: Sequence[Any], cursor: str | None) -> None:
        at_once.append(len(messages))
        await append(store, messages, cursor)

    monkeypatch.setattr(RelayStore, "append", counted)
    relay = make_relay(bulk_limit=limit)
    await relay.start()
    assert await app.execute("UPDATE employees SET name = 'Bob'") == f"UPDATE {MANY}"

    async def all_stored() -> bool:
        stored = await database.fetchval("SELECT count(DISTINCT company) FROM notifier.messages")
        return bool(stored == len(companies))

    await until(all_stored, seconds=120)
    assert max(at_once) <= CHUNK + EACH
    for company in (companies[0], companies[-1]):
        messages = await messages_of(database, company)
        if limit < EACH:
            assert [(m["Type"], m["Data"]["Reason"]) for m in messages] == [("Resync", "bulk")]
        else:
            assert types(messages) == ["EmployeeUpdated"] * EACH
            assert {m["Old"]["Name"] for m in messages} == {"Ann"}
    stored = await database.fetchval("SELECT count(*) FROM notifier.messages")
    assert stored == (len(companies) if limit < EACH else MANY)


# --- very many companies


async def test_h1_each_message_of_a_transaction_with_many_companies_is_weighed_once(
    database: Database, app: Connection, make_relay: MakeRelay, monkeypatch: pytest.MonkeyPatch
) -> None:
    """H1: to weigh a whole chunk for each company costs the square of their number."""
    weighed = 0
    size = vars(Draft)["size"].fget

    def counted(draft: Draft) -> int:
        nonlocal weighed
        weighed += 1
        return int(size(draft))

    monkeypatch.setattr(Draft, "size", property(counted))
    relay = make_relay()
    await relay.start()
    many = PAGE + CHUNK + 1
    await database.execute(
        "INSERT INTO companies (name) SELECT '' FROM generate_series(1, $1::int)", many
    )
    await app.execute(
        "INSERT INTO events (company_id, title, starts_at, ends_at)"
        " SELECT id, '', now(), now() FROM companies"
    )

    async def all_stored() -> bool:
        return bool(await database.fetchval("SELECT count(*) FROM notifier.messages") == many)

    await until(all_stored)
    assert 0 < weighed <= many
    positions = await database.fetch(
        "SELECT DISTINCT position FROM companies JOIN notifier.messages ON company = id::text"
    )
    assert [row["position"] for row in positions] == [1]


@pytest.mark.parametrize("title", ["x" * 2_000_000, "[" * 100_000], ids=["large", "brackets"])
async def test_a_few_costly_changes_are_not_netted_on_the_event_loop(
    app: Connection, company: str, relay: Relayed, monkeypatch: pytest.MonkeyPatch, title: str
) -> None:
    """Arrays, whose elements are looked at one by one: a relay without a heartbeat is ended by another node."""
    threads = {}

    def observed(changes: Sequence[Change], *arguments: Any) -> Any:
        size = sum(len(change.new or b"") for change in changes)
        threads[size > len(title)] = threading.current_thread()
        return net(changes, *arguments)

    monkeypatch.setattr(pipeline, "net", observed)
    await new_event(app, company, "Tea")
    await relay.settled()
    await new_event(app, company, title)
    assert types(await relay.messages_of(company)) == ["EventCreated"] * 2
    assert threads[False] is threading.main_thread()
    assert threads[True] is not threading.main_thread()


async def test_a_costly_change_of_a_large_transaction_is_not_netted_on_the_event_loop(
    app: Connection, company: str, relay: Relayed, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (backlog, reader):
        monkeypatch.setattr(module, "PAGE", 5)
    add, threads = Transaction.add, {}

    def observed(transaction: Transaction, change: Change) -> None:
        threads[len(change.new or b"") > 100_000] = threading.current_thread()
        add(transaction, change)

    await relay.settled()
    monkeypatch.setattr(Transaction, "add", observed)
    async with app.transaction():
        await large_rows(app, company, 10, 10)
        await new_event(app, company, "[" * 100_000)
    assert types(await relay.messages_of(company)) == ["EventCreated"] * 11
    assert threads[False] is threading.main_thread()
    assert threads[True] is not threading.main_thread()


async def large_rows(app: Connection, company: str, count: int, size: int) -> None:
    await app.execute(
        "INSERT INTO events (company_id, title, starts_at, ends_at)"
        " SELECT $1, repeat('x', $3), now(), now() FROM generate_series(1, $2::int)",
        company,
        count,
        size,
    )


async def test_rows_of_one_company_that_are_too_large_for_memory_together_are_a_resync(
    app: Connection, company: str, relay: Relayed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backlog, "PAGE", 5)
    monkeypatch.setattr(reader, "PAGE", 5)
    monkeypatch.setattr(backlog, "COMPANY_BYTES", 50_000)
    other = await new_company(app)
    async with app.transaction():
        await large_rows(app, company, 10, 10_000)
        await large_rows(app, other, 10, 100)
    assert types(await relay.messages_of(company)) == ["Resync"]
    assert types(await relay.messages_of(other)) == ["EventCreated"] * 10


async def test_a_large_transaction_is_read_in_parts_that_fit_into_memory(
    app: Connection, company: str, relay: Relayed, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (backlog, reader):
        monkeypatch.setattr(module, "PAGE_BYTES", 100_000)
    cursor, prefetched = _Bounded.cursor, []

    def observed(*arguments: Any, prefetch: int | None = None, **options: Any) -> Any:
        prefetched.append(prefetch)
        return cursor(*arguments, prefetch=prefetch, **options)

    monkeypatch.setattr(_Bounded, "cursor", observed)
    async with app.transaction():
        await large_rows(app, company, 20, 30_000)
        await large_rows(app, company, 20, 100)
    assert types(await relay.messages_of(company)) == ["EventCreated"] * 40
    assert prefetched == [3]


async def test_large_rows_of_one_company_are_not_netted_on_the_event_loop(
    app: Connection, company: str, relay: Relayed, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (backlog, reader):
        monkeypatch.setattr(module, "PAGE", 5)
    monkeypatch.setattr(backlog, "INLINE_BYTES", 50_000)
    drafts, threads = Transaction.drafts, []

    def observed(transaction: Transaction, bulk_limit: int) -> Any:
        threads.append(threading.current_thread())
        return drafts(transaction, bulk_limit)

    await relay.settled()
    monkeypatch.setattr(Transaction, "drafts", observed)
    async with app.transaction():
        await large_rows(app, company, 10, 10_000)
    await relay.settled()
    assert any(thread is not threading.main_thread() for thread in threads)


async def test_a_backlog_of_very_many_transactions_is_listed_in_parts(
    app: Connection, company: str, make_relay: MakeRelay, monkeypatch: pytest.MonkeyPatch
) -> None:
    relay = make_relay()
    await relay.start()
    await relay.settled()
    await relay.stop()
    for module in (backlog, reader):
        monkeypatch.setattr(module, "TRANSACTIONS", 3)
        monkeypatch.setattr(module, "PAGE", 2)
    titles = [str(number) for number in range(8)]
    for title in titles:
        await new_event(app, company, title)
    await relay.start()
    assert [each["Data"]["Title"] for each in await relay.messages_of(company)] == titles


async def test_changes_whose_sizes_are_not_known_in_time_are_read_as_a_backlog(
    app: Connection, company: str, relay: Relayed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PostgreSQL decompresses each image to learn its size: for 2,000 of 2 MiB that took longer than a read may, each time."""
    fetch, late, deadlines = _Bounded.fetch, list[int](), list[object]()

    async def missing_deadlines(
        connection: _Bounded, query: str, *arguments: Any, **rest: Any
    ) -> Any:
        rows = await fetch(connection, query, *arguments, **rest)
        if query == sql.query("read_changes") and len(rows) > 5:
            late.append(len(rows))
            raise TimeoutError
        if query == sql.query("last_change"):  # it looks at as many rows
            deadlines.append(rest["timeout"])
        return rows

    await relay.settled()
    monkeypatch.setattr(_Bounded, "fetch", missing_deadlines)
    await large_rows(app, company, 10, 100)
    assert types(await relay.messages_of(company)) == ["EventCreated"] * 10
    assert len(late) == 1
    assert deadlines == [reader.PAGE_SECONDS]


@pytest.mark.parametrize("spelling", ["upper", "lower"])
async def test_a_company_in_two_spellings_in_a_large_transaction_gets_a_resync(
    spelling: str, database: Database, app: Connection, make_relay: MakeRelay
) -> None:
    """Its changes come by spelling: of a row whose spelling changes, later ones could come before earlier ones."""
    company = str(uuid4())
    await database.execute(
        "CREATE TABLE notes (id int PRIMARY KEY, company_id text, body text); GRANT ALL ON notes TO app"
    )
    await migrate(database.dsn, watches=[*CALENDAR, Watch(table="notes", entity="Note")])
    other = "lower" if spelling == "upper" else "upper"
    await app.execute(
        f"INSERT INTO notes VALUES (1, {other}($1), 'a'), (2, {other}($1), 'a')", company
    )
    relay = make_relay()
    await relay.start()
    await relay.settled()
    async with app.transaction():
        await app.execute(
            "INSERT INTO notes SELECT n, 'c' || n % 10, '' FROM generate_series(3, $1::int) AS n",
            PAGE + 3,
        )
        await app.execute(
            f"UPDATE notes SET company_id = {spelling}(company_id), body = 'b' WHERE id < 3"
        )
        await app.execute("UPDATE notes SET body = 'c' WHERE id = 1")
        await app.execute("DELETE FROM notes WHERE id = 2")
    messages = (await relay.messages_of(company))[2:]
    assert [(each["Type"], each["Data"].get("Reason")) for each in messages] == [("Resync", "bulk")]
    assert len(await relay.messages_of("c1")) == (PAGE + 1) // 10
