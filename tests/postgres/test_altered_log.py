"""The log's tables as a restore in parts, or an administrator, may leave them: other messages, no partition, no index, no row."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from notifier.check.links import check
from notifier.database.schema import migrate, uninstall
from notifier.errors import DatabaseError
from notifier.relay.relay import State
from notifier.settings import load
from tests.databases import Connection, Database
from tests.postgres.relays import MakeRelay, Relayed, log_head, messages_of, new_event, types
from tests.postgres.streams import Node
from tests.postgres.test_continuity import epoch_after
from tests.services import SECRET
from tests.waiting import until


@pytest.fixture(autouse=True)
def maintenance_is_always_due(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("notifier.relay.maintenance.AWAKE_SECONDS", 0.0)
    monkeypatch.setattr("notifier.relay.maintenance.ASLEEP_SECONDS", 0.0)
    monkeypatch.setattr("notifier.relay.relay.SLEEPING_READ_SECONDS", 0.1)


async def failures(database: Database) -> list[str]:
    found = await check(load({}, database_url=database.dsn, jwt_secret=SECRET))
    return [each.line for each in found if each.sound is False]


async def add_messages(database: Database, first: int) -> None:
    """Messages of another log, as `pg_restore --data-only` adds them, which fails for the row of notifier.log."""
    await database.execute(
        "INSERT INTO notifier.messages (slot, seq, company, position, at, body)"
        " SELECT 5, $1 + n, 'another', 70 + n, now(), '{}' FROM generate_series(0, 9) AS n",
        first,
    )


async def test_messages_beyond_the_relays_own_begin_an_epoch_that_reaches_the_nodes(
    database: Database,
    app: Connection,
    company: str,
    relay: Relayed,
    make_node: Callable[..., Node],
) -> None:
    """Nodes would take them for the end of the log, and no later message for a new one."""
    await new_event(app, company, "before")
    await relay.settled()
    node = make_node()
    node.begin()
    await node.hub.started()
    before, seq = await log_head(database)
    await add_messages(database, seq + 1000)
    await epoch_after(database, before)

    async def followed() -> bool:
        return node.hub.epoch == (await log_head(database))[0]

    await until(followed)
    subscriber = await node.subscribe(company)
    await new_event(app, company, "after")
    await subscriber.gets(1)
    assert types(await messages_of(database, "another")) == ["Resync"]


async def test_a_cursor_that_came_with_other_messages_is_not_followed(
    database: Database, app: Connection, company: str, make_relay: MakeRelay
) -> None:
    """It may see changes that no relay of this log has read. The relay stores one cursor in a transaction, a restore many."""
    relay = make_relay()
    await relay.start()
    await new_event(app, company, "before")
    await relay.settled()
    await relay.stop()
    before, seq = await log_head(database)
    await new_event(app, company, "unread")
    await database.execute(
        "INSERT INTO notifier.messages (slot, seq, company, position, at, body, cursor)"
        " SELECT 5, $1 + n, 'another', 70 + n, now(), '{}', pg_current_snapshot()"
        " FROM generate_series(1, 9) AS n",
        seq,
    )
    await relay.start()
    assert (await log_head(database))[0] != before
    assert types(await relay.messages_of(company)) == ["Resync"]


async def test_messages_of_a_former_epoch_begin_another(
    database: Database, app: Connection, company: str, relay: Relayed
) -> None:
    await new_event(app, company, "before")
    await relay.settled()
    first, seq = await log_head(database)
    await database.execute("UPDATE notifier.log SET saved_by = '0'")
    second = await epoch_after(database, first)
    await add_messages(database, seq - 10)
    await epoch_after(database, second)
    assert types(await messages_of(database, "another")) == ["Resync"]


@pytest.mark.parametrize(
    "statement",
    [
        "ALTER TABLE notifier.messages DETACH PARTITION notifier.messages_0",
        "DROP TABLE notifier.messages_0",
    ],
)
async def test_without_a_partition_no_message_is_dropped_and_migrate_heals(
    database: Database, app: Connection, company: str, relay: Relayed, statement: str
) -> None:
    """The log has a place for a message, or the change waits."""
    await new_event(app, company, "before")
    await relay.settled()
    before, _ = await log_head(database)
    await database.execute(statement)
    await new_event(app, company, "meanwhile")
    assert any("partition messages_0" in line for line in await failures(database))
    assert await database.fetchval("SELECT count(*) FROM notifier.changes WHERE entity = 'Event'")
    lines: list[str] = []
    await migrate(database.dsn, report=lines.append)
    assert lines[0] == "partition messages_0: made again; a new epoch begins"
    await epoch_after(database, before)
    await new_event(app, company, "after")
    assert types(await relay.messages_of(company))[-1] == "EventCreated"
    assert await failures(database) == []


async def test_a_message_that_finds_no_partition_is_not_taken_for_a_refused_one(
    database: Database,
    app: Connection,
    company: str,
    relay: Relayed,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The relay notices that one is missing once a second, and may have read a change before."""
    await relay.settled()
    before, _ = await log_head(database)
    monkeypatch.setattr("notifier.relay.maintenance.AWAKE_SECONDS", 3600.0)
    monkeypatch.setattr("notifier.relay.maintenance.ASLEEP_SECONDS", 3600.0)
    partition = "PARTITION notifier.messages_0"
    await database.execute(f"ALTER TABLE notifier.messages DETACH {partition}")
    await new_event(app, company, "meanwhile")

    async def is_lost() -> bool:
        return relay.relay is not None and relay.relay.state is State.STANDBY

    await until(is_lost)
    await database.execute(f"ALTER TABLE notifier.messages ATTACH {partition} FOR VALUES IN (0)")
    assert types(await relay.messages_of(company)) == ["EventCreated"]
    assert (await log_head(database))[0] == before


@pytest.mark.parametrize("table", ["log", "configuration", "moves"])
async def test_a_table_without_its_row_is_healed_by_migrate(
    database: Database, app: Connection, company: str, relay: Relayed, table: str
) -> None:
    """`pg_dump --exclude-table-data` leaves it out. The relay's log names that remedy."""
    await new_event(app, company, "before")
    await relay.settled()
    await database.execute(f"TRUNCATE notifier.{table}")
    lines: list[str] = []
    await migrate(database.dsn, report=lines.append)
    assert lines[0] == f"row of {table}: made again; a new epoch begins"

    async def resynced() -> bool:
        return types(await messages_of(database, company)) == ["Resync"]

    await until(resynced)
    await new_event(app, company, "after")
    assert types(await relay.messages_of(company)) == ["Resync", "EventCreated"]
    assert await failures(database) == []


ALTERED = {
    "index on positions (company)": "ALTER TABLE notifier.positions DROP CONSTRAINT positions_pkey",
    "index on messages_3 (seq)": "DROP INDEX notifier.messages_3_seq_idx",
    "index on changes_1 (xid)": "DROP INDEX notifier.changes_1_xid_idx",
    "order of change_ids": "ALTER SEQUENCE notifier.change_ids CACHE 100",
    "permanence of messages_2": "ALTER TABLE notifier.messages_2 SET UNLOGGED",
}


@pytest.mark.parametrize("name", ALTERED)
async def test_what_the_relay_relies_on_is_named_and_made_again(
    database: Database, name: str
) -> None:
    await database.execute(ALTERED[name])
    assert any(f"the schema notifier lacks {name};" in line for line in await failures(database))
    lines: list[str] = []
    await migrate(database.dsn, report=lines.append)
    assert lines == [f"{name}: made again; a new epoch begins"]
    assert await failures(database) == []
    await migrate(database.dsn, report=lines.append)
    assert len(lines) == 1


@pytest.mark.parametrize("name", ["table positions", "table watches", "sequence change_ids"])
async def test_what_cannot_be_made_again_is_one_readable_line(
    database: Database, name: str
) -> None:
    kind, _, relation = name.partition(" ")
    await database.execute(f"ALTER {kind} notifier.{relation} RENAME TO another")
    reason = f"the schema notifier lacks {name}: restore it, or run: notifier uninstall, and then notifier migrate"
    assert reason in await failures(database)
    with pytest.raises(DatabaseError, match=reason):
        await migrate(database.dsn)
    await database.execute(f"DROP {kind} notifier.another")
    await uninstall(database.dsn)
    await migrate(database.dsn)
    assert await failures(database) == []


@pytest.mark.parametrize(
    "statement",
    ["TRUNCATE notifier.messages", "DELETE FROM notifier.positions; DELETE FROM notifier.messages"],
)
async def test_positions_that_are_given_out_again_are_not_taken_for_those_that_were_delivered(
    database: Database,
    app: Connection,
    company: str,
    make_relay: MakeRelay,
    make_node: Callable[..., Node],
    statement: str,
) -> None:
    relay = make_relay()
    await relay.start()
    node = make_node()
    node.begin()
    await node.hub.started()
    subscriber = await node.subscribe(company)
    for number in range(3):
        await new_event(app, company, str(number))
    await subscriber.gets(3)
    await relay.stop()
    await relay.start()  # and saves its place in the log
    await relay.stop()
    await database.execute(statement)
    await relay.start()
    await new_event(app, company, "after")

    async def is_resynced() -> bool:
        return subscriber.is_dropped or any(b"Resync" in body for body in subscriber.bodies)

    await until(is_resynced)
