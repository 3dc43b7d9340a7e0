"""In any order of writes, states and drops, a client's rows are those of the table at its position."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Coroutine
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from notifier.client import Client, connect
from notifier.client.transports import Choice
from tests.conftest import Serve
from tests.databases import Connection, Database
from tests.http_proxy import HttpProxy
from tests.service.calendars import Calendar
from tests.services import token
from tests.waiting import until

T = TypeVar("T")
Rows = dict[str, dict[str, Any]]

WRITERS = 3
RULES = 14


class Reader:
    """A client, and a check after each of its reports: its position never goes back, nor does any row."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.position = 0
        self.versions: dict[str, int] = {}
        self.taking = asyncio.create_task(self._take())

    async def _take(self) -> None:
        async for _ in self.client:
            position = self.client.position
            if position is None:
                continue
            assert position.after >= self.position
            self.position = position.after
            for row in self.client.rows("Event"):
                version = int(row["Title"])
                assert version >= self.versions.get(row["EventId"], 0), "a row went back in time"
                self.versions[row["EventId"]] = version

    def rows(self) -> Rows:
        return {row["EventId"]: row for row in self.client.rows("Event")}

    async def close(self) -> None:
        await self.client.close()
        await self.taking


class Machine(RuleBasedStateMachine):
    """One company of which the events are written by several transactions at once; one client, whose links are cut."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, database: Database, proxy: HttpProxy
    ) -> None:
        super().__init__()
        self._loop = loop
        self.database = database
        self.proxy = proxy
        self.writing: list[asyncio.Task[None]] = []
        self.version = 0

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Runs in the test's own loop; the machine is in a thread."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()

    @initialize(transport=st.sampled_from(["websocket", "sse", "poll"]))
    def begin(self, transport: Choice) -> None:
        self.transport = transport
        self.run(self._begin())

    async def _begin(self) -> None:
        self.company = await Calendar(self.database).company("u1")
        self.connections = [await self.database.connect() for _ in range(WRITERS)]
        self.reader = await self._reader(None)

    async def _reader(self, snapshot: Any) -> Reader:
        client = connect(
            self.proxy.url,
            lambda: token("u1"),
            self.company,
            state=True,
            snapshot=snapshot,
            transport=self.transport,
            min_delay=0.01,
            max_delay=0.05,
        )
        await client.__aenter__()
        return Reader(client)

    # --- the application

    @rule(seed=st.integers(0, 2**30), count=st.integers(1, 12))
    def write(self, seed: int, count: int) -> None:
        """Transactions that overlap go on beside the next steps."""

        async def begin() -> None:
            await asyncio.gather(*self.writing)
            self.writing = [
                asyncio.create_task(self._write(connection, seed + number, count))
                for number, connection in enumerate(self.connections)
            ]

        self.run(begin())

    async def _write(self, connection: Connection, seed: int, count: int) -> None:
        for number in range(count):
            chance = (seed >> number % 20) % 8
            async with connection.transaction():
                for _ in range(1 + chance % 3):
                    self.version += 1
                    await connection.execute(
                        # Each takes an event that no other transaction has, so that none waits for another.
                        "WITH one AS (SELECT id FROM events WHERE company_id = $1::uuid ORDER BY random()"
                        " LIMIT 1 FOR UPDATE SKIP LOCKED)"
                        + (
                            " DELETE FROM events USING one WHERE events.id = one.id AND $2 <> ''"
                            if chance == 0
                            else " UPDATE events SET title = $2 FROM one WHERE events.id = one.id"
                            if chance < 5
                            else " INSERT INTO events (company_id, title, starts_at, ends_at)"
                            " VALUES ($1::uuid, $2, now(), now())"
                        ),
                        self.company,
                        str(self.version),
                    )

    # --- the client

    @rule()
    def drop(self) -> None:
        self._loop.call_soon_threadsafe(self.proxy.cut)

    @rule(keeps=st.booleans())
    def another(self, keeps: bool) -> None:
        """Another client takes its place: with a snapshot of its rows, or with a state."""

        async def another() -> None:
            text = json.dumps(self.reader.client.snapshot()) if keeps else "null"
            await self.reader.close()
            self.reader = await self._reader(json.loads(text))

        self.run(another())

    @rule()
    def bulk(self) -> None:
        """More rows than are sent one by one: a Resync."""
        self.run(
            self.database.execute(
                "INSERT INTO events (company_id, title, starts_at, ends_at)"
                " SELECT $1::uuid, '0', now(), now() FROM generate_series(1, 40)",
                self.company,
            )
        )

    @invariant()
    def its_rows_are_those_of_the_log_at_its_position(self) -> None:
        if hasattr(self, "reader"):
            self.run(self._check())

    async def _check(self) -> None:
        if self.reader.taking.done():
            self.reader.taking.result()
        position, rows = self.reader.client.position, self.reader.rows()
        if position is None:
            return
        messages = await self.database.fetch(
            "SELECT body FROM notifier.messages WHERE company = $1 AND position <= $2 ORDER BY position",
            self.company,
            position.after,
        )
        found = [json.loads(row[0]) for row in messages]
        if any(message["Type"] == "Resync" for message in found):
            return  # the log does not have these rows
        assert rows == folded(found)

    def teardown(self) -> None:
        if hasattr(self, "reader"):
            self.run(self._end())

    async def _end(self) -> None:
        """The rows become those of the table."""
        await asyncio.gather(*self.writing)
        await self.database.relayed()
        table = {
            row["id"]: row["title"]
            for row in await self.database.fetch(
                "SELECT id::text, title FROM events WHERE company_id = $1::uuid", self.company
            )
        }

        async def equal() -> bool:
            if self.reader.taking.done():
                self.reader.taking.result()
            return {key: row["Title"] for key, row in self.reader.rows().items()} == table

        try:
            await until(equal)
            await self._check()
        finally:
            await self.reader.close()
            for connection in self.connections:
                connection.terminate()


def folded(messages: list[dict[str, Any]]) -> Rows:
    """The events that these messages lead to."""
    rows: Rows = {}
    for message in messages:
        if message["Type"].startswith("Event"):
            if message["Type"] == "EventDeleted":
                del rows[message["Data"]["EventId"]]
            else:
                rows[message["Data"]["EventId"]] = message["Data"]
    return rows


@pytest.mark.chaos
@pytest.mark.timeout(300)
async def test_no_order_of_writes_states_and_drops_shows_other_rows_than_the_table_had(
    serve: Serve, database: Database
) -> None:
    service = await serve(database, state="on", bulk_limit="30")
    loop = asyncio.get_running_loop()
    async with HttpProxy(service.port) as proxy:

        class Ready(Machine):
            def __init__(self) -> None:
                super().__init__(loop, database, proxy)

        await asyncio.to_thread(
            run_state_machine_as_test,
            Ready,
            settings=settings(
                max_examples=6,
                stateful_step_count=RULES,
                deadline=None,
                suppress_health_check=list(HealthCheck),
            ),
        )
