"""The way to the database is long, narrow, lossy or cut; the relay gets stuck; the log comes from elsewhere."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Sequence

import pytest

from notifier import health, stream
from notifier.changes import Change
from notifier.log import Log
from tests.chaos.local import LocalNode
from tests.conftest import Connect, Serve
from tests.databases import Database
from tests.proxy import Proxy
from tests.service.calendars import Calendar
from tests.service.test_faults_database import RECONNECTS, begin, found, not_ready, reason
from tests.waiting import until

BLACK_HOLE_SECONDS = float(os.environ.get("NOTIFIER_TEST_BLACK_HOLE_SECONDS", "12"))
"""How long the longest black hole is: beyond every time-out of ours, and shorter than the world's."""


@pytest.fixture
async def proxy(database: Database) -> AsyncIterator[Proxy]:
    """The way to the database."""
    async with Proxy(*database.address) as proxy:
        yield proxy


# --- stuck


async def test_a_relay_that_makes_no_progress_in_a_backlog_is_found_out(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health, "STUCK_SECONDS", 0.5)
    monkeypatch.setattr(stream, "PROBE_SECONDS", 0.1)
    for module in ("log", "relay"):
        monkeypatch.setattr(f"notifier.{module}.PAGE", 25)
    go_on, changes_of = asyncio.Event(), Log.changes_of
    pages: list[object] = []

    async def stick(log: Log, xids: Sequence[int]) -> list[Change]:
        pages.append(xids)
        if len(pages) > 1:
            await go_on.wait()
        return await changes_of(log, xids)

    monkeypatch.setattr(Log, "changes_of", stick)
    company, calendar = await found(database), Calendar(database)
    for _ in range(2):  # a page each
        await calendar.events(company, 20)
    node = LocalNode(database.dsn)
    starting = asyncio.create_task(node.start())

    async def red() -> bool:
        return "stuck" in (node.node.health.reason() or "")

    await until(red)
    go_on.set()
    await calendar.reaches(company, 41)

    async def green() -> bool:
        return node.node.health.reason() is None

    await until(green)
    await starting
    await node.stop()
