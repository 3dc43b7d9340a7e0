"""A notification queue that another role keeps full breaks no write of the application."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import suppress

import asyncpg
import pytest

from notifier.demo.postgres import EmbeddedPostgres
from tests import databases
from tests.databases import Connection, Database
from tests.ports import free_port
from tests.postgres.relays import Relayed, new_company, new_event, types
from tests.postgres.streams import Node


@pytest.fixture
async def small() -> AsyncIterator[Database]:
    """A database whose server has room for 512 KiB of notifications. Such a limit exists since PostgreSQL 17."""
    if databases.chosen() in ("14", "15", "16"):
        pytest.skip("before PostgreSQL 17 the size of the queue is 8 GiB, without a setting")
    options = {**databases.OPTIONS, "max_notify_queue_pages": "64"}
    with databases.directory() as data:
        server = EmbeddedPostgres(data, databases.programs(), free_port(), options, durable=False)
        with server:
            name = await databases.make_template(server.dsn())
            database = Database(server.dsn(), name)
            yield database
            database.leave()


async def fill_queue(stranger: Connection, listener: Connection) -> None:
    """A listener that stays in a transaction keeps what others send."""
    await listener.execute("LISTEN noise")
    await listener.execute("BEGIN")
    notification = "SELECT pg_notify('noise', $1 || repeat('x', 7000))"
    with suppress(asyncpg.ProgramLimitExceededError):
        for number in range(1000):
            await stranger.execute(notification, str(number))
    assert await stranger.fetchval("SELECT pg_notification_queue_usage()") > 0.9


async def test_a_full_notification_queue_fails_no_write(small: Database) -> None:
    relay = Relayed(small)
    await relay.start()
    company = await new_company(small)
    await relay.asleep()
    app = await small.connect(app=True)
    listener = await small.connect(app=True)
    await fill_queue(await small.connect(app=True), listener)
    await relay.asleep()
    for number in range(10):
        await new_event(app, company, f"{number}")
    await listener.execute("ROLLBACK")
    assert types(await relay.messages_of(company)) == ["EventCreated"] * 10
    await relay.stop()


async def test_a_node_that_cannot_be_notified_is_not_ready(small: Database) -> None:
    listener = await small.connect(app=True)
    await fill_queue(await small.connect(app=True), listener)
    node = Node(small.dsn, small.dsn)
    node.begin()
    await node.reports("too many notifications in the NOTIFY queue")
    await listener.execute("ROLLBACK")
    await node.reports("no node holds the relay lock")
    await node.stop()
