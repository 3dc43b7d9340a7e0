"""The one timer of a session, first for the authentication deadline, then for token expiry."""

from __future__ import annotations

import asyncio
import time
from typing import Protocol

from notifier.errors import Closure, Expired, NotAuthenticated
from notifier.messages import Expiry, ServerMessage, TokenExpiring, timestamp

WARNING_SECONDS, SHORT_LIFE_SHARE = 60.0, 0.8
"""How long before a token expires its client is warned; at which part of a shorter life."""

LONGEST_TIMER = 24 * 3600.0
"""Longer waits are cut in pieces, as event loops bound their timers."""

CLOCK_CHECK_SECONDS = 60.0
"""The wait after which a timer that fired too early, as the clock was set back, checks the time again."""


class Client(Protocol):
    """The session whose token it is."""

    def send(self, message: ServerMessage) -> None:
        """Sends a message to the client."""

    def end(self, closure: Closure) -> None:
        """Ends the session."""


class ExpiryTimer:
    """Sends TokenExpiring, then ends the session with Expired; with NotAuthenticated before `renew`.

    `leeway`: seconds that a token is good for after it has expired.
    """

    __slots__ = ("_client", "_expires_at", "_leeway", "_timer")

    def __init__(self, client: Client, auth_timeout: float, leeway: float) -> None:
        self._client = client
        self._leeway = leeway
        self._expires_at = 0.0
        self._timer = asyncio.get_running_loop().call_later(auth_timeout, self._end_unknown)

    def renew(self, expires_at: float) -> None:
        """Waits for the end of this token, in Unix seconds, from now on, unless it was cancelled."""
        if self._timer.cancelled():  # by `cancel`: `_wait` sets another timer at once
            return
        self._expires_at = expires_at
        self.reschedule()

    def reschedule(self) -> None:
        """Sets the timer again; call it when the clock was set."""
        if not self._expires_at:
            return
        left = self._expires_at - time.time()
        self._wait(left - WARNING_SECONDS if left > WARNING_SECONDS else left * SHORT_LIFE_SHARE)

    def cancel(self) -> None:
        """Stops it for good."""
        self._timer.cancel()
        self._expires_at = 0.0

    def _end_unknown(self) -> None:
        self._client.end(NotAuthenticated())

    def _wait(self, seconds: float) -> None:
        self._timer.cancel()
        loop = asyncio.get_running_loop()
        if seconds > LONGEST_TIMER:
            self._timer = loop.call_later(LONGEST_TIMER, self._wait, seconds - LONGEST_TIMER)
        else:
            self._timer = loop.call_later(max(0.0, seconds), self._warn)

    def _warn(self) -> None:
        if not self._expires_at:
            return
        self._client.send(TokenExpiring(data=Expiry(expires_at=timestamp(self._expires_at))))
        self._timer = asyncio.get_running_loop().call_later(max(0.0, self._left()), self._expire)

    def _expire(self) -> None:
        if (left := self._left()) > 0:
            delay = min(left, CLOCK_CHECK_SECONDS)
            self._timer = asyncio.get_running_loop().call_later(delay, self._expire)
        else:
            self._client.end(Expired())

    def _left(self) -> float:
        return self._expires_at + self._leeway - time.time()
