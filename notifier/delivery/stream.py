"""The seam between the log and the nodes: how stored messages reach a node.

    relay ── stores messages ──> log ── stream ──> Hub.deliver

A stream delivers every message that was stored since it began, in the order of seq, without a gap
and without repetition, or calls `Hub.drop` or `Hub.begin_epoch` where it cannot. It may use any
means to receive them early; the log decides. `notifier.delivery.postgres` is the one that needs
nothing but the database.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from notifier.messages import Message


class Stream(Protocol):
    """Delivers the messages of the log to a hub."""

    async def run(self) -> None:
        """Runs until it is cancelled; reconnects after every DatabaseError."""

    def accept(self, epoch: str, messages: Sequence[Message]) -> None:
        """Takes messages that the relay on this node has just stored, in the order of seq."""
