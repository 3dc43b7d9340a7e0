"""While no relay runs, writes succeed and the disk stays bounded; clients that come later get a Resync.

NOTIFIER_TEST_WRITES says how many rows are written: 200,000 here, a million by hand (`-s` prints the
figures).
"""

from __future__ import annotations

import asyncio
import os
import time

import pytest

from notifier.database.schema import migrate
from tests.clients import Message
from tests.conftest import Connect, Serve
from tests.databases import Database
from tests.postgres.relays import new_company
from tests.service.calendars import Calendar, positions
from tests.waiting import until

WRITES = int(os.environ.get("NOTIFIER_TEST_WRITES", "200000"))
WRITERS = 6
AT_ONCE = 500
ONE_BY_ONE = 10
"""Single-row statements between two that write many rows."""

LIMIT = 16 * 1024 * 1024

SCHEMA_BYTES = """
SELECT sum(pg_total_relation_size(oid))::bigint FROM pg_class
WHERE relnamespace = 'notifier'::regnamespace AND relkind = 'r'
"""


async def write(database: Database, company: str, rows: int) -> int:
    """Writes as an app does, many rows at once and single ones; how many writes succeeded."""
    app = await database.connect(app=True)
    done = 0

    async def run(statement: str, *arguments: object) -> None:
        nonlocal done
        done += int((await app.execute(statement, *arguments)).split()[-1])

    while done < rows:
        await run(
            "INSERT INTO events (company_id, title, starts_at, ends_at)"
            " SELECT $1, 'Tea ' || n, now(), now() FROM generate_series(1, $2::int) AS n",
            company,
            AT_ONCE,
        )
        event = await app.fetchval("SELECT id FROM events WHERE company_id = $1 LIMIT 1", company)
        for number in range(ONE_BY_ONE):
            await run("UPDATE events SET title = $2 WHERE id = $1", event, f"Tea {done} {number}")
        await run("UPDATE events SET title = title || '!' WHERE company_id = $1", company)
        await run("DELETE FROM events WHERE company_id = $1", company)
    return done


@pytest.mark.slow
@pytest.mark.timeout(300 + WRITES // 2_000)
async def test_a_million_writes_without_a_relay_end_in_a_resync(
    database: Database, serve: Serve, connect: Connect
) -> None:
    await migrate(database.dsn, max_log_bytes=LIMIT)
    service = await serve(database, max_log_bytes=LIMIT)
    calendar = Calendar(database)
    company = await calendar.company("ann", "bob")
    before = await connect(service, "ann", company)
    event = await calendar.event(company)
    await before.next("EventCreated")
    position, epoch = before.position, before.epoch
    assert position == 3
    await service.stop()

    largest = 0
    companies = [await new_company(database) for _ in range(WRITERS)]
    writers = asyncio.gather(*(write(database, each, WRITES // WRITERS) for each in companies))
    began = time.monotonic()
    while not writers.done():
        largest = max(largest, await database.fetchval(SCHEMA_BYTES))
        await asyncio.wait([writers], timeout=0.1)
    written = sum(await writers)
    seconds = time.monotonic() - began
    logged = await database.fetchval("SELECT notifier.log_bytes()")
    print(  # noqa: T201 - what was measured
        f"\n{written:,} writes in {seconds:.1f} s; the log {logged / 2**20:.1f} MiB, the whole schema"
        f" {largest / 2**20:.1f} MiB at most, of {LIMIT / 2**20:.0f} MiB"
    )
    assert written >= WRITES // WRITERS * WRITERS
    assert largest < LIMIT
    await calendar.rename(event, "written while the log was full")

    await service.start()
    await service.ready()
    first = await connect(service, "ann", company, position, epoch)
    await first.received(has_resync)
    assert first.epoch != epoch
    await calendar.rename(event, "renamed")
    arrived = await first.received(lambda messages: is_among("renamed", messages))
    assert not is_among("written while the log was full", arrived), "as if nothing had been missed"

    late = await connect(service, "bob", company, position, epoch)
    (_, answer) = late.messages
    assert answer["Data"]["Recovered"] is False
    assert answer["Data"]["Epoch"] == first.epoch
    fresh = await connect(service, "bob", company, 0, first.epoch)
    await calendar.rename(event, "live")
    for client in (first, late, fresh):
        await client.received(lambda messages: is_among("live", messages))
    _, answer, resync, *rest = fresh.messages
    assert answer["Data"]["Recovered"] is True
    assert resync["Type"] == "Resync"
    assert resync["Data"] == {"CompanyId": company, "Reason": "overflow", "Epoch": first.epoch}
    # Further ones follow where other transactions of the cluster, which may have dropped changes, end later.
    assert all(m["Data"] == resync["Data"] for m in rest if m["Type"] == "Resync")
    assert [m["Type"] for m in rest if m["Type"] != "Resync"] == ["EventUpdated", "EventUpdated"]
    assert positions(fresh.messages) == [*range(1, 2 + len(rest))]

    async def small() -> bool:
        return int(await database.fetchval(SCHEMA_BYTES)) < LIMIT // 8

    await until(small)


def is_among(title: str, messages: list[Message]) -> bool:
    """Whether an event of this title was among them."""
    return any(message.get("Data", {}).get("Title") == title for message in messages)


def has_resync(messages: list[Message]) -> bool:
    """Whether the client knows that messages are missing."""
    return any(
        message.get("Data", {}).get("Recovered") is False
        or message.get("Data", {}).get("Reason") == "overflow"
        for message in messages
    )
