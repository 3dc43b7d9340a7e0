"""Reads a backlog: more changes than fit into memory at once, page by page."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Collection, Iterable, Sequence
from contextlib import aclosing
from datetime import UTC, datetime
from itertools import zip_longest
from typing import NamedTuple, TypeAlias, TypeVar

import structlog

from notifier import metrics
from notifier.messages import Message
from notifier.relay.changes import EVERY_COMPANY, REVOKE_ALL, Change
from notifier.relay.connection import RelayConnection
from notifier.relay.images import company_keyed, cost_of
from notifier.relay.isolation import Isolation
from notifier.relay.moves import LIMIT as MOVES_LIMIT
from notifier.relay.moves import is_move
from notifier.relay.netting import AnyDraft, Transaction
from notifier.relay.pipeline import INLINE_BYTES, Pipeline
from notifier.relay.portions import portions_of
from notifier.relay.reader import (
    PAGE,
    PAGE_BYTES,
    TRANSACTIONS,
    ChangeReader,
    CompanySize,
    NotInTime,
    TransactionSize,
)
from notifier.relay.rendering import Draft, ResyncDraft
from notifier.relay.store import RelayStore
from notifier.relay.swaps import Swaps
from notifier.relay.tracing import BatchTrace

_log = structlog.get_logger("notifier.relay")

T = TypeVar("T")

_Shared: TypeAlias = dict[tuple[object, ...], Change]

COMPANY_BYTES = 64 * 1024 * 1024
"""Bytes of the changed rows of one company in a large transaction, which are in memory at once. Beyond, it gets a Resync."""

CHUNK = 1000
"""Messages of a large transaction that are numbered at once."""


class Page(NamedTuple):
    """Transactions that are read at once; `upto` is the id of the last change of the last one.

    `largest`: where it is one large transaction, the bytes of its largest change.
    """

    xids: list[int]
    upto: int
    large: bool
    largest: int = 0


class Backlog:
    """Reads up to the checkpoint's target in pages of whole transactions, each stored separately.

    A page is read while the one before is netted, and while the one before that is stored.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        store: RelayStore,
        reader: ChangeReader,
        writer: RelayConnection,
        bulk_limit: int,
    ) -> None:
        self._pipeline = pipeline
        self._store = store
        self._reader = reader
        self._writer = writer
        self._isolation = Isolation(writer, store)
        self._bulk_limit = bulk_limit
        self._swaps = Swaps()
        self._reading: asyncio.Task[list[Change]] | None = None

    async def read(self, target: str) -> None:
        """Reads and stores everything that the snapshot `target` sees."""
        if self._store.checkpoint.target != target:
            self._store.begin_backlog(target)
        self._pipeline.swaps = self._swaps = Swaps(self._store.checkpoint.upto)
        listed = TRANSACTIONS
        while listed == TRANSACTIONS:
            transactions = await self._reader.transactions(self._store.checkpoint)
            listed = len(transactions)
            await self._read_pages(pages_of(transactions))
        await self._pipeline.end_backlog(target)

    async def _read_pages(self, pages: Sequence[Page]) -> None:
        for page, next_page in zip_longest(pages, pages[1:]):
            if page.large:
                await self._pipeline.stored()
                await self._store_large(page)
                continue
            reading, self._reading = self._reading, None
            trace = self._pipeline.tracer.begin()
            changes = await (reading or self._reader.changes_of(page.xids))
            if next_page is not None and not next_page.large:
                self._reading = asyncio.create_task(self._reader.changes_of(next_page.xids))
            trace.read(changes)
            drafts = await self._pipeline.net(changes, trace)
            await self._pipeline.stored()
            messages = await self._pipeline.number(drafts, trace.links)
            self._pipeline.begin_storing(self._store_page(messages, page.upto, trace))
        await self._pipeline.stored()

    async def stop(self) -> None:
        """Cancels what is being read."""
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.gather(self._reading, return_exceptions=True)

    async def _store_page(self, messages: list[Message], upto: int, trace: BatchTrace) -> None:
        stored: list[Message] = []
        with trace.stage("store"):
            async with self._writer.transaction():
                for portion in portions_of(messages):
                    stored += await self._append(portion)
                await self._pipeline.save_moves()
                await self._store.save(upto=upto)
        if stored:
            self._pipeline.publish(stored, trace)
        trace.end()

    async def _store_large(self, page: Page) -> None:
        """Nets and stores a transaction that is too large for memory, chunk by chunk, in one transaction.

        A chunk is netted while the one before is stored.
        """
        await self._pipeline.refresh_sources()
        async with self._writer.transaction():
            async with aclosing(one_ahead(self._net_large(page))) as chunks:
                async for drafts in chunks:
                    for portion in portions_of(await self._pipeline.number(drafts)):
                        await self._append(portion)
            await self._pipeline.save_moves()
            await self._store.save(upto=page.upto)
        self._pipeline.skip()

    async def _append(self, portion: list[Message]) -> list[Message]:
        stored = await self._isolation.append(portion)
        metrics.MESSAGES.inc(len(stored))
        return stored

    async def _net_large(self, page: Page) -> AsyncGenerator[list[AnyDraft]]:
        """Nets a large transaction company by company.

        A company with more rows than the bulk limit, or more bytes than COMPANY_BYTES, gets a Resync, and its changes are not
        read; so does one in several spellings, whose changes do not come together. Where that is noticed only when they come, since
        rows that count as deleted have one of them, or another type of the column, it gets the Resync last.

        Every company gets one where PostgreSQL does not read the rows in time: the next attempt would fail as well. Where the link stalls,
        the relay connects again.
        """
        try:
            async with aclosing(self._net_companies(page)) as chunks:
                async for drafts in chunks:
                    yield drafts
        except NotInTime:
            _log.error("a large transaction was not read in time: every company gets a Resync")
            now = datetime.now(UTC)
            again = self._pipeline.moves.resyncs_of_large(page.xids[0], page.upto, None, now)
            self._swaps.resyncs()  # every company gets one
            self._swaps.hide_all(page.upto)
            self._swaps.end()
            yield [*again, ResyncDraft(EVERY_COMPANY, "bulk", now, REVOKE_ALL)]

    async def _net_companies(self, page: Page) -> AsyncGenerator[list[AnyDraft]]:
        (xid,), upto = page.xids, page.upto
        scopes = {name for source in self._pipeline.sources.values() for name in source.scopes}
        sizes = await self._reader.weigh(xid)
        bulk = self._bulk(sizes, scopes)
        resynced = {name: size.at for name, size in bulk if name is not None}
        yield [ResyncDraft(name, "bulk", at, REVOKE_ALL) for name, at in resynced.items()]
        # Changes that concern every company; they come first. Of equal ones, which may be any number, the last.
        shared: _Shared = {}
        truncates: list[Change] = []
        tables = _Tables(resynced)
        transaction: Transaction | None = None
        current: str | None = None
        drafts: list[AnyDraft] = []
        weight = held = 0  # bytes: of `drafts`, and of the images in `transaction`
        without = [size.company for _, size in bulk]
        again: list[ResyncDraft] = []
        if self._pipeline.moves.are_possible:
            images = await self._reader.moves_of(xid, MOVES_LIMIT + 1)
            row = await self._reader.row_on_path_of(xid)
            at = sizes[0].at if sizes else datetime.now(UTC)
            again = self._pipeline.moves.resyncs_of_large(xid, upto, images, at, row)
        async for company, change in self._reader.by_company(xid, without, page.largest):
            if company is None:
                if not self._pipeline.moves.has(change):  # its own watch has it with its companies
                    _share(shared, _without_row(change))
                continue
            if transaction is None or company != current:
                if transaction is None:
                    truncates = [each for each in shared.values() if each.is_truncate]
                    yield await self._pipeline.net([*shared.values()])
                else:
                    netted = await self._drafts(transaction, held)
                    drafts += netted
                    weight += _weight(netted)
                if len(drafts) >= CHUNK or weight > PAGE_BYTES:
                    yield drafts
                    drafts, weight = [], 0
                current, held, name = company, 0, company_keyed(company, scopes) or ""
                tables.begin(name)
                transaction = Transaction(self._pipeline.sources, only=name, truncates=truncates)
            if not tables.takes(change):
                continue
            before, held = held, held + await _add(transaction, change)
            if held // INLINE_BYTES > before // INLINE_BYTES:
                await asyncio.sleep(0)
        if transaction is None:
            yield await self._pipeline.net([*shared.values()])
        else:
            yield drafts + await self._drafts(transaction, held)
        last = tables.resyncs()
        hidden = [*resynced, *(draft.company for draft in last)]
        yield [*again, *last, *self._swaps_of_large(hidden, upto)]

    def _swaps_of_large(self, hidden: Iterable[str], upto: int) -> list[ResyncDraft]:
        """The Resyncs because of keys that were taken early. `hidden`: companies whose rows were not all read."""
        for company in hidden:
            self._swaps.hide(company, upto)
        self._swaps.end()
        return self._swaps.resyncs()

    def _bulk(
        self, sizes: Sequence[CompanySize], scopes: Collection[str]
    ) -> list[tuple[str | None, CompanySize]]:
        """The ids and sizes of companies that get a Resync in place of their messages."""
        names = [company_keyed(size.company, scopes) for size in sizes]
        # In another table the id may be a number: 7 and "7" are no two spellings.
        kinds = [(name, size.company[-1:] == '"') for name, size in zip(names, sizes, strict=True)]
        spellings = Counter(kinds)
        return [
            (name, size)
            for name, size, kind in zip(names, sizes, kinds, strict=True)
            if size.rows > self._bulk_limit or size.bytes > COMPANY_BYTES or spellings[kind] > 1
        ]

    async def _drafts(self, transaction: Transaction, held: int) -> list[AnyDraft]:
        """The messages of images of so many bytes: beside the event loop where they are many."""
        transaction.find(self._swaps)
        if held > INLINE_BYTES:
            return await asyncio.to_thread(transaction.drafts, self._bulk_limit)
        return transaction.drafts(self._bulk_limit)


async def one_ahead(parts: AsyncGenerator[T]) -> AsyncGenerator[T]:
    """Yields `parts`; the next one is made while the caller uses the present one."""

    async def make() -> T | None:
        return await anext(parts, None)

    following = asyncio.create_task(make())
    try:
        while (part := await following) is not None:
            following = asyncio.create_task(make())
            yield part
    finally:
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
        await parts.aclose()


def pages_of(transactions: Iterable[TransactionSize]) -> list[Page]:
    """Groups transactions into pages; one that is more than a page stands alone and is large."""
    pages: list[Page] = []
    changes = size = 0
    for transaction in transactions:
        changes, size = changes + transaction.changes, size + transaction.bytes
        if transaction.changes > PAGE or transaction.bytes > PAGE_BYTES:
            pages.append(Page([transaction.xid], transaction.last, True, transaction.largest))
        elif not pages or pages[-1].large or changes > PAGE or size > PAGE_BYTES:
            pages.append(Page([transaction.xid], transaction.last, False))
            changes, size = transaction.changes, transaction.bytes
        else:
            pages[-1] = pages[-1]._replace(upto=transaction.last)
            pages[-1].xids.append(transaction.xid)
    return pages


class _Tables:
    """The tables of each company whose changes have come: those of one may come again under another spelling of its id.

    `resynced`: companies that have a Resync, of which another spelling may come all the same.
    """

    def __init__(self, resynced: Collection[str]) -> None:
        self._resynced = resynced
        self._by_company: dict[str, tuple[str, ...]] = {}
        # Equal lists once: there may be very many companies.
        self._shared: dict[tuple[str, ...], tuple[str, ...]] = {}
        self._company = ""
        self._former: tuple[str, ...] = ()
        self._respelled: dict[str, datetime] = {}

    def begin(self, company: str) -> None:
        """The changes of a company under one spelling begin; "" stands for an id that no company has."""
        self._company = company
        self._former = self._by_company.get(company, ())

    def takes(self, change: Change) -> bool:
        """Whether the change is to be netted: those of its table have not come under another spelling."""
        company, entity = self._company, change.entity
        if not company or company in self._resynced:
            return False
        if entity in self._former:
            self._respelled[company] = change.at
            return False
        if entity not in (found := self._by_company.get(company, ())):
            tables = (*found, entity)
            self._by_company[company] = self._shared.setdefault(tables, tables)
        return True

    def resyncs(self) -> list[ResyncDraft]:
        """The Resyncs of companies whose changes of a table have come under several spellings."""
        return [ResyncDraft(name, "bulk", at, REVOKE_ALL) for name, at in self._respelled.items()]


def _share(shared: _Shared, change: Change) -> None:
    what = change.entity, change.old, change.new, change.partial
    shared.pop(what, None)  # the order is that of the last ones
    shared[what] = change


def _without_row(change: Change) -> Change:
    """A change that concerns every company, without the images of a row whose company is not known: they may be any number."""
    if change.is_truncate or is_move(change):
        return change
    return change._replace(old=None, new=None, partial=True)


def _weight(drafts: Iterable[AnyDraft]) -> int:
    return sum(draft.size for draft in drafts if isinstance(draft, Draft))


async def _add(transaction: Transaction, change: Change) -> int:
    """Adds a change, beside the event loop where that takes long. Returns its cost."""
    cost = cost_of(change)
    if cost > INLINE_BYTES:
        await asyncio.to_thread(transaction.add, change)
    else:
        transaction.add(change)
    return cost
