"""Moves of rows on a path that a writer has not seen: what it wrote belongs to another company when it commits."""

from __future__ import annotations

import pytest

from notifier.database.schema import migrate
from notifier.watches import CALENDAR, Watch
from tests.databases import Connection, Database
from tests.postgres.relays import Relayed, types
from tests.postgres.test_replaced_parents import TABLES, watch

OLD = "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1 FROM teams"
"""Begins a transaction whose statements all have the same snapshot, which is taken now."""


@pytest.fixture
async def team(database: Database, relay: Relayed) -> Database:
    """Team 1 is in account 7, team 2 in 8, team 3 in 9 and team 4 in 7; board and post 1 are those of team 1."""
    await database.execute(TABLES)
    await watch(database)
    return database


async def heads(relay: Relayed) -> dict[str, int]:
    return {each: len(await relay.messages_of(f"post:{each}")) for each in "789"}


async def since(relay: Relayed, before: dict[str, int]) -> dict[str, list[str]]:
    """The types of the messages after these, of companies that have any."""
    found = {
        each: types((await relay.messages_of(f"post:{each}"))[head:])
        for each, head in before.items()
    }
    return {each: messages for each, messages in found.items() if messages}


async def test_a_writer_that_began_after_the_one_that_moves_is_a_resync_again(
    team: Database, app: Connection, relay: Relayed
) -> None:
    """No transaction that began later has ended when the move is read: then a snapshot does not list the writer."""
    await relay.settled()
    other = await team.connect(app=True)
    await app.execute("BEGIN; UPDATE teams SET account = 8 WHERE id = 1")
    await other.execute("BEGIN; INSERT INTO posts VALUES (9, 1)")
    await app.execute("COMMIT")
    before = await heads(relay)
    await other.execute("COMMIT")
    assert await since(relay, before) == {"7": ["PostCreated", "Resync"], "8": ["Resync"]}
    assert await team.fetchval("SELECT moves::text FROM notifier.moves") == "[]"


async def test_a_large_transaction_that_has_not_seen_a_move_is_a_resync_for_both_companies(
    team: Database, app: Connection, relay: Relayed
) -> None:
    other = await team.connect(app=True)
    await other.execute(OLD)
    await app.execute("UPDATE teams SET account = 8 WHERE id = 1")
    before = await heads(relay)
    await other.execute("INSERT INTO posts SELECT n, 1 FROM generate_series(9, 2500) AS n; COMMIT")
    assert await since(relay, before) == {"7": ["Resync", "Resync"], "8": ["Resync"]}


async def test_a_large_transaction_of_rows_without_a_company_that_has_not_seen_a_move_is_a_resync(
    team: Database, app: Connection, relay: Relayed
) -> None:
    await team.execute("UPDATE teams SET account = NULL WHERE id = 1")
    await relay.settled()  # the next move would be one that may have missed it
    other = await team.connect(app=True)
    await other.execute(OLD)
    await app.execute("UPDATE teams SET account = 8 WHERE id = 1")
    before = await heads(relay)
    await other.execute("INSERT INTO posts SELECT n, 1 FROM generate_series(9, 2500) AS n; COMMIT")
    assert await since(relay, before) == {"8": ["Resync"]}


async def test_moves_lead_on_from_each_other_in_whichever_order_they_are_committed(
    team: Database, app: Connection, relay: Relayed
) -> None:
    other, third = await team.connect(app=True), await team.connect(app=True)
    await other.execute(OLD)
    await third.execute("BEGIN; UPDATE boards SET team = 2 WHERE id = 1")  # from 7 to 8
    await app.execute("UPDATE teams SET account = 9 WHERE id = 2")  # which is 9 now
    await relay.settled()
    await third.execute("COMMIT")
    before = await heads(relay)
    await other.execute("INSERT INTO posts VALUES (9, 1); COMMIT")
    assert await since(relay, before) == {
        "7": ["PostCreated", "Resync"],
        "8": ["Resync"],
        "9": ["Resync"],
    }


MOVED = {
    "updated": "UPDATE boards SET team = 4 WHERE id = 1",
    "replaced": (
        "SET CONSTRAINTS ALL DEFERRED; DELETE FROM boards WHERE id = 1; INSERT INTO boards VALUES (1, 4)"
    ),
}


# in READ COMMITTED the row that replaces another one is read at the end of the transaction
@pytest.mark.parametrize(
    ("isolation", "moved"),
    [
        ("READ COMMITTED", "updated"),
        ("REPEATABLE READ", "updated"),
        ("REPEATABLE READ", "replaced"),
    ],
)
async def test_a_row_that_leads_to_the_same_company_only_as_its_writer_sees_it_is_a_resync(
    team: Database, app: Connection, relay: Relayed, isolation: str, moved: str
) -> None:
    """Its team is in account 7 like the one before, and in 9 when the writer commits."""
    other = await team.connect(app=True)
    await other.execute(f"BEGIN ISOLATION LEVEL {isolation}; SELECT 1 FROM teams")
    await app.execute("BEGIN; UPDATE teams SET account = 9 WHERE id = 4")
    if isolation == "READ COMMITTED":
        await other.execute(MOVED[moved])
    await app.execute("COMMIT")
    before = await heads(relay)
    await other.execute(f"{MOVED[moved] if isolation == 'REPEATABLE READ' else 'SELECT 1'}; COMMIT")
    assert await since(relay, before) == {"7": ["Resync"], "9": ["Resync"]}


async def test_a_row_that_leads_to_the_same_company_along_another_way_is_no_resync(
    team: Database, app: Connection, relay: Relayed
) -> None:
    other = await team.connect(app=True)
    await other.execute("BEGIN; INSERT INTO posts VALUES (9, 1)")
    before = await heads(relay)
    await app.execute("UPDATE boards SET team = 4 WHERE id = 1")
    await app.execute("UPDATE boards SET team = 1 WHERE id = 1")
    assert await since(relay, before) == {}
    await other.execute("COMMIT")
    assert await since(relay, before) == {"7": ["PostCreated"]}


@pytest.mark.parametrize("isolation", ["REPEATABLE READ", "SERIALIZABLE"])
async def test_rows_on_a_path_that_are_deleted_beside_each_other_are_no_resync(
    team: Database, app: Connection, relay: Relayed, isolation: str
) -> None:
    """Records of the first are deleted by the second, and not visible to the third but in its snapshot."""
    await team.execute("INSERT INTO teams VALUES (11, 7), (12, 7), (13, 7)")
    await app.execute("INSERT INTO posts VALUES (11, 1), (12, 2), (13, 3)")
    await app.execute("DELETE FROM teams WHERE id = 11")
    before = await heads(relay)
    other = await team.connect(app=True)
    await other.execute(f"BEGIN ISOLATION LEVEL {isolation}; SELECT 1 FROM teams")
    await app.execute("DELETE FROM teams WHERE id = 12")
    await other.execute("DELETE FROM teams WHERE id = 13; COMMIT")
    assert await since(relay, before) == {}


LOOSE = Watch(table="notes", entity="Note", company="team -> crews.owner")
"""The path has no foreign key: notes may name a crew that there is not yet."""


@pytest.fixture
async def crews(database: Database, relay: Relayed) -> Database:
    await database.execute(
        "CREATE TABLE crews (slug text UNIQUE, owner text);"
        "CREATE TABLE notes (id int PRIMARY KEY, team text);"
        "GRANT ALL ON crews, notes TO PUBLIC"
    )
    await migrate(database.dsn, watches=[*CALENDAR, LOOSE])
    return database


@pytest.mark.parametrize("isolation", ["READ COMMITTED", "REPEATABLE READ"])
@pytest.mark.parametrize(
    ("before", "change"),
    [
        ("SELECT", "INSERT INTO crews VALUES ('red', 'ada')"),
        ("INSERT INTO crews VALUES ('blue', 'ada')", "UPDATE crews SET slug = 'red'"),
        (
            "INSERT INTO crews VALUES ('blue', 'bob')",
            "UPDATE crews SET slug = 'red', owner = 'ada'",
        ),
        (
            "INSERT INTO crews VALUES ('red', 'bob')",
            "DELETE FROM crews; INSERT INTO crews VALUES ('red', 'ada')",
        ),
    ],
)
async def test_a_row_that_was_written_before_the_row_to_which_it_leads_is_a_resync(
    crews: Database, app: Connection, relay: Relayed, isolation: str, before: str, change: str
) -> None:
    await app.execute(before)
    await relay.settled()
    other = await crews.connect(app=True)
    await other.execute(f"BEGIN ISOLATION LEVEL {isolation}; INSERT INTO notes VALUES (1, 'red')")
    for statement in change.split("; "):  # each a transaction of its own
        await app.execute(statement)
        await relay.settled()
    head = len(await relay.messages_of("ada"))
    await other.execute("COMMIT")
    await relay.settled()
    assert types((await relay.messages_of("ada"))[head:]) == ["Resync"]


async def test_a_row_beside_one_that_leads_elsewhere_is_no_resync(
    crews: Database, app: Connection, relay: Relayed
) -> None:
    await app.execute("INSERT INTO crews VALUES ('red', 'ada')")
    await relay.settled()
    other = await crews.connect(app=True)
    await other.execute("BEGIN; INSERT INTO notes VALUES (1, 'red')")
    await app.execute("INSERT INTO crews VALUES ('blue', 'bob')")
    await relay.settled()
    heads = {company: len(await relay.messages_of(company)) for company in ("ada", "bob")}
    await other.execute("COMMIT")
    await relay.settled()
    assert types((await relay.messages_of("ada"))[heads["ada"] :]) == ["NoteCreated"]
    assert types((await relay.messages_of("bob"))[heads["bob"] :]) == []
