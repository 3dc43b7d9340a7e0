"""USER_QUERY: the rows' user for the token's, and what happens when the rows change meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TypeAlias

import pytest

from notifier.access.accounts import Accounts
from notifier.access.membership import Membership
from notifier.access.tokens import Identity
from notifier.database.query import Query
from notifier.errors import DatabaseError
from tests.databases import Database
from tests.waiting import until

QUERY = "SELECT id FROM users WHERE external = $1"
Make: TypeAlias = Callable[[str], Accounts]


@pytest.fixture
def changed() -> list[str]:
    """The users whose token has become another one's."""
    return []


@pytest.fixture
async def link(database: Database) -> AsyncIterator[Query]:
    await database.execute(
        "CREATE TABLE users (id int, external text); CREATE TABLE numbers (id uuid, number int);"
        "INSERT INTO users VALUES (1, 'ada'), (2, 'bob'), (3, 'twice'), (4, 'twice'), (5, 'same'), (5, 'same'), (NULL, 'none');"
        "INSERT INTO numbers VALUES ('AAAAAAAA-0000-4000-8000-000000000001', 7)"
    )
    link = Query(database.dsn, "test", pooled=False, pinned=False, read_only=True)
    yield link
    link.close()


@pytest.fixture
def make(link: Query, changed: list[str]) -> Make:
    return lambda query: Accounts(link, query, changed.append)


def unknown(accounts: Accounts, subject: str) -> Callable[[], Awaitable[bool]]:
    async def is_unknown() -> bool:
        return not accounts.known(subject)

    return is_unknown


async def test_one_user_is_found_and_several_or_none_are_none(make: Make) -> None:
    accounts = make(QUERY)
    await accounts.require()
    subjects = ["ada", "bob", "twice", "same", "none", "eve", "", "'; --"]
    found = await asyncio.gather(*(accounts.find(subject, 0) for subject in subjects))
    assert found == ["1", "2", "", "5", "", "", "", ""]
    assert [accounts.known(subject) for subject in subjects] == found
    assert accounts.known("another") == ""


async def test_ids_of_any_type_are_found_and_what_is_none_of_the_type_is_no_user(
    make: Make,
) -> None:
    accounts = make("SELECT id FROM numbers WHERE number = $1")
    assert await accounts.find("7", 0) == "aaaaaaaa-0000-4000-8000-000000000001"
    assert [await accounts.find(subject, 0) for subject in ("x", "8")] == ["", ""]


@pytest.mark.parametrize(
    ("query", "line"),
    [
        (
            "SELECT 1",
            "NOTIFIER_USER_QUERY must take one parameter, $1, the token's user; this one takes 0",
        ),
        ("SELECT id FROM users WHERE external IN ($1, $2)", "this one takes 2"),
        ("SELECT id, external FROM users WHERE external = $1", "must return one column"),
        ("DELETE FROM users WHERE external = $1 RETURNING id", "read-only transaction"),
        ("SELECT id FROM nowhere WHERE external = $1", "nowhere"),
    ],
)
async def test_a_query_that_cannot_work_is_one_line(make: Make, query: str, line: str) -> None:
    with pytest.raises(DatabaseError) as error:
        await make(query).require()
    assert line in str(error.value)
    assert "\n" not in str(error.value)


async def test_an_account_is_remembered_and_looked_up_again_when_a_row_changes(
    database: Database, make: Make, link: Query, changed: list[str]
) -> None:
    accounts = make(QUERY)
    for subject in ("ada", "bob", "ada", "bob"):
        await accounts.find(subject, 60)
    assert link.queries == 2
    await database.execute(
        "UPDATE users SET external = 'ada ' || id WHERE external IN ('ada', 'bob')"
    )
    accounts.refresh({"1", "ada 1", "ada"})
    await until(unknown(accounts, "ada"))
    assert (accounts.known("bob"), changed) == ("2", ["1"]), "no value of its row has changed"
    accounts.refresh(None)
    await until(unknown(accounts, "bob"))
    assert changed == ["1", "2"]
    await database.execute("UPDATE users SET external = 'same ' || id WHERE id = 5")
    assert await accounts.find("same", 60) == ""
    await database.execute("UPDATE users SET external = 'eve' WHERE id = 5")
    assert await accounts.find("eve", 60) == "5"
    await database.execute("UPDATE users SET external = 'EVE' WHERE id = 5")
    accounts.refresh({"5"})
    await until(unknown(accounts, "eve"))
    await database.execute("UPDATE users SET external = 'ada' WHERE id = 2")
    assert await accounts.find("ada", 60) == "2", "a user without an account is looked up each time"


async def test_a_row_that_changes_during_a_look_up_makes_it_be_repeated(
    database: Database, make: Make
) -> None:
    await database.execute("SELECT pg_advisory_lock(1)")
    accounts = make("SELECT id FROM users, pg_advisory_xact_lock_shared(1) WHERE external = $1")
    finding = asyncio.create_task(accounts.find("ada", 0))
    await database.blocked()
    await database.execute("UPDATE users SET id = 8 WHERE external = 'ada'")
    accounts.refresh({"8", "1"})
    await database.execute("SELECT pg_advisory_unlock(1)")
    assert await finding == "8"


async def test_very_many_rows_that_change_during_a_look_up_hide_none_of_them(
    database: Database, make: Make
) -> None:
    """Only the last changes are kept."""
    await database.execute("SELECT pg_advisory_lock(1)")
    accounts = make("SELECT id FROM users, pg_advisory_xact_lock_shared(1) WHERE external = $1")
    finding = asyncio.create_task(accounts.find("ada", 0))
    await database.blocked()
    await database.execute("UPDATE users SET id = 8 WHERE external = 'ada'")
    accounts.refresh({"8", "1"})
    for number in range(2000):
        accounts.refresh({f"another {number}"})
    await database.execute("SELECT pg_advisory_unlock(1)")
    assert await finding == "8"


async def test_rows_and_the_membership_query_decide_by_the_rows_user(
    database: Database, make: Make
) -> None:
    query = "SELECT $1 = '7' AND $2 = '1'"
    link = Query(database.dsn, "test", pooled=False, read_only=True)
    membership = Membership(link, "employees", query, make(QUERY))
    for subject, may in (("ada", True), ("bob", False), ("1", False), ("", False)):
        identity = Identity(subject, 1e12, None)
        await membership.user_of(identity, 0)
        assert await membership.may_see(identity, "7") is may
    membership.close()
