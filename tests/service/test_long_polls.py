"""Long polls: the same messages, a page at a time."""

from __future__ import annotations

import asyncio
from functools import partial

from tests.service.calendars import Calendar
from tests.service.http_streams import poll, subscribers
from tests.services import Service, token
from tests.waiting import until


async def test_without_a_position_the_present_one_is_the_answer(
    service: Service, calendar: Calendar
) -> None:
    company = await calendar.company("u1")
    answer = await poll(service, "u1", company)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/json"
    page = answer.json()
    assert list(page) == ["CompanyId", "Position", "Epoch", "At", "Messages"]
    assert page["Position"] == 1
    assert page["Messages"] == []


async def test_what_was_missed_is_the_answer_at_once(service: Service, calendar: Calendar) -> None:
    company = await calendar.company("u1")
    page = (await poll(service, "u1", company)).json()
    await calendar.event(company)
    await calendar.reaches(company, 2)
    answer = await poll(
        service, "u1", company, after=page["Position"], epoch=page["Epoch"], at=page["At"]
    )
    page = answer.json()
    assert page["Recovered"] is True
    assert page["Position"] == 2
    assert [message["Type"] for message in page["Messages"]] == ["EventCreated"]
    assert page["At"] == page["Messages"][-1]["At"]


async def test_a_poll_waits_for_the_next_message(service: Service, calendar: Calendar) -> None:
    company = await calendar.company("u1")
    page = (await poll(service, "u1", company)).json()
    place = {"after": page["Position"], "epoch": page["Epoch"]}
    waiting = asyncio.create_task(poll(service, "u1", company, wait=55, **place))
    await until(partial(subscribers, service, 1))
    await calendar.event(company)
    page = (await waiting).json()
    assert [message["Position"] for message in page["Messages"]] == [2]


async def test_a_poll_without_a_message_ends_with_an_empty_list(
    service: Service, calendar: Calendar
) -> None:
    company = await calendar.company("u1")
    page = (await poll(service, "u1", company)).json()
    answer = await poll(service, "u1", company, wait=1, after=1, epoch=page["Epoch"])
    assert answer.json()["Messages"] == []
    assert answer.json()["Position"] == 1


async def test_a_long_log_comes_in_pages(service: Service, calendar: Calendar) -> None:
    company = await calendar.company("u1")
    page = (await poll(service, "u1", company)).json()
    for _ in range(3):
        await calendar.events(company, 900, "x" * 200)
    await calendar.reaches(company, 2701)
    positions: list[int] = []
    while page["Position"] < 2701:
        answer = await poll(service, "u1", company, after=page["Position"], epoch=page["Epoch"])
        assert len(answer.content) < 600 * 1024
        page = answer.json()
        assert page["Recovered"] is True
        positions += [message["Position"] for message in page["Messages"]]
    assert positions == list(range(2, 2702))


async def test_losing_access_answers_a_waiting_poll(service: Service, calendar: Calendar) -> None:
    company = await calendar.company("u1", "u2")
    page = (await poll(service, "u1", company)).json()
    waiting = asyncio.create_task(
        poll(service, "u1", company, wait=55, after=2, epoch=page["Epoch"])
    )
    await until(partial(subscribers, service, 1))
    await calendar.database.execute(
        "DELETE FROM employees WHERE user_id = 'u1' AND company_id = $1", company
    )
    answer = await waiting
    assert [message["Type"] for message in answer.json()["Messages"]] == ["EmployeeRemoved"]
    assert (await poll(service, "u1", company)).status_code == 403


async def test_refusals_are_problem_documents(service: Service, calendar: Calendar) -> None:
    company = await calendar.company("u1")
    foreign = await poll(service, "u2", company)
    unknown = await poll(service, "u2", "no such/company")
    assert foreign.status_code == unknown.status_code == 403
    assert foreign.content == unknown.content
    assert foreign.headers["content-type"] == "application/problem+json"
    assert foreign.json()["code"] == "company_forbidden"
    bad = await poll(service, "u1", company, {"Authorization": "Bearer x.y.z"})
    assert (bad.status_code, bad.json()["code"]) == (401, "token_invalid")
    assert bad.headers["www-authenticate"].startswith("Bearer")
    none = await poll(service, "u1", company, {"Authorization": ""}, token=token("u1"))
    assert (none.status_code, none.json()["code"]) == (401, "not_authenticated")
    assert (await poll(service, "u1", company, after="x")).status_code == 400
    assert (await poll(service, "u1", company, wait=56)).status_code == 400
    neither = await poll(service, "u1", company, {"Accept": "image/png"})
    assert (neither.status_code, neither.json()["code"]) == (406, "not_acceptable")
    old = await poll(service, "u1", company, {"Authorization": f"Bearer {token('u1', ttl=-60)}"})
    assert (old.status_code, old.json()["code"]) == (401, "token_expired")
