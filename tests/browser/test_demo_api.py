"""The demo's application API: plain SQL behind JSON, with readable errors."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import httpx
import pytest
import pytest_asyncio

from tests.browser.live import Demo, Sql
from tests.waiting import until

AT = {"StartsAt": "2031-01-01T10:00:00Z", "EndsAt": "2031-01-01T11:00:00+00:00"}


@pytest_asyncio.fixture(loop_scope="session")
async def client(demo: Demo) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=f"{demo.page}demo", trust_env=False) as opened:
        yield opened


async def test_the_first_start_keeps_its_log(demo: Demo) -> None:
    async with httpx.AsyncClient(base_url=demo.page, trust_env=False) as opened:

        async def ready() -> bool:
            return (await opened.get("readyz")).is_success

        await until(ready)
    assert "the log was emptied" not in demo.log()


async def events(demo: Demo, user: str) -> list[dict[str, Any]]:
    """The events of the printed company in the state that the service sends to a user."""
    async with httpx.AsyncClient(base_url=demo.page, trust_env=False) as opened:
        page = await opened.get(
            f"companies/{demo.company}/messages?state=true",
            headers={"Authorization": f"Bearer {demo.token(user)}"},
        )
    found: list[dict[str, Any]] = page.json()["State"]["Event"]
    return found


async def test_a_row_is_created_changed_and_deleted(
    client: httpx.AsyncClient, demo: Demo, sql: Sql
) -> None:
    given = {"CompanyId": demo.company, "Title": "Written", **AT}
    made = await client.post("/events", json=given, headers={"X-Actor": "ben"})
    assert made.status_code == 201
    stored = await sql.run("SELECT xmin::text FROM events WHERE id::text = $1", made.json()["Id"])
    assert int(made.json()["Tx"]) % 2**32 == int(stored)
    path = f"/events/{made.json()['Id']}"
    assert (await client.patch(path, json={"Title": "Changed"})).is_success
    (event,) = [each for each in await events(demo, "ann") if each["Title"] == "Changed"]
    assert event["EventId"] == made.json()["Id"]
    assert event["StartsAt"] == "2031-01-01T10:00:00+00:00"
    assert (await client.delete(path)).is_success
    assert (await client.delete(path)).status_code == 404
    assert not await sql.run("SELECT count(*) FROM events WHERE title = 'Changed'")


async def test_a_private_event_is_in_the_state_of_its_people_only(
    client: httpx.AsyncClient, demo: Demo
) -> None:
    given = {"CompanyId": demo.company, "Title": "Secret", "PrivateTo": ["ann"], **AT}
    made = (await client.post("/events", json=given)).json()["Id"]
    for user, sees in (("ann", True), ("ben", False)):
        assert any(event["EventId"] == made for event in await events(demo, user)) is sees
    await client.patch(f"/events/{made}", json={"PrivateTo": None})
    assert any(event["EventId"] == made for event in await events(demo, "ben"))


async def test_each_company_has_a_user_and_each_user_a_token(client: httpx.AsyncClient) -> None:
    companies = (await client.get("/companies")).json()
    assert len(companies) == 2
    for company in companies:
        token = await client.get("/token", params={"user": company["UserId"]})
        assert token.text.count(".") == 2


@pytest.mark.parametrize(
    ("body", "status", "text"),
    [
        (b"{", 400, "JSON"),
        (b"[]", 400, "object"),
        (b'{"Title": ""}', 400, "Title"),
        (b'{"Title": "x"}', 400, "missing: CompanyId, EndsAt, StartsAt"),
        (b'{"Nope": 1}', 400, "Nope"),
        (b'{"Title": "' + b"x" * 70_000 + b'"}', 413, "too large"),
    ],
)
async def test_a_wrong_body_is_a_readable_error(
    client: httpx.AsyncClient, body: bytes, status: int, text: str
) -> None:
    answer = await client.post("/events", content=body)
    assert answer.status_code == status
    assert text in answer.json()["Error"]["Message"]


@pytest.mark.parametrize(
    ("change", "status", "text"),
    [
        ({"CompanyId": str(uuid4())}, 409, "foreign key"),
        ({"OrganizerId": str(uuid4())}, 409, "foreign key"),
        ({"EndsAt": "2030-01-01T10:00:00Z"}, 400, "ends before"),
        ({"StartsAt": "2031-01-01T10:00:00"}, 400, "StartsAt"),
        ({"Title": "nul \0"}, 400, "NUL"),
    ],
)
async def test_a_wrong_value_is_a_readable_error(
    client: httpx.AsyncClient, demo: Demo, change: dict[str, Any], status: int, text: str
) -> None:
    given = {"CompanyId": demo.company, "Title": "Never", **AT, **change}
    answer = await client.post("/events", json=given)
    assert answer.status_code == status
    assert text in answer.json()["Error"]["Message"]


async def test_an_empty_change_is_refused(client: httpx.AsyncClient) -> None:
    assert (await client.patch(f"/events/{uuid4()}", json={})).status_code == 400
