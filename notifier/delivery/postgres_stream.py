"""The stream over PostgreSQL: LISTEN, catch up, deliver.

A notification is only a hint to read the log; its sender is not trusted. After every (re)connection the listener is
set up first and the log is read afterwards, so none is missed.

While the broker is known to work, it delivers the messages of the companies that this node serves, and the log is
neither listened to nor read. When it is not, each channel is caught up with the log, and the log is followed again.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence

import structlog

from notifier import metrics
from notifier.database import sql
from notifier.database.answers import UNFIT, typed, unexpected
from notifier.database.connections import (
    DEADLINE_SECONDS,
    Connection,
    connected,
    reconnecting,
    server_of,
)
from notifier.database.floods import Flood
from notifier.database.primary import Followed
from notifier.database.query import Query, require_one_database
from notifier.delivery.healing import Healing
from notifier.delivery.history import Behind, End, History, Place, messages_of, traced_messages_of
from notifier.delivery.hub import Hub
from notifier.delivery.listening import POLL_SECONDS, Listening
from notifier.delivery.probe import Probe, report
from notifier.delivery.stream import Doubt, Feed
from notifier.errors import DatabaseError, SchemaMissing, UnexpectedAnswer
from notifier.health import Health
from notifier.messages import Message

PROBE_SECONDS = 4.0
"""How often the path is proven; this finds a dead link as well."""

AUDIT_SECONDS = 60.0
"""How often the channels are compared with the log while a broker delivers their messages."""

PAGE_MESSAGES, PAGE_BYTES = 1000, 8 * 1024 * 1024
"""How much of the log is read at once while the node catches up."""

GRACE_SECONDS = 0.02
"""How long a node waits for messages of its own relay before it reads them from the log."""

_logger = structlog.get_logger("notifier.stream")


class PostgresStream:
    """Follows the log on a link of its own. `query`: the link of the other queries, for comparison.

    `on_configuration`: called when `migrate` has changed the watches. `followed`: has the server while the link is open.
    """

    def __init__(
        self,
        url: str,
        query: Query,
        hub: Hub,
        history: History,
        health: Health,
        *,
        on_configuration: Callable[[], None] = lambda: None,
        followed: Followed | None = None,
        traces: bool = False,
    ) -> None:
        self._followed = followed or Followed()
        self._messages_of = traced_messages_of if traces else messages_of
        self._url = url
        self._query = query
        self._hub = hub
        self._health = health
        self._rules: Sequence[Callable[[Message], Message]] = ()
        self._on_configuration = on_configuration
        self._seq = 0  # of the last message delivered
        self._last: Message | None = None  # the last one that this node has, None before the first
        self._notified_seq = 0  # the highest seq that a notification named
        self._doubt = Doubt()
        self.doubt = self._doubt.begin
        self._is_local = False  # whether messages came by `accept` last
        self._unread = asyncio.Event()
        self._flood = Flood()
        self._feed: Feed | None = None
        self._follows_log = True  # otherwise the feed delivers the messages
        self._is_returning = False  # from the feed to the log
        self._audited = 0.0
        self._divisor = 1  # of a page's length: ten times as much after each missed deadline
        self.healing = Healing(hub, history, self.deliver)
        self._show_path(by_feed=False)

    def use(self, feed: Feed) -> None:
        """Lets a broker deliver the messages while it works. Call it before `run`."""
        self._feed = feed
        feed.changed = self._unread.set
        self._show_path(by_feed=False)

    def deliver(self, messages: Sequence[Message]) -> None:
        """Delivers the next messages of one company, which came otherwise than in the order of the log."""
        if not self._follows_log and messages[-1].seq > self._seq:
            self._seq = messages[-1].seq
            self._last = messages[-1]
        self._hand_over(messages)

    def use_rules(self, rules: Sequence[Callable[[Message], Message]]) -> None:
        """Passes each message through these before it is delivered.

        A rule may set `revokes` of a message, or note that accounts must be looked up.
        """
        self._rules = rules

    def accept(self, epoch: str, messages: Sequence[Message]) -> None:
        """Delivers messages that were just stored, in the order of seq.

        Where one is missing, between them or before them, the log is read instead.
        """
        if not messages:
            return
        first, last = messages[0].seq, messages[-1].seq
        if (
            self._doubt.allows(messages, self._last)
            and epoch == self._hub.epoch
            and self._follows_log
            and first == self._seq + 1
            and last - first == len(messages) - 1
        ):
            self._is_local = True
            self._seq = last
            self._last = messages[-1]
            self._hand_over(messages)
        elif last > self._seq or epoch != self._hub.epoch:
            self._is_local = False
            self._unread.set()

    def _hand_over(self, messages: Sequence[Message]) -> None:
        metrics.RECEIVE.observe(max(0.0, time.time() - messages[0].stored.timestamp()))
        try:
            for rule in self._rules:
                messages = [rule(each) for each in messages]
            self._hub.deliver(messages)
        except UNFIT as error:  # some of them may not have been written, and are not read again
            self._hub.drop()
            raise unexpected(error) from error

    async def run(self) -> None:
        """Follows the log for ever; reconnects after every DatabaseError."""
        await reconnecting("node", self._connect)

    async def _connect(self) -> None:
        try:
            async with connected(self._url, "node") as connection:
                await self._follow(connection)
        except DatabaseError as error:
            self._followed.server = None
            self._health.lost(str(error))
            self.doubt()
            raise

    async def _follow(self, connection: Connection) -> None:
        probe, closed = Probe(), asyncio.Event()
        self._notified_seq = 0

        def notified(seq: int) -> None:
            if seq > self._seq:
                self._notified_seq = seq
                self._unread.set()

        def on_close(_: object) -> None:
            closed.set()
            self._unread.set()

        connection.add_termination_listener(on_close)
        self._followed.server = server_of(connection)
        listening = Listening(
            connection, self._flood, notified, self._on_configuration, probe.receive
        )
        if self._follows_log:
            await listening.begin()
        self._on_configuration()  # it may have changed while there was no link
        if self._query.url != self._url:
            await require_one_database(self._query, connection)
        await self._report_rewind(connection)
        if self._follows_log:
            await self._catch_up(connection)
        probed = 0.0
        while not closed.is_set():
            if time.monotonic() - probed >= PROBE_SECONDS:
                await self._prove(connection, probe, listening)
                probed = time.monotonic()
            if self._feed is not None:
                await self._choose_path(connection, self._feed, listening)
            polls = self._follows_log and not listening.is_on
            if not await self._is_woken(probed + PROBE_SECONDS, polls=polls):
                continue
            if not polls and await self._is_served_locally():
                continue
            self._unread.clear()
            if not self._follows_log:
                continue
            before = self._seq
            await self._catch_up(connection)
            if self._seq == before:
                await asyncio.sleep(
                    GRACE_SECONDS
                )  # nothing new: a flood of notifications must not become a flood of queries
        raise DatabaseError("the connection was closed")

    async def _prove(self, connection: Connection, probe: Probe, listening: Listening) -> None:
        """Probes the path, and looks for messages that no notification has announced.

        A log that ends before what was delivered was rewound, or an answer was wrong: messages may be taken for
        delivered that were not. Then `_report_rewind` decides.
        """
        epoch, seq = self._hub.epoch, self._seq
        if self._follows_log and not listening.is_on:
            await listening.begin()
            self._on_configuration()  # it may have changed meanwhile
        found = await probe.run(connection, listens=listening.is_on)
        report(found, self._health)
        ((begun, ends),) = typed([(found["epoch"], found["seq"])], Place)
        if begun == epoch == self._hub.epoch and ends < seq:
            raise UnexpectedAnswer(f"the log ends before what was delivered: at {ends}, not {seq}")
        if self._feed is not None:
            self._feed.logged(ends)
        if self._follows_log:
            if (begun, ends) != (self._hub.epoch, self._seq):
                await self._catch_up(connection)
        elif time.monotonic() - self._audited >= AUDIT_SECONDS:
            await self._audit(connection)

    async def _choose_path(self, connection: Connection, feed: Feed, listening: Listening) -> None:
        """Leaves delivery to the feed where it is proven, and takes it back where it is not."""
        if self._follows_log and self._hub.epoch and feed.is_wanted and await feed.subscribe():
            await self._catch_up(connection)
            if feed.start():
                self._follows_log = False
                self._audited = time.monotonic()
                _logger.info("messages come from the broker")
                await listening.end()
        elif not self._follows_log and (self._is_returning or not feed.is_wanted):
            self._is_returning = True
            feed.stop()
            await listening.begin()
            self._on_configuration()  # a beat that announced it may be lost
            seq, audited = await self._audit(connection)
            await self._compare_opened(audited)
            self._seq = seq  # only now: what was delivered meanwhile has moved it, past messages of other companies
            self._follows_log, self._is_returning = True, False
            feed.resumed()
            _logger.info("messages come from the log")
            await self._catch_up(connection)
        self._show_path(by_feed=feed.is_proven and not (self._follows_log and feed.is_wanted))

    async def _compare_opened(self, audited: set[str]) -> None:
        """Delivers what channels lack that were opened during the audit.

        Neither path has delivered messages that were stored after such a channel's position was read and before the
        audit. The feed compares the channels that are still being opened.
        """
        while opened := {
            company
            for company in self._hub.companies() - audited
            if self._hub.accepted(company) is not None
        }:
            await self.healing.heal(dict.fromkeys(opened, 0))
            audited |= opened

    async def _audit(self, connection: Connection) -> tuple[int, set[str]]:
        """Delivers messages that channels lack. Returns the last seq of the log before that, and the channels' companies.

        In another epoch nothing is delivered: the log must be followed.
        """
        self._audited = time.monotonic()
        accepted = {company: self._hub.accepted(company) for company in self._hub.companies()}
        delivered = {
            company: position for company, position in accepted.items() if position is not None
        }
        rows = await connection.fetch(
            sql.query("channels_behind"),
            list(delivered),
            list(delivered.values()),
            timeout=DEADLINE_SECONDS * 4,
        )
        if not rows:
            raise SchemaMissing("the log is empty; run: notifier migrate")
        behind = typed(rows, Behind)
        if behind[0].epoch == self._hub.epoch:
            await self.healing.heal(
                {row.company: row.position or 0 for row in behind if row.company is not None}
            )
        return behind[0].seq, set(delivered)

    async def _is_woken(self, deadline: float, *, polls: bool) -> bool:
        """Waits until the log must be read. Returns False at the deadline. `polls`: it must be read every POLL_SECONDS."""
        left = max(0.0, deadline - time.monotonic())
        try:
            async with asyncio.timeout(min(left, POLL_SECONDS) if polls else left):
                return await self._unread.wait()
        except TimeoutError:
            return polls

    async def _is_served_locally(self) -> bool:
        """Whether the relay on this node delivers within GRACE_SECONDS; then the log need not be read."""
        if not self._is_local:
            return False
        if self._seq >= self._notified_seq:  # delivered between the notification and now
            self._unread.clear()
            return True
        before = self._seq
        await asyncio.sleep(GRACE_SECONDS)
        if self._seq == before:
            self._is_local = False
        elif self._seq >= self._notified_seq and self._is_local:
            self._unread.clear()
        return self._seq > before

    async def _report_rewind(self, connection: Connection) -> None:
        """Makes the relay begin an epoch where the log does not continue what this node has delivered.

        Its storage was rolled back, or a crash lost commits: positions are given a second time. Nothing
        is delivered before the epoch begins: raises DatabaseError.
        """
        last = self._last
        known = (last.company, last.position, last.at, last.seq) if last else (None,) * 4
        if await connection.fetchval(
            sql.query("report_rewind"),
            self._hub.epoch,
            self._seq,
            *known,
            timeout=DEADLINE_SECONDS,
        ):
            _logger.error("the log was rewound: a new epoch must begin", delivered=self._seq)
            raise DatabaseError("the log was rewound: a new epoch must begin")

    async def _catch_up(self, connection: Connection) -> None:
        """Reads the messages after the last delivered one, page by page."""
        hub = self._hub
        if not hub.epoch:
            heads = await connection.fetch(sql.query("log_head"), timeout=DEADLINE_SECONDS)
            if not heads:
                raise SchemaMissing("the log is empty; run: notifier migrate")
            (end,) = typed(heads, End)
            self._seq, self._last = end.seq, end.message
            hub.begin_epoch(end.epoch)
            return
        while True:
            after, epoch = self._seq, hub.epoch
            limit = max(1, PAGE_MESSAGES // self._divisor)
            try:
                rows = await connection.fetch(
                    sql.query("catch_up"),
                    after,
                    epoch,
                    limit,
                    PAGE_BYTES,
                    timeout=DEADLINE_SECONDS * 4,
                )
            except TimeoutError:  # very large texts, whose sizes PostgreSQL does not know in time?
                self._divisor = min(PAGE_MESSAGES, 10 * self._divisor)
                raise
            if self._seq != after or hub.epoch != epoch:
                continue  # the relay on this node was faster
            if not rows:
                raise SchemaMissing("the log is empty; run: notifier migrate")
            ((begun, begun_at),) = typed([rows[0][:2]], Place)
            messages = [] if rows[0]["seq"] is None else self._messages_of(rows, first=2)
            if begun != epoch:
                self._seq = begun_at
                self._last = None
                hub.begin_epoch(begun)
            if not messages:
                break
            seqs = [message.seq for message in messages]
            if seqs != sorted(set(seqs)) or seqs[0] <= self._seq:
                raise UnexpectedAnswer(
                    "the database gave messages that are repeated or not in their order"
                )
            if seqs[-1] != self._seq + len(messages):
                _logger.error("missed messages that the log no longer has", after=self._seq)
                hub.drop()
            self._seq = seqs[-1]
            self._last = messages[-1]
            self._hand_over(messages)
            if len(messages) < limit and sum(m.size for m in messages) < PAGE_BYTES:
                break
            await asyncio.sleep(0)
        self._divisor = 1
        hub.require_resyncs()

    def _show_path(self, *, by_feed: bool) -> None:
        metrics.PATH.labels("nats").set(by_feed)
        metrics.PATH.labels("postgres").set(not by_feed)
        if self._feed is not None:
            self._health.path = "nats" if by_feed else "postgres"
