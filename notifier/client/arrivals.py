"""The arrival of transactions over HTTP, which has no `await`.

A transaction has arrived when a message of it was received, and the log has none of it after the last received one.
"""

from __future__ import annotations

import asyncio
from asyncio import TimerHandle
from collections.abc import Awaitable, Callable, Mapping

from notifier.client.progress import nested
from notifier.client.reports import Row

MAX_SEEN = 256
"""How many transactions are remembered."""

TIMEOUT_SECONDS = 10.0
"""How long a transaction is waited for."""

RETRY_SECONDS = 1.0
"""The time after which the log is read again, where it could not be read."""

ReadLater = Callable[[Row], Awaitable[Mapping[str, int] | None]]
"""The transactions that have messages after a place, and the position of the last one of each; None where the log
cannot be read now."""


class Arrivals:
    """The transactions of one company whose messages were received, and those that are waited for."""

    def __init__(
        self, company: str, report: Callable[[Row], Awaitable[None]], read_later: ReadLater
    ) -> None:
        self._company = company
        self._report = report
        self._read_later = read_later
        self._seen: dict[str, int] = {}  # by transaction, the position of its last received message
        self._later: dict[str, int] = {}  # the same of one that the log has and that comes yet
        self._timers: dict[str, TimerHandle] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._confirming: asyncio.Task[None] | None = None
        self._place: Row = {}

    async def receive(self, message: Row, place: Row | None) -> None:
        """Takes a message that was reported, and the place after it."""
        self._place = place or {}
        tx, position = message.get("Tx"), message.get("Position")
        if isinstance(tx, str) and isinstance(position, int):
            self._seen.pop(tx, None)
            self._seen[tx] = position
            if len(self._seen) > MAX_SEEN:
                del self._seen[next(iter(self._seen))]
            self._confirm_soon()
        elif message.get("Type") == "CompanyRevoked" or nested(message, "Error"):
            self.close()

    def expect(self, tx: str) -> None:
        """Reports the arrival of a transaction, or an error where it has no message here."""
        self._forget(tx)
        loop = asyncio.get_running_loop()
        self._timers[tx] = loop.call_later(TIMEOUT_SECONDS, self._time_out, tx)
        self._confirm_soon()

    def close(self) -> None:
        """Reports nothing any more."""
        for tx in list(self._timers):
            self._forget(tx)
        if self._confirming is not None:
            self._confirming.cancel()

    def _forget(self, tx: str) -> None:
        if (timer := self._timers.pop(tx, None)) is not None:
            timer.cancel()
        self._later.pop(tx, None)

    def _received(self) -> dict[str, int]:
        """The awaited transactions of which no message is known that comes yet, with the last position of each."""
        return {
            tx: self._seen[tx]
            for tx in self._timers
            if tx in self._seen and self._seen[tx] >= self._later.get(tx, 0)
        }

    def _confirm_soon(self) -> None:
        if self._confirming is None and self._received():
            self._confirming = asyncio.create_task(self._confirm())

    async def _confirm(self) -> None:
        """Reads the log until it has no further message of the transactions whose messages were received."""
        try:
            while received := self._received():
                later = await self._read_later(self._place)
                if later is None:
                    await asyncio.sleep(RETRY_SECONDS)
                    continue
                for tx, position in received.items():
                    if tx in later:
                        self._later[tx] = later[tx]
                    elif tx in self._timers:
                        self._forget(tx)
                        data = {"CompanyId": self._company, "Tx": tx, "Position": position}
                        await self._report({"Type": "Arrived", "Data": data})
        finally:
            self._confirming = None

    def _time_out(self, tx: str) -> None:
        text = "its arrival was not confirmed" if tx in self._seen else "no message of it"
        self._forget(tx)
        error = {"Code": "timeout", "Message": f"{text} in this company, in time"}
        data = {"CompanyId": self._company, "Tx": tx}
        task = asyncio.create_task(self._send({"Type": "Error", "Error": error, "Data": data}))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _send(self, message: Row) -> None:
        await self._report(message)
