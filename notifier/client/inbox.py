"""Reports that the application has not taken yet."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TypeAlias

from notifier.client.feed import Arrival, Feed
from notifier.client.reports import CompanyState, Report, Resync, Status

MAX_WAITING = 1000
"""When this many reports wait, the socket is not read until half of them are taken."""

Entry: TypeAlias = tuple[Feed | None, Report | Arrival]
"""A report and the feed that it belongs to; a status may belong to none."""


class Inbox:
    """A queue from the connection to the application.

    `room` is set while the connection may read further messages: back-pressure towards the server.
    """

    def __init__(self) -> None:
        self.room = asyncio.Event()
        self.room.set()
        self._entries: deque[Entry] = deque()
        self._changed = asyncio.Event()

    def put(self, feed: Feed | None, entry: Report | Arrival) -> None:
        """Appends an entry. A resync or a state replaces the feed's reports; its arrivals are moved behind it."""
        arrivals = self._drop(feed) if isinstance(entry, Resync | CompanyState) else []
        self._entries.append((feed, entry))
        self._entries.extend(arrivals)
        self._changed.set()
        if len(self._entries) >= MAX_WAITING:
            self.room.clear()

    def discard(self, feed: Feed) -> None:
        """Drops all reports of a feed that was left, but statuses."""
        self._drop(feed)
        self._make_room()

    def clear(self) -> None:
        """Drops all reports but statuses."""
        self._entries = deque(entry for entry in self._entries if isinstance(entry[1], Status))
        self._make_room()

    def take(self) -> Entry | None:
        """Removes and returns the oldest entry; None if there is none."""
        if not self._entries:
            return None
        entry = self._entries.popleft()
        self._make_room()
        return entry

    async def wait(self) -> None:
        """Returns when an entry was put or `wake` was called since the last call."""
        await self._changed.wait()
        self._changed.clear()

    def wake(self) -> None:
        """Ends a `wait`: no report may follow."""
        self._changed.set()

    def _drop(self, feed: Feed | None) -> list[Entry]:
        """Removes the feed's entries but statuses. Returns its arrivals."""
        kept, arrivals = deque[Entry](), []
        for entry in self._entries:
            if entry[0] is not feed or isinstance(entry[1], Status):
                kept.append(entry)
            elif isinstance(entry[1], Arrival):
                arrivals.append(entry)
        self._entries = kept
        return arrivals

    def _make_room(self) -> None:
        if len(self._entries) <= MAX_WAITING // 2:
            self.room.set()
