"""Random writes in overlapping transactions, and clients that read the state again when they get a Resync.

Some clients arrive while transactions are open: they begin with a state of that moment.
"""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from contextlib import suppress

import asyncpg
import msgspec
import pytest

from notifier.state.reader import StateReader
from tests.databases import Connection, Database
from tests.postgres.relays import Relayed, messages_of
from tests.postgres.test_paths import DESK, watch

COMPANIES = (7, 8, 9)
STEPS, EVERY = 180, 6
STATE = """
    SELECT m.id, m.body FROM messages AS m
    JOIN conversations AS c ON c.id = m.conversation JOIN inboxes AS i ON i.id = c.inbox
    WHERE i.account = $1
"""
A_CONVERSATION = "(SELECT id FROM conversations ORDER BY random() LIMIT 1)"
WRITES = (
    f"INSERT INTO messages SELECT {{n}}, {A_CONVERSATION}, 'new'",
    f"INSERT INTO messages SELECT {{n}}, {A_CONVERSATION}, 'new'",
    "UPDATE messages SET body = '{n}' WHERE id = (SELECT id FROM messages ORDER BY random() LIMIT 1)",
    f"UPDATE messages SET conversation = {A_CONVERSATION} WHERE id % 7 = {{n}} % 7",
    "DELETE FROM messages WHERE id % 9 = {n} % 9",
    f"UPDATE conversations SET inbox = 1 + {{n}} % 5 WHERE id = {A_CONVERSATION}",
    "UPDATE inboxes SET account = nullif(7 + {n} % 4, 10) WHERE id = 1 + {n} % 5",
    f"DELETE FROM conversations WHERE id = {A_CONVERSATION}",
    "INSERT INTO conversations (no, inbox) VALUES ({n} + 1000, 1 + {n} % 5)",
    "INSERT INTO conversations (no, inbox) VALUES ({n} + 1000, 1 + {n} % 5)",
    "DELETE FROM inboxes WHERE id = 1 + {n} % 5",
    "INSERT INTO inboxes SELECT g, 7 + g % 3 FROM generate_series(1, 5) AS g ON CONFLICT DO NOTHING",
    "TRUNCATE messages",
)
WEIGHTS = (8, 8, 8, 2, 2, 5, 4, 2, 3, 3, 1, 6, 0.2)


class Client:
    """Of one company: its messages as it knows them, from states and from the messages after them."""

    def __init__(self, database: Database, company: int, states: StateReader) -> None:
        self._database = database
        self.company = company
        self._states = states
        self._position = 0
        self.rows: dict[int, str] = {}
        self.resyncs = 0

    async def truth(self) -> dict[int, str]:
        return {row["id"]: row["body"] for row in await self._database.fetch(STATE, self.company)}

    async def read_state(self) -> None:
        state = await self._states.read(str(self.company), None, "u")
        assert state.position >= self._position
        self._position = state.position
        pages = [msgspec.json.decode(page)["Data"] for page in state.pages]
        rows = [row for page in pages if page["Entity"] == "Message" for row in page["Rows"]]
        assert {row["CompanyId"] for row in rows} <= {self.company}
        self.rows = {row["MessageId"]: row["Body"] for row in rows}
        assert len(rows) == len(self.rows)

    async def receive(self) -> None:
        again = False
        for message in await messages_of(self._database, self.company):
            if message["Position"] <= self._position:
                continue
            self._position = message["Position"]
            if message["Type"] == "Resync":
                again = True
            elif message["Type"] == "MessageDeleted":
                self.rows.pop(message["Data"]["MessageId"], None)
            elif message["Type"].startswith("Message"):
                self.rows[message["Data"]["MessageId"]] = message["Data"]["Body"]
        if again:
            self.resyncs += 1
            await self.read_state()


@pytest.fixture
async def states(database: Database) -> AsyncIterator[StateReader]:
    reader = StateReader(database.dsn, pooled=False, max_rows=10_000)
    yield reader
    reader.close()


async def write(connection: Connection, statement: str, choice: random.Random) -> None:
    if not connection.is_in_transaction():
        level = choice.choice(["READ COMMITTED", "READ COMMITTED", "REPEATABLE READ"])
        await connection.execute(f"BEGIN ISOLATION LEVEL {level}; SELECT 1 FROM inboxes")
    try:
        await connection.execute(statement)
        # not open for long after a TRUNCATE: the clients would wait for its lock
        if choice.random() < 0.45 or statement.startswith("TRUNCATE"):
            await connection.execute(choice.choice(["COMMIT"] * 5 + ["ROLLBACK"]))
    except asyncpg.PostgresError:  # it would wait for another one, or a key is taken
        with suppress(asyncpg.PostgresError):
            await connection.execute("ROLLBACK")


@pytest.mark.parametrize("seed", [2, 6])
async def test_every_client_has_the_rows_of_its_company_after_each_round(
    database: Database, relay: Relayed, states: StateReader, seed: int
) -> None:
    choice = random.Random(seed)
    await database.execute(DESK)
    await database.execute("INSERT INTO inboxes VALUES (5, 9)")
    await watch(database)
    writers = [await database.connect(app=True) for _ in range(4)]
    for writer in writers:
        await writer.execute("SET lock_timeout = '20ms'")
    clients = [Client(database, company, states) for company in COMPANIES]
    newcomers: list[Client] = []
    for number in range(1, STEPS):
        statement = choice.choices(WRITES, WEIGHTS)[0].format(n=number)
        await write(choice.choice(writers), statement, choice)
        if number % EVERY in (2, 4):
            newcomers.append(Client(database, choice.choice(COMPANIES), states))
            await newcomers[-1].read_state()
        if number % EVERY == 0:
            await relay.settled()
            for client in (*clients, *newcomers):
                await client.receive()
                assert client.rows == await client.truth(), (number, client.company)
            newcomers = []
        if number % 60 == 0:
            await relay.stop()
            await relay.start()
    assert sum(client.resyncs for client in clients) < STEPS / EVERY * 2.5
