"""With a DEFERRABLE key a row may have the key of one whose deletion is not committed yet, in a backlog of several pages, too."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from notifier.database.schema import migrate
from notifier.relay import backlog, reader
from notifier.relay.connection import RelayConnection
from notifier.relay.reader import ChangeReader, NotInTime
from notifier.relay.store import RelayStore
from notifier.watches import CALENDAR, Watch
from tests.databases import Connection, Database
from tests.postgres.relays import MakeRelay, Relayed, types

DEFERRED = "UNIQUE (id) DEFERRABLE INITIALLY DEFERRED"


@pytest.fixture(autouse=True)
def small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    """A transaction of more than five changes is a large one."""
    for module in (backlog, reader):
        monkeypatch.setattr(module, "PAGE", 5)


@pytest.fixture
async def seats(database: Database) -> None:
    await database.execute(
        f"CREATE TABLE seats (id int NOT NULL, company_id text, name text, {DEFERRED}); GRANT ALL ON seats TO app;"
        " INSERT INTO seats VALUES (0, 'c', 'first'), (100, 'd', '')"
    )
    await migrate(database.dsn, watches=[*CALENDAR, Watch(table="seats", entity="Seat")])


async def swap(database: Database, former: Connection, taken: int, further: int) -> None:
    """A transaction takes the key of a row, and so many keys, before the one ends that deletes it and has `further` changes."""
    latter = await database.connect(app=True)
    deleting, inserting = former.transaction(), latter.transaction()
    await deleting.start()
    await former.execute("DELETE FROM seats WHERE id = 0")
    await inserting.start()
    await latter.execute(
        "INSERT INTO seats SELECT n, 'c', 'second' FROM generate_series(0, $1::int) AS n", taken - 1
    )
    ending = asyncio.create_task(inserting.commit())
    await database.blocked()
    await former.execute(
        "INSERT INTO seats SELECT n, 'd', '' FROM generate_series(1001, 1000 + $1::int) AS n",
        further,
    )
    await deleting.commit()
    await ending


@pytest.mark.usefixtures("seats")
@pytest.mark.parametrize(
    ("taken", "further", "expected"),
    [
        (1, 4, ["SeatCreated", "SeatDeleted", "Resync"]),
        (1, 6, ["SeatCreated", "SeatDeleted", "Resync"]),
        (6, 4, [*["SeatCreated"] * 6, "SeatDeleted", "Resync"]),
        (6, 6, [*["SeatCreated"] * 6, "SeatDeleted", "Resync"]),
        (9, 4, ["Resync", "SeatDeleted", "Resync"]),
    ],
    ids=["pages", "large latter", "large former", "both large", "bulk"],
)
async def test_a_deletion_in_a_later_page_than_the_row_that_has_the_key_now_is_a_resync(
    taken: int,
    further: int,
    expected: list[str],
    database: Database,
    app: Connection,
    make_relay: MakeRelay,
) -> None:
    await swap(database, app, taken, further)
    relay = make_relay(bulk_limit=8)
    await relay.start()
    assert types(await relay.messages_of("c")) == expected
    assert types(await relay.messages_of("d")) == ["SeatCreated"] * further


@pytest.mark.usefixtures("seats")
async def test_the_rows_of_a_large_transaction_that_is_not_read_in_time_may_have_any_key(
    database: Database, app: Connection, make_relay: MakeRelay, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def late(_self: ChangeReader, _xid: int) -> Any:
        raise NotInTime

    monkeypatch.setattr(ChangeReader, "weigh", late)
    await app.execute("INSERT INTO seats VALUES (2000, 'c', '')")
    await swap(database, app, 6, 4)
    relay = make_relay()
    await relay.start()
    assert types(await relay.messages_of("c")) == ["SeatCreated", "Resync", "SeatDeleted", "Resync"]


@pytest.mark.usefixtures("seats")
async def test_a_relay_that_continues_a_backlog_knows_no_row_of_its_former_pages(
    database: Database, app: Connection, relay: Relayed, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, failed = backlog.Backlog._store_large, list[str]()

    async def store_large(self: backlog.Backlog, page: backlog.Page) -> None:
        if not failed:
            failed.append("once")
            raise TimeoutError
        await store(self, page)

    monkeypatch.setattr(backlog.Backlog, "_store_large", store_large)
    await relay.settled()
    await relay.stop()
    await swap(database, app, 1, 10)
    await relay.start()
    assert types(await relay.messages_of("c")) == ["SeatCreated", "SeatDeleted", "Resync"]
    assert failed


@pytest.mark.parametrize(
    ("key", "is_awaited"),
    [
        ("PRIMARY KEY (id)", True),
        ("UNIQUE (company_id, id)", True),
        ("UNIQUE (id) INCLUDE (name)", True),
        (DEFERRED, False),
        ("UNIQUE (id) DEFERRABLE", False),
        (f"{DEFERRED}, UNIQUE (company_id, id)", True),
        (f"{DEFERRED}, UNIQUE (id, name)", False),
    ],
)
async def test_only_a_key_that_is_not_deferrable_is_awaited(
    key: str, is_awaited: bool, database: Database
) -> None:
    await database.execute(
        f"CREATE TABLE seats (id int NOT NULL, company_id text, name text, {key})"
    )
    await migrate(database.dsn, watches=[*CALENDAR, Watch(table="seats", entity="Seat")])
    store = RelayStore(RelayConnection(await database.connect()))
    sources = await store.load_sources()
    assert sources["Seat"].is_key_awaited is is_awaited
    assert sources["Event"].is_key_awaited
