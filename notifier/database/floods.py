"""Floods of notifications: any role may send notifications on our channels, and more of them than a link can process in time."""

from __future__ import annotations

import time

LIMIT, WINDOW_SECONDS = 20_000, 1.0
"""More notifications than this within that time are a flood. A link processes some 200,000 a second, and answers come behind them."""

PAUSE_SECONDS = 60.0
"""How long a link does not listen after a flood: its pause."""


class Flood:
    """Counts the notifications of a link, and of the links that replace it."""

    def __init__(self) -> None:
        self._count = 0
        self._since = self._until = 0.0

    @property
    def is_on(self) -> bool:
        """Whether the pause after a flood lasts: the link must not listen now."""
        return time.monotonic() < self._until

    def begins(self) -> bool:
        """Counts a notification. Returns whether there are too many: then the link must be closed, as more are on their way."""
        now = time.monotonic()
        if now - self._since > WINDOW_SECONDS:
            self._count, self._since = 0, now
        self._count += 1
        if self._count <= LIMIT:
            return False
        self._until = now + PAUSE_SECONDS
        return True
