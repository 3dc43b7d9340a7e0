"""Both client libraries on a real node: one scenario, the same reports."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from tests.compilers import node
from tests.conftest import Serve
from tests.databases import Database
from tests.service.calendars import Calendar
from tests.services import ROOT, Service, token
from tests.waiting import DEADLINE_SECONDS

HERE = Path(__file__).parent
PROGRAMS: dict[str, Callable[[], list[str]]] = {
    "python": lambda: [sys.executable, str(HERE / "driver.py")],
    "javascript": lambda: [node(), str(HERE / "driver.mjs")],
}

Report: TypeAlias = dict[str, Any]


class Driver:
    """A running program with one of the clients, for the user u1. `reports` has all that were received."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.reports: list[Report] = []

    def send(self, verb: str, company: str, **options: Any) -> None:
        assert self._process.stdin is not None
        line = json.dumps({"verb": verb, "company": company, **options})
        self._process.stdin.write(line.encode() + b"\n")

    async def until(self, company: str, kind: str, **properties: Any) -> Report:
        """Reads up to the report that has these properties, and returns it."""
        assert self._process.stdout is not None
        wanted = {"company": company, "kind": kind, **properties}
        while True:
            try:
                async with asyncio.timeout(DEADLINE_SECONDS):
                    line = await self._process.stdout.readline()
            except TimeoutError:
                raise AssertionError(f"no {wanted}: {self.reports[-5:]}") from None
            assert line, f"the program has ended: {self.reports[-5:]}"
            report: Report = json.loads(line)
            self.reports.append(report)
            if wanted.items() <= report.items():
                return report

    def of(self, company: str) -> list[tuple[Any, ...]]:
        """The reports about a company, without statuses."""
        return [
            tuple(value for name, value in report.items() if name != "company")
            for report in self.reports
            if report["company"] == company and report["kind"] != "status"
        ]

    async def end(self) -> None:
        """Closes standard input: the program closes its client and ends."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        async with asyncio.timeout(DEADLINE_SECONDS):
            await self._process.wait()
        assert self._process.returncode == 0


@pytest.fixture(params=PROGRAMS)
async def program(request: pytest.FixtureRequest) -> AsyncIterator[Callable[[Service], Any]]:
    started: list[asyncio.subprocess.Process] = []

    async def start(service: Service) -> Driver:
        started.append(
            await asyncio.create_subprocess_exec(
                *PROGRAMS[request.param](),
                service.url,
                token("u1"),
                cwd=ROOT,
                env={"PYTHONPATH": str(ROOT)},
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
            )
        )
        return Driver(started[-1])

    yield start
    for process in started:
        if process.returncode is None:
            process.kill()
            await process.communicate()


async def test_several_companies_resume_arrive_and_are_lost_each_by_itself(
    program: Callable[[Service], Any], database: Database, serve: Serve
) -> None:
    service = await serve(database, max_companies_per_connection=2)
    calendar = Calendar(database)
    first, second, foreign = [await calendar.company(user) for user in ("u1", "u1", "u2")]
    driver: Driver = await program(service)
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
    program: Callable[[Service], Any], database: Database, serve: Serve
) -> None:
    service = await serve(database)
    calendar = Calendar(database)
    company = await calendar.company("u1")
    driver: Driver = await program(service)
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
