"""Short queries on a connection of their own, with a deadline and one retry."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeAlias, TypeVar

import asyncpg

from notifier.cancellation import raise_if_cancelled
from notifier.database.answers import expected
from notifier.database.connections import (
    DEADLINE_SECONDS,
    PIN,
    VALUE_ERRORS,
    Connection,
    connect,
    first_line,
    is_failure,
    role_path,
    server_of,
    translate_error,
)
from notifier.database.primary import POOLER_APART, STANDBY, Followed, elsewhere
from notifier.errors import Apart, DatabaseError, Misplaced, UnexpectedAnswer, Unreachable

Prepare = Callable[[Connection, str], Awaitable[None]]
Record: TypeAlias = asyncpg.Record
T = TypeVar("T")

RETAINED = (*VALUE_ERRORS, asyncpg.LockNotAvailableError, asyncpg.SyntaxOrAccessError)
"""Errors after which `fetch_read_only` has restored the connection."""

_CHANGED = "code of the application has prepared statements in the service's session"

_BEGIN = "BEGIN ISOLATION LEVEL READ COMMITTED, READ ONLY, NOT DEFERRABLE"

_WRITABLE = "SET TRANSACTION READ WRITE"
"""Through a pooler the role or the database decides otherwise whether a transaction may write, and how it is isolated."""

REMAINS = (
    "SELECT pg_catalog.pg_advisory_unlock_all()::pg_catalog.text UNION ALL"
    " SELECT s.name FROM pg_catalog.pg_prepared_statement() AS s WHERE s.from_sql"
)
"""Releases advisory locks, and returns one row more than there are statements that SQL has prepared. The driver prepares
its own by the protocol."""


class Query:
    """Short queries on a connection of its own, one at a time, with a deadline.

    `pinned`: names without a schema are PostgreSQL's own; an operator's query needs the role's path.
    `followed`: the server to which its connection must lead.
    `read_only`: each query has a transaction of its own that cannot write and is rolled back. For tables of
    the application: PostgreSQL's planner evaluates code in their indexes as the role of the query.
    """

    def __init__(
        self,
        url: str,
        name: str,
        *,
        pooled: bool,
        pinned: bool = True,
        read_only: bool = False,
        followed: Followed | None = None,
    ) -> None:
        self.url = url
        self._followed = followed
        self._name = name
        self._pooled = pooled
        self._pinned = pinned
        self._read_only = read_only
        self._busy = asyncio.Lock()
        self._connection: Connection | None = None
        self._is_ended = False
        self.queries = 0

    def for_operator(self) -> Query:
        """For an operator query, on another connection: with the role's path, and read-only."""
        query = Query(
            self.url,
            self._name,
            pooled=self._pooled,
            pinned=False,
            read_only=True,
            followed=self._followed,
        )
        if self._is_ended:
            query.end()
        return query

    async def fetch(
        self,
        query: str,
        *arguments: Any,
        prepare: Prepare | None = None,
        lock_milliseconds: int | None = None,
        restoring: bool = True,
        may_refuse: bool = False,
    ) -> list[asyncpg.Record]:
        """All rows. `prepare` is called once on each new connection. `lock_milliseconds`: how long
        the query waits for a lock, where the connection is `read_only`. `restoring`: as `fetch_read_only` has it.
        `may_refuse`: PostgreSQL may refuse the arguments, for which the caller catches VALUE_ERRORS.

        Raises DatabaseError, after which the next call opens a new connection, or one of VALUE_ERRORS.
        """
        async with self._busy:
            reused = self._connection is not None and not self._connection.is_closed()
            try:
                return await self._fetch(query, arguments, prepare, lock_milliseconds, restoring)
            except asyncpg.LockNotAvailableError as error:  # the connection is sound
                raise DatabaseError(first_line(error)) from error
            except BaseException as error:
                self._close_after(error, may_refuse=may_refuse)
                if not reused or isinstance(error, TimeoutError):
                    raise translate_error(error, self.url) from error
            # The connection may have been dead for a long time: retry once, on a new one.
            try:
                return await self._fetch(query, arguments, prepare, lock_milliseconds, restoring)
            except BaseException as error:
                self._close_after(error, may_refuse=may_refuse)
                raise translate_error(error, self.url) from error

    def _close_after(self, error: BaseException, *, may_refuse: bool) -> None:
        """Closes the connection after a failure. Raises the error where it is none: that of a refusal leaves it sound.

        Raises CancelledError where the failure came after it: the caller must end, not try again.
        """
        if may_refuse and isinstance(error, VALUE_ERRORS):
            raise error
        self.close()
        if not is_failure(error):
            raise error
        raise_if_cancelled()

    async def read(
        self,
        convert: Callable[[list[asyncpg.Record]], T],
        query: str,
        *arguments: Any,
        **options: Any,
    ) -> T:
        """What `convert` makes of the rows of `fetch`, which has the `options`. Raises UnexpectedAnswer where it cannot use them."""
        rows = await self.fetch(query, *arguments, **options)
        try:
            with expected():
                return convert(rows)
        except UnexpectedAnswer:
            self.close()
            raise

    async def _fetch(
        self,
        query: str,
        arguments: tuple[Any, ...],
        prepare: Prepare | None,
        lock_milliseconds: int | None,
        restoring: bool,
    ) -> list[asyncpg.Record]:
        connection, followed, pooled = self._connection, self._followed, self._pooled
        if connection is None or connection.is_closed() or not self._is_followed(connection):
            self.close()
            self._require_not_ended()
            connection = self._connection = await connect(
                self.url, self._name, pooled=self._pooled, pinned=self._pinned
            )
            self._require_not_ended()
            if prepare is not None:
                try:
                    async with parsing(
                        connection, pooled=pooled, pinned=self._pinned, followed=followed
                    ):
                        await prepare(connection, query)
                except BaseException:
                    self.close()  # not prepared: the next call would take it for one that is
                    raise
        if followed is not None and not pooled:
            followed.require(server_of(connection))
        self.queries += 1
        if self._read_only:
            async with asyncio.timeout(DEADLINE_SECONDS):
                return await fetch_read_only(
                    connection,
                    query,
                    *arguments,
                    seconds=DEADLINE_SECONDS,
                    lock_milliseconds=lock_milliseconds,
                    pooled=pooled,
                    restoring=restoring,
                    pinned=self._pinned,
                    followed=followed,
                )
        return await fetch_log(connection, query, *arguments, pooled=pooled, followed=followed)

    def _is_followed(self, connection: Connection) -> bool:
        followed = None if self._pooled else self._followed
        return followed is None or followed.is_at(server_of(connection))

    def require_unchanged(self, remains: Sequence[str]) -> None:
        """`remains`: the rows of REMAINS, which a query has returned. Closes the connection as `restore` demands it."""
        if len(remains) > 1 and not self._pooled:
            self.close()
            raise Unreachable(_CHANGED)

    def close(self) -> None:
        """Ends the connection, if there is one."""
        if self._connection is not None:
            self._connection.terminate()
            self._connection = None

    def end(self) -> None:
        """Ends the connection for good: a query that is under way, for several clients, opens no other one."""
        self._is_ended = True
        self.close()

    def _require_not_ended(self) -> None:
        if self._is_ended:
            self.close()
            raise Unreachable("this node has ended")


async def require_one_database(query: Query, connection: Connection) -> None:
    """Queries and LISTEN may take different routes, but not to different databases. Raises Misplaced."""
    server = (
        "SELECT oid, pg_postmaster_start_time() FROM pg_database WHERE datname = current_database()"
    )
    try:
        there: object = await query.fetch(server)
    except Apart:
        there = None
    if there != await connection.fetch(server):
        raise Misplaced("NOTIFIER_LISTEN_DATABASE_URL is not the database of NOTIFIER_DATABASE_URL")


async def fetch_log(
    connection: Connection,
    query: str,
    *arguments: Any,
    pooled: bool,
    followed: Followed | None = None,
) -> list[asyncpg.Record]:
    """The rows of a query that may read the log, in a DEFERRABLE transaction, as all are of sessions with our settings.

    `followed`: to whose server a pooler must lead it.
    """
    if not pooled:
        return await connection.fetch(query, *arguments, timeout=DEADLINE_SECONDS)
    async with connection.transaction(isolation="read_committed", deferrable=True):
        try:
            await _begin(connection, _WRITABLE, PIN, pooled=True, followed=followed)
        except asyncpg.FeatureNotSupportedError:
            raise Misplaced(STANDBY) from None
        return await connection.fetch(query, *arguments, timeout=DEADLINE_SECONDS)


async def _begin(
    connection: Connection, *statements: str, pooled: bool, followed: Followed | None = None
) -> None:
    """Executes the first statements of a transaction. Raises Misplaced where a pooler leads it to a standby, Apart where not to the server
    that is followed.
    """
    if not pooled:
        await connection.execute("; ".join(statements))
        return
    query = elsewhere(None if followed is None else followed.server)
    if await connection.execute("; ".join([*statements, query])) != "SELECT 0":
        is_standby = await connection.fetchval("SELECT pg_catalog.pg_is_in_recovery()")
        raise Misplaced(STANDBY) if is_standby else Apart(POOLER_APART)


@asynccontextmanager
async def parsing(
    connection: Connection,
    *,
    pooled: bool = False,
    pinned: bool = True,
    followed: Followed | None = None,
) -> AsyncIterator[None]:
    """The transaction of a query that is parsed and not executed: that of `fetch_read_only`.

    PostgreSQL makes the values of literals when it parses, and so evaluates a domain's check where `column && '{a}'` has a
    column that is an array of the domain.
    """
    begin = [_BEGIN, PIN] if pinned and pooled else [_BEGIN]
    await _begin(connection, *begin, pooled=pooled, followed=followed)
    try:
        if not pinned:
            await connection.execute(role_path(migrated=True))
        yield
    finally:
        await restore(connection, "ROLLBACK", pooled=pooled)


async def fetch_read_only(
    connection: Connection,
    query: str,
    *arguments: Any,
    seconds: float = DEADLINE_SECONDS,
    lock_milliseconds: int | None = None,
    pooled: bool = False,
    restoring: bool = True,
    pinned: bool = True,
    followed: Followed | None = None,
) -> list[asyncpg.Record]:
    """The rows, read in a transaction in which the log is not readable (`refuse_reading.sql`), and that is rolled back.

    It cannot write either, but before PostgreSQL 16 code that the query runs could change that, as it could change a setting of
    the session on each version. The connection is sound after RETAINED errors only. `restoring`: False for a query that runs
    no code of the application, or returns REMAINS. `pinned`: as `Query` has it. `followed`: as `fetch_log` has it.
    """
    begin = [_BEGIN]
    if pinned and pooled:
        begin.append(PIN)
    if lock_milliseconds is not None:
        begin.append(f"SET LOCAL lock_timeout = '{lock_milliseconds}ms'")
    await _begin(connection, *begin, pooled=pooled, followed=followed)
    if not pinned:  # as a prepared statement, where there is no pooler: to plan it takes longer than most queries
        await connection.fetchval(role_path(migrated=True), timeout=seconds)
    try:
        rows = await connection.fetch(query, *arguments, timeout=seconds)
    except RETAINED:
        await restore(connection, "ROLLBACK", pooled=pooled)
        raise
    if restoring:
        await restore(connection, "ROLLBACK", pooled=pooled)
    else:
        await connection.execute("ROLLBACK")
    return rows


async def restore(connection: Connection, rollback: str | None, *, pooled: bool) -> None:
    """Undoes what code of the application may have done to the session while a query of ours ran it.

    `rollback`: the statement that undoes settings and notifications; None where that was done. Advisory locks and prepared
    statements outlive it, and a statement under the name of one of ours would be executed in its place. Through a pooler,
    statements of ours have no names, and the session is shared with other clients. Raises Unreachable where the connection
    must be closed.
    """
    statements = [rollback, None if pooled else REMAINS]
    text = "; ".join(filter(None, statements))
    if text and await connection.execute(text) != "SELECT 1" and not pooled:
        raise Unreachable(_CHANGED)


async def as_text(connection: Connection, query: str) -> None:
    """Lets the query's parameters be given as text, whatever their types are."""
    statement = await connection.prepare(query)
    for kind in statement.get_parameters():
        if kind.schema == "pg_catalog":
            await connection.set_type_codec(
                kind.name, schema=kind.schema, encoder=str, decoder=str, format="text"
            )
