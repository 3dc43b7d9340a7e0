"""The tests' PostgreSQL, and databases on it.

NOTIFIER_TEST_POSTGRES chooses the server: a major version (`18` is the wheel's; others are Debian's
or, where Debian has none, those that `make matrix` installs), `docker`, or `DSN=postgresql://…` of a
superuser. Unset: `docker` where an engine answers, else `18`.
"""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any, TypeAlias
from urllib.parse import urlsplit
from uuid import uuid4

import asyncpg

from notifier.database.constants import DOORBELL_LOCK
from notifier.database.schema import migrate
from notifier.demo.postgres import EmbeddedPostgres
from notifier.demo.programs import DEBIAN
from tests import scratch
from tests.ports import free_port
from tests.waiting import until

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"

VARIABLE = "NOTIFIER_TEST_POSTGRES"
WHEEL = "18"
FILE_COPY_SINCE = 15
"""Older versions know no other strategy, and no word for it."""
IMAGE = os.environ.get("NOTIFIER_TEST_IMAGE", "postgres:18")

ROOT = Path(__file__).parents[1]
OLDER = (
    (Path("/var/cache/notifier") if os.geteuid() == 0 else ROOT / ".venv")
    / "postgres-versions"
    / "node_modules"
)
"""Where `make matrix` installs PostgreSQL 14 to 17. Started by root, a server runs as another user,
who cannot enter root's home.
"""

OPTIONS = {
    "max_connections": "200",
    # Timestamps are sent in UTC, whatever the server's time zone.
    "timezone": "Asia/Kathmandu",
}

APP = """
DO $$ BEGIN
    CREATE ROLE app LOGIN PASSWORD 'app';
EXCEPTION WHEN duplicate_object OR unique_violation THEN
    NULL;
END $$;
GRANT SELECT, INSERT, UPDATE, DELETE, TRUNCATE ON companies, employees, events TO app;
REVOKE CREATE ON SCHEMA public FROM PUBLIC
"""
"""The role of an application. PUBLIC may not create in `public`, as is the default since PostgreSQL 15."""


@cache
def chosen() -> str:
    """The server that the tests run on: a major version, `docker` or `DSN=…`."""
    return os.environ.get(VARIABLE) or ("docker" if _docker_answers() else WHEEL)


def described() -> str:
    """The same, readable and without a password."""
    match chosen():
        case "docker":
            return f"{IMAGE} in a container"
        case given if given.startswith("DSN="):
            parts = urlsplit(given.removeprefix("DSN="))
            return f"{parts.hostname}:{parts.port or 5432}, given by {VARIABLE}"
        case version:
            return f"embedded, version {version}, from {programs() or 'the wheel'}"


def programs() -> Path | None:
    """The folder of the chosen version's programs; None: the wheel's, which `docker` uses as well."""
    if not chosen().isdigit() or chosen() == WHEEL:
        return None
    debian = DEBIAN / chosen() / "bin"
    return debian if debian.exists() else OLDER / f"postgres-{chosen()}" / "native" / "bin"


@contextmanager
def running() -> Iterator[str]:
    """The chosen server, while the block runs: the URL of its database `postgres`."""
    match chosen():
        case "docker":
            with _container() as dsn:
                yield dsn
        case given if given.startswith("DSN="):
            yield given.removeprefix("DSN=")
        case version if version.isdigit():
            with directory() as data, embedded(data) as server:
                yield server.dsn()
        case unknown:
            raise ValueError(f"{VARIABLE}={unknown}: a major version, `docker` or `DSN=…`")


@contextmanager
def directory(original: Path | None = None) -> Iterator[Path]:
    """A directory for an embedded server, removed at the end; `original` is a stopped server's."""
    with scratch.directory() as place:
        data = place / "data"
        if original is not None:
            subprocess.run(["cp", "--archive", "--reflink=auto", original, data], check=True)
        yield data


def embedded(data: Path) -> EmbeddedPostgres:
    """An embedded server of the chosen version, that may be killed and started again."""
    return EmbeddedPostgres(data, programs(), free_port(), OPTIONS, durable=False)


def strategy() -> str:
    """How a database is copied: by files, which is the fastest where nothing waits for a disk."""
    return "STRATEGY FILE_COPY" if chosen().isdigit() and int(chosen()) >= FILE_COPY_SINCE else ""


async def make_template(postgres: str) -> str:
    """Makes the database that the others are copied from, and returns its name."""
    name = f"notifier_template_{uuid4().hex[:8]}"
    await _command(postgres, f"CREATE DATABASE {name}")
    await migrate(with_database(postgres, name), calendar=True)
    await _command(with_database(postgres, name), APP)
    return name


RELAYED = """
SELECT target IS NULL AND NOT EXISTS (
    SELECT FROM notifier.changes
    WHERE pg_visible_in_snapshot(xid, $1::text::pg_snapshot)
      AND NOT pg_visible_in_snapshot(xid, coalesce(newest.cursor, log.cursor)::pg_snapshot)
)
FROM notifier.log
LEFT JOIN LATERAL (
    SELECT cursor FROM notifier.messages
    WHERE messages.seq > log.seq AND cursor IS NOT NULL ORDER BY seq DESC LIMIT 1
) AS newest ON true
"""
"""Whether the relay has read every change that snapshot $1 sees, and stored its messages."""

BLOCKED = """
SELECT count(DISTINCT l.pid) FROM pg_locks AS l JOIN pg_stat_activity AS a ON a.pid = l.pid
WHERE NOT l.granted AND l.database IS DISTINCT FROM 0
  AND a.datname = current_database() AND a.backend_type = 'client backend'
"""
"""How many connections to this database wait for a lock that is not the one of NOTIFY."""

OWN = """
DO $$ BEGIN
    IF to_regclass('notifier.log') IS NOT NULL THEN
        UPDATE notifier.log SET system = notifier.system(), saved_by = pg_current_xact_id();
    END IF;
END $$
"""
"""Gives a copy its own identity: otherwise the relay would begin a new epoch in it."""


class Database:
    """A database with the calendar and the schema `notifier`, for one test.

    `dsn` is the owner's URL, `app_dsn` that of the application's role, which may read and write
    the calendar and has no right on the schema `notifier`.
    """

    def __init__(self, postgres: str, name: str) -> None:
        self.name = name
        self.dsn = with_database(postgres, name)
        self.app_dsn = as_app(self.dsn)
        self._postgres = postgres
        self._own: Connection | None = None
        self._connections: list[Connection] = []

    async def create(self, template: str) -> None:
        await _command(
            self._postgres, f"CREATE DATABASE {self.name} TEMPLATE {template} {strategy()}"
        )
        await _command(self.dsn, OWN)

    def leave(self) -> None:
        """Terminates the test's connections."""
        for connection in self._connections:
            connection.terminate()

    async def drop(self) -> None:
        """Drops it, with all its connections."""
        self.leave()
        await _command(self._postgres, f"DROP DATABASE IF EXISTS {self.name} WITH (FORCE)")

    async def connect(self, app: bool = False) -> Connection:
        """Connects as the owner or as the application; the connection ends with the test."""
        connection = await asyncpg.connect(self.app_dsn if app else self.dsn)
        self._connections.append(connection)
        return connection

    async def execute(self, sql: str, *arguments: Any) -> str:
        """Runs statements as the owner, always on the same connection; returns the last command tag."""
        return await (await self._connection()).execute(sql, *arguments)

    async def fetch(self, sql: str, *arguments: Any) -> list[asyncpg.Record]:
        """The rows."""
        return await (await self._connection()).fetch(sql, *arguments)

    async def fetchval(self, sql: str, *arguments: Any) -> Any:
        """The first value of the first row."""
        return await (await self._connection()).fetchval(sql, *arguments)

    async def relayed(self) -> None:
        """Returns when the relay has stored the messages of everything committed before the call.

        For the set-up of a test: a client that subscribes afterwards begins behind them.
        """
        before = await self.fetchval("SELECT pg_current_snapshot()::text")

        async def stored() -> bool:
            return bool(await self.fetchval(RELAYED, before))

        await until(stored)

    async def doorbell_is_armed(self) -> bool:
        """Whether a sleeping relay, or one that is about to sleep, holds the doorbell lock."""
        return bool(
            await self.fetchval(
                "SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND granted"
                " AND mode = 'ExclusiveLock' AND (classid::bigint << 32) + objid::bigint = $1"
                " AND database = (SELECT oid FROM pg_database WHERE datname = current_database()))",
                DOORBELL_LOCK,
            )
        )

    async def blocked(self) -> None:
        """Returns when a connection to this database waits for a lock.

        Not for that of NOTIFY, which is of no database: for a moment each commit that notifies may wait for another one.
        """

        async def waits() -> bool:
            return bool(await self.fetchval(BLOCKED))

        await until(waits)

    def through(self, port: int, app: bool = False) -> str:
        """The URL through a proxy on this machine."""
        parts = urlsplit(self.app_dsn if app else self.dsn)
        user, _, _ = parts.netloc.rpartition("@")
        return parts._replace(netloc=f"{user}@127.0.0.1:{port}").geturl()

    @property
    def address(self) -> tuple[str, int]:
        """Host and port of its server, for a proxy."""
        parts = urlsplit(self.dsn)
        return parts.hostname or "127.0.0.1", parts.port or 5432

    async def _connection(self) -> Connection:
        if self._own is None or self._own.is_closed():
            self._own = await self.connect()
        return self._own


def with_database(dsn: str, name: str) -> str:
    """The same server's URL with another database."""
    return urlsplit(dsn)._replace(path=f"/{name}").geturl()


def as_app(dsn: str) -> str:
    """The same database's URL with the app's role."""
    parts = urlsplit(dsn)
    _, _, place = parts.netloc.rpartition("@")
    return parts._replace(netloc=f"app:app@{place}").geturl()


async def _command(dsn: str, statements: str) -> None:
    connection = await asyncpg.connect(dsn)
    try:
        await connection.execute(statements)
    finally:
        await connection.close()


def _docker_answers() -> bool:
    host = urlsplit(os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock"))
    family = socket.AF_UNIX if host.scheme == "unix" else socket.AF_INET
    with socket.socket(family) as knock, suppress(OSError):
        knock.settimeout(2)
        knock.connect(host.path if host.scheme == "unix" else (host.hostname, host.port))
        return True
    return False


@contextmanager
def _container() -> Iterator[str]:
    from testcontainers.community.postgres import (  # noqa: PLC0415 - only with a Docker engine
        PostgresContainer,
    )

    settings = {**OPTIONS, "fsync": "off", "full_page_writes": "off"}
    words = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
    container = PostgresContainer(
        IMAGE, username="postgres", password="postgres", dbname="postgres", driver=None
    ).with_command(["postgres", *words])
    with container:
        yield container.get_connection_url()
