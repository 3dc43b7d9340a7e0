"""The key of the signatures: which roles can read it, what makes it another one, and that no dump has it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

import asyncpg
import pytest
from prometheus_client import REGISTRY

from notifier.database import schema
from notifier.database.query import Query
from notifier.demo.postgres import EmbeddedPostgres
from notifier.nats import key
from notifier.nats.key import Key
from tests.databases import Database
from tests.waiting import until


@asynccontextmanager
async def loaded(database: Database) -> AsyncIterator[Key]:
    """The key of a node, as long as the block runs."""
    query = Query(database.dsn, "queries", pooled=False)
    present = Key(query)
    running = asyncio.create_task(present.run())

    async def is_loaded() -> bool:
        return present.seal is not None

    try:
        await until(is_loaded)
        yield present
    finally:
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running
        query.close()


def count() -> float:
    """How many payloads of NATS were rejected."""
    return REGISTRY.get_sample_value("notifier_nats_rejected_total") or 0.0


async def signature(database: Database) -> str:
    """What a relay of this database signs."""
    async with loaded(database) as present:
        assert present.seal is not None
        return present.seal.sign("subject", b"payload")


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


async def test_a_server_that_was_started_again_signs_with_another_key(
    mortal: EmbeddedPostgres, mortal_database: Database
) -> None:
    """So does one that was started on a copy of the files, such as a snapshot of the storage."""
    before = await signature(mortal_database)
    mortal_database.leave()
    mortal.stop()
    mortal.start()
    assert await signature(mortal_database) != before


async def test_a_key_that_was_replaced_is_read_without_a_reason(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(key, "RELOAD_SECONDS", 0.0)
    monkeypatch.setattr(key, "CHECK_SECONDS", 0.01)
    async with loaded(database) as present:
        before = present.seal
        await database.execute("REFRESH MATERIALIZED VIEW notifier.signing_key")

        async def is_another() -> bool:
            assert before is not None
            assert present.seal is not None
            return present.seal.sign("a", b"b") != before.sign("a", b"b")

        await until(is_another)


async def test_migrate_makes_a_key_where_a_restore_has_left_none(database: Database) -> None:
    await database.execute("REFRESH MATERIALIZED VIEW notifier.signing_key WITH NO DATA")
    lines: list[str] = []
    await schema.migrate(database.dsn, calendar=True, report=lines.append)
    assert lines == ["the key of the signatures had no value: made one"]
    assert await signature(database)


async def test_a_wrong_signature_is_counted_where_the_key_is_still_the_same(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a restart of PostgreSQL the relay signs with the new key before this node has read it."""
    monkeypatch.setattr(key, "RELOAD_SECONDS", 0.0)
    async with loaded(database) as present:
        before, counted = present.seal, count()
        await database.execute("REFRESH MATERIALIZED VIEW notifier.signing_key")
        present.rejected()

        async def is_another() -> bool:
            return present.seal != before

        await until(is_another)
        assert count() == counted
        present.rejected()

        async def is_counted() -> bool:
            return count() == counted + 1

        await until(is_counted)


async def test_an_application_cannot_read_the_key(database: Database) -> None:
    app = await database.connect(app=True)
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await app.fetch("SELECT secret FROM notifier.signing_key")
