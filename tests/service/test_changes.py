"""What a subscriber hears of plain SQL, written by a role that has no right on our schema."""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from typing import Any

import pytest

from tests.clients import Client
from tests.conftest import Connect, Serve
from tests.databases import Connection, Database
from tests.service.calendars import Calendar
from tests.services import Service

ELSEWHERE = "2026-11-22T17:00:00.5-03:00"
EVENT = [
    "EventId",
    "CompanyId",
    "Title",
    "Description",
    "Location",
    "StartsAt",
    "EndsAt",
    "AllDay",
    "OrganizerId",
    "CreatedAt",
    "UpdatedAt",
]


@pytest.fixture
async def app(calendar: Calendar) -> Connection:
    return await calendar.database.connect(app=True)


@pytest.fixture
async def company(calendar: Calendar) -> str:
    return await calendar.company("u1")


@pytest.fixture
async def client(service: Service, connect: Connect, company: str) -> Client:
    return await connect(service, "u1", company)


async def add_event(app: Connection, company: str, **columns: Any) -> str:
    given = {
        "company_id": company,
        "title": "Stand-up",
        "starts_at": datetime.fromisoformat(ELSEWHERE),
        "ends_at": datetime.fromisoformat(ELSEWHERE) + timedelta(hours=1),
        **columns,
    }
    names = ", ".join(given)
    marks = ", ".join(f"${number + 1}" for number in range(len(given)))
    event: str = await app.fetchval(
        f"INSERT INTO events ({names}) VALUES ({marks}) RETURNING id::text", *given.values()
    )
    return event


async def add_employee(app: Connection, company: str, user: str | None) -> str:
    employee: str = await app.fetchval(
        "INSERT INTO employees (company_id, user_id, name) VALUES ($1, $2, 'Ada') RETURNING id::text",
        company,
        user,
    )
    return employee


async def test_an_inserted_event_is_the_whole_row_in_pascal_case(
    app: Connection, client: Client, company: str
) -> None:
    event = await add_event(app, company, location="Room 2")
    message = await client.expect("EventCreated")
    assert list(message) == ["Type", "Data", "Position", "At", "Tx"]
    assert list(message["Data"]) == EVENT
    assert message["Data"] | {"CreatedAt": "", "UpdatedAt": ""} == {
        "EventId": event,
        "CompanyId": company,
        "Title": "Stand-up",
        "Description": None,
        "Location": "Room 2",
        "StartsAt": "2026-11-22T20:00:00.5+00:00",
        "EndsAt": "2026-11-22T21:00:00.5+00:00",
        "AllDay": False,
        "OrganizerId": None,
        "CreatedAt": "",
        "UpdatedAt": "",
    }
    assert message["Position"] == 2
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}\+00:00", message["At"])


async def test_an_updated_event_has_the_new_row_and_the_former_values(
    app: Connection, client: Client, company: str
) -> None:
    event = await add_event(app, company)
    await client.expect("EventCreated")
    await app.execute(
        "UPDATE events SET title = 'Retro', location = 'Room 1', all_day = false WHERE id = $1",
        event,
    )
    message = await client.expect("EventUpdated")
    assert list(message) == ["Type", "Data", "Old", "Position", "At", "Tx"]
    assert list(message["Data"]) == EVENT
    assert message["Data"]["Title"] == "Retro"
    assert message["Old"] == {"Title": "Stand-up", "Location": None}


async def test_a_deleted_event_is_the_last_row(
    app: Connection, client: Client, company: str
) -> None:
    event = await add_event(app, company)
    created = await client.expect("EventCreated")
    await app.execute("DELETE FROM events WHERE id = $1", event)
    message = await client.expect("EventDeleted")
    assert list(message) == ["Type", "Data", "Position", "At", "Tx"]
    assert message["Data"] == created["Data"]


async def test_employees_are_added_updated_and_removed(
    app: Connection, client: Client, company: str
) -> None:
    employee = await add_employee(app, company, "u2")
    await app.execute("UPDATE employees SET job_title = 'Countess' WHERE id = $1", employee)
    await app.execute("DELETE FROM employees WHERE id = $1", employee)
    added = await client.expect("EmployeeAdded")
    assert added["Data"]["EmployeeId"] == employee
    assert list(added["Data"])[:5] == ["EmployeeId", "CompanyId", "UserId", "Name", "Email"]
    updated = await client.expect("EmployeeUpdated")
    assert updated["Old"] == {"JobTitle": None}
    removed = await client.expect("EmployeeRemoved")
    assert removed["Data"]["JobTitle"] == "Countess"
    assert [added["Position"], updated["Position"], removed["Position"]] == [2, 3, 4]


async def test_a_company_is_updated(app: Connection, client: Client, company: str) -> None:
    await app.execute("UPDATE companies SET name = 'Initech' WHERE id = $1", company)
    message = await client.expect("CompanyUpdated")
    assert list(message["Data"])[:3] == ["CompanyId", "Name", "TimeZone"]
    assert message["Data"]["CompanyId"] == company
    assert message["Old"] == {"Name": "Acme"}


async def test_a_deleted_company_is_sent_with_its_rows_and_then_revoked(
    app: Connection, client: Client, company: str
) -> None:
    await add_event(app, company)
    await client.expect("EventCreated")
    await app.execute("DELETE FROM companies WHERE id = $1", company)
    await client.next("CompanyRevoked")
    kinds = {message["Type"] for message in client.messages[3:]}
    assert kinds == {"CompanyDeleted", "EmployeeRemoved", "EventDeleted", "CompanyRevoked"}
    assert list(client.messages[-1]) == ["Type", "Data"]
    assert client.messages[-1]["Data"] == {"CompanyId": company}
    await client.quiet()


async def test_an_actor_is_sent_where_the_application_sets_one(
    app: Connection, client: Client, company: str
) -> None:
    async with app.transaction():
        await app.execute("SET LOCAL notifier.actor = 'u7'")
        await add_event(app, company)
    await add_event(app, company)
    message = await client.expect("EventCreated")
    assert list(message) == ["Type", "Data", "Position", "At", "Tx", "Actor"]
    assert message["Actor"] == "u7"
    assert "Actor" not in await client.expect("EventCreated")


async def test_a_change_carries_its_transaction_also_from_within_a_savepoint(
    app: Connection, client: Client, company: str
) -> None:
    async with app.transaction():
        async with app.transaction():  # a savepoint, which has a number of its own
            await add_event(app, company)
        number = await app.fetchval("SELECT pg_current_xact_id()::text")
        await add_event(app, company)
    assert (await client.expect("EventCreated"))["Tx"] == number
    assert (await client.expect("EventCreated"))["Tx"] == number


async def test_a_resync_carries_no_transaction(
    app: Connection, client: Client, company: str
) -> None:
    await app.execute("TRUNCATE events")
    assert "Tx" not in await client.expect("Resync")


async def test_a_company_receives_only_its_own_changes(
    service: Service, calendar: Calendar, app: Connection, connect: Connect, company: str
) -> None:
    other = await calendar.company("u2")
    mine, theirs = await connect(service, "u1", company), await connect(service, "u2", other)
    own, foreign = await add_event(app, company), await add_event(app, other)
    assert (await mine.expect("EventCreated"))["Data"]["EventId"] == own
    assert (await theirs.expect("EventCreated"))["Data"]["EventId"] == foreign
    await mine.quiet()
    await theirs.quiet()


async def test_a_row_that_moves_is_a_removal_here_and_an_addition_there(
    service: Service, calendar: Calendar, app: Connection, connect: Connect, company: str
) -> None:
    other = await calendar.company("u2")
    here, there = await connect(service, "u1", company), await connect(service, "u2", other)
    event = await add_event(app, company, title="Old")
    await here.expect("EventCreated")
    await app.execute(
        "UPDATE events SET company_id = $2, title = 'New' WHERE id = $1", event, other
    )
    removed, added = await here.expect("EventDeleted"), await there.expect("EventCreated")
    assert (removed["Data"]["CompanyId"], removed["Data"]["Title"]) == (company, "Old")
    assert (added["Data"]["CompanyId"], added["Data"]["Title"]) == (other, "New")
    assert "Old" not in removed
    assert "Old" not in added


async def test_one_transaction_is_one_net_change_for_each_row(
    app: Connection, client: Client, company: str
) -> None:
    async with app.transaction():
        kept = await add_event(app, company, title="first")
        passing = await add_event(app, company)
        await app.execute("UPDATE events SET title = 'last' WHERE id = $1", kept)
        await app.execute("DELETE FROM events WHERE id = $1", passing)
    async with app.transaction():
        await app.execute("UPDATE events SET title = title WHERE id = $1", kept)
        await app.execute("UPDATE events SET title = 'x' WHERE id = $1", kept)
        await app.execute("UPDATE events SET title = 'last' WHERE id = $1", kept)
    await add_event(app, company, title="the end")
    created = await client.expect("EventCreated")
    assert (created["Data"]["EventId"], created["Data"]["Title"]) == (kept, "last")
    assert (await client.expect("EventCreated"))["Data"]["Title"] == "the end"


async def test_b1_a_rolled_back_change_is_never_sent(
    app: Connection, client: Client, company: str
) -> None:
    transaction = app.transaction()
    await transaction.start()
    await add_event(app, company, title="ghost")
    await transaction.rollback()
    async with app.transaction():
        inner = app.transaction()
        await inner.start()
        await add_event(app, company, title="ghost")
        await inner.rollback()
        await add_event(app, company, title="real")
    message = await client.expect("EventCreated")
    assert (message["Data"]["Title"], message["Position"]) == ("real", 2)
    await client.quiet()


async def test_a_transaction_beyond_the_bulk_limit_is_one_resync(
    app: Connection, client: Client, company: str
) -> None:
    await app.execute(
        """
        INSERT INTO events (company_id, title, starts_at, ends_at)
        SELECT $1, 'many', now(), now() FROM generate_series(1, 1001)
        """,
        company,
    )
    message = await client.expect("Resync")
    assert list(message)[:3] == ["Type", "Data", "Position"]
    assert message["Data"] == {"CompanyId": company, "Reason": "bulk", "Epoch": client.epoch}
    assert message["Position"] == 2
    await add_event(app, company)
    assert (await client.expect("EventCreated"))["Position"] == 3


async def test_a_truncated_table_is_a_resync(app: Connection, client: Client, company: str) -> None:
    await app.execute("TRUNCATE events")
    message = await client.expect("Resync")
    assert message["Data"]["Reason"] == "truncate"


async def test_b13_a_row_too_big_to_send_is_its_keys(
    app: Connection, client: Client, company: str
) -> None:
    event = await add_event(app, company, description="x" * 300_000)
    message = await client.expect("EventCreated")
    assert message["Data"] == {"EventId": event, "CompanyId": company}
    assert message["Partial"] is True


POISON = (r'"\u0000"', r'"\ud800"', r'{"a": 1, "a": 2}', "[" * 3000 + "]" * 3000)


async def test_b14_poison_reaches_every_socket_and_ends_none(
    database: Database, serve: Serve, connect: Connect
) -> None:
    """Each value arrives as it is, or only the keys of its row; the next change arrives whole."""
    await database.execute("ALTER TABLE events ADD COLUMN body json")
    service, calendar = await serve(database), Calendar(database)
    company = await calendar.company("u1")
    clients = [await connect(service, "u1", company) for _ in range(3)]
    for poison in POISON:
        event = await calendar.event(company, "poisoned")
        await database.execute(f"UPDATE events SET body = '{poison}' WHERE id = '{event}'")
    last = await calendar.event(company, "the last")
    for client in clients:
        arrived = await client.received(
            lambda messages: messages[-1].get("Data", {}).get("EventId") == last
        )
        assert [message["Type"] for message in arrived[2:]] == [
            *["EventCreated", "EventUpdated"] * len(POISON),
            "EventCreated",
        ]
        updates = [message for message in arrived if message["Type"] == "EventUpdated"]
        assert [message.get("Partial", False) for message in updates] == [False, True, False, True]
        await client.send({"type": "ping"})
        await client.next("Pong")


async def test_a_row_that_only_the_relay_could_read_ends_no_node(
    database: Database, serve: Serve, connect: Connect
) -> None:
    """It is nested just so deeply that a thread reads it, where the relay nets many changes, and the event loop does not."""
    await database.execute("ALTER TABLE events ADD COLUMN body json")
    query = "SELECT EXISTS (SELECT FROM employees WHERE company_id = $1::uuid AND user_id = $2)"
    service, calendar = await serve(database, membership_query=query), Calendar(database)
    company, other = await calendar.company("u1"), await calendar.company("u2")
    client = await connect(service, "u1", company)
    for depth in range(960, 980, 4):
        await database.execute(
            f"""
            INSERT INTO events (company_id, title, starts_at, ends_at, body)
            SELECT '{other}'::uuid, 'one of many', now(), now(), NULL::json FROM generate_series(1, 300)
            UNION ALL SELECT '{company}', 'deep', now(), now(), '{"[" * depth + "]" * depth}'::json
            """
        )
        assert (await client.next("EventCreated"))["Partial"] is True


@pytest.mark.parametrize("title", ["\u2028", "🗓 \x01 \\ \" '", "א" * 1000, "</script>", ""])
async def test_b14_any_text_arrives_as_it_was_written(
    app: Connection, client: Client, company: str, title: str
) -> None:
    await add_event(app, company, title=title)
    assert (await client.expect("EventCreated"))["Data"]["Title"] == title
