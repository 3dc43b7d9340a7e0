"""A relay in this process, on a real database, and the messages that it stores."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, TypeAlias
from uuid import uuid4

from notifier.database import sql
from notifier.messages import Message
from notifier.relay.publisher import LocalPublisher
from notifier.relay.relay import Relay, State
from tests.databases import Connection, Database
from tests.waiting import until

Json: TypeAlias = dict[str, Any]


class Relayed:
    """A relay that may be stopped and started again.

    `published`: what it handed to its node. `url`: the database that it connects to.
    """

    def __init__(self, database: Database, **settings: Any) -> None:
        self._database = database
        self.url = database.dsn
        self._settings: dict[str, Any] = {
            "bulk_limit": 1000,
            "retention_hours": 24,
            "doorbell": True,
            **settings,
        }
        self._running: asyncio.Task[None] | None = None
        self._sentinel: str | None = None
        self.relay: Relay | None = None
        self.published: list[tuple[str, Message]] = []

    async def start(self) -> None:
        """Returns when it leads."""
        relay = self.relay = Relay(self.url, LocalPublisher(self._accept), **self._settings)
        running = self._running = asyncio.create_task(relay.run())

        async def leads() -> bool:
            if running.done():
                running.result()
            return relay.state is not State.STANDBY

        await until(leads)

    async def stop(self) -> None:
        """Stops it at once, wherever it is, as SIGKILL would."""
        if self._running is not None:
            self._running.cancel()
            with suppress(asyncio.CancelledError):
                await self._running
            self._running = None

    async def asleep(self) -> None:
        """Returns when it sleeps and waits for the doorbell."""
        await until(self._database.doorbell_is_armed)

    async def settled(self) -> None:
        """Returns when everything that was committed before the call is in the log.

        It writes a change of its own and waits for its message: transactions of which one began
        after the other had committed keep their order.
        """
        mark = await self._mark()

        async def stored() -> bool:
            if self._running is not None and self._running.done():
                self._running.result()
            return bool(
                await self._database.fetchval(
                    "SELECT EXISTS (SELECT FROM notifier.messages"
                    " WHERE company = $1 AND body::text LIKE '%' || $2 || '%')",
                    self._sentinel,
                    mark,
                )
            )

        await until(stored)

    async def handed_over(self) -> None:
        """Returns when the messages of everything that was committed before the call are in `published`.

        They are handed over after they are stored: others may see them in the log before.
        """
        mark = (await self._mark()).encode()

        async def has_come() -> bool:
            return any(mark in message.body for _, message in self.published)

        await until(has_come)

    async def looked(self) -> None:
        """Returns when it has looked at the triggers, and has saved their state, at least once.

        It does the maintenance that is due between two reads, and what the second call writes is read after what the
        first one has written.
        """
        await self.settled()
        await self.settled()

    async def _mark(self) -> str:
        """Writes a change of its own; a text that its message contains."""
        if self._sentinel is None:
            self._sentinel = str(uuid4())
            await self._database.execute(
                "INSERT INTO companies (id, name) VALUES ($1, '')", self._sentinel
            )
        mark = uuid4().hex
        await self._database.execute(
            "UPDATE companies SET name = $2 WHERE id = $1", self._sentinel, mark
        )
        return mark

    async def messages_of(self, company: object) -> list[Json]:
        """The messages of a company, with all that was committed before the call."""
        await self.settled()
        return await messages_of(self._database, company)

    def _accept(self, epoch: str, messages: Sequence[Message]) -> None:
        self.published += [(epoch, message) for message in messages]


MakeRelay: TypeAlias = Callable[..., Relayed]
"""Makes a relay with settings of its own, not started."""


async def messages_of(database: Database, company: object) -> list[Json]:
    """The messages of a company in the log; their positions must have no gap."""
    rows = await database.fetch(
        "SELECT position, body::text FROM notifier.messages WHERE company = $1 ORDER BY position",
        str(company),
    )
    messages: list[Json] = [json.loads(row["body"]) for row in rows]
    positions = [row["position"] for row in rows]
    assert [message["Position"] for message in messages] == positions
    if positions:
        assert positions == list(range(positions[0], positions[-1] + 1))
    return messages


async def log_head(database: Database) -> tuple[str, int]:
    """The log's epoch and its last seq."""
    rows = await database.fetch(sql.query("log_head"))
    return rows[0]["epoch"], rows[0]["seq"]


def types(messages: Sequence[Json]) -> list[str]:
    """The types of messages, in order."""
    return [message["Type"] for message in messages]


async def new_company(connection: Connection | Database, name: str = "Acme") -> str:
    """Inserts a company; its id."""
    return str(
        await connection.fetchval("INSERT INTO companies (name) VALUES ($1) RETURNING id", name)
    )


async def new_event(connection: Connection | Database, company: str, title: str = "Tea") -> str:
    """Inserts an event; its id."""
    return str(
        await connection.fetchval(
            "INSERT INTO events (company_id, title, starts_at, ends_at)"
            " VALUES ($1, $2, now(), now()) RETURNING id",
            company,
            title,
        )
    )


async def rewrite_event(connection: Connection, event: str, times: int) -> None:
    """Updates an event that often in one transaction, each time with a title of 500 bytes and more."""
    await connection.execute(
        f"""
        DO $$ BEGIN
            FOR n IN 1..{times} LOOP
                UPDATE events SET title = n || repeat('x', 500) WHERE id = '{event}';
            END LOOP;
        END $$
        """
    )
