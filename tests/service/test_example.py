"""The JavaScript that existing clients were written from, in Node."""

from __future__ import annotations

import asyncio
from pathlib import Path

from tests.compilers import node
from tests.service.calendars import Calendar
from tests.services import Service, token
from tests.waiting import DEADLINE_SECONDS

EXAMPLE = Path(__file__).with_name("example.mjs")


async def test_the_example_prints_the_id_of_an_event_that_was_inserted_with_plain_sql(
    service: Service, calendar: Calendar
) -> None:
    company = await calendar.company("u1")
    process = await asyncio.create_subprocess_exec(
        node(), str(EXAMPLE), service.url, token("u1"), company, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(DEADLINE_SECONDS):
            assert (await process.stdout.readline()).decode() == f"Following {company}\n"
            event = await calendar.event(company)
            assert (await process.stdout.readline()).decode() == f"New event created: {event}\n"
    finally:
        process.kill()
        await process.communicate()
