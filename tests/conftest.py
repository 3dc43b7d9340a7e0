"""Fixtures for all tests: a shared PostgreSQL server, a database per test, services and clients."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol
from uuid import uuid4

import hypothesis
import pytest

from notifier.demo.postgres import EmbeddedPostgres
from tests import databases
from tests.clients import Client, open_client
from tests.databases import Database
from tests.services import INTERPRETED, Service

# A shell makes background jobs, and their children, ignore SIGINT. The tests send it.
signal.signal(signal.SIGINT, signal.default_int_handler)

# A busy machine delays single examples at will. A test gets its settings when its file is imported, by whatever file.
hypothesis.settings.register_profile("any machine", deadline=None)
hypothesis.settings.load_profile("any machine")


class Serve(Protocol):
    def __call__(
        self,
        database: Database | str,
        *arguments: str,
        ready: bool = True,
        **settings: object,
    ) -> Awaitable[Service]: ...


class Connect(Protocol):
    def __call__(
        self,
        service: Service | str,
        user: str | None = None,
        company: str | None = None,
        after: int | None = None,
        epoch: str | None = None,
        **options: Any,
    ) -> Awaitable[Client]: ...


def pytest_report_header() -> str:
    return f"PostgreSQL: {databases.described()}"


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """The URL of the server that all tests of this process share."""
    with databases.running() as dsn:
        yield dsn


@pytest.fixture(scope="session")
def template(postgres: str) -> Iterator[str]:
    """The name of a migrated database without connections, to be copied."""
    name = asyncio.run(databases.make_template(postgres))
    yield name
    asyncio.run(Database(postgres, name).drop())


@pytest.fixture
async def make_database(
    postgres: str, template: str
) -> AsyncIterator[Callable[[], Awaitable[Database]]]:
    """Makes databases, for tests that need several."""
    made: list[Database] = []

    async def make() -> Database:
        database = Database(postgres, f"notifier_test_{uuid4().hex[:12]}")
        made.append(database)
        await database.create(template)
        return database

    yield make
    for database in made:
        await database.drop()


@pytest.fixture
async def database(make_database: Callable[[], Awaitable[Database]]) -> Database:
    """A migrated, empty database for this test alone."""
    return await make_database()


@pytest.fixture
async def empty(postgres: str) -> AsyncIterator[Database]:
    """A database in which nothing was done."""
    database = Database(postgres, f"notifier_test_{uuid4().hex[:12]}")
    await database.create("template1")
    yield database
    await database.drop()


@pytest.fixture(scope="session")
def stopped() -> Iterator[tuple[Path, str]]:
    """A stopped server with a migrated database, to be copied: its directory, the database's name."""
    with databases.directory() as data:
        with databases.embedded(data) as server:
            name = asyncio.run(databases.make_template(server.dsn()))
        yield data, name


@pytest.fixture
def mortal(stopped: tuple[Path, str]) -> Iterator[EmbeddedPostgres]:
    """A server for this test alone, which it may kill and start again."""
    with databases.directory(stopped[0]) as data, databases.embedded(data) as server:
        yield server


@pytest.fixture
async def mortal_database(
    mortal: EmbeddedPostgres, stopped: tuple[Path, str]
) -> AsyncIterator[Database]:
    """A migrated database on that server."""
    database = Database(mortal.dsn(), stopped[1])
    yield database
    database.leave()


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home directory without any file, and no PG* variable."""
    for name in os.environ:
        if name.startswith("PG"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


@pytest.fixture
def interpreter(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every process of Notifier is a new interpreter, for tests of the start itself."""
    monkeypatch.setenv(INTERPRETED, "1")


@pytest.fixture
async def serve(tmp_path: Path) -> AsyncIterator[Serve]:
    """Starts `notifier serve` on a database or its URL; each call starts another one.

    Positional arguments go to the command line, keywords are settings. With `ready=False` the call does
    not wait for readiness. The test fails if a log has a traceback.
    """
    services: list[Service] = []

    async def start(
        database: Database | str, *arguments: str, ready: bool = True, **settings: object
    ) -> Service:
        dsn = database.dsn if isinstance(database, Database) else database
        service = Service(tmp_path, dsn, arguments, settings)
        services.append(service)
        await service.start()
        if ready:
            await service.ready()
        return service

    yield start
    for service in services:
        await service.stop()
    logs: Sequence[str] = [service.log() for service in services]
    assert not any("Traceback" in log for log in logs), "\n".join(logs)


@pytest.fixture
async def connect() -> AsyncIterator[Connect]:
    """Opens clients; at the end, open ones are dropped without a closing handshake."""
    clients: list[Client] = []

    async def open_one(service: Service | str, *arguments: Any, **options: Any) -> Client:
        url = service.url if isinstance(service, Service) else service
        client = await open_client(url, *arguments, **options)
        clients.append(client)
        return client

    yield open_one
    for client in clients:
        await client.drop()
