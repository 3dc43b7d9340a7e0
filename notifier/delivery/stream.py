"""The interface between the log and the nodes: how stored messages reach a node.

    relay ── stores messages ──> log ── stream ──> Hub.deliver

A stream delivers every message that was stored since it began, each company's in order, without a gap
and without repetition, or calls `Hub.drop` or `Hub.begin_epoch` where it cannot. A broker is not another stream but
a `Feed`; while it is known to work, the stream leaves this node's companies to it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from notifier.messages import Message


class Stream(Protocol):
    """Delivers the messages of the log to a hub."""

    async def run(self) -> None:
        """Runs until it is cancelled; reconnects after every DatabaseError."""

    def use_rules(self, rules: Sequence[Callable[[Message], Message]]) -> None:
        """Passes each message through these before it is delivered."""

    def accept(self, epoch: str, messages: Sequence[Message]) -> None:
        """Takes stored messages early, in the order of seq, from the relay on this node."""

    def doubt(self) -> None:
        """The relay on this node has begun a term: its log may not be the one that was followed."""


class Doubt:
    """Whether the messages of this node's relay continue what the stream has delivered.

    The relay may lead again, on a log that was rewound or is another server's, before the stream has noticed that its own
    link is lost. From then on messages are read from the log, until the stream has delivered from it what the relay has
    stored last.
    """

    def __init__(self) -> None:
        self._doubted = False
        self._stored: Message | None = None

    def begin(self) -> None:
        """A term of the relay has begun, or the stream's link is lost."""
        self._doubted, self._stored = True, None

    def allows(self, stored: Sequence[Message], delivered: Message | None) -> bool:
        """Whether messages that the relay has stored may be delivered behind the last that was."""
        if self._doubted:
            former, self._stored = self._stored, stored[-1]
            self._doubted = former is None or delivered is None or _differ(former, delivered)
        return not self._doubted


def _differ(one: Message, other: Message) -> bool:
    return (one.seq, one.company, one.position, one.at) != (
        other.seq,
        other.company,
        other.position,
        other.at,
    )


class Feed(Protocol):
    """A broker, as the stream uses it.

    `subscribe`, reading the log to its end, and `start` make the change to it without a gap. After `stop`
    the stream reads what every channel misses.
    """

    changed: Callable[[], None]
    """Called when `is_proven` or `is_wanted` may have another value."""

    @property
    def is_proven(self) -> bool:
        """Whether all messages come by the broker now."""

    @property
    def is_wanted(self) -> bool:
        """Whether the stream may leave delivery to it."""

    async def subscribe(self) -> bool:
        """Subscribes to the companies of the hub. Returns whether that is done."""

    def start(self) -> bool:
        """Delivers what comes from now on. Returns whether it does."""

    def stop(self) -> None:
        """Stops delivering."""

    def resumed(self) -> None:
        """The stream follows the log again. Messages of companies without a channel did not come by the broker."""

    def logged(self, seq: int) -> None:
        """The log has come to `seq`, as a probe has read."""
