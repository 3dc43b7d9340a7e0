"""One company on this node: its position, its recent messages, its subscribers.

A batch is encoded once per encoding and written to each subscriber with one call. Subscribers whose transport takes direct
writes are grouped by encoding; the others are written to through `write`, which checks the size of their buffer. Subscribers with
a filter are in `Groups`; from the first message that has per-user views, all subscribers are.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from datetime import datetime

from notifier import metrics
from notifier.delivery.batch import Batch, DeliveryTracer, cut
from notifier.delivery.encoding import Encoded, Encoding, pieces
from notifier.delivery.filter import Entities, Filter
from notifier.delivery.groups import Due, Frames, Groups
from notifier.delivery.recent import Budget, Recent
from notifier.delivery.subscriber import Subscriber
from notifier.delivery.transport import Write
from notifier.frames import CHUNK_BYTES
from notifier.messages import ALL_USERS, JSON, Message

SLICE = 500
"""Subscribers that are written to before other tasks get a turn."""

QUEUE_BYTES = 32 * 1024 * 1024
"""How much may wait in a channel whose messages come faster than its subscribers can be written to."""

SKIPPED_SECONDS = 4.0
"""How long a group may be behind; the protocol promises 5."""


class Channel:
    """A company's subscribers and the messages on their way to them.

    It begins behind the message at `position`, whose change was made `at`, None if that is not known. Up to `delivered` every
    message was written to all subscribers, up to `accepted` it was passed to `deliver`. `pins`: open subscriptions. `seq`: of the
    last message of the log that is known to be delivered; 0: none. `entities`: the entity of each `Type` that filters can name.
    """

    def __init__(
        self,
        company: str,
        epoch: str,
        position: int,
        at: datetime | None,
        budget: Budget,
        *,
        entities: Entities,
        tracer: DeliveryTracer | None = None,
        seq: int = 0,
    ) -> None:
        self.company = company
        self.epoch = epoch
        self.recent = Recent(position, budget)
        self._budget = budget
        self._tracer = tracer
        self.pins = 0
        self.delivered = self.accepted = position
        self.seq = seq
        self._begin = position, at
        self._grown: asyncio.Future[None] | None = None
        self._direct: dict[Encoding, dict[Subscriber, Write]] = {}
        self._paused: dict[Subscriber, Encoding] = {}
        self._entities = entities
        self._groups: Groups | None = None  # while there are subscribers that may skip messages
        self._restricted = False  # all subscribers may
        self._skipping: asyncio.TimerHandle | None = None
        self._users: dict[str, set[Subscriber]] = {}
        self._queue: deque[Batch] = deque()
        self._size = 0
        self._queued_bytes = 0
        self._pumping: asyncio.Task[None] | None = None
        self._left: set[Subscriber] = set()  # since the batch that is being pumped began

    @property
    def position(self) -> int:
        """The last message that was written to its subscribers, or is being written."""
        return self.recent.last

    def at(self, position: int) -> datetime | None:
        """When the change of the message at `position` was made, where that is in memory."""
        if (message := self.recent.get(position)) is not None:
            return message.at
        begin, at = self._begin
        return at if position == begin else None

    @property
    def overrun(self) -> bool:
        """Whether more is queued than may be, besides one batch: its message may have views for very many users."""
        excess = self._queued_bytes - QUEUE_BYTES
        return excess > 0 and excess > max(batch.size for batch in self._queue)

    def __len__(self) -> int:
        return self._size

    def subscribers(self) -> list[Subscriber]:
        """All of them."""
        direct = [subscriber for group in self._direct.values() for subscriber in group]
        return [*direct, *self._paused, *(self._groups or ())]

    # --- subscribers

    def join(
        self,
        subscriber: Subscriber,
        encoding: Encoding,
        write: Write | None,
        wanted: Filter | None = None,
    ) -> None:
        """Subscribes from the next message on. `write`: the transport's direct write, None while there is none."""
        self._size += 1
        if wanted is not None or self._restricted:
            if self._groups is None:
                self._groups = Groups(self._entities)
            self._groups.join(subscriber, wanted, encoding, write, self.position)
        elif write is None:
            self._paused[subscriber] = encoding
        else:
            self._direct.setdefault(encoding, {})[subscriber] = write
        self._users.setdefault(subscriber.user, set()).add(subscriber)
        metrics.SUBSCRIBERS.inc()

    def leave(self, subscriber: Subscriber) -> int:
        """Unsubscribes: nothing more is written to it. Returns the position that it has come to."""
        position = self.position
        same_user = self._users.get(subscriber.user, set())
        if subscriber not in same_user:
            return position
        self._size -= 1
        if self._groups is not None:
            position = self._groups.leave(subscriber, position)
            if not self._groups:
                self._groups = None
                self._restricted = False
        self._paused.pop(subscriber, None)
        for group in self._direct.values():
            group.pop(subscriber, None)
        if self._pumping is not None:
            self._left.add(subscriber)
        same_user.discard(subscriber)
        if not same_user:
            del self._users[subscriber.user]
        metrics.SUBSCRIBERS.dec()
        return position

    def paused(self, subscriber: Subscriber) -> None:
        """Its transport is under back-pressure: it gets `Subscriber.write` instead of direct writes."""
        for encoding, group in self._direct.items():
            if group.pop(subscriber, None) is not None:
                self._paused[subscriber] = encoding
        if self._groups is not None:
            self._groups.paused(subscriber)

    def resumed(self, subscriber: Subscriber, write: Write) -> None:
        """Its transport has drained and takes direct writes again."""
        encoding = self._paused.pop(subscriber, None)
        if encoding is not None:
            self._direct.setdefault(encoding, {})[subscriber] = write
        elif self._groups is not None:
            self._groups.resumed(subscriber, write)

    # --- messages

    def deliver(self, messages: list[Message]) -> bool:
        """Writes messages to all subscribers, in order. Returns False, and writes none, where some before or among them are missing, or
        where a position that was delivered comes with a later `seq`: others have altered the log, and it was given out twice.

        Messages up to the position that the channel was opened at are not written. Those that revoke re-check: access may have been checked before them.
        """
        if known := [message for message in messages if message.position <= self.accepted]:
            if 0 < self.seq < known[-1].seq:
                return False
            if revokes := [user for message in known for user in message.revokes]:
                self._queue.append(Batch([], revokes))
            messages = messages[len(known) :]
        if messages:
            first, last = messages[0].position, messages[-1].position
            if first != self.accepted + 1 or last != self.accepted + len(messages):
                return False
            self.accepted = last
            self.seq = messages[-1].seq
            for batch in cut(messages, self._tracer):
                self._queue.append(batch)
                self._queued_bytes += batch.size
        self._write_queue()
        return True

    def _write_queue(self) -> None:
        if self._pumping is not None:
            return
        while self._queue:
            batch = self._queue[0]
            if (self._size > SLICE and not batch.is_for_few) or batch.size > CHUNK_BYTES:
                self._pumping = asyncio.create_task(self._pump())
                return
            self._write_now(self._next())

    def recheck(self, user: str) -> None:
        """Queues a re-check of the user's access, behind the messages that are queued already."""
        if user in self._users:
            self._queue.append(Batch([], [user]))
            self._write_queue()

    def _next(self) -> Batch:
        batch = self._queue.popleft()
        self._queued_bytes -= batch.size
        batch.begin()
        if batch.restricted and not self._restricted and self._size:
            self._restrict()
        return batch

    def _restrict(self) -> None:
        """Moves all subscribers to groups, since they do not get every message from now on."""
        self._restricted = True
        groups = self._groups = self._groups or Groups(self._entities)
        for encoding, direct in self._direct.items():
            for subscriber, write in direct.items():
                groups.join(subscriber, None, encoding, write, self.position)
        for subscriber, encoding in self._paused.items():
            groups.join(subscriber, None, encoding, None, self.position)
        self._direct.clear()
        self._paused.clear()

    def _write_now(self, batch: Batch) -> None:
        """The hot path: one frame per message and encoding, one write per subscriber."""
        messages = batch.messages
        if messages:
            self._save(messages)
            # A write may pause its subscriber, which then moves to another group.
            paused = list(self._paused.items()) if self._paused else None
            for encoding, group in self._direct.items():
                if group:
                    frames = encoding.frames(messages, self.epoch)
                    for write in list(group.values()):
                        write(frames)
            if paused is not None:
                encoded = Encoded(messages, self.epoch)
                bodies = [message.body for message in messages]
                for subscriber, encoding in paused:
                    subscriber.write(encoded[encoding], bodies)
        if self._groups is not None:
            encoded_once = Frames(self.epoch)
            for _, dues in self._plan(batch, self._groups, [messages]):
                for due in dues:
                    due.encode(encoded_once)
                    due.write_all()
        self._written(batch)

    def _plan(
        self, batch: Batch, groups: Groups, pieces: list[list[Message]]
    ) -> list[tuple[list[Message], list[Due]]]:
        """The pieces of a batch, each with the messages that the groups must receive."""
        if batch.skips:
            return [([], groups.plan_skips())]
        if pieces and self._skipping is None:
            loop = asyncio.get_running_loop()
            self._skipping = loop.call_later(SKIPPED_SECONDS, self._skip)
        if batch.restricted:
            (message,) = batch.messages
            metrics.RESTRICTED.inc()
            return [([], groups.plan_views(message, self._users))]
        return [*zip(pieces, groups.plan(pieces), strict=True)]

    def _skip(self) -> None:
        """Lets the groups that are behind catch up, after what is queued."""
        self._skipping = None
        if self._groups is not None:
            self._queue.append(Batch([], skips=True))
            self._write_queue()

    async def _pump(self) -> None:
        """Writes the queue in slices. To a subscriber that leaves meanwhile, or joins, nothing more is written."""
        try:
            while self._queue:
                batch, epoch = self._next(), self.epoch
                direct = [(each, group, list(group)) for each, group in self._direct.items()]
                paused = list(self._paused)
                self._left.clear()
                self._save(batch.messages)
                parts = pieces(batch.messages)
                plan = [(piece, list[Due]()) for piece in parts]
                if self._groups is not None:
                    plan = self._plan(batch, self._groups, parts)
                for piece, dues in plan:
                    encoded, bodies = Encoded(piece, epoch), [each.body for each in piece]
                    if piece:
                        for encoding, group, subscribers in direct:
                            await self._write_slices(subscribers, group, encoding, encoded, bodies)
                        if paused:
                            await self._write_slices(paused, {}, None, encoded, bodies)
                    if dues:
                        await self._write_dues(dues, Frames(epoch))
                self._written(batch)
        except Exception:
            self.drop()  # subscribers that were not reached would miss the rest without notice
            raise
        finally:
            self._pumping = None
            self._left.clear()

    async def _write_slices(
        self,
        subscribers: list[Subscriber],
        group: dict[Subscriber, Write],
        encoding: Encoding | None,
        encoded: Encoded,
        bodies: list[JSON],
    ) -> None:
        frames = encoded[encoding] if encoding is not None and subscribers else b""
        for start in range(0, len(subscribers), SLICE):
            for subscriber in subscribers[start : start + SLICE]:
                if subscriber in self._left:
                    continue
                if write := group.get(subscriber):
                    write(frames)
                else:
                    self._write_as_it_is(subscriber, encoded, bodies)
            await asyncio.sleep(0)

    async def _write_dues(self, dues: Sequence[Due], frames: Frames) -> None:
        count = 0
        for due in dues:
            due.encode(frames)
            for member in due.members:
                if member not in self._left:
                    due.write(member)
                count += 1
                if count % SLICE == 0:
                    await asyncio.sleep(0)
        await asyncio.sleep(0)

    def _write_as_it_is(self, subscriber: Subscriber, encoded: Encoded, bodies: list[JSON]) -> None:
        """Writes to a subscriber that is paused, or that was when the batch began."""
        if own := self._paused.get(subscriber):
            subscriber.write(encoded[own], bodies)
            return
        for encoding, group in self._direct.items():
            if write := group.get(subscriber):
                write(encoded[encoding])

    def _save(self, messages: list[Message]) -> None:
        for message in messages:
            self.recent.append(message)
        self._report_growth()

    def _written(self, batch: Batch) -> None:
        self.delivered = self.position
        if batch.messages and self._size:
            filtered = 0 if self._groups is None else len(self._groups)
            metrics.DELIVERED.inc(len(batch.messages) * (self._size - filtered))
            batch.end(self._size)
        if batch.revokes:
            self._report_revocations(batch)

    def _report_revocations(self, batch: Batch) -> None:
        """Reports to the subscriptions of each user whose access may have been lost with the batch."""
        at = batch.messages[-1].at if batch.messages else None
        for user in batch.revokes:
            is_any = user == ALL_USERS
            for each in self.subscribers() if is_any else list(self._users.get(user, ())):
                each.access_in_doubt(named_at=None if is_any else at)

    async def growth(self) -> None:
        """Waits until there are further messages, or another epoch."""
        if self._grown is None:
            self._grown = asyncio.get_running_loop().create_future()
        await asyncio.shield(self._grown)

    def _report_growth(self) -> None:
        grown, self._grown = self._grown, None
        if grown is not None:
            grown.set_result(None)

    # --- ends

    def begin_epoch(self, epoch: str) -> None:
        """Starts again at position 0; messages of the former epoch that are queued are dropped."""
        self._clear()
        self.epoch = epoch
        self.accepted = self.delivered = self.seq = 0
        self._begin = 0, None
        self.recent = Recent(0, self._budget)
        if self._groups is not None:
            self._groups.begin_epoch()
        self._report_growth()

    def drop(self) -> None:
        """Ends the channel: every client must reconnect and resume."""
        self._clear()
        for subscriber in self.subscribers():
            subscriber.dropped()

    def _clear(self) -> None:
        self._queue.clear()
        self._queued_bytes = 0
        self.recent.clear()
