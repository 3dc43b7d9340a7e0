"""What the other tests stand on: each has a database of its own, and an app with few rights."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import asyncpg
import pytest

from notifier.demo.postgres import EmbeddedPostgres
from tests.databases import Database


async def test_a_database_is_migrated_and_empty(database: Database) -> None:
    assert await database.fetchval("SELECT count(*) FROM companies") == 0
    assert await database.fetchval("SELECT count(*) FROM notifier.changes") == 0
    assert await database.fetchval("SHOW max_prepared_transactions") == "0"


async def test_databases_know_nothing_of_each_other(
    make_database: Callable[[], Awaitable[Database]],
) -> None:
    one, other = await make_database(), await make_database()
    await one.execute("INSERT INTO companies (name) VALUES ('one')")
    assert await other.fetch("SELECT name FROM companies") == []


async def test_an_app_writes_the_calendar(database: Database) -> None:
    app = await database.connect(app=True)
    assert await app.fetchval("SELECT current_user") == "app"
    company = await app.fetchval("INSERT INTO companies (name) VALUES ('Acme') RETURNING id")
    await app.execute("UPDATE companies SET name = 'Acme Ltd' WHERE id = $1", company)
    await app.execute("TRUNCATE companies CASCADE")


async def test_an_app_has_no_right_on_our_schema(database: Database) -> None:
    app = await database.connect(app=True)
    for statement in (
        "SELECT * FROM notifier.changes",
        "INSERT INTO notifier.changes DEFAULT VALUES",
        "SELECT * FROM notifier.messages",
    ):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await app.execute(statement)


async def test_a_mortal_database_survives_its_server(
    mortal: EmbeddedPostgres, mortal_database: Database
) -> None:
    await mortal_database.execute("INSERT INTO companies (name) VALUES ('Acme')")
    mortal.kill()
    with pytest.raises((OSError, asyncpg.PostgresError, asyncpg.InterfaceError)):
        await mortal_database.fetch("SELECT name FROM companies")
    mortal.start()
    assert await mortal_database.fetchval("SELECT name FROM companies") == "Acme"
