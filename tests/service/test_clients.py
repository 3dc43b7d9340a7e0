"""Both client libraries on a real node: one scenario, the same reports."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import TypeAlias

import pytest

from tests.conftest import Serve
from tests.databases import Database
from tests.service.calendars import Calendar
from tests.service.drivers import PROGRAMS, Driver, running
from tests.services import Service

Program: TypeAlias = Callable[[Service], Awaitable[Driver]]


@pytest.fixture(params=PROGRAMS)
async def program(request: pytest.FixtureRequest) -> AsyncIterator[Program]:
    async with AsyncExitStack() as stack:
        yield lambda service: stack.enter_async_context(running(request.param, service.url))


async def test_several_companies_resume_arrive_and_are_lost_each_by_itself(
    program: Program, database: Database, serve: Serve
) -> None:
    service = await serve(database, max_companies_per_connection=2)
    calendar = Calendar(database)
    first, second, foreign = [await calendar.company(user) for user in ("u1", "u1", "u2")]
    driver = await program(service)
    for company in (first, foreign, second):
        driver.send("subscribe", company)
    await driver.until(first, "resync", reason="start", position=1)
    await driver.until(foreign, "status", state="idle", reason="company_forbidden")
    await driver.until(second, "resync", reason="start", position=1)
    third = await calendar.company("u1")
    driver.send("subscribe", third)
    await driver.until(third, "status", state="idle", reason="too_many_companies")

    # Each company's messages, and the answer to "has my write arrived?" behind them.
    tx = await database.fetchval(
        """
        WITH added AS (
            INSERT INTO events (company_id, title, starts_at, ends_at)
            SELECT $1, title, now(), now() FROM unnest('{one,two}'::text[]) AS title RETURNING 1
        )
        SELECT pg_current_xact_id()::text FROM added LIMIT 1
        """,
        first,
    )
    driver.send("arrived", first, tx=tx)
    driver.send("arrived", second, tx=tx)
    await driver.until(first, "arrived", position=3)
    driver.send("arrived", second, tx=str(2**62 + 7))
    await driver.until(second, "failed", code="unknown_tx")
    assert [each[:1] for each in driver.of(first)] == [
        ("resync",),
        ("message",),
        ("message",),
        ("arrived",),
    ]

    # A restart: both resume where they were.
    await service.stop()
    await calendar.event(second, "meanwhile")
    await service.start()
    await driver.until(second, "message", position=2)
    assert driver.of(second)[-2:] == [("recovered", 1), ("message", "EventCreated", 2)]

    # One is lost, the other goes on.
    await database.execute("DELETE FROM employees WHERE user_id = 'u1' AND company_id = $1", first)
    await driver.until(first, "status", state="idle", reason="revoked")
    await calendar.event(first, "secret")
    await calendar.event(second, "goes on")
    await driver.until(second, "message", position=3)
    assert driver.of(first)[-1] == ("message", "EmployeeRemoved", 4)
    driver.send("arrived", first, tx=tx)
    await driver.until(first, "failed", code="not_subscribed")
    await driver.end()


async def test_a_filter_is_kept_across_skips_and_restarts_until_it_is_replaced(
    program: Program, database: Database, serve: Serve
) -> None:
    service = await serve(database)
    calendar = Calendar(database)
    company = await calendar.company("u1")
    driver = await program(service)
    driver.send("subscribe", company, where={"Event": {"Title": ["mine", "ours"]}})
    await driver.until(company, "resync", reason="start", position=1)
    await calendar.events(company, 2)
    event = await calendar.event(company, "mine")
    await calendar.rename(event, "theirs")
    await calendar.rename(event, "still theirs")
    await driver.until(company, "skipped", position=6)
    assert driver.of(company)[1:] == [
        ("skipped", 3),
        ("message", "EventCreated", 4),
        ("message", "EventUpdated", 5),
        ("skipped", 6),
    ]

    # What is skipped has arrived, too.
    tx = await database.fetchval(
        "UPDATE events SET title = 'no' WHERE id::text = $1 RETURNING pg_current_xact_id()::text",
        event,
    )
    driver.send("arrived", company, tx=tx)
    await driver.until(company, "arrived", position=7)
    await service.stop()
    await calendar.rename(event, "ours")
    await service.start()
    await driver.until(company, "message", position=8)

    driver.send("filter", company, entities=["Employee"])
    await driver.until(company, "resync", reason="filter", position=8)
    driver.send("filter", company, entities=["Nothing"])
    await driver.until(company, "status", state="live", reason="bad_filter")
    await calendar.rename(event, "mine")
    await database.execute("UPDATE employees SET name = 'Ann'")
    await driver.until(company, "message", type="EmployeeUpdated", position=10)
    assert driver.of(company)[-2:] == [("skipped", 9), ("message", "EmployeeUpdated", 10)]
    await driver.end()
