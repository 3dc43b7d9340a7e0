"""The deadlines of one socket: for an answer, for a sign of life, for a close."""

from __future__ import annotations

import asyncio
from asyncio import TimerHandle
from collections.abc import Callable

from notifier.client.closes import Disconnected
from notifier.client.pace import STEADY_SECONDS, Backoff, Pace


class Deadlines:
    """The timers of a socket. `ping` sends a ping, `drop` ends the connection."""

    def __init__(
        self,
        pace: Pace,
        backoff: Backoff,
        *,
        ping: Callable[[], None],
        drop: Callable[[Disconnected], None],
    ) -> None:
        self._pace = pace
        self._backoff = backoff
        self._ping = ping
        self._drop = drop
        self._loop = asyncio.get_running_loop()
        self._answer: TimerHandle | None = None
        self._heartbeat: TimerHandle | None = None
        self._steady: TimerHandle | None = None

    def expect_answer(self) -> None:
        """Drops the link unless the server answers in time."""
        self._wait(self._pace.timeout, lambda: self._drop(Disconnected("no answer")))

    def expect_result(self) -> None:
        """The same for a subscription: many clients subscribe at the same time after a restart."""
        self._wait(3 * self._pace.timeout, lambda: self._drop(Disconnected("no answer")))

    def expect_close(self, closed: Callable[[], Disconnected]) -> None:
        """The server has announced the close; the close itself may be lost."""
        self._wait(self._pace.timeout, lambda: self._drop(closed()))

    def end_wait(self) -> None:
        """The answer is there."""
        _cancel(self._answer)

    def mark_alive(self) -> None:
        """Starts the heartbeat again; any message is a sign of life."""
        _cancel(self._heartbeat)
        self._heartbeat = self._loop.call_later(self._pace.heartbeat, self._send_ping)

    def expect_to_last(self) -> None:
        """The connection is a success if it lasts."""
        _cancel(self._steady)
        self._steady = self._loop.call_later(STEADY_SECONDS, self._backoff.reset)

    def pause(self) -> None:
        """The socket is not read for a while: the server need not answer."""
        _cancel(self._answer, self._heartbeat)

    def cancel(self) -> None:
        """The socket has ended."""
        _cancel(self._answer, self._heartbeat, self._steady)

    def _send_ping(self) -> None:
        """Sends a ping on a silent link, and drops the link unless anything is received in time."""
        self._ping()
        self._heartbeat = self._loop.call_later(
            self._pace.timeout, self._drop, Disconnected("silent link")
        )

    def _wait(self, seconds: float, end: Callable[[], None]) -> None:
        _cancel(self._answer)
        self._answer = self._loop.call_later(seconds, end)


def _cancel(*timers: TimerHandle | None) -> None:
    for timer in timers:
        if timer is not None:
            timer.cancel()
