"""Reads captured changes, on a connection of its own, while the writer stores the previous batch."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from typing import NamedTuple

from notifier.database import sql
from notifier.database.answers import typed
from notifier.database.connections import Connection
from notifier.errors import UnexpectedAnswer
from notifier.messages import JSON
from notifier.relay.changes import Change
from notifier.relay.store import Checkpoint

PAGE = 2000
"""Changes that are held in memory at once."""

PAGE_BYTES = 32 * 1024 * 1024
"""The limit for the bytes of their images."""

AHEAD = 500
"""Changes of a large transaction that are fetched at once."""

TRANSACTIONS = 100_000
"""Transactions of a backlog that are listed at once: about 60 MiB."""

LATE_SECONDS = 1.0
"""How much longer than intended a wait within PostgreSQL may take."""

READ_SECONDS = 20.0
"""Deadline of a read of what is new. Where it is missed, that is read as a backlog."""

PAGE_SECONDS = 60.0
BACKLOG_SECONDS = 600.0
"""Deadline of a statement that reads a whole backlog or a whole transaction."""


class TransactionSize(NamedTuple):
    """A transaction of a backlog: `last` is the id of its last change, `largest` the bytes of its largest one."""

    xid: int
    last: int
    changes: int
    bytes: int
    largest: int = 0


class CompanySize(NamedTuple):
    """The rows of a company (its id as JSON) in a large transaction, the time of the last change, and the bytes of their largest changes."""

    company: str
    rows: int
    at: datetime
    bytes: int


class ForeignChanges(Exception):
    """There are changes of transactions that this cluster has not run: a dump or replication brought them."""


class OrderLost(Exception):
    """There are changes with ids that the sequence has not given out: it was set back, and later changes have smaller ones."""


class NotInTime(Exception):
    """PostgreSQL has not read the rows of a large transaction before the deadline: another attempt would take as long."""


class ChangeReader:
    """Reads changes. Raises the driver's exceptions."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.catalogue_version = 0
        """Another number where a watched table was altered before the last `read_new`, or may have been."""

    async def read_new(self, cursor: str) -> tuple[str, list[Change] | None]:
        """The present snapshot, and the changes that became visible since the snapshot `cursor`.

        None instead of changes: there are more than a page of them, or their sizes, for which PostgreSQL decompresses each
        image, are not known in time. Raises ForeignChanges and OrderLost.
        """
        is_late = False
        try:
            rows = await self._connection.fetch(
                sql.query("read_changes"), cursor, PAGE + 1, PAGE_BYTES, timeout=READ_SECONDS
            )
        except TimeoutError:
            is_late = True
            rows = await self._connection.fetch(
                sql.query("last_change"), cursor, timeout=PAGE_SECONDS
            )
        ((snapshot, self.catalogue_version, last_id),) = typed([rows[0][:3]], tuple[str, int, int])
        if _ends_before(snapshot, cursor):  # what is visible in `cursor` only would never be read
            raise UnexpectedAnswer("the database gave a snapshot that is older than the one before")
        if rows[0]["id"] is None:
            return snapshot, []
        if are_foreign(snapshot, {row["xid"] for row in rows}):
            raise ForeignChanges
        if rows[-1]["id"] > last_id:
            raise OrderLost
        if is_late or len(rows) > PAGE or rows[-1]["bytes"] >= PAGE_BYTES:
            return snapshot, None
        return snapshot, typed([row[3:-1] for row in rows], Change)

    async def wait_for_new(self, cursor: str, seconds: float) -> bool:
        """Waits until changes are visible that the snapshot `cursor` does not see. Returns False where none are found in time.

        PostgreSQL waits: that costs a fraction of reads with pauses between them (docs/decisions/23-the-doorbell.md). Its sleep
        lasts longer where its clock is set back, a look where many changes are not committed. Then the statement is
        cancelled, and False is returned: there may be changes, and the caller must read.
        """
        try:
            found: bool = await self._connection.fetchval(
                sql.adapt("SELECT notifier.wait_for_changes($1, $2)"),
                cursor,
                seconds,
                timeout=seconds + LATE_SECONDS,
            )
        except TimeoutError:
            return False
        return found

    async def transactions(self, checkpoint: Checkpoint) -> list[TransactionSize]:
        """The transactions of the backlog that are still to be read, in the order of `last`. The first TRANSACTIONS of them."""
        rows = await self._connection.fetch(
            sql.query("transactions"),
            checkpoint.cursor,
            checkpoint.target,
            checkpoint.upto,
            TRANSACTIONS,
            timeout=BACKLOG_SECONDS,
        )
        return typed(rows, TransactionSize)

    async def changes_of(self, xids: Sequence[int]) -> list[Change]:
        """All changes of some transactions, in the order of ids."""
        rows = await self._connection.fetch(
            sql.query("transaction_changes"), list(xids), timeout=PAGE_SECONDS
        )
        return typed(rows, Change)

    async def moves_of(self, xid: int, limit: int) -> list[tuple[str, JSON | None, JSON | None]]:
        """The entities and images of changes of rows on paths, in a large transaction: at most `limit`, and no large images."""
        with self._in_time():
            rows = await self._connection.fetch(
                sql.query("transaction_moves"), xid, limit, timeout=BACKLOG_SECONDS
            )
        return [(row["entity"], _bytes(row["old"]), _bytes(row["new"])) for row in rows]

    async def row_on_path_of(self, xid: int) -> JSON | None:
        """The image of any row that has a path, or is on one, in a large transaction."""
        with self._in_time():
            image = await self._connection.fetchval(
                sql.query("transaction_row"), xid, timeout=BACKLOG_SECONDS
            )
        return _bytes(image)

    async def weigh(self, xid: int) -> list[CompanySize]:
        """The companies of a large transaction."""
        with self._in_time():
            rows = await self._connection.fetch(
                sql.query("weigh_transaction"), xid, timeout=BACKLOG_SECONDS
            )
        return typed(rows, CompanySize)

    async def by_company(
        self, xid: int, without: Sequence[str], largest: int
    ) -> AsyncIterator[tuple[str | None, Change]]:
        """The changes of a large transaction by company, a few hundred in memory at once, or fewer where the `largest` has many bytes.

        Changes that concern every company come first, with None. Companies in `without` are left out. Another failure than
        NotInTime leaves the transaction open: the connection must be closed.
        """
        transaction = self._connection.transaction()
        await transaction.start()
        cursor = self._connection.cursor(
            sql.query("company_changes"),
            xid,
            list(without),
            prefetch=max(1, min(AHEAD, PAGE_BYTES // max(1, largest))),
            timeout=BACKLOG_SECONDS,
        )
        former: tuple[object, ...] | None = None
        try:
            with self._in_time():
                async for row in cursor:
                    current = tuple(row)
                    if current != former:  # else the same, for another watch of its table
                        company, *change = current
                        yield company, Change(*change)
                    former = current
        except NotInTime:
            with suppress(TimeoutError):  # it has to wait until PostgreSQL ends the fetch
                await transaction.rollback()
            raise
        await transaction.commit()

    @contextmanager
    def _in_time(self) -> Iterator[None]:
        """Raises NotInTime where a statement misses its deadline. A link that was closed because it stalls is another fault."""
        try:
            yield
        except TimeoutError as error:
            if self._connection.is_closed():
                raise
            raise NotInTime from error


def _bytes(image: str | None) -> JSON | None:
    return None if image is None else image.encode()


def _ends_before(snapshot: str, former: str) -> bool:
    return int(snapshot.split(":")[1]) < int(former.split(":")[1])


def are_foreign(snapshot: str, xids: set[int]) -> bool:
    """Whether changes of these transactions are visible although `snapshot` does not see them."""
    _, xmax, running = snapshot.split(":")
    return max(xids) >= int(xmax) or (
        running != "" and not xids.isdisjoint(map(int, running.split(",")))
    )
