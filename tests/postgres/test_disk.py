"""The log stays within its limit on disk, with or without a relay, and clients learn what was dropped."""

from __future__ import annotations

import asyncio
import json

import pytest

from notifier.database.schema import migrate
from notifier.relay import maintenance
from notifier.relay.connection import RelayConnection
from notifier.relay.disk import REOPENING, Disk
from notifier.relay.store import RelayStore
from tests.databases import Connection, Database
from tests.postgres.relays import (
    Json,
    Relayed,
    log_head,
    messages_of,
    new_company,
    new_event,
    rewrite_event,
    types,
)
from tests.waiting import until

MIB = 1024 * 1024
LIMIT = 2 * MIB

FULL = 1 << 62


@pytest.fixture
async def small(database: Database, monkeypatch: pytest.MonkeyPatch) -> Database:
    """A database with a small log, whose relay does its maintenance after each read."""
    await migrate(database.dsn, max_log_bytes=LIMIT)
    monkeypatch.setattr(maintenance, "AWAKE_SECONDS", 0.0)
    return database


async def fill(database: Database, app: Connection, company: str) -> None:
    """Writes until capture stops storing; every write succeeds."""
    event = await new_event(app, company)
    for _ in range(5):
        await rewrite_event(app, event, 600)
    assert await database.fetchval("SELECT last_value FROM notifier.change_ids") >= FULL


async def overflow(database: Database) -> None:
    """What capture does when the log is full."""
    await database.execute(
        f"SELECT setval('notifier.change_ids', last_value + {FULL}) FROM notifier.change_ids"
    )


async def log_bytes(database: Database) -> int:
    return int(await database.fetchval("SELECT notifier.log_bytes()"))


async def sizes(database: Database) -> tuple[int, int]:
    rows = await database.fetch(
        "SELECT pg_relation_size('notifier.changes_0'), pg_relation_size('notifier.changes_1')"
    )
    return rows[0][0], rows[0][1]


# --- overflow


async def test_without_a_relay_writes_succeed_and_the_disk_stays_bounded(
    small: Database, app: Connection
) -> None:
    company = await new_company(app)
    await fill(small, app, company)
    full = await log_bytes(small)
    assert full < LIMIT + MIB
    await new_event(app, company, "after the log was full")
    await app.execute("DELETE FROM companies")
    assert await log_bytes(small) == full


async def test_after_an_overflow_every_company_gets_a_resync_and_messages_again(
    small: Database, app: Connection
) -> None:
    company = await new_company(app)
    relay = Relayed(small)
    await relay.start()
    await new_event(app, company)
    await relay.settled()
    await relay.stop()
    before, _ = await log_head(small)
    await fill(small, app, company)
    await relay.start()

    async def begun() -> bool:
        return (await log_head(small))[0] != before

    await until(begun)
    await new_event(app, company, "after the overflow")
    first, *rest = await relay.messages_of(company)
    # Other transactions of the cluster may add a further Resync when they end.
    *_, last = [each for each in rest if each["Type"] != "Resync"]
    assert first["Type"] == "Resync"
    assert first["Data"]["Reason"] == "overflow"
    assert first["Data"]["Epoch"] == (await log_head(small))[0]
    assert last["Data"]["Title"] == "after the overflow"
    await relay.stop()
    assert sum(await sizes(small)) < MIB


async def test_a_commit_of_a_transaction_that_dropped_changes_is_followed_by_a_resync(
    small: Database, app: Connection
) -> None:
    company = await new_company(app)
    late = await small.connect(app=True)
    relay = Relayed(small)
    await relay.start()
    await new_event(app, company)
    await relay.settled()
    await relay.stop()
    before, _ = await log_head(small)
    await overflow(small)
    transaction = late.transaction()
    await transaction.start()
    await new_event(late, company, "dropped")
    await relay.start()

    async def begun() -> bool:
        return (await log_head(small))[0] != before and not await small.fetchval(
            "SELECT last_value >= $1 FROM notifier.change_ids", FULL
        )

    await until(begun)
    await new_event(app, company, "between")
    await relay.settled()
    before_commit = types(await messages_of(small, company)).count("Resync")
    await transaction.commit()

    async def resynced() -> bool:
        return types(await messages_of(small, company)).count("Resync") > before_commit

    async def is_settled() -> bool:
        """Saved after the Resync is stored: a relay that ends between the two sends it again."""
        return await small.fetchval("SELECT unsettled FROM notifier.log") is None

    await until(resynced)
    await until(is_settled)
    await relay.stop()
    messages = await messages_of(small, company)
    assert messages[-1]["Type"] == "Resync"
    assert messages[-1]["Data"]["Reason"] == "overflow"


async def test_a_transaction_that_dropped_changes_is_followed_by_a_resync_though_another_stays_open(
    small: Database, app: Connection
) -> None:
    """Any role that may connect can keep one open that has a number."""
    company = await new_company(app)
    late, stranger = await small.connect(app=True), await small.connect(app=True)
    relay = Relayed(small)
    await relay.start()
    await new_event(app, company)
    await relay.settled()
    before, _ = await log_head(small)
    await stranger.execute("BEGIN; SELECT pg_current_xact_id()")
    await late.execute("BEGIN; SELECT pg_current_xact_id()")
    await overflow(small)
    await new_event(late, company, "dropped")

    async def begun() -> bool:
        return (await log_head(small))[0] != before

    await until(begun)
    await relay.settled()
    resyncs = types(await messages_of(small, company)).count("Resync")
    await late.execute("COMMIT")

    async def resynced() -> bool:
        return types(await messages_of(small, company)).count("Resync") > resyncs

    await until(resynced)
    assert await small.fetchval("SELECT unsettled FROM notifier.log") is not None
    await stranger.execute("COMMIT")
    await relay.stop()


async def test_a_transaction_that_began_last_counts_as_one_that_may_have_dropped_changes(
    small: Database, app: Connection
) -> None:
    """A snapshot does not list it before one that began later has ended."""
    company = await new_company(app)
    writer = RelayConnection(await small.connect())
    disk = Disk(writer, RelayStore(writer))
    await overflow(small)
    await app.execute("BEGIN")
    await new_event(app, company, "dropped")
    xid = await app.fetchval("SELECT pg_current_xact_id()::text::bigint")
    unsettled = await disk.reopen()
    assert unsettled is not None
    assert unsettled > xid
    assert not await disk.all_ended_before(unsettled)
    await app.execute("COMMIT")

    async def have_ended() -> bool:
        """Others of the cluster, such as autovacuum's, may take a moment longer."""
        return await disk.all_ended_before(unsettled) and await disk.reopen() is None

    await until(have_ended)


async def test_a_recovery_from_overflow_that_a_relay_did_not_finish_is_finished_by_the_next(
    small: Database, app: Connection
) -> None:
    company = await new_company(app)
    relay = Relayed(small)
    await relay.start()
    await new_event(app, company)
    await relay.settled()
    await relay.stop()
    before, _ = await log_head(small)
    await overflow(small)
    # It died after capture was reopened and before the new epoch.
    await small.execute("UPDATE notifier.log SET unsettled = $1::bigint::text::xid8", REOPENING)
    await small.execute(
        f"SELECT setval('notifier.change_ids', last_value - {FULL} + 1000000)"
        " FROM notifier.change_ids"
    )
    await relay.start()

    async def begun() -> bool:
        return (await log_head(small))[0] != before

    await until(begun)
    assert (await relay.messages_of(company))[0]["Data"]["Reason"] == "overflow"
    await relay.stop()


async def test_ids_go_on_growing_after_an_overflow(small: Database, app: Connection) -> None:
    company = await new_company(app)
    writer = await small.connect(app=True)
    event = await new_event(app, company, "0")
    transaction = writer.transaction()
    await transaction.start()
    await writer.execute("UPDATE events SET title = '1' WHERE id = $1", event)
    before = await small.fetchval("SELECT last_value FROM notifier.change_ids")
    epoch, _ = await log_head(small)
    await overflow(small)
    relay = Relayed(small)
    await relay.start()

    async def begun() -> bool:
        return (await log_head(small))[0] != epoch

    await until(begun)
    assert await small.fetchval("SELECT last_value FROM notifier.change_ids") > before
    await writer.execute("UPDATE events SET title = '2' WHERE id = $1", event)
    await transaction.commit()
    (message,) = [
        message
        for message in await relay.messages_of(company)
        if message.get("Data", {}).get("EventId") == event
    ]
    assert message["Data"]["Title"] == "2"
    await relay.stop()


async def test_a_writer_that_is_slow_to_find_the_log_full_resets_no_id(
    database: Database, app: Connection, company: str
) -> None:
    """Meanwhile others took ids, and the relay rotated to the other table."""
    await database.execute("UPDATE notifier.configuration SET max_log_bytes = 0")
    holder = await database.connect()
    async with holder.transaction():
        await holder.execute("LOCK TABLE notifier.changes_1")
        writing = asyncio.create_task(new_event(app, company, "x" * 3_000_000))
        await database.blocked()
        assert await database.fetchval("SELECT notifier.rotate_changes()")
    await writing
    last = await database.fetchval("SELECT last_value FROM notifier.change_ids")
    assert last >= FULL + 2**32


async def test_a_writer_with_a_short_lock_timeout_writes_while_a_table_is_truncated(
    database: Database, app: Connection, company: str, relay: Relayed
) -> None:
    await app.execute("SET lock_timeout = 1")
    holder = await database.connect()
    async with holder.transaction():
        await holder.execute("LOCK TABLE notifier.changes_1")
        await new_event(app, company, "x" * 3_000_000)
    assert types(await relay.messages_of(company)) == ["EventCreated"]


async def test_an_epoch_begins_although_old_messages_are_being_read(
    small: Database, app: Connection
) -> None:
    company = await new_company(app)
    relay = Relayed(small)
    await relay.start()
    await new_event(app, company)
    await relay.settled()
    backup = await small.connect()
    async with backup.transaction(isolation="repeatable_read"):
        await backup.execute("SELECT count(*) FROM notifier.messages")
        before, _ = await log_head(small)
        await overflow(small)

        async def begun() -> bool:
            return (await log_head(small))[0] != before

        await until(begun)
        await new_event(app, company)
        # Other transactions of the cluster may add a further Resync when they end.
        first, *rest = types(await relay.messages_of(company))
        assert first == "Resync"
        assert [each for each in rest if each != "Resync"] == ["EventCreated"]
    await relay.stop()


async def test_nothing_is_written_for_messages_that_are_being_read(database: Database) -> None:
    """A backup reads them for hours, and the relay tries to prune them every second."""
    await database.execute(
        "INSERT INTO notifier.messages (slot, seq, company, position, at, body)"
        " SELECT 1, n, 'c' || n, 1, now(), '{}' FROM generate_series(1, 100) AS n"
    )
    prune = "SELECT notifier.prune(1, pg_current_snapshot()::text, 100)"
    backup = await database.connect()
    async with backup.transaction():
        await backup.execute("LOCK TABLE notifier.messages IN ACCESS SHARE MODE")
        assert await database.fetchval(prune) is None
        assert await database.fetchval("SELECT pg_relation_size('notifier.positions')") == 0
    assert await database.fetchval(prune) is not None
    assert await database.fetchval("SELECT count(*) FROM notifier.positions") == 100


# --- the tables of changes rotate


async def test_change_tables_rotate_under_load_and_no_change_is_lost(
    small: Database, app: Connection
) -> None:
    company = await new_company(app)
    relay = Relayed(small)
    await relay.start()
    watcher = await small.connect()
    await watcher.execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM events")
    eras: set[int] = set()
    for number in range(60):
        await app.execute(
            "INSERT INTO employees (company_id, user_id, name)"
            " SELECT $1, $2::text || ' ' || n, repeat('x', 200) FROM generate_series(1, 100) AS n",
            company,
            str(number),
        )
        await relay.settled()
        eras.add(await small.fetchval("SELECT last_value >> 32 FROM notifier.change_ids"))
    assert len(eras) > 2
    await relay.handed_over()
    users = {m["Data"]["UserId"] for _, m in decoded(relay) if m["Type"] == "EmployeeAdded"}
    assert len(users) == 6_000
    assert sum(await sizes(small)) < LIMIT
    epochs = {epoch for epoch, _ in relay.published}
    assert len(epochs) == 1
    await relay.stop()


async def test_a_table_that_a_long_transaction_has_written_to_is_not_truncated_before_its_end(
    small: Database, app: Connection
) -> None:
    company = await new_company(app)
    relay = Relayed(small)
    await relay.start()
    long = await small.connect(app=True)
    transaction = long.transaction()
    await transaction.start()
    await new_event(long, company, "late")

    async def load(rounds: int) -> None:
        for number in range(rounds):
            await app.execute(
                "INSERT INTO employees (company_id, name)"
                " SELECT $1, $2::text || repeat('x', 200) FROM generate_series(1, 50) AS n",
                company,
                str(number),
            )
            await relay.settled()

    await load(10)
    await transaction.commit()
    assert "late" in [m["Data"].get("Title") for _, m in decoded(relay)] or "late" in [
        m["Data"].get("Title") for m in await relay.messages_of(company)
    ]

    async def rotated() -> bool:
        await load(5)
        return bool(await small.fetchval("SELECT last_value >> 32 > 1 FROM notifier.change_ids"))

    await until(rotated)
    await relay.stop()


def decoded(relay: Relayed) -> list[tuple[str, Json]]:
    return [(epoch, json.loads(message.body)) for epoch, message in relay.published]


async def test_tables_of_changes_with_few_large_rows_are_emptied_as_well(
    small: Database, app: Connection
) -> None:
    """Values of more than 2 kB are in the tables' TOAST tables, outside their own files."""
    company = await new_company(app)
    relay = Relayed(small)
    await relay.start()
    for _ in range(60):
        await app.execute(
            "INSERT INTO events (company_id, title, starts_at, ends_at)"
            " SELECT $1, string_agg(md5(random()::text || m), ''), now(), now() FROM generate_series(1, 1500) AS m",
            company,
        )
        await relay.settled()
    size = "pg_total_relation_size('notifier.changes_0') + pg_total_relation_size('notifier.changes_1')"
    assert await small.fetchval(f"SELECT {size}") < MIB, "of 3 MB that were written"
    await relay.stop()


# --- messages are pruned by age and by size


async def test_old_messages_are_pruned_and_positions_stay(
    database: Database, app: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(maintenance, "AWAKE_SECONDS", 0.0)
    company, busy = await new_company(app), await new_company(app)
    relay = Relayed(database, retention_hours=1e-7)
    await relay.start()
    for number in range(5):
        await new_event(app, company, str(number))

    async def gone() -> bool:
        await new_event(app, busy)
        await relay.settled()
        return await messages_of(database, company) == []

    await until(gone)
    await relay.stop()
    relay = Relayed(database)
    await relay.start()
    await new_event(app, company, "5")
    (message,) = await relay.messages_of(company)
    assert message["Position"] == 6
    await relay.stop()


async def test_messages_stay_within_their_share_of_the_disk_and_positions_stay_dense(
    small: Database, app: Connection
) -> None:
    company = await new_company(app)
    relay = Relayed(small)
    await relay.start()
    for _ in range(40):
        await app.execute(
            "INSERT INTO employees (company_id, name)"
            " SELECT $1, repeat('x', 500) FROM generate_series(1, 100) AS n",
            company,
        )
        await relay.settled()
    messages = await relay.messages_of(company)  # checks that there is no gap
    assert messages[0]["Position"] > 1
    assert messages[-1]["Position"] == 4_000
    assert await log_bytes(small) < LIMIT + MIB
    await relay.stop()
    await relay.start()
    await new_event(app, company)
    assert (await relay.messages_of(company))[-1]["Position"] == 4_001
    await relay.stop()


async def test_a_reader_of_old_messages_delays_pruning_but_not_the_relay(
    small: Database, app: Connection
) -> None:
    await migrate(small.dsn, max_log_bytes=4 * LIMIT)
    company = await new_company(app)
    relay = Relayed(small)
    await relay.start()
    await new_event(app, company)
    await relay.settled()
    reader = await small.connect()
    async with reader.transaction():
        await reader.execute("SELECT count(*) FROM notifier.messages")
        for _ in range(15):
            await app.execute(
                "INSERT INTO employees (company_id, name)"
                " SELECT $1, repeat('x', 500) FROM generate_series(1, 100) AS n",
                company,
            )
            await relay.settled()
    assert len(await relay.messages_of(company)) == 1_501
    await relay.stop()


async def test_writers_do_not_wait_while_a_table_is_truncated(
    small: Database, app: Connection
) -> None:
    await migrate(small.dsn, max_log_bytes=4 * LIMIT)
    company = await new_company(app)
    relay = Relayed(small)
    await relay.start()
    writers = [await small.connect(app=True) for _ in range(4)]

    async def write(connection: Connection) -> None:
        await connection.execute("SET lock_timeout = '5s'")
        for number in range(100):
            await connection.execute(
                "INSERT INTO employees (company_id, name)"
                " SELECT $1, $2::text || repeat('x', 900) FROM generate_series(1, 5)",
                company,
                str(number),
            )

    async with asyncio.TaskGroup() as tasks:
        for connection in writers:
            tasks.create_task(write(connection))
    await relay.handed_over()
    added = [m for _, m in decoded(relay) if m["Type"] == "EmployeeAdded"]
    assert len(added) == 2_000
    await relay.stop()


async def test_unread_changes_of_a_full_log_are_not_sent_before_the_new_epoch(
    small: Database, app: Connection
) -> None:
    company = await new_company(app)
    await fill(small, app, company)
    relay = Relayed(small)
    before, _ = await log_head(small)
    await relay.start()
    await new_event(app, company, "after the overflow")
    kinds = types(await relay.messages_of(company))
    # Other transactions of the cluster may add a Resync when they end.
    assert [each for each in kinds if each != "Resync"] == ["EventCreated"]
    assert before not in {epoch for epoch, _ in relay.published}
    await relay.stop()
