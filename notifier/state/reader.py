"""Reads the rows of a company in one snapshot, and finds the position of the log that they belong to.

The snapshot also shows which transactions the relay has not stored yet: their rows are in it, their
messages are still to come. The reader waits until they are stored. If they are the next messages of the
company, the rows are those at the last of them. If a message of a transaction that the snapshot does not see
is between them, there is no such position, and the reader takes another snapshot.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from datetime import datetime
from functools import partial
from traceback import clear_frames
from typing import NamedTuple, ParamSpec, TypeAlias, TypeVar

import asyncpg
import msgspec
import structlog

from notifier.database import sql
from notifier.database.answers import typed
from notifier.database.connections import (
    DEADLINE_SECONDS,
    PIN,
    Connection,
    connect,
    failure_of,
    first_line,
    is_failure,
)
from notifier.database.query import fetch_log, restore
from notifier.delivery.filter import Filter
from notifier.delivery.state import State
from notifier.errors import NotReady, Refused, StateTooLarge, StateUnavailable
from notifier.messages import JSON
from notifier.relay.changes import Source
from notifier.state.pages import is_compared_later, pages, passing
from notifier.state.readings import Begun, Loaded, Readings
from notifier.state.rows import MOST_ROWS, READ_SECONDS, Altered, images_of
from notifier.state.tables import STATE_BYTES, Table, tables, tables_query

ATTEMPTS = 20
LOOK_SECONDS = 0.01
STORED_SECONDS = 5.0
"""How long the relay may take to store what it has not stored yet."""

SEARCHED_ROWS = 100_000
"""Rows that are read at most for a filter by values: about a second of computing in a thread."""

CONNECTIONS = 3
"""States that are read at the same time. Each holds at most STATE_BYTES of images, and as much of messages."""

PIECE_BYTES = 256 * 1024
"""Pages that a thread renders before it turns to another reading."""

THREADS = 2
"""They compare and render the rows of states, in pieces: none of the CONNECTIONS readings waits long for another one's."""

UNUSABLE = (asyncpg.DataError, asyncpg.SyntaxOrAccessError, asyncpg.ProgramLimitExceededError)
"""Errors of a table's query: `state_where` does not fit the table any more, or a value in it; a row is more than a GB as JSON."""

Parameters = ParamSpec("Parameters")
T = TypeVar("T")

_logger = structlog.get_logger("notifier.state")

Key: TypeAlias = tuple[str, Filter | None]
"""A company and a filter: states of these have the same rows, unless rows are for some users only."""


class _Transaction(msgspec.Struct, rename="pascal"):
    tx: str | None = None


_decode = msgspec.json.Decoder(_Transaction).decode


class _Snapshot(NamedTuple):
    """Rows that pass the filter, and the position of the log before the messages of the transactions `unread`."""

    epoch: str
    position: int
    unread: frozenset[int]
    images: list[tuple[Source, list[JSON]]]
    held: int  # without the rows that are compared later


class _Amount:
    """Counts the rows of one reading: those that are read, and those that pass its filter and are held."""

    def __init__(self, limit: int, held: int = 0) -> None:
        self._limit = limit
        self._searched = max(limit, SEARCHED_ROWS)
        self._read = self._bytes = 0
        self.held = held

    def read(self, images: Sequence[JSON]) -> None:
        """Counts images that were read. Raises StateTooLarge."""
        self._read += len(images)
        self._bytes += sum(map(len, images))
        if self._bytes > STATE_BYTES:
            raise StateTooLarge(f"more than {STATE_BYTES:,} bytes")
        if self._read > self._searched:
            raise StateTooLarge(f"more than {self._searched:,} rows to search")

    def hold(self, images: list[JSON]) -> list[JSON]:
        """Counts images that the state keeps, and returns them. Raises StateTooLarge."""
        self.held += len(images)
        if self.held > self._limit:
            raise StateTooLarge(f"more than {self._limit:,} rows")
        return images


class _Found(NamedTuple):
    """Rows at a position."""

    snapshot: _Snapshot
    position: int
    at: datetime | None


class StateReader:
    """Reads on connections of its own: at most CONNECTIONS states at once, and one of each company and filter (`Readings`)."""

    def __init__(self, url: str, *, pooled: bool, max_rows: int) -> None:
        self._url = url
        self._pooled = pooled
        self._max_rows = max_rows
        self._idle: list[Connection] = []
        self._readings: Readings[Key, State] = Readings(self._read, CONNECTIONS)
        self._threads = ThreadPoolExecutor(THREADS, "notifier-state")
        self._closes = 0
        self.reads = 0

    async def read(self, company: str, wanted: Filter | None, user: str) -> State:
        """The company's rows that the user sees. Raises StateTooLarge, StateUnavailable, NotReady and DatabaseError."""
        return await self._readings.get((company, wanted), user)

    async def _read(self, key: Key, begun: Begun) -> Loaded[State]:
        """Calls `begun` when it takes a snapshot."""
        try:
            async with asyncio.timeout(READ_SECONDS + STORED_SECONDS):
                try:
                    found = await self._use_connection(key, begun)
                except BaseException as error:
                    clear_frames(error.__traceback__)  # they have rows, and this task has the error
                    raise
        except asyncpg.InsufficientPrivilegeError as error:
            raise StateUnavailable(
                "the service's role may not read the tables; run: notifier migrate"
                " --grant ROLE --state"
            ) from error
        except asyncpg.LockNotAvailableError as error:
            raise StateUnavailable("a table is locked by another transaction") from error
        except Exception as error:
            if (failure := failure_of(error, self._url)) is None:
                raise
            raise failure from error
        by_user = any(source.watch.visible_to for source, _ in found.snapshot.images)
        return Loaded(by_user, partial(self._render, key, found))

    async def _use_connection(self, key: Key, begun: Begun) -> _Found:
        """Reads on an idle connection; where one died meanwhile, on another."""
        closes = self._closes
        while True:
            reused = bool(self._idle)
            connection = self._idle.pop() if self._idle else await self._connect()
            try:
                found = await self._attempt(connection, key, begun)
            except (
                Refused,
                asyncpg.InsufficientPrivilegeError,
                asyncpg.LockNotAvailableError,
            ):
                await self._restore(connection, closes)
                raise
            except BaseException as error:
                connection.terminate()
                if not reused or isinstance(error, TimeoutError) or not is_failure(error):
                    raise
            else:
                self._release(connection, closes)
                return found

    async def _connect(self) -> Connection:
        return await connect(self._url, "state", pooled=self._pooled, pinned=True)

    def _release(self, connection: Connection, closes: int) -> None:
        """Keeps a sound connection without a transaction for the next state, unless `close` was called since it was taken."""
        if closes != self._closes:
            connection.terminate()
        else:
            self._idle.append(connection)

    async def _restore(self, connection: Connection, closes: int) -> None:
        """Keeps a connection whose transaction was rolled back; not where code of the application left something in it."""
        try:
            await restore(connection, None, pooled=self._pooled)
        except BaseException:
            connection.terminate()
            raise
        self._release(connection, closes)

    async def _attempt(self, connection: Connection, key: Key, begun: Begun) -> _Found:
        company, _ = key
        for _ in range(ATTEMPTS):
            self.reads += 1
            try:
                snapshot = await self._snapshot(connection, key, begun)
            except Altered:  # the next snapshot shows how
                await restore(connection, None, pooled=self._pooled)
                continue
            await self._wait_until_stored(connection, snapshot.unread)
            found = await self._position(connection, company, snapshot)
            if found is not None:
                return _Found(snapshot, *found)
        raise NotReady

    async def _snapshot(self, connection: Connection, key: Key, begun: Begun) -> _Snapshot:
        """Raises Altered."""
        company, wanted = key
        async with _rolled_back(connection):
            begun()
            begin = sql.query("state_begin")
            if self._pooled:  # its session is not pinned
                begin = f"{PIN}; {begin}"
            await connection.execute(begin, timeout=DEADLINE_SECONDS)
            place = await connection.fetchrow(
                sql.query("state_position"), company, timeout=DEADLINE_SECONDS
            )
            assert place is not None
            await connection.execute("ROLLBACK TO SAVEPOINT unread")  # releases the changes
            images: list[tuple[Source, list[JSON]]] = []
            amount = _Amount(self._max_rows)
            tables_of_company = await self._tables(connection, company)
            has_owners = any(table.has_owners for table in tables_of_company)
            for table in tables_of_company:
                entity = table.source.watch.entity
                if not table.has(company):
                    continue
                if wanted is not None and wanted.conditions(entity) is None:
                    continue
                if table.problem is not None:
                    raise StateUnavailable(table.problem)
                if table.source.tenant is not None:  # the reading of other tenants' rows waits
                    await connection.execute("SET LOCAL lock_timeout = '300ms'")
                found: list[JSON] = []
                images.append((table.source, found))
                try:
                    async for part in images_of(connection, table, company):
                        amount.read(part)
                        passed = await self._passing(company, table.source, part, wanted)
                        later = is_compared_later(table.source, wanted)
                        found += passed if later else amount.hold(passed)
                except asyncpg.InsufficientPrivilegeError:
                    raise
                except UNUSABLE as error:
                    name = table.source.watch.table
                    _logger.warning("rows could not be read", table=name, error=first_line(error))
                    raise StateUnavailable(f"the rows of {name} cannot be read") from error
                if (
                    has_owners
                ):  # code of one table must not change how that of another owner is read
                    await connection.execute("ROLLBACK TO SAVEPOINT unread")
        await restore(connection, None, pooled=self._pooled)
        (found_at,) = typed([place], tuple[str, int, frozenset[int]])
        return _Snapshot(*found_at, images, amount.held)

    async def _tables(self, connection: Connection, company: str) -> Sequence[Table]:
        watches = await connection.fetch(sql.query("watches"), timeout=DEADLINE_SECONDS)
        rows = await connection.fetch(tables_query(), timeout=DEADLINE_SECONDS)
        return tables([*map(dict, watches)], [*map(dict, rows)], company)

    async def _wait_until_stored(self, connection: Connection, unread: frozenset[int]) -> None:
        """Waits for the relay. Raises NotReady."""
        end = asyncio.get_running_loop().time() + STORED_SECONDS
        waiting = unread
        while waiting:
            rows = await fetch_log(
                connection, sql.query("transaction_states"), list(waiting), pooled=self._pooled
            )
            waiting = frozenset(row["tx"] for row in rows if row["state"] != "stored")
            if waiting:
                if asyncio.get_running_loop().time() > end:
                    raise NotReady
                await asyncio.sleep(LOOK_SECONDS)

    async def _position(
        self, connection: Connection, company: str, snapshot: _Snapshot
    ) -> tuple[int, datetime | None] | None:
        """The position at which the log has exactly these rows, and `at` of its message; None: there is none."""
        rows = await fetch_log(
            connection,
            sql.query("state_messages"),
            company,
            snapshot.position,
            snapshot.epoch,
            pooled=self._pooled,
        )
        position, at, foreign = snapshot.position, None, False
        for place, made, body in typed(rows, tuple[int, datetime, bytes]):
            if place == snapshot.position:
                at = made
                continue
            tx = _decode(body).tx
            if tx is None or int(tx) not in snapshot.unread:
                foreign = True
            elif foreign:
                return None
            else:
                position, at = place, made
        return position, at

    async def _passing(
        self, company: str, source: Source, images: list[JSON], wanted: Filter | None
    ) -> list[JSON]:
        """The images whose rows pass the filter. All of them where the filter has no values for the entity, or is compared later."""
        conditions = None if wanted is None else wanted.conditions(source.watch.entity)
        if wanted is None or not conditions or is_compared_later(source, wanted):
            return images
        return await self._compute(passing, company, source, images, wanted)

    async def _render(self, key: Key, found: _Found, user: str) -> State:
        """The pages of all tables: some ten microseconds for each row. Raises StateTooLarge."""
        company, wanted = key
        snapshot = found.snapshot
        amount = _Amount(self._max_rows, snapshot.held)
        seen: list[tuple[Source, list[JSON]]] = []
        for source, images in snapshot.images:
            rows = images
            if wanted is not None and is_compared_later(source, wanted):
                rows = []
                for begin in range(0, len(images), MOST_ROWS):
                    part = images[begin : begin + MOST_ROWS]
                    rows += amount.hold(
                        await self._compute(passing, company, source, part, wanted, user)
                    )
            seen.append((source, rows))
        texts = (page for source, rows in seen for page in pages(company, source, rows, user))
        made: list[JSON] = []
        ended = False
        while not ended:
            piece, ended = await self._compute(_piece, texts)
            made += piece
        return State(snapshot.epoch, found.position, found.at, tuple(made))

    async def _compute(
        self,
        function: Callable[Parameters, T],
        *arguments: Parameters.args,
        **keywords: Parameters.kwargs,
    ) -> T:
        """Calls it in a thread of the states', which nothing else waits for; not where this task is cancelled before it begins."""
        call = partial(function, *arguments, **keywords)
        return await asyncio.get_running_loop().run_in_executor(self._threads, call)

    def close(self) -> None:
        """Ends the connections, until a state is read again; a reading that is under way ends its own."""
        self._closes += 1
        while self._idle:
            self._idle.pop().terminate()


@asynccontextmanager
async def _rolled_back(connection: Connection) -> AsyncIterator[None]:
    """A transaction with one snapshot that cannot write; settings that code of the application makes end with it."""
    transaction = connection.transaction(isolation="repeatable_read", readonly=True)
    await transaction.start()
    try:
        yield
    finally:
        await transaction.rollback()


def _piece(texts: Iterator[JSON]) -> tuple[list[JSON], bool]:
    """The next pages, and whether they are the last ones."""
    made: list[JSON] = []
    size = 0
    for text in texts:
        made.append(text)
        if (size := size + len(text)) >= PIECE_BYTES:
            return made, False
    return made, True
