"""The seam between messages that are stored and nodes that deliver them.

The log decides: a node that misses messages reads them from it. A broker is another `Publisher`, which
sends messages, and a task that passes received ones to `Stream.accept`: one file, `delivery/NAME.py`, a
setting, and its place in `node.py`. Its failures must never leave that task, which would end the process.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from notifier.messages import Message

Accept = Callable[[str, Sequence[Message]], None]
"""Takes an epoch and messages of it, in the order of seq."""


class Publisher(Protocol):
    """Sends stored messages to nodes."""

    def publish(self, epoch: str, messages: Sequence[Message]) -> None:
        """Called after each stored batch, in the order of seq, on the event loop.

        It must not wait: a broker queues the messages and sends them from a task of its own. Messages of
        a very large transaction are stored without this call, and nodes read them from the log.
        """


class LocalPublisher:
    """Passes messages to the stream of this node.

    The other nodes are notified by `pg_notify` in `sql/queries/store_messages.sql`, in the transaction
    that stores the messages, and read them from the log.
    """

    def __init__(self, accept: Accept) -> None:
        self._accept = accept

    def publish(self, epoch: str, messages: Sequence[Message]) -> None:
        """Passes the messages on to this node."""
        self._accept(epoch, messages)
