"""Recent revocations, for subscriptions that are not live, or whose access is being checked."""

from __future__ import annotations

import time
from collections import deque

from notifier.messages import ALL_USERS

REVOCATION_SECONDS = 120.0
"""How long a revocation is kept: longer than a check of access takes, and than REPLAY_SECONDS of subscription.py, after which a replay
checks in any case."""

_EVERY_COMPANY = ""


class Revocations:
    """Numbered as they come. Take `serial` before a check of access, and look for later ones after.

    Found by a few look-ups: one transaction may revoke very many, while very many clients resume.
    """

    def __init__(self) -> None:
        self.serial = 0
        self._recent: deque[tuple[float, int, tuple[str, str]]] = deque()
        self._last: dict[tuple[str, str], int] = {}  # the number of each company and user

    def add(self, company: str, user: str) -> None:
        """The user, or with ALL_USERS any user, may have lost the company."""
        self.serial += 1
        now = time.monotonic()
        pair = company, user
        self._recent.append((now, self.serial, pair))
        self._last[pair] = self.serial
        while self._recent[0][0] < now - REVOCATION_SECONDS:
            _, number, pair = self._recent.popleft()
            if self._last[pair] == number:
                del self._last[pair]

    def add_user(self, user: str) -> None:
        """The user may have lost every company."""
        self.add(_EVERY_COMPANY, user)

    def since(self, serial: int, company: str, user: str) -> bool:
        """Whether the user may have lost the company after `serial`."""
        return any(
            self._last.get((name, revoked), 0) > serial
            for name in (company, _EVERY_COMPANY)
            for revoked in (user, ALL_USERS)
        )
