"""Keys of several columns: proven by a unique index, netted and sent as arrays."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from notifier.database.schema import migrate
from notifier.errors import SettingsError
from notifier.settings import load
from notifier.watches import CALENDAR, Case, Watch
from notifier.web.asyncapi import document
from tests.databases import Connection, Database
from tests.postgres.relays import MakeRelay, Relayed, types

TABLE = """
    CREATE TABLE attendees (booking_id bigint NOT NULL, email text NOT NULL, company_id text, note text, {});
    GRANT ALL ON attendees TO PUBLIC
"""
BOTH = "PRIMARY KEY (booking_id, email)"
ATTENDEE = Watch(table="attendees", entity="Attendee", key=("booking_id", "email"))


async def watch(database: Database, index: str = BOTH, watch: Watch = ATTENDEE) -> None:
    await database.execute(TABLE.format(index))
    await migrate(database.dsn, watches=[*CALENDAR, watch])


async def test_row_1_16_rows_that_share_a_column_of_their_key_have_a_message_each(
    database: Database, app: Connection, relay: Relayed
) -> None:
    await watch(database)
    await app.execute(
        "INSERT INTO attendees VALUES (2, 'a@b', 'c'), (2, 'c@d', 'c'), (9007199254740993, 'a@b', 'c')"
    )
    await app.execute("UPDATE attendees SET note = 'late' WHERE booking_id = 2")
    await app.execute("UPDATE attendees SET email = 'x@y' WHERE email = 'c@d'")
    messages = await relay.messages_of("c")
    assert types(messages) == ["AttendeeCreated"] * 3 + ["AttendeeUpdated"] * 2 + [
        "AttendeeDeleted",
        "AttendeeCreated",
    ]
    assert messages[0]["Data"] == {
        "AttendeeId": [2, "a@b"],
        "BookingId": 2,
        "Email": "a@b",
        "CompanyId": "c",
        "Note": None,
    }
    assert messages[2]["Data"]["AttendeeId"] == ["9007199254740993", "a@b"]
    assert messages[3]["Old"] == {"Note": None}
    assert [message["Data"]["AttendeeId"] for message in messages[3:]] == [
        [2, "a@b"],
        [2, "c@d"],
        [2, "c@d"],
        [2, "x@y"],
    ]


async def test_a_row_that_is_stored_with_its_keys_only_has_all_of_them(
    database: Database, app: Connection, relay: Relayed
) -> None:
    await watch(database)
    await app.execute("INSERT INTO attendees VALUES (2, 'a@b', 'c', repeat('x', 3000000))")
    (message,) = await relay.messages_of("c")
    assert message["Partial"] is True
    assert message["Data"] == {
        "AttendeeId": [2, "a@b"],
        "BookingId": 2,
        "Email": "a@b",
        "CompanyId": "c",
    }


async def test_the_company_may_be_part_of_the_key(
    database: Database, app: Connection, relay: Relayed
) -> None:
    index = "PRIMARY KEY (company_id, email)"
    await watch(database, index, replace(ATTENDEE, key=("company_id", "email")))
    await app.execute("INSERT INTO attendees VALUES (2, 'a@b', 'c')")
    (message,) = await relay.messages_of("c")
    assert message["Data"]["AttendeeId"] == ["c", "a@b"]
    assert message["Data"]["CompanyId"] == "c"


async def test_a_large_transaction_counts_rows_by_their_whole_key(
    database: Database, app: Connection, make_relay: MakeRelay
) -> None:
    await watch(database)
    relay = make_relay(bulk_limit=10)
    await relay.start()
    await app.execute(
        "INSERT INTO attendees SELECT 2, n::text, 'c' FROM generate_series(1, 9000) AS n"
    )
    (message,) = await relay.messages_of("c")
    assert (message["Type"], message["Data"]["Reason"]) == ("Resync", "bulk")
    revokes = await database.fetchval("SELECT revokes FROM notifier.messages WHERE company = 'c'")
    assert revokes == ["*"]  # it was counted before its rows were read


@pytest.mark.parametrize(
    "index",
    [
        "UNIQUE (booking_id)",
        "UNIQUE (booking_id, email, company_id)",
        "UNIQUE (booking_id, email, note)",
        "CHECK (true)",
    ],
)
async def test_without_a_unique_index_on_exactly_these_columns_it_is_refused(
    database: Database, index: str
) -> None:
    remedy = "names? one row; create one on booking_id, email and make them NOT NULL"
    with pytest.raises(SettingsError, match=f"no unique index .* booking_id and email {remedy}"):
        await watch(database, index)


async def test_a_column_that_may_be_null_or_has_the_name_of_the_key_is_refused(
    database: Database,
) -> None:
    await database.execute(TABLE.format("UNIQUE (booking_id, email)"))
    await database.execute("ALTER TABLE attendees ALTER email DROP NOT NULL")
    with pytest.raises(SettingsError, match="make them NOT NULL"):
        await migrate(database.dsn, watches=[*CALENDAR, ATTENDEE])
    await database.execute("ALTER TABLE attendees ALTER email SET NOT NULL, ADD attendee_id int")
    with pytest.raises(SettingsError, match="would both be sent as AttendeeId"):
        await migrate(database.dsn, watches=[*CALENDAR, ATTENDEE])


@pytest.mark.parametrize(
    ("case", "name"),
    [("pascal", "AttendeeId"), ("camel", "attendeeId"), ("column", "AttendeeId")],
)
def test_its_property_has_the_spelling_of_the_watch(case: Case, name: str) -> None:
    properties = document([replace(ATTENDEE, case=case)])["components"]["schemas"]["AttendeeRow"]
    assert properties["properties"][name] == {"type": "array", "items": {}}


def test_it_comes_from_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    head = '[[watch]]\ntable = "t"\nentity = "T"\n'
    file = Path("notifier.toml")
    file.write_text(f'{head}key = ["a", \'"B"\']')
    assert load().watch[0].key == ("a", "B")
    file.write_text(f'{head}key = ["a"]')
    assert load().watch[0].key == "a"
    file.write_text(f"{head}key = []")
    with pytest.raises(SettingsError, match="1, key: must be"):
        load()


@pytest.mark.parametrize("key", ["id", ("company_id", "id")])
async def test_a_number_that_gets_another_text_more_than_once_is_not_deleted_last(
    key: str | tuple[str, ...], database: Database, app: Connection, relay: Relayed
) -> None:
    """Clients that compare keys as numbers, as those of JavaScript do, would lose the row."""
    await database.execute(
        "CREATE TABLE parts (id numeric PRIMARY KEY, company_id text NOT NULL, UNIQUE (company_id, id));"
        " GRANT ALL ON parts TO app"
    )
    await migrate(database.dsn, watches=[*CALENDAR, Watch(table="parts", entity="Part", key=key)])
    await relay.settled()
    await app.execute("INSERT INTO parts VALUES (1, 'c')")
    async with app.transaction():
        for text in ("1.0", "1", "1.0"):
            await app.execute(f"UPDATE parts SET id = {text}")
    await app.execute("UPDATE parts SET id = 1.00")
    assert types(await relay.messages_of("c")) == ["PartCreated"] + 2 * [
        "PartDeleted",
        "PartCreated",
    ]
