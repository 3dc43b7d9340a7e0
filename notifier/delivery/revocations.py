"""Recent revocations, for subscriptions that are not live yet."""

from __future__ import annotations

import time
from collections import deque

from notifier.messages import ALL_USERS

REVOCATION_SECONDS = 120.0
"""How long a revocation is kept: longer than a check of access takes."""

_EVERY_COMPANY = ""


class Revocations:
    """Numbered as they come. Take `serial` before a check of access, and look for later ones after."""

    def __init__(self) -> None:
        self.serial = 0
        self._recent: deque[tuple[float, int, str, str]] = deque()

    def add(self, company: str, user: str) -> None:
        """The user, or with ALL_USERS any user, may have lost the company."""
        self.serial += 1
        now = time.monotonic()
        self._recent.append((now, self.serial, company, user))
        while self._recent and self._recent[0][0] < now - REVOCATION_SECONDS:
            self._recent.popleft()

    def add_user(self, user: str) -> None:
        """The user may have lost every company."""
        self.add(_EVERY_COMPANY, user)

    def since(self, serial: int, company: str, user: str) -> bool:
        """Whether the user may have lost the company after `serial`."""
        for _, number, name, revoked in reversed(self._recent):
            if number <= serial:
                break
            if name in (company, _EVERY_COMPANY) and revoked in (user, ALL_USERS):
                return True
        return False
