"""What a node's link is notified of: places in the log, new configurations, and the probe's own notifications.

Any role may send notifications. Where so many come that the node could not read its answers in time, it does not listen for a
while, and polls.
"""

from __future__ import annotations

from collections.abc import Callable

import structlog

from notifier.database import sql
from notifier.database.connections import Connection, listener
from notifier.database.floods import Flood

CONFIGURATION = "configuration"
"""The payload by which `migrate` notifies nodes of new watches; `sql/queries/announce_configuration.sql`."""

SEQ_DIGITS = 19

POLL_SECONDS = 0.1
"""How often a link that does not listen because of a flood of notifications reads the log."""

_logger = structlog.get_logger("notifier.stream")


class Listening:
    """The notifications of one link. `is_on`: whether it listens.

    `on_place` takes the seq of a message, `on_configuration` is called for a new configuration, `on_other` takes the rest.
    """

    def __init__(
        self,
        connection: Connection,
        flood: Flood,
        on_place: Callable[[int], None],
        on_configuration: Callable[[], None],
        on_other: Callable[[str], None],
    ) -> None:
        self.is_on = False
        self._connection = connection
        self._flood = flood
        self._on_place = on_place
        self._on_configuration = on_configuration
        self._on_other = on_other
        self._callback = listener(self._receive)

    async def begin(self) -> None:
        """Starts to listen, unless a flood began less than a minute ago."""
        if not self.is_on and not self._flood.is_on:
            await self._connection.add_listener(sql.channel("messages"), self._callback)
            self.is_on = True

    async def end(self) -> None:
        """Stops listening."""
        if self.is_on:
            self.is_on = False
            await self._connection.remove_listener(sql.channel("messages"), self._callback)

    def _receive(self, payload: str) -> None:
        if self._flood.begins():
            if not self._connection.is_closed():
                _logger.warning("too many notifications: this link does not listen", link="node")
                self._connection.terminate()  # discards those that are on their way
        elif payload == CONFIGURATION:
            self._on_configuration()
        elif payload.isdecimal() and payload.isascii() and len(payload) <= SEQ_DIGITS:
            self._on_place(int(payload))
        else:
            self._on_other(payload)
