"""Two applications in one database, each with a schema of its own for our objects: NOTIFIER_SCHEMA."""

from __future__ import annotations

from pathlib import Path

from tests.conftest import Connect, Serve
from tests.databases import Database
from tests.service.calendars import Calendar
from tests.services import run

BILLING = """
[[watch]]
table = "events"
entity = "Appointment"

[[watch]]
table = "employees"
entity = "Payer"
member = "user_id"

[[watch]]
table = "invoices"
entity = "Invoice"
company = "company"
"""


async def test_two_applications_share_a_database_and_a_table(
    database: Database, serve: Serve, connect: Connect, tmp_path: Path
) -> None:
    await database.execute(
        "CREATE TABLE invoices (id int PRIMARY KEY, company uuid, total int); CREATE ROLE billing_service LOGIN"
    )
    calendar = Calendar(database)
    company = await calendar.add_company("u1")
    home = tmp_path / "billing"
    home.mkdir()
    config = home / "notifier.toml"
    config.write_text(BILLING)
    ours = {"database_url": database.dsn, "jwt_secret": "x" * 40}
    theirs = {**ours, "schema": "billing", "config": config}
    status, output = await run(tmp_path, "migrate", "--grant", "billing_service", **theirs)
    assert status == 0, output
    assert "schema billing: none → " in output
    for settings in (ours, theirs):
        status, output = await run(tmp_path, "check", **settings)
        assert status == 0, output
    nodes = [await serve(database), await serve(database, schema="billing", config=config)]
    one, two = [await connect(node, "u1", company) for node in nodes]

    await calendar.event(company, "Tea")
    await database.execute(f"INSERT INTO invoices VALUES (1, '{company}', 12)")
    created = await one.next("EventCreated")
    appointment = await two.next("AppointmentCreated")
    assert created["Data"]["Title"] == appointment["Data"]["Title"] == "Tea"
    assert created["Tx"] == appointment["Tx"]
    assert (await two.expect("InvoiceCreated"))["Data"]["Total"] == 12
    await one.quiet()
    assert await database.fetchval(
        "SELECT count(DISTINCT pid) = 2 FROM pg_stat_activity WHERE application_name ~ '^notifier\\S* relay$'"
        " AND datname = current_database()"
    )
    rights = await database.fetch(
        "SELECT n.nspname FROM pg_namespace AS n WHERE n.nspname IN ('notifier', 'billing')"
        " AND has_schema_privilege('billing_service', n.oid, 'USAGE')"
    )
    assert [row[0] for row in rights] == ["billing"]

    status, output = await run(tmp_path, "why", "--company", company, "--position", "2", **theirs)
    assert status == 0, output
    assert "InvoiceCreated" in output
    status, output = await run(tmp_path, "types", "--language", "python", **theirs)
    assert (status, "InvoiceCreated" in output, "EventCreated" in output) == (0, True, False)
    status, output = await run(tmp_path, "migrate", **theirs)
    assert (status, output.count("\n")) == (0, 1), output

    await nodes[1].stop()
    status, output = await run(tmp_path, "uninstall", "--yes", **theirs)
    assert status == 0, output
    assert "schema billing: dropped" in output
    await calendar.event(company, "Cake")
    assert (await one.expect("EventCreated"))["Data"]["Title"] == "Cake"
    status, output = await run(tmp_path, "check", **ours)
    assert status == 0, output
    status, output = await run(tmp_path, "check", **{**ours, "schema": "no good"})
    assert status == 2
    assert output.startswith("notifier: NOTIFIER_SCHEMA: must be a plain name of at most 40")
    await database.execute("DROP OWNED BY billing_service; DROP ROLE billing_service")
