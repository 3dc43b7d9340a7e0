"""Batches lookups: keys that are requested while a query runs are looked up by the next one."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable, Iterable, Mapping, Sequence
from typing import Generic, TypeVar

from notifier.errors import UnexpectedAnswer

MOMENT, LONGEST_WAIT = 0.001, 0.25
"""In seconds. After a batch of several keys the next query waits while more keys arrive in every MOMENT,
for LONGEST_WAIT at most."""

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Batcher(Generic[K, V]):
    """`load` answers up to `limit` different keys at once; equal keys share an answer, or an error.

    The owners of keys (`owner`) take turns, so that an owner of very many delays no other. A key whose requests were all
    cancelled before its query is not looked up.
    """

    def __init__(
        self,
        load: Callable[[Sequence[K]], Awaitable[Mapping[K, V | Exception]]],
        limit: int | Callable[[], int] = 1000,
        owner: Callable[[K], Hashable] = lambda _: None,
    ) -> None:
        self._load = load
        self._given_limit = limit
        self._owner = owner
        self._waiting: OrderedDict[Hashable, OrderedDict[K, list[asyncio.Future[V]]]] = (
            OrderedDict()
        )
        self._keys = 0
        self._task: asyncio.Task[None] | None = None
        self._storm_until = 0.0

    async def get(self, key: K) -> V:
        """The answer of a query that began after this call. Raises what `load` raises."""
        future: asyncio.Future[V] = asyncio.get_running_loop().create_future()
        keys = self._waiting.setdefault(self._owner(key), OrderedDict())
        if key not in keys:
            keys[key] = []
            self._keys += 1
        keys[key].append(future)
        if self._task is None:
            self._task = asyncio.create_task(self._run())
        return await future

    async def _run(self) -> None:
        try:
            while self._waiting:
                await asyncio.sleep(0)  # requests of the same turn of the loop join the batch
                if time.monotonic() < self._storm_until:
                    await self._gather()
                batch = self._take()
                if batch:
                    await self._answer(batch)
                if len(batch) > 1:
                    self._storm_until = time.monotonic() + LONGEST_WAIT
        finally:
            self._task = None

    @property
    def _limit(self) -> int:
        return self._given_limit if isinstance(self._given_limit, int) else self._given_limit()

    def _take(self) -> dict[K, list[asyncio.Future[V]]]:
        """The keys of the next query: one of each owner in turn."""
        batch: dict[K, list[asyncio.Future[V]]] = {}
        limit = self._limit
        while self._waiting and len(batch) < limit:
            owner, keys = self._waiting.popitem(last=False)
            key, futures = keys.popitem(last=False)
            self._keys -= 1
            if keys:
                self._waiting[owner] = keys
            if not all(future.done() for future in futures):
                batch[key] = futures
        return batch

    async def _gather(self) -> None:
        before, until = 0, time.monotonic() + LONGEST_WAIT
        while before < self._keys < self._limit and time.monotonic() < until:
            before = self._keys
            await asyncio.sleep(MOMENT)

    async def _answer(self, batch: dict[K, list[asyncio.Future[V]]]) -> None:
        try:
            answers = await self._load(list(batch))
        except BaseException as error:
            for futures in batch.values():
                _fail(futures, error)
            if not isinstance(error, Exception):
                raise
            return
        for key, futures in batch.items():
            if key not in answers:
                _fail(
                    futures,
                    UnexpectedAnswer(
                        "the database gave an answer without one of the requested keys"
                    ),
                )
                continue
            answer = answers[key]
            if isinstance(answer, Exception):
                _fail(futures, answer)
                continue
            for future in futures:
                if not future.done():
                    future.set_result(answer)


def _fail(futures: Iterable[asyncio.Future[V]], error: BaseException) -> None:
    for future in futures:
        if not future.done():
            future.set_exception(error)
            future.exception()  # the requester may be cancelled now: no "never retrieved" warning
