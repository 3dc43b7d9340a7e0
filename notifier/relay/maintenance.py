"""Maintenance between batches: disk space, recovery from a full log, watches that changed."""

from __future__ import annotations

import time
from collections.abc import Iterable
from datetime import UTC, datetime

import structlog

from notifier import metrics
from notifier.relay.changes import EVERY_COMPANY, REVOKE_ALL
from notifier.relay.disk import REOPENING, Disk, Usage
from notifier.relay.gaps import find_gaps
from notifier.relay.netting import AnyDraft
from notifier.relay.pipeline import Pipeline
from notifier.relay.rendering import ResyncDraft, company_deleted
from notifier.relay.store import RelayStore

AWAKE_SECONDS, ASLEEP_SECONDS = 1.0, 2.0
"""How often each part of the maintenance is due at most. A sleeping relay does them by turns, one whenever it reads."""

ROTATE_BYTES = 8 * 1024 * 1024
"""Bytes of a table of changes from which on it is rotated out and emptied."""

_log = structlog.get_logger("notifier.relay")


class Maintenance:
    """Runs when it is due, between two batches, so that it never races with one."""

    def __init__(
        self, pipeline: Pipeline, store: RelayStore, disk: Disk, retention_hours: float
    ) -> None:
        self._pipeline = pipeline
        self._store = store
        self._disk = disk
        self._retention_hours = retention_hours
        self._room_at = self._watches_at = 0.0
        # Transactions that may have dropped changes and had not ended at the last look; None: not known
        self._unsettled: frozenset[int] | None = None

    async def run(self, *, asleep: bool = False) -> None:
        """Does the parts that are due: the room on disk, and the watched tables.

        A sleeping relay does one of them at a time: then it uses its writer often enough to need no heartbeat.
        """
        now = time.monotonic()
        latest = now - (ASLEEP_SECONDS if asleep else AWAKE_SECONDS)
        room, watches = self._room_at <= latest, self._watches_at <= latest
        if asleep and room and watches:
            room = self._room_at <= self._watches_at
            watches = not room
        if room or watches:
            await self._pipeline.stored()
        if room:
            self._room_at = now
            begun = await self._keep_room()
            watches = watches or begun
        if watches:
            self._watches_at = now
            await self._pipeline.refresh_sources()
            await self._resync_after_gaps()

    async def _keep_room(self) -> bool:
        """Keeps the log within its limits. Returns whether a new epoch has begun."""
        usage = await self._disk.usage()
        metrics.LOG_BYTES.set(usage.bytes)
        metrics.LOG_LIMIT_BYTES.set(usage.limit)
        if await self.recover_from_overflow(usage):
            return True
        if usage.altered or usage.last_seq > self._store.checkpoint.seq:
            _log.error("the log was restored or altered by others, or a node has seen a later one")
            self._store.pass_over(usage.last_seq)
            await self._pipeline.begin_epoch("epoch")
            return True
        await self._resync_after_overflow()
        await self._disk.rotate(usage, min(ROTATE_BYTES, usage.limit // 8))
        await self._disk.prune(usage, self._retention_hours, usage.limit // 2)
        return False

    async def _resync_after_gaps(self) -> None:
        """A Resync where a table could be written to uncaptured, and is captured again.

        It is for every company, or for those tenants to which the tables belong. A tenant whose schema was
        dropped gets its CompanyDeleted.
        """
        saved, states = await self._store.load_capture()
        gaps = find_gaps(saved, states)
        now = datetime.now(UTC)
        drafts: list[AnyDraft] = []
        if dropped := self._companies(gaps.dropped) - {EVERY_COMPANY}:
            xid = await self._store.transaction_id()
            drafts += [company_deleted(company, now, xid) for company in sorted(dropped)]
        if gaps.missed:
            _log.error(
                "writes may have been missed while triggers were disabled or missing: their companies"
                " get a Resync",
                entities=gaps.missed,
            )
            sources = self._pipeline.sources
            grants = any(entity not in sources or sources[entity].grants for entity in gaps.missed)
            companies = self._companies(gaps.missed)
            drafts += [
                ResyncDraft(company, "truncate", now, REVOKE_ALL if grants else ())
                for company in sorted({EVERY_COMPANY} if EVERY_COMPANY in companies else companies)
            ]
        if drafts:
            await self._pipeline.send(drafts)
        if gaps.saved != saved:
            await self._store.save_capture(gaps.saved)

    def _companies(self, entities: Iterable[str]) -> set[str]:
        """The companies to which the rows of the entities' tables belong."""
        sources = self._pipeline.sources
        return {
            sources[entity].only_company if entity in sources else EVERY_COMPANY
            for entity in entities
        }

    async def recover_from_overflow(self, usage: Usage | None = None) -> bool:
        """If capture has stopped storing, lets it store again, in a new epoch. Returns whether it had stopped."""
        usage = usage or await self._disk.usage()
        if self._store.checkpoint.unsettled != REOPENING and not usage.is_full:
            return False
        _log.error("the log was full and changes were dropped: a new epoch begins")
        await self._store.save(unsettled=REOPENING)  # if this relay ends here, the next one goes on
        unsettled = await self._disk.reopen()
        self._unsettled = await self._disk.running_before(unsettled or 0)
        # Stored with the epoch: until then REOPENING shows that changes were dropped, to the next relay and to `await`.
        self._store.expect_end_before(unsettled)
        await self._pipeline.begin_epoch("overflow")
        return True

    async def _resync_after_overflow(self) -> None:
        """Sends every company a Resync when transactions have ended that may have dropped changes in the new epoch.

        Not only with the last of them: any role may keep one open without end, which has dropped nothing.
        """
        unsettled = self._store.checkpoint.unsettled
        if unsettled is None:
            return
        running = await self._disk.running_before(unsettled)
        is_last = await self._disk.all_ended_before(unsettled)
        if is_last or running != self._unsettled:
            draft = ResyncDraft(EVERY_COMPANY, "overflow", datetime.now(UTC), REVOKE_ALL)
            await self._pipeline.send([draft])
        self._unsettled = running
        if is_last:
            await self._store.save(unsettled=None)
