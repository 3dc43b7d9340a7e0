"""Databases with the notifier's schema. All functions block, and may be called where a loop runs."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Coroutine, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import urlsplit

from notifier.database import schema, sql
from notifier.database.connections import connected
from notifier.settings import Settings, load

SECRET = secrets.token_hex(32)
"""Signs the tokens of this run of the tests, unless the settings have another secret."""


def create(server: str, name: str, template: str = "template1") -> None:
    """Creates a database."""
    run(execute(server, f"CREATE DATABASE {name} TEMPLATE {template}"))


def copy(server: str, name: str, template: str) -> None:
    """Creates a database as a copy of one that `prepare` has made.

    Its log is marked as its own: otherwise the relay would begin an epoch in it, and clients that are there by then would
    get a Resync.
    """
    create(server, name, template)
    own = sql.adapt(
        "UPDATE notifier.log SET system = notifier.system(), saved_by = pg_current_xact_id()"
    )
    run(execute(url(server, name), own))


def drop(server: str, name: str) -> None:
    """Drops a database with all its connections."""
    run(execute(server, f"DROP DATABASE IF EXISTS {name} WITH (FORCE)"))


def prepare(
    database: str, tables: str | Callable[[str], object] | None, given: Mapping[str, Any]
) -> None:
    """Makes the application's tables, and does what `notifier migrate` does."""
    if callable(tables):
        tables(database)
    elif tables is not None:
        run(execute(database, tables))
    settings = settings_for(database, given)
    run(
        schema.migrate(
            database,
            calendar=tables is None,
            watches=settings.given_watches,
            naive_timestamps=settings.naive_timestamps,
            membership_query=settings.membership_query,
            max_log_bytes=settings.max_log_bytes,
            report=lambda _: None,
        )
    )


def settings_for(database: str, given: Mapping[str, Any]) -> Settings:
    """The settings of a node on this database. Raises SettingsError."""
    fixed = {"jwt_secret": SECRET, "drain_seconds": 0, **given}
    return load({}, **fixed, database_url=database, listen_database_url=database)


def url(server: str, name: str) -> str:
    """The URL of another database of a server."""
    return urlsplit(server)._replace(path=f"/{name}").geturl()


async def execute(database: str, statements: str) -> None:
    async with connected(database, "testing", pinned=False) as connection:
        await connection.execute(statements)


def run(work: Coroutine[Any, Any, None]) -> None:
    """Runs a coroutine in a thread of its own: an event loop may be running in this one."""
    with ThreadPoolExecutor(1) as thread:
        thread.submit(asyncio.run, work).result()
