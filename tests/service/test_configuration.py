"""A running node takes a changed configuration at once: no socket is closed, and none keeps what it lost."""

from __future__ import annotations

from dataclasses import replace

from notifier.database.schema import migrate
from notifier.watches import CALENDAR
from tests.conftest import Connect, Serve
from tests.databases import Database
from tests.service.calendars import Calendar

EVENT, EMPLOYEE, COMPANY = CALENDAR


async def test_case_f18_a_new_member_column_decides_at_once_on_every_node(
    database: Database, serve: Serve, connect: Connect
) -> None:
    nodes = [await serve(database) for _ in range(2)]
    calendar = Calendar(database)
    company = await calendar.company("u1", "u2")
    await database.execute("UPDATE employees SET email = 'u2' WHERE user_id = 'u2'")
    await database.execute("UPDATE employees SET email = 'u3' WHERE user_id = 'u1'")
    await database.relayed()
    losers, keepers = [[await connect(node, u, company) for node in nodes] for u in ("u1", "u2")]
    await migrate(database.dsn, watches=[EVENT, replace(EMPLOYEE, member="email"), COMPANY])
    await calendar.event(company, "by the new column")
    for client in losers:
        await client.next("CompanyRevoked")
        await client.quiet()
        assert "by the new column" not in str(client.messages)
        assert not (await client.set_company(company))["Success"]
    for client in keepers:
        assert (await client.next("Resync"))["Data"]["CompanyId"] == company
        assert (await client.next("EventCreated"))["Data"]["Title"] == "by the new column"
        assert "CompanyRevoked" not in {message["Type"] for message in client.messages}
    for node in nodes:
        await connect(node, "u3", company)


async def test_case_f17_a_new_company_column_and_new_names_reach_open_sockets(
    database: Database, serve: Serve, connect: Connect
) -> None:
    service = await serve(database)
    calendar = Calendar(database)
    former, latter = await calendar.company("u1"), await calendar.company("u2")
    event = await calendar.event(former, "moves")
    await database.relayed()
    old, new = await connect(service, "u1", former), await connect(service, "u2", latter)
    await database.execute("ALTER TABLE events RENAME company_id TO tenant")
    await database.execute("ALTER TABLE events ADD owner uuid")
    watch = replace(EVENT, company="owner", created="Planned")
    await migrate(database.dsn, watches=[watch, EMPLOYEE, COMPANY])
    await database.execute("UPDATE events SET owner = $1 WHERE id = $2", latter, event)
    await new.next("Resync")
    assert (await new.next("Planned"))["Data"]["EventId"] == event
    await old.next("Resync")
    # A second Resync may come: the relay sees that triggers were replaced.
    await database.execute("UPDATE companies SET name = 'later' WHERE id = $1", former)
    await old.next("CompanyUpdated")
    assert "Planned" not in {message["Type"] for message in old.messages}
