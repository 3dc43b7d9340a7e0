"""The pipeline: read changes, net and render them, number the messages, store and publish them.

The next batch is read and netted while the previous one is being stored.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine, Mapping, Sequence
from typing import Any, NamedTuple

import structlog

from notifier import metrics
from notifier.messages import Message
from notifier.relay import portions
from notifier.relay.changes import Change, Source
from notifier.relay.connection import RelayConnection
from notifier.relay.images import cost_of
from notifier.relay.isolation import REFUSED, Isolation
from notifier.relay.moves import Moves
from notifier.relay.netting import AnyDraft, net
from notifier.relay.numbering import Numbering
from notifier.relay.publisher import Publisher
from notifier.relay.reader import ChangeReader, ForeignChanges, OrderLost
from notifier.relay.store import RelayStore
from notifier.relay.swaps import Swaps
from notifier.relay.tracing import NO_LINKS, UNTRACED, BatchTrace, RelayTracer

INLINE_LIMIT = 200
"""Up to this many changes are netted on the event loop (about 5 ms); more go to a thread."""

INLINE_BYTES = 1024 * 1024
"""The same for the bytes of their images (`cost_of`): an array of numbers takes up to 30 ms for a MiB."""

_log = structlog.get_logger("notifier.relay")


class TooMuch(NamedTuple):
    """There are more changes than a page: they are a backlog up to the snapshot `target`."""

    target: str


class Pipeline:
    """Turns changes into stored messages. At most one batch is being stored at any time."""

    def __init__(
        self,
        writer: RelayConnection,
        store: RelayStore,
        reader: ChangeReader,
        publisher: Publisher,
        bulk_limit: int,
        *,
        tracer: RelayTracer = UNTRACED,
    ) -> None:
        self._writer = writer
        self._store = store
        self._isolation = Isolation(writer, store)
        self._reader = reader
        self._publisher = publisher
        self._bulk_limit = bulk_limit
        self.tracer = tracer
        self._numbering = Numbering(store)
        self._read_until = ""  # the snapshot of the last read; what it sees may not be stored yet
        self._storing: asyncio.Task[None] | None = None
        self._catalogue_version = 0  # that of the reader when the sources were last read for it
        self.sources: dict[str, Source] = {}
        self.moves = Moves()
        self.swaps: Swaps | None = (
            None  # of a backlog, whose pages are in the order of last changes
        )

    async def start(self) -> None:
        """Loads the checkpoint, and begins an epoch where the log cannot be continued."""
        reason = await self._store.load()
        await self.refresh_sources()
        self._read_until = self._store.checkpoint.cursor
        self.moves.begin(self._read_until, await self._store.load_moves())
        if reason is not None:
            await self.begin_epoch(reason)
        else:
            await self._store.save()  # this version of the row is ours from now on

    async def stop(self) -> None:
        """Cancels what is being stored."""
        if self._storing is not None:
            self._storing.cancel()
            await asyncio.gather(self._storing, return_exceptions=True)

    async def wait_for_changes(self, seconds: float) -> bool:
        """Waits for changes since the last read, while its batch is stored. Returns False where none are found in time."""
        return await self._reader.wait_for_new(self._read_until, seconds)

    async def take(self) -> int | TooMuch:
        """Reads the new changes and begins to store their messages; the number of changes."""
        trace = self.tracer.begin()
        began = time.monotonic()
        try:
            snapshot, changes = await self._reader.read_new(self._read_until)
        except ForeignChanges:
            _log.error("changes that another cluster captured are in the log: they are discarded")
            await self.stored()
            await self.begin_epoch("epoch")
            return 0
        except OrderLost:
            _log.error("the sequence of changes was set back: those that wait are discarded")
            await self.stored()
            await self.begin_epoch("epoch")
            return 0
        if changes is None:
            await self.stored()
            return TooMuch(snapshot)
        if not changes:
            if self._storing is None or self._storing.done():
                await self.stored()
                await self._settle(snapshot)
                self._store.nothing_until(snapshot)
            self._read_until = snapshot
            return 0
        if any(change.begins_epoch for change in changes):
            _log.warning("columns or rows were hidden: the log is emptied")
            await self.stored()
            await self.refresh_sources()
            await self.begin_epoch("epoch")
            return 0
        trace.read(changes)
        read = time.monotonic() - began
        metrics.READ.observe(read)
        metrics.WAIT.observe(max(0.0, time.time() - read - changes[0].at.timestamp()))
        drafts = await self.net(changes, trace)
        netted = time.monotonic()
        metrics.NET.observe(netted - began - read)
        await self.stored()
        await self._settle(snapshot)
        messages = await self.number(drafts, trace.links)
        self._read_until = snapshot
        if messages:
            self.begin_storing(self._append(messages, snapshot, trace, since=netted))
            await asyncio.sleep(0)  # the statement is sent before the next read
        else:
            # Otherwise probes would count the changes as unread.
            await self._store.save(cursor=snapshot)
            trace.end()
        return len(changes)

    async def _append(
        self,
        messages: Sequence[Message],
        cursor: str,
        trace: BatchTrace = UNTRACED,
        *,
        since: float | None = None,
    ) -> None:
        with trace.stage("store"):
            if portions.are_many(messages):
                messages = await self._append_many(messages, cursor)
            else:
                try:
                    await self._store.append(messages, cursor)
                except REFUSED:
                    async with self._writer.transaction():
                        messages = await self._isolation.append(messages)
                        await self._store.save(cursor=cursor)
        if since is not None:
            metrics.STORE.observe(time.monotonic() - since)
        metrics.BATCHES.inc()
        metrics.MESSAGES.inc(len(messages))
        if messages:
            self.publish(messages, trace)
        trace.end()

    async def _append_many(self, messages: Sequence[Message], cursor: str) -> list[Message]:
        """Stores messages in portions, in one transaction. Returns those that PostgreSQL accepted."""
        stored: list[Message] = []
        async with self._writer.transaction():
            for portion in portions.portions_of(messages):
                stored += await self._isolation.append(portion)
            await self._store.save(cursor=cursor)
        return stored

    # --- steps, which backlog and maintenance use too

    async def net(self, changes: Sequence[Change], trace: BatchTrace = UNTRACED) -> list[AnyDraft]:
        """The messages of whole transactions, in the order of their last changes.

        A transaction that waited for a row lock of another one therefore comes after it.
        """
        metrics.CHANGES.inc(len(changes))
        version = self._reader.catalogue_version
        if version != self._catalogue_version:  # a table may have other columns
            self._catalogue_version = version
            await self.refresh_sources()
        elif not self.sources.keys() >= {change.entity for change in changes}:
            await self.refresh_sources()  # the table may be watched since a moment ago
        last = {change.xid: change.id for change in changes}
        ordered = sorted(changes, key=lambda change: (last[change.xid], change.id))
        arguments = ordered, self.sources, self._bulk_limit, trace.links, self.swaps
        with trace.stage("net"):
            if len(ordered) > INLINE_LIMIT or sum(map(cost_of, ordered)) > INLINE_BYTES:
                drafts, unattributed = await asyncio.to_thread(net, *arguments)
            else:
                drafts, unattributed = net(*arguments)
        if unattributed:
            metrics.BROKEN.inc(unattributed)
            _log.error(
                "changes without key or company: every company gets a Resync", changes=unattributed
            )
        return [*drafts, *again] if (again := self.moves.resyncs(ordered, last)) else drafts

    async def _settle(self, snapshot: str) -> None:
        """Everything that `snapshot` sees was netted, and what was read before it is stored."""
        self.moves.advance(
            snapshot, await self._store.transaction_id() if self.moves.are_new else 0
        )
        await self.save_moves()

    async def save_moves(self) -> None:
        """Stores the moves that another relay needs."""
        if (moves := self.moves.unsaved()) is not None:
            await self._store.save_moves(moves)

    async def number(
        self, drafts: Sequence[AnyDraft], links: Mapping[int, str] = NO_LINKS
    ) -> list[Message]:
        """The messages of the drafts. Every message before must be stored already."""
        return await self._numbering.number(drafts, traced=bool(links))

    def begin_storing(self, storing: Coroutine[Any, Any, None]) -> None:
        """Lets `storing` run while the next changes are read; `stored` waits for it."""
        self._storing = asyncio.create_task(storing)

    async def stored(self) -> None:
        """Waits until the batch before is stored; raises its error."""
        storing, self._storing = self._storing, None
        if storing is not None:
            await storing

    def publish(self, messages: Sequence[Message], trace: BatchTrace = UNTRACED) -> None:
        """Hands stored messages to the nodes."""
        with trace.stage("publish"):
            self._publisher.publish(self._store.checkpoint.epoch, messages)

    def skip(self) -> None:
        """The nodes read stored messages that were not handed to them."""
        checkpoint = self._store.checkpoint
        self._publisher.skip(checkpoint.epoch, checkpoint.seq)

    # --- what happens between batches

    async def send(self, drafts: Sequence[AnyDraft]) -> None:
        """Stores messages that come from no change."""
        messages = await self.number(drafts)
        if messages:
            await self._append(messages, self._store.checkpoint.cursor)

    async def end_backlog(self, target: str) -> None:
        """Everything up to the snapshot `target` is stored."""
        self._read_until = target
        self.swaps = None
        await self._settle(target)
        await self._store.save(cursor=target, target=None, upto=0)

    async def refresh_sources(self) -> None:
        """Reloads the watched tables: `notifier migrate` may have changed them."""
        former, self.sources = self.sources, await self._store.load_sources()
        for entity in former.keys() & self.sources.keys():
            self.sources[entity] = self.sources[entity].remembering(former[entity])
        self.moves.configure(self.sources)

    async def begin_epoch(self, reason: str) -> None:
        """Begins an empty log; every known company has a Resync in it."""
        before = self._store.checkpoint.seq
        await self._store.begin_epoch(reason)
        checkpoint = self._store.checkpoint
        metrics.RESYNCS.labels(reason).inc(checkpoint.seq - before)
        self._numbering.clear()
        self.moves.begin(checkpoint.cursor, await self._store.load_moves())
        self._read_until = checkpoint.cursor
        await self._store.save()
        self.skip()
        _log.warning("a new epoch begins", epoch=checkpoint.epoch, reason=reason)
