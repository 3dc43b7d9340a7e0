"""NATS on one node: the connection, and the publisher and feed that use it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection

from notifier.database.query import Query
from notifier.delivery.hub import Hub
from notifier.delivery.postgres_stream import PostgresStream
from notifier.nats.credentials import Credentials
from notifier.nats.feed import NatsFeed
from notifier.nats.key import Key
from notifier.nats.link import Link
from notifier.nats.publisher import NatsPublisher
from notifier.nats.subjects import subject_prefix
from notifier.relay.publisher import LocalPublisher
from notifier.settings import Settings

NAME = "notifier"
"""The name of the connections, as NATS' monitoring shows them."""


def link_of(settings: Settings) -> Link:
    """A link by the settings. Raises SettingsError."""
    path = settings.nats_credentials
    return Link(settings.nats_servers, Credentials(path) if path is not None else None, NAME)


class NatsPath:
    """Puts a feed beside the stream of a node, and a publisher beside its relay. Raises SettingsError."""

    def __init__(
        self,
        settings: Settings,
        stream: PostgresStream,
        hub: Hub,
        query: Query,
        *,
        on_configuration: Callable[[], None],
        on_accounts: Callable[[Collection[str] | None], None],
    ) -> None:
        self._link = link_of(settings)
        self._key = Key(query)
        prefix = subject_prefix(settings.nats_prefix, settings.schema)
        self.publisher = NatsPublisher(
            LocalPublisher(stream.accept, stream.doubt), self._link, self._key, prefix
        )
        self._feed = NatsFeed(
            hub,
            stream.healing,
            self._link,
            self._key,
            prefix,
            is_relay=lambda: self.publisher.leads,
            on_configuration=on_configuration,
            on_accounts=on_accounts,
        )
        self.publisher.on_leadership = self._feed.leadership_changed
        stream.use(self._feed)

    async def run(self) -> None:
        """Runs until it is cancelled."""
        async with asyncio.TaskGroup() as tasks:
            for part in (self._key, self._link, self._feed, self.publisher):
                tasks.create_task(part.run())
