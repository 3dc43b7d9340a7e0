"""How a backlog is cut: transactions into pages, messages into statements, chunks one ahead."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from datetime import UTC, datetime

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from notifier.messages import Message
from notifier.relay import portions as portioning
from notifier.relay.backlog import Page, one_ahead, pages_of
from notifier.relay.portions import portions_of
from notifier.relay.reader import PAGE, PAGE_BYTES, TransactionSize
from tests.waiting import DEADLINE_SECONDS

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)


def sizes(*counts: int, size: int = 1) -> list[TransactionSize]:
    """Transactions with so many changes, numbered from 1."""
    return [TransactionSize(xid, 10 * xid, count, size) for xid, count in enumerate(counts, 1)]


def test_transactions_share_a_page_up_to_the_limit() -> None:
    assert pages_of(sizes(PAGE - 1, 1, 1)) == [Page([1, 2], 20, False), Page([3], 30, False)]


def test_a_transaction_that_is_more_than_a_page_is_large_and_alone() -> None:
    assert pages_of(sizes(1, PAGE + 1, 1)) == [
        Page([1], 10, False),
        Page([2], 20, True),
        Page([3], 30, False),
    ]
    assert [page.large for page in pages_of(sizes(PAGE))] == [False]


def test_bytes_count_as_well() -> None:
    half = PAGE_BYTES // 2
    assert [page.xids for page in pages_of(sizes(1, 1, 1, size=half))] == [[1, 2], [3]]
    assert [page.large for page in pages_of(sizes(1, size=PAGE_BYTES + 1))] == [True]


@given(st.lists(st.integers(1, 2 * PAGE), max_size=30))
def test_pages_hold_every_transaction_once_in_order(counts: list[int]) -> None:
    pages = pages_of(sizes(*counts))
    assert [xid for page in pages for xid in page.xids] == list(range(1, len(counts) + 1))
    for page in pages:
        assert page.upto == 10 * page.xids[-1]
        changes = sum(counts[xid - 1] for xid in page.xids)
        assert page.large == (changes > PAGE)
        assert not page.large or len(page.xids) == 1


@given(st.lists(st.integers(0, 25), max_size=20))
@example([1] * 10)
def test_portions_hold_every_message_once_and_at_most_the_limit(lengths: list[int]) -> None:
    messages = [
        Message(seq, "c", seq, NOON, NOON, b"x" * length) for seq, length in enumerate(lengths)
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(portioning, "PORTION_BYTES", 20)
        patch.setattr(portioning, "PORTION", 3)
        portions = list(portions_of(messages))
    assert [message for portion in portions for message in portion] == messages
    for portion in portions:
        assert 0 < len(portion) <= 3
        assert len(portion) == 1 or sum(len(message.body) for message in portion) <= 20


async def test_the_next_part_is_made_while_the_present_one_is_used() -> None:
    made = asyncio.Event()

    async def parts() -> AsyncGenerator[int]:
        yield 1
        made.set()
        yield 2

    used = []
    async for part in one_ahead(parts()):
        async with asyncio.timeout(DEADLINE_SECONDS):
            await made.wait()
        used.append(part)
    assert used == [1, 2]


async def test_parts_that_are_not_used_are_closed() -> None:
    ended = []

    async def parts() -> AsyncGenerator[int]:
        try:
            yield 1
            await asyncio.Event().wait()
        finally:
            ended.append(True)

    async def fail() -> None:
        async with aclosing(one_ahead(parts())) as ahead:
            async for _ in ahead:
                raise ValueError("refused")

    with pytest.raises(ValueError, match="refused"):
        await fail()
    assert ended == [True]
