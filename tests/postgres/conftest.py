"""A relay, an application that writes, and nodes that follow a log written by the test."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

import pytest

from notifier.database.query import Query
from notifier.delivery import postgres_stream as streams
from tests.databases import Connection, Database
from tests.postgres.relays import MakeRelay, Relayed, new_company
from tests.postgres.streams import Log, Node


@pytest.fixture
async def make_relay(database: Database) -> AsyncIterator[MakeRelay]:
    """Makes relays with settings of their own, not started."""
    made: list[Relayed] = []

    def make(**settings: object) -> Relayed:
        made.append(Relayed(database, **settings))
        return made[-1]

    yield make
    for relay in made:
        await relay.stop()


@pytest.fixture
async def relay(make_relay: MakeRelay) -> Relayed:
    """A relay that leads from the start of the test."""
    relay = make_relay()
    await relay.start()
    return relay


@pytest.fixture
async def app(database: Database) -> Connection:
    """A connection of the application's role, which has no right on the schema `notifier`."""
    return await database.connect(app=True)


@pytest.fixture
async def company(app: Connection) -> str:
    """A company that the application has inserted."""
    return await new_company(app)


@pytest.fixture
async def query(database: Database) -> AsyncIterator[Query]:
    """A connection for single queries, as a node has one."""
    query = Query(database.dsn, "test", pooled=False)
    yield query
    query.close()


@pytest.fixture
def log(database: Database) -> Log:
    return Log(database)


@pytest.fixture
async def make_node(database: Database) -> AsyncIterator[Callable[..., Node]]:
    made: list[Node] = []

    def make(url: str = database.dsn, query_url: str | None = None) -> Node:
        made.append(Node(url, query_url or url))
        return made[-1]

    yield make
    for node in made:
        await node.stop()


@pytest.fixture
def node(make_node: Callable[..., Node], monkeypatch: pytest.MonkeyPatch) -> Node:
    """A node that reads the log when it is notified, and otherwise once a minute."""
    monkeypatch.setattr(streams, "PROBE_SECONDS", 60.0)
    return make_node()
