"""Whether the path from trigger to hub has been verified recently, and if not, why."""

from __future__ import annotations

import time
from collections.abc import Iterable

import structlog

from notifier import metrics

STALE_SECONDS = 10.0
"""A proof older than this proves nothing."""

STUCK_SECONDS = 60.0
"""A backlog without progress for this long is stuck."""


_logger = structlog.get_logger("notifier.health")


class Health:
    """The results of the node's probes. `reason` is None only while all of them are good.

    `parts`: what must be reported as sound besides the path from trigger to hub.
    """

    def __init__(self, parts: Iterable[str] = ()) -> None:
        self._parts: dict[str, str | None] = {part: f"{part}: not checked yet" for part in parts}
        self._reason: str | None = "not connected to the database yet"
        self._proven_at = 0.0
        self._backlog: str | None = None
        self._moved_at = 0.0
        self._warnings: tuple[str, ...] = ()
        self.draining = False
        self.path: str | None = None  # by which messages come, where there are two: nats, postgres

    def proven(
        self,
        *,
        relay: bool,
        waiting: bool,
        backlog: str | None,
        problems: tuple[str, ...] = (),
        warnings: tuple[str, ...] = (),
    ) -> None:
        """A probe returned with these results; `backlog`: how far the relay is in one.

        `problems`: why changes are not captured. `warnings`: the same, of single tables that are gone
        or of parts of a table, which is no reason to be not ready for all others.
        """
        if warnings != self._warnings:
            self._warnings = warnings
            if warnings:
                _logger.warning("not everything is captured; run: notifier check", found=warnings)
        self._proven_at = time.monotonic()
        if backlog is None or backlog != self._backlog:
            self._backlog, self._moved_at = backlog, self._proven_at
        if problems:
            self._reason = "; ".join(problems)
        elif not relay:
            self._reason = "no node holds the relay lock"
        elif waiting:
            self._reason = "changes wait and are not relayed"
        elif self._proven_at - self._moved_at > STUCK_SECONDS:
            self._reason = f"the relay is stuck in a backlog for more than {STUCK_SECONDS:.0f} s"
        else:
            self._reason = None
        self._show()

    def report(self, part: str, reason: str | None) -> None:
        """A part was checked; `reason`: why it is not sound."""
        self._parts[part] = reason and f"{part}: {reason}"
        self._show()

    def lost(self, why: str) -> None:
        """The node's link failed."""
        self._reason = why
        self._show()

    def reason(self) -> str | None:
        """Why this node is not ready; None: it is."""
        if self.draining:
            return "going away"
        if self._reason is None and time.monotonic() - self._proven_at > STALE_SECONDS:
            return "the database has not answered for 10 s"
        if self._reason is not None:
            return self._reason
        return next((reason for reason in self._parts.values() if reason is not None), None)

    def _show(self) -> None:
        metrics.READY.set(self.reason() is None)
