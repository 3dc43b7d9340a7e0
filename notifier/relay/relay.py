"""The relay: reads changes as they become visible, makes messages of them, numbers and stores them.

There is one in the cluster, elected by a lock. It reads by snapshots (`sql/queries/read_changes.sql`), so a
late commit is no hole and a long transaction nobody's delay. While changes come it reads again and
again; when none come it sleeps until a writer rings (`sql/functions/capture.sql` has the other half).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from itertools import zip_longest
from typing import NamedTuple

import msgspec
import structlog

from notifier import metrics
from notifier.database.connections import reconnecting
from notifier.messages import Message
from notifier.relay.changes import (
    EVERY_COMPANY,
    Change,
    Draft,
    Transaction,
    company_named,
    fill,
    resync,
    translate,
)
from notifier.relay.store import PAGE, PAGE_BYTES, REOPENING, Log, open_log

Deliver = Callable[[str, Sequence[Message]], None]
"""Takes the epoch and messages that were stored just now, in the order of seq."""

LOOK_SECONDS = 3.0
"""The sleeping relay looks without being rung this often; it is its heartbeat as well."""

IDLE_PAUSES = (0.001, 0.002, 0.004, 0.008)
"""Awake and without changes, the relay pauses so, then tries to sleep."""

WRITER_IN_FLIGHT_PAUSES = (0.01, 0.02, 0.04)
"""While a writer's transaction stays open the relay cannot sleep; it reads less often."""

DOORLESS_PAUSE = 0.1
PAUSE_PER_CHANGE, LONGEST_PAUSE = 0.0002, 0.02
"""The more changes come at once, the longer it waits for more: a batch costs what a change costs."""

CHORES_SECONDS, IDLE_CHORES_SECONDS = 1.0, 6.0
RING_SECONDS = 1.0
FEW = 200
"""Changes that are translated at once: some five milliseconds."""

CHUNK = 1000
PORTION_BYTES = 8 * 1024 * 1024
TURN_BYTES = 8 * 1024 * 1024
HEADS_LIMIT = 100_000

_log = structlog.get_logger("notifier.relay")


class Relay:
    """Runs for ever; leads while it has the lock. `deliver` is called on this node only."""

    def __init__(
        self,
        url: str,
        *,
        bulk_limit: int,
        retention_hours: float,
        doorbell: bool,
        deliver: Deliver,
    ) -> None:
        self._url = url
        self._bulk_limit = bulk_limit
        self._retention_hours = retention_hours
        self._doorbell = doorbell
        self._deliver = deliver
        self._rung = asyncio.Event()
        self.leading = False

    async def run(self) -> None:
        """Leads whenever it may; comes back after every failure of the database."""
        await reconnecting("relay", self._lead)

    async def _lead(self) -> None:
        try:
            async with open_log(self._url, self._ring) as log:
                await _Lead(self, log).run()
        finally:
            self.leading = False
            metrics.RELAY.set(0)
            metrics.AWAKE.set(0)

    def _ring(self, _payload: str) -> None:
        self._rung.set()


class _Lead:
    """One term of office: what it knows is forgotten with its connection."""

    def __init__(self, relay: Relay, log: Log) -> None:
        self._relay = relay
        self._log = log
        self._rung = relay._rung
        self._heads: dict[str, int] = {}
        self._reading: asyncio.Task[list[Change]] | None = None
        self._writing: asyncio.Task[None] | None = None
        self._chores_at = 0.0

    async def run(self) -> None:
        self._place, reason = await self._log.recall()
        self._watched = await self._log.watched()
        if reason is not None:
            await self._begin_epoch(reason)
        self._read = self._place.cursor
        await self._overflowed()  # before the backlog: a new epoch makes it worthless
        self._relay.leading = True
        metrics.RELAY.set(1)
        metrics.AWAKE.set(1)
        _log.info("relay leads", epoch=self._place.epoch, seq=self._place.seq)
        following = asyncio.create_task(self._follow())
        beating = asyncio.create_task(self._beat())
        try:
            await asyncio.wait({following, beating}, return_when=asyncio.FIRST_COMPLETED)
            await (following if following.done() else beating)
        finally:
            working = (following, beating, self._reading, self._writing)
            tasks = [task for task in working if task is not None]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _beat(self) -> None:
        """Shows the others that the writer's link lives, and finds out when it does not."""
        while True:
            await self._log.holds(LOOK_SECONDS)
            await self._log.ask("SELECT")

    # --- awake and asleep

    async def _follow(self) -> None:
        if self._place.target is not None:
            await self._backlog()
        idle = 0
        while True:
            found = await self._take()
            await self._chores(CHORES_SECONDS)
            if found:
                idle = 0
                if found > 1:
                    await asyncio.sleep(min(LONGEST_PAUSE, found * PAUSE_PER_CHANGE))
            elif not self._relay._doorbell:
                await asyncio.sleep(DOORLESS_PAUSE)
            elif idle < len(IDLE_PAUSES):
                await asyncio.sleep(IDLE_PAUSES[idle])
                idle += 1
            else:
                await self._written()
                self._rung.clear()
                if await self._log.lie_down():
                    # Every writer before has ended and is visible: read once more. From here on
                    # every writer rings.
                    if not await self._take():
                        await self._sleep()
                    await self._log.get_up()
                    idle = 0
                else:
                    kept_up = idle - len(IDLE_PAUSES)
                    await asyncio.sleep(
                        WRITER_IN_FLIGHT_PAUSES[min(kept_up, len(WRITER_IN_FLIGHT_PAUSES) - 1)]
                    )
                    idle += 1

    async def _sleep(self) -> None:
        """Until a ring; looks every few seconds all the same."""
        metrics.AWAKE.set(0)
        while True:
            try:
                async with asyncio.timeout(LOOK_SECONDS):
                    await self._rung.wait()
            except TimeoutError:
                await self._chores(IDLE_CHORES_SECONDS)
                found = await self._take()
                if not found:
                    continue
                if not await self._rings():
                    metrics.FALLBACK_FINDS.inc(found)
                    _log.error("the doorbell was not rung", changes=found)
            else:
                metrics.RINGS.inc()
                # The lock may go after the read: whoever commits in between has rung again.
                getting_up = asyncio.create_task(self._log.get_up())
                try:
                    await self._take()
                finally:
                    await getting_up
            metrics.AWAKE.set(1)
            return

    async def _rings(self) -> bool:
        """Whether the ring for what was just found is on its way."""
        try:
            async with asyncio.timeout(RING_SECONDS):
                return await self._rung.wait()
        except TimeoutError:
            return False

    # --- from changes to messages

    async def _take(self) -> int:
        """Reads what is new and begins to store it; returns the number of changes."""
        snapshot, changes = await self._log.fresh(self._read)
        if changes is None:
            await self._written()
            self._place.target, self._place.upto = snapshot, 0
            await self._backlog()
            return PAGE
        if not changes:
            if self._writing is None or self._writing.done():
                await self._written()
                self._place.cursor = snapshot
            self._read = snapshot
            return 0
        metrics.CHANGES.inc(len(changes))
        await self._watch(changes)
        drafts = await self._translate(changes)
        await self._written()
        messages = await self._number(drafts)
        self._read = snapshot
        if messages:
            self._writing = asyncio.create_task(self._store(messages, snapshot))
            await asyncio.sleep(0)  # the statement is on its way before the next read
        else:
            self._place.cursor = snapshot
            await self._log.keep(self._place)  # whoever looks must not take it for unread
        return len(changes)

    async def _watch(self, changes: Sequence[Change]) -> None:
        """A table may be watched since a moment ago: its changes are here before its watch."""
        if not self._watched.keys() >= {change.entity for change in changes}:
            self._watched = await self._log.watched()

    async def _translate(self, changes: Sequence[Change]) -> list[Draft]:
        """Transactions in the order of their last ids: whoever waited for another comes after it.

        Many at once are translated beside the event loop: sockets and links have their turns.
        """
        last = {change.xid: change.id for change in changes}
        ordered = sorted(changes, key=lambda change: (last[change.xid], change.id))
        task = ordered, self._watched, self._relay._bulk_limit
        if len(ordered) > FEW:
            drafts, broken = await asyncio.to_thread(translate, *task)
        else:
            drafts, broken = translate(*task)
        if broken:
            metrics.BROKEN.inc(broken)
            _log.error("changes without key or company: every company is told", changes=broken)
        return drafts

    async def _number(self, drafts: Sequence[Draft]) -> list[Message]:
        """Gives each draft the next position of its company."""
        unknown = {draft.company for draft in drafts} - self._heads.keys() - {EVERY_COMPANY}
        everyone: list[str] = []
        if any(draft.company == EVERY_COMPANY for draft in drafts):
            named = {draft.company for draft in drafts} - {EVERY_COMPANY}
            everyone = sorted(named.union(await self._log.companies()))
            unknown |= set(everyone) - self._heads.keys()
        if unknown:
            if len(self._heads) > HEADS_LIMIT:
                self._heads.clear()
                unknown |= {draft.company for draft in drafts} - {EVERY_COMPANY} | set(everyone)
            self._heads.update(await self._log.heads(unknown))
        now = datetime.now(UTC)
        messages: list[Message] = []
        seq = self._place.seq
        for draft in drafts:
            for company in everyone if draft.company == EVERY_COMPANY else (draft.company,):
                ready = fill(draft, company, self._place.epoch) if draft.reason else draft
                if draft.reason:
                    metrics.RESYNCS.labels(draft.reason).inc()
                elif draft.partial:
                    metrics.PARTIAL.inc()
                seq += 1
                position = self._heads[company] = self._heads[company] + 1
                messages.append(
                    Message(
                        seq,
                        company,
                        position,
                        draft.at,
                        now,
                        b'%s,"Position":%d%s' % (ready.head, position, ready.tail),
                        draft.revokes,
                    )
                )
        return messages

    async def _store(self, messages: Sequence[Message], cursor: str) -> None:
        await self._log.store(self._place, messages, cursor)
        self._place.seq, self._place.cursor = messages[-1].seq, cursor
        metrics.BATCHES.inc()
        metrics.MESSAGES.inc(len(messages))
        self._relay._deliver(self._place.epoch, messages)

    async def _written(self) -> None:
        """Until the batch before is stored; its failure is ours."""
        writing, self._writing = self._writing, None
        if writing is not None:
            await writing

    # --- a backlog: more than a page at once

    async def _backlog(self) -> None:
        """Reads up to the place's target in pages of whole transactions, each stored by itself.

        A page is read while the one before is translated, and that while its own former is stored.
        """
        target = self._place.target
        assert target is not None
        pages = _pages(await self._log.transactions(self._place))
        for page, after in zip_longest(pages, pages[1:]):
            if page.large:
                await self._written()
                await self._store_large(page.xids[0], page.upto)
                continue
            reading, self._reading = self._reading, None
            changes = await (reading or self._log.changes_of(page.xids))
            if after is not None and not after.large:
                self._reading = asyncio.create_task(self._log.changes_of(after.xids))
            metrics.CHANGES.inc(len(changes))
            await self._watch(changes)
            drafts = await self._translate(changes)
            await self._written()
            messages = await self._number(drafts)
            self._writing = asyncio.create_task(self._store_page(messages, page.upto))
        await self._written()
        self._place.cursor = self._read = target
        self._place.target, self._place.upto = None, 0
        await self._log.keep(self._place)

    async def _store_page(self, messages: list[Message], upto: int) -> None:
        await self._store_all(upto, _once(messages))
        if messages:
            self._relay._deliver(self._place.epoch, messages)

    async def _store_large(self, xid: int, upto: int) -> None:
        """A transaction too large for memory: company by company, or one Resync where it is bulk."""
        self._watched = await self._log.watched()
        weights = await self._log.weigh(xid)
        limit = self._relay._bulk_limit
        bulk = [(company, at) for company, rows, at in weights if rows > limit]

        async def chunks() -> AsyncIterator[list[Message]]:
            drafts = [
                resync(name, "bulk", at, ("*",))
                for company, at in bulk
                if (name := company_named(company.encode())) is not None
            ]
            yield await self._number(drafts)
            drafts = []
            common: list[Change] = []
            current: str | None = None
            transaction = Transaction(self._watched)
            async for company, change in self._log.by_company(xid, [name for name, _ in bulk]):
                if company is None:
                    common.append(change)
                    continue
                if company != current:
                    drafts += transaction.drafts(limit)
                    if len(drafts) >= CHUNK or sum(len(each.head) for each in drafts) > PAGE_BYTES:
                        yield await self._number(drafts)
                        drafts = []
                    if current is None and common:
                        yield await self._number(await self._translate(common))
                    current = company
                    name = company_named(company.encode())
                    transaction = Transaction(self._watched, only=name or "")
                    waiting = [each for each in common if each.is_truncate]
                while waiting and waiting[0].id < change.id:
                    transaction.barrier(waiting.pop(0))
                transaction.add(change)
            if current is None and common:
                yield await self._number(await self._translate(common))
            yield await self._number(drafts + transaction.drafts(limit))

        await self._store_all(upto, chunks())

    async def _store_all(self, upto: int, chunks: AsyncIterator[list[Message]]) -> None:
        """Stores chunk by chunk and the place with them, in one transaction."""
        after = msgspec.structs.replace(self._place, upto=upto)
        async with self._log.together():
            async for chunk in chunks:
                for messages in _portions(chunk):
                    await self._log.store(self._place, messages, None)
                    after.seq = self._place.seq = messages[-1].seq
                    metrics.MESSAGES.inc(len(messages))
            await self._log.keep(after)
        self._place.upto = upto

    # --- chores

    async def _chores(self, every: float) -> None:
        """Every second or so: room on disk, overflow, what an overflow left to be told."""
        now = time.monotonic()
        if now < self._chores_at + every:
            return
        await self._written()
        self._chores_at = now
        overflowed = await self._overflowed()
        unsettled = self._place.unsettled
        if not overflowed and unsettled is not None and await self._log.settled(unsettled):
            draft = resync(EVERY_COMPANY, "overflow", datetime.now(UTC), ("*",))
            self._place.unsettled = None
            messages = await self._number([draft])
            if messages:
                await self._store(messages, self._place.cursor)
            await self._log.keep(self._place)
        self._watched = await self._log.watched()
        used, limit = await self._log.sizes()
        metrics.LOG_BYTES.set(used)
        metrics.LOG_LIMIT_BYTES.set(limit)
        await self._log.turn(self._place, min(TURN_BYTES, limit // 8))
        await self._log.prune(self._place, self._relay._retention_hours, limit // 2)

    async def _overflowed(self) -> bool:
        """Whether capture had stopped storing: then it goes on, in a new epoch."""
        if self._place.unsettled != REOPENING and not await self._log.overflowed():
            return False
        _log.error("the log was full, changes were dropped: a new epoch begins")
        self._place.unsettled = REOPENING
        await self._log.keep(self._place)  # should we end here, the next relay goes on
        self._place.unsettled = await self._log.reopen()
        await self._begin_epoch("overflow")
        return True

    async def _begin_epoch(self, reason: str) -> None:
        before = self._place.seq
        await self._log.begin_epoch(self._place, reason)
        metrics.RESYNCS.labels(reason).inc(self._place.seq - before)
        self._heads.clear()
        self._read = self._place.cursor
        await self._log.keep(self._place)
        _log.warning("a new epoch", epoch=self._place.epoch, reason=reason)


class _Page(NamedTuple):
    """Some transactions of a backlog; `upto` is the last id of the last one."""

    xids: list[int]
    upto: int
    large: bool


def _pages(transactions: Iterable[tuple[int, int, int, int]]) -> list[_Page]:
    """Groups transactions; one that is more than a page stands alone and is large."""
    pages: list[_Page] = []
    weight = load = 0
    for xid, last, changes, size in transactions:
        weight, load = weight + changes, load + size
        if changes > PAGE or size > PAGE_BYTES:
            pages.append(_Page([xid], last, True))
        elif not pages or pages[-1].large or weight > PAGE or load > PAGE_BYTES:
            pages.append(_Page([xid], last, False))
            weight, load = changes, size
        else:
            pages[-1] = pages[-1]._replace(upto=last)
            pages[-1].xids.append(xid)
    return pages


def _portions(messages: Sequence[Message]) -> Iterator[list[Message]]:
    """What may go into one statement, by its bytes."""
    portion: list[Message] = []
    size = 0
    for message in messages:
        if portion and size + len(message.body) > PORTION_BYTES:
            yield portion
            portion, size = [], 0
        portion.append(message)
        size += len(message.body)
    if portion:
        yield portion


async def _once(messages: list[Message]) -> AsyncIterator[list[Message]]:
    yield messages
