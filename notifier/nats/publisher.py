"""The relay's side: publishes stored messages by company, heads of companies that became quiet, and beats.

No message depends on it: a lost one is detected by its position, by a head, or by the counts in a beat,
and read from the log.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import suppress

import structlog

from notifier import metrics
from notifier.messages import Message
from notifier.nats.heads import Heads
from notifier.nats.key import Key
from notifier.nats.link import Link, Unusable
from notifier.nats.payloads import Beat, Notice, encode, encode_head, encode_messages
from notifier.nats.subjects import accounts_subject, company_subject, log_subject
from notifier.relay.publisher import LocalPublisher

BEAT_SECONDS = 0.5
"""How often a beat is sent; nodes leave the path after `feed.SILENCE_SECONDS` without one."""

QUEUE_BYTES = 32 * 1024 * 1024
"""What may wait for a slow server; beyond it everything is dropped, and nodes read the log."""

PAYLOAD_BYTES = 256 * 1024
"""Messages of one company that are sent together."""

HEADER_BYTES = 4096
"""Room for the signature and the envelope within the server's `max_payload`."""

ENTRY_BYTES = 100
"""About what a message takes beside its text."""

SLICE = 100
"""Payloads that are sent before other tasks get a turn."""

_logger = structlog.get_logger("notifier.nats")


class NatsPublisher:
    """A `Publisher` that serves this node at once, and the others from a task of its own."""

    def __init__(self, local: LocalPublisher, link: Link, key: Key, prefix: str) -> None:
        self._local = local
        self._link = link
        self._key = key
        self._prefix = prefix
        self._queue: deque[tuple[str, Sequence[Message]]] = deque()
        self._queued_bytes = 0
        self._heads = Heads()
        self._woken = asyncio.Event()
        self._beat_at = 0.0
        self._term = ""
        self._number = self._missed = self._configuration = self._noticed = 0
        self._notices: deque[Collection[str] | None] = deque()
        self._epoch, self._seq = "", 0  # up to there everything was sent, or counted as missed
        self.leads = False
        self.on_leadership: Callable[[], None] = lambda: None
        link.add(self)

    # --- from the relay and the stream of this node

    def begin(self, epoch: str, seq: int) -> None:
        """A term begins with a log that has come to `seq`."""
        self._local.begin(epoch, seq)
        self._key.reload()  # the database may have been promoted
        self._term, self._number, self._noticed = secrets.token_hex(8), 0, 0
        self._drop(epoch, seq)
        self.leads = True
        self.on_leadership()
        self._beat_soon()

    def end(self) -> None:
        """The term has ended."""
        self.leads, self._term = False, ""
        self.on_leadership()
        self._drop(self._epoch, self._seq)

    def publish(self, epoch: str, messages: Sequence[Message]) -> None:
        """Serves this node, and queues the messages for the others."""
        self._local.publish(epoch, messages)
        self._queue.append((epoch, messages))
        self._queued_bytes += sum(message.size for message in messages)
        if self._queued_bytes > QUEUE_BYTES or not self._link.is_connected:
            self.skip(epoch, messages[-1].seq)
        else:
            self._woken.set()

    def skip(self, epoch: str, seq: int) -> None:
        """Messages up to `seq` were stored and are not published: nodes read them from the log."""
        self._drop(epoch, seq)
        self._missed += 1
        self._beat_soon()

    def announce_configuration(self) -> None:
        """The configuration in the database has changed."""
        self._configuration += 1
        self._beat_soon()

    def notify(self, values: Collection[str] | None) -> None:
        """Accounts of users with one of these values may have changed, None: any."""
        if self.leads:
            self._notices.append(values)
            self._beat_soon()

    def _beat_soon(self) -> None:
        self._beat_at = 0.0
        self._woken.set()

    def _drop(self, epoch: str, seq: int) -> None:
        self._epoch, self._seq = epoch, seq
        self._queue.clear()
        self._noticed += len(self._notices)
        self._notices.clear()
        self._queued_bytes = 0
        self._heads.clear()

    # --- from the link

    def connected(self) -> None:
        """Called after each connect: messages that were sent on the former connection may be lost."""
        self._missed += 1
        self._beat_soon()

    def lost(self) -> None:
        """Nothing is sent until there is a connection."""

    def received(self, subject: str, payload: bytes, headers: bytes) -> None:
        """Received messages are the feed's."""

    # --- the task

    async def run(self) -> None:
        """Sends until it is cancelled."""
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(max(0.0, self._beat_at - time.monotonic())):
                    await self._woken.wait()
            self._woken.clear()
            if not self.leads or not self._link.is_connected or self._key.seal is None:
                self._beat_at = time.monotonic() + BEAT_SECONDS
                continue
            term = self._term
            try:
                await self._send()
            except Unusable as error:
                _logger.warning("messages were not published to NATS", reason=str(error))
                if self._term == term:
                    self.skip(*self._last())
                await asyncio.sleep(BEAT_SECONDS)

    async def _send(self) -> None:
        """Sends what is queued, and beats in between. Raises Unusable."""
        while self._queue:
            epoch, messages = self._queue.popleft()
            self._queued_bytes -= sum(message.size for message in messages)
            self._epoch, self._seq = epoch, messages[-1].seq
            await self._send_batch(epoch, messages)
            await self._send_beat()
        await self._send_beat()

    def _last(self) -> tuple[str, int]:
        """The epoch and seq of the last message that was stored."""
        if not self._queue:
            return self._epoch, self._seq
        epoch, messages = self._queue[-1]
        return epoch, messages[-1].seq

    async def _send_batch(self, epoch: str, messages: Sequence[Message]) -> None:
        companies: dict[str, list[Message]] = {}
        for message in messages:
            companies.setdefault(message.company, []).append(message)
        limit, now, sent = self._link.max_payload - HEADER_BYTES, time.monotonic(), 0
        for company, batch in companies.items():
            for portion in _portions(batch, min(PAYLOAD_BYTES, limit)):
                payload = encode_messages(epoch, portion)
                if len(payload) > limit:
                    payload = encode_head(epoch, company, portion[-1].position)
                await self._publish(company_subject(self._prefix, company), payload)
                sent += 1
                if sent % SLICE == 0:
                    await asyncio.sleep(0)
            if epoch == self._epoch:  # another one may have begun meanwhile
                self._heads.sent(company, batch[-1].position, now)

    async def _send_beat(self) -> None:
        """If it is due: heads and notices, then a beat."""
        now = time.monotonic()
        if now < self._beat_at:
            return
        self._beat_at = now + BEAT_SECONDS
        while self._notices:
            self._noticed += 1  # first: a notice that is not sent is missed
            await self._send_notice(self._notices.popleft())
        epoch = self._epoch  # another one may begin meanwhile: the positions are of this one
        for company, position in list(self._heads.due(now)):
            payload = encode_head(epoch, company, position)
            await self._publish(company_subject(self._prefix, company), payload)
        self._number += 1
        beat = Beat(
            self._term,
            self._number,
            self._epoch,
            self._seq,
            self._missed,
            self._configuration,
            self._noticed,
        )
        await self._publish(log_subject(self._prefix), encode(beat))

    async def _send_notice(self, values: Collection[str] | None) -> None:
        named = None if values is None else sorted(values)
        payload = encode(Notice(named, self._term, self._noticed))
        if len(payload) > self._link.max_payload - HEADER_BYTES:
            payload = encode(Notice(None, self._term, self._noticed))
        await self._publish(accounts_subject(self._prefix), payload)

    async def _publish(self, subject: str, payload: bytes) -> None:
        seal = self._key.seal
        assert seal is not None
        await self._link.publish(subject, payload, seal.sign(subject, payload))
        metrics.NATS_PUBLISHED.inc()


def _portions(messages: Sequence[Message], limit: int) -> Iterator[list[Message]]:
    """Cuts a company's messages into portions of `limit` bytes; a larger message stands alone."""
    portion: list[Message] = []
    size = 0
    for message in messages:
        weight = message.size + ENTRY_BYTES
        if portion and size + weight > limit:
            yield portion
            portion, size = [], 0
        portion.append(message)
        size += weight
    if portion:
        yield portion
