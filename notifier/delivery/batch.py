"""A batch: messages that a channel writes together."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from typing import NamedTuple, Protocol

from notifier import metrics
from notifier.messages import Message

FEW_USERS = 50
"""A view for at most this many users is written without giving other tasks a turn."""


class BatchTrace(Protocol):
    """The trace of messages that a channel has received."""

    def begin(self) -> None:
        """They are being written."""

    def end(self, subscribers: int) -> None:
        """They were written to all subscribers."""


class DeliveryTracer(Protocol):
    """Traces what channels write."""

    def received(self, messages: Sequence[Message]) -> BatchTrace | None:
        """A channel has received messages that will be written together; None where none is traced."""


class Batch(NamedTuple):
    """Messages that are written together; `revokes` are the users who may lose access with the last.

    A batch of `revokes` alone has their access re-checked once the batches before it are written. `skips`: no messages,
    but a Skipped for the groups that are behind. `restricted`: one message of which users get views of their own.
    `is_for_few`: all users who get a view are named.
    `received`: when the channel got them, by the monotonic clock.
    """

    messages: list[Message]
    revokes: Sequence[str] = ()
    skips: bool = False
    restricted: bool = False
    is_for_few: bool = False
    trace: BatchTrace | None = None
    received: float = 0.0

    def begin(self) -> None:
        """It is being written."""
        if self.trace is not None:
            self.trace.begin()

    def end(self, subscribers: int) -> None:
        """Its messages were written to all subscribers."""
        metrics.LAG.observe(max(0.0, time.time() - self.messages[0].at.timestamp()))
        metrics.WRITE.observe(time.monotonic() - self.received)
        if self.trace is not None:
            self.trace.end(subscribers)

    @property
    def size(self) -> int:
        """The bytes of the messages."""
        return sum(message.size for message in self.messages)


def cut(messages: list[Message], tracer: DeliveryTracer | None = None) -> Iterable[Batch]:
    """Cuts behind each message that takes access away, and around each that has views."""
    batches = _cut(messages, time.monotonic())
    if tracer is None:
        return batches
    return (batch._replace(trace=tracer.received(batch.messages)) for batch in batches)


def _cut(messages: list[Message], now: float) -> Iterable[Batch]:
    batch: list[Message] = []
    for message in messages:
        if message.views:
            if batch:
                yield Batch(batch, received=now)
            few = not any(view.others or len(view.users) > FEW_USERS for view in message.views)
            yield Batch([message], message.revokes, restricted=True, is_for_few=few, received=now)
            batch = []
            continue
        batch.append(message)
        if message.revokes:
            yield Batch(batch, message.revokes, received=now)
            batch = []
    if batch:
        yield Batch(batch, received=now)
