"""The rights of the roles that run `notifier serve`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import asyncpg

from notifier.database import paths, sql
from notifier.database.connections import Connection, first_line, role_path
from notifier.database.query import restore
from notifier.errors import DatabaseError

SERVE = "serve"
"""The `privilege` in `notifier.grants` of a role that `migrate --grant` has named."""

STATE = "state"
"""The same of a role that may also read the rows of the watched tables: `--state`."""


async def allow(connection: Connection, role: str, *, state: bool = False) -> bool:
    """Records that a role may serve, and with `state` that it may read the watched tables.

    Returns whether it could not serve before. Raises DatabaseError.
    """
    if not await connection.fetchval("SELECT to_regrole(quote_ident($1)) IS NOT NULL", role):
        raise DatabaseError(f"there is no role {role}")
    if state:
        await _record(connection, role, STATE)
    return await _record(connection, role, SERVE)


class Right(NamedTuple):
    """A right in the words of GRANT. `outside`: on an object of the application's; `of_tenant`: only tables of tenants need it."""

    privilege: str
    outside: bool
    of_tenant: bool


async def synchronize(connection: Connection) -> list[str]:
    """Grants to each role that may serve the rights that it lacks, and records those that the application granted.

    A role that is gone is forgotten: another one of its name may not serve. Raises SettingsError where paths forbid it.
    Returns a line for each right for tables of tenants that the current role may not grant.
    """
    lines = []
    await connection.execute(
        sql.adapt("DELETE FROM notifier.grants WHERE to_regrole(quote_ident(role)) IS NULL")
    )
    rows = await connection.fetch(
        sql.adapt("SELECT role FROM notifier.grants WHERE privilege = $1 ORDER BY role"), SERVE
    )
    for (role,) in rows:
        lines += await _grant(connection, role, await lacking(connection, role))
    await paths.require_separate_owner(connection)
    return lines


async def _grant(connection: Connection, role: str, rights: Sequence[Right]) -> list[str]:
    """Grants all, or where one may not be granted, each that may be; a line for each other one, which only tables of tenants need."""
    try:
        async with (
            connection.transaction()
        ):  # one savepoint: each has an id that all snapshots hold
            for right in rights:
                await connection.execute(f"GRANT {right.privilege} TO {sql.identifier(role)}")
            # PostgreSQL only warns where the current role has a right without its grant option.
            refused = {*await lacking(connection, role)} if rights else set()
            for right in rights:
                if right.outside and right not in refused:
                    await _record(connection, role, right.privilege)
    except asyncpg.InsufficientPrivilegeError as error:
        if len(rights) > 1:
            return [line for right in rights for line in await _grant(connection, role, [right])]
        (right,) = rights
        if not right.of_tenant:
            raise
        return [f"warning: role {role} lacks {right.privilege}: {first_line(error)}"]
    return [
        f"warning: role {role} lacks {right.privilege}: the current role has no grant option"
        for right in rights
        if right in refused and right.of_tenant
    ]


async def lacking(connection: Connection, role: str) -> list[Right]:
    """The rights that a role lacks for `serve`."""
    rows = await connection.fetch(sql.query("lacking_rights"), role)
    return [Right(*row) for row in rows]


async def foreign(connection: Connection) -> list[tuple[str, str]]:
    """Rights on our objects, in the words of REVOKE, and the role that must not have each."""
    rows = await connection.fetch(sql.query("foreign_rights"), SERVE)
    return [(row["privilege"], row["role"]) for row in rows]


async def revoke_foreign(connection: Connection) -> list[str]:
    """Takes rights on our objects from all but the owner and the roles that may serve.

    Returns what was done, a line each.
    """
    found = await foreign(connection)
    for privilege, role in found:
        await connection.execute(f"REVOKE {privilege} FROM {role} CASCADE")
    return [f"{privilege}: revoked from {role}" for privilege, role in found]


async def excessive(connection: Connection, role: str | None = None) -> list[tuple[str, str]]:
    """Rights of roles that may serve, or of one of them, to read the log where code of the application runs as the role.

    In the words of REVOKE, with the role, quoted. Nodes of earlier versions need these rights.
    """
    rows = await connection.fetch(sql.query("excessive_rights"), SERVE, role)
    return [(row["privilege"], row["role"]) for row in rows]


async def revoke_excessive(connection: Connection, role: str) -> None:
    """Takes those rights from a role. `synchronize` grants what nodes of this version need."""
    for privilege, grantee in await excessive(connection, role):
        await connection.execute(f"REVOKE {privilege} FROM {grantee} CASCADE")


async def refusal(
    connection: Connection, role: str, membership_query: str | None, user_query: str | None
) -> str | None:
    """Why a role cannot check access, None where it can. Tried as that role.

    Raises Unreachable where code of the application was run, and left something in the session.
    """
    transaction = connection.transaction()
    await transaction.start()
    try:
        await connection.execute(sql.query("trial").format(role=sql.identifier(role)))
        await connection.execute("SET TRANSACTION READ ONLY")
        await connection.execute(f"SET LOCAL ROLE {sql.identifier(role)}")
    except asyncpg.InsufficientPrivilegeError:
        await transaction.rollback()
        return f"cannot check as role {role} whether it may read what decides on access"
    what = "the rows of members" if membership_query is None else "NOTIFIER_MEMBERSHIP_QUERY"
    try:
        if membership_query is None:
            hiding = await connection.fetchval(sql.query("hidden_member_tables"))
            reason = hiding and f"row-level security applies to {hiding}"
        else:
            await _use_role_path(connection)
            await _try(connection, membership_query, "NULL, NULL")
            reason = None
        if not reason and user_query is not None:
            what = "NOTIFIER_USER_QUERY"
            await _use_role_path(connection)
            await _try(connection, user_query, "NULL")
    except (asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        reason = first_line(error)
    finally:
        await transaction.rollback()
        await restore(connection, None, pooled=False)
    return reason and f"role {role} cannot read {what}: {reason}"


async def _use_role_path(connection: Connection) -> None:
    await connection.execute(f"SET LOCAL search_path = DEFAULT; {role_path(migrated=True)}")


async def _try(connection: Connection, query: str, nulls: str) -> None:
    """Runs a query in `trial`. Without a prepared statement: code that the planner runs could put another in its place."""
    await connection.execute(
        sql.adapt("SELECT notifier.trial({query}, {nulls})").format(
            query=paths.literal(query), nulls=paths.literal(nulls)
        )
    )


async def revoke(connection: Connection) -> None:
    """Takes back each recorded right on the application's objects; what is gone is passed over."""
    rows = await connection.fetch(
        sql.adapt("SELECT role, privilege FROM notifier.grants WHERE privilege <> ALL ($1)"),
        [SERVE, STATE],
    )
    for role, privilege in rows:
        try:
            async with connection.transaction():
                await connection.execute(f"REVOKE {privilege} FROM {sql.identifier(role)}")
        except (
            asyncpg.UndefinedObjectError,
            asyncpg.UndefinedTableError,
            asyncpg.UndefinedColumnError,
            asyncpg.InvalidSchemaNameError,
        ):
            continue


async def _record(connection: Connection, role: str, privilege: str) -> bool:
    status = await connection.execute(
        sql.adapt(
            "INSERT INTO notifier.grants (role, privilege) VALUES ($1, $2) ON CONFLICT DO NOTHING"
        ),
        role,
        privilege,
    )
    return status == "INSERT 0 1"
