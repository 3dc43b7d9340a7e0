"""The relay: reads changes as they become visible, nets and renders them, stores the messages.

One node in the cluster leads. It reads by snapshots (`sql/queries/read_changes.sql`), so a late commit
leaves no gap and a long transaction does not delay others. It polls while there are changes, and sleeps when
there are none, until a writer rings the doorbell.
"""

from __future__ import annotations

import asyncio
import time
from enum import StrEnum
from typing import NamedTuple

import structlog

from notifier import metrics
from notifier.database.connections import reconnecting
from notifier.database.floods import Flood
from notifier.errors import DatabaseError
from notifier.relay.backlog import Backlog
from notifier.relay.disk import Disk
from notifier.relay.doorbell import Doorbell
from notifier.relay.leadership import UNREADABLE, Leadership, lead
from notifier.relay.maintenance import Maintenance
from notifier.relay.pipeline import Pipeline, TooMuch
from notifier.relay.publisher import Publisher
from notifier.relay.reader import PAGE, ChangeReader
from notifier.relay.store import RelayStore
from notifier.relay.tracing import UNTRACED, RelayTracer

SLEEPING_READ_SECONDS = 3.0
"""How often the sleeping relay reads without a ring."""

HEARTBEAT_SECONDS = 3.5
"""How often the connection that holds the relay's lock is used, at least. Longer than SLEEPING_READ_SECONDS: maintenance
after each sleeping read uses this connection, so a sleeping relay needs no heartbeat."""

QUIET_SECONDS = 0.015
"""How long the awake relay waits for changes; then it tries to sleep."""

WRITER_IN_FLIGHT_PAUSES = (0.01, 0.02, 0.04)
"""Pauses while a writer's open transaction keeps the relay awake; the last one repeats."""

NO_DOORBELL_PAUSE = 0.1

PAUSE_PER_CHANGE, MAX_BATCH_PAUSE = 0.0002, 0.02
"""The more changes come at once, the longer the relay waits for more: batches cost less per change."""

LATE_RING_SECONDS = 1.0
"""How late the ring for a change may be that was found without one, before the change counts as unannounced."""

_log = structlog.get_logger("notifier.relay")


class State(StrEnum):
    """The state of a node's relay."""

    STANDBY = "standby"
    """Another node leads, or the database is out of reach."""

    BACKLOG = "backlog"
    """It reads more changes than a page, page by page."""

    AWAKE = "awake"
    """It polls; the doorbell lock is free, except during the last read before it sleeps."""

    ASLEEP = "asleep"
    """It waits for the doorbell; every writer rings."""


class Options(NamedTuple):
    """Settings of the relay."""

    bulk_limit: int
    retention_hours: float
    doorbell: bool
    tracer: RelayTracer = UNTRACED


class Relay:
    """Leads whenever this node is elected, and reconnects after every failure of the database."""

    def __init__(
        self,
        url: str,
        publisher: Publisher,
        *,
        bulk_limit: int,
        retention_hours: float,
        doorbell: bool,
        tracer: RelayTracer = UNTRACED,
    ) -> None:
        self._url = url
        self._publisher = publisher
        self._options = Options(bulk_limit, retention_hours, doorbell, tracer)
        self._term: Term | None = None
        self._flood = Flood()
        self._any_text = False  # the reader has found text that it could not read

    @property
    def state(self) -> State:
        """Its present state."""
        return State.STANDBY if self._term is None else self._term.state

    async def run(self) -> None:
        """Runs until it is cancelled."""
        await reconnecting("relay", self._lead)

    async def _lead(self) -> None:
        try:
            async with lead(self._url, any_text=self._any_text) as leadership:
                self._term = Term(leadership, self._publisher, self._options, self._flood)
                await self._term.run()
        except DatabaseError as error:
            self._any_text = self._any_text or isinstance(error.__cause__, UNREADABLE)
            raise
        finally:
            self._term = None
            _show(State.STANDBY)


class Term:
    """One leadership term. All its state is discarded when the connection is lost."""

    def __init__(
        self, leadership: Leadership, publisher: Publisher, options: Options, flood: Flood
    ) -> None:
        self._leadership = leadership
        self._options = options
        self._publisher = publisher
        self._store = store = RelayStore(leadership.writer, traces=options.tracer is not UNTRACED)
        reader = ChangeReader(leadership.reader)
        self._doorbell = Doorbell(leadership, flood)
        self._pipeline = Pipeline(
            leadership.writer,
            store,
            reader,
            publisher,
            options.bulk_limit,
            tracer=options.tracer,
        )
        self._backlog = Backlog(
            self._pipeline, store, reader, leadership.writer, options.bulk_limit
        )
        disk = Disk(leadership.writer, store)
        self._maintenance = Maintenance(self._pipeline, store, disk, options.retention_hours)
        self.state = State.STANDBY

    async def run(self) -> None:
        """Leads until a connection is lost. Raises DatabaseError, or the driver's exceptions."""
        if self._options.doorbell:
            await self._doorbell.listen()
        await self._pipeline.start()
        await self._maintenance.recover_from_overflow()  # first: a new epoch ends any backlog
        self._enter(State.AWAKE)
        checkpoint = self._store.checkpoint
        _log.info("relay leads", epoch=checkpoint.epoch, seq=checkpoint.seq)
        self._publisher.begin(checkpoint.epoch, checkpoint.seq)
        following = asyncio.create_task(self._follow())
        beating = asyncio.create_task(self._keep_alive())
        try:
            await asyncio.wait({following, beating}, return_when=asyncio.FIRST_COMPLETED)
            await (following if following.done() else beating)
        finally:
            # Ends a statement that waits. To cancel it, the driver would open another connection.
            self._leadership.reader.terminate()
            following.cancel()
            beating.cancel()
            await asyncio.gather(following, beating, return_exceptions=True)
            self._publisher.end()
            await self._backlog.stop()
            await self._pipeline.stop()

    def _enter(self, state: State) -> None:
        self.state = state
        _show(state)

    async def _keep_alive(self) -> None:
        """Keeps the other nodes from terminating this relay, and detects a dead link of the writer.

        The other nodes read when the state of the writer's connection last changed (`sql/functions/elect.sql`,
        `sql/queries/probe.sql`). Every call of the writer changes it, so the next is due HEARTBEAT_SECONDS after the last.
        """
        writer = self._leadership.writer
        while True:
            due = writer.used_at + HEARTBEAT_SECONDS - time.monotonic()
            if due > 0:
                await self._leadership.wait_or_fail(due)
            else:
                await writer.beat()

    # --- awake

    async def _follow(self) -> None:
        if self._store.checkpoint.target is not None:
            await self._read_backlog(self._store.checkpoint.target)
        refused = 0  # how often the doorbell could not be armed since changes were found
        found = await self._take()
        while True:
            await self._maintenance.run()
            if found > 1:
                await asyncio.sleep(min(MAX_BATCH_PAUSE, found * PAUSE_PER_CHANGE))
            elif not self._options.doorbell:
                if not found:
                    await asyncio.sleep(NO_DOORBELL_PAUSE)
            elif not refused and await self._pipeline.wait_for_changes(QUIET_SECONDS):
                pass  # they are read below
            elif await self._sleep_if_quiet():
                found = refused = 0
                continue
            else:
                pause = min(refused, len(WRITER_IN_FLIGHT_PAUSES) - 1)
                await asyncio.sleep(WRITER_IN_FLIGHT_PAUSES[pause])
                refused += 1
            found = await self._take()
            if found:
                refused = 0

    async def _take(self) -> int:
        """Reads what is new, a batch or a backlog. Returns the number of changes, at least.

        0: every visible change is stored or being stored, or a new epoch has replaced it.
        """
        found = await self._pipeline.take()
        if not isinstance(found, TooMuch):
            return found
        await self._read_backlog(found.target)
        return PAGE

    async def _read_backlog(self, target: str) -> None:
        before = self.state
        self._enter(State.BACKLOG)
        await self._backlog.read(target)
        self._enter(before)

    # --- asleep

    async def _sleep_if_quiet(self) -> bool:
        """Sleeps until there are changes. Returns False, at once, where the doorbell cannot be armed.

        The read after arming finds what was committed before; then it does not sleep. Every change that is committed
        later rings, unless the notification queue is 90 % full: docs/decisions/23-the-doorbell.md has the proof.
        """
        await self._pipeline.stored()
        if not await self._doorbell.arm():
            return False
        if not await self._take():
            self._enter(State.ASLEEP)
            await self._sleep()
            self._enter(State.AWAKE)
        await self._doorbell.disarm()
        return True

    async def _sleep(self) -> None:
        """Waits for a ring, and reads what is new. Returns too when a read without a ring has found a change."""
        while not await self._doorbell.wait_for_ring(SLEEPING_READ_SECONDS):
            await self._maintenance.run(asleep=True)
            if found := await self._take():
                if not await self._doorbell.wait_for_ring(LATE_RING_SECONDS):
                    metrics.FALLBACK_FINDS.inc(found)
                    _log.error("the doorbell was not rung", changes=found)
                return
        metrics.RINGS.inc()
        # Release the lock while reading, so that writers stop notifying as early as possible. A change that is
        # committed after this read is found by the next one. The caller disarms after a return without a ring.
        disarming = asyncio.create_task(self._doorbell.disarm())
        try:
            await self._take()
        finally:
            await disarming


def _show(state: State) -> None:
    metrics.RELAY.set(state is not State.STANDBY)
    metrics.AWAKE.set(state in (State.BACKLOG, State.AWAKE))
