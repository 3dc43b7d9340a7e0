"""The hub: company → channel → subscribers. A batch is framed once and written to all of them.

Nothing here waits for a socket. `Subscriber.write` is the transport's own write; a transport that
piles up tells its session, which moves the subscriber from the fast ones to the slow ones.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import NamedTuple, Protocol, TypeAlias

import structlog

from notifier import metrics
from notifier.errors import DatabaseError
from notifier.frames import CHUNK_BYTES, body, chunks, deflated, frame
from notifier.messages import Message

SLICE = 500
"""Subscribers that are written to without letting others have their turn."""

RECENT_MESSAGES = 2000
RECENT_BYTES = 1024 * 1024
"""What a channel keeps for those who resume, so that many of them cost one query."""

WAITING_BYTES = 32 * 1024 * 1024
"""What may wait to be written to a company that has more news than its sockets can be told."""

BUDGET_BYTES = 128 * 1024 * 1024
PRESSED_BYTES = 16 * 1024
"""What all channels may keep together; beyond it each keeps so little."""

IDLE_CHANNELS = 1000
"""Channels without subscribers that are kept for those who come back."""

REVOCATION_SECONDS = 120.0

BEHIND_SECONDS = 5.0
"""How long a client that has more than this node may wait until the node has it too."""


Write: TypeAlias = Callable[[bytes], object]

_log = structlog.get_logger("notifier.hub")


class Subscriber(Protocol):
    """What a channel asks of whoever follows it. Nothing of it may wait."""

    user: str

    def write(self, frames: bytes, bodies: Sequence[bytes]) -> None:
        """Takes frames, and the same as texts; used for those that are not `fast`."""

    def suspect(self, position: int, certain: bool) -> None:
        """The user may have lost the company with the message at `position`, which was written.

        `certain`: by a row of his own.
        """

    def lost(self) -> None:
        """The channel cannot go on: come back and resume."""


class Budget:
    """Bytes that all channels of a node keep."""

    __slots__ = ("used",)

    def __init__(self) -> None:
        self.used = 0

    @property
    def allowance(self) -> int:
        """What one channel may keep now."""
        return RECENT_BYTES if self.used < BUDGET_BYTES else PRESSED_BYTES


class Recent:
    """The end of a company's log, in memory: dense, bounded in number and bytes."""

    __slots__ = ("_budget", "_bytes", "_items", "last")

    def __init__(self, last: int, budget: Budget) -> None:
        self.last = last
        self._budget = budget
        self._items: deque[tuple[datetime, bytes]] = deque()
        self._bytes = 0

    def append(self, message: Message, framed: bytes) -> None:
        """Takes the message after `last`."""
        self._items.append((message.stored, framed))
        self._count(len(framed))
        self.last = message.position
        allowance = self._budget.allowance
        while len(self._items) > RECENT_MESSAGES or (
            self._bytes > allowance and len(self._items) > 1
        ):
            self._count(-len(self._items.popleft()[1]))

    def prepend(self, messages: Sequence[Message]) -> None:
        """Takes older messages, unless a hole is left; some of them may have come meanwhile."""
        allowance = self._budget.allowance
        for message in reversed(messages):
            if message.position >= self.first:
                continue
            if message.position != self.first - 1 or len(self._items) >= RECENT_MESSAGES:
                return
            framed = frame(message.body)
            if self._bytes + len(framed) > allowance:
                return
            self._items.appendleft((message.stored, framed))
            self._count(len(framed))

    def forget(self) -> None:
        """Gives back what it takes of the budget."""
        self._items.clear()
        self._count(-self._bytes)

    def _count(self, size: int) -> None:
        self._bytes += size
        self._budget.used += size

    @property
    def first(self) -> int:
        """The position of the first message that is here; `last` + 1 where there is none."""
        return self.last - len(self._items) + 1

    def after(self, position: int) -> list[tuple[datetime, bytes]]:
        """When they were stored, and the frames, of the messages after `position`: it must be here."""
        return list(islice(self._items, position + 1 - self.first, None))


class Part(NamedTuple):
    """Messages that are written together, and who may have lost the company with the last."""

    messages: list[Message]
    revokes: Sequence[str] = ()
    certain: bool = True

    @property
    def size(self) -> int:
        """Bytes of the messages."""
        return sum(len(message.body) for message in self.messages)


class Channel:
    """One company on this node: its position, its recent messages, and who follows it."""

    def __init__(self, company: str, position: int, budget: Budget) -> None:
        self.company = company
        self.recent = Recent(position, budget)
        self._budget = budget
        self.pins = 0
        self._taken = position
        self._growing: asyncio.Future[None] | None = None
        self._fast: dict[Subscriber, Write] = {}
        self._deflating: dict[Subscriber, Write] = {}  # fast as well, by frames compressed for all
        self._slow: dict[Subscriber, None] = {}
        self._users: dict[str, set[Subscriber]] = {}
        self._queue: deque[Part] = deque()
        self._waiting = 0  # bytes of the queue
        self._pumping: asyncio.Task[None] | None = None
        self._gone: set[Subscriber] = set()  # who left since the batch began

    @property
    def position(self) -> int:
        """The last message that its subscribers have, or are being given."""
        return self.recent.last

    @property
    def overrun(self) -> bool:
        """Whether more waits to be written than may be kept: nobody will ever be level."""
        return self._waiting > WAITING_BYTES

    def __len__(self) -> int:
        return len(self._fast) + len(self._deflating) + len(self._slow)

    def subscribers(self) -> list[Subscriber]:
        """Everybody who follows it."""
        return [*self._fast, *self._deflating, *self._slow]

    # --- who follows

    def join(self, subscriber: Subscriber, write: Write | None, *, deflates: bool = False) -> None:
        """From the next message on; `write` takes frames without further ado, None: not so fast.

        `deflates`: it takes compressed frames too.
        """
        if write is None:
            self._slow[subscriber] = None
        else:
            (self._deflating if deflates else self._fast)[subscriber] = write
        self._users.setdefault(subscriber.user, set()).add(subscriber)
        metrics.SUBSCRIBERS.inc()

    def leave(self, subscriber: Subscriber) -> None:
        """Nothing more from now on."""
        if subscriber not in self._users.get(subscriber.user, ()):
            return
        self._fast.pop(subscriber, None)
        self._deflating.pop(subscriber, None)
        self._slow.pop(subscriber, None)
        if self._pumping is not None:
            self._gone.add(subscriber)
        same = self._users[subscriber.user]
        same.discard(subscriber)
        if not same:
            del self._users[subscriber.user]
        metrics.SUBSCRIBERS.dec()

    def slow_down(self, subscriber: Subscriber) -> None:
        """Its transport piles up: its size is looked at with every write."""
        for group in (self._fast, self._deflating):
            if group.pop(subscriber, None) is not None:
                self._slow[subscriber] = None

    def speed_up(self, subscriber: Subscriber, write: Write, *, deflates: bool = False) -> None:
        """Its transport has drained."""
        if subscriber in self._slow:
            del self._slow[subscriber]
            (self._deflating if deflates else self._fast)[subscriber] = write

    # --- what they hear

    def publish(self, messages: list[Message]) -> None:
        """Hands messages to everybody, in order; yields to others when it is much.

        The stream may be behind the log that the channel's position was asked of: what that counted
        already is not said again; but it may take access away from somebody who came meanwhile.
        """
        known = [message for message in messages if message.position <= self._taken]
        if known:
            if revoked := [user for message in known for user in message.revokes]:
                self._queue.append(Part([], revoked, certain=False))
            messages = messages[len(known) :]
        if messages:
            self._taken = messages[-1].position
            for part in _parts(messages):
                self._queue.append(part)
                self._waiting += part.size
        if self._pumping is not None:
            return
        while self._queue:
            if len(self) > SLICE or self._queue[0].size > CHUNK_BYTES:
                self._pumping = asyncio.create_task(self._pump())
                return
            self._write_now(self._next())

    def _next(self) -> Part:
        part = self._queue.popleft()
        self._waiting -= part.size
        return part

    def _write_now(self, part: Part) -> None:
        """The hot path: one frame a message, one write a subscriber."""
        if not part.messages:
            self._written(part)
            return
        frames = self._remember(part.messages)
        data = frames[0] if len(frames) == 1 else b"".join(frames)
        slow = list(self._slow)
        for write in list(self._fast.values()):  # a write may make its subscriber a slow one
            write(data)
        if self._deflating:
            packed = b"".join([deflated(message.body) for message in part.messages])
            for write in list(self._deflating.values()):
                write(packed)
        if slow:
            bodies = [message.body for message in part.messages]
            for subscriber in slow:
                subscriber.write(data, bodies)
        self._written(part)

    async def _pump(self) -> None:
        """The same in slices. Who leaves meanwhile hears nothing more; who joins has it already."""
        try:
            while self._queue:
                part = self._next()
                everybody = self.subscribers()
                self._gone.clear()
                for chunk in chunks(self._remember(part.messages)):
                    data = b"".join(chunk)
                    bodies = [body(framed) for framed in chunk]
                    packed = b"".join(map(deflated, bodies)) if self._deflating else b""
                    for start in range(0, len(everybody), SLICE):
                        for subscriber in everybody[start : start + SLICE]:
                            if subscriber in self._gone:
                                continue
                            if write := self._fast.get(subscriber):
                                write(data)
                            elif packed and (write := self._deflating.get(subscriber)):
                                write(packed)
                            else:
                                subscriber.write(data, bodies)
                        await asyncio.sleep(0)
                self._written(part)
        except Exception:
            self.lose()  # or they would miss the rest without a word
            raise
        finally:
            self._pumping = None
            self._gone.clear()

    def _remember(self, messages: list[Message]) -> list[bytes]:
        frames = []
        for message in messages:
            framed = frame(message.body)
            frames.append(framed)
            self.recent.append(message, framed)
        self._grow()
        return frames

    def _written(self, part: Part) -> None:
        if part.messages and len(self):
            metrics.DELIVERED.inc(len(part.messages) * len(self))
            metrics.LAG.observe(max(0.0, time.time() - part.messages[0].at.timestamp()))
        for user in part.revokes:
            suspects = self.subscribers() if user == "*" else self._users.get(user, ())
            for subscriber in list(suspects):
                subscriber.suspect(self.position, certain=part.certain and user != "*")

    def restart(self) -> None:
        """Another epoch begins: what waits to be said belongs to the old one."""
        self._queue.clear()
        self._waiting = 0
        self._taken = 0
        self.recent.forget()
        self.recent = Recent(0, self._budget)
        self._grow()

    async def growth(self) -> None:
        """Until there are further messages, or another epoch."""
        if self._growing is None:
            self._growing = asyncio.get_running_loop().create_future()
        await asyncio.shield(self._growing)

    def _grow(self) -> None:
        growing, self._growing = self._growing, None
        if growing is not None:
            growing.set_result(None)

    def lose(self) -> None:
        """Everybody must come back."""
        self._queue.clear()
        self._waiting = 0
        self.recent.forget()
        for subscriber in self.subscribers():
            subscriber.lost()


class Hub:
    """All channels of this node. `heads` asks for present positions, `pages` for older messages."""

    def __init__(
        self,
        heads: Callable[[str], Awaitable[int]],
        pages: Callable[[str, int, str], Awaitable[list[Message]]],
        retention_hours: float,
    ) -> None:
        self._heads = heads
        self._pages = pages
        self._retention = timedelta(hours=retention_hours)
        self.epoch = ""
        self._budget = Budget()
        self._channels: dict[str, Channel] = {}
        # Those that nobody uses, the longest unused first.
        self._idle: OrderedDict[str, None] = OrderedDict()
        self._opening: dict[str, asyncio.Task[None]] = {}
        self._early: dict[str, list[Message]] = {}
        self._revocations: deque[tuple[float, int, str, str]] = deque()
        self.serial = 0

    # --- from the stream

    def deliver(self, messages: Sequence[Message]) -> None:
        """Takes the next messages of the stream, of any companies, in the order of seq."""
        metrics.RECEIVED.inc(len(messages))
        by_company: dict[str, list[Message]] = {}
        for message in messages:
            for user in message.revokes:
                self._revoke(message.company, user)
            if message.company in self._channels or message.company in self._early:
                by_company.setdefault(message.company, []).append(message)
        for company, batch in by_company.items():
            channel = self._channels.get(company)
            if channel is not None:
                channel.publish(batch)
                if channel.overrun:
                    _log.error("a company has more news than its sockets take", company=company)
                    self._forget(company)
                    channel.lose()
            else:
                self._early[company] += batch

    def restart(self, epoch: str) -> None:
        """Another epoch: positions begin anew. Its first message tells everybody to read afresh."""
        self.epoch = epoch
        for company, channel in list(self._channels.items()):
            if len(channel) or channel.pins:
                channel.restart()
            else:
                channel.recent.forget()
                self._forget(company)

    def lose(self) -> None:
        """Messages were missed that are not in the log any more: everybody must resume, or cannot."""
        channels = list(self._channels.values())
        self._channels.clear()
        self._idle.clear()
        for channel in channels:
            channel.lose()

    # --- revocations

    def _revoke(self, company: str, user: str) -> None:
        self.serial += 1
        now = time.monotonic()
        self._revocations.append((now, self.serial, company, user))
        while self._revocations and self._revocations[0][0] < now - REVOCATION_SECONDS:
            self._revocations.popleft()

    def revoked(self, company: str, user: str, since: int) -> bool:
        """Whether the user may have lost the company since `serial` was `since`."""
        for _, serial, name, who in reversed(self._revocations):
            if serial <= since:
                break
            if name == company and who in (user, "*"):
                return True
        return False

    # --- channels

    async def open(self, company: str) -> Channel:
        """The company's channel, pinned: call `close` when done with it."""
        while (channel := self._channels.get(company)) is None:  # forgotten before it was pinned
            opening = self._opening.get(company)
            if opening is None:
                opening = asyncio.create_task(self._open(company))
                self._opening[company] = opening
            await asyncio.shield(opening)
        channel.pins += 1
        self._idle.pop(company, None)
        return channel

    async def _open(self, company: str) -> None:
        """Asks for the position while the stream's messages wait: none falls between."""
        try:
            while True:
                epoch, early = self.epoch, self._early.setdefault(company, [])
                early.clear()
                position = await self._heads(company)
                if epoch == self.epoch:
                    break
            channel = self._channels[company] = Channel(company, position, self._budget)
            self._idle[company] = None  # until whoever opens it pins it, if he still does
            later = [message for message in early if message.position > position]
            if later:
                channel.publish(later)
        finally:
            self._early.pop(company, None)
            self._opening.pop(company, None)
        metrics.CHANNELS.set(len(self._channels))

    def close(self, channel: Channel) -> None:
        """Gives a pinned channel back; the longest unused ones are forgotten."""
        channel.pins -= 1
        if channel.pins or len(channel) or not self.holds(channel):
            return
        self._idle[channel.company] = None
        while self._idle and len(self._channels) > IDLE_CHANNELS:
            company = next(iter(self._idle))
            self._channels[company].recent.forget()
            self._forget(company)
        metrics.CHANNELS.set(len(self._channels))

    def _forget(self, company: str) -> None:
        del self._channels[company]
        self._idle.pop(company, None)

    def known(self, company: str) -> Channel | None:
        """The company's channel, if there is one."""
        return self._channels.get(company)

    def holds(self, channel: Channel) -> bool:
        """Whether the channel still is the company's: one that was lost hears nothing more."""
        return self._channels.get(channel.company) is channel

    # --- replay

    async def reaches(self, channel: Channel, after: int) -> bool:
        """Whether every message after `after` is still to be had, and inside the retention.

        Raises DatabaseError where that cannot be told now.
        """
        epoch = self.epoch
        if after > channel.position:
            if await self._heads(channel.company) < after:
                return False
            await self._catch_up(channel, after)
            if epoch != self.epoch:
                return False
        if after < channel.position and after + 1 < channel.recent.first:
            older = await self._pages(channel.company, after, epoch)
            if epoch != self.epoch:
                return False
            if not older or older[0].position != after + 1:
                return False
            channel.recent.prepend(older)
            return self._kept(older[0].stored)
        if after == channel.position:
            return True
        return self._kept(channel.recent.after(after)[0][0])

    async def _catch_up(self, channel: Channel, after: int) -> None:
        """The client comes from a node that was quicker: waits until this one has heard as much."""
        epoch = self.epoch
        try:
            async with asyncio.timeout(BEHIND_SECONDS):
                while epoch == self.epoch and channel.position < after:
                    await channel.growth()
        except TimeoutError:
            raise DatabaseError(f"this node is behind: it has not heard of {after} yet") from None

    def _kept(self, stored: datetime) -> bool:
        return stored > datetime.now(UTC) - self._retention

    async def page(self, channel: Channel, after: int) -> list[bytes]:
        """Frames of the next messages after `after`; none where they are gone."""
        if after + 1 >= channel.recent.first:
            return [framed for _, framed in channel.recent.after(after)]
        older = await self._pages(channel.company, after, self.epoch)
        if not older or older[0].position != after + 1:
            return []
        # What this node has not heard yet comes later, after what it says of who may see it.
        last = channel.position
        return [frame(message.body) for message in older if message.position <= last]


def _parts(messages: list[Message]) -> Iterable[Part]:
    """Cuts behind each message that takes somebody's access away."""
    part: list[Message] = []
    for message in messages:
        part.append(message)
        if message.revokes:
            yield Part(part, message.revokes)
            part = []
    if part:
        yield Part(part)
