"""Floods of notifications: any role may send some on our channels, more of them than a link can take in time."""

from __future__ import annotations

import time

LIMIT, WINDOW_SECONDS = 20_000, 1.0
"""More notifications than this within that time are a flood. A link takes some 200,000 a second, and answers stand behind them."""

PAUSE_SECONDS = 60.0
"""How long a link does not listen after a flood: its pause."""


class Flood:
    """Counts the notifications of a link, and those of the link that takes its place."""

    def __init__(self) -> None:
        self._count = 0
        self._since = self._until = 0.0

    @property
    def is_on(self) -> bool:
        """Whether the pause after a flood lasts: the link must not listen now."""
        return time.monotonic() < self._until

    def begins(self) -> bool:
        """Counts a notification. Returns whether there are too many: the link must be closed, since others follow."""
        now = time.monotonic()
        if now - self._since > WINDOW_SECONDS:
            self._count, self._since = 0, now
        self._count += 1
        if self._count <= LIMIT:
            return False
        self._until = now + PAUSE_SECONDS
        return True
