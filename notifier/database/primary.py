"""The server that a node uses: the primary, and the same one for all its connections.

Several hosts in a URL, a proxy, or a name that moves can lead one connection to a standby, or to the primary that was, and
another to the present one. There a revoked user may still be a member, positions are older than those that were
delivered, and the snapshots of a standby do not have the transactions that run on the primary.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Protocol, TypeAlias

from notifier.errors import Apart, Misplaced, UnexpectedAnswer

Server: TypeAlias = tuple[Any, ...]
"""A database of a server that was started at some time."""

STANDBY = "this is a standby, which may be behind and cannot notify: name the primary in the URL"

APART = "connections of this node lead to different servers: name one primary in the URL"

POOLER_APART = (
    "the pooler and the direct connection lead to different servers: NOTIFIER_DATABASE_URL and"
    " NOTIFIER_LISTEN_DATABASE_URL must lead to one primary"
)

_QUERY = """
SELECT pg_catalog.pg_is_in_recovery(), d.oid, pg_catalog.pg_postmaster_start_time()
FROM pg_catalog.pg_database AS d WHERE d.datname OPERATOR(pg_catalog.=) pg_catalog.current_database()
"""


_COLUMNS = 3


class Connection(Protocol):
    """One of the driver."""

    async def fetchrow(self, query: str) -> Any:
        """The first row."""


async def primary_of(connection: Connection, *, may_be_standby: bool = False) -> Server:
    """The server of a connection. Raises Misplaced where it is a standby, and must not be one, and UnexpectedAnswer."""
    row = await connection.fetchrow(_QUERY)
    if row is None or len(row) != _COLUMNS:
        raise UnexpectedAnswer("the database does not identify itself")
    is_standby, *server = tuple(row)
    if is_standby and not may_be_standby:
        raise Misplaced(STANDBY)
    return tuple(server)


class Followed:
    """The server whose log a node follows. `server`: None while its stream has no connection."""

    def __init__(self) -> None:
        self.server: Server | None = None

    def is_at(self, server: Server) -> bool:
        """Whether this may be it."""
        return self.server in (None, server)

    def require(self, server: Server) -> None:
        """Raises Apart for another one."""
        if not self.is_at(server):
            raise Apart(APART)


def elsewhere(server: Server | None) -> str:
    """A query that has a row on a standby, and on another server than this one: for a pooler, which chooses one for each transaction."""
    conditions = ["pg_catalog.pg_is_in_recovery()"]
    database, started = server or (None, None)
    # An answer may hold anything; in a statement nothing but these is safe.
    if isinstance(database, int) and isinstance(started, datetime):
        conditions += [
            f"pg_catalog.pg_postmaster_start_time() OPERATOR(pg_catalog.<>) '{started}'::pg_catalog.timestamptz",
            (
                f"NOT EXISTS (SELECT FROM pg_catalog.pg_database AS d WHERE d.oid OPERATOR(pg_catalog.=) {database}::pg_catalog.oid"
                " AND d.datname OPERATOR(pg_catalog.=) pg_catalog.current_database())"
            ),
        ]
    return f"SELECT WHERE {' OR '.join(conditions)}"
