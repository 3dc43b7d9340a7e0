"""The application's view of one company that a client follows."""

from __future__ import annotations

from collections.abc import Collection

from notifier.client.feed import Feed, Filter, Where
from notifier.client.link import Link
from notifier.client.reports import Position, Row, Status
from notifier.client.rows import Rows
from notifier.client.snapshots import rows_of, snapshot_of


class Subscription:
    """One of a client's companies: its filter, its position, its end."""

    def __init__(self, link: Link, feed: Feed) -> None:
        self._link = link
        self._feed = feed

    @property
    def company(self) -> str:
        """The company, as the application spells it."""
        return str(self._feed.company)

    @property
    def position(self) -> Position | None:
        """As `Client.position`, of this company."""
        return self._feed.position

    @property
    def status(self) -> Status:
        """The state of this company; the connection's while there is none."""
        return self._feed.status

    def rows(self, entity: str) -> Rows:
        """As `Client.rows`, of this company."""
        return rows_of(self._feed, entity)

    def snapshot(self) -> Row | None:
        """As `Client.snapshot`, of this company."""
        return snapshot_of(self._feed)

    def set_filter(
        self, *, entities: Collection[str] | None = None, where: Where | None = None
    ) -> None:
        """Replaces the filter. Its first report is a `Resync`: reload the state that the new filter shows.

        The former filter stays until the new one is accepted, and if it is refused (`bad_filter`).
        """
        self._link.set_filter(self._feed, Filter.of(entities, where))

    async def arrived(self, tx: str | int) -> int:
        """Waits until the loop has handled all messages of a transaction; returns the company's position then.

        `tx` is its `pg_current_xact_id()`. The question is repeated after a reconnect. Raises
        ArrivalError. Await it in another task than the one that iterates the reports.
        """
        return await self._link.arrived(self._feed, str(tx))

    def unsubscribe(self) -> None:
        """Leaves the company: no further message of it is reported."""
        self._link.unsubscribe(self._feed)
