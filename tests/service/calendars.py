"""A calendar as an app writes it: plain SQL, by a role that knows nothing of the notifier."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tests.databases import Database
from tests.waiting import until

EVENT = """
INSERT INTO events (company_id, title, starts_at, ends_at)
VALUES ($1, $2, '2026-11-22 18:00+00', '2026-11-22 19:00+00')
RETURNING id::text
"""


class Calendar:
    """Companies with people and events. Every id is a string."""

    def __init__(self, database: Database) -> None:
        self.database = database

    async def company(self, *users: str, name: str = "Acme") -> str:
        """A company with an employee for each user: so many messages, which the relay has stored."""
        company = await self.add_company(*users, name=name)
        await self.database.relayed()
        return company

    async def add_company(self, *users: str, name: str = "Acme") -> str:
        """The same, written and not waited for: for a test whose relay is not running yet."""
        company: str = await self.database.fetchval(
            """
            WITH company AS (INSERT INTO companies (name) VALUES ($1) RETURNING id),
            people AS (
                INSERT INTO employees (company_id, user_id, name)
                SELECT id, who, initcap(who) FROM company, unnest($2::text[]) AS who
            )
            SELECT id::text FROM company
            """,
            name,
            users,
        )
        return company

    async def epoch(self) -> str:
        """The log's."""
        epoch: str = await self.database.fetchval("SELECT epoch FROM notifier.log")
        return epoch

    async def reaches(self, company: str, position: int) -> None:
        """Returns when the relay has stored the company's message at this position."""

        async def stored() -> bool:
            at = await self.database.fetchval(
                "SELECT max(position) FROM notifier.messages WHERE company = $1", company
            )
            return (at or 0) >= position

        await until(stored)

    async def event(self, company: str, title: str = "Stand-up") -> str:
        """A new event."""
        event: str = await self.database.fetchval(EVENT, company, title)
        return event

    async def events(self, company: str, count: int, title: str = "Stand-up") -> None:
        """So many events in one transaction."""
        await self.database.execute(
            """
            INSERT INTO events (company_id, title, starts_at, ends_at)
            SELECT $1, $3 || ' ' || number, now(), now() FROM generate_series(1, $2) AS number
            """,
            company,
            count,
            title,
        )

    async def rename(self, event: str, title: str) -> None:
        """Another title for an event."""
        await self.database.execute("UPDATE events SET title = $2 WHERE id = $1", event, title)


def positions(messages: Sequence[dict[str, Any]]) -> list[int]:
    """The positions of those messages that have one: changes and resyncs."""
    return [message["Position"] for message in messages if "Position" in message]
