"""A client proves which message it holds: a restored or rewound log may count another one there."""

from __future__ import annotations

import pytest

from tests.conftest import Connect, Serve
from tests.databases import Database
from tests.service.calendars import Calendar, positions
from tests.services import Service
from tests.waiting import until


async def test_the_at_of_an_answer_is_that_of_the_message_to_the_letter(
    service: Service, calendar: Calendar, connect: Connect
) -> None:
    company = await calendar.company("u1")
    client = await connect(service, "u1", company)
    for _ in range(3):
        await calendar.event(company)
        message = await client.expect("EventCreated")
        again = await connect(service, "u1")
        answer = await again.set_company(company, message["Position"], client.epoch, message["At"])
        assert answer["Data"]["At"] == message["At"]
        assert answer["Data"]["Recovered"] is True
        await again.drop()


async def test_cases_4_positions_that_were_given_again_are_not_recovered(
    database: Database, serve: Serve, connect: Connect
) -> None:
    """The log is put back as a restored dump would have it, with epoch and server as they were."""
    service, calendar = await serve(database), Calendar(database)
    company = await calendar.company("u1")
    client = await connect(service, "u1", company)
    for _ in range(7):
        await calendar.event(company)
        last = await client.expect("EventCreated")
    assert last["Position"] == 8
    await service.stop()
    await database.execute("DELETE FROM notifier.messages WHERE position > 4")
    await database.execute("TRUNCATE notifier.changes_0, notifier.changes_1")
    service = await serve(database)
    await calendar.events(company, 6)
    await calendar.reaches(company, 10)
    resumed = await connect(service, "u1")
    answer = await resumed.set_company(company, 8, client.epoch, last["At"])
    assert answer["Data"]["Recovered"] is False
    assert answer["Data"]["Position"] == 10
    (held,) = [message for message in client.messages if message.get("Position") == 4]
    answer = await resumed.set_company(company, 4, client.epoch, held["At"])
    assert (answer["Data"]["Recovered"], answer["Data"]["At"]) == (True, held["At"])
    received = await resumed.received(lambda messages: messages[-1].get("Position") == 10)
    assert positions(received) == [5, 6, 7, 8, 9, 10]


@pytest.mark.parametrize("restart", [True, False])
async def test_the_resync_of_a_new_epoch_can_be_proven(
    database: Database, serve: Serve, connect: Connect, restart: bool
) -> None:
    service, calendar = await serve(database), Calendar(database)
    company = await calendar.company("u1")
    former = await calendar.epoch()
    await service.stop()
    await database.execute("UPDATE notifier.log SET system = 'another'")
    service = await serve(database)

    async def begun() -> bool:
        return await calendar.epoch() != former

    # A node is ready as soon as its relay is elected; that begins the epoch afterwards.
    await until(begun)
    client = await connect(service, "u1", company)
    (message,) = await database.fetch(
        "SELECT position, body->>'At' AS at FROM notifier.messages WHERE company = $1", company
    )
    if restart:
        await service.stop()
        service = await serve(database)
        client = await connect(service, "u1", company)
    answer = await client.set_company(company, 1, client.epoch, message["at"])
    assert message["position"] == 1
    assert (answer["Data"]["Recovered"], answer["Data"]["At"]) == (True, message["at"])
