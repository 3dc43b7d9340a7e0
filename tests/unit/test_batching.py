"""Many small questions, few queries."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

import pytest

from notifier.database.batching import Batcher
from tests.timeless import timeless
from tests.waiting import DEADLINE_SECONDS


class Source:
    """A query that notes its keys and waits until it may answer; the answer is the key's double."""

    def __init__(self) -> None:
        self.queries: list[list[int]] = []
        self.may = asyncio.Event()
        self.may.set()
        self.began = asyncio.Event()
        self.fails = False

    async def __call__(self, keys: Sequence[int]) -> Mapping[int, int]:
        self.queries.append(list(keys))
        self.began.set()
        await self.may.wait()
        if self.fails:
            raise ConnectionError("gone")
        return {key: 2 * key for key in keys}


async def test_concurrent_requests_are_one_query_and_equal_keys_one_key() -> None:
    source = Source()
    batcher = Batcher(source)
    assert await asyncio.gather(*(batcher.get(key) for key in (1, 2, 1, 3))) == [2, 4, 2, 6]
    assert source.queries == [[1, 2, 3]]


async def test_an_answer_is_of_a_query_that_began_after_the_question() -> None:
    source = Source()
    source.may.clear()
    batcher = Batcher(source)
    first = asyncio.create_task(batcher.get(1))
    await source.began.wait()
    second = asyncio.create_task(batcher.get(1))
    await asyncio.sleep(0)
    source.may.set()
    assert (await first, await second) == (2, 2)
    assert source.queries == [[1], [1]]


async def test_in_a_storm_successive_requests_share_a_query(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("notifier.database.batching.LONGEST_WAIT", 60.0)
    source = Source()
    batcher = Batcher(source)
    await asyncio.gather(batcher.get(1), batcher.get(2))  # it has begun
    storm = []
    for key in range(3, 50):
        storm.append(asyncio.create_task(batcher.get(key)))
        await asyncio.sleep(0)
    assert await asyncio.gather(*storm) == [2 * key for key in range(3, 50)]
    assert source.queries == [[1, 2], list(range(3, 50))]


async def test_no_query_has_more_keys_than_the_limit() -> None:
    source = Source()
    batcher = Batcher(source, limit=10)
    await asyncio.gather(*(batcher.get(key) for key in range(25)))
    assert [len(keys) for keys in source.queries] == [10, 10, 5]


async def test_a_failure_reaches_the_requests_of_its_batch_only() -> None:
    source = Source()
    source.fails = True
    batcher = Batcher(source)
    answers = await asyncio.gather(batcher.get(1), batcher.get(2), return_exceptions=True)
    assert all(isinstance(answer, ConnectionError) for answer in answers)
    source.fails = False
    assert await batcher.get(1) == 2


async def test_requests_made_during_a_failing_query_are_queried_next() -> None:
    began, may = asyncio.Event(), asyncio.Event()

    async def load(keys: Sequence[int]) -> Mapping[int, int]:
        began.set()
        await may.wait()
        if 1 in keys:
            raise ConnectionError("gone")
        return {key: 2 * key for key in keys}

    batcher = Batcher(load)
    fails = asyncio.create_task(batcher.get(1))
    await began.wait()
    waits = asyncio.create_task(batcher.get(2))
    await asyncio.sleep(0)
    may.set()
    with pytest.raises(ConnectionError):
        await fails
    async with asyncio.timeout(DEADLINE_SECONDS):
        assert await waits == 4


@timeless
async def test_a_single_request_is_queried_at_once() -> None:
    batcher = Batcher(Source())
    for key in (1, 2, 1):
        assert await batcher.get(key) == 2 * key
    assert asyncio.get_running_loop().time() == 0


async def test_a_cancelled_request_does_not_cancel_the_others() -> None:
    source = Source()
    source.may.clear()
    batcher = Batcher(source)
    goes, stays = asyncio.create_task(batcher.get(1)), asyncio.create_task(batcher.get(1))
    await source.began.wait()
    goes.cancel()
    source.may.set()
    assert await stays == 2
    with pytest.raises(asyncio.CancelledError):
        await goes


async def test_owners_take_turns_and_one_with_very_many_keys_delays_no_other() -> None:
    source = Source()
    batcher = Batcher(source, limit=lambda: 3, owner=lambda key: key >= 100)
    await asyncio.gather(*(batcher.get(key) for key in (*range(10), 100)))
    assert source.queries == [[0, 100, 1], [2, 3, 4], [5, 6, 7], [8, 9]]


async def test_a_key_whose_requests_were_all_cancelled_is_not_looked_up() -> None:
    source = Source()
    source.may.clear()
    batcher = Batcher(source, limit=1)
    first, *gone = [asyncio.create_task(batcher.get(key)) for key in range(10)]
    shared = asyncio.create_task(batcher.get(9))
    await source.began.wait()
    for each in gone:
        each.cancel()
    await asyncio.gather(*gone, return_exceptions=True)
    source.may.set()
    assert (await first, await shared) == (0, 18)
    assert source.queries == [[0], [9]]
    assert await batcher.get(5) == 10
