"""Rows on a path that are deleted, and whose key another row has when the transaction ends: its children are another company's."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from notifier.check.links import check
from notifier.database.schema import migrate, uninstall
from notifier.settings import load
from notifier.watches import CALENDAR, Watch
from tests.databases import Connection, Database
from tests.postgres.relays import Relayed, new_event, types
from tests.services import SECRET

TABLES = """
    CREATE TABLE teams (id int PRIMARY KEY, account int);
    CREATE TABLE boards (id int PRIMARY KEY, team int REFERENCES teams DEFERRABLE);
    CREATE TABLE posts (id int PRIMARY KEY, board int REFERENCES boards DEFERRABLE);
    GRANT ALL ON teams, boards, posts TO PUBLIC;
    INSERT INTO teams VALUES (1, 7), (2, 8), (3, 9), (4, 7);
    INSERT INTO boards VALUES (1, 1), (2, 2), (3, 3);
    INSERT INTO posts VALUES (1, 1), (2, 2), (3, 3)
"""
POSTS = Watch(
    table="posts", entity="Post", company="board -> boards.team -> teams.account", scope="post"
)
BOARDS = Watch(table="boards", entity="Board", company="team -> teams.account", scope="board")

REPLACED = {
    "a row at the end": ("DELETE FROM teams WHERE id = 1; INSERT INTO teams VALUES (1, 8)", "7 8"),
    "in one statement": (
        "WITH gone AS (DELETE FROM teams WHERE id = 1 RETURNING id) INSERT INTO teams SELECT id, 8 FROM gone",
        "7 8",
    ),
    "in one statement, constraints being immediate": (
        (
            "SET CONSTRAINTS ALL IMMEDIATE;"
            "WITH gone AS (DELETE FROM teams WHERE id = 1 RETURNING id) INSERT INTO teams SELECT id, 8 FROM gone"
        ),
        "7 8",
    ),
    "by no company": ("DELETE FROM teams WHERE id = 1; INSERT INTO teams VALUES (1, NULL)", "7"),
    "twice": (
        (
            "DELETE FROM teams WHERE id = 1; INSERT INTO teams VALUES (1, 8);"
            "DELETE FROM teams WHERE id = 1; INSERT INTO teams VALUES (1, 9)"
        ),
        "7 8 9",
    ),
    "a row whose key another one takes": (
        (
            "DELETE FROM boards WHERE id = 3; DELETE FROM posts WHERE id = 3; DELETE FROM teams WHERE id = 1;"
            "UPDATE teams SET id = 1 WHERE id = 3"
        ),
        "7 9",
    ),
    "a row whose key is changed": (
        "UPDATE teams SET id = 5 WHERE id = 1; INSERT INTO teams VALUES (1, 8)",
        "7 8",
    ),
    "keys that are exchanged": (
        (
            "UPDATE teams SET id = 0 WHERE id = 1; UPDATE teams SET id = 1 WHERE id = 2;"
            "UPDATE teams SET id = 2 WHERE id = 3; UPDATE teams SET id = 3 WHERE id = 0"
        ),
        "7 8 9",
    ),
    "a row in the middle": (
        "DELETE FROM boards WHERE id = 1; INSERT INTO boards VALUES (1, 2)",
        "7 8",
    ),
    "in a savepoint": (
        "SAVEPOINT s; DELETE FROM teams WHERE id = 1; RELEASE s; SAVEPOINT t; INSERT INTO teams VALUES (1, 8); RELEASE t",
        "7 8",
    ),
    "all rows of a table": (
        "DELETE FROM teams; INSERT INTO teams VALUES (1, 8), (2, 8), (3, 9), (4, 7)",
        "7 8",
    ),
    "a row that is the same": (
        "DELETE FROM teams WHERE id = 1; INSERT INTO teams VALUES (1, 7)",
        "",
    ),
    "a row of the same company": (
        "DELETE FROM boards WHERE id = 1; INSERT INTO boards VALUES (1, 4)",
        "",
    ),
    "a row that is not deleted": (
        "SAVEPOINT s; DELETE FROM teams WHERE id = 1; INSERT INTO teams VALUES (1, 8); ROLLBACK TO s",
        "",
    ),
    "a row without children": (
        "DELETE FROM teams WHERE id = 4; INSERT INTO teams VALUES (6, 8)",
        "",
    ),
}


async def watch(database: Database, watches: Sequence[Watch] = (POSTS, BOARDS)) -> list[str]:
    lines: list[str] = []
    await migrate(database.dsn, watches=[*CALENDAR, *watches], report=lines.append)
    return lines


async def resynced(relay: Relayed, scope: str) -> str:
    """The companies of a scope whose last message is a Resync."""
    found = []
    for account in "789":
        messages = await relay.messages_of(f"{scope}:{account}")
        if messages and messages[-1]["Type"] == "Resync":
            found.append(account)
    return " ".join(found)


@pytest.mark.parametrize("replaced", REPLACED)
async def test_what_takes_the_place_of_a_parent_is_a_resync_for_both_companies(
    database: Database, app: Connection, relay: Relayed, replaced: str
) -> None:
    statements, expected = REPLACED[replaced]
    await database.execute(TABLES)
    await watch(database)
    await app.execute(f"BEGIN; SET CONSTRAINTS ALL DEFERRED; {statements}; COMMIT")
    assert await resynced(relay, "post") == expected
    assert await resynced(relay, "board") == ("" if "middle" in replaced else expected)


async def test_a_transaction_that_deletes_a_parent_may_alter_and_empty_its_table(
    database: Database, app: Connection, relay: Relayed
) -> None:
    """PostgreSQL refuses that where an event of a trigger on the table is pending."""
    await database.execute(TABLES)
    await watch(database)
    await database.execute(
        """
        BEGIN; DELETE FROM teams WHERE id = 4; ALTER TABLE teams ADD COLUMN name text;
        DELETE FROM posts; DELETE FROM boards; DELETE FROM teams WHERE id = 1; TRUNCATE teams CASCADE;
        INSERT INTO teams VALUES (1, 8); DROP TABLE posts; COMMIT
        """
    )
    assert await database.fetchval("SELECT count(*) FROM teams") == 1
    await relay.settled()


@pytest.mark.parametrize("ending", ["SET TRANSACTION READ ONLY", "SET LOCAL search_path = public"])
async def test_a_commit_succeeds_whatever_the_transaction_sets_before_it(
    database: Database, app: Connection, relay: Relayed, ending: str
) -> None:
    await database.execute(TABLES)
    await watch(database)
    await app.execute(f"BEGIN; {REPLACED['in one statement'][0]}; {ending}; COMMIT")
    assert await app.fetchval("SELECT account FROM teams WHERE id = 1") == 8
    assert await resynced(relay, "post") == ("" if "READ ONLY" in ending else "7 8")


async def test_a_writer_that_has_not_seen_a_parent_that_was_replaced_is_a_resync_again(
    database: Database, app: Connection, relay: Relayed
) -> None:
    """Its row belongs to the new company when it commits: also where each key has the row of another now."""
    await database.execute(TABLES)
    await database.execute("ALTER TABLE boards DROP CONSTRAINT boards_team_fkey")
    await watch(database)
    other = await database.connect(app=True)
    await other.execute("BEGIN; INSERT INTO boards VALUES (9, 2)")
    await app.execute(
        "BEGIN; UPDATE teams SET id = 0 WHERE id = 1; UPDATE teams SET id = 1 WHERE id = 2;"
        "UPDATE teams SET id = 2 WHERE id = 3; UPDATE teams SET id = 3 WHERE id = 0; COMMIT"
    )
    assert await resynced(relay, "board") == "7 8 9"
    before = {each: len(await relay.messages_of(f"board:{each}")) for each in "789"}
    await other.execute("COMMIT")
    after = {each: len(await relay.messages_of(f"board:{each}")) for each in "789"}
    assert after["9"] > before["9"], "whose row it is now"
    assert after["8"] > before["8"]
    assert await resynced(relay, "board") == "7 8 9"


async def test_a_company_that_is_too_large_to_be_read_is_a_resync_for_every_company(
    database: Database, app: Connection, company: str, relay: Relayed
) -> None:
    """The relay could not read the change, and so none after it."""
    await database.execute(
        """
        CREATE TABLE teams (id int PRIMARY KEY, account text);
        CREATE TABLE boards (id int PRIMARY KEY, team int REFERENCES teams DEFERRABLE);
        GRANT ALL ON teams, boards TO PUBLIC;
        INSERT INTO teams VALUES (1, '7');
        INSERT INTO boards VALUES (1, 1)
        """
    )
    await watch(database, [BOARDS])
    await new_event(app, company, "before")
    await app.execute(
        "BEGIN; SET CONSTRAINTS ALL DEFERRED; DELETE FROM teams WHERE id = 1;"
        " INSERT INTO teams VALUES (1, repeat('x', 10000000)); COMMIT"
    )
    message = (await relay.messages_of(company))[-1]
    assert (message["Type"], message["Data"]["Reason"]) == ("Resync", "overflow")


async def test_the_trigger_on_our_own_table_comes_and_goes_with_the_paths(
    database: Database,
) -> None:
    present = "SELECT count(*) FROM pg_trigger WHERE tgrelid = 'notifier.vanished'::regclass AND NOT tgisinternal"
    assert await database.fetchval(present) == 0
    await database.execute(TABLES)
    await watch(database)
    assert await database.fetchval(present) == 1
    assert await watch(database) == []
    await database.execute("ALTER TABLE notifier.vanished DISABLE TRIGGER USER")
    settings = load(
        {}, database_url=database.dsn, jwt_secret=SECRET, watch=[*CALENDAR, POSTS, BOARDS]
    )
    lines = [finding.line for finding in await check(settings) if finding.sound is False]
    assert any("notifier_replaced on notifier.vanished is disabled" in line for line in lines), (
        lines
    )
    await watch(database)
    assert not [finding for finding in await check(settings) if finding.sound is False]
    await watch(database, [])
    assert await database.fetchval(present) == 0
    await watch(database)
    await uninstall(database.dsn)
    assert not await database.fetchval("SELECT to_regnamespace('notifier') IS NOT NULL")


async def test_an_escape_of_nul_in_a_row_on_a_path_or_with_one_concerns_no_other_company(
    database: Database, app: Connection, relay: Relayed
) -> None:
    """PostgreSQL's operators refuse a whole text that has one in a json column."""
    await database.execute(
        """
        CREATE TABLE rooms (id int PRIMARY KEY, team int, extra json);
        CREATE TABLE notes (id int PRIMARY KEY, room int REFERENCES rooms, body json);
        GRANT ALL ON rooms, notes TO app;
        INSERT INTO rooms VALUES (1, 7), (2, 8), (3, 9)
        """
    )
    note = Watch(table="notes", entity="Note", company="room -> rooms.team")
    await migrate(database.dsn, watches=[*CALENDAR, note])
    nul = r"""'"\u0000"'"""
    for statement in (
        f"INSERT INTO notes VALUES (1, 1, {nul}), (2, 2, '1')",
        f"UPDATE notes SET room = 3, body = {nul} WHERE id = 1",
        f"UPDATE rooms SET extra = {nul}",
        "UPDATE rooms SET extra = NULL",
    ):
        await app.execute(statement)
    assert types(await relay.messages_of(7)) == ["NoteCreated", "NoteDeleted"]
    assert types(await relay.messages_of(8)) == ["NoteCreated"]
    assert types(await relay.messages_of(9)) == ["NoteCreated"]
    await app.execute(f"UPDATE rooms SET extra = {nul}, team = 7 WHERE id = 3")
    assert types(await relay.messages_of(9)) == ["NoteCreated", "Resync"]
    assert types(await relay.messages_of(8)) == ["NoteCreated"]
