"""Transactions that change the schema or the triggers: short waits for locks, and errors in one line."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager, suppress

import asyncpg

from notifier.database import sql, triggers
from notifier.database.connections import (
    FAILURES,
    QUALIFIED,
    Connection,
    connect,
    first_line,
    translate_error,
)
from notifier.database.constants import MIGRATION_LOCK
from notifier.errors import DatabaseError

LOCK_MILLISECONDS = 500
"""How long to wait for a lock on our own tables: shorter than any deadline of a node."""

ATTEMPTS, PAUSE_SECONDS = 5, 0.5
"""How often `migrate` and `uninstall` try to get locks on the application's tables, and how long they
let writers through in between."""

TRY_SECONDS = 0.1
"""How often `migrate` looks whether another one has ended."""

NAMED = 5
"""How many tables or schemas a line names before it only counts them."""

OF_ONE_TABLE = (asyncpg.DuplicateObjectError, asyncpg.InsufficientPrivilegeError)
"""Errors that concern one table, which has a trigger of the application's under the name of ours, or another owner: the others are watched."""

SETTINGS = {
    "default_transaction_deferrable": "off",
    "row_security": "off",
    "statement_timeout": "0",
    "synchronous_commit": "on",
    "idle_in_transaction_session_timeout": "60000",
}
"""Of a migration's session: building an index may take long."""

Report = Callable[[str], None]


def quiet(_: str) -> None:
    """Reports nothing."""


@asynccontextmanager
async def session(url: str) -> AsyncIterator[Connection]:
    """A connection for `migrate`. The driver's exceptions become a DatabaseError in one line.

    Names without a schema are PostgreSQL's own; only `catalogue` looks up the operator's by the role's search_path.
    """
    try:
        connection = await connect(url, "migrate", pinned=False, deadline=600, settings=SETTINGS)
    except FAILURES as error:
        raise translate(error, url) from error
    try:
        await connection.execute(QUALIFIED)
        await _require_own_role(connection)
        yield connection
    except FAILURES as error:
        raise translate(error, url) from error
    finally:
        connection.terminate()


async def _require_own_role(connection: Connection) -> None:
    """Raises DatabaseError where the database's owner has chosen the role of an administrator's session."""
    row = await connection.fetchrow(sql.query("foreign_session_role"))
    if row is not None:
        role, administrator = row["role"], row["administrator"]
        remedy = f"ALTER DATABASE {sql.identifier(row['database'])} RESET role"
        raise DatabaseError(
            f"the settings of the database make {administrator} act as {role}, whose code could return to the rights of"
            f" {administrator}: run {remedy}, or connect as {role}"
        )


@asynccontextmanager
async def exclusive(connection: Connection, *, commit: bool = True) -> AsyncIterator[None]:
    """A transaction that no other `migrate` or `uninstall` runs beside."""
    transaction = connection.transaction()
    await transaction.start()
    try:
        await _exclude_others(connection)
        await connection.execute(f"SET LOCAL lock_timeout = '{LOCK_MILLISECONDS}ms'")
        yield
    except BaseException:
        with suppress(*FAILURES):
            await transaction.rollback()
        raise
    await (transaction.commit() if commit else transaction.rollback())


async def _exclude_others(connection: Connection) -> None:
    """Waits for the end of another `migrate`; not for a role without rights on the schema that holds the lock."""
    key = sql.lock(MIGRATION_LOCK)
    while not await connection.fetchval("SELECT pg_try_advisory_xact_lock($1)", key):
        if not await connection.fetchval(sql.query("is_migrating"), key):
            break
        await asyncio.sleep(TRY_SECONDS)
    # With the advisory lock, too: another may run without it, where its holder had no rights, or released it just then.
    if await connection.fetchval(sql.query("may_lock_version")):
        await connection.execute(
            sql.adapt("LOCK TABLE notifier.version IN SHARE UPDATE EXCLUSIVE MODE")
        )


async def in_transaction(
    url: str,
    once: Callable[[Connection], Awaitable[list[str]]],
    report: Report,
    commit: bool = True,
) -> None:
    """Runs `once` in a transaction, again where an application holds a lock, and reports its lines."""
    for attempt in range(1, ATTEMPTS + 1):
        try:
            async with session(url) as connection, exclusive(connection, commit=commit):
                lines = await once(connection)
        except triggers.Locked:
            if attempt == ATTEMPTS:
                raise
        else:
            for line in lines:
                report(line)
            return
        await asyncio.sleep(PAUSE_SECONDS)


async def table_by_table(
    connection: Connection,
    relations: Iterable[str],
    change: Callable[[str], Awaitable[list[str]]],
    report: Report,
) -> None:
    """Runs `change` for each table in a transaction of its own, and reports its lines.

    A table that is locked is returned to when the others are done, ATTEMPTS times. One that was dropped meanwhile
    is passed over. Raises Locked where a table stays locked.
    """
    pending = list(relations)
    for attempt in range(1, ATTEMPTS + 1):
        locked: list[str] = []
        for relation in pending:
            try:
                async with exclusive(connection):
                    lines = await change(relation)
            except (triggers.Locked, asyncpg.LockNotAvailableError, asyncpg.DeadlockDetectedError):
                locked.append(relation)
                if attempt == 1:
                    report(f"table {relation} is locked by another transaction: it is tried again")
            except (asyncpg.UndefinedTableError, asyncpg.InvalidSchemaNameError):
                continue
            else:
                for line in lines:
                    report(line)
        if not (pending := locked):
            return
        if attempt < ATTEMPTS:
            await asyncio.sleep(PAUSE_SECONDS)
    raise triggers.Locked(
        f"table {summarize(pending)} is locked by another transaction; all others are done, try again"
    )


def summarize(names: Sequence[str]) -> str:
    """`a, b and c`; of many names the first ones and how many more there are."""
    if len(names) <= NAMED:
        return ", ".join(names)
    return f"{', '.join(names[:NAMED])} and {len(names) - NAMED} more"


def translate(error: BaseException, url: str) -> DatabaseError:
    """The error in one line."""
    if isinstance(error, DatabaseError):
        return error
    if isinstance(error, asyncpg.LockNotAvailableError):
        return triggers.Locked(
            f"the schema {sql.schema()} is in use by a long transaction; try again"
        )
    if isinstance(error, asyncpg.InsufficientPrivilegeError):
        return DatabaseError(f"this role may not do that: {first_line(error)}")
    if isinstance(error, asyncpg.DependentObjectsStillExistError):
        return DatabaseError(f"something else needs an object of ours: {error.detail}")
    if isinstance(error, asyncpg.PostgresError):
        return DatabaseError(first_line(error))
    return translate_error(error, url)
