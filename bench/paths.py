"""W4: the cost of a path of two steps to a row, beside that of a column that names the company."""

from __future__ import annotations

from bench import machine
from bench.postgres import connected
from bench.stand import Stand
from notifier.database.schema import migrate
from notifier.watches import CALENDAR, Watch

ROWS = 20_000
TABLES = """
DROP TABLE IF EXISTS direct, leaves, branches, trunks;
CREATE TABLE trunks (id int PRIMARY KEY, company uuid NOT NULL);
CREATE TABLE branches (id int PRIMARY KEY, trunk int NOT NULL REFERENCES trunks, title text);
CREATE TABLE leaves (id int PRIMARY KEY, branch int NOT NULL REFERENCES branches, company uuid NOT NULL, title text);
CREATE TABLE direct (LIKE leaves INCLUDING ALL);
INSERT INTO trunks SELECT n, md5(n::text)::uuid FROM generate_series(1, 100) AS n;
INSERT INTO branches SELECT n, 1 + n % 100, 'branch' FROM generate_series(1, 1000) AS n;
INSERT INTO leaves SELECT n, 1 + n % 1000, md5((1 + n % 100)::text)::uuid, 'leaf' FROM generate_series(1, 20000) AS n;
INSERT INTO direct SELECT * FROM leaves;
ANALYZE trunks; ANALYZE branches; ANALYZE leaves; ANALYZE direct
"""
WATCHES = (
    Watch(table="direct", entity="Direct", company="company"),
    Watch(table="leaves", entity="Leaf", company="branch -> branches.trunk -> trunks.company"),
)


async def measure(stand: Stand, _names: frozenset[str]) -> None:
    """CPU of the writer's backend, without a relay, for updates of many rows in a statement, and of one each."""
    async with stand.cluster.copy("paths") as url:
        await stand.cluster.execute(TABLES, "paths")
        await migrate(url, watches=[*CALENDAR, *WATCHES])
        for number in stand.rounds(5):
            watch = stand.watch()
            many = {table: await _bulk(url, table, number) for table in ("direct", "leaves")}
            one = {table: await _single(url, table, number) for table in ("direct", "leaves")}
            stand.table.add(
                "W4",
                many["leaves"] - many["direct"],
                watch.noise(),
                bulk_path_µs=many["leaves"],
                bulk_column_µs=many["direct"],
                single_path_µs=one["leaves"],
                single_column_µs=one["direct"],
            )


async def _bulk(url: str, table: str, number: int) -> float:
    """CPU per row. Every row is changed in every round: an unchanged one costs less."""
    async with connected(url) as connection:
        await connection.execute("TRUNCATE notifier.changes_0, notifier.changes_1")
        await connection.execute(f"VACUUM {table}")
        await connection.execute(f"UPDATE {table} SET title = 'warm' WHERE id < 100")
        backend = connection.get_server_pid()
        began = machine.cpu_seconds(backend)
        await connection.execute(f"UPDATE {table} SET title = 'leaf {number} ' || id")
        return (machine.cpu_seconds(backend) - began) / ROWS * 1e6


async def _single(url: str, table: str, number: int) -> float:
    rows = ROWS // 4
    async with connected(url) as connection:
        await connection.execute("SET synchronous_commit = off")
        await connection.execute("TRUNCATE notifier.changes_0, notifier.changes_1")
        await connection.execute(f"VACUUM {table}")
        update = await connection.prepare(
            f"UPDATE {table} SET title = 'one {number} ' || $1 WHERE id = $1::int"
        )
        backend = connection.get_server_pid()
        began = machine.cpu_seconds(backend)
        for row in range(rows):
            await update.fetch(row)
        return (machine.cpu_seconds(backend) - began) / rows * 1e6
