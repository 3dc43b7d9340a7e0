"""The seam between messages that are stored and nodes that deliver them.

Stored messages are the truth: a node that missed an announcement reads the log. Another broker is
another `Publisher` here, another source of messages in `delivery/`, a setting, and its place in `node.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from notifier.messages import Message

Accept = Callable[[str, Sequence[Message]], None]
"""Takes an epoch and messages of it, in the order of seq."""


class Publisher(Protocol):
    """Hands stored messages to the nodes."""

    def publish(self, epoch: str, messages: Sequence[Message]) -> None:
        """Called after each stored batch, in the order of seq, on the event loop.

        It must not wait: a broker queues the messages and sends them from a task of its own. Messages of
        a very large transaction are stored without this call, and nodes read them from the log.
        """


class PostgresPublisher:
    """Hands messages to this node directly.

    The other nodes are notified by `pg_notify` in `sql/queries/store_messages.sql`, in the transaction
    that stores the messages, and read them from the log.
    """

    def __init__(self, accept: Accept) -> None:
        self._accept = accept

    def publish(self, epoch: str, messages: Sequence[Message]) -> None:
        """Passes the messages on to this node."""
        self._accept(epoch, messages)
