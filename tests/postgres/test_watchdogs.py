"""What a node does because of a notification that any role may send."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from notifier.database.query import Query
from notifier.settings import load
from notifier.watchdogs import CONFIGURATION_SECONDS, follow_configuration
from tests.databases import Database
from tests.services import SECRET
from tests.waiting import until


async def test_a_flood_of_notifications_does_not_become_a_flood_of_queries(
    database: Database,
) -> None:
    query, changed, reads = Query(database.dsn, "test", pooled=False), asyncio.Event(), 0

    def use(*_: object) -> None:
        nonlocal reads
        reads += 1
        changed.set()  # at once the next

    settings = load({}, database_url=database.dsn, jwt_secret=SECRET)
    began = asyncio.get_running_loop().time()
    following = asyncio.create_task(follow_configuration(settings, query, changed, use))

    async def are_some() -> bool:
        return reads >= 5

    await until(are_some)
    assert asyncio.get_running_loop().time() - began >= 4 * CONFIGURATION_SECONDS
    following.cancel()
    with suppress(asyncio.CancelledError):
        await following
    query.close()
