"""The seam between the log and the nodes: how stored messages reach a node.

    relay ── stores messages ──> log ── stream ──> Hub.deliver

A stream delivers every message that was stored since it began, in the order of seq, without a gap
and without repetition, or calls `Hub.drop` or `Hub.begin_epoch` where it cannot. A broker is no
other stream: it passes messages early to `accept`, and the log decides.
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
        """Takes stored messages early, in the order of seq: from the relay on this node, or from a broker."""
