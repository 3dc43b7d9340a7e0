"""One PostgreSQL server for all measurements; a new database for each.

Every database is a copy of one template, so that all variants store the same rows in the same pages.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeAlias

import asyncpg

from bench import machine
from bench.programs import BenchError, output
from notifier.demo.postgres import EmbeddedPostgres
from notifier.demo.programs import binaries

Connection: TypeAlias = "asyncpg.Connection[Any]"

SQL = Path(__file__).parent / "sql"
OPTIONS = {
    "shared_buffers": "512MB",
    "max_connections": "300",
    "shared_preload_libraries": "pg_stat_statements",
    "pg_stat_statements.track": "none",  # until a measurement turns it on for its database
}
TEMPLATE = "template_calendar"


def uuid(number: int) -> str:
    """The id of the n-th company or event of the sample."""
    text = f"{number:032x}"
    return "-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:]))


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[Connection]:
    connection: Connection = await asyncpg.connect(url)
    try:
        yield connection
    finally:
        await connection.close(timeout=5)


class Cluster:
    """A running server with its databases."""

    def __init__(self, server: EmbeddedPostgres) -> None:
        self._server = server

    @property
    def pid(self) -> int:
        return self._server.pid

    def url(self, database: str) -> str:
        return self._server.dsn(database)

    async def execute(self, statement: str, database: str = "postgres") -> None:
        """One statement, or several without parameters, outside of a transaction block."""
        async with connected(self.url(database)) as connection:
            await connection.execute(statement)

    @asynccontextmanager
    async def copy(self, name: str, template: str = TEMPLATE) -> AsyncIterator[str]:
        """A copy of the template, dropped after the block; yields its URL."""
        await self.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
        await self.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
        try:
            yield self.url(name)
        finally:
            await self.execute(f"DROP DATABASE {name} WITH (FORCE)")

    @asynccontextmanager
    async def notifying(self) -> AsyncIterator[str]:
        """A copy whose trigger sends each row by NOTIFY; yields its URL."""
        async with self.copy("notifying") as url:
            await self.execute((SQL / "notify_row.sql").read_text(), "notifying")
            yield url

    def cpu_seconds(self) -> float:
        """CPU seconds of the server and all its backends, including those that have exited."""
        return machine.cpu_seconds(self.pid, ended=True)

    async def version(self) -> str:
        async with connected(self.url("postgres")) as connection:
            return str(await connection.fetchval("SHOW server_version"))

    async def pgbench(self, url: str, clients: int, seconds: float) -> float:
        """Transactions a second of single-row updates over the sample's 10,000 events."""
        program = binaries() / "pgbench"
        if not program.exists():
            raise BenchError(f"no pgbench in {program.parent}")
        await self.execute("CHECKPOINT")
        report = await output(
            *(program, "-n", "-M", "prepared", "-c", str(clients), "-j", str(min(clients, 2))),
            *("-T", f"{seconds:.0f}", "-f", SQL / "update.pgbench", url),
            seconds=seconds + 20,
        )
        for line in report.splitlines():
            if line.startswith("tps = "):
                return float(line.split()[2])
        raise BenchError("pgbench printed no tps")


@asynccontextmanager
async def started(directory: Path) -> AsyncIterator[Cluster]:
    """A server that runs while the block runs; fsync is on, because the guarantees depend on it."""
    with EmbeddedPostgres(directory, options=OPTIONS) as server:
        yield Cluster(server)
