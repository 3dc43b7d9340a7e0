"""The views of the schema `notifier`: `migrate` creates them from `sql/views/`.

PostgreSQL does not keep a view's text. So the view's comment holds a checksum of the file, and one of the
definition as the server printed it; another major version may print it differently.
"""

from __future__ import annotations

import hashlib
import re

import asyncpg

from notifier.database import sql
from notifier.database.connections import Connection
from notifier.database.functions import MANAGED
from notifier.errors import DatabaseError

_COMMENT = re.compile(re.escape(MANAGED) + r" (\w+) (\w+) (\d+)")


async def differences(connection: Connection) -> list[str]:
    """The views that are missing or differ from their files."""
    rows = {row["name"]: row for row in await connection.fetch(sql.query("views"))}
    found = []
    for name in sql.names("views"):
        row = rows.get(name)
        known = _COMMENT.fullmatch(row["comment"] or "") if row is not None else None
        if row is None or known is None:
            found.append(name)
            continue
        source, definition, server = known.groups()
        if source != _checksum(name) or (
            server == str(row["server"]) and definition != row["definition"]
        ):
            found.append(name)
    return found


async def create(connection: Connection, name: str) -> None:
    """Creates or replaces a view. Raises DatabaseError where something else needs the former one."""
    try:
        async with connection.transaction():
            await connection.execute(f"DROP VIEW IF EXISTS {sql.schema()}.{name}; {sql.view(name)}")
    except asyncpg.DependentObjectsStillExistError as error:
        await _replace(connection, name, error.detail)
    for row in await connection.fetch(sql.query("views")):
        if row["name"] == name:
            comment = f"{MANAGED} {_checksum(name)} {row['definition']} {row['server']}"
            await connection.execute(f"COMMENT ON VIEW {sql.schema()}.{name} IS '{comment}'")


async def _replace(connection: Connection, name: str, dependents: object) -> None:
    """Replaces a view that something else needs, such as a constant of type regclass, for which no right on it is needed."""
    statement = sql.view(name).replace("CREATE VIEW", "CREATE OR REPLACE VIEW", 1)
    try:
        async with connection.transaction():
            await connection.execute(statement)
    except asyncpg.InvalidTableDefinitionError as error:  # it has other columns
        raise DatabaseError(f"something else needs an object of ours: {dependents}") from error


def _checksum(name: str) -> str:
    return hashlib.md5(sql.view(name).encode(), usedforsecurity=False).hexdigest()
