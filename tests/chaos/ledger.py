"""The committed writes of an application: each write is entered in a ledger in its own transaction.

So the database itself records what happened, also where a connection died in the middle of a COMMIT.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from typing import Any, NamedTuple, TypeAlias

from tests.databases import Connection, Database

TABLE = """
CREATE TABLE ledger (
    id bigserial PRIMARY KEY,
    xid xid8 NOT NULL DEFAULT pg_current_xact_id(),
    entity text NOT NULL,
    key text NOT NULL,
    company text,
    value text
);
GRANT SELECT, INSERT ON ledger TO app;
GRANT USAGE ON SEQUENCE ledger_id_seq TO app
"""

KINDS = {
    "Event": ("EventCreated", "EventUpdated", "EventDeleted"),
    "Employee": ("EmployeeAdded", "EmployeeUpdated", "EmployeeRemoved"),
    "Company": (None, "CompanyUpdated", "CompanyDeleted"),
}
ENTITIES = {kind: entity for entity, kinds in KINDS.items() for kind in kinds if kind}
VALUES = {"Event": "Title", "Employee": "Name", "Company": "Name"}

Row: TypeAlias = tuple[str, str]
"""An entity and a key."""

State: TypeAlias = dict[Row, str]
"""The value of each row."""


class Sent(NamedTuple):
    """The state of a row in a message."""

    kind: str
    value: str

    @classmethod
    def of(cls, message: Mapping[str, Any]) -> tuple[Row, Sent]:
        """The row of a message, and its state."""
        kind = message["Type"]
        entity = ENTITIES[kind]
        data = message["Data"]
        return (entity, data[f"{entity}Id"]), cls(kind, data[VALUES[entity]])


def apply(state: State, message: Mapping[str, Any]) -> None:
    """Applies a message to a client's state."""
    row, sent = Sent.of(message)
    if sent.kind == KINDS[row[0]][2]:
        state.pop(row, None)
    else:
        state[row] = sent.value


class Ledger:
    """Writes with their ledger entries, on one connection of the application. Ids and values are strings."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def add(self, entity: str, company: str, value: str, user: str | None = None) -> str:
        """Inserts an event or employee; its id."""
        insert = {
            "Event": "events (company_id, title, starts_at, ends_at, location)"
            " VALUES ($1::uuid, $2, now(), now(), $3) RETURNING id, company_id, title AS value",
            "Employee": "employees (company_id, name, user_id)"
            " VALUES ($1::uuid, $2, $3) RETURNING id, company_id, name AS value",
        }[entity]
        added: str = await self._enter(entity, f"INSERT INTO {insert}", company, value, user)
        return added

    async def rename(self, entity: str, key: str, value: str) -> None:
        """Gives a row another value."""
        table, column, company = {
            "Event": ("events", "title", "company_id"),
            "Employee": ("employees", "name", "company_id"),
            "Company": ("companies", "name", "id"),
        }[entity]
        await self._enter(
            entity,
            f"UPDATE {table} SET {column} = $2 WHERE id = $1::uuid"
            f" RETURNING id, {company} AS company_id, {column} AS value",
            key,
            value,
        )

    async def move(self, key: str, company: str, value: str) -> None:
        """Moves an event to another company."""
        await self._enter(
            "Event",
            "UPDATE events SET company_id = $2::uuid, title = $3 WHERE id = $1::uuid"
            " RETURNING id, company_id, title AS value",
            key,
            company,
            value,
        )

    async def remove(self, entity: str, key: str) -> None:
        """Deletes a row."""
        table = {"Event": "events", "Employee": "employees"}[entity]
        await self._enter(
            entity,
            f"DELETE FROM {table} WHERE id = $1::uuid"
            " RETURNING id, NULL::uuid AS company_id, NULL AS value",
            key,
        )

    async def dismiss(self, company: str, user: str) -> None:
        """Removes a user from a company."""
        await self._enter(
            "Employee",
            "DELETE FROM employees WHERE company_id = $1::uuid AND user_id = $2"
            " RETURNING id, NULL::uuid AS company_id, NULL AS value",
            company,
            user,
        )

    async def fill(self, companies: Sequence[str], count: int, value: str) -> None:
        """Inserts `count` events for each company in one statement."""
        await self._connection.execute(
            """
            WITH added AS (
                INSERT INTO events (company_id, title, starts_at, ends_at)
                SELECT company, $3 || ' ' || number, now(), now()
                FROM unnest($1::uuid[]) AS company, generate_series(1, $2) AS number
                RETURNING id, company_id, title
            )
            INSERT INTO ledger (entity, key, company, value)
            SELECT 'Event', id::text, company_id::text, title FROM added
            """,
            list(companies),
            count,
            value,
        )

    async def _enter(self, entity: str, write: str, *arguments: Any) -> Any:
        return await self._connection.fetchval(
            f"""
            WITH written AS ({write})
            INSERT INTO ledger (entity, key, company, value)
            SELECT '{entity}', id::text, company_id::text, value FROM written RETURNING key
            """,
            *arguments,
        )


async def expected(database: Database) -> dict[str, dict[Row, list[Sent]]]:
    """The messages that each company must have received of each row, by the ledger."""
    entries = await database.fetch(
        "SELECT entity, key, xid::text AS xid, company, value FROM ledger ORDER BY entity, key, id"
    )
    messages: dict[str, dict[Row, list[Sent]]] = defaultdict(lambda: defaultdict(list))
    for (entity, key), history in groupby(entries, lambda entry: (entry["entity"], entry["key"])):
        for company, sent in _net(entity, key, history):
            messages[company][entity, key].append(sent)
    return {company: dict(rows) for company, rows in messages.items()}


def _net(entity: str, key: str, history: Iterable[Any]) -> Iterable[tuple[str, Sent]]:
    """The net messages of one row's history, transaction by transaction."""
    created, updated, deleted = KINDS[entity]
    before: tuple[str, str] | None = None
    if entity == "Company":
        before = (key, "")  # its creation sends nothing
    for _, entries in groupby(history, lambda entry: entry["xid"]):
        last = list(entries)[-1]
        after = None if last["company"] is None else (last["company"], last["value"])
        if before is not None and after is not None and before[0] == after[0]:
            if before != after:
                assert updated is not None
                yield after[0], Sent(updated, after[1])
        else:
            if before is not None:
                assert deleted is not None
                yield before[0], Sent(deleted, before[1])
            if after is not None:
                assert created is not None
                yield after[0], Sent(created, after[1])
        before = after


async def state(database: Database | Connection, company: str) -> State:
    """The name, events and employees of a company in the database."""
    rows = await database.fetch(
        """
        SELECT 'Event' AS entity, id::text, title AS value FROM events WHERE company_id = $1::uuid
        UNION ALL
        SELECT 'Employee', id::text, name FROM employees WHERE company_id = $1::uuid
        UNION ALL
        SELECT 'Company', id::text, name FROM companies WHERE id = $1::uuid
        """,
        company,
    )
    return {(row["entity"], row["id"]): row["value"] for row in rows}


def collect(messages: Iterable[Mapping[str, Any]]) -> dict[Row, list[Sent]]:
    """The states of each row in messages, in order."""
    states: dict[Row, list[Sent]] = defaultdict(list)
    for message in messages:
        row, sent = Sent.of(message)
        states[row].append(sent)
    return dict(states)
