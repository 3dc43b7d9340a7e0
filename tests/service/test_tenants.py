"""A schema per tenant, from the commands to the socket: schemas that come and go while clients are connected."""

from __future__ import annotations

from pathlib import Path

from tests.conftest import Connect, Serve
from tests.databases import Database
from tests.service.worked import worked
from tests.services import run

WORKSPACES = worked("A schema per workspace")
OTHER = "workspace_Müller & Co"


async def test_workspaces_come_and_go_while_others_go_on(
    database: Database, serve: Serve, connect: Connect, tmp_path: Path
) -> None:
    await database.execute(WORKSPACES.sql)
    (tmp_path / "notifier.toml").write_text(WORKSPACES.toml)
    given = {"database_url": database.dsn, "jwt_secret": "x" * 40}
    status, output = await run(tmp_path, "migrate", **given)
    assert status == 0, output
    assert "0 tables and 2 patterns are watched" in output
    service = await serve(database)
    status, output = await run(tmp_path, "check", **given)
    assert status == 0, output
    assert "workspace_*.person is watched as Person in 2 schemas" in output
    await database.execute(
        "INSERT INTO workspace_acme.person VALUES (1, 'ada', 'Ada', 'argon2'), (2, 'bob', 'Bob', 'argon2');"
        f"""INSERT INTO "{OTHER}".person VALUES (1, 'mia', 'Mia', 'argon2')"""
    )
    ada, bob, mia = [
        await connect(service, user, company)
        for user, company in (
            ("ada", "workspace_acme"),
            ("bob", "workspace_acme"),
            ("mia", OTHER),
        )
    ]
    for user, company in (
        ("mia", "workspace_acme"),
        ("ada", OTHER),
        ("ada", "WORKSPACE_ACME"),
        ("ada", "workspace_*"),
    ):
        stranger = await connect(service, user)
        assert not (await stranger.set_company(company))["Success"], (user, company)

    await database.execute("INSERT INTO workspace_acme.deal VALUES (1, 'Rockets', 12.5)")
    for client in (ada, bob):
        assert (await client.next("DealCreated"))["Data"] == {
            "CompanyId": "workspace_acme", "DealId": 1, "Title": "Rockets", "Amount": 12.5, "DeletedAt": None
        }  # fmt: skip
    await database.execute("DELETE FROM workspace_acme.person WHERE user_id = 'bob'")
    assert (await bob.expect("PersonDeleted"))["Data"]["Name"] == "Bob"
    await bob.expect("CompanyRevoked")
    await ada.expect("PersonDeleted")

    # A new workspace: named by check, and live after one command.
    await database.execute(WORKSPACES.sql.split('CREATE SCHEMA "')[0].replace("acme", "new"))
    status, output = await run(tmp_path, "check", **given)
    assert status == 1, output
    assert "schema workspace_new is not watched yet" in output
    assert "run: notifier migrate --only 'workspace_new.*'" in output
    status, output = await run(tmp_path, "migrate", "--only", "workspace_new.*", **given)
    assert (status, output.strip()) == (0, "schema workspace_new: 2 tables are watched")
    status, output = await run(tmp_path, "check", **given)
    assert status == 0, output
    await database.execute("INSERT INTO workspace_new.person VALUES (1, 'eve', 'Eve', 'x')")
    eve = await connect(service)
    await eve.authenticate("eve")
    assert (await eve.set_company("workspace_new"))["Success"]
    await database.execute("INSERT INTO workspace_new.deal VALUES (1, 'First', 1)")
    await eve.next("DealCreated")

    # A dropped one is the affair of its own clients.
    await database.execute("DROP SCHEMA workspace_acme CASCADE")
    before = len(ada.messages)
    await ada.next("CompanyRevoked")  # after CompanyDeleted, unless a re-check has come first
    for message in ada.messages[before:-1]:
        assert message["Type"] == "CompanyDeleted"
        assert message["Data"] == {"CompanyId": "workspace_acme"}
    assert not (await ada.set_company("workspace_acme"))["Success"]
    assert (await service.get("/readyz")).status_code == 200
    status, output = await run(tmp_path, "check", **given)
    assert status == 0, output
    await database.execute(f"""INSERT INTO "{OTHER}".deal VALUES (1, 'Mills', 1)""")
    await mia.next("DealCreated")
    await database.execute("UPDATE workspace_new.deal SET title = 'Still here'")
    assert (await eve.expect("DealUpdated"))["Old"] == {"Title": "First"}
    status, output = await run(tmp_path, "migrate", **given)
    assert status == 0, output
    assert "table workspace_acme.deal: no longer watched" in output
    await mia.quiet()
    await eve.quiet()


async def test_a_workspace_has_a_state_types_and_an_explanation(
    database: Database, serve: Serve, connect: Connect, tmp_path: Path
) -> None:
    await database.execute(WORKSPACES.sql)
    (tmp_path / "notifier.toml").write_text(WORKSPACES.toml)
    given = {"database_url": database.dsn}
    status, output = await run(tmp_path, "migrate", **given)
    assert status == 0, output
    await database.execute(
        "INSERT INTO workspace_acme.person VALUES (1, 'ada', 'Ada', 'argon2');"
        "INSERT INTO workspace_acme.deal VALUES (1, 'Rockets', 12.5);"
        f"""INSERT INTO "{OTHER}".deal VALUES (2, 'Mills', 1); DROP TABLE "{OTHER}".person"""
    )
    service = await serve(database, state="on")
    ada = await connect(service, "ada")
    state = {"companyId": "workspace_acme", "state": True}
    await ada.send({"type": "subscribe", "data": state})
    await ada.next("StateEnd")
    states = [message["Data"] for message in ada.messages if message["Type"] == "State"]
    rows = {data["Entity"]: data["Rows"] for data in states}
    person = {
        "CompanyId": "workspace_acme",
        "PersonId": 1,
        "UserId": "ada",
        "Name": "Ada",
        "DeletedAt": None,
    }
    deal = {
        "CompanyId": "workspace_acme",
        "DealId": 1,
        "Title": "Rockets",
        "Amount": 12.5,
        "DeletedAt": None,
    }
    assert rows == {"Person": [person], "Deal": [deal]}

    status, output = await run(tmp_path, "types", "--language", "typescript", **given)
    assert status == 0, output
    assert "CompanyId: string" in output
    assert "Title: string | null" in output
    arguments = ("--company", "workspace_acme", "--table", "deal", "--key", "1")
    status, output = await run(tmp_path, "why", *arguments, **given)
    assert status == 0, output
    assert "table workspace_acme.deal: watched as Deal" in output
    assert "DealCreated at position" in output
    assert OTHER not in output
