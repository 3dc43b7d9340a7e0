"""Brings a database to what this version needs, and takes every trace out of it again."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

import asyncpg
import msgspec
from alembic import command, op
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection as SyncConnection
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import StaticPool
from sqlalchemy.util import await_only

from notifier.database import calendar, catalogue, functions, grants, sql, triggers, views
from notifier.database.connections import (
    FAILURES,
    Connection,
    connect,
    first_line,
    translate_error,
)
from notifier.database.constants import MIGRATION_LOCK
from notifier.errors import DatabaseError, SettingsError
from notifier.watches import CALENDAR, Watch

OLDEST = 14
"""The oldest major version of PostgreSQL that is supported."""

LOCK_MILLISECONDS = 500
"""How long to wait for a lock on our own tables: not so long that nodes notice."""

ATTEMPTS, PAUSE_SECONDS = 5, 0.5
"""How often `migrate` and `uninstall` try to get locks on the application's tables, and how long they
let writers through in between."""

SETTINGS = {
    "row_security": "off",
    "statement_timeout": "0",
    "idle_in_transaction_session_timeout": "60000",
}
"""Of a migration's session: building an index may take long."""

Report = Callable[[str], None]
T = TypeVar("T")


def _quiet(_: str) -> None:
    return None


async def migrate(
    url: str,
    *,
    calendar: bool = False,
    watches: Sequence[Watch] = CALENDAR,
    max_log_bytes: int = 1024**3,
    dry_run: bool = False,
    grant: str | None = None,
    report: Report = _quiet,
) -> None:
    """Creates or upgrades the schema `notifier` and the triggers; with `calendar` its three tables.

    Does nothing where all is as it should be. `grant` names a role that may then run `serve`.
    With `dry_run` everything is rolled back after it was reported. Raises DatabaseError and
    SettingsError, in one line.
    """

    async def once(connection: Connection) -> list[str]:
        migration = _Migration(connection)
        await migration.run(calendar, watches, max_log_bytes, grant)
        if dry_run:
            migration.lines.append("nothing was changed: this was a dry run")
        return migration.lines

    await _in_transaction(url, once, report, commit=not dry_run)


async def uninstall(url: str, report: Report = _quiet) -> None:
    """Drops the triggers and the schema `notifier`; never an object that `migrate` did not make."""

    await _in_transaction(url, _remove, report)


def newest() -> str:
    """The schema's version that this code needs."""
    head = ScriptDirectory.from_config(_config()).get_current_head()
    assert head is not None
    return head


async def downgrade(url: str, revision: str) -> None:
    """Goes back to an older version of the schema; for tests and for those who must."""

    def back(connection: SyncConnection) -> None:
        config = _config()
        config.attributes["connection"] = connection
        command.downgrade(config, revision)

    async def once(connection: Connection) -> list[str]:
        await _with_sqlalchemy(connection, back)
        return []

    await _in_transaction(url, once, _quiet)


def run(script: str) -> None:
    """Runs a script of any number of statements in the migration's transaction."""
    adapted = op.get_bind().connection.dbapi_connection
    assert adapted is not None
    await_only(adapted.driver_connection.execute(script))


class _Migration:
    """One attempt of `migrate`, in a transaction. `lines`: what was done."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._locks = triggers.Locks(connection)
        self._fresh = False
        self.lines: list[str] = []

    async def run(
        self, with_calendar: bool, watches: Sequence[Watch], max_log_bytes: int, grant: str | None
    ) -> None:
        connection = self._connection
        if (version := connection.get_server_version().major) < OLDEST:
            raise DatabaseError(f"PostgreSQL {OLDEST} or newer is needed, this is {version}")
        if with_calendar:
            created = await _with_sqlalchemy(connection, calendar.create)
            self.lines += [f"table {table}: created" for table in created]
        relations = await _resolve(connection, watches)
        # From here on names without a schema are PostgreSQL's own.
        await connection.execute("SET LOCAL search_path = pg_catalog, pg_temp")
        await self._upgrade()
        await self._configure(watches, relations, max_log_bytes)
        changed = await functions.differences(connection)
        await functions.create(connection, changed)
        await functions.create(connection, await functions.outdated(connection))
        for view in await views.differences(connection):
            await views.create(connection, view)
            self._note(f"view {view}: replaced")
        for each in changed:
            self._note(f"function {each.wanted or each.present}: {each.remedy}")
        if grant is not None:
            await grants.allow(connection, grant)
        await grants.synchronize(connection)
        revoked = await grants.revoke_foreign(connection)
        for line in revoked:
            self._note(line)
        if grant is not None:
            self.lines.append(f"role {grant}: may serve")
        # Last, because from here on writers wait.
        found = await triggers.differences(connection)
        former = [each for each in changed if each.wanted is None]
        if former:
            await self._locks.exclude_writers()
        self.lines += await triggers.synchronize(connection, self._locks, found)
        await functions.drop(connection, former)
        if int(await connection.fetchval("SHOW max_prepared_transactions")) > 0:
            self.lines.append(
                "warning: max_prepared_transactions is not 0; an application that uses PREPARE"
                " TRANSACTION on a watched table needs NOTIFIER_DOORBELL=off"
            )

    def _note(self, line: str) -> None:
        """A line about one object; not where all of them are new."""
        if not self._fresh:
            self.lines.append(line)

    async def _upgrade(self) -> None:
        """Alembic's part: the tables."""
        connection = self._connection
        if not await connection.fetchval("SELECT to_regnamespace('notifier') IS NOT NULL"):
            await connection.execute("CREATE SCHEMA notifier")
        before, known = await _with_sqlalchemy(connection, _revisions)
        if before is not None and before not in known:
            raise DatabaseError(f"the schema is of a newer version ({before}) than this program")
        self._fresh = before is None
        if before == newest():
            return
        if before is not None:
            await self._locks.exclude_writers()
        await _with_sqlalchemy(connection, _upgrade)
        if self._fresh:  # no role was allowed anything yet, whatever default privileges gave
            await connection.execute("DELETE FROM notifier.grants")
        self.lines.append(f"schema notifier: {before or 'none'} → {newest()}")

    async def _configure(
        self, watches: Sequence[Watch], relations: Sequence[str], max_log_bytes: int
    ) -> None:
        connection = self._connection
        status = await connection.execute(
            "UPDATE notifier.configuration SET max_log_bytes = $1 WHERE max_log_bytes <> $1",
            max_log_bytes,
        )
        if status != "UPDATE 0":
            self.lines.append(f"max_log_bytes: {max_log_bytes}")
        wanted = [
            {"relation": relation, **watch.to_row()}
            for watch, relation in zip(watches, relations, strict=True)
        ]
        await connection.execute("DELETE FROM notifier.watches")
        await connection.execute(sql.query("save_watches"), msgspec.json.encode(wanted).decode())


async def _resolve(connection: Connection, watches: Sequence[Watch]) -> list[str]:
    """The tables' full names. Raises SettingsError where a table cannot be watched as wanted."""
    tables = await catalogue.describe(connection, [watch.table for watch in watches])
    relations = []
    for watch, table in zip(watches, tables, strict=True):
        if table is None or table.relation is None:
            near = await catalogue.similar(connection, watch.table)
            raise SettingsError(
                f"no table {watch.table} to watch{near or '; create it,'}"
                f"{'' if near else ' or run: notifier migrate --calendar'}"
            )
        relations.append(table.relation)
    for watch, table in zip(watches, tables, strict=True):
        assert table is not None
        if found := catalogue.problems(watch, table, relations):
            raise SettingsError(found[0])
    return relations


async def _remove(connection: Connection) -> list[str]:
    locks = triggers.Locks(connection)
    lines = []
    if await connection.fetchval("SELECT to_regclass('notifier.grants') IS NOT NULL"):
        await grants.revoke(connection)
    lines += await triggers.drop_all(connection, locks)
    if await connection.fetchval("SELECT to_regnamespace('notifier') IS NULL"):
        return [*lines, "schema notifier: was not there"]
    await connection.execute("DROP SCHEMA notifier CASCADE")
    return [*lines, "schema notifier: dropped"]


async def _in_transaction(
    url: str,
    once: Callable[[Connection], Awaitable[list[str]]],
    report: Report,
    commit: bool = True,
) -> None:
    """Runs `once` in a transaction, again where an application holds a lock, and reports its lines.

    The driver's exceptions become a DatabaseError in one line.
    """
    for attempt in range(1, ATTEMPTS + 1):
        connection = await connect(url, "migrate", pinned=False, deadline=600, settings=SETTINGS)
        try:
            transaction = connection.transaction()
            await transaction.start()
            await connection.execute("SELECT pg_advisory_xact_lock($1)", MIGRATION_LOCK)
            await connection.execute(f"SET LOCAL lock_timeout = '{LOCK_MILLISECONDS}ms'")
            lines = await once(connection)
            await (transaction.commit() if commit else transaction.rollback())
        except triggers.Locked:
            if attempt == ATTEMPTS:
                raise
        except DBAPIError as error:
            cause = error.orig.__cause__ if error.orig is not None else None
            raise _translate(cause or error, url) from error
        except FAILURES as error:
            raise _translate(error, url) from error
        else:
            for line in lines:
                report(line)
            return
        finally:
            connection.terminate()
        await asyncio.sleep(PAUSE_SECONDS)


def _translate(error: BaseException, url: str) -> DatabaseError:
    if isinstance(error, asyncpg.LockNotAvailableError):
        return DatabaseError("the schema notifier is in use by a long transaction; try again")
    if isinstance(error, asyncpg.InsufficientPrivilegeError):
        return DatabaseError(f"this role may not do that: {first_line(error)}")
    if isinstance(error, asyncpg.PostgresError):
        return DatabaseError(first_line(error))
    return translate_error(error, url)


async def _with_sqlalchemy(connection: Connection, work: Callable[[SyncConnection], T]) -> T:
    """Does work that needs SQLAlchemy on this connection, in a savepoint of its transaction."""

    async def opened() -> Connection:
        return connection

    engine = create_async_engine(
        "postgresql+asyncpg://", async_creator=opened, poolclass=StaticPool
    )
    async with engine.connect() as adapted:
        result = await adapted.run_sync(work)
        await adapted.commit()
        return result


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(sql.folder("migrations")))
    config.set_main_option("path_separator", "os")
    return config


def _revisions(connection: SyncConnection) -> tuple[str | None, set[str]]:
    """The database's revision, and those that this version knows."""
    context = MigrationContext.configure(
        connection, opts={"version_table": "version", "version_table_schema": "notifier"}
    )
    scripts = ScriptDirectory.from_config(_config()).walk_revisions()
    return context.get_current_revision(), {script.revision for script in scripts}


def _upgrade(connection: SyncConnection) -> None:
    config = _config()
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
