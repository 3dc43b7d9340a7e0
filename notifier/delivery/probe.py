"""Verifies the path from trigger to node in parts: a NOTIFY that returns, the triggers, and the state of the relay."""

from __future__ import annotations

import asyncio
import secrets

import asyncpg

from notifier import metrics
from notifier.database import sql
from notifier.database.connections import DEADLINE_SECONDS, Connection
from notifier.errors import Misplaced, SchemaMissing
from notifier.health import Health

WAITING_SECONDS = 10.0
"""How long a change may wait for the relay."""


class Probe:
    """Probes one link."""

    def __init__(self) -> None:
        self._nonce = f"probe {secrets.token_hex(8)}"  # one in 1,800 has digits alone, as a seq has
        self._returned = asyncio.Event()

    def receive(self, payload: str) -> None:
        """Takes the payload of a notification, which may be the probe's own."""
        if payload == self._nonce:
            self._returned.set()

    async def run(self, connection: Connection, *, listens: bool = True) -> asyncpg.Record:
        """The columns of `sql/queries/probe.sql`. `listens`: whether notifications must come through.

        Raises Misplaced where they do not, SchemaMissing without a log.
        """
        self._returned.clear()
        row = await connection.fetchrow(
            sql.query("probe"),
            self._nonce if listens else None,
            WAITING_SECONDS,
            timeout=DEADLINE_SECONDS,
        )
        if row is None:  # so no NOTIFY was sent either
            raise SchemaMissing("the log is empty; run: notifier migrate")
        if not listens:
            return row
        try:
            async with asyncio.timeout(DEADLINE_SECONDS):
                await self._returned.wait()
        except TimeoutError:
            raise Misplaced(
                "LISTEN does not receive its own NOTIFY: a pooler in transaction mode?"
                " set NOTIFIER_LISTEN_DATABASE_URL to a direct connection"
            ) from None
        return row


def report(found: asyncpg.Record, health: Health) -> None:
    """Reports what a probe of this node's link found."""
    metrics.QUEUE.set(found["queue"])
    metrics.WATCH_PROBLEMS.set(len(found["problems"]) + len(found["warnings"]))
    health.proven(
        relay=found["relay"],
        problems=tuple(found["problems"]),
        warnings=tuple(found["warnings"]),
        waiting=found["waiting"],
        backlog=found["backlog"],
    )
