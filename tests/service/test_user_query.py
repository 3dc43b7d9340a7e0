"""USER_QUERY on a node: access follows the rows of the user whom the token's user is."""

from __future__ import annotations

import asyncio
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from notifier.client import CompanyState
from notifier.client import connect as connect_client
from tests.conftest import Connect, Serve
from tests.databases import Database
from tests.service.http_streams import poll
from tests.service.worked import worked
from tests.services import run, token
from tests.waiting import until

EXAMPLE = worked("Users of an identity provider")
QUERY = EXAMPLE.settings["USER_QUERY"]
ROWS = """
    INSERT INTO accounts VALUES (1, 1, 'auth0|ada'), (2, 1, 'auth0|bob'), (3, 1, 'auth0|eve');
    INSERT INTO members VALUES (1, 7, 1), (2, 7, 2), (3, 7, 3)
"""


RESTRICTED = """
    CREATE TABLE accounts (id int PRIMARY KEY, org int NOT NULL, auth0_id text UNIQUE);
    CREATE TABLE members (id int PRIMARY KEY, team int NOT NULL, account int NOT NULL);
    CREATE TABLE notes (id int PRIMARY KEY, team int NOT NULL, owner int);
    INSERT INTO accounts VALUES (1, 1, 'auth0|ada'), (2, 1, NULL);
    INSERT INTO members VALUES (1, 7, 1), (2, 7, 2)
"""
WATCHES = """
[[watch]]
table = "accounts"
entity = "Account"
company = "org"
[[watch]]
table = "members"
entity = "Member"
company = "team"
member = "account"
[[watch]]
table = "notes"
entity = "Note"
company = "team"
visible_to = ["owner"]
"""


@pytest.mark.parametrize("transport", ["websocket", "sse", "poll"])
async def test_a_user_who_becomes_another_one_is_instructed_to_read_again(
    database: Database, serve: Serve, tmp_path: Path, transport: Any
) -> None:
    await database.execute(RESTRICTED)
    (tmp_path / "notifier.toml").write_text(WATCHES)
    assert (await run(tmp_path, "migrate", database_url=database.dsn))[0] == 0
    service = await serve(database, user_query=QUERY, state="on")
    await database.execute("INSERT INTO notes VALUES (1, 7, 1), (2, 7, 2), (3, 7, NULL)")
    await database.relayed()
    client = connect_client(
        service.url,
        lambda: token("auth0|ada"),
        "7",
        state=True,
        transport=transport,
        min_delay=0.01,
    )

    async def take() -> None:
        reports.extend([report async for report in client])

    async def has(*ids: int) -> bool:
        return sorted(row["NoteId"] for row in client.rows("Note")) == list(ids)

    reports: list[Any] = []
    async with client:
        taking = asyncio.create_task(take())
        await until(partial(has, 1, 3))
        await database.execute(
            "UPDATE accounts SET auth0_id = NULL WHERE id = 1;"
            " UPDATE accounts SET auth0_id = 'auth0|ada' WHERE id = 2"
        )
        await until(partial(has, 2, 3))
        await database.execute("INSERT INTO notes VALUES (4, 7, 2), (5, 7, 1)")
        await until(partial(has, 2, 3, 4))
    await taking
    states = [each.reason for each in reports if isinstance(each, CompanyState)]
    assert states[0] == "start"
    assert len(states) == 2


async def test_one_who_resumes_as_another_user_is_instructed_to_read_again(
    database: Database, serve: Serve, connect: Connect, tmp_path: Path
) -> None:
    """The change is found between two polls, or by the subscription itself."""
    await database.execute(RESTRICTED)
    (tmp_path / "notifier.toml").write_text(WATCHES)
    assert (await run(tmp_path, "migrate", database_url=database.dsn))[0] == 0
    service = await serve(database, user_query=QUERY)
    await database.execute("INSERT INTO notes VALUES (1, 7, 1), (2, 7, 2), (3, 7, NULL)")
    await database.relayed()

    async def page(**place: Any) -> dict[str, Any]:
        found: dict[str, Any] = (await poll(service, "auth0|ada", "7", wait=0, **place)).json()
        return found

    def following(page: dict[str, Any]) -> dict[str, Any]:
        names = {"Position": "after", "Epoch": "epoch", "At": "at"}
        return {names[name]: page[name] for name in names if name in page}

    async def is_lost() -> bool:
        return (await page(**place))["Recovered"] is False

    ada = await connect(service, "auth0|ada")
    first = await page()
    place = following(first)
    assert (await page(**place))["Recovered"] is True
    await database.execute(
        "UPDATE accounts SET auth0_id = NULL WHERE id = 1;"
        " UPDATE accounts SET auth0_id = 'auth0|ada' WHERE id = 2"
    )
    await until(is_lost)
    again = await page(**place)
    assert again["Recovered"] is False, "each client that has the former rows"
    assert (await page(**following(again)))["Recovered"] is True
    await ada.send({"type": "subscribe", "data": {"companyId": "7", **place}})
    assert (await ada.next("SubscribeResult"))["Data"]["Recovered"] is False
    await database.execute("INSERT INTO notes VALUES (4, 7, 2)")
    await ada.next("NoteCreated")
    last = await page(**following(again))
    assert [each["Type"] for each in last["Messages"]] == ["NoteCreated"]
    assert (await page(**following(last)))["Recovered"] is True


async def test_access_follows_the_rows_of_the_account_and_the_accounts_own_row(
    database: Database, serve: Serve, connect: Connect, tmp_path: Path
) -> None:
    await database.execute(f"{EXAMPLE.sql}; {ROWS}")
    (tmp_path / "notifier.toml").write_text(EXAMPLE.toml)
    assert (await run(tmp_path, "migrate", database_url=database.dsn))[0] == 0
    given = {"database_url": database.dsn, "jwt_secret": "x" * 40}
    status, output = await run(tmp_path, "check", user_query=QUERY, **given)
    assert status == 0, output
    status, output = await run(tmp_path, "check", user_query=f"{QUERY} AND $2", **given)
    assert status == 1
    assert "NOTIFIER_USER_QUERY must take one parameter" in output

    nodes = [await serve(database, user_query=QUERY) for _ in range(2)]
    await database.relayed()
    ada = [await connect(node, "auth0|ada", "7") for node in nodes]
    bob, eve = [await connect(nodes[0], f"auth0|{name}", "7") for name in ("bob", "eve")]
    assert not (await (await connect(nodes[0], "2")).set_company("7"))["Success"], "no account's id"
    zoe = await connect(nodes[0], "auth0|zoe")
    assert not (await zoe.set_company("7"))["Success"]
    await database.execute("INSERT INTO accounts VALUES (4, 1, 'auth0|zoe')")
    await database.execute("INSERT INTO members VALUES (4, 7, 4)")
    await eve.expect("MemberCreated")
    assert (await zoe.set_company("7"))["Success"], "without another socket"

    # The member row: gone with its own message.
    await database.execute("DELETE FROM members WHERE account = 2")
    await database.execute("INSERT INTO posts VALUES (1, 7)")
    await bob.next("MemberDeleted")
    await bob.expect("CompanyRevoked")
    await bob.quiet()

    # The account's own row, which is in another company: first a column that decides nothing.
    await database.execute("UPDATE accounts SET seen = now()")
    await database.execute("UPDATE accounts SET auth0_id = 'auth0|new' WHERE id = 1")
    for client in ada:
        await client.next("CompanyRevoked")
        assert not (await client.set_company("7"))["Success"]
    # Two users change places: eve is a member as zoe was, and zoe as eve was.
    await database.execute("UPDATE accounts SET auth0_id = NULL WHERE id IN (3, 4)")
    for client in (eve, zoe):
        await client.next("CompanyRevoked")
    await database.execute(
        "UPDATE accounts SET auth0_id = CASE id WHEN 3 THEN 'auth0|zoe' ELSE 'auth0|eve' END WHERE id IN (3, 4)"
    )
    for client in (eve, zoe):
        assert (await client.set_company("7"))["Success"]
    await database.execute("DELETE FROM members WHERE account = 3")
    await zoe.next("CompanyRevoked")
    await eve.next("MemberDeleted")
    await eve.quiet()
    # An account that becomes another one, which is a member too: it goes on, by the other one's rows.
    await database.execute("INSERT INTO members VALUES (5, 7, 5)")
    await eve.next("MemberCreated")
    await database.execute(
        "BEGIN; UPDATE accounts SET auth0_id = NULL WHERE id = 4;"
        " INSERT INTO accounts VALUES (5, 1, 'auth0|eve'); COMMIT"
    )
    await database.execute("DELETE FROM members WHERE account = 4")
    await eve.next("MemberDeleted")
    await database.execute("INSERT INTO posts VALUES (2, 7)")
    await eve.next("PostCreated")
    await database.execute("DELETE FROM members WHERE account = 5")
    await eve.next("MemberDeleted")
    await eve.expect("CompanyRevoked")
