"""Opens all connections to PostgreSQL, and translates their failures.

asyncpg does not detect a connection whose peer no longer responds (MagicStack/asyncpg#519). So every call on
a long-lived connection has a deadline, the server is configured to drop a dead peer within about ten
seconds, and a connection that failed once is terminated, never closed politely.
"""

from __future__ import annotations

import asyncio
import random
import time
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, NoReturn, TypeAlias, cast

import asyncpg
import structlog

from notifier import metrics
from notifier.cancellation import raise_if_cancelled
from notifier.conninfo import ConninfoError
from notifier.database import sql
from notifier.database.answers import UNFIT, unexpected
from notifier.database.keepalive import keep_alive
from notifier.database.primary import Server as Followable
from notifier.database.primary import primary_of
from notifier.database.url import Server, Target, describe, resolve
from notifier.errors import DatabaseError, Misplaced, SchemaMissing, UnexpectedAnswer, Unreachable

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"

DEADLINE_SECONDS = 5.0
"""How long an answer may take before the connection counts as dead."""

STEADY_SECONDS = 30.0
"""A link that lived this long was sound: the next attempt is made without a long wait."""

FAILURES = (
    OSError,
    TimeoutError,
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,  # the driver's error for a connection that ended within a message
)
"""What the driver raises on purpose. For answers that it cannot read it raises anything: `is_failure` knows those as well."""

VALUE_ERRORS = (
    asyncpg.DataError,
    asyncpg.IntegrityConstraintViolationError,  # a domain's check
    asyncpg.CardinalityViolationError,
    asyncpg.PLPGSQLError,  # RAISE, and INTO STRICT
)
"""Errors about the values of a query: the connection is sound."""

SETTINGS = {
    "default_transaction_deferrable": "on",  # without it the log is not readable: see refuse_reading.sql
    "default_transaction_isolation": "read committed",
    "default_transaction_read_only": "off",
    "idle_in_transaction_session_timeout": "10000",
    "idle_session_timeout": "0",
    "jit": "off",
    "lock_timeout": "0",
    "max_parallel_workers_per_gather": "0",  # a worker's start costs more than most of our queries
    "statement_timeout": "60000",
    "tcp_keepalives_count": "3",
    "tcp_keepalives_idle": "3",
    "tcp_keepalives_interval": "2",
    "tcp_user_timeout": "9000",
    "timezone": "UTC",
}
"""Of each session. They override what ALTER ROLE and ALTER DATABASE set."""

RESET = (
    "DateStyle",
    "IntervalStyle",
    "array_nulls",
    "backslash_quote",
    "bytea_output",
    "check_function_bodies",
    "client_connection_check_interval",
    "client_min_messages",
    "constraint_exclusion",
    "cursor_tuple_fraction",
    "default_table_access_method",
    "exit_on_error",
    "extra_float_digits",
    "from_collapse_limit",
    "gin_fuzzy_search_limit",
    "join_collapse_limit",
    "plan_cache_mode",
    "quote_all_identifiers",
    "restrict_nonsystem_relation_kind",
    "standard_conforming_strings",
    "stats_fetch_consistency",
    "transaction_timeout",
    "transform_null_equals",
    "vacuum_cost_delay",
    "xmlbinary",
    "xmloption",
)
"""Settings, some of newer versions only, that go back to PostgreSQL's own default; so do `enable_…`,
`debug_…` and `geqo…`. `tests/postgres/test_session_settings.py` has the reason for each that stays."""

PINNED = {
    # A role that may create functions in `public` could have one of them run by us otherwise.
    "search_path": "pg_catalog, pg_temp",
    # A policy that hides rows from us is an error, not an empty answer.
    "row_security": "off",
}

QUALIFIED = f"SET search_path = {PINNED['search_path']}"
"""Pins the path of a session that began with the role's own, which `SET search_path TO DEFAULT` brings back."""

PIN = "; ".join(f"SET LOCAL {name} = {value}" for name, value in PINNED.items())
"""The same for one transaction: a session of a transaction pooler has no settings of ours."""

_log = structlog.get_logger("notifier.database")

if TYPE_CHECKING:
    _Connection = asyncpg.Connection[asyncpg.Record]
else:
    _Connection = asyncpg.Connection


class _Bounded(_Connection):
    """A connection whose every call has a deadline.

    When asyncpg prepares a statement, it closes those that it no longer keeps (after five minutes, or behind a hundred
    others), and waits for these answers without a deadline. A link on which one of them does not come would hang without end.
    """

    server: Followable = ()

    async def identify(self, *, standby: bool) -> None:
        """Sets `server`. Ends the connection where that fails, or where it is a standby and must not be one."""
        try:
            self.server = await primary_of(self, may_be_standby=standby)
        except BaseException:
            self.terminate()
            raise

    async def _cleanup_stmts(self) -> None:
        try:
            async with asyncio.timeout(DEADLINE_SECONDS):
                await cast("Any", super())._cleanup_stmts()  # noqa: SLF001 - there is no other way in
        except TimeoutError:
            self.terminate()
            raise


def role_path(*, migrated: bool) -> str:
    """A statement that sets the role's own search_path in a transaction, without a schema that a stranger has put into it.

    `migrated`: whether the watched tables are known.
    """
    watched = sql.adapt(
        """EXISTS (SELECT FROM notifier.watches AS w JOIN pg_catalog.pg_class AS c
                   ON c.oid OPERATOR(pg_catalog.=) notifier.relation_of(w.relation)
                   WHERE c.relnamespace OPERATOR(pg_catalog.=) s.oid)"""
    )
    return sql.query("role_path").format(watched=watched if migrated else "false")


async def connect(
    url: str,
    name: str,
    *,
    pooled: bool = False,
    pinned: bool = True,
    deadline: float = DEADLINE_SECONDS,
    settings: Mapping[str, str] | None = None,
    standby: bool = False,
) -> Connection:
    """Opens a connection that appears as `notifier NAME`.

    `pooled`: through a transaction pooler, which takes neither prepared statements nor settings.
    `pinned`: names without a schema are PostgreSQL's own; else the role's search path finds them.
    `deadline`: in seconds, for each statement that has none of its own.
    `settings`: of the session, instead of SETTINGS or beside them. `standby`: the server may be one.
    Raises Unreachable or Misplaced, in one line without the password.
    """
    try:
        target = resolve(url)
    except ConninfoError as error:
        raise Unreachable(f"cannot understand the database's URL: {error}") from error
    given = {**({} if pooled else SETTINGS), **(PINNED if pinned and not pooled else {})}
    given |= settings or {}
    given["application_name"] = (
        f"{target.application}: {sql.program()} {name}"
        if target.application
        else f"{sql.program()} {name}"
    )
    connection = await _first_answer(target, given, deadline, 0 if pooled else 100, standby=standby)
    try:
        keep_alive(connection)
        await connection.set_type_codec(
            "json",
            schema="pg_catalog",
            encoder=bytes,
            decoder=bytes,
            format="binary",
        )
        if not pooled:
            await _reset(connection, target)
    except BaseException as error:
        connection.terminate()
        if is_failure(error):
            raise Unreachable(f"lost the database {target}: {first_line(error)}") from error
        raise
    metrics.show_link(name, True)
    connection.add_termination_listener(lambda _: metrics.show_link(name, False))
    return connection


async def _first_answer(
    target: Target, settings: Mapping[str, str], deadline: float, cache: int, *, standby: bool
) -> Connection:
    """A connection to the first server that accepts one, as libpq tries them; to no standby, unless `standby`."""
    failures: list[tuple[Server, BaseException]] = []
    for attributes in target.passes:
        for server in target.servers:
            arguments = {
                **server.arguments,
                "server_settings": {**server.arguments["server_settings"], **settings},
                "target_session_attrs": attributes,
            }
            try:
                connection: _Bounded = await asyncpg.connect(
                    **arguments,
                    timeout=target.seconds,
                    command_timeout=deadline,
                    statement_cache_size=cache,
                    connection_class=_Bounded,
                )
                await connection.identify(standby=standby)
                return connection
            except Exception as error:
                refusals = (UnicodeError, ValueError, Misplaced, UnexpectedAnswer)
                if not is_failure(error) and not isinstance(error, refusals):
                    raise
                failures.append((server, error))
                if isinstance(error, asyncpg.PostgresError) and not isinstance(
                    error, asyncpg.CannotConnectNowError
                ):  # this server has answered
                    raise _refused(target, failures) from error
    errors = [error for _, error in failures]
    # For `is_shutting_down`: a server that does not answer in time may be the one that is followed, beside a standby that starts.
    is_late = any(isinstance(error, TimeoutError) for error in errors)
    errors.sort(key=lambda error: isinstance(error, asyncpg.CannotConnectNowError) is is_late)
    raise _refused(target, failures) from errors[0]


def _refused(target: Target, failures: list[tuple[Server, BaseException]]) -> DatabaseError:
    error = failures[-1][1]
    if "startup parameter" in str(error):
        return Misplaced(_pooler(f"{target}: {first_line(error)}"))
    reasons = [first_line(each) for _, each in failures]
    if len(target.servers) > 1:
        reasons = [
            f"{server.place}: {reason}"
            for (server, _), reason in zip(failures, reasons, strict=True)
        ]
    if isinstance(error, asyncpg.InvalidAuthorizationSpecificationError):
        reasons += target.notes
    kind = Misplaced if isinstance(error, Misplaced) else Unreachable
    return kind(f"cannot reach the database {target}: {'; '.join(reasons)}")


async def _reset(connection: Connection, target: Target) -> None:
    """Resets settings that a session must not inherit. Raises Misplaced behind a transaction pooler."""
    ours = await connection.fetchval(sql.query("reset_settings"), RESET, timeout=DEADLINE_SECONDS)
    if not ours:
        raise Misplaced(_pooler(f"{target} does not get the settings of a connection"))


def _pooler(fact: str) -> str:
    return f"{fact}: a connection pooler? set NOTIFIER_LISTEN_DATABASE_URL to a direct connection"


async def is_shutting_down(url: str) -> bool:
    """Whether the server refuses new connections and waits for the present ones: a smart shutdown."""
    try:
        connection = await connect(url, "door")
    except DatabaseError as error:
        return isinstance(error.__cause__, asyncpg.CannotConnectNowError)
    connection.terminate()
    return False


def server_of(connection: Connection) -> Followable:
    """The server that the connection led to when it was opened."""
    assert isinstance(connection, _Bounded)
    return connection.server


@asynccontextmanager
async def connected(
    url: str, name: str, *, pinned: bool = True, standby: bool = False, **settings: str
) -> AsyncIterator[Connection]:
    """A connection for as long as the block runs; a failure in it becomes a DatabaseError.

    So does an error that a value of an answer causes, wherever it is used: UnexpectedAnswer.
    """
    connection = await connect(url, name, pinned=pinned, settings=settings, standby=standby)
    try:
        yield connection
    except Exception as error:
        raise_if_cancelled()  # else a link would be opened again, by a task that must end
        if (failure := failure_of(error, url)) is None:
            raise
        raise failure from error
    finally:
        connection.terminate()


def is_failure(error: BaseException) -> bool:
    """Whether the error is one of the connection, not of our code: after it the connection must be closed.

    The driver trusts the server. Where an answer is not what it expects, since a proxy has altered it or mixed up sessions,
    it raises AssertionError, UnicodeDecodeError, KeyError and others. They are known by the driver's frames in the traceback.
    """
    if isinstance(error, FAILURES):
        return True
    return isinstance(error, Exception) and any(
        frame.f_globals.get("__name__", "").partition(".")[0] == "asyncpg"
        for frame, _ in traceback.walk_tb(error.__traceback__)
    )


def failure_of(error: Exception, url: str) -> DatabaseError | None:
    """The DatabaseError for a failure, or for an error that a value of an answer has caused; None for any other error."""
    if is_failure(error):
        return translate_error(error, url)
    return unexpected(error) if isinstance(error, UNFIT) else None


def translate_error(error: BaseException, url: str) -> DatabaseError:
    """The DatabaseError for a failure of the driver."""
    match error:
        case (
            asyncpg.UndefinedTableError()
            | asyncpg.InvalidSchemaNameError()
            | asyncpg.UndefinedColumnError()
            | asyncpg.UndefinedFunctionError()
        ):
            return SchemaMissing(
                f"the schema of {describe(url)} is not this version's; run: notifier migrate"
                f" ({first_line(error)})"
            )
        case asyncpg.InsufficientPrivilegeError() | asyncpg.ReadOnlySQLTransactionError():
            return Misplaced(f"{describe(url)}: {first_line(error)}")
        case _:
            reason = (
                first_line(error)
                if isinstance(error, FAILURES)
                else f"an answer that cannot be read ({type(error).__name__})"  # its text may have values of rows
            )
            return Unreachable(f"lost the database {describe(url)}: {reason}")


def first_line(error: BaseException) -> str:
    """An error's first line; never empty."""
    if isinstance(error, TimeoutError):
        return "no answer in time"
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


async def reconnecting(name: str, once: Callable[[], Awaitable[object]]) -> NoReturn:
    """Runs `once`, which opens a link and works on it, again after every DatabaseError.

    The waits between attempts grow (`backoff`); after STEADY_SECONDS of work they start over. `name`
    is the link's in logs and metrics.
    """
    attempt = 0
    while True:
        started = time.monotonic()
        try:
            await once()
        except DatabaseError as error:
            _log.warning("database connection lost", link=name, error=str(error))
            metrics.RECONNECTS.labels(name).inc()
        attempt = 0 if time.monotonic() - started > STEADY_SECONDS else attempt + 1
        await backoff(attempt)


async def backoff(attempt: int) -> None:
    """Waits before the next attempt: full jitter, 0.1 s at first, 3 s at most."""
    await asyncio.sleep(random.uniform(0.05, min(3.0, 0.1 * 2.0 ** min(attempt, 10))))


def listener(receive: Callable[[str], None]) -> Callable[..., None]:
    """A callback for `add_listener`. Not a coroutine: asyncpg would run those out of order."""

    def notified(_connection: Any, _pid: int, _channel: str, payload: object) -> None:
        receive(str(payload))

    return notified
