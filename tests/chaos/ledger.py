"""What an app committed, by its own account: each write is entered in a ledger in its transaction.

So the database itself says what happened, also where a connection died in the middle of a COMMIT.
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
"""The value of each row that there is."""


class Said(NamedTuple):
    """What a message says of a row."""

    kind: str
    value: str

    @classmethod
    def of(cls, message: Mapping[str, Any]) -> tuple[Row, Said]:
        """The row that a message is about, and what it says."""
        kind = message["Type"]
        entity = ENTITIES[kind]
        data = message["Data"]
        return (entity, data[f"{entity}Id"]), cls(kind, data[VALUES[entity]])


def apply(state: State, message: Mapping[str, Any]) -> None:
    """Keeps a client's state as its messages say."""
    row, said = Said.of(message)
    if said.kind == KINDS[row[0]][2]:
        state.pop(row, None)
    else:
        state[row] = said.value


class Ledger:
    """Writes that enter themselves, on one connection of the app's. Ids and values are strings."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def add(self, entity: str, company: str, value: str, user: str | None = None) -> str:
        """A new event or employee; its id."""
        insert = {
            "Event": "events (company_id, title, starts_at, ends_at, location)"
            " VALUES ($1::uuid, $2, now(), now(), $3) RETURNING id, company_id, title AS value",
            "Employee": "employees (company_id, name, user_id)"
            " VALUES ($1::uuid, $2, $3) RETURNING id, company_id, name AS value",
        }[entity]
        added: str = await self._enter(entity, f"INSERT INTO {insert}", company, value, user)
        return added

    async def rename(self, entity: str, key: str, value: str) -> None:
        """Another value for a row."""
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
        """An event goes to another company."""
        await self._enter(
            "Event",
            "UPDATE events SET company_id = $2::uuid, title = $3 WHERE id = $1::uuid"
            " RETURNING id, company_id, title AS value",
            key,
            company,
            value,
        )

    async def remove(self, entity: str, key: str) -> None:
        """A row goes."""
        table = {"Event": "events", "Employee": "employees"}[entity]
        await self._enter(
            entity,
            f"DELETE FROM {table} WHERE id = $1::uuid"
            " RETURNING id, NULL::uuid AS company_id, NULL AS value",
            key,
        )

    async def dismiss(self, company: str, user: str) -> None:
        """A user leaves a company, if he is in it."""
        await self._enter(
            "Employee",
            "DELETE FROM employees WHERE company_id = $1::uuid AND user_id = $2"
            " RETURNING id, NULL::uuid AS company_id, NULL AS value",
            company,
            user,
        )

    async def fill(self, companies: Sequence[str], count: int, value: str) -> None:
        """So many events for each company, in one statement."""
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


async def expected(database: Database) -> dict[str, dict[Row, list[Said]]]:
    """What each company must have been told of each row, by the ledger."""
    entries = await database.fetch(
        "SELECT entity, key, xid::text AS xid, company, value FROM ledger ORDER BY entity, key, id"
    )
    told: dict[str, dict[Row, list[Said]]] = defaultdict(lambda: defaultdict(list))
    for (entity, key), history in groupby(entries, lambda entry: (entry["entity"], entry["key"])):
        for company, said in _net(entity, key, history):
            told[company][entity, key].append(said)
    return {company: dict(rows) for company, rows in told.items()}


def _net(entity: str, key: str, history: Iterable[Any]) -> Iterable[tuple[str, Said]]:
    """One row's history, a transaction at a time: what changed in the end, and for whom."""
    created, updated, deleted = KINDS[entity]
    before: tuple[str, str] | None = None
    if entity == "Company":
        before = (key, "")  # its creation is not told
    for _, entries in groupby(history, lambda entry: entry["xid"]):
        last = list(entries)[-1]
        after = None if last["company"] is None else (last["company"], last["value"])
        if before is not None and after is not None and before[0] == after[0]:
            if before != after:
                assert updated is not None
                yield after[0], Said(updated, after[1])
        else:
            if before is not None:
                assert deleted is not None
                yield before[0], Said(deleted, before[1])
            if after is not None:
                assert created is not None
                yield after[0], Said(created, after[1])
        before = after


async def state(database: Database | Connection, company: str) -> State:
    """A company's events and employees as they stand in the database, and its name."""
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


def collect(messages: Iterable[Mapping[str, Any]]) -> dict[Row, list[Said]]:
    """What messages said of each row, in order."""
    told: dict[Row, list[Said]] = defaultdict(list)
    for message in messages:
        row, said = Said.of(message)
        told[row].append(said)
    return dict(told)
