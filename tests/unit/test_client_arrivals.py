"""The arrival of transactions over HTTP, as the client recognises it by their messages and the log."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from notifier.client.arrivals import MAX_SEEN, Arrivals
from tests.timeless import timeless


def change(tx: str, position: int) -> Any:
    return {"Type": "EventUpdated", "Data": {"CompanyId": "c"}, "Tx": tx, "Position": position}


class Waiting:
    """The arrivals of a company whose log the test writes, and those that were reported: a transaction with its
    position or error."""

    def __init__(self) -> None:
        self.reports: list[tuple[str, Any]] = []
        self.log: dict[int, str] = {}  # the transaction of each position
        self.reads: list[int] = []
        self.is_readable = True
        self.open = asyncio.Event()
        self.open.set()
        self.arrivals = Arrivals("c", self.report, self.read_later)

    async def report(self, message: Any) -> None:
        data = message["Data"]
        assert data["CompanyId"] == "c"
        answer = message["Error"]["Code"] if message["Type"] == "Error" else data["Position"]
        self.reports.append((data["Tx"], answer))

    async def read_later(self, place: Any) -> Mapping[str, int] | None:
        self.reads.append(place["after"])
        found = {tx: position for position, tx in self.log.items() if position > place["after"]}
        await self.open.wait()
        return found if self.is_readable else None

    def store(self, *transactions: str) -> None:
        """Stores a message of each transaction."""
        for tx in transactions:
            self.log[len(self.log) + 1] = tx

    async def receive(self, *positions: int) -> None:
        for position in positions:
            await self.arrivals.receive(change(self.log[position], position), {"after": position})
            await asyncio.sleep(0.01)


@timeless
async def test_a_transaction_has_arrived_when_the_log_has_no_later_message_of_it() -> None:
    waiting = Waiting()
    waiting.store("7", "7", "8", "7", "9")
    waiting.arrivals.expect("7")
    await waiting.receive(1, 2, 3)
    await asyncio.sleep(5)  # however long the connection is silent
    assert waiting.reports == []
    await waiting.receive(4)
    assert waiting.reports == [("7", 4)]
    assert waiting.reads == [1, 4]


@timeless
async def test_a_transaction_that_was_received_before_has_arrived() -> None:
    waiting = Waiting()
    waiting.store("7", "8")
    await waiting.receive(1, 2)
    assert waiting.reads == []
    for tx in ("7", "8", "7"):
        waiting.arrivals.expect(tx)
    await asyncio.sleep(0.01)
    assert sorted(waiting.reports) == [("7", 1), ("8", 2)]
    assert waiting.reads == [2]


@timeless
async def test_transactions_that_are_awaited_while_the_log_is_read_are_confirmed_after_it() -> None:
    waiting = Waiting()
    waiting.store("7", "8")
    waiting.open.clear()
    waiting.arrivals.expect("7")
    await waiting.receive(1)
    waiting.arrivals.expect("8")
    await waiting.receive(2)
    waiting.open.set()
    await asyncio.sleep(0.01)
    assert waiting.reports == [("7", 1), ("8", 2)]
    assert waiting.reads == [1, 2]


@timeless
async def test_a_log_that_cannot_be_read_is_read_again() -> None:
    waiting = Waiting()
    waiting.store("7")
    waiting.is_readable = False
    waiting.arrivals.expect("7")
    await waiting.receive(1)
    await asyncio.sleep(5)
    assert waiting.reports == []
    waiting.is_readable = True
    await asyncio.sleep(1)
    assert waiting.reports == [("7", 1)]


@timeless
async def test_without_a_message_it_is_a_timeout_after_ten_seconds() -> None:
    waiting = Waiting()
    waiting.store(*map(str, range(MAX_SEEN + 1)))
    for position, tx in waiting.log.items():
        await waiting.arrivals.receive(change(tx, position), {"after": position})
    waiting.arrivals.expect("0")  # no longer remembered
    await asyncio.sleep(9.9)
    assert waiting.reports == []
    await asyncio.sleep(0.2)
    assert waiting.reports == [("0", "timeout")]


@timeless
async def test_nothing_arrives_in_a_company_that_was_lost() -> None:
    waiting = Waiting()
    waiting.store("8")
    waiting.open.clear()
    waiting.arrivals.expect("7")
    waiting.arrivals.expect("8")
    await waiting.receive(1)
    await waiting.arrivals.receive({"Type": "CompanyRevoked", "Data": {"CompanyId": "c"}}, None)
    waiting.open.set()
    await asyncio.sleep(20)
    assert waiting.reports == []
