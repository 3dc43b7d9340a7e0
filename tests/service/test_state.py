"""State and changes in one stream: rows at a position, and the changes after it."""

from __future__ import annotations

import asyncio
import random
from typing import Any

from tests.clients import Client
from tests.conftest import Connect, Serve
from tests.databases import Database
from tests.service.calendars import Calendar
from tests.service.http_streams import Event, poll, stream
from tests.services import Service

Rows = dict[tuple[str, str], dict[str, Any]]

REQUESTS = 25
WRITERS = 4
ENTITIES = ("Event", "Employee")


def key(entity: str, row: dict[str, Any]) -> tuple[str, str]:
    return entity, row[f"{entity}Id"]


def apply(rows: Rows, message: dict[str, Any]) -> None:
    """Applies a change of an event or an employee."""
    kind: str = message["Type"]
    for entity in ENTITIES:
        if kind.startswith(entity):
            row = message["Data"]
            if kind.endswith(("Deleted", "Removed")):
                del rows[key(entity, row)]
            else:
                rows[key(entity, row)] = row


async def subscribe(client: Client, company: str, **data: Any) -> dict[str, Any]:
    await client.send({"type": "subscribe", "data": {"companyId": company, "state": True, **data}})
    return await client.next("SubscribeResult")


async def state(client: Client) -> tuple[Rows, int]:
    """The rows of all State messages up to StateEnd, and its position."""
    rows: Rows = {}
    while (message := await client._next())["Type"] != "StateEnd":
        assert message["Type"] == "State", message
        data = message["Data"]
        rows |= {key(data["Entity"], row): row for row in data["Rows"]}
    return rows, message["Data"]["Position"]


async def write(calendar: Calendar, company: str, seed: int, enough: asyncio.Event) -> None:
    """Transactions of some statements each, which overlap with those of other writers."""
    chance = random.Random(seed)
    connection = await calendar.database.connect()
    own: list[str] = []
    version = 0
    try:
        while not enough.is_set():
            transaction = connection.transaction()
            await transaction.start()
            written = list(own)
            for _ in range(chance.randint(1, 4)):
                version += 1
                if not written or chance.random() < 0.4:
                    written.append(
                        await connection.fetchval(
                            "INSERT INTO events (company_id, title, starts_at, ends_at)"
                            " VALUES ($1::uuid, $2, now(), now()) RETURNING id::text",
                            company,
                            f"{version:06}",
                        )
                    )
                elif chance.random() < 0.8:
                    await connection.execute(
                        "UPDATE events SET title = $2 WHERE id = $1::uuid",
                        chance.choice(written),
                        f"{version:06}",
                    )
                else:
                    gone = written.pop(chance.randrange(len(written)))
                    await connection.execute("DELETE FROM events WHERE id = $1::uuid", gone)
                await asyncio.sleep(0)
            if chance.random() < 0.1:
                await transaction.rollback()
            else:
                await transaction.commit()
                own = written
    finally:
        await connection.close()


async def test_rows_are_those_of_the_log_at_their_position_while_writers_write(
    database: Database, serve: Serve, connect: Connect
) -> None:
    service, calendar = await serve(database, state="on"), Calendar(database)
    company = await calendar.company("u1", "u2")
    first = await calendar.database.fetch(
        "SELECT position FROM notifier.messages WHERE company = $1", company
    )
    recorder = await connect(service, "u1")
    assert (await subscribe(recorder, company))["Success"] is True
    known, begin = await state(recorder)
    assert begin == len(first) == 2
    assert {entity for entity, _ in known} == {"Company", "Employee"}
    enough = asyncio.Event()
    writing = [
        asyncio.create_task(write(calendar, company, seed, enough)) for seed in range(WRITERS)
    ]
    found: list[tuple[Rows, int, Client]] = []
    for _ in range(REQUESTS):
        client = await connect(service, "u2")
        answer = await subscribe(client, company)
        assert answer["Success"] is True, answer
        rows, position = await state(client)
        assert answer["Data"]["Position"] == position
        found.append((rows, position, client))
    enough.set()
    await asyncio.gather(*writing)
    last = await calendar.database.fetchval(
        "INSERT INTO employees (company_id, name) VALUES ($1::uuid, 'last') RETURNING id::text",
        company,
    )

    def ended(messages: list[dict[str, Any]]) -> bool:
        return bool(messages[-1].get("Data", {}).get("EmployeeId") == last)

    changes = [each for each in await recorder.received(ended) if "Position" in each]
    assert [each["Position"] for each in changes] == list(range(3, 3 + len(changes)))
    for rows, position, client in found:
        expected = dict(known)
        for change in changes[: position - begin]:
            apply(expected, change)
        assert rows == expected, position
        received = [each for each in await client.received(ended) if "Position" in each]
        assert received == changes[position - begin :]
    assert len({position for _, position, _ in found}) > 5


async def test_what_state_refuses_and_leaves_out(
    database: Database, serve: Serve, connect: Connect, service: Service, calendar: Calendar
) -> None:
    off = await calendar.company("u1")
    client = await connect(service, "u1")
    refused = await subscribe(client, off)
    assert refused["Error"]["Code"] == "state_unavailable"

    bounded, own = await serve(database, state="on", max_state_rows=5), Calendar(database)
    company = await own.company("u1")
    await own.event(company, "a")
    await own.event(company, "b")
    await own.reaches(company, 3)
    client = await connect(bounded, "u1")
    answer = await subscribe(client, company, where={"Event": {"Title": ["a"]}}, entities=["Event"])
    rows, position = await state(client)
    assert [row["Title"] for row in rows.values()] == ["a"]
    assert position == 3
    place = {"after": 2, "epoch": answer["Data"]["Epoch"]}
    resumed = await subscribe(client, company, **place)
    assert resumed["Data"]["Recovered"] is True
    assert (await client.expect("EventCreated"))["Position"] == 3  # and no state
    lost = await subscribe(client, company, after=99, epoch="another")
    assert lost["Data"]["Recovered"] is False
    assert len((await state(client))[0]) == 4
    await own.event(company, "c")
    await own.event(company, "d")
    refused = await subscribe(client, company)
    assert refused["Error"]["Code"] == "state_too_large"
    for form in ("application/json", "text/event-stream"):
        response = await poll(bounded, "u1", company, {"Accept": form}, state="true")
        assert (response.status_code, response.json()["code"]) == (400, "state_too_large")
    stranger = await connect(bounded, "u2")
    assert (await subscribe(stranger, company))["Error"]["Code"] == "company_forbidden"


async def test_state_over_http(database: Database, serve: Serve) -> None:
    service, calendar = await serve(database, state="on"), Calendar(database)
    company = await calendar.company("u1")
    await calendar.event(company, "a")
    await calendar.reaches(company, 2)
    async with stream(service, "u1", company, state="true") as events:
        received: list[Event] = []
        while not received or received[-1].message["Type"] != "StateEnd":
            received.append(await events.event())
        await calendar.event(company, "b")
        created = await events.event()
    first, *pages, end = received
    assert (first.message["Type"], first.id) == ("SubscribeResult", "")
    assert {page.message["Type"] for page in pages} == {"State"}
    assert {page.id for page in pages} == {""}
    data = first.message["Data"]
    assert end.message["Data"] == {"CompanyId": company, "Position": 2}
    assert end.id == f"{data['Epoch']}:2:{data['At']}"
    assert created.message["Position"] == 3
    rows = {page.message["Data"]["Entity"]: page.message["Data"]["Rows"] for page in pages}
    assert {entity: len(each) for entity, each in rows.items()} == {
        "Company": 1,
        "Employee": 1,
        "Event": 1,
    }
    async with stream(service, "u1", company, {"Last-Event-ID": end.id}, state="true") as events:
        assert (await events.event()).message["Data"]["Recovered"] is True
        assert (await events.event()).message == created.message
    page = (await poll(service, "u1", company, state="true", entities="Event")).json()
    assert [row["Title"] for row in page["State"]["Event"]] == ["a", "b"]
    assert (page["Position"], page["Messages"]) == (3, [])
    place = {"after": 2, "epoch": page["Epoch"]}
    resumed = (await poll(service, "u1", company, state="true", **place)).json()
    assert "State" not in resumed
    assert resumed["Messages"] == [created.message]
    lost = (await poll(service, "u1", company, state="true", after=2, epoch="another")).json()
    assert (lost["Recovered"], len(lost["State"]["Event"])) == (False, 2)
    title = '{"Event":{"Title":["none has it"]}}'
    none = (await poll(service, "u1", company, state="true", entities="Event", where=title)).json()
    assert (none["State"], none["Position"], none["Messages"]) == ({}, 3, [])
    assert (await poll(service, "u1", company, state="yes")).status_code == 400


async def test_a_user_who_loses_access_while_a_state_is_read_gets_no_row_of_it(
    database: Database, serve: Serve, connect: Connect
) -> None:
    service, calendar = await serve(database, state="on"), Calendar(database)
    company = await calendar.company("u1", "u2")
    await calendar.event(company, "secret")
    await calendar.reaches(company, 3)
    witness = await connect(service, "u2", company)
    writer = await database.connect()
    await writer.execute("BEGIN; LOCK TABLE companies IN ACCESS EXCLUSIVE MODE")
    polling = asyncio.create_task(poll(service, "u1", company, state="true"))
    await database.blocked()
    await database.execute("DELETE FROM employees WHERE user_id = 'u1'")
    await witness.next("EmployeeRemoved")
    await writer.execute("ROLLBACK")
    page = (await polling).json()
    assert "State" not in page
    assert [message["Type"] for message in page["Messages"]] == ["CompanyRevoked"]
