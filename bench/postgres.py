"""One PostgreSQL for the whole bench; a fresh database for each measurement.

Every database is a copy of one template, so that all variants hold the same rows in the same places.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeAlias

import asyncpg

from bench import machine
from bench.programs import BenchError, output
from notifier.demo.postgres import EmbeddedPostgres, binaries

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
        """A database like the template for as long as the block lasts; its URL."""
        await self.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
        await self.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
        try:
            yield self.url(name)
        finally:
            await self.execute(f"DROP DATABASE {name} WITH (FORCE)")

    @asynccontextmanager
    async def notifying(self) -> AsyncIterator[str]:
        """A copy whose trigger says each row in a NOTIFY; its URL."""
        async with self.copy("notifying") as url:
            await self.execute((SQL / "notify_row.sql").read_text(), "notifying")
            yield url

    def cpu_seconds(self) -> float:
        """What the server and all its backends have used, also those that are gone."""
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
        said = await output(
            *(program, "-n", "-M", "prepared", "-c", str(clients), "-j", str(min(clients, 2))),
            *("-T", f"{seconds:.0f}", "-f", SQL / "update.pgbench", url),
            seconds=seconds + 20,
        )
        for line in said.splitlines():
            if line.startswith("tps = "):
                return float(line.split()[2])
        raise BenchError("pgbench printed no tps")


@asynccontextmanager
async def started(directory: Path) -> AsyncIterator[Cluster]:
    """The server for as long as the block lasts; fsync is on, as the promises need it."""
    with EmbeddedPostgres(directory, options=OPTIONS) as server:
        yield Cluster(server)
