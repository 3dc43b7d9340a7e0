"""`await`: Arrived comes behind the last message of a transaction, and also where there is none."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import pytest

from notifier.delivery.arrivals import WAITING_LIMIT
from tests.clients import Client
from tests.conftest import Connect
from tests.databases import Connection
from tests.service.calendars import Calendar
from tests.service.test_changes import add_event, app, company
from tests.services import Service

__all__ = ["app", "company"]

NUMBER = "SELECT pg_current_xact_id()::text"


@pytest.fixture
async def client(service: Service, connect: Connect, company: str) -> Client:
    return await connect(service, "u1", company)


async def send_await(client: Client, company: str, tx: str) -> None:
    await client.send({"type": "await", "data": {"companyId": company, "tx": tx}})


async def refused(client: Client, company: str, tx: str) -> str:
    """Awaits a transaction; the code of the error that must follow."""
    await send_await(client, company, tx)
    answer = await client.expect("Error")
    assert answer["Data"] == {"CompanyId": company, "Tx": tx}
    code: str = answer["Error"]["Code"]
    return code


async def test_arrived_comes_after_the_last_message_of_the_transaction(
    app: Connection, client: Client, company: str
) -> None:
    async with app.transaction():
        for _ in range(3):
            await add_event(app, company)
        number = await app.fetchval(NUMBER)
    await send_await(client, company, number)
    last = [await client.expect("EventCreated") for _ in range(3)][-1]
    assert last["Tx"] == number
    arrived = await client.expect("Arrived")
    assert list(arrived) == ["Type", "Data"]
    assert arrived["Data"] == {"CompanyId": company, "Tx": number, "Position": last["Position"]}


async def test_a_running_transaction_is_waited_for_even_the_newest(
    app: Connection, client: Client, company: str
) -> None:
    async with app.transaction():
        number = await app.fetchval(NUMBER)
        await send_await(client, company, number)
        await client.quiet()
        await add_event(app, company)
        await client.quiet()
    assert (await client.expect("EventCreated"))["Tx"] == number
    assert (await client.expect("Arrived"))["Data"]["Tx"] == number


@pytest.mark.parametrize("end", ["ROLLBACK", "COMMIT"])
async def test_a_transaction_without_messages_arrives(
    app: Connection, client: Client, company: str, end: str
) -> None:
    await app.execute("BEGIN")
    number = await app.fetchval(NUMBER)
    if end == "ROLLBACK":
        await add_event(app, company)
    await app.execute(end)
    await send_await(client, company, number)
    arrived = await client.expect("Arrived")
    assert arrived["Data"] == {"CompanyId": company, "Tx": number, "Position": client.position}


async def test_a_transaction_of_another_company_and_an_old_one_arrive(
    app: Connection, calendar: Calendar, client: Client, company: str
) -> None:
    other = await calendar.company("u2")
    async with app.transaction():
        await add_event(app, other)
        number = await app.fetchval(NUMBER)
    for tx in (number, "3"):
        await send_await(client, company, tx)
        assert (await client.expect("Arrived"))["Data"]["Tx"] == tx


@pytest.mark.parametrize("ahead", [1, 10**6, 2**53])
async def test_a_number_that_was_not_given_out_yet_is_unknown_at_once(
    app: Connection, client: Client, company: str, ahead: int
) -> None:
    number = int(await app.fetchval(NUMBER)) + ahead * 1000
    assert await refused(client, company, str(number)) == "unknown_tx"
    assert await refused(client, company, "0") == "unknown_tx"


async def test_the_number_may_be_sent_as_text_or_as_a_number(
    app: Connection, client: Client, company: str
) -> None:
    async with app.transaction():
        number = int(await app.fetchval(NUMBER))
        await add_event(app, company)
    position = (await client.expect("EventCreated"))["Position"]
    for tx in (str(number), number):
        await client.send({"type": "await", "data": {"companyId": company, "tx": tx}})
        answer = await client.next("Arrived")
        assert answer["Data"] == {"CompanyId": company, "Tx": str(number), "Position": position}
    for tx in (0, 2**64, 10**20 - 1):
        await client.send({"type": "await", "data": {"companyId": company, "tx": tx}})
        answer = await client.next("Error")
        assert answer["Error"]["Code"] == "unknown_tx"
        assert answer["Data"]["Tx"] == str(tx)


@pytest.mark.parametrize(
    "tx",
    [
        *("", "-1", "x", "1.5", "9" * 21, "\u0661", None, [], {"a": 1}),
        *(-1, 1.5, 7.0, 1e3, True, 10**20, 10**30, 10**4000),
    ],
)
async def test_what_is_no_number_is_malformed(client: Client, company: str, tx: Any) -> None:
    await client.send({"type": "await", "data": {"companyId": company, "tx": tx}})
    answer = await client.expect("Error")
    assert answer["Error"]["Code"] == "malformed"
    assert "Data" not in answer


async def test_unknown_foreign_and_unauthenticated_are_refused(
    service: Service, connect: Connect, calendar: Calendar, client: Client
) -> None:
    for other in (await calendar.company("u2"), str(uuid4())):
        assert await refused(client, other, "3") == "not_subscribed"
    stranger = await connect(service)
    await send_await(stranger, str(uuid4()), "3")
    assert (await stranger.expect("Error"))["Error"]["Code"] == "not_authenticated"


async def test_losing_the_company_ends_the_waiting(
    app: Connection, calendar: Calendar, client: Client, company: str
) -> None:
    writer = await calendar.database.connect(app=True)
    async with writer.transaction():
        number = await writer.fetchval(NUMBER)
        await send_await(client, company, number)
        await client.quiet()
        await app.execute("DELETE FROM employees WHERE company_id = $1", company)
        await client.next("CompanyRevoked")
        assert (await client.expect("Error"))["Error"]["Code"] == "not_subscribed"
    await client.quiet()


async def test_a_socket_waits_for_many_transactions_at_once(
    app: Connection, calendar: Calendar, client: Client, company: str
) -> None:
    writer = await calendar.database.connect(app=True)
    async with writer.transaction():
        number = await writer.fetchval(NUMBER)
        for _ in range(WAITING_LIMIT):
            await send_await(client, company, number)
        assert await refused(client, company, number) == "too_many_waiting"
    for _ in range(WAITING_LIMIT):
        assert (await client.expect("Arrived"))["Data"]["Tx"] == number


async def test_the_companies_of_a_socket_are_awaited_one_by_one(
    app: Connection, calendar: Calendar, client: Client, company: str
) -> None:
    other = await calendar.company("u1")
    await client.send({"type": "subscribe", "data": {"companyId": other}})
    await client.next("SubscribeResult")
    async with app.transaction():
        await add_event(app, company)
        await add_event(app, other)
        number = await app.fetchval(NUMBER)
        for each in (company, other):
            await send_await(client, each, number)
    await client.received(lambda seen: sum(m["Type"] == "Arrived" for m in seen) == 2)
    for each in (company, other):
        kinds = [m["Type"] for m in client.messages if m.get("Data", {}).get("CompanyId") == each]
        assert kinds[-2:] == ["EventCreated", "Arrived"]
