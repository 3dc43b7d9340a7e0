"""Connections to PostgreSQL: the one place that opens them and knows how they fail.

asyncpg never notices a link that swallows everything (MagicStack/asyncpg#519). So every call on a
long-lived connection has a deadline, the server is told to give a dead peer up within about ten
seconds, and a connection that failed once is terminated, never closed politely.
"""

from __future__ import annotations

import asyncio
import random
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, NoReturn, TypeAlias
from urllib.parse import urlsplit

import asyncpg
import structlog

from notifier import metrics
from notifier.errors import DatabaseError, Misplaced, SchemaMissing, Unreachable

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"

CONNECT_SECONDS = 5.0
DEADLINE_SECONDS = 5.0
"""How long an answer may take before the link counts as dead."""

STEADY_SECONDS = 30.0
"""A link that lived this long was sound: the next attempt is made without a long wait."""

FAILURES = (
    OSError,
    TimeoutError,
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,  # what the driver says of a link that ended in mid-word
)

REFUSALS = (
    asyncpg.DataError,
    asyncpg.IntegrityConstraintViolationError,  # a domain's check
    asyncpg.CardinalityViolationError,
    asyncpg.PLPGSQLError,  # RAISE, and INTO STRICT
)
"""What the server says of the very values that it was asked with: the link is sound."""

_SERVER_SETTINGS = {
    "tcp_keepalives_idle": "3",
    "tcp_keepalives_interval": "2",
    "tcp_keepalives_count": "3",
    "tcp_user_timeout": "9000",
    "idle_session_timeout": "0",
    "idle_in_transaction_session_timeout": "10000",
    "statement_timeout": "60000",
    "default_transaction_isolation": "read committed",
    "jit": "off",
    "max_parallel_workers_per_gather": "0",  # a worker's start costs more than most of what we ask
    "timezone": "UTC",
}

_PINNED = {"search_path": "pg_catalog, pg_temp"}
"""Whoever may create a function in `public` could run it as us, under the name of one that we call."""

_log = structlog.get_logger("notifier.database")


async def connect(
    url: str, name: str, *, pooled: bool = False, pinned: bool = True, **settings: str
) -> Connection:
    """Opens a connection that appears as `notifier NAME`.

    `pooled`: through a transaction pooler, which takes neither prepared statements nor settings.
    `pinned`: names without a schema are PostgreSQL's own; else they are found by the role's path.
    Raises Unreachable, in one line without the password.
    """
    if not pooled:
        settings = {**_SERVER_SETTINGS, **(_PINNED if pinned else {}), **settings}
    try:
        connection: Connection = await asyncpg.connect(
            url,
            timeout=CONNECT_SECONDS,
            command_timeout=DEADLINE_SECONDS,
            statement_cache_size=0 if pooled else 100,
            server_settings={"application_name": f"notifier {name}", **settings},
        )
    except FAILURES as error:
        raise Unreachable(f"cannot reach the database {place(url)}: {said(error)}") from error
    except (ValueError, asyncpg.ClientConfigurationError) as error:
        raise Unreachable(f"cannot understand the database's URL: {said(error)}") from error
    try:
        _keep_alive(connection)
        await connection.set_type_codec(
            "json",
            schema="pg_catalog",
            encoder=bytes,
            decoder=bytes,
            format="binary",
        )
    except BaseException as error:
        connection.terminate()
        if isinstance(error, FAILURES):
            raise Unreachable(f"lost the database {place(url)}: {said(error)}") from error
        raise
    return connection


async def waits_for_us(url: str) -> bool:
    """Whether the server takes nobody any more, and waits for those it has to go: a smart shutdown."""
    try:
        connection = await connect(url, "door")
    except Unreachable as error:
        return isinstance(error.__cause__, asyncpg.CannotConnectNowError)
    connection.terminate()
    return False


@asynccontextmanager
async def link(
    url: str, name: str, *, pinned: bool = True, **settings: str
) -> AsyncIterator[Connection]:
    """A connection for as long as the block runs; a failure in it becomes a DatabaseError."""
    connection = await connect(url, name, pooled=False, pinned=pinned, **settings)
    try:
        with translated(url):
            yield connection
    finally:
        connection.terminate()


class translated:
    """Turns the driver's exceptions into ours."""

    def __init__(self, url: str) -> None:
        self._url = url

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is not None and isinstance(error, FAILURES):
            raise ours(error, self._url) from error


def ours(error: BaseException, url: str) -> DatabaseError:
    """What a failure of the driver means."""
    match error:
        case (
            asyncpg.UndefinedTableError()
            | asyncpg.InvalidSchemaNameError()
            | asyncpg.UndefinedColumnError()
            | asyncpg.UndefinedFunctionError()
        ):
            return SchemaMissing(
                f"the schema of {place(url)} is not this version's; run: notifier migrate"
                f" ({said(error)})"
            )
        case asyncpg.InsufficientPrivilegeError() | asyncpg.ReadOnlySQLTransactionError():
            return Misplaced(f"{place(url)}: {said(error)}")
        case _:
            return Unreachable(f"lost the database {place(url)}: {said(error)}")


def place(url: str) -> str:
    """Host, port and database of a URL, for a message."""
    try:
        parts = urlsplit(url)
        return f"{parts.hostname or 'localhost'}:{parts.port or 5432}{parts.path or ''}"
    except ValueError:
        return "(unreadable URL)"


def said(error: BaseException) -> str:
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


def listener(ring: Callable[[str], None]) -> Callable[..., None]:
    """A callback for `add_listener`. It is not a coroutine: asyncpg would run those out of order."""

    def heard(_connection: Any, _pid: int, _channel: str, payload: object) -> None:
        ring(str(payload))

    return heard


def _keep_alive(connection: Connection) -> None:
    """asyncpg has no option for it, and its transport is a private attribute: guarded."""
    transport = getattr(connection, "_transport", None)
    peer = transport.get_extra_info("socket") if transport is not None else None
    if peer is None or peer.family not in (socket.AF_INET, socket.AF_INET6):
        return
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (
        ("TCP_KEEPIDLE", 3),
        ("TCP_KEEPINTVL", 2),
        ("TCP_KEEPCNT", 3),
        ("TCP_USER_TIMEOUT", 9000),
    ):
        if hasattr(socket, option):
            peer.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
