"""The last messages of a company, in memory, for subscribers that resume."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from itertools import islice

from notifier.messages import Message

RECENT_MESSAGES = 2000
RECENT_BYTES = 1024 * 1024
"""How much one channel keeps, so that many subscribers that resume cost one query."""

BUDGET_BYTES = 128 * 1024 * 1024
PRESSED_BYTES = 16 * 1024
"""How much all channels keep together; beyond it, each keeps only PRESSED_BYTES."""


class Budget:
    """The bytes that all channels of a node keep."""

    __slots__ = ("used",)

    def __init__(self) -> None:
        self.used = 0

    @property
    def allowance(self) -> int:
        """How much one channel may keep now."""
        return RECENT_BYTES if self.used < BUDGET_BYTES else PRESSED_BYTES


class Recent:
    """The end of a company's log: without a gap up to `last`, bounded in number and bytes."""

    __slots__ = ("_budget", "_bytes", "_items", "last")

    def __init__(self, last: int, budget: Budget) -> None:
        self.last = last
        self._budget = budget
        self._items: deque[Message] = deque()
        self._bytes = 0

    def append(self, message: Message) -> None:
        """Adds the message after `last`."""
        self._items.append(message)
        self._count(message.size)
        self.last = message.position
        allowance = self._budget.allowance
        while len(self._items) > RECENT_MESSAGES or (
            self._bytes > allowance and len(self._items) > 1
        ):
            self._count(-self._items.popleft().size)

    def prepend(self, messages: Sequence[Message]) -> None:
        """Adds older messages as far as they join without a gap; known ones are skipped."""
        allowance = self._budget.allowance
        for message in reversed(messages):
            if message.position >= self.first:
                continue
            if message.position != self.first - 1 or len(self._items) >= RECENT_MESSAGES:
                return
            if self._bytes + message.size > allowance:
                return
            self._items.appendleft(message)
            self._count(message.size)

    def get(self, position: int) -> Message | None:
        """The message at `position`, where it is kept."""
        return self._items[position - self.first] if self.first <= position <= self.last else None

    def clear(self) -> None:
        """Drops the messages and returns their bytes to the budget."""
        self._items.clear()
        self._count(-self._bytes)

    def _count(self, size: int) -> None:
        self._bytes += size
        self._budget.used += size

    @property
    def first(self) -> int:
        """The position of the oldest message kept; `last` + 1 where none is."""
        return self.last - len(self._items) + 1

    def after(self, position: int) -> list[Message]:
        """The messages after `position`, which must all be kept."""
        return list(islice(self._items, position + 1 - self.first, None))
