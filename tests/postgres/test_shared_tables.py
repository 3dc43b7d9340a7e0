"""Several watches of one table: captured once, rendered for each."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import pytest

from notifier.database.schema import migrate
from notifier.watches import CALENDAR, Watch
from tests.databases import Connection, Database
from tests.postgres.relays import Json, MakeRelay, Relayed, types

TABLE = """
    CREATE TABLE bookings (id int PRIMARY KEY, no int NOT NULL UNIQUE, team int, owner text, title text, price int,
                           note text, gone boolean);
    GRANT ALL ON bookings TO PUBLIC
"""
TEAM = Watch(table="bookings", entity="Booking", company="team", exclude=("note",))
USER = Watch(
    table="bookings",
    entity="Appointment",
    key="no",
    company="owner",
    deleted_if="gone",
    exclude=("note", "price", "team"),
    case="camel",
)


async def watch(database: Database, watches: Sequence[Watch] = (TEAM, USER)) -> list[str]:
    lines: list[str] = []
    await migrate(database.dsn, watches=[*CALENDAR, *watches], report=lines.append)
    return lines


STATEMENTS = (
    "INSERT INTO bookings VALUES (1, 11, 7, 'ada', 'a', 10, 'x', NULL), (2, 12, 8, 'ada', 'b', 20, 'x', true)",
    "UPDATE bookings SET price = price + 1, note = 'y'",
    "UPDATE bookings SET gone = true, title = 'c' WHERE id = 1",
    "UPDATE bookings SET gone = false, owner = 'bob'",
    "UPDATE bookings SET no = 13 WHERE no = 11",
    "DELETE FROM bookings",
)


def summary(messages: Sequence[Json]) -> list[tuple[str, Json, Json | None]]:
    return [(each["Type"], each["Data"], each.get("Old")) for each in messages]


EXPECTED = {
    "7": [
        "BookingCreated",
        "BookingUpdated",
        "BookingUpdated",
        "BookingUpdated",
        "BookingUpdated",
        "BookingDeleted",
    ],
    "8": ["BookingCreated", "BookingUpdated", "BookingUpdated", "BookingDeleted"],
    "ada": ["AppointmentCreated", "AppointmentDeleted"],
    "bob": [
        "AppointmentCreated",
        "AppointmentCreated",
        "AppointmentDeleted",
        "AppointmentCreated",
        "AppointmentDeleted",
        "AppointmentDeleted",
    ],
}


async def test_case_f1_each_watch_has_its_messages_of_a_change_that_is_captured_once(
    database: Database, app: Connection, make_relay: MakeRelay
) -> None:
    await database.execute(TABLE)
    await watch(database)
    assert (
        await database.fetchval(
            "SELECT count(*) FROM pg_trigger WHERE tgname = 'notifier_capture' AND tgrelid = 'bookings'::regclass"
        )
        == 1
    )
    for statement in STATEMENTS:
        await app.execute(statement)
    changes = await database.fetch(
        "SELECT entity, old, new FROM notifier.changes WHERE entity <> ''"
    )
    assert len(changes) == 2 * 4 + 2
    assert len({each["entity"] for each in changes}) == 1
    assert not any("note" in f"{each['old']}{each['new']}" for each in changes), "excluded by both"
    relay = make_relay()
    await relay.start()
    found = {company: await relay.messages_of(company) for company in EXPECTED}
    assert {company: types(messages) for company, messages in found.items()} == EXPECTED
    assert summary(found["7"])[1] == (
        "BookingUpdated",
        {
            "BookingId": 1,
            "No": 11,
            "CompanyId": 7,
            "Owner": "ada",
            "Title": "a",
            "Price": 11,
            "Gone": None,
        },
        {"Price": 10},
    )
    assert summary(found["ada"]) == [
        (
            "AppointmentCreated",
            {"id": 1, "appointmentId": 11, "companyId": "ada", "title": "a", "gone": None},
            None,
        ),
        (
            "AppointmentDeleted",
            {"id": 1, "appointmentId": 11, "companyId": "ada", "title": "a", "gone": None},
            None,
        ),
    ]


async def test_large_transactions_and_rows_are_rendered_for_each_watch(
    database: Database, app: Connection, make_relay: MakeRelay
) -> None:
    await database.execute(TABLE)
    await watch(database, [TEAM, USER, Watch(table="bookings", entity="Copy", company="team")])
    relay = make_relay(bulk_limit=100)
    await relay.start()
    async with app.transaction():
        await app.execute(
            "INSERT INTO bookings SELECT n, n, 1, 'many', '', n, '', NULL FROM generate_series(1, 9000) AS n"
        )
        await app.execute("UPDATE bookings SET team = 7, owner = 'ada' WHERE id = 1")
        await app.execute("UPDATE bookings SET owner = 'bob' WHERE id IN (2, 3)")
        await app.execute("UPDATE bookings SET title = 'x' WHERE id = 2")
    assert sorted(types(await relay.messages_of("7"))) == ["BookingCreated", "CopyCreated"]
    assert types(await relay.messages_of("bob")) == ["AppointmentCreated"] * 2
    assert (
        types(await relay.messages_of("many")) == types(await relay.messages_of("1")) == ["Resync"]
    )
    await app.execute("UPDATE bookings SET title = repeat('x', 3000000) WHERE id = 1")
    await app.execute("UPDATE bookings SET owner = 'eve' WHERE id = 1")
    (deleted,) = (await relay.messages_of("ada"))[2:]
    assert deleted["Data"] == {"appointmentId": 1, "companyId": "ada"}
    assert deleted["Partial"] is True
    await app.execute("TRUNCATE bookings")
    for company in ("7", "bob"):
        assert types(await relay.messages_of(company))[-1] == "Resync"


async def test_a_column_that_one_watch_excludes_is_not_sent_under_another_name(
    database: Database, app: Connection, relay: Relayed
) -> None:
    await database.execute(TABLE)
    await watch(database)
    await database.execute("ALTER TABLE bookings RENAME price TO cost")
    await app.execute(STATEMENTS[0])
    (created,) = await relay.messages_of("ada")
    assert created["Data"] == {"appointmentId": 11, "companyId": "ada"}
    assert created["Partial"] is True
    (whole,) = await relay.messages_of("7")
    assert whole["Data"]["Cost"] == 10
    problems = await database.fetch("SELECT object FROM notifier.watch_problems()")
    assert [each["object"] for each in problems] == ["public.bookings.price"]


async def test_watches_come_and_go_without_a_loss(
    database: Database, app: Connection, relay: Relayed, monkeypatch: pytest.MonkeyPatch
) -> None:
    # `migrate` replaces a trigger here, which a look at the triggers counts as a gap.
    for name in ("AWAKE_SECONDS", "ASLEEP_SECONDS"):
        monkeypatch.setattr(f"notifier.relay.maintenance.{name}", math.inf)
    await database.execute(TABLE)
    await watch(database, [TEAM])
    await app.execute(STATEMENTS[0])
    entity = "SELECT captured_as FROM notifier.watches WHERE table_name = 'bookings' LIMIT 1"
    assert types(await relay.messages_of("7")) == ["BookingCreated"]
    await watch(database, [USER, TEAM])
    assert await database.fetchval(entity) == "Booking", "whatever the order of the file is"
    assert await watch(database, [TEAM, USER]) == []
    await app.execute("UPDATE bookings SET title = 'both' WHERE id = 1")
    assert types(await relay.messages_of("7")) == ["BookingCreated", "BookingUpdated"]
    assert types(await relay.messages_of("ada")) == ["AppointmentUpdated"]
    await relay.stop()
    await app.execute("UPDATE bookings SET title = 'unread' WHERE id = 1")
    lines = await watch(database, [USER])
    assert "bookings: captured for Booking → Appointment: every company gets a Resync" in lines
    await app.execute("UPDATE bookings SET title = 'last' WHERE id = 1")
    await relay.start()
    assert types(await relay.messages_of("ada"))[1:] == ["Resync", "AppointmentUpdated"]


@pytest.mark.parametrize("order", [1, -1])
async def test_an_exclude_of_one_watch_alone_forgets_the_changes_that_both_share(
    database: Database, app: Connection, order: int
) -> None:
    await database.execute(TABLE)
    await watch(database)
    await app.execute(STATEMENTS[0])
    wanted = [TEAM, replace(USER, exclude=(*USER.exclude, "title"))]
    lines = await watch(database, wanted[::order])
    assert any("exclude +title" in line for line in lines)
    assert (
        await database.fetchval(
            "SELECT count(*) FROM notifier.changes WHERE old IS NOT NULL OR new IS NOT NULL"
        )
        == 0
    )
