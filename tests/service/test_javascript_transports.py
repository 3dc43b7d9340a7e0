"""The JavaScript client over WebSocket, server-sent events and long polls: the same reports, and the same rows."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest

from tests.conftest import Serve
from tests.databases import Database
from tests.http_proxy import HttpProxy
from tests.service.calendars import Calendar
from tests.service.drivers import running
from tests.services import Service, token
from tests.waiting import until

TRANSPORTS = ("websocket", "sse", "poll")


program = partial(running, "javascript")


@pytest.fixture
async def stateful(database: Database, serve: Serve) -> Service:
    """A service that sends states."""
    return await serve(database, state="on")


async def table(database: Database, company: str) -> set[tuple[str, str]]:
    rows = await database.fetch(
        "SELECT id::text, title FROM events WHERE company_id::text = $1", company
    )
    return {(row["id"], row["title"]) for row in rows}


def events(snapshot: dict[str, Any]) -> set[tuple[str, str]]:
    return {(row["EventId"], row["Title"]) for row in snapshot["rows"].get("Event", [])}


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_rows_follow_the_table_through_restarts_resyncs_and_revocation(
    stateful: Service, database: Database, transport: str
) -> None:
    calendar = Calendar(database)
    company = await calendar.company("u1")
    event = await calendar.event(company, "before")
    await calendar.reaches(company, 2)
    async with program(stateful.url, transport=transport) as driver:
        driver.send("subscribe", company, state=True)
        await driver.until(company, "state", reason="start", position=2)
        assert driver.reports[-2]["transport"] == transport

        # A change, its arrival, and those that were missed meanwhile.
        tx = await database.fetchval(
            "UPDATE events SET title = 'after' WHERE id::text = $1 RETURNING pg_current_xact_id()::text",
            event,
        )
        driver.send("arrived", company, tx=tx)
        await driver.until(company, "arrived", position=3)
        await stateful.stop()
        await calendar.events(company, 3)
        await stateful.start()
        await driver.until(company, "message", position=6)
        assert [each[:1] for each in driver.of(company)][-4:] == [
            ("recovered",),
            *[("message",)] * 3,
        ]
        driver.send("snapshot", company)
        snapshot = (await driver.until(company, "snapshot"))["snapshot"]
        assert events(snapshot) == await table(database, company)
        assert snapshot["position"]["after"] == 6

        # What cannot be followed is read again.
        await calendar.events(company, 1100)
        await driver.until(company, "state", reason="bulk", position=7)
        driver.send("snapshot", company)
        assert len(events((await driver.until(company, "snapshot"))["snapshot"])) == 1104

        await database.execute("DELETE FROM employees WHERE company_id::text = $1", company)
        await driver.until(company, "status", state="idle", reason="revoked")
        driver.send("snapshot", company)
        assert (await driver.until(company, "snapshot"))["snapshot"] is None
        await driver.end()

    # Rows that were saved go on where they were.
    await database.execute(
        "INSERT INTO employees (company_id, user_id, name) VALUES ($1::text::uuid, 'u1', 'Ann')",
        company,
    )
    async with program(stateful.url, transport=transport) as driver:
        driver.send("subscribe", company, state=True, snapshot=snapshot)
        await driver.until(company, "state", position=9)
        await driver.end()


async def test_a_saved_snapshot_resumes_and_a_filter_of_rows_is_kept(
    stateful: Service, database: Database
) -> None:
    calendar = Calendar(database)
    company = await calendar.company("u1")
    where = {"Event": {"Title": ["mine"]}}
    async with program(stateful.url) as driver:
        driver.send("subscribe", company, state=True, where=where)
        await driver.until(company, "state")
        event = await calendar.event(company, "mine")
        await driver.until(company, "message", position=2)
        driver.send("snapshot", company)
        snapshot = (await driver.until(company, "snapshot"))["snapshot"]
        assert events(snapshot) == {(event, "mine")}
        await driver.end()
    await calendar.rename(event, "theirs")
    other = await calendar.event(company, "mine")
    async with program(stateful.url) as driver:
        driver.send("subscribe", company, state=True, where=where, snapshot=snapshot)
        await driver.until(company, "message", position=4)
        assert driver.of(company)[0] == ("recovered", 2)
        driver.send("snapshot", company)
        after = (await driver.until(company, "snapshot"))["snapshot"]
        assert events(after) == {(other, "mine")}, "the row that has left the filter is gone"
        await driver.end()
    async with program(stateful.url) as driver:
        driver.send("subscribe", company, state=True, snapshot=after)
        await driver.until(company, "state", reason="start")
        await driver.end()


async def test_a_network_without_websockets_gets_streams_and_returns_to_a_websocket(
    stateful: Service, database: Database
) -> None:
    calendar = Calendar(database)
    company = await calendar.company("u1")
    async with HttpProxy(stateful.port) as proxy, program(proxy.url) as driver:
        driver.send("subscribe", company)
        await driver.until(company, "status", state="live", transport="websocket")
        proxy.blocks = True
        proxy.cut()
        await driver.until(company, "status", state="live", transport="sse")
        await calendar.event(company)
        await driver.until(company, "message", position=2)
        proxy.blocks = False
        await driver.until(company, "status", state="live", transport="websocket")
        await calendar.event(company)
        await driver.until(company, "message", position=3)
        assert [each for each in driver.of(company) if each[0] != "recovered"] == [
            ("resync", "start", 1),
            ("message", "EventCreated", 2),
            ("message", "EventCreated", 3),
        ]
        await driver.end()


async def test_a_proxy_that_buffers_streams_gets_polls(
    stateful: Service, database: Database
) -> None:
    calendar = Calendar(database)
    company = await calendar.company("u1")
    async with HttpProxy(stateful.port) as proxy:
        proxy.blocks = proxy.buffers = True
        async with program(proxy.url, heartbeatMs=1000) as driver:
            driver.send("subscribe", company, state=True)
            await driver.until(company, "status", state="live", transport="poll")
            await driver.until(company, "state")
            await calendar.event(company)
            await driver.until(company, "message", position=2)
            await driver.end()


@pytest.mark.parametrize("transport", ["sse", "poll"])
async def test_over_http_a_token_is_renewed_without_an_interruption(
    database: Database, serve: Serve, transport: str
) -> None:
    service = await serve(database, jwt_leeway_seconds=0)
    calendar = Calendar(database)
    company = await calendar.company("u1")
    async with HttpProxy(service.port) as proxy:
        first, second = token("u1", ttl=8), token("u1")
        async with program(proxy.url, first, transport=transport) as driver:
            driver.send("subscribe", company)
            await driver.until(company, "status", state="live", transport=transport)
            driver.send("token", company, token=second)

            async def is_renewed() -> bool:
                return proxy.requests[-1].get("authorization") == f"Bearer {second}"

            await until(is_renewed)
            await calendar.event(company)
            await driver.until(company, "message", position=2)
            states = {each["state"] for each in driver.reports if each["kind"] == "status"}
            assert "waiting" not in states
            await driver.end()
