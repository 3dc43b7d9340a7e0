"""The interface between a session and the connection that carries it.

A transport is given to a Session, which sets itself as its `listener`. It is implemented for uvicorn's WebSocket in
`notifier.transport.websocket`, and for any ASGI server in `notifier.transport.asgi`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, TypeAlias

from notifier.delivery.encoding import Encoding
from notifier.errors import Closure
from notifier.messages import JSON

Write: TypeAlias = Callable[[bytes], object]
"""Writes encoded frames; does not wait and does not fail."""


class TransportListener(Protocol):
    """The receiver of a transport's reports."""

    def paused(self) -> None:
        """Its buffer is over the high-water mark: `write_direct` is None from now on."""

    def resumed(self) -> None:
        """Its buffer has drained: `write_direct` can be used again."""

    def closed(self) -> None:
        """The connection is closing or closed: nothing more can be written."""


class Transport(Protocol):
    """One connection. Nothing but `drain` waits."""

    listener: TransportListener | None

    @property
    def encoding(self) -> Encoding:
        """The encoding of what is written to it; it does not change while a session lives."""

    @property
    def write_direct(self) -> Write | None:
        """The connection's own write; None where it has no such write, or under back-pressure."""

    def write(self, frames: bytes, bodies: Sequence[JSON]) -> None:
        """Queues frames, or the same as texts; closes with TooSlow beyond the connection's cap."""

    async def drain(self) -> None:
        """Waits until there is room for more. Raises TooSlow."""

    def replayed(self) -> None:
        """A replay has come to the present."""

    def end(self, closure: Closure) -> None:
        """Sends Disconnect and closes; aborts when the peer does not answer in time."""
