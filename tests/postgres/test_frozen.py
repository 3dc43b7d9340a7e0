"""A relay that freezes, wherever it is just then: the app never waits for it, and another one leads."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from notifier import relay as relays
from notifier.log import Log, Place
from notifier.schema import migrate
from tests.databases import Connection, Database
from tests.postgres.relays import Relayed, new_company, new_event
from tests.proxy import Proxy
from tests.waiting import until

MIB = 1024 * 1024
TAKEOVER_SECONDS = 15.0
"""What is promised."""


@pytest.fixture
async def proxy(database: Database) -> AsyncIterator[Proxy]:
    """The way of one relay to the database."""
    async with Proxy(*database.address) as proxy:
        yield proxy


@pytest.fixture
async def frail(database: Database, proxy: Proxy) -> AsyncIterator[Relayed]:
    """A relay that goes by the proxy; it is not started."""
    relay = Relayed(database)
    relay.url = database.through(proxy.port)
    yield relay
    proxy.thaw()
    await relay.stop()


async def write(app: Connection, company: str) -> None:
    """So much that capture looks at the log's size several times."""
    event = await new_event(app, company)
    await app.execute(
        f"""
        DO $$ BEGIN
            FOR n IN 1..4000 LOOP
                UPDATE events SET title = n || repeat('x', 500) WHERE id = '{event}';
            END LOOP;
        END $$
        """
    )


@pytest.mark.parametrize("answers", range(6))
async def test_writers_never_wait_for_a_relay_that_froze_while_it_emptied_a_table(
    database: Database,
    app: Connection,
    frail: Relayed,
    proxy: Proxy,
    monkeypatch: pytest.MonkeyPatch,
    answers: int,
) -> None:
    await migrate(database.dsn, max_log_bytes=64 * MIB)
    monkeypatch.setattr(relays, "CHORES_SECONDS", 0.0)
    monkeypatch.setattr(relays, "TURN_BYTES", 64 * 1024)
    empty, frozen = Log._empty, []

    async def empty_and_freeze(log: Log, which: int, place: Place) -> bool:
        if answers:
            proxy.freeze_after(answers)
        else:
            proxy.freeze()
        frozen.append(which)
        return await empty(log, which, place)

    monkeypatch.setattr(Log, "_empty", empty_and_freeze)
    company = await new_company(app)
    await frail.start()

    async def froze() -> bool:
        await new_event(app, company, "x" * 1000)
        return bool(frozen)

    await until(froze)
    await app.execute("SET lock_timeout = '2s'")
    await write(app, company)
