"""The interface between messages that are stored and nodes that deliver them.

The log is authoritative: a node that misses messages reads them from it. A broker is another `Publisher`, which
sends messages, and a `Feed` (`delivery/stream.py`), which receives those of the companies that a node serves.
NATS is the only implementation (`notifier/nats/`). Its errors must not escape its tasks: an uncaught one ends the
process.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from notifier.messages import Message

Accept = Callable[[str, Sequence[Message]], None]
"""Takes an epoch and messages of it, in the order of seq."""


class Publisher(Protocol):
    """Sends stored messages to nodes. None of its methods may wait: a broker sends from a task of its own."""

    def begin(self, epoch: str, seq: int) -> None:
        """This node relays from now on; the log has come to `seq`."""

    def end(self) -> None:
        """This node does not relay any more."""

    def publish(self, epoch: str, messages: Sequence[Message]) -> None:
        """Called after each stored batch, in the order of seq, on the event loop."""

    def skip(self, epoch: str, seq: int) -> None:
        """The log has come to `seq` without `publish`: by a very large transaction, or by a new epoch.

        Nodes read these messages from the log.
        """


class LocalPublisher:
    """Passes messages to the stream of this node.

    The other nodes are notified by `pg_notify` in `sql/queries/store_messages.sql`, in the transaction
    that stores the messages, and read them from the log.
    """

    def __init__(self, accept: Accept, doubt: Callable[[], None] = lambda: None) -> None:
        self._accept = accept
        self._doubt = doubt

    def begin(self, epoch: str, seq: int) -> None:
        """This node's stream compares what is published with what it has delivered."""
        self._doubt()

    def end(self) -> None:
        """This node's stream needs no notice."""

    def skip(self, epoch: str, seq: int) -> None:
        """This node is notified as all others are."""

    def publish(self, epoch: str, messages: Sequence[Message]) -> None:
        """Passes the messages on to this node."""
        self._accept(epoch, messages)
