"""The relay's side of the database: election, changes, messages, epochs, and the log's room on disk.

Two connections: the writer holds the relay's lock and stores, so that a relay that has lost its lock
cannot write; the reader reads the next changes meanwhile. `sql/tables/log.sql` explains the tables.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import datetime
from typing import Any

import asyncpg
import msgspec

from notifier.database import sql
from notifier.database.connections import DEADLINE_SECONDS, Connection, connected, listener
from notifier.errors import SchemaMissing, Unreachable
from notifier.messages import Message
from notifier.relay.changes import Change, Watched

DOORBELL = 7815279001
"""The advisory lock that the sleeping relay holds; `sql/functions/capture.sql` tries it."""

ELECTION_SECONDS = 2.0
"""How often a node that does not relay asks whether it may."""

SLOTS = 8
LONG_SECONDS = 60.0
"""How long a statement may take that reads a good part of the log."""

PAGE = 2000
"""Changes that are held in memory at once."""

PAGE_BYTES = 32 * 1024 * 1024
"""And what their rows may weigh."""

REOPENING = 1 << 62
"""For a transaction id: the log was full, and what to do about it has begun."""

_ERA = 1 << 32
_FULL = 1 << 62


class Place(msgspec.Struct):
    """Where the relay is: `cursor` is a snapshot, everything that it sees was read."""

    epoch: str
    seq: int
    cursor: str
    slot: int
    slot_since: datetime
    target: str | None = None
    upto: int = 0
    unsettled: int | None = None


class Log:
    """What the relay asks of the database. Made by `open_log`; calls raise the driver's exceptions."""

    def __init__(self, writer: Connection, reader: Connection) -> None:
        self._writer = writer
        self._reader = reader
        self._busy = asyncio.Lock()  # one call at a time on the writer
        self._ended = asyncio.Event()
        for connection in (writer, reader):
            connection.add_termination_listener(lambda _: self._ended.set())
        self.asleep = False

    async def holds(self, seconds: float) -> None:
        """Returns after so long. Raises Unreachable as soon as one of the connections has ended."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._ended.wait()
                raise Unreachable("the database ended the relay's connection")

    async def ask(self, query: str, *arguments: Any) -> asyncpg.Record | None:
        """One row from the writer, within the deadline."""
        async with self._busy:
            return await self._writer.fetchrow(query, *arguments, timeout=DEADLINE_SECONDS)

    # --- the doorbell

    async def lie_down(self) -> bool:
        """Takes the doorbell's lock; fails while a writer of the app's is in flight."""
        row = await self.ask("SELECT pg_try_advisory_lock($1)", DOORBELL)
        self.asleep = bool(row and row[0])
        return self.asleep

    async def get_up(self) -> None:
        """Gives the doorbell's lock back: from now on nobody rings."""
        if self.asleep:
            self.asleep = False
            await self.ask("SELECT pg_advisory_unlock($1)", DOORBELL)

    # --- the place

    async def recall(self) -> tuple[Place, str | None]:
        """The place where the relay before stopped, and why an epoch must begin, if it must."""
        row = await self.ask(sql.query("load_checkpoint"))
        if row is None:
            raise SchemaMissing("the log is empty; run: notifier migrate")
        place = Place(
            epoch=row["epoch"],
            seq=row["seq"],
            cursor=row["cursor"],
            slot=row["slot"],
            slot_since=row["slot_since"],
            target=row["target"],
            upto=row["upto"] or 0,
            unsettled=row["unsettled"],
        )
        if row["ahead"]:
            return place, "epoch"
        if row["system"] == row["now_system"]:
            return place, None
        cluster, now_cluster = (row[name].rpartition("/")[0] for name in ("system", "now_system"))
        if place.seq == 0 and cluster == now_cluster:
            # A copy of a database whose log was never read: its changes are as good as ours.
            copy = await self.ask(
                "UPDATE notifier.log SET system = notifier.system(),"
                " epoch = substr(md5(gen_random_uuid()::text), 1, 12) RETURNING epoch"
            )
            place.epoch = copy["epoch"] if copy is not None else place.epoch
            return place, None
        return place, "epoch"

    async def watched(self) -> dict[str, Watched]:
        """What `notifier migrate` wrote down of the watched tables."""
        async with self._busy:
            rows = await self._writer.fetch(sql.query("watches"), timeout=DEADLINE_SECONDS)
        return {
            row["entity"]: Watched(
                entity=row["entity"],
                key=row["key"],
                company=row["company"],
                member=row["member"],
                created=row["created"],
                updated=row["updated"],
                deleted=row["deleted"],
                untouched=frozenset(row["untouched"]),
                virtual=frozenset(row["virtual"]),
            )
            for row in rows
        }

    async def begin_epoch(self, place: Place, reason: str) -> None:
        """A new log; every company that the old one knew hears a Resync as its first message."""
        async with self._busy, self._writer.transaction():
            await self._writer.execute(
                "INSERT INTO notifier.positions (company)"
                " SELECT DISTINCT company FROM notifier.messages ON CONFLICT DO NOTHING",
                timeout=LONG_SECONDS,
            )
            await self._writer.execute("SET LOCAL lock_timeout = '1s'")
            try:
                async with self._writer.transaction():
                    await self._writer.execute("TRUNCATE notifier.messages", timeout=LONG_SECONDS)
            except asyncpg.LockNotAvailableError:  # somebody reads, a backup maybe
                await self._writer.execute("DELETE FROM notifier.messages", timeout=LONG_SECONDS)
            row = await self._writer.fetchrow(
                sql.query("begin_epoch"), reason, place.seq, timeout=LONG_SECONDS
            )
        assert row is not None
        place.epoch, place.seq, place.cursor = row["epoch"], row["seq"], row["cursor"]
        place.target, place.upto, place.slot = None, 0, 0

    async def companies(self) -> list[str]:
        """Every company that the log knows."""
        async with self._busy:
            rows = await self._writer.fetch(
                "SELECT company FROM notifier.positions UNION SELECT company FROM notifier.messages",
                timeout=LONG_SECONDS,
            )
        return [row[0] for row in rows]

    async def heads(self, companies: Iterable[str]) -> dict[str, int]:
        """The present positions of companies."""
        async with self._busy:
            rows = await self._writer.fetch(sql.query("company_heads"), list(companies))
        return {row["company"]: row["position"] for row in rows}

    # --- changes

    async def fresh(self, cursor: str) -> tuple[str, list[Change] | None]:
        """The present snapshot, and what became visible since `cursor`; None: more than a page."""
        rows = await self._reader.fetch(
            sql.query("read_changes"), cursor, PAGE + 1, PAGE_BYTES, timeout=DEADLINE_SECONDS * 4
        )
        if rows[0][1] is None:
            return rows[0][0], []
        if len(rows) > PAGE or rows[-1]["bytes"] >= PAGE_BYTES:
            return rows[0][0], None
        return rows[0][0], [Change(*tuple(row)[1:-1]) for row in rows]

    async def transactions(self, place: Place) -> list[tuple[int, int, int, int]]:
        """A backlog: xid, last id, number and bytes of changes of each transaction still to be read."""
        rows = await self._reader.fetch(
            sql.query("transactions"), place.cursor, place.target, place.upto, timeout=600
        )
        return [tuple(row) for row in rows]

    async def changes_of(self, xids: Sequence[int]) -> list[Change]:
        """All changes of some transactions, by id."""
        rows = await self._reader.fetch(sql.query("transaction_changes"), list(xids), timeout=60)
        return [Change(*tuple(row)) for row in rows]

    async def weigh(self, xid: int) -> list[tuple[str, int, datetime]]:
        """Of a large transaction: each company (in JSON), how many rows, the time of the last."""
        rows = await self._reader.fetch(sql.query("weigh_transaction"), xid, timeout=600)
        return [tuple(row) for row in rows]

    async def by_company(
        self, xid: int, without: Sequence[str]
    ) -> AsyncIterator[tuple[str | None, Change]]:
        """The changes of a large transaction, company by company, a few hundred in memory at once."""
        async with self._reader.transaction():
            cursor = self._reader.cursor(
                sql.query("company_changes"), xid, list(without), prefetch=500, timeout=600
            )
            async for row in cursor:
                company, *change = tuple(row)
                yield company, Change(*change)

    # --- messages

    async def store(self, place: Place, messages: Sequence[Message], cursor: str | None) -> None:
        """Appends messages and, with the last of them, the cursor; in one statement."""
        await self.ask(
            sql.query("store_messages"),
            place.slot,
            messages[0].seq,
            [message.company for message in messages],
            [message.position for message in messages],
            [message.at for message in messages],
            messages[-1].stored,
            [message.body for message in messages],
            messages[-1].seq,
            cursor,
            [_array(message.revokes) if message.revokes else "" for message in messages]
            if any(message.revokes for message in messages)
            else None,
        )

    async def keep(self, place: Place) -> None:
        """Writes the place into the log's own row."""
        await self.ask(
            "UPDATE notifier.log SET seq = $1, cursor = $2, target = $3, upto = $4, slot = $5,"
            " slot_since = $6, unsettled = $7::bigint::text::xid8",
            place.seq,
            place.cursor,
            place.target,
            place.upto,
            place.slot,
            place.slot_since,
            place.unsettled,
        )

    @asynccontextmanager
    async def together(self) -> AsyncIterator[None]:
        """What is stored in the block is one transaction.

        It may take long: others have their turns meanwhile, above all whoever shows that we live.
        A failure ends the connection, and the transaction with it.
        """
        transaction = self._writer.transaction()
        async with self._busy:
            await transaction.start()
        yield
        async with self._busy:
            await transaction.commit()

    # --- room on disk

    async def overflowed(self) -> bool:
        """Whether capture has stopped storing."""
        row = await self.ask("SELECT last_value FROM notifier.change_ids")
        return bool(row and row[0] >= _FULL)

    async def reopen(self) -> int | None:
        """Empties what nobody writes to, read or not, and lets capture store again.

        What transactions in flight dropped is still to come to light: they are those before the
        returned transaction id, None where there is none in flight.
        """
        row = await self.ask("SELECT notifier.reopen() AS unsettled")
        return row["unsettled"] if row is not None else None

    async def settled(self, xid: int) -> bool:
        """Whether every transaction before `xid` has ended."""
        row = await self.ask(
            "SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint >= $1", xid
        )
        return bool(row and row[0])

    async def turn(self, place: Place, bytes_limit: int) -> bool:
        """Empties the table of changes that is not written to, and turns to it when worth while.

        Returns whether it turned. Nothing unread is emptied: the table's lock is to be had only when
        no transaction in flight has written to it, and then every row in it must be in the cursor.
        """
        async with self._busy:
            row = await self._writer.fetchrow(
                "SELECT last_value, pg_relation_size('notifier.changes_0') AS zero,"
                " pg_relation_size('notifier.changes_1') AS one FROM notifier.change_ids"
            )
            assert row is not None
            last = int(row["last_value"])
            if last >= _FULL:
                return False
            current = last // _ERA % 2
            sizes = (int(row["zero"]), int(row["one"]))
            if sizes[1 - current] and not await self._empty(1 - current, place):
                return False
            if sizes[current] < bytes_limit:
                return False
            return bool(await self._writer.fetchval("SELECT notifier.rotate_changes()"))

    async def _empty(self, which: int, place: Place) -> bool:
        return bool(
            await self._writer.fetchval(
                "SELECT notifier.truncate_changes($1, $2, $3)", which, place.cursor, place.seq
            )
        )

    async def prune(self, place: Place, retention_hours: float, bytes_limit: int) -> bool:
        """Turns to the next slot of messages, and empties it, when this one is old or large enough.

        The companies keep their positions. Returns whether it turned.
        """
        async with self._busy:
            due = await self._writer.fetchval(
                f"SELECT pg_total_relation_size('notifier.messages_{place.slot}') > $1"
                f" OR EXISTS (SELECT FROM notifier.messages_{place.slot})"
                " AND clock_timestamp() > $2::timestamptz + $3::float8 * interval '1 hour'",
                bytes_limit // SLOTS,
                place.slot_since,
                retention_hours / (SLOTS - 2),
            )
            if not due:
                return False
            slot = (place.slot + 1) % SLOTS
            since = await self._writer.fetchval(
                "SELECT notifier.prune($1, $2, $3)",
                slot,
                place.cursor,
                place.seq,
                timeout=LONG_SECONDS,
            )
            if since is None:
                return False
            place.slot, place.slot_since = slot, since
        return True

    async def sizes(self) -> tuple[int, int]:
        """Bytes of changes and messages together, and their cap."""
        row = await self.ask(
            "SELECT notifier.log_bytes() AS bytes, max_log_bytes FROM notifier.configuration"
        )
        return (row["bytes"], row["max_log_bytes"]) if row else (0, 0)


def _array(users: tuple[str, ...]) -> str:
    """As a JSON array: an id may hold any character that could separate it from the next."""
    return msgspec.json.encode(users).decode()


@asynccontextmanager
async def open_log(url: str, ring: Callable[[str], None]) -> AsyncIterator[Log]:
    """Waits until this node may be the relay; then the log is open as long as the block runs."""
    # What a client is told of must outlive a crash, whatever the database's own taste.
    async with connected(url, "relay", synchronous_commit="on") as writer:
        with suppress(asyncpg.PostgresError):  # not every system that a server runs on can
            # Whoever waits for a lock of the app's would keep the relay's lock though nobody is there.
            await writer.execute("SET client_connection_check_interval = '2s'")
        await writer.add_listener("notifier_changes", listener(ring))
        while True:
            row = await writer.fetchrow(sql.query("elect"), timeout=DEADLINE_SECONDS)
            if row is not None and row["elected"]:
                break
            await asyncio.sleep(0.1 if row is not None and row["ended"] else ELECTION_SECONDS)
        async with connected(
            url,
            "relay reader",
            enable_seqscan="off",
            enable_bitmapscan="off",
            plan_cache_mode="force_generic_plan",
            statement_timeout="0",
        ) as reader:
            if reader.get_settings().server_encoding == "SQL_ASCII":
                # Its bytes may be no text at all: they are taken as they are.
                await reader.execute("SET client_encoding = 'SQL_ASCII'")
                await reader.set_type_codec(
                    "text",
                    schema="pg_catalog",
                    encoder=str.encode,
                    decoder=lambda text: bytes(text).decode(errors="replace"),
                    format="binary",
                )
            yield Log(writer, reader)
