"""Batches lookups: keys that are requested while a query runs are looked up by the next one."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Hashable, Iterable, Mapping, Sequence
from typing import Generic, TypeVar

from notifier.errors import UnexpectedAnswer

MOMENT, LONGEST_WAIT = 0.001, 0.25
"""In seconds. After a batch of several keys the next query waits while more keys arrive in every MOMENT,
for LONGEST_WAIT at most."""

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Batcher(Generic[K, V]):
    """`load` answers up to `limit` different keys at once; equal keys share an answer, or an error."""

    def __init__(
        self, load: Callable[[Sequence[K]], Awaitable[Mapping[K, V | Exception]]], limit: int = 1000
    ) -> None:
        self._load = load
        self._limit = limit
        self._waiting: dict[K, list[asyncio.Future[V]]] = {}
        self._task: asyncio.Task[None] | None = None
        self._storm_until = 0.0

    async def get(self, key: K) -> V:
        """The answer of a query that began after this call. Raises what `load` raises."""
        future: asyncio.Future[V] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(key, []).append(future)
        if self._task is None:
            self._task = asyncio.create_task(self._run())
        return await future

    async def _run(self) -> None:
        try:
            while self._waiting:
                await asyncio.sleep(0)  # requests of the same turn of the loop join the batch
                if time.monotonic() < self._storm_until:
                    await self._gather()
                batch = dict(list(self._waiting.items())[: self._limit])
                for key in batch:
                    del self._waiting[key]
                await self._answer(batch)
                if len(batch) > 1:
                    self._storm_until = time.monotonic() + LONGEST_WAIT
        finally:
            self._task = None

    async def _gather(self) -> None:
        before, until = 0, time.monotonic() + LONGEST_WAIT
        while before < len(self._waiting) < self._limit and time.monotonic() < until:
            before = len(self._waiting)
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
