"""One role owns the schema `notifier` and what is in it: the one that first ran `migrate`.

Trigger functions run with the rights of their owner, so the owner of the tables must own them too. The owner of a schema
may drop the objects in it and replace them.
"""

from __future__ import annotations

from collections.abc import Iterable

import asyncpg

from notifier.database import sql
from notifier.database.connections import Connection
from notifier.database.functions import MANAGED
from notifier.database.removal import SEQUENCE, TABLES
from notifier.errors import DatabaseError


async def differences(connection: Connection) -> list[str]:
    """Objects of ours that belong to another role than our tables, a line each."""
    return [
        f"{_name(row)} belongs to {row['owner']}, and not to {row['wanted']}, the owner of the tables"
        for row in await _found(connection)
    ]


async def require_trust(connection: Connection, relations: Iterable[str]) -> None:
    """Raises DatabaseError where the owner of our tables may not create triggers on one of these that are watched.

    So it did not run `migrate` for them: it may have made the schema to have its triggers run by `migrate`, or to own
    what applications will run. The same for a role that may create objects in a schema that has no tables of ours yet: it could
    put functions beside ours while `migrate` runs, and still own the schema then. Call it before anything in the schema is
    read, and after `claim`.
    """
    row = await connection.fetchrow(sql.query("untrusted_owner"), list(relations))
    if row is not None:
        fact = (
            f"the schema {sql.schema()} belongs to {row['owner']}"
            if row["owns"]
            else f"{row['owner']} has CREATE on the schema {sql.schema()}"
        )
        if (relation := row["relation"]) is None:
            raise DatabaseError(f"{fact}: drop the schema if migrate did not make it")
        raise DatabaseError(
            f"{fact}, which may not create triggers on {relation}: drop the schema if migrate did not make it, else grant"
            " TRIGGER on that table"
        )


async def claim(connection: Connection) -> None:
    """Creates the schema where there is none, so that no other role can while `migrate` runs."""
    if await connection.fetchrow(sql.query("schema_ownership")) is None:
        await connection.execute(
            sql.adapt(f"CREATE SCHEMA notifier; COMMENT ON SCHEMA notifier IS '{MANAGED}'")
        )


async def create_schema(connection: Connection) -> list[str]:
    """Creates the schema, or gives the one that is there to the owner of our tables: the current role where there are none.

    Returns a line where another role owned it. Raises DatabaseError where the current role may not change that.
    """
    await claim(connection)
    row = await connection.fetchrow(sql.query("schema_ownership"))
    assert row is not None
    owner, wanted = row["owner"], row["wanted"]
    if owner == wanted:
        return []
    if not row["may_change"]:
        raise DatabaseError(
            f"the schema {sql.schema()} belongs to {owner}, which could replace functions that run with the rights of"
            f" {wanted}: run migrate as a superuser, or as a member of both with CREATE on the database"
        )
    statement = sql.adapt("ALTER SCHEMA notifier OWNER TO {owner}")
    await connection.execute(statement.format(owner=sql.identifier(wanted)))
    return [f"schema {sql.schema()}: belongs to {wanted}, before to {owner}"]


async def settle(connection: Connection) -> list[str]:
    """Gives what another role owns to the owner of our tables. Returns what was done, a line each."""
    found = await _found(connection)
    for row in found:
        await connection.execute(row["statement"])
    return [f"{_name(row)}: belongs to {row['wanted']}, before to {row['owner']}" for row in found]


async def _found(connection: Connection) -> list[asyncpg.Record]:
    return list(await connection.fetch(sql.query("foreign_owners"), [*TABLES, SEQUENCE], MANAGED))


def _name(row: asyncpg.Record) -> str:
    return f"{row['kind'].lower()} {row['name'].removeprefix(f'{sql.schema()}.')}"
