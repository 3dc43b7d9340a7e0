"""The hub: the channels of the companies that have subscribers on this node, or had some recently.

The stream delivers every message to it, in order; a subscription opens its company's channel and
replays older messages. No method waits for a client's connection.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import NamedTuple, Protocol

import structlog

from notifier import metrics
from notifier.delivery.batch import DeliveryTracer
from notifier.delivery.channel import Channel
from notifier.delivery.encoding import Chunk, Encoding
from notifier.delivery.filter import Filter
from notifier.delivery.filter_catalogue import FilterCatalogue
from notifier.delivery.history import History
from notifier.delivery.recent import Budget
from notifier.delivery.replay_pages import ReplayPages
from notifier.delivery.revocations import Revocations
from notifier.errors import DatabaseError, NotReady
from notifier.messages import Message

IDLE_CHANNELS = 1000
"""Channels without subscribers that are kept for those that come back."""

BEHIND_SECONDS = 5.0
"""How long a client waits for a node that has not read the log yet, or not as far as the client."""

_logger = structlog.get_logger("notifier.hub")


class Beginning(NamedTuple):
    """The start of a replay: the `at` of the message before it, None where it is not in the log."""

    at: datetime | None


class Broker(Protocol):
    """A broker, which delivers only the messages of companies that have a channel."""

    async def opening(self, company: str) -> None:
        """Called before the company's position is read."""

    def opened(self, company: str) -> None:
        """The channel is there."""

    def closed(self, company: str) -> None:
        """The channel was removed, or could not be opened."""


class Hub:
    """All channels of this node. `epoch` is empty until the stream has read the log."""

    def __init__(
        self,
        history: History,
        retention_hours: float,
        filters: FilterCatalogue,
        tracer: DeliveryTracer | None = None,
    ) -> None:
        self.epoch = ""
        self.broker: Broker | None = None
        self.filters = filters
        self._begun = asyncio.Event()  # set when the next epoch begins
        self._unresynced: set[str] = set()  # followed into this epoch, without a message in it
        self.revocations = Revocations()
        self._history = history
        self._tracer = tracer
        self._retention = timedelta(hours=retention_hours)
        self._budget = Budget()
        self._channels: dict[str, Channel] = {}
        self._idle: OrderedDict[str, None] = OrderedDict()  # the longest unused first
        self._opening: dict[str, asyncio.Task[None]] = {}
        self._early: dict[str, list[Message]] = {}  # of companies whose channel is being opened
        self._pages = ReplayPages(filters)

    # --- from the stream

    def deliver(self, messages: Sequence[Message]) -> None:
        """Delivers the next messages of the log, of any companies, in the order of seq."""
        metrics.RECEIVED.inc(len(messages))
        by_company: dict[str, list[Message]] = {}
        for message in messages:
            for user in message.revokes:
                self.revocations.add(message.company, user)
            if message.company in self._channels or message.company in self._early:
                by_company.setdefault(message.company, []).append(message)
        for company, batch in by_company.items():
            channel = self._channels.get(company)
            if channel is None:
                # A revocation in this loop may have closed the last subscription and so removed the channel:
                # then no subscriber needs the batch.
                if (early := self._early.get(company)) is not None:
                    early += batch
                continue
            if company in self._unresynced:
                self._unresynced.discard(company)
                if not batch[0].is_resync:
                    self._drop_without_resync(company)
                    continue
            if not channel.deliver(batch):
                _logger.error("messages are missing before those delivered", company=company)
                self.drop_company(company)
            elif channel.overrun:
                _logger.error("messages come faster than they can be written", company=company)
                self.drop_company(company)

    def begin_epoch(self, epoch: str) -> None:
        """Starts every position again. The epoch's first messages are a Resync for each company that the log knows.

        A log that was migrated again, or restored from before the company was known, has none for it: without one, clients
        would take the next messages for those that they have. See `require_resyncs`.
        """
        self.epoch = epoch
        self._unresynced = {company for company, channel in self._channels.items() if len(channel)}
        self._begun.set()
        self._begun = asyncio.Event()
        for company, channel in list(self._channels.items()):
            if len(channel) or channel.pins:
                channel.begin_epoch(epoch)
            else:
                channel.recent.clear()
                self._remove(company)

    def require_resyncs(self) -> None:
        """The log was read to its end: drops channels that were followed into this epoch and have no Resync in it."""
        for company in list(self._unresynced):
            self._drop_without_resync(company)

    def _drop_without_resync(self, company: str) -> None:
        _logger.error(
            "a new epoch has no Resync for a company: its clients resume", company=company
        )
        self.drop_company(company)

    def drop(self) -> None:
        """Drops all channels: messages are missing that the log no longer has."""
        for company in list(self._channels):
            self.drop_company(company)

    def drop_company(self, company: str) -> None:
        """Drops one channel, if it is there: its subscribers must reconnect and resume."""
        if (channel := self._channels.get(company)) is not None:
            self._remove(company)
            channel.drop()

    def recheck(self, user: str) -> None:
        """The user may have lost every company: access is checked again, in each at its position."""
        self.revocations.add_user(user)
        for channel in list(self._channels.values()):
            channel.recheck(user)

    # --- channels

    async def started(self) -> None:
        """Waits until the stream has read the log. Raises DatabaseError after BEHIND_SECONDS."""
        if not self.epoch:
            await self._next_epoch()

    async def _next_epoch(self) -> None:
        """Waits until another epoch begins. Raises DatabaseError after BEHIND_SECONDS."""
        try:
            async with asyncio.timeout(BEHIND_SECONDS):
                await self._begun.wait()
        except TimeoutError:
            raise DatabaseError("this node has not read the log yet") from None

    async def open(self, company: str) -> Channel:
        """The company's channel, pinned until `close`. Raises DatabaseError."""
        while (
            channel := self._channels.get(company)
        ) is None:  # removed again before it was pinned
            opening = self._opening.get(company)
            if opening is None:
                opening = asyncio.create_task(self._open(company))
                self._opening[company] = opening
            await asyncio.shield(opening)
        channel.pins += 1
        self._idle.pop(company, None)
        return channel

    async def _open(self, company: str) -> None:
        """Reads the position; messages that arrive meanwhile are delivered afterwards.

        While the path of the messages changes, those before them may have come by neither path: then the position is
        read again.
        """
        broker = self.broker
        try:
            if broker is not None:
                await broker.opening(company)
            while True:
                epoch, early = self.epoch, self._early.setdefault(company, [])
                early.clear()
                head = await self._history.head(company)
                if epoch != self.epoch:
                    continue
                if head.epoch is None or head.epoch == epoch:
                    later = [message for message in early if message.position > head.position]
                    if not later or (
                        later[0].position == head.position + 1
                        and later[-1].position == head.position + len(later)
                    ):
                        break
                    continue
                # The position is one of an epoch that this node has not come to yet.
                await self._next_epoch()
            position = head.position
            channel = Channel(
                company,
                epoch,
                position,
                head.at,
                self._budget,
                entities=self.filters.entities,
                tracer=self._tracer,
                seq=head.seq,
            )
            self._channels[company] = channel
            self._idle[company] = (
                None  # until the subscription that opens it pins it, if it still does
            )
            if later:
                channel.deliver(later)
            if broker is not None:
                broker.opened(company)
        finally:
            self._early.pop(company, None)
            self._opening.pop(company, None)
            if broker is not None and company not in self._channels:
                broker.closed(company)
        metrics.CHANNELS.set(len(self._channels))

    def close(self, channel: Channel) -> None:
        """Unpins a channel; the longest unused ones beyond IDLE_CHANNELS are removed."""
        channel.pins -= 1
        if channel.pins or len(channel) or not self.is_current(channel):
            return
        self._idle[channel.company] = None
        while self._idle and len(self._channels) > IDLE_CHANNELS:
            company = next(iter(self._idle))
            self._channels[company].recent.clear()
            self._remove(company)
        metrics.CHANNELS.set(len(self._channels))

    def _remove(self, company: str) -> None:
        del self._channels[company]
        self._unresynced.discard(company)
        self._idle.pop(company, None)
        if self.broker is not None:
            self.broker.closed(company)

    def channel(self, company: str) -> Channel | None:
        """The company's channel where there is one."""
        return self._channels.get(company)

    def companies(self) -> set[str]:
        """The companies that have a channel, or whose channel is being opened."""
        return self._channels.keys() | self._opening.keys()

    def accepted(self, company: str) -> int | None:
        """The last position that the company's channel has taken; None where it has no channel."""
        channel = self._channels.get(company)
        return None if channel is None else channel.accepted

    def contradicts(self, company: str, seq: int) -> bool:
        """Whether the message with this number cannot be one that was delivered here: it was stored later."""
        channel = self._channels.get(company)
        return channel is not None and 0 < channel.seq < seq

    def is_current(self, channel: Channel) -> bool:
        """Whether messages still reach this channel: it was not dropped or removed."""
        return self._channels.get(channel.company) is channel

    # --- replay

    async def begin_replay(self, channel: Channel, after: int) -> Beginning | None:
        """The start of a replay of every message after `after`; None where the replay would have a gap.

        It would where messages were pruned or are older than the retention. Raises DatabaseError where
        that cannot be determined now, and NotReady where this node stays behind `after`.
        """
        epoch = self.epoch
        if after > channel.position:
            if (await self._history.head(channel.company)).position < after:
                return None
            await self._wait_for(channel, after)
            if epoch != self.epoch:
                return None
        at = channel.at(after)
        if after == channel.position:
            return Beginning(at)
        if after + 1 >= channel.recent.first and (at is not None or after == 0):
            following = channel.recent.after(after)
        else:  # read with the message at `after`, for its `at`
            page = await self._history.page(channel.company, max(0, after - 1), epoch)
            following = page
            if page and page[0].position == after:
                at = page[0].at
                # which may fill its page alone: it names very many users
                following = page[1:] or await self._history.page(channel.company, after, epoch)
            if epoch != self.epoch:
                return None
            channel.recent.prepend(page)
        if not following or following[0].position != after + 1:
            return None
        return Beginning(at) if self._is_retained(following[0]) else None

    async def _wait_for(self, channel: Channel, position: int) -> None:
        """Waits until the channel has come as far: the client's former node was faster. Raises NotReady: another node may be faster, too."""
        epoch = self.epoch
        try:
            async with asyncio.timeout(BEHIND_SECONDS):
                while epoch == self.epoch and channel.position < position:
                    await channel.growth()
        except TimeoutError:
            raise NotReady from None

    def _is_retained(self, message: Message) -> bool:
        return message.stored > datetime.now(UTC) - self._retention

    async def replay(
        self,
        channel: Channel,
        after: int,
        encoding: Encoding,
        user: str,
        wanted: Filter | None = None,
        *,
        until: int | None = None,
    ) -> list[Chunk]:
        """The next messages after `after`, up to `until`; none where they are gone. Raises DatabaseError.

        They are those that the user may see and that pass the filter; Skipped covers the others' positions.
        """
        if after + 1 >= channel.recent.first:
            recent = channel.recent.after(after)[: None if until is None else until - after]
            return await self._pages.chunks(channel, recent, encoding, user, wanted)
        epoch = self.epoch
        older = await self._history.page(channel.company, after, epoch)
        if epoch != self.epoch or not older or older[0].position != after + 1:
            return []
        # Not what follows a position without a message, nor messages that the stream has not delivered yet: these come
        # later, after what they revoke.
        last = channel.position if until is None else until
        received = [
            message
            for place, message in enumerate(older, after + 1)
            if message.position == place <= last
        ]
        return await self._pages.chunks(channel, received, encoding, user, wanted)
