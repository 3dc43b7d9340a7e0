"""A node's watchdogs: the clock, the event loop, a shutdown of the database."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import suppress
from itertools import count
from typing import NamedTuple, Protocol, TypeAlias

import structlog

from notifier import __version__, metrics
from notifier.database import sql
from notifier.database.answers import expected, typed
from notifier.database.connections import backoff, is_shutting_down
from notifier.database.query import Query, Record
from notifier.database.url import describe
from notifier.errors import DatabaseError, NotifierError
from notifier.health import Health
from notifier.settings import Settings
from notifier.watches import Scope, Watch

CLOCK_SECONDS = 4.0
"""How often the clock is compared with the monotonic one."""

SHUTDOWN_SECONDS = 30.0
"""How often the database is checked for a smart shutdown."""

CONFIGURATION_SECONDS = 0.1
"""How often the configuration is read at most: any role may send the notification that it has changed."""

LOOP_SECONDS = 1.0
"""How often the delay of the event loop is measured."""

_logger = structlog.get_logger("notifier")


NEWCOMER_SECONDS, NEWCOMER_DEADLINE = 5.0, 4.0
"""How often everything that a new client needs is checked, and how long each check may take."""


class Clocked(Protocol):
    """A session that waits for a moment of the clock."""

    def clock_was_set(self) -> None:
        """Timers must be set again."""


async def watch_clock(sessions: Collection[Clocked]) -> None:
    """Timers follow neither a clock that is set nor a machine that was suspended: sets them again."""
    offset = time.time() - time.monotonic()
    while True:
        await asyncio.sleep(CLOCK_SECONDS)
        now = time.time() - time.monotonic()
        if abs(now - offset) > 1:
            offset = now
            _logger.warning("the clock was set")
            for session in list(sessions):
                session.clock_was_set()


async def watch_shutdown(url: str, query: Query) -> None:
    """Disconnects from a database in a smart shutdown, which waits for every client to do so."""
    while True:
        await asyncio.sleep(SHUTDOWN_SECONDS)
        if await is_shutting_down(url):
            with suppress(DatabaseError):  # it may be starting instead
                await query.fetch(sql.query("terminate_own_backends"))
                query.close()
                _logger.warning("the database shuts down: disconnected from it")


async def watch_loop() -> None:
    """Measures how late the event loop runs its timers."""
    clock = asyncio.get_running_loop().time
    while True:
        due = clock() + LOOP_SECONDS
        await asyncio.sleep(LOOP_SECONDS)
        late = max(0.0, clock() - due)
        metrics.LOOP.observe(late)
        if late > LOOP_SECONDS:
            _logger.warning("the event loop was blocked", seconds=round(late, 1))


async def report_start(query: Query) -> None:
    """Logs this version, the database once it is reached, and the node that relays now."""
    database = describe(query.url)
    _logger.info("starting", version=__version__, database=database)
    for attempt in count():
        try:
            ((role, server),) = await query.read(
                lambda rows: typed(rows[:1], tuple[str, str]),
                "SELECT current_user::text, current_setting('server_version')",
            )
            break
        except DatabaseError:
            await backoff(attempt)
    _logger.info("database reached", database=database, role=role, server=server)
    with suppress(DatabaseError):  # the schema may be missing; the node's own links report it
        for address, pid in await query.read(
            lambda rows: [(row["address"], row["pid"]) for row in rows], sql.query("relay_now")
        ):
            _logger.info("a node relays already", address=address, pid=pid)


class _Configuration(NamedTuple):
    """The watches, the scopes and `max_log_bytes` as `notifier migrate` wrote them."""

    watches: list[Watch]
    scopes: list[Scope]
    max_log_bytes: int | None


async def follow_configuration(
    settings: Settings,
    query: Query,
    changed: asyncio.Event,
    use: Callable[[Sequence[Watch], Sequence[Scope]], None],
) -> None:
    """Hands the watches in the database to `use`, at first and whenever `changed` is set.

    Warns where the database was migrated with other settings than these.
    """
    logged = None
    while True:
        changed.clear()
        found = stored, _, there = await _configuration(query, use)
        await asyncio.sleep(CONFIGURATION_SECONDS)
        if found == logged:
            await changed.wait()
            continue
        logged = found
        _logger.info("watching", tables=[f"{each.table} as {each.entity}" for each in stored])
        if set(stored) != set(settings.watch):
            _logger.warning("the database watches other tables; run: notifier migrate")
        if there != settings.max_log_bytes:
            _logger.warning(
                "MAX_LOG_BYTES in the database is another; run: notifier migrate",
                here=settings.max_log_bytes,
                there=there,
            )
        await changed.wait()


async def _configuration(
    query: Query, use: Callable[[Sequence[Watch], Sequence[Scope]], None]
) -> _Configuration:
    """Hands the configuration to `use`, once it can be read."""
    for attempt in count():
        try:
            found = await query.read(_configuration_of, sql.query("configuration"))
            with expected():
                use(found.watches, found.scopes)
            return found
        except DatabaseError:  # or an older version's schema, until it is migrated
            await backoff(attempt)
    raise AssertionError


def _configuration_of(rows: Sequence[Record]) -> _Configuration:
    watches = [Watch.from_row(row) for row in rows if row["entity"] is not None]
    watches += [Watch.from_json(text) for text in (rows[0]["patterns"] if rows else ())]
    scopes = [
        Scope(name=name, membership=membership)
        for name, membership in (rows[0]["scopes"] if rows else ())
    ]
    set(watches)  # each of their values can be compared
    return _Configuration(watches, scopes, rows[0]["max_log_bytes"] if rows else None)


Check: TypeAlias = Callable[[], Awaitable[object]]


async def watch_newcomers(health: Health, checks: Mapping[str, Check]) -> None:
    """Reports whether a client that arrives now could be served; `checks` are named as in /readyz."""
    async with asyncio.TaskGroup() as tasks:
        for part, check in checks.items():
            tasks.create_task(_watch(health, part, check))


async def _watch(health: Health, part: str, check: Check) -> None:
    """Reports a check that takes too long, and waits for its end: to cancel it would end a connection that is being opened.

    Of several hosts the first may not answer at all, such as the primary that was, which takes longer than a check may.
    """
    while True:
        running = asyncio.ensure_future(check())
        try:
            done, _ = await asyncio.wait([running], timeout=NEWCOMER_DEADLINE)
            if not done:
                health.report(part, "no answer in time")
            await running
        except NotifierError as error:
            health.report(part, str(error))
        else:
            health.report(part, None)
        finally:
            running.cancel()
            # Its error would be logged with a traceback otherwise, as one that was never retrieved.
            await asyncio.gather(running, return_exceptions=True)
        await asyncio.sleep(NEWCOMER_SECONDS)
