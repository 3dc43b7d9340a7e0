"""In any order of writes, states and drops, a client's rows are those of the table at its position.

Over each transport, with and without a filter; some rows are visible to one user only.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import pytest
from hypothesis import HealthCheck, Phase, settings
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
from tests.services import run, token
from tests.waiting import until

T = TypeVar("T")

WRITERS = 3
RULES = 14
READER, OTHER = "u1", "u2"

CONFIGURATION = """
[[watch]]
table = "companies"
entity = "Company"
key = "id"
company = "id"

[[watch]]
table = "employees"
entity = "Employee"
company = "company_id"
member = "user_id"

[[watch]]
table = "events"
entity = "Event"
company = "company_id"
visible_to = ["location"]
"""

LEDGER = """
CREATE SEQUENCE versions;
CREATE TABLE ledger (
    id bigserial PRIMARY KEY,
    xid xid8 NOT NULL DEFAULT pg_current_xact_id(),
    company uuid NOT NULL,
    event uuid NOT NULL,
    title text,
    kind text,
    sight text
)
"""
"""What the application wrote, by transaction; without a title the event was deleted."""

# Each takes an event that no other transaction has, so that none waits for another.
ONE = "SELECT id FROM events WHERE company_id = $1::uuid ORDER BY random() LIMIT 1 FOR UPDATE SKIP LOCKED"
CHANGES = {
    "delete": "DELETE FROM events USING one WHERE events.id = one.id"
    " RETURNING events.id, NULL, NULL, NULL",
    "update": "UPDATE events SET title = nextval('versions'), description = $2, location = $3"
    " FROM one WHERE events.id = one.id RETURNING events.id, title, description, location",
    "insert": "INSERT INTO events (company_id, title, description, location, starts_at, ends_at)"
    " VALUES ($1::uuid, nextval('versions'), $2, $3, now(), now())"
    " RETURNING id, title, description, location",
}
BULK = 40

MESSAGES = """
SELECT concat(body, views) AS text, position <= $2 AS is_before, body->>'Type' = 'Resync' AS is_resync
FROM notifier.messages WHERE company = $1
"""
WRITTEN = """
SELECT event::text, xid::text, title, kind, sight FROM ledger WHERE company = $1::text::uuid ORDER BY id
"""

NUMBERED = re.compile(r'"EventId": ?"([^"]+)".*?"Tx": ?"(\d+)"')
"""The event and the transaction of a message, wherever it is stored."""


@dataclass(frozen=True)
class Wanted:
    """A filter, and the kinds of events that pass it."""

    options: dict[str, Any]
    kinds: frozenset[str] = frozenset({"a", "b", "c"})


FILTERS = [
    Wanted({}),
    Wanted({"entities": ["Event"]}),
    Wanted({"where": {"Event": {"Description": ["a", "b"]}}}, frozenset({"a", "b"})),
    Wanted({"entities": ["Event"], "where": {"Event": {"Description": ["c"]}}}, frozenset({"c"})),
]

Row: TypeAlias = tuple[str, str, str | None]
"""Title, kind, and the user who may see it."""


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

    def rows(self) -> dict[str, Row]:
        return {
            row["EventId"]: (row["Title"], row["Description"], row["Location"])
            for row in self.client.rows("Event")
        }

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

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Runs in the test's own loop; the machine is in a thread."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()

    @initialize(
        transport=st.sampled_from(["websocket", "sse", "poll"]), wanted=st.sampled_from(FILTERS)
    )
    def begin(self, transport: Choice, wanted: Wanted) -> None:
        self.transport = transport
        self.wanted = wanted
        self.run(self._begin())

    async def _begin(self) -> None:
        self.company = await Calendar(self.database).company(READER)
        self.connections = [await self.database.connect() for _ in range(WRITERS)]
        self.reader = await self._reader(None)

    async def _reader(self, snapshot: Any) -> Reader:
        client = connect(
            self.proxy.url,
            lambda: token(READER),
            self.company,
            **self.wanted.options,
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
            kind = "delete" if chance == 0 else "update" if chance < 5 else "insert"
            async with connection.transaction():
                for turn in range(1 + chance % 3):
                    dice = (seed >> (number + turn) % 20) % 60
                    await connection.execute(
                        f"WITH one AS ({ONE}), written AS ({CHANGES[kind]})"
                        " INSERT INTO ledger (company, event, title, kind, sight)"
                        " SELECT $1::uuid, * FROM written WHERE ($2::text, $3::text) IS NOT NULL OR true",
                        self.company,
                        "abc"[dice % 3],
                        (None, None, READER, OTHER)[dice // 3 % 4],
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
                "WITH written AS (INSERT INTO events (company_id, title, description, starts_at, ends_at)"
                " SELECT $1::uuid, '0', 'a', now(), now() FROM generate_series(1, $2)"
                " RETURNING id, title, description, location)"
                " INSERT INTO ledger (company, event, title, kind, sight) SELECT $1::uuid, * FROM written",
                self.company,
                BULK,
            )
        )

    @invariant()
    def its_rows_are_those_of_the_table_at_its_position(self) -> None:
        if hasattr(self, "reader"):
            self.run(self._check())

    async def _check(self) -> None:
        if self.reader.taking.done():
            self.reader.taking.result()
        position, rows = self.reader.client.position, self.reader.rows()
        if position is not None:
            table = await self._table(position.after)
            wrong = {
                event: (rows.get(event), possible)
                for event, possible in table.items()
                if rows.get(event) not in possible
            }
            assert not wrong, position
            assert rows.keys() <= table.keys()

    async def _table(self, position: int) -> dict[str, set[Row | None]]:
        """What the reader may see and wants of each event, after the transactions up to this position.

        It is one version, or None for none, unless a Resync stands for a transaction: then which one is not known. A state
        from between the transaction and its Resync has the rows already, and the position before the Resync, which does
        not name the transaction.
        """
        messages = await self.database.fetch(MESSAGES, self.company, position)
        is_before = {
            found.groups(): each["is_before"]
            for each in messages
            if (found := NUMBERED.search(each["text"]))
        }
        resynced = any(each["is_resync"] for each in messages)
        table: dict[str, set[Row | None]] = {}
        for event, xid, *version in await self.database.fetch(WRITTEN, self.company):
            known = is_before.get((event, xid))
            possible = table.setdefault(event, {None})
            if known:
                possible.clear()
            if known or (known is None and resynced):
                possible.add(self._seen(*version))
        return table

    def _seen(self, title: str | None, kind: str, sight: str | None) -> Row | None:
        """A version of an event, if there is one that the reader may see and wants."""
        if title is None or kind not in self.wanted.kinds or sight not in (None, READER):
            return None
        return title, kind, sight

    def teardown(self) -> None:
        if hasattr(self, "reader"):
            self.run(self._end())

    async def _end(self) -> None:
        """The rows become those of the table."""
        await asyncio.gather(*self.writing)
        await self.database.relayed()
        rows = await self.database.fetch(
            "SELECT id::text, title, description, location FROM events WHERE company_id = $1::uuid",
            self.company,
        )
        table = {key: row for key, *version in rows if (row := self._seen(*version))}

        async def equal() -> bool:
            if self.reader.taking.done():
                self.reader.taking.result()
            return self.reader.rows() == table

        try:
            await until(equal)
            await self._check()
        finally:
            await self.reader.close()
            for connection in self.connections:
                connection.terminate()


@pytest.mark.chaos
@pytest.mark.timeout(600)
async def test_no_order_of_writes_states_and_drops_shows_other_rows_than_the_table_had(
    serve: Serve, database: Database, tmp_path: Path
) -> None:
    await database.execute(LEDGER)
    (tmp_path / "notifier.toml").write_text(CONFIGURATION)
    status, output = await run(tmp_path, "migrate", database_url=database.dsn)
    assert status == 0, output
    service = await serve(database, state="on", bulk_limit=BULK - 10)
    await database.relayed()  # the epoch that `migrate` begins, which discards what is read with it
    loop = asyncio.get_running_loop()
    async with HttpProxy(service.port) as proxy:

        class Ready(Machine):
            def __init__(self) -> None:
                super().__init__(loop, database, proxy)

        await asyncio.to_thread(
            run_state_machine_as_test,
            Ready,
            settings=settings(
                max_examples=8,
                stateful_step_count=RULES,
                deadline=None,
                phases=[Phase.generate],  # a failure depends on time: it cannot be repeated
                suppress_health_check=list(HealthCheck),
            ),
        )
