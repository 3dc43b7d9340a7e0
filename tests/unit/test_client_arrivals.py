"""The arrival of transactions over HTTP, as the client recognises it by their messages."""

from __future__ import annotations

import asyncio
from typing import Any

from notifier.client.arrivals import MAX_SEEN, Arrivals
from tests.timeless import timeless

Reports = list[tuple[str, Any]]


def change(tx: str, position: int) -> Any:
    return {"Type": "EventUpdated", "Data": {"CompanyId": "c"}, "Tx": tx, "Position": position}


def skipped(position: int) -> Any:
    return {"Type": "Skipped", "Data": {"CompanyId": "c"}, "Position": position}


def waiting() -> tuple[Arrivals, Reports]:
    """The arrivals of a company, and those that were reported: a transaction with its position or error."""
    reports: Reports = []

    async def report(message: Any) -> None:
        data = message["Data"]
        assert data["CompanyId"] == "c"
        answer = message["Error"]["Code"] if message["Type"] == "Error" else data["Position"]
        reports.append((data["Tx"], answer))

    return Arrivals("c", report), reports


@timeless
async def test_a_transaction_has_arrived_when_a_message_of_another_one_follows_its_last() -> None:
    arrivals, reports = waiting()
    arrivals.expect("7")
    for message in (change("7", 1), change("7", 2)):
        await arrivals.receive(message)
        await asyncio.sleep(0.4)
        assert reports == []
    await arrivals.receive(change("8", 3))
    await asyncio.sleep(0.01)
    assert reports == [("7", 2)]


@timeless
async def test_a_skipped_is_no_message_of_another_transaction() -> None:
    """A filter may skip a message between two of the same transaction."""
    arrivals, reports = waiting()
    arrivals.expect("7")
    for message in (change("7", 1), skipped(2)):
        await arrivals.receive(message)
        await asyncio.sleep(0.1)
    assert reports == []
    await arrivals.receive(change("7", 3))
    await asyncio.sleep(0.4)
    assert reports == []
    await asyncio.sleep(0.2)
    assert reports == [("7", 3)]


@timeless
async def test_a_transaction_that_was_received_before_has_arrived() -> None:
    arrivals, reports = waiting()
    for message in (change("7", 1), change("8", 2)):
        await arrivals.receive(message)
    arrivals.expect("7")
    arrivals.expect("8")
    await asyncio.sleep(0.01)
    assert reports == [("7", 1)]
    await asyncio.sleep(0.5)
    assert reports == [("7", 1), ("8", 2)]


@timeless
async def test_without_a_message_it_is_a_timeout_after_ten_seconds() -> None:
    arrivals, reports = waiting()
    for position in range(MAX_SEEN + 1):
        await arrivals.receive(change(str(position), position))
    arrivals.expect("0")  # no longer remembered
    await asyncio.sleep(9.9)
    assert reports == []
    await asyncio.sleep(0.2)
    assert reports == [("0", "timeout")]


@timeless
async def test_nothing_arrives_in_a_company_that_was_lost() -> None:
    arrivals, reports = waiting()
    arrivals.expect("7")
    await arrivals.receive({"Type": "CompanyRevoked", "Data": {"CompanyId": "c"}})
    await asyncio.sleep(20)
    assert reports == []
