"""Several companies on one socket of a real node."""

from __future__ import annotations

from typing import Any

from tests.clients import Client
from tests.conftest import Connect, Serve
from tests.databases import Database
from tests.service.calendars import Calendar
from tests.services import Service


async def subscribe(client: Client, company: str, **data: Any) -> dict[str, Any]:
    await client.send({"type": "subscribe", "data": {"companyId": company, **data}})
    return await client.next("SubscribeResult")


def titles(client: Client, company: str) -> list[tuple[int, str]]:
    """Position and title of the events of one company, as they were received."""
    return [
        (each["Position"], each["Data"]["Title"])
        for each in client.messages
        if each["Type"] == "EventCreated" and each["Data"]["CompanyId"] == company
    ]


async def both(client: Client, calendar: Calendar) -> tuple[str, str]:
    """Two companies of u1, each with one message, to which the client has subscribed."""
    companies = await calendar.company("u1"), await calendar.company("u1")
    await client.authenticate("u1")
    for company in companies:
        answer = await subscribe(client, company)
        assert answer["Success"] is True
        assert answer["Data"]["CompanyId"] == company
        assert answer["Data"]["Position"] == 1
        assert "Recovered" not in answer["Data"]
    return companies


async def test_messages_of_two_companies_arrive_on_one_socket_each_in_order(
    service: Service, calendar: Calendar, connect: Connect
) -> None:
    client = await connect(service)
    first, second = await both(client, calendar)
    for number in range(3):
        await calendar.event(first, f"first {number}")
        await calendar.event(second, f"second {number}")
    await client.received(lambda _: len(titles(client, first) + titles(client, second)) == 6)
    assert titles(client, first) == [(2 + n, f"first {n}") for n in range(3)]
    assert titles(client, second) == [(2 + n, f"second {n}") for n in range(3)]


async def test_after_unsubscribe_nothing_of_that_company_arrives(
    service: Service, calendar: Calendar, connect: Connect
) -> None:
    client = await connect(service)
    first, second = await both(client, calendar)
    await client.send({"type": "unsubscribe", "data": {"companyId": first}})
    answer = await client.next("UnsubscribeResult")
    assert answer == {
        "Type": "UnsubscribeResult",
        "Success": True,
        "Data": {"CompanyId": first},
    }
    await calendar.event(first, "not seen")
    await calendar.reaches(first, 2)
    await calendar.event(second, "seen")
    await client.next("EventCreated")
    assert titles(client, first) == []
    assert titles(client, second) == [(2, "seen")]


async def test_losing_one_company_leaves_the_other(
    service: Service, calendar: Calendar, connect: Connect
) -> None:
    client = await connect(service)
    first, second = await both(client, calendar)
    await calendar.database.execute("DELETE FROM employees WHERE company_id = $1", first)
    assert (await client.next("CompanyRevoked"))["Data"] == {"CompanyId": first}
    await calendar.event(first, "not seen")
    await calendar.reaches(first, 3)
    await calendar.event(second, "seen")
    await client.next("EventCreated")
    assert titles(client, first) == []
    assert titles(client, second) == [(2, "seen")]


async def test_each_company_is_resumed_from_its_own_position(
    service: Service, calendar: Calendar, connect: Connect
) -> None:
    client = await connect(service)
    first, second = await both(client, calendar)
    epoch = await calendar.epoch()
    for number in range(3):
        await calendar.event(first, f"first {number}")
        await calendar.event(second, f"second {number}")
    await calendar.reaches(first, 4)
    await calendar.reaches(second, 4)
    again = await connect(service)
    await again.authenticate("u1")
    for company, after in ((first, 3), (second, 2)):
        answer = await subscribe(again, company, after=after, epoch=epoch)
        assert answer["Data"]["Recovered"] is True
        assert answer["Data"]["Position"] == after
    await again.received(lambda _: len(titles(again, first) + titles(again, second)) == 3)
    assert titles(again, first) == [(4, "first 2")]
    assert titles(again, second) == [(3, "second 1"), (4, "second 2")]


async def test_a_company_beyond_the_limit_is_refused_with_its_id(
    database: Database, serve: Serve, connect: Connect
) -> None:
    calendar = Calendar(database)
    service = await serve(database, max_companies_per_connection=2)
    client = await connect(service)
    await both(client, calendar)
    third = await calendar.company("u1")
    answer = await subscribe(client, third)
    assert answer["Success"] is False
    assert answer["Data"] == {"CompanyId": third}
    assert answer["Error"]["Code"] == "too_many_companies"


async def test_more_than_500_subscribes_in_ten_seconds_close_with_4429(
    service: Service, connect: Connect
) -> None:
    client = await connect(service)
    await client.authenticate("u1")
    for _ in range(501):
        await client.send({"type": "unsubscribe", "data": {"companyId": "none"}})
    assert await client.closed() == 4429
    refused = [each for each in client.messages if each["Type"] == "UnsubscribeResult"]
    assert len(refused) == 500
