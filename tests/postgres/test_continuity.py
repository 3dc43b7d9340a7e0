"""Continuity: a log that cannot prove that it continues begins an epoch, and replays nothing that is foreign."""

from __future__ import annotations

import pytest

from notifier.database import sql
from notifier.database.schema import migrate
from notifier.delivery.postgres_stream import PostgresStream
from notifier.relay.reader import are_foreign
from tests.chaos.local import LocalNode
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
from tests.waiting import until

FUTURE = 500_000_000
"""Transaction ids that a younger cluster has not given out yet."""


async def epoch_after(database: Database, before: str) -> str:
    """The next epoch, as soon as it has begun."""

    async def begun() -> bool:
        return (await log_head(database))[0] != before

    await until(begun)
    return (await log_head(database))[0]


async def relay_some(
    app: Connection, company: str, make_relay: MakeRelay, count: int = 3
) -> Relayed:
    """A stopped relay that has stored `count` messages of the company."""
    relay = make_relay()
    await relay.start()
    for number in range(count):
        await new_event(app, company, f"before {number}")
    await relay.settled()
    await relay.stop()
    return relay


async def move_changes_to_the_future(database: Database, table: int = 0) -> None:
    """Makes the captured changes those of another, older cluster, as a restored dump does."""
    await database.execute(
        f"UPDATE notifier.changes_{table} SET xid = (xid::text::bigint + {FUTURE})::text::xid8"
    )


async def visible_changes(database: Database) -> int:
    return int(await database.fetchval("SELECT count(*) FROM notifier.changes"))


# --- foreign changes (cases 3 and F14)


async def test_case_3_changes_of_a_dump_of_an_older_cluster_are_never_relayed(
    database: Database, app: Connection, company: str, make_relay: MakeRelay
) -> None:
    """Case 3: pg_dump carries consumed changes, whose transaction ids are ahead of the younger cluster."""
    await relay_some(app, company, make_relay)
    before, _ = await log_head(database)
    await move_changes_to_the_future(database)
    await database.execute("UPDATE notifier.log SET system = 'older/00000001/5'")
    relay = make_relay()
    await relay.start()
    await new_event(app, company, "after the restore")
    messages = await relay.messages_of(company)
    assert types(messages) == ["Resync", "EventCreated"]
    assert messages[0]["Data"]["Reason"] == "epoch"
    epoch, _ = await log_head(database)
    assert epoch != before
    for _ in range(5):
        await relay.settled()
    assert types(await messages_of(database, company)) == ["Resync", "EventCreated"]
    assert (await log_head(database))[0] == epoch


async def test_case_3_foreign_changes_do_not_keep_the_table_from_being_emptied(
    database: Database,
    app: Connection,
    company: str,
    make_relay: MakeRelay,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    await relay_some(app, company, make_relay)
    assert await visible_changes(database)
    monkeypatch.setattr("notifier.relay.maintenance.AWAKE_SECONDS", 0.0)
    monkeypatch.setattr("notifier.relay.maintenance.ROTATE_BYTES", 1)
    for table in (0, 1):
        await move_changes_to_the_future(database, table)
    await database.execute("UPDATE notifier.log SET system = 'older/00000001/5'")
    relay = make_relay()
    await relay.start()

    async def emptied() -> bool:
        await relay.settled()
        return (
            not await database.fetchval(
                "SELECT EXISTS (SELECT FROM notifier.changes WHERE xid >= pg_snapshot_xmax(pg_current_snapshot()))"
            )
            and await visible_changes(database) < 3
        )

    await until(emptied)


async def test_case_f14_changes_that_replication_brings_to_a_running_relay_begin_an_epoch(
    database: Database, app: Connection, company: str, relay: Relayed
) -> None:
    """Case F14: a subscription for all tables writes the other cluster's changes into ours."""
    await new_event(app, company, "ours")
    await relay.settled()
    before, _ = await log_head(database)
    await database.execute(
        "INSERT INTO notifier.changes_0 (id, xid, entity, old, new, partial)"
        f" SELECT id, (xid::text::bigint + {FUTURE})::text::xid8, entity, old, new, partial"
        " FROM notifier.changes_0"
    )
    await epoch_after(database, before)
    await new_event(app, company, "after")
    assert types(await relay.messages_of(company)) == ["Resync", "EventCreated"]
    epoch, _ = await log_head(database)
    for _ in range(3):
        await relay.settled()
    assert (await log_head(database))[0] == epoch


async def test_more_than_a_page_of_foreign_changes_is_not_a_backlog_without_end(
    database: Database, app: Connection, company: str, relay: Relayed
) -> None:
    await new_event(app, company, "ours")
    await relay.settled()
    before, _ = await log_head(database)
    await database.execute(
        "INSERT INTO notifier.changes_0 (id, xid, entity, new, partial)"
        f' SELECT n, ({FUTURE} + n)::text::xid8, \'Event\', \'{{"id": 1, "company_id": "{company}"}}\', false'
        " FROM generate_series(1, 5000) AS n"
    )
    await epoch_after(database, before)
    await new_event(app, company, "after")
    assert types(await relay.messages_of(company)) == ["Resync", "EventCreated"]


async def test_changes_with_the_id_of_a_running_transaction_are_foreign(
    database: Database, app: Connection, company: str, relay: Relayed
) -> None:
    """A foreign transaction id may be that of a transaction of this cluster that is still open."""
    await new_event(app, company, "ours")
    await relay.settled()
    before, _ = await log_head(database)
    open_one = await database.connect(app=True)
    transaction = open_one.transaction()
    await transaction.start()
    await new_event(open_one, company, "still open")
    xid = await open_one.fetchval("SELECT pg_current_xact_id()::text::bigint")
    await database.execute(
        "INSERT INTO notifier.changes_0 (id, xid, entity, new, partial)"
        f' VALUES (1, {xid}::text::xid8, \'Event\', \'{{"id": 1, "company_id": "{company}"}}\', false)'
    )
    await epoch_after(database, before)
    await transaction.commit()
    messages = await relay.messages_of(company)
    assert types(messages) == ["Resync", "EventCreated"]
    assert messages[1]["Data"]["Title"] == "still open"


@pytest.mark.parametrize(
    ("snapshot", "xids", "foreign"),
    [
        ("10:20:12,15", {9, 11, 19}, False),
        ("10:20:12,15", {20}, True),
        ("10:20:12,15", {15}, True),
        ("10:10:", {9}, False),
        ("10:10:", {10}, True),
    ],
)
def test_a_visible_change_that_the_snapshot_does_not_see_is_foreign(
    snapshot: str, xids: set[int], foreign: bool
) -> None:
    assert are_foreign(snapshot, xids) == foreign


async def test_an_overflow_of_another_cluster_is_not_waited_for(
    database: Database, app: Connection, company: str, make_relay: MakeRelay
) -> None:
    """`unsettled` is a transaction id too: of another cluster it may lie far ahead."""
    await relay_some(app, company, make_relay)
    await database.execute(
        f"UPDATE notifier.log SET system = 'older/00000001/5', unsettled = '{FUTURE}'"
    )
    relay = make_relay()
    await relay.start()
    assert await database.fetchval("SELECT unsettled FROM notifier.log") is None


# --- a log that was rewound (case 4)


async def saved(database: Database) -> None:
    """Copies the log aside, as a dump does."""
    await database.execute(
        "CREATE SCHEMA dump; CREATE TABLE dump.log AS SELECT * FROM notifier.log;"
        "CREATE TABLE dump.messages AS SELECT * FROM notifier.messages;"
        "CREATE TABLE dump.positions AS SELECT * FROM notifier.positions"
    )


async def restored(database: Database) -> None:
    """Puts the copied log back into the same database: `pg_restore --data-only`."""
    await database.execute(
        "BEGIN; DELETE FROM notifier.messages; DELETE FROM notifier.positions; DELETE FROM notifier.log;"
        "INSERT INTO notifier.log SELECT * FROM dump.log;"
        "INSERT INTO notifier.messages SELECT * FROM dump.messages;"
        "INSERT INTO notifier.positions SELECT * FROM dump.positions; COMMIT"
    )


async def test_case_4_a_log_that_was_restored_into_the_same_database_begins_an_epoch(
    database: Database, app: Connection, company: str, make_relay: MakeRelay
) -> None:
    relay = await relay_some(app, company, make_relay)
    await saved(database)
    before, _ = await log_head(database)
    await relay.start()
    await new_event(app, company, "lost")
    await relay.settled()
    await relay.stop()
    await restored(database)
    await relay.start()
    assert (await log_head(database))[0] != before
    await new_event(app, company, "after the restore")
    assert types(await relay.messages_of(company)) == ["Resync", "EventCreated"]


async def test_the_first_relay_keeps_the_epoch_of_a_new_log(empty: Database) -> None:
    await migrate(empty.dsn, calendar=True)
    before, _ = await log_head(empty)
    relay = Relayed(empty)
    await relay.start()
    await relay.settled()
    await relay.stop()
    assert (await log_head(empty))[0] == before


async def test_a_dump_from_before_the_first_relay_that_is_restored_begins_an_epoch(
    database: Database, app: Connection, make_relay: MakeRelay
) -> None:
    """Its log has the name of the one that was used since, in which positions would begin again."""
    await saved(database)
    before, _ = await log_head(database)
    company = await new_company(app)
    relay = await relay_some(app, company, make_relay)
    assert (await log_head(database))[0] == before
    await restored(database)
    await relay.start()
    assert (await log_head(database))[0] != before
    await new_event(app, company, "after the restore")
    assert types(await relay.messages_of(company)) == ["EventCreated"]


async def test_a_log_that_is_restored_under_a_running_relay_begins_an_epoch(
    database: Database, app: Connection, company: str, make_relay: MakeRelay
) -> None:
    relay = await relay_some(app, company, make_relay)
    await saved(database)
    before, _ = await log_head(database)
    await relay.start()
    await new_event(app, company, "lost")
    await relay.settled()
    await restored(database)
    await epoch_after(database, before)
    await new_event(app, company, "after the restore")
    assert types(await relay.messages_of(company))[-1] == "EventCreated"


async def test_what_the_relay_itself_saves_begins_no_epoch(
    database: Database,
    app: Connection,
    company: str,
    make_relay: MakeRelay,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Rotation, pruning, backlogs and epochs write the checkpoint in transactions of different kinds."""
    monkeypatch.setattr("notifier.relay.maintenance.AWAKE_SECONDS", 0.0)
    monkeypatch.setattr("notifier.relay.maintenance.ROTATE_BYTES", 1)
    relay = make_relay(retention_hours=1e-7)
    await relay.start()
    before, _ = await log_head(database)
    for _ in range(5):
        await app.execute(
            "INSERT INTO employees (company_id, user_id, name)"
            " SELECT $1, gen_random_uuid()::text, 'Ann' FROM generate_series(1, 2500)",
            company,
        )
        await relay.settled()
    await relay.stop()
    await relay.start()
    assert (await log_head(database))[0] == before


async def test_an_epoch_that_begins_while_messages_are_read_is_the_only_one(
    database: Database,
    app: Connection,
    company: str,
    make_relay: MakeRelay,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Then the messages are deleted, not truncated, and the row is written after a savepoint."""
    monkeypatch.setattr("notifier.relay.maintenance.AWAKE_SECONDS", 0.0)
    relay = await relay_some(app, company, make_relay)
    await database.execute("UPDATE notifier.log SET system = 'older/00000001/5'")
    reading = await database.connect()
    async with reading.transaction():
        await reading.fetch("SELECT count(*) FROM notifier.messages")
        await relay.start()
        epoch, _ = await log_head(database)
    await new_event(app, company, "after it")
    assert types(await relay.messages_of(company)) == ["Resync", "EventCreated"]
    assert (await log_head(database))[0] == epoch


async def test_a_report_of_a_rewind_survives_what_the_relay_saves_meanwhile(
    database: Database, app: Connection, company: str, make_relay: MakeRelay
) -> None:
    relay = await relay_some(app, company, make_relay)
    before, seq = await log_head(database)
    await relay.start()
    report = (sql.query("report_rewind"), before, seq + 100, None, None, None, None)
    assert await database.fetchval(*report) == before
    await epoch_after(database, before)
    assert types(await relay.messages_of(company))[0] == "Resync"
    assert await database.fetchval(*report) is None


async def test_a_node_that_is_level_reports_no_rewind(
    database: Database, app: Connection, company: str, make_relay: MakeRelay
) -> None:
    await relay_some(app, company, make_relay)
    epoch, seq = await log_head(database)
    assert (
        await database.fetchval(sql.query("report_rewind"), epoch, seq, None, None, None, None)
        is None
    )
    assert (
        await database.fetchval(
            sql.query("report_rewind"), "another", seq + 1, None, None, None, None
        )
        is None
    )


async def test_case_4_a_live_node_notices_that_the_storage_was_rolled_back(
    database: Database, app: Connection, company: str
) -> None:
    """A rollback of the storage restores the checkpoint with its xmin: only nodes know better."""
    node = LocalNode(database.dsn)
    await node.start()
    stream = node.node.stream
    assert isinstance(stream, PostgresStream)
    try:
        for number in range(5):
            await new_event(app, company, str(number))

        async def delivered() -> bool:
            stored = types(await messages_of(database, company)).count("EventCreated")
            return stored == 5 and stream._seq == (await log_head(database))[1]

        await until(delivered)
        before, seq = await log_head(database)
        await database.execute(
            f"""
            DO $$ BEGIN
                PERFORM pg_terminate_backend(pid) FROM pg_stat_activity
                WHERE application_name ~ 'notifier (relay|relay reader|node)$'
                  AND datname = current_database();
                DELETE FROM notifier.messages WHERE seq > {seq} - 3;
                UPDATE notifier.log SET seq = {seq} - 3, saved_by = pg_current_xact_id();
            END $$
            """
        )
        await epoch_after(database, before)

        async def resynced() -> bool:
            return types(await messages_of(database, company))[:1] == ["Resync"]

        await until(resynced)
    finally:
        await node.stop()


# --- a sequence that was set back


async def test_changes_whose_order_is_lost_are_a_resync(
    database: Database, app: Connection, company: str, make_relay: MakeRelay
) -> None:
    """`pg_restore --data-only` sets the sequence, as scripts do that set all of them: later changes have smaller ids."""
    relay = make_relay()
    await relay.start()
    event = await new_event(app, company, "0")
    await relay.settled()
    await relay.stop()
    before, _ = await log_head(database)
    await app.execute("UPDATE events SET title = '1' WHERE id = $1", event)
    await database.execute("ALTER SEQUENCE notifier.change_ids RESTART")
    await app.execute("UPDATE events SET title = '2' WHERE id = $1", event)
    await relay.start()
    await epoch_after(database, before)
    await app.execute("UPDATE events SET title = '3' WHERE id = $1", event)
    assert types(await relay.messages_of(company)) == ["Resync", "EventUpdated"]


async def test_two_changes_of_one_large_transaction_may_have_the_same_id(
    database: Database, app: Connection, company: str, make_relay: MakeRelay
) -> None:
    relay = make_relay(bulk_limit=100_000)
    insert = (
        "INSERT INTO events (company_id, title, starts_at, ends_at)"
        " SELECT $1, 'Tea', now(), now() FROM generate_series(1, 1500)"
    )
    async with app.transaction():
        await app.execute(insert, company)
        await database.execute(
            "SELECT setval('notifier.change_ids', last_value - 1500) FROM notifier.change_ids"
        )
        await app.execute(insert, company)
    await relay.start()
    assert types(await relay.messages_of(company)) == ["EventCreated"] * 3000


async def test_the_resyncs_of_millions_of_companies_have_ten_minutes(
    database: Database, app: Connection, company: str, make_relay: MakeRelay
) -> None:
    """They are one statement: 25 s for a million. With the deadline of others, of 60 s, no relay could ever begin an epoch."""
    await relay_some(app, company, make_relay)
    await database.execute(
        """
        CREATE TABLE limits (statement text);
        CREATE FUNCTION observe() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            INSERT INTO public.limits VALUES (current_setting('statement_timeout'));
            RETURN NULL;
        END $$;
        CREATE TRIGGER observe AFTER UPDATE ON notifier.positions EXECUTE FUNCTION observe();
        UPDATE notifier.log SET system = 'older/00000001/5'
        """
    )
    before, _ = await log_head(database)
    relay = make_relay()
    await relay.start()
    await epoch_after(database, before)
    assert await database.fetchval("SELECT min(statement) FROM limits") == "10min"
    assert types(await relay.messages_of(company)) == ["Resync"]
