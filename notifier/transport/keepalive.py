"""The pings of a node's WebSockets: one timer for all of them, and one frame for each of its ticks."""

from __future__ import annotations

import asyncio
import os
from typing import Protocol, TypeAlias

TICK_SECONDS = 0.1
"""The shortest time between two ticks."""

PONG_SECONDS = 15.0
"""How long a pong may take, or one interval where that is shorter."""

_PING = b"\x89"  # FIN and the opcode (RFC 6455, 5.2)


class Pinged(Protocol):
    """A connection."""

    def ping(self, frame: bytes, payload: bytes) -> None:
        """Sends a ping. It must not raise, nor may `check_pong`."""

    def check_pong(self) -> None:
        """The pong is due now."""


Slot: TypeAlias = set[Pinged]
"""The connections that are pinged at the same tick."""


class Keepalive:
    """Pings each connection every `interval` seconds.

    A connection is pinged at the tick at which it was added, one interval later, so that many are
    not pinged at once. Without connections there is no timer.
    """

    def __init__(self, interval: float) -> None:
        count = max(1, int(interval / TICK_SECONDS))
        self._slots: list[Slot] = [set() for _ in range(count)]
        self._seconds = interval / count
        self._pong_ticks = min(count, int(PONG_SECONDS / self._seconds))
        self._next = 0
        self._connections = 0
        self._timer: asyncio.TimerHandle | None = None

    def add(self, connection: Pinged) -> Slot:
        """Pings it from now on; returns its slot, by which `remove` finds it."""
        slot = self._slots[self._next - 1]
        slot.add(connection)
        self._connections += 1
        if self._timer is None:
            self._wait()
        return slot

    def remove(self, connection: Pinged, slot: Slot) -> None:
        """Stops pinging it. Does nothing if it was removed already."""
        if connection in slot:
            slot.remove(connection)
            self._connections -= 1

    def _wait(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(self._seconds, self._tick)

    def _tick(self) -> None:
        if not self._connections:
            self._timer = None
            return
        self._wait()
        for connection in tuple(self._slots[self._next - self._pong_ticks]):
            connection.check_pong()
        slot, self._next = self._slots[self._next], (self._next + 1) % len(self._slots)
        payload = os.urandom(4)
        frame = _PING + bytes([len(payload)]) + payload
        for connection in tuple(slot):
            connection.ping(frame, payload)
