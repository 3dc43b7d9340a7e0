"""Decides when the heads of companies are published: if the last message of a company is lost, no gap shows it."""

from __future__ import annotations

import heapq
from collections.abc import Iterator

import msgspec

HEAD_SECONDS = (0.5, *(1.0,) * 7)
"""When a company's head is sent after its last message, and how long after that again."""


class _Head(msgspec.Struct):
    position: int
    since: float  # when the last message was sent
    step: int = 0
    due: float = 0.0


class Heads:
    """The last positions of companies that had messages recently."""

    def __init__(self) -> None:
        self._heads: dict[str, _Head] = {}
        self._queue: list[tuple[float, str]] = []

    def sent(self, company: str, position: int, now: float) -> None:
        """A message was sent; its company's head is due once no other has followed it."""
        head = self._heads.get(company)
        if head is None or head.step:
            self._heads[company] = head = _Head(position, now)
            self._await(company, head, now + HEAD_SECONDS[0])
        else:  # `due` puts it off: the queue still has the former time
            head.position, head.since = position, now

    def due(self, now: float) -> Iterator[tuple[str, int]]:
        """Companies whose head is due, with their positions."""
        while self._queue and self._queue[0][0] <= now:
            due, company = heapq.heappop(self._queue)
            head = self._heads[company]
            if head.due != due:
                continue
            if not head.step and head.since + HEAD_SECONDS[0] > now:
                self._await(company, head, head.since + HEAD_SECONDS[0])
                continue
            yield company, head.position
            head.step += 1
            if head.step < len(HEAD_SECONDS):
                self._await(company, head, now + HEAD_SECONDS[head.step])
            else:
                del self._heads[company]

    def clear(self) -> None:
        """Discards all of them."""
        self._heads.clear()
        self._queue.clear()

    def _await(self, company: str, head: _Head, due: float) -> None:
        head.due = due
        heapq.heappush(self._queue, (due, company))
