"""Coming back: everything after the position that a client names, or the plain word that it is not."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from tests.clients import Message
from tests.conftest import Connect, Serve
from tests.databases import Database
from tests.service.calendars import Calendar, positions
from tests.services import Service


def upto(last: int) -> Callable[[list[Message]], bool]:
    return lambda messages: bool(messages) and messages[-1].get("Position") == last


async def test_a_client_that_resumes_gets_missed_messages_and_then_live_ones(
    service: Service, calendar: Calendar, connect: Connect
) -> None:
    company = await calendar.company("u1")
    first = await connect(service, "u1", company)
    await calendar.event(company)
    await first.expect("EventCreated")
    await first.drop()
    for _ in range(3):
        await calendar.event(company)
    again = await connect(service, "u1")
    answer = await again.set_company(company, first.position, first.epoch)
    assert list(answer["Data"]) == ["CompanyId", "Position", "Epoch", "At", "Recovered"]
    assert answer["Data"] == {
        "CompanyId": company,
        "Position": 2,
        "Epoch": first.epoch,
        "At": first.messages[-1]["At"],
        "Recovered": True,
    }
    await calendar.event(company)
    arrived = await again.received(upto(6))
    assert positions(arrived) == [3, 4, 5, 6]


async def test_zero_is_the_beginning_of_the_log(
    service: Service, calendar: Calendar, connect: Connect
) -> None:
    company = await calendar.company("u1", "u2")
    epoch = (await connect(service, "u1", company)).epoch
    client = await connect(service, "u1", company, 0, epoch)
    assert positions(await client.received(upto(2))) == [1, 2]


async def test_a_client_that_missed_nothing_has_recovered(
    service: Service, calendar: Calendar, connect: Connect
) -> None:
    company = await calendar.company("u1")
    epoch = (await connect(service, "u1", company)).epoch
    client = await connect(service, "u1")
    answer = await client.set_company(company, 1, epoch)
    assert (answer["Data"]["Position"], answer["Data"]["Recovered"]) == (1, True)
    await client.quiet()


@pytest.mark.parametrize(
    ("after", "epoch"),
    [(1, None), (0, None), (1, ""), (1, "another"), (1, "x" * 1000), (4, "own"), (1 << 62, "own")],
)
async def test_c16_a_position_that_cannot_be_resumed_is_not_recovered(
    service: Service, calendar: Calendar, connect: Connect, after: int, epoch: str | None
) -> None:
    company = await calendar.company("u1", "u2", "u3")
    own = (await connect(service, "u1", company)).epoch
    client = await connect(service, "u1")
    answer = await client.set_company(company, after, own if epoch == "own" else epoch)
    assert (answer["Data"]["Position"], answer["Data"]["Recovered"]) == (3, False)
    await calendar.event(company)
    assert (await client.expect("EventCreated"))["Position"] == 4


@pytest.mark.parametrize("after", [1 << 63, 1 << 64, 10**30])
async def test_c16_a_position_that_no_log_has_is_refused_or_not_recovered(
    service: Service, calendar: Calendar, connect: Connect, after: int
) -> None:
    company = await calendar.company("u1")
    client = await connect(service, "u1", company)
    answer = await client.set_company(company, after, client.epoch)
    assert answer["Data"]["Recovered"] is False


async def test_an_epoch_without_a_position_is_no_resume(
    service: Service, calendar: Calendar, connect: Connect
) -> None:
    company = await calendar.company("u1")
    client = await connect(service, "u1", company)
    answer = await client.set_company(company, epoch=client.epoch)
    assert "Recovered" not in answer["Data"]


async def test_c16_a_position_of_another_company_brings_only_ones_own_messages(
    service: Service, calendar: Calendar, connect: Connect
) -> None:
    rich, poor = await calendar.company("u1", "u2", "u3"), await calendar.company("u1", "u4")
    client = await connect(service, "u1", rich)
    await client.set_company(poor, 1, client.epoch)
    arrived = await client.received(upto(2))
    assert {message["Data"]["CompanyId"] for message in arrived if "Position" in message} == {poor}


async def test_missed_messages_precede_live_ones_during_writes(
    service: Service, calendar: Calendar, connect: Connect
) -> None:
    company = await calendar.company("u1")
    epoch = (await connect(service, "u1", company)).epoch
    await calendar.events(company, 900)

    async def write() -> None:
        for _ in range(30):
            await calendar.events(company, 10)

    async def resume() -> list[int]:
        client = await connect(service, "u1", company, 0, epoch)
        return positions(await client.received(upto(1201)))

    *arrived, _ = await asyncio.gather(*(resume() for _ in range(10)), write())
    assert all(each == list(range(1, 1202)) for each in arrived)


async def test_a_position_beyond_retention_is_not_recovered(
    database: Database, serve: Serve, connect: Connect
) -> None:
    service, calendar = await serve(database, retention_hours=1e-6), Calendar(database)
    company = await calendar.company("u1")
    client = await connect(service, "u1", company)
    answer = await client.set_company(company, 0, client.epoch)
    assert answer["Data"]["Recovered"] is False
    answer = await client.set_company(company, 1, client.epoch)
    assert answer["Data"]["Recovered"] is True


async def test_a_restarted_node_continues_where_the_former_one_stopped(
    database: Database, serve: Serve, connect: Connect
) -> None:
    service, calendar = await serve(database), Calendar(database)
    company = await calendar.company("u1")
    client = await connect(service, "u1", company)
    await calendar.event(company)
    await client.expect("EventCreated")
    service.terminate()
    assert await service.ended() == 0
    await calendar.event(company, "while no client was there")
    await service.start()
    await service.ready()
    again = await connect(service, "u1", company, client.position, client.epoch)
    message = await again.expect("EventCreated")
    assert (message["Data"]["Title"], message["Position"]) == ("while no client was there", 3)
