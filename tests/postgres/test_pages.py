"""What a node reads of the log at once is bounded by its bytes, and nothing is left out."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from notifier.database.connections import connect
from notifier.database.query import Query
from notifier.delivery import history as histories
from notifier.delivery import postgres_stream as streams
from notifier.delivery.filter_catalogue import FilterCatalogue
from notifier.delivery.history import History
from notifier.delivery.hub import Hub
from notifier.delivery.postgres_stream import PostgresStream
from notifier.health import Health
from notifier.messages import Message
from tests.databases import Connection, Database
from tests.postgres.relays import log_head

MIB = 1024 * 1024

STORE = """
INSERT INTO notifier.messages (slot, seq, company, position, at, body)
SELECT 0, n, 'c', n, now(), json_build_object('Title', repeat('x', 200000))
FROM generate_series(1, 50) AS n
"""
"""Fifty messages of 200 kB: ten million bytes, which compress to nearly nothing."""


@pytest.fixture
def hub(query: Query) -> Hub:
    return Hub(History(query), 24, FilterCatalogue(query))


@pytest.fixture
def stream(database: Database, query: Query, hub: Hub) -> PostgresStream:
    return PostgresStream(database.dsn, query, hub, History(query), Health())


@pytest.fixture
async def connection(database: Database) -> AsyncIterator[Connection]:
    connection = await connect(database.dsn, "node")
    yield connection
    connection.terminate()


async def test_a_page_for_a_client_that_resumes_is_bounded_in_bytes(
    database: Database, query: Query
) -> None:
    history = History(query)
    await database.execute(STORE)
    epoch, _ = await log_head(database)
    positions: list[int] = []
    while page := await history.page("c", len(positions), epoch):
        assert sum(len(message.body) for message in page) < 1.25 * MIB
        positions += [message.position for message in page]
    assert positions == list(range(1, 51))


async def test_a_node_that_catches_up_reads_pages_bounded_in_bytes(
    database: Database,
    stream: PostgresStream,
    hub: Hub,
    connection: Connection,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(streams, "PAGE_BYTES", MIB)
    await stream._catch_up(connection)
    await database.execute(STORE)
    pages: list[list[Message]] = []
    monkeypatch.setattr(hub, "deliver", pages.append)
    await stream._catch_up(connection)
    assert [message.seq for page in pages for message in page] == list(range(1, 51))
    assert all(sum(len(message.body) for message in page) < 1.25 * MIB for page in pages)


async def test_a_message_larger_than_a_page_is_a_page(
    database: Database,
    stream: PostgresStream,
    query: Query,
    hub: Hub,
    connection: Connection,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(streams, "PAGE_BYTES", 1000)
    monkeypatch.setattr(histories, "RECENT_BYTES", 1000)
    await stream._catch_up(connection)
    await database.execute(STORE)
    epoch, _ = await log_head(database)
    assert [message.position for message in await History(query).page("c", 3, epoch)] == [4]
    delivered: list[list[Message]] = []
    monkeypatch.setattr(hub, "deliver", delivered.append)
    await stream._catch_up(connection)
    assert len(delivered) == 50
