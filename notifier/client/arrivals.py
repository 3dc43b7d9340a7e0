"""The arrival of transactions over HTTP, which has no `await`.

A transaction has arrived when a message of another one follows its last, or nothing follows for QUIET_SECONDS.
"""

from __future__ import annotations

import asyncio
from asyncio import TimerHandle
from collections.abc import Awaitable, Callable

from notifier.client.progress import nested
from notifier.client.reports import Row

MAX_SEEN = 256
"""How many transactions are remembered."""

QUIET_SECONDS = 0.5
"""The messages of a transaction are stored together: after this time there is no further one."""

UNKNOWN_SECONDS = 10.0
"""How long a transaction is waited for of which no message has come."""


class Arrivals:
    """The transactions of one company whose messages were received, and those that are waited for."""

    def __init__(self, company: str, report: Callable[[Row], Awaitable[None]]) -> None:
        self._company = company
        self._report = report
        self._seen: dict[str, int] = {}  # by transaction, the position of its last message
        self._timers: dict[str, TimerHandle] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._last: str | None = None

    async def receive(self, message: Row) -> None:
        """Takes a message that was reported."""
        if message.get("Type") == "Skipped":
            return  # it may cover a message between two of the same transaction
        tx, position = message.get("Tx"), message.get("Position")
        if isinstance(position, int):
            last, self._last = self._last, tx if isinstance(tx, str) else None
            if last is not None and last != tx and last in self._timers:
                self._answer(last)
        if isinstance(tx, str) and isinstance(position, int):
            self._seen.pop(tx, None)
            self._seen[tx] = position
            if len(self._seen) > MAX_SEEN:
                del self._seen[next(iter(self._seen))]
            if tx in self._timers:
                self._wait(tx, QUIET_SECONDS)
        elif message.get("Type") == "CompanyRevoked" or nested(message, "Error"):
            self.close()

    def expect(self, tx: str) -> None:
        """Reports the arrival of a transaction, or an error where it has no message here."""
        if tx in self._seen:
            self._wait(tx, QUIET_SECONDS if self._last == tx else 0)
        else:
            self._wait(tx, UNKNOWN_SECONDS)

    def close(self) -> None:
        """Reports nothing any more."""
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()

    def _wait(self, tx: str, seconds: float) -> None:
        if tx in self._timers:
            self._timers[tx].cancel()
        self._timers[tx] = asyncio.get_running_loop().call_later(seconds, self._answer, tx)

    def _answer(self, tx: str) -> None:
        self._timers.pop(tx).cancel()
        data: Row = {"CompanyId": self._company, "Tx": tx}
        message: Row = {"Type": "Arrived", "Data": data}
        if tx in self._seen:
            data["Position"] = self._seen[tx]
        else:
            error = {"Code": "timeout", "Message": "no message of this transaction"}
            message = {"Type": "Error", "Error": error, "Data": data}
        task = asyncio.create_task(self._send(message))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _send(self, message: Row) -> None:
        await self._report(message)
