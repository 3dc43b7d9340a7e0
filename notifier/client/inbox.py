"""Reports that the application has not taken yet."""

from __future__ import annotations

import asyncio
from collections import deque

from notifier.client.reports import Report, Status

MAX_WAITING = 1000
"""With so many reports waiting the socket is not read, until half of them are taken."""


class Inbox:
    """A queue of reports from the connection to the application, and the latest status.

    `room` is set while the connection may read further messages: back-pressure towards the server.
    """

    def __init__(self, company: str | None) -> None:
        self.status = Status(state="connecting", company=company)
        self.room = asyncio.Event()
        self.room.set()
        self._reports: deque[Report] = deque()
        self._changed = asyncio.Event()

    def put(self, report: Report) -> None:
        """Appends a report. A status is the latest one from now on, also before it is taken."""
        if isinstance(report, Status):
            self.status = report
        self._reports.append(report)
        self._changed.set()
        if len(self._reports) >= MAX_WAITING:
            self.room.clear()

    def discard(self) -> None:
        """Drops all reports but statuses: a resync covers them, or the company was left."""
        statuses = [report for report in self._reports if isinstance(report, Status)]
        self._reports.clear()
        self._reports.extend(statuses)
        self._make_room()

    def take(self) -> Report | None:
        """Removes and returns the oldest report; None if there is none."""
        if not self._reports:
            return None
        report = self._reports.popleft()
        self._make_room()
        return report

    async def wait(self) -> None:
        """Returns when a report was put or `wake` was called since the last call."""
        await self._changed.wait()
        self._changed.clear()

    def wake(self) -> None:
        """Ends a `wait`: no report may follow."""
        self._changed.set()

    def _make_room(self) -> None:
        if len(self._reports) <= MAX_WAITING // 2:
            self.room.set()
