"""A ledger of row images, and the log that a company must have by it.

Each write is entered in its own transaction, with the whole row. The expected messages of a user follow
from two rules: a company has the rows that name it, and a user sees those that `visible_to` shows to it.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from operator import itemgetter
from typing import Any, NamedTuple, TypeAlias

from tests.databases import Connection, Database

SCHEMA = """
ALTER TABLE events ADD attendees text[];
CREATE TABLE images (
    id bigserial PRIMARY KEY,
    xid xid8 NOT NULL DEFAULT pg_current_xact_id(),
    entity text NOT NULL,
    key text NOT NULL,
    image jsonb
)
"""
VISIBLE_TO = ("location", "attendees")
"""The columns of an event that name the users who see it."""

TABLES = {"Event": "events", "Employee": "employees", "Company": "companies"}
KINDS = {
    "Event": ("EventCreated", "EventUpdated", "EventDeleted"),
    "Employee": ("EmployeeAdded", "EmployeeUpdated", "EmployeeRemoved"),
    "Company": ("", "CompanyUpdated", "CompanyDeleted"),
}
PROPERTIES = {
    "Event": {
        "EventId": "id",
        "CompanyId": "company_id",
        "Title": "title",
        "Description": "description",
        "Location": "location",
        "Attendees": "attendees",
    },
    "Employee": {
        "EmployeeId": "id",
        "CompanyId": "company_id",
        "Name": "name",
        "UserId": "user_id",
    },
    "Company": {"CompanyId": "id", "Name": "name"},
}
"""The properties that are compared, and their columns. The others have the same value in every image."""

Image: TypeAlias = dict[str, Any]
"""The columns of a row."""


class Images:
    """Writes with their images, on one connection of the application."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection

    async def insert(self, entity: str, **columns: Any) -> str:
        """Inserts a row; its key."""
        places = ", ".join(f"${number}" for number in range(1, len(columns) + 1))
        key: str = await self._enter(
            entity,
            f"INSERT INTO {TABLES[entity]} ({', '.join(columns)}) VALUES ({places}) RETURNING *",
            *columns.values(),
        )
        return key

    async def update(self, entity: str, key: str, **columns: Any) -> None:
        """Changes columns of a row."""
        places = ", ".join(f"{column} = ${number}" for number, column in enumerate(columns, 2))
        await self._enter(
            entity,
            f"UPDATE {TABLES[entity]} SET {places} WHERE id = $1 RETURNING *",
            key,
            *columns.values(),
        )

    async def delete(self, entity: str, key: str) -> None:
        """Deletes a row."""
        statement = f"DELETE FROM {TABLES[entity]} WHERE id = $1 RETURNING *"
        await self._enter(entity, statement, key, image="NULL::jsonb")

    async def transaction(self) -> int:
        """The number of the present transaction."""
        return int(await self.connection.fetchval("SELECT pg_current_xact_id()::text"))

    async def _enter(
        self, entity: str, write: str, *arguments: Any, image: str = "to_jsonb(written)"
    ) -> Any:
        return await self.connection.fetchval(
            f"WITH written AS ({write}) INSERT INTO images (entity, key, image)"
            f" SELECT '{entity}', id::text, {image} FROM written RETURNING key",
            *arguments,
        )


class Entry(NamedTuple):
    """One message of a company's log: a row of the company before and after a transaction."""

    tx: int
    entity: str
    before: Image | None
    after: Image | None


def sees(user: str, entity: str, image: Image) -> bool:
    """Whether a user sees a row of its company."""
    if entity != "Event":
        return True
    named = [image["location"], *(image["attendees"] or ())]
    users = {each for each in named if each}
    return not users or user in users


def seen_by(user: str, entry: Entry) -> tuple[Image | None, Image | None]:
    """The row before and after, as far as a user sees it."""
    entity = entry.entity
    before, after = (
        image if image is not None and sees(user, entity, image) else None
        for image in (entry.before, entry.after)
    )
    return before, after


def properties(entity: str, image: Image) -> dict[str, Any]:
    """The row as a message has it."""
    return {name: image[column] for name, column in PROPERTIES[entity].items()}


def message(entity: str, before: Image | None, after: Image | None) -> dict[str, Any] | None:
    """Type, Data and Old of the message for a user who sees these images; None where there is none."""
    created, updated, deleted = KINDS[entity]
    if after is None:
        if before is None:
            return None
        return {"Type": deleted, "Data": properties(entity, before)}
    data = properties(entity, after)
    if before is None:
        return {"Type": created, "Data": data}
    former = properties(entity, before)
    changed = {name: value for name, value in former.items() if value != data[name]}
    return {"Type": updated, "Data": data, "Old": changed} if changed else None


def passes(
    wanted: Mapping[str, Any], entity: str, before: Image | None, after: Image | None
) -> bool:
    """Whether a change of a row passes a filter: as it was, or as it is, where the user sees it."""
    conditions = wanted.get("where", {}).get(entity, {})
    return entity in wanted.get("entities", [entity]) and any(
        all(properties(entity, image)[name] in values for name, values in conditions.items())
        for image in (before, after)
        if image is not None
    )


# --- the log


async def logs(database: Database, companies: Sequence[str], since: int) -> dict[str, list[Entry]]:
    """Each company's log: one entry for each position. `since`: the last image before the companies'.

    The log itself only gives the order of the transactions, which `check_order` compares with that of their commits.
    """
    rows = await database.fetch(
        "SELECT id, xid::text::bigint AS xid, entity, key, image FROM images"
        " WHERE id > $1 ORDER BY id",
        since,
    )
    by_transaction = _entries(rows)
    orders = await _orders(database, companies)
    found: dict[str, list[Entry]] = {}
    for company in companies:
        found[company] = []
        order = [tx for tx, _ in groupby(orders[company])]
        assert len(order) == len(set(order)), "a transaction is not in one piece"
        for tx in order:
            found[company] += by_transaction.pop((company, tx))
        assert len(found[company]) == len(orders[company])
    assert not by_transaction, "transactions without messages"
    return found


async def _orders(database: Database, companies: Sequence[str]) -> dict[str, list[int]]:
    """The transaction of each message, by company, in the order of positions."""
    rows = await database.fetch(
        "SELECT company, position, views, body FROM notifier.messages WHERE company = ANY ($1)"
        " ORDER BY company, position",
        companies,
    )
    orders: dict[str, list[int]] = {company: [] for company in companies}
    for row in rows:
        body = json.loads(row["body"])
        if row["views"] is not None:
            assert body["Type"] == "Skipped"
            body = json.loads(row["views"])[0]["Body"]
        orders[row["company"]].append(int(body["Tx"]))
        assert row["position"] == len(orders[row["company"]])
    return orders


def _entries(rows: Iterable[Any]) -> dict[tuple[str, int], list[Entry]]:
    """What each transaction did in each company, in the order of its messages."""
    by_row: dict[tuple[str, str], list[Any]] = defaultdict(list)
    for row in rows:
        by_row[row["entity"], row["key"]].append(row)
    placed: dict[tuple[str, int], list[tuple[int, Entry]]] = defaultdict(list)
    for (entity, key), writes in by_row.items():
        before = {"id": key, "name": ""} if entity == "Company" else None
        for tx, group in groupby(writes, key=itemgetter("xid")):
            steps, image = [], before
            for write in group:
                after = None if write["image"] is None else json.loads(write["image"])
                steps.append((write["id"], image, after))
                image = after
            for company, place, *ends in _by_company(entity, steps):
                placed[company, tx].append((place, Entry(tx, entity, *ends)))
            before = image
    return {
        name: [entry for _, entry in sorted(entries, key=itemgetter(0))]
        for name, entries in placed.items()
    }


def _by_company(
    entity: str, steps: list[tuple[int, Image | None, Image | None]]
) -> Iterable[tuple[str, int, Image | None, Image | None]]:
    """What a transaction did to one row, as each company sees it, and its place among its messages.

    A deletion is placed at the last write that concerned the company, others at the first.
    """
    column = "id" if entity == "Company" else "company_id"

    def owner(image: Image | None) -> str | None:
        return None if image is None else image[column]

    concerned: dict[str, list[int]] = defaultdict(list)
    for place, before, after in steps:
        for company in {owner(before), owner(after)} - {None}:
            assert company is not None
            concerned[company].append(place)
    first, last = steps[0][1], steps[-1][2]
    for company, places in concerned.items():
        before = first if owner(first) == company else None
        after = last if owner(last) == company else None
        if message(entity, before, after) is not None:
            is_deletion = after is None
            yield company, places[-1] if is_deletion else places[0], before, after


class Overlap(NamedTuple):
    """A transaction beside those of the main connection: which of them had ended when it began, and when it ended."""

    began_after: int
    ended_after: int


def check_order(log: Sequence[Entry], overlaps: Mapping[int, Overlap]) -> None:
    """Transactions keep the order of their commits; those that overlap may come in any order."""
    order = [tx for tx, _ in groupby(entry.tx for entry in log)]
    main = [tx for tx in order if tx not in overlaps]
    assert main == sorted(main), "transactions were swapped"
    for number, tx in enumerate(order):
        if (overlap := overlaps.get(tx)) is not None:
            before = [each for each in order[:number] if each not in overlaps]
            after = [each for each in order[number + 1 :] if each not in overlaps]
            assert all(each <= overlap.ended_after for each in before)
            assert all(each > overlap.began_after for each in after)
