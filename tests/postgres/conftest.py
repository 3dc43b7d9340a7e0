"""A relay, and an application that writes."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.databases import Connection, Database
from tests.postgres.relays import Relayed, new_company


@pytest.fixture
async def relay(database: Database) -> AsyncIterator[Relayed]:
    """A relay that leads for the whole test."""
    relay = Relayed(database)
    await relay.start()
    yield relay
    await relay.stop()


@pytest.fixture
async def app(database: Database) -> Connection:
    """A connection of the application's role, which has no right on the schema `notifier`."""
    return await database.connect(app=True)


@pytest.fixture
async def company(app: Connection) -> str:
    """A company that the application has inserted."""
    return await new_company(app)
