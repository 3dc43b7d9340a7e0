"""Rows whose JSON PostgreSQL's operators read with difficulty, or not at all: escapes in any number, and deep nesting behind them."""

from __future__ import annotations

from typing import Any, Literal

import pytest

from notifier.database.schema import migrate
from notifier.relay import backlog, reader
from notifier.watches import CALENDAR, Watch
from tests.databases import Connection, Database
from tests.postgres.relays import MakeRelay, Relayed, types

HARMLESS = "to_json(repeat(chr(1), 100001))"
"""Control characters, each of which is an escape that every operator reads."""
MANY = r"""('"\u0000' || repeat('\ud83d\ude00', 100001) || '"')::json"""
"""As many surrogates behind an escape that none reads."""
DEEP = r"""('["\u0000",' || repeat('[', 6000) || repeat(']', 6000) || ']')::json"""
"""Behind an escape that none reads, what none reads with SMALL_STACK."""
SMALL_STACK = "400kB"

TABLES = """
    CREATE TABLE teams (id int PRIMARY KEY, account text, extra json);
    CREATE TABLE notes (id int PRIMARY KEY, team int REFERENCES teams, body json);
    GRANT ALL ON teams, notes TO app;
    INSERT INTO teams VALUES (1, 'a'), (2, 'b'), (3, 'c');
    INSERT INTO notes VALUES (1, 1, '1'), (2, 2, '1'), (3, 3, '1')
"""
NOTES = Watch(table="notes", entity="Note", company="team -> teams.account")
DOCS = Watch(table="docs", entity="Doc")

Isolation = Literal["read_committed", "repeatable_read"]


@pytest.fixture
async def notes(database: Database) -> None:
    """A watched table with a path, and a note of each of three companies, which the log knows."""
    await database.execute(TABLES)
    await migrate(database.dsn, watches=[*CALENDAR, NOTES])
    await database.execute("UPDATE notes SET body = '2'")


@pytest.fixture
async def docs(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """A watched table, and transactions of more than five changes being large."""
    for module in (backlog, reader):
        monkeypatch.setattr(module, "PAGE", 5)
    await database.execute(
        "CREATE TABLE docs (id int PRIMARY KEY, company_id text, body json); GRANT ALL ON docs TO app"
    )
    await migrate(database.dsn, watches=[*CALENDAR, DOCS])


async def types_of(relay: Relayed, *companies: str) -> list[list[str]]:
    return [types(await relay.messages_of(company)) for company in companies]


@pytest.mark.parametrize("isolation", ["read_committed", "repeatable_read"])
@pytest.mark.parametrize("body", [HARMLESS, MANY], ids=["harmless", "many"])
@pytest.mark.usefixtures("notes")
async def test_a_row_with_very_many_escapes_moves_along_its_path_between_two_companies_alone(
    body: str, isolation: Isolation, app: Connection, relay: Relayed
) -> None:
    for statement in (
        f"UPDATE notes SET body = {body} WHERE id = 1",
        "UPDATE notes SET team = 2, body = '3' WHERE id = 1",
        f"UPDATE notes SET team = 1, body = {body} WHERE id = 1",
    ):
        async with app.transaction(isolation=isolation):
            await app.execute(statement)
    assert await types_of(relay, "a", "b", "c") == [
        ["NoteUpdated", "NoteUpdated", "NoteDeleted", "NoteCreated"],
        ["NoteUpdated", "NoteCreated", "NoteDeleted"],
        ["NoteUpdated"],
    ]


@pytest.mark.parametrize("extra", [HARMLESS, MANY], ids=["harmless", "many"])
@pytest.mark.usefixtures("notes")
async def test_a_row_on_a_path_with_very_many_escapes_concerns_its_companies_alone(
    extra: str, app: Connection, relay: Relayed
) -> None:
    for statement in (
        f"UPDATE teams SET extra = {extra} WHERE id = 1",
        f"UPDATE teams SET account = 'b', extra = {extra} WHERE id = 1",
    ):
        await app.execute(statement)
    assert await types_of(relay, "a", "b", "c") == [
        ["NoteUpdated", "Resync"],
        ["NoteUpdated", "Resync"],
        ["NoteUpdated"],
    ]


@pytest.mark.parametrize("body", [HARMLESS, MANY], ids=["harmless", "many"])
@pytest.mark.usefixtures("docs")
async def test_a_row_with_very_many_escapes_moves_in_a_large_transaction_between_two_companies_alone(
    body: str, app: Connection, relay: Relayed
) -> None:
    await app.execute(
        f"INSERT INTO docs VALUES (1, 'a', {body}), (2, 'b', '1'), (3, 'c', '1'), (4, 'd', {body})"
    )
    await relay.settled()
    async with app.transaction():
        await app.execute("INSERT INTO docs SELECT n, 'e', '1' FROM generate_series(11, 20) AS n")
        await app.execute("UPDATE docs SET company_id = 'b', body = '2' WHERE id = 1")
        await app.execute(f"UPDATE docs SET company_id = 'a', body = {body} WHERE id = 2")
        await app.execute(f"UPDATE docs SET body = json_build_array({body}) WHERE id = 4")
    assert await types_of(relay, "a", "b", "c", "d") == [
        ["DocCreated", "DocDeleted", "DocCreated"],
        ["DocCreated", "DocCreated", "DocDeleted"],
        ["DocCreated"],
        ["DocCreated", "DocUpdated"],
    ]


@pytest.mark.usefixtures("notes")
async def test_of_a_row_that_cannot_be_read_its_former_company_gets_a_message_however_deep_it_is(
    database: Database, relay: Relayed
) -> None:
    """Functions that call others have less of the stack: there are depths that the outer one reads, and the inner one does not."""
    writer = await database.connect()
    bodies = {n: DEEP.replace("6000", str(n)) for n in range(2000, 3200, 15)}
    for number, body in bodies.items():
        await database.execute(f"INSERT INTO notes VALUES ({number}, 1, {body})")
    await writer.execute(f"SET max_stack_depth = '{SMALL_STACK}'")
    last = []
    for number in bodies:
        await writer.execute(f"UPDATE notes SET team = 2, body = '3' WHERE id = {number}")
        last.append((await relay.messages_of("a"))[-1])
    assert set(types(last)) == {"NoteDeleted", "Resync"}
    assert len({message["Position"] for message in last}) == len(bodies)


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE docs SET company_id = 'b', body = '2' WHERE id = 1",
        f"UPDATE docs SET company_id = 'a', body = {DEEP} WHERE id = 2",
    ],
    ids=["before", "after"],
)
@pytest.mark.usefixtures("docs")
async def test_a_row_that_cannot_be_read_in_a_large_transaction_is_a_resync_for_every_company(
    change: str, database: Database, make_relay: MakeRelay
) -> None:
    """One of its two images can be read: the company of the other one would get no message."""
    writer = await database.connect()
    await database.execute(f"ALTER DATABASE {database.name} SET max_stack_depth = '{SMALL_STACK}'")
    relay = make_relay()
    await relay.start()
    await writer.execute(f"INSERT INTO docs VALUES (1, 'a', {DEEP}), (2, 'b', '1'), (3, 'c', '1')")
    await relay.settled()
    async with writer.transaction():
        await writer.execute(
            "INSERT INTO docs SELECT n, 'e', '1' FROM generate_series(11, 20) AS n"
        )
        await writer.execute(change)
    found: list[Any] = await types_of(relay, "a", "b", "c")
    assert ["Resync" in each for each in found] == [True] * 3
