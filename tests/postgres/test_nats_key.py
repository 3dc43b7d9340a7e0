"""The key of the signatures: which roles can read it, and what makes it another one."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

import asyncpg
import pytest

from notifier.database import schema
from notifier.database.query import Query
from notifier.nats.key import Key
from tests.databases import Database
from tests.waiting import until


async def signature(database: Database) -> str:
    """What a relay of this database signs."""
    query = Query(database.dsn, "queries", pooled=False)
    key = Key(query)
    running = asyncio.create_task(key.run())

    async def is_loaded() -> bool:
        return key.seal is not None

    try:
        await until(is_loaded)
    finally:
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running
        query.close()
    assert key.seal is not None
    return key.seal.sign("subject", b"payload")


async def test_a_copy_of_a_database_signs_with_another_key(
    make_database: Callable[[], Awaitable[Database]],
) -> None:
    one, other = await make_database(), await make_database()  # copies of one template
    secret = "SELECT secret FROM notifier.signing_key"
    assert await one.fetchval(secret) == await other.fetchval(secret)
    assert len(await one.fetchval(secret)) == 32
    assert await signature(one) == await signature(one)
    assert await signature(one) != await signature(other)
    await schema.migrate(one.dsn, calendar=True)
    assert await one.fetchval(secret) == await other.fetchval(secret)


async def test_an_application_cannot_read_the_key(database: Database) -> None:
    app = await database.connect(app=True)
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await app.fetch("SELECT secret FROM notifier.signing_key")
