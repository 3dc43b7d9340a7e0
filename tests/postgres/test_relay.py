"""From changes to messages: the doorbell, order, leadership, backlogs and epochs."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import pytest

from notifier.database.schema import migrate
from notifier.relay import backlog, numbering, portions, reader
from notifier.relay.doorbell import Doorbell
from notifier.relay.store import RelayStore
from notifier.watches import CALENDAR, Watch
from tests.databases import Connection, Database
from tests.postgres.relays import (
    MakeRelay,
    Relayed,
    log_head,
    messages_of,
    new_company,
    new_event,
    types,
)
from tests.waiting import DEADLINE_SECONDS, until


async def add_employees(app: Connection, company: str, count: int, first: int = 1) -> None:
    await app.execute(
        "INSERT INTO employees (company_id, user_id, name)"
        " SELECT $1, 'u' || n, 'Ann' FROM generate_series($2::int, $2::int + $3::int - 1) AS n",
        company,
        first,
        count,
    )


# --- asleep and awake


async def test_a_sleeping_relay_is_woken_by_the_first_write(
    database: Database,
    app: Connection,
    company: str,
    make_relay: MakeRelay,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(
        "notifier.relay.relay.SLEEPING_READ_SECONDS", 600.0
    )  # only the doorbell wakes it
    relay = make_relay()
    await relay.start()
    rung = asyncio.Event()
    listener = await database.connect()
    await listener.add_listener("notifier_changes", lambda *_: rung.set())
    await relay.asleep()
    rung.clear()
    await new_event(app, company)
    async with asyncio.timeout(DEADLINE_SECONDS):
        await rung.wait()
    assert types(await relay.messages_of(company)) == ["EventCreated"]


async def test_no_writer_rings_while_the_relay_is_awake(
    database: Database, app: Connection, company: str, relay: Relayed
) -> None:
    rings: list[tuple[object, object]] = []  # pid and payload

    def record(_: object, pid: object, __: object, payload: object) -> None:
        rings.append((pid, payload))

    listener = await database.connect()
    writer = await database.connect(app=True)
    await relay.asleep()
    async with writer.transaction():

        async def keeps_it_awake() -> object:
            """An open transaction that found the relay awake keeps it awake."""
            await database.execute("SELECT pg_notify('notifier_changes', '')")
            await new_event(writer, company)
            return await database.fetchval(
                "SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND granted"
                " AND mode = 'ShareLock' AND pid = $1)",
                writer.get_server_pid(),
            )

        await until(keeps_it_awake)
        await listener.add_listener("notifier_changes", record)
        for _ in range(20):
            await new_event(app, company)
        assert len(await relay.messages_of(company)) == 20
        # Notifications arrive in order: after this one, all earlier ones are here.
        await database.execute("SELECT pg_notify('notifier_changes', 'end')")

        async def ended() -> bool:
            await listener.execute("SELECT 1")
            return any(payload == "end" for _, payload in rings)

        await until(ended)
        assert app.get_server_pid() not in [pid for pid, _ in rings]


async def test_a_write_just_before_the_relay_falls_asleep_is_found_before_it_sleeps(
    database: Database,
    app: Connection,
    company: str,
    make_relay: MakeRelay,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(
        "notifier.relay.relay.SLEEPING_READ_SECONDS", 600.0
    )  # only the doorbell wakes it
    arm = Doorbell.arm
    found: list[bool] = []

    async def arm_late(doorbell: Doorbell) -> bool:
        if not found:  # the relay is awake, so this write does not ring
            found.append(True)
            await new_event(app, company)
        return await arm(doorbell)

    monkeypatch.setattr(Doorbell, "arm", arm_late)
    relay = make_relay()
    await relay.start()

    async def stored() -> bool:
        return types(await messages_of(database, company)) == ["EventCreated"]

    await until(stored)


async def test_without_a_doorbell_the_relay_polls_and_no_writer_rings(
    database: Database, app: Connection, company: str, make_relay: MakeRelay
) -> None:
    rings: list[object] = []
    listener = await database.connect()
    await listener.add_listener("notifier_changes", lambda *_: rings.append(_))
    relay = make_relay(doorbell=False)
    await relay.start()
    await new_event(app, company)
    assert types(await relay.messages_of(company)) == ["EventCreated"]
    await listener.execute("SELECT 1")
    assert rings == []


async def test_b16_a_forged_ring_is_only_a_hint(
    app: Connection, company: str, relay: Relayed
) -> None:
    for payload in ("", "x" * 7999, '{"company": 1}', "9223372036854775808"):
        await app.execute("SELECT pg_notify('notifier_changes', $1)", payload)
        await app.execute("SELECT pg_notify('notifier_messages', $1)", payload)
    await new_event(app, company)
    assert types(await relay.messages_of(company)) == ["EventCreated"]


# --- order


async def test_b2_a_late_commit_leaves_no_gap(
    database: Database, app: Connection, company: str, relay: Relayed
) -> None:
    late = await database.connect(app=True)
    transaction = late.transaction()
    await transaction.start()
    await new_event(late, company, "first written")
    await new_event(app, company, "first committed")
    assert [m["Data"]["Title"] for m in await relay.messages_of(company)] == ["first committed"]
    await transaction.commit()
    assert [m["Data"]["Title"] for m in await relay.messages_of(company)] == [
        "first committed",
        "first written",
    ]


async def test_a26_a_long_transaction_delays_no_other(
    database: Database, app: Connection, company: str, relay: Relayed
) -> None:
    long = await database.connect()
    async with long.transaction(isolation="repeatable_read"):
        await long.execute("INSERT INTO companies (name) VALUES ('long')")
        for number in range(20):
            await new_event(app, company, str(number))
        assert len(await relay.messages_of(company)) == 20


@pytest.mark.parametrize("at_once", [True, False], ids=["in one batch", "one by one"])
async def test_two_changes_of_one_row_never_swap(
    at_once: bool, database: Database, app: Connection, company: str, relay: Relayed
) -> None:
    event = await new_event(app, company, "0")
    if at_once:
        await relay.settled()
        await relay.stop()
    other = await database.connect(app=True)
    first, second = app.transaction(), other.transaction()
    await first.start()
    await second.start()
    await new_event(other, company, "the second begins first")
    await app.execute("UPDATE events SET title = '1' WHERE id = $1", event)
    waiting = asyncio.create_task(
        other.execute("UPDATE events SET title = title || '2' WHERE id = $1", event)
    )
    await database.blocked()
    await new_event(app, company, "the first goes on")
    await first.commit()
    await waiting
    await second.commit()
    if at_once:
        await relay.start()
    titles = [
        m["Data"]["Title"]
        for m in await relay.messages_of(company)
        if m["Data"]["EventId"] == event
    ]
    assert titles == ["0", "1", "12"]


async def test_published_messages_are_the_stored_ones(
    database: Database, app: Connection, company: str, relay: Relayed
) -> None:
    other = await new_company(app, "Bolt")
    for number in range(50):
        await new_event(app, (company, other)[number % 2], str(number))
    await relay.handed_over()
    rows = await database.fetch(
        "SELECT seq, company, position, body FROM notifier.messages ORDER BY seq"
    )
    epoch, seq = await log_head(database)
    assert [(e, m.seq, m.company, m.position, m.body.decode()) for e, m in relay.published] == [
        (epoch, *row) for row in rows
    ]
    assert [row["seq"] for row in rows] == list(range(1, seq + 1))


# --- leadership


async def test_one_node_relays_and_the_next_continues_where_it_stopped(
    app: Connection, company: str, make_relay: MakeRelay
) -> None:
    first, second = make_relay(), make_relay()
    await first.start()
    taking_over = asyncio.create_task(second.start())
    await new_event(app, company, "1")
    await first.settled()
    assert not taking_over.done()
    await first.stop()
    await new_event(app, company, "2")
    await taking_over
    assert [m["Data"]["Title"] for m in await second.messages_of(company)] == ["1", "2"]


@pytest.mark.parametrize("victim", ["notifier relay", "notifier relay reader"])
async def test_a_relay_continues_after_its_connection_is_lost(
    victim: str, database: Database, app: Connection, company: str, relay: Relayed
) -> None:
    for number in range(30):
        await new_event(app, company, str(number))
        if number % 10 == 5:
            await database.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE application_name = $1 AND datname = current_database()",
                victim,
            )
    titles = [m["Data"]["Title"] for m in await relay.messages_of(company)]
    assert titles == [str(number) for number in range(30)]


async def test_a_table_that_becomes_watched_is_relayed_at_once(
    database: Database, app: Connection, relay: Relayed
) -> None:
    await database.execute(
        "CREATE TABLE docs (id int PRIMARY KEY, company_id text); GRANT ALL ON docs TO app"
    )
    await migrate(database.dsn, watches=[*CALENDAR, Watch(table="docs", entity="Doc")])
    await app.execute("INSERT INTO docs VALUES (1, 'c')")
    assert types(await relay.messages_of("c")) == ["DocCreated"]


async def test_a_table_that_is_no_longer_watched_sends_nothing(
    database: Database, app: Connection, company: str, relay: Relayed
) -> None:
    await new_event(app, company)
    await relay.settled()  # a change that is read later is dropped
    await migrate(database.dsn, watches=[watch for watch in CALENDAR if watch.entity != "Event"])
    await new_event(app, company)
    await app.execute("UPDATE companies SET name = 'x' WHERE id = $1", company)
    assert types(await relay.messages_of(company)) == ["EventCreated", "CompanyUpdated"]


# --- backlogs


async def test_a_backlog_is_read_in_pages_and_nothing_is_missing(
    app: Connection, make_relay: MakeRelay
) -> None:
    companies = [await new_company(app) for _ in range(5)]
    for first in range(0, 2_400, 300):
        for company in companies:
            await add_employees(app, company, 300, first)
    relay = make_relay()
    await relay.start()
    for company in companies:
        users = [m["Data"]["UserId"] for m in await relay.messages_of(company)]
        assert users == [f"u{n}" for n in range(2_400)]


async def test_a_backlog_of_a_killed_relay_is_continued_exactly(
    database: Database, app: Connection, make_relay: MakeRelay
) -> None:
    companies = [await new_company(app) for _ in range(5)]
    for first in range(0, 4_000, 400):
        for company in companies:
            await add_employees(app, company, 400, first)
    kills = 0

    async def over() -> bool:
        """Whether the backlog was read to its end, which may come after its last page."""
        return bool(await database.fetchval("SELECT seq > 0 AND target IS NULL FROM notifier.log"))

    while True:
        before = (await log_head(database))[1]
        relay = make_relay()
        await relay.start()

        async def moves(before: int = before) -> bool:
            return await over() or (await log_head(database))[1] > before

        await until(moves, every=0)
        await relay.stop()
        if await over():
            break
        kills += 1
    assert kills
    relay = make_relay()
    await relay.start()
    for company in companies:
        users = [m["Data"]["UserId"] for m in await relay.messages_of(company)]
        assert users == [f"u{n}" for n in range(4_000)]


@pytest.mark.parametrize("rows", [1_500, 20_000], ids=["in memory", "too large for memory"])
async def test_b3_more_than_the_limit_for_one_company_is_one_resync(
    rows: int, app: Connection, company: str, relay: Relayed
) -> None:
    other = await new_company(app, "Bolt")
    async with app.transaction():
        await add_employees(app, company, rows)
        await add_employees(app, other, 10)
    await new_event(app, company)
    resync, event = await relay.messages_of(company)
    assert types([resync, event]) == ["Resync", "EventCreated"]
    assert resync["Data"]["Reason"] == "bulk"
    assert resync["Data"]["CompanyId"] == company
    assert [resync["Position"], event["Position"]] == [1, 2]
    assert types(await relay.messages_of(other)) == ["EmployeeAdded"] * 10


async def test_a_large_transaction_of_many_companies_is_sent_message_by_message(
    database: Database, app: Connection, relay: Relayed
) -> None:
    companies = [
        str(row["id"])
        for row in await app.fetch(
            "INSERT INTO companies (name) SELECT '' FROM generate_series(1, 40) RETURNING id"
        )
    ]
    async with app.transaction():
        for company in companies:
            await add_employees(app, company, 500)
        await app.execute("UPDATE employees SET name = 'Bob' WHERE user_id = 'u7'")
        await app.execute("UPDATE employees SET name = name WHERE user_id = 'u8'")
    for company in companies:
        messages = await relay.messages_of(company)
        assert types(messages) == ["EmployeeAdded"] * 500
        assert [m["Data"]["UserId"] for m in messages] == [f"u{n}" for n in range(1, 501)]
        assert messages[6]["Data"]["Name"] == "Bob"
    await app.execute("DELETE FROM companies WHERE id = ANY ($1::uuid[])", companies)
    for company in companies:
        after = (await relay.messages_of(company))[500:]
        assert Counter(types(after)) == {"EmployeeRemoved": 500, "CompanyDeleted": 1}


async def test_b8_a_large_move_sends_each_company_its_side(
    app: Connection, company: str, make_relay: MakeRelay
) -> None:
    relay = make_relay(bulk_limit=10_000)
    await relay.start()
    other = await new_company(app, "Bolt")
    await add_employees(app, company, 6_000)
    await app.execute("UPDATE employees SET company_id = $1", other)
    kinds = types(await relay.messages_of(company))
    assert kinds == ["EmployeeAdded"] * 6_000 + ["EmployeeRemoved"] * 6_000
    assert types(await relay.messages_of(other)) == ["EmployeeAdded"] * 6_000


async def test_a_truncate_in_a_large_transaction_is_one_resync_for_every_company(
    database: Database, app: Connection, company: str, relay: Relayed
) -> None:
    other, silent = await new_company(app, "Bolt"), await new_company(app, "Silent")
    await new_event(app, silent)
    await relay.settled()
    async with app.transaction():
        await add_employees(app, company, 600)
        for number in range(12):
            await add_employees(app, await new_company(app), 500, number)
        await app.execute("TRUNCATE employees, events")
        await app.execute("TRUNCATE events")
        await add_employees(app, company, 1)
        await add_employees(app, other, 1)
    assert types(await relay.messages_of(silent)) == ["EventCreated", "Resync"]
    assert types(await relay.messages_of(other)) in (["Resync", "EmployeeAdded"], ["EmployeeAdded"])
    assert "EmployeeAdded" in types(await relay.messages_of(company))
    assert types(await relay.messages_of(company)).count("EmployeeAdded") == 1
    # Employees may be gone, so the access of every subscriber is re-checked.
    revokes = await database.fetchval(
        "SELECT revokes FROM notifier.messages WHERE company = $1 AND position = 2", silent
    )
    assert revokes == ["*"]


async def test_a_truncate_reaches_companies_whose_first_message_is_in_the_same_batch(
    app: Connection, company: str, make_relay: MakeRelay
) -> None:
    relay = make_relay()
    await new_event(app, company)
    await app.execute("TRUNCATE events")
    await relay.start()
    assert types(await relay.messages_of(company)) == ["EventCreated", "Resync"]


async def test_b6_a_row_updated_often_in_a_large_transaction_is_one_message(
    app: Connection, company: str, relay: Relayed
) -> None:
    event = await new_event(app, company)
    await app.execute(
        f"""
        DO $$ BEGIN
            FOR n IN 1..7000 LOOP
                UPDATE events SET title = n::text WHERE id = '{event}';
            END LOOP;
        END $$
        """
    )
    _, updated = await relay.messages_of(company)
    assert updated["Type"] == "EventUpdated"
    assert updated["Data"]["Title"] == "7000"
    assert updated["Old"] == {"Title": "Tea"}


# --- epochs


async def test_a15_another_system_begins_an_epoch(
    database: Database, app: Connection, company: str, make_relay: MakeRelay
) -> None:
    relay = make_relay()
    await relay.start()
    await new_event(app, company)
    await relay.settled()
    await relay.stop()
    before, _ = await log_head(database)
    await database.execute("UPDATE notifier.log SET system = 'another/00000001'")
    await new_event(app, company, "written before the epoch")
    relay = make_relay()
    await relay.start()
    await new_event(app, company, "after it")
    resync, event = await relay.messages_of(company)
    after, _ = await log_head(database)
    assert after != before
    assert resync["Type"] == "Resync"
    assert resync["Data"] == {"CompanyId": company, "Reason": "epoch", "Epoch": after}
    assert [resync["Position"], event["Position"]] == [1, 2]
    assert event["Data"]["Title"] == "after it"


async def test_a27_a_cursor_ahead_of_the_server_begins_an_epoch(
    database: Database, app: Connection, company: str, make_relay: MakeRelay
) -> None:
    relay = make_relay()
    await relay.start()
    await new_event(app, company)
    await relay.settled()
    await relay.stop()
    before, seq = await log_head(database)
    # As after the restore of a backup: the log is ahead of the cluster.
    await database.execute(
        "UPDATE notifier.log SET seq = $1, cursor ="
        " (SELECT format('%s:%s:', x, x) FROM (SELECT pg_snapshot_xmax(pg_current_snapshot())"
        "::text::bigint + 1000000 AS x) AS future)",
        seq,
    )
    relay = make_relay()
    await relay.start()
    await new_event(app, company, "after it")
    assert types(await relay.messages_of(company)) == ["Resync", "EventCreated"]
    after, newest = await log_head(database)
    assert after != before
    assert newest > seq, "nodes would take messages of the new epoch for old ones"


async def test_a27_a_restarted_sequence_loses_nothing(
    database: Database, app: Connection, company: str, relay: Relayed
) -> None:
    event = await new_event(app, company)
    await relay.settled()
    before, _ = await log_head(database)
    for number in range(3):
        await database.execute("ALTER SEQUENCE notifier.change_ids RESTART")
        await app.execute("UPDATE events SET title = $2 WHERE id = $1", event, str(number))
        await relay.settled()
    assert [m["Data"]["Title"] for m in await relay.messages_of(company)] == ["Tea", "0", "1", "2"]
    assert (await log_head(database))[0] == before


async def test_the_same_system_continues_its_epoch(
    database: Database, app: Connection, company: str, make_relay: MakeRelay
) -> None:
    epochs = set()
    for number in range(3):
        relay = make_relay()
        await relay.start()
        await new_event(app, company, str(number))
        await relay.settled()
        await relay.stop()
        epochs.add((await log_head(database))[0])
    assert len(epochs) == 1
    assert [m["Data"]["Title"] for m in await messages_of(database, company)] == ["0", "1", "2"]


async def test_a_company_named_star_is_a_company(database: Database, app: Connection) -> None:
    await database.execute(
        "CREATE TABLE docs (id int PRIMARY KEY, company_id text); GRANT ALL ON docs TO app"
    )
    await migrate(database.dsn, watches=[*CALENDAR, Watch(table="docs", entity="Doc")])
    relay = Relayed(database)
    await relay.start()
    try:
        await app.execute("INSERT INTO docs VALUES (1, '*'), (2, 'c')")
        assert types(await relay.messages_of("c")) == ["DocCreated"]
        assert types(await relay.messages_of("*")) == ["DocCreated"]
    finally:
        await relay.stop()


async def test_a_batch_of_large_messages_is_stored_in_portions(
    database: Database,
    app: Connection,
    company: str,
    make_relay: MakeRelay,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """They are up to a page of changes, for each watch of their table: as one statement they may miss its deadline."""
    monkeypatch.setattr(portions, "PORTION_BYTES", 10_000)
    sizes: list[int] = []
    append = RelayStore.append

    async def counted(self: RelayStore, messages: Any, cursor: str | None) -> None:
        sizes.append(sum(message.size for message in messages))
        await append(self, messages, cursor)

    monkeypatch.setattr(RelayStore, "append", counted)
    relay = make_relay()
    await relay.start()
    async with app.transaction():
        for _ in range(20):
            await new_event(app, company, "x" * 4000)
    assert types(await relay.messages_of(company)) == ["EventCreated"] * 20
    assert max(sizes) < 10_000
    await relay.handed_over()
    assert len([message for _, message in relay.published if message.company == company]) == 20


@pytest.mark.parametrize(
    "how", ["in one batch", "in a page of a backlog", "in a large transaction"]
)
async def test_a_resync_for_very_many_companies_is_stored_in_portions(
    how: str,
    database: Database,
    app: Connection,
    company: str,
    make_relay: MakeRelay,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As one statement it would not end before its deadline, however often the relay tries."""
    monkeypatch.setattr(portions, "PORTION", 10)
    monkeypatch.setattr(numbering, "HEADS_AT_ONCE", 10)
    sizes: list[int] = []
    append, heads = RelayStore.append, RelayStore.heads

    async def counted_append(self: RelayStore, messages: Any, cursor: str | None) -> None:
        sizes.append(len(messages))
        await append(self, messages, cursor)

    async def counted_heads(self: RelayStore, companies: Any) -> dict[str, int]:
        sizes.append(len(companies))
        return await heads(self, companies)

    monkeypatch.setattr(RelayStore, "append", counted_append)
    monkeypatch.setattr(RelayStore, "heads", counted_heads)
    await database.execute(
        "INSERT INTO notifier.positions (company, position) SELECT 'many-' || n, n FROM generate_series(1, 35) AS n"
    )
    relay = make_relay()
    await relay.start()
    if how != "in one batch":
        monkeypatch.setattr(reader, "PAGE", 2)
    if how == "in a large transaction":
        monkeypatch.setattr(backlog, "PAGE", 2)
    async with app.transaction():
        await app.execute("TRUNCATE events")
        for _ in range(3):
            await new_event(app, company)
    await relay.handed_over()
    found = await database.fetch(
        "SELECT company, position, body ->> 'Type' AS type, body -> 'Data' ->> 'Reason' AS reason, seq"
        " FROM notifier.messages WHERE company LIKE 'many-%' ORDER BY seq"
    )
    assert {(row["company"], row["position"]) for row in found} == {
        (f"many-{n}", n + 1) for n in range(1, 36)
    }
    assert {(row["type"], row["reason"]) for row in found} == {("Resync", "truncate")}
    assert [row["seq"] for row in found] == list(range(found[0]["seq"], found[0]["seq"] + 35))
    assert max(sizes) == 10
    if how == "in a large transaction":  # nodes read it
        return
    published = [each for _, each in relay.published if each.company.startswith("many-")]
    assert [message.seq for message in published] == [row["seq"] for row in found]
