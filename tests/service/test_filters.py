"""Subscriptions with a filter on a real node: what arrives, what is covered, what is refused."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from notifier.database.schema import migrate
from notifier.watches import CALENDAR
from tests.clients import Client
from tests.conftest import Connect, Serve
from tests.databases import Database
from tests.proxy import Proxy
from tests.service.calendars import Calendar
from tests.services import Service


async def subscribe(client: Client, company: str, **data: Any) -> dict[str, Any]:
    await client.send({"type": "subscribe", "data": {"companyId": company, **data}})
    return await client.next("SubscribeResult")


async def member(connect: Connect, service: Service) -> Client:
    client = await connect(service)
    await client.authenticate("u1")
    return client


def received(client: Client, company: str) -> list[tuple[int, str]]:
    """Position and type of the changes of a company, and of the Skipped that covers the end.

    A Skipped may come earlier than it must, on a slow machine: before a change it is left out here.
    """
    found: list[tuple[int, str]] = []
    for each in client.messages:
        if "Position" in each and each["Data"]["CompanyId"] == company:
            if found and found[-1][1] == "Skipped":
                found.pop()
            found.append((each["Position"], each["Type"]))
    return found


def covered(client: Client, after: int) -> int:
    """The position that a client concludes it has; it must not find a gap."""
    for each in client.messages:
        if "Position" in each:
            if each["Type"] == "Skipped":
                assert each["Position"] > after
            else:
                assert each["Position"] == after + 1
            after = each["Position"]
    return after


async def metric(service: Service, name: str) -> float:
    lines = (await service.get("/metrics")).text.splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(name))


EVENT, EMPLOYEE, COMPANY = CALENDAR
TITLE_A: dict[str, Any] = {"entities": ["Event"], "where": {"Event": {"Title": ["a"]}}}


async def test_only_changes_that_pass_arrive_and_skipped_covers_the_others(
    service: Service, calendar: Calendar, connect: Connect
) -> None:
    company = await calendar.company("u1")
    client = await member(connect, service)
    assert (await subscribe(client, company, **TITLE_A))["Success"] is True
    first = await calendar.event(company, "b")
    await calendar.event(company, "b")
    second = await calendar.event(company, "a")  # 4: with a Skipped before it
    await calendar.rename(first, "a")  # 5: enters
    await calendar.rename(second, "b")  # 6: leaves
    await calendar.rename(second, "c")  # 7: has left
    await client.received(lambda _: received(client, company)[3:] == [(7, "Skipped")])
    assert covered(client, 1) == 7
    assert received(client, company) == [
        (4, "EventCreated"),
        (5, "EventUpdated"),
        (6, "EventUpdated"),
        (7, "Skipped"),  # after some seconds, so that the client's place moves on
    ]
    skipped = client.messages[-1]
    log = calendar.database
    at = await log.fetchval(
        "SELECT at FROM notifier.messages WHERE company = $1 AND position = 7", company
    )
    assert skipped == {
        "Type": "Skipped",
        "Data": {"CompanyId": company},
        "Position": 7,
        "At": at.isoformat(timespec="microseconds"),
    }
    assert await metric(service, "notifier_filters") == 1
    assert await metric(service, "notifier_skipped_messages_total") >= 2


async def test_a_resume_under_a_filter_is_proven_by_the_place_of_a_skipped(
    service: Service, calendar: Calendar, connect: Connect
) -> None:
    company = await calendar.company("u1")
    client = await member(connect, service)
    await subscribe(client, company, **TITLE_A)
    await calendar.event(company, "b")
    skipped = await client.next("Skipped")
    assert skipped["Position"] == 2
    for title in ("b", "a", "b", "a", "b"):
        await calendar.event(company, title)
    await calendar.reaches(company, 7)
    place = {"after": skipped["Position"], "at": skipped["At"], "epoch": await calendar.epoch()}
    again = await member(connect, service)
    answer = await subscribe(again, company, **TITLE_A, **place)
    assert answer["Data"]["Recovered"] is True
    assert answer["Data"]["Position"] == 2
    await again.received(lambda _: covered(again, 2) == 7)
    assert received(again, company) == [(4, "EventCreated"), (6, "EventCreated"), (7, "Skipped")]
    await calendar.event(company, "a")
    await again.received(lambda _: covered(again, 2) == 8)


async def test_replacing_a_filter_begins_at_the_answer_or_replays_from_the_place(
    service: Service, calendar: Calendar, connect: Connect
) -> None:
    company = await calendar.company("u1")
    client = await member(connect, service)
    await subscribe(client, company, entities=["Company"])
    await calendar.event(company, "a")
    await calendar.reaches(company, 2)
    answer = await subscribe(client, company, entities=["Event"])
    position = answer["Data"]["Position"]
    answer = await subscribe(
        client, company, entities=["Event"], after=1, epoch=answer["Data"]["Epoch"]
    )
    assert answer["Data"]["Recovered"] is True
    await client.received(lambda _: (2, "EventCreated") in received(client, company))
    assert position <= 2
    await subscribe(client, company)
    await calendar.event(company, "b")
    await client.received(lambda _: received(client, company)[-1] == (3, "EventCreated"))


BAD: list[dict[str, Any]] = [
    {"entities": []},
    {"entities": "Event"},
    {"entities": {"Event": True}},
    {"entities": [7]},
    {"entities": ["event"]},
    {"entities": ["Meeting"]},
    {"entities": ["Event"], "where": {"Employee": {"Name": ["Ada"]}}},
    {"where": []},
    {"where": "Event"},
    {"where": {"Event": ["Title"]}},
    {"where": {"Event": {"Title": "a"}}},
    {"where": {"Event": {"Title": []}}},
    {"where": {"Event": {"Title": [["a"]]}}},
    {"where": {"Event": {"Title": [{"a": 1}]}}},
    {"where": {"Event": {"title": ["a"]}}},
    {"where": {"Event": {"Location": ["a"]}}},  # excluded
    {"where": {"Meeting": {"Title": ["a"]}}},
    {"where": {"Event": {"Title": [*range(101)]}}},
    {
        "where": {
            "Event": {name: [1] for name in ("Title", "AllDay", "StartsAt", "EndsAt", "EventId")},
            "Employee": {
                name: [1]
                for name in ("Name", "Email", "UserId", "JobTitle", "EmployeeId", "CompanyId")
            },
        }
    },
]


async def test_a_bad_filter_is_refused_and_leaves_the_subscription_as_it_was(
    database: Database, serve: Serve, connect: Connect
) -> None:
    await migrate(database.dsn, watches=[replace(EVENT, exclude=("location",)), EMPLOYEE, COMPANY])
    service = await serve(database)
    # The epoch that `migrate` begins discards what the relay reads together with its mark.
    await database.relayed()
    calendar = Calendar(database)
    company = await calendar.company("u1")
    client = await member(connect, service)
    await subscribe(client, company, **TITLE_A)
    for bad in BAD:
        answer = await subscribe(client, company, **bad)
        assert answer["Success"] is False, bad
        assert answer["Data"] == {"CompanyId": company}
        assert answer["Error"]["Code"] == "bad_filter", bad
    await calendar.event(company, "b")
    await calendar.event(company, "a")
    await client.received(lambda _: covered(client, 1) == 3)
    assert received(client, company) == [(3, "EventCreated")]


async def test_filters_follow_columns_that_are_added_renamed_and_dropped(
    service: Service, calendar: Calendar, connect: Connect
) -> None:
    company = await calendar.company("u1")
    client = await member(connect, service)

    async def refused(name: str) -> bool:
        where = {"Event": {name: ["red", None]}}
        answer = await subscribe(client, company, where=where)
        if not answer["Success"]:
            assert answer["Error"]["Code"] == "bad_filter"
        return not answer["Success"]

    assert await refused("Colour")
    await calendar.database.execute("ALTER TABLE events ADD COLUMN colour text")
    assert not await refused("Colour")
    await calendar.event(company, "a")
    await client.next("EventCreated")
    await calendar.database.execute("ALTER TABLE events RENAME colour TO shade")
    assert await refused("Colour")
    assert not await refused("Shade")
    await calendar.database.execute("ALTER TABLE events DROP COLUMN shade")
    assert await refused("Shade")


@pytest.mark.parametrize("key", ["Entities", "WHERE"])
async def test_keys_of_the_command_are_matched_without_case_those_of_where_are_not(
    service: Service, calendar: Calendar, connect: Connect, key: str
) -> None:
    company = await calendar.company("u1")
    client = await member(connect, service)
    value: Any = ["Event"] if key == "Entities" else {"Event": {"Title": ["a"]}}
    assert (await subscribe(client, company, **{key: value}))["Success"] is True
    await calendar.event(company, "a")
    await client.next("EventCreated")


async def test_a_filter_while_the_database_does_not_answer_is_answered_with_unavailable(
    database: Database, serve: Serve, connect: Connect
) -> None:
    calendar = Calendar(database)
    async with Proxy(*database.address) as proxy:
        service = await serve(database.through(proxy.port), authorization="claim")
        company = await calendar.company("u1")
        client = await connect(service)
        await client.authenticate("u1", companies=[company])
        assert (await subscribe(client, company))["Success"]
        proxy.refuse()
        proxy.freeze()
        refused = await subscribe(client, company, where={"Event": {"Title": ["a"]}})
        assert refused["Error"]["Code"] == "unavailable"
        proxy.thaw()
        await proxy.accept()
        await calendar.event(company, "b")  # the former subscription has no filter
        assert (await client.next("EventCreated"))["Data"]["Title"] == "b"
