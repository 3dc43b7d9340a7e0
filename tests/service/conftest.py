"""One `notifier serve` for all tests that leave it as they found it; each has companies of its own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from notifier.server import raise_file_limit
from tests.databases import Database
from tests.natsd import NatsServer
from tests.service.calendars import Calendar
from tests.service.crowd import Crowd, Member
from tests.service.raw import Raw
from tests.services import Service


@pytest.fixture(scope="session")
def node(
    postgres: str, template: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Service, str]]:
    """A service and the name of its database."""
    database = Database(postgres, f"notifier_test_{uuid4().hex[:12]}")
    service = Service(tmp_path_factory.mktemp("node"), database.dsn, (), {})
    with asyncio.Runner() as runner:
        runner.run(database.create(template))
        runner.run(service.start())
        runner.run(service.ready())
        yield service, database.name
        runner.run(service.stop())
        runner.run(database.drop())


@pytest.fixture
async def service(node: tuple[Service, str]) -> AsyncIterator[Service]:
    """The common service: what a test does to it, it survives without a traceback."""
    service, _ = node
    before = len(service.log())
    yield service
    logged = service.log()[before:]
    assert "Traceback" not in logged, logged
    assert (await service.get("/livez")).is_success, logged


@pytest.fixture
async def calendar(postgres: str, node: tuple[Service, str]) -> AsyncIterator[Calendar]:
    """The calendar that the common service watches."""
    database = Database(postgres, node[1])
    yield Calendar(database)
    database.leave()


@pytest.fixture
async def nats(tmp_path: Path) -> AsyncIterator[NatsServer]:
    """A NATS server, which the test may kill and start again."""
    server = NatsServer(tmp_path)
    await server.start()
    yield server
    await server.stop()


@pytest.fixture(scope="session", autouse=True)
def files() -> None:
    """Thousands of clients in one process need as many files as they may have."""
    raise_file_limit()


@pytest.fixture
async def raw() -> AsyncIterator[Raw]:
    """Opens sockets that send what they like."""
    raw = Raw()
    yield raw
    await raw.drop()


@pytest.fixture
def crowd() -> Iterator[Crowd]:
    """Makes members; those that are connected at the end are dropped."""
    made: list[Member] = []

    def make(count: int, user: str, company: str) -> list[Member]:
        members = [Member(user, company) for _ in range(count)]
        made.extend(members)
        return members

    yield make
    for member in made:
        member.drop()
