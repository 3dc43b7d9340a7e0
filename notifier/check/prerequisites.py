"""Checks of what a node needs besides the schema: keys for tokens, a certificate, the server's state."""

from __future__ import annotations

import ssl
import time
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg

from notifier import certificates
from notifier.access.tokens import Tokens
from notifier.check.findings import Finding
from notifier.database import grants, paths, schema, sql, state_bounds
from notifier.database.connections import Connection, first_line
from notifier.database.query import parsing
from notifier.database.transactions import summarize
from notifier.errors import NotifierError, SettingsError
from notifier.settings import Settings

CLOCK_SECONDS = 2.0
"""How far the clocks of this machine and of the database may be apart."""

FREE_CONNECTIONS = 10
"""Fewer free connections of the server are a note: a node opens six, with STATE nine, `migrate` one."""


async def local(settings: Settings) -> AsyncIterator[Finding]:
    """Checks what does not depend on the database."""
    yield await _keys(settings)
    if settings.ssl_certfile is not None and settings.ssl_keyfile is not None:
        yield _certificate(settings.ssl_certfile, settings.ssl_keyfile)


async def _keys(settings: Settings) -> Finding:
    """Whether tokens can be verified now."""
    secret, pem, url = settings.jwt_secret, settings.jwt_public_key, settings.jwks_url
    if secret is None and pem is None and url is None:
        return Finding(
            None,
            "no key for tokens is set here; `serve` needs one of NOTIFIER_JWT_SECRET,"
            " NOTIFIER_JWT_PUBLIC_KEY and NOTIFIER_JWKS_URL",
        )
    try:
        tokens = Tokens(
            secret=secret.get_secret_value() if secret else None,
            public_key=pem,
            jwks_url=url,
            algorithms=settings.jwt_algorithms,
        )
        await tokens.require_keys()
    except SettingsError as error:
        return Finding(False, str(error))
    except NotifierError as error:
        return Finding(False, str(error), "check NOTIFIER_JWKS_URL, and that it can be reached")
    return Finding(True, "tokens can be verified")


def _certificate(certfile: Path, keyfile: Path) -> Finding:
    """Whether the TLS certificate fits its key, is valid, and will be for a while."""
    try:
        certificates.require_plain_key(certfile, keyfile)
        line = certificates.problem(certfile, time.time())
        expired = line is not None and certificates.expiry(certfile) <= time.time()
    except SettingsError as error:
        return Finding(False, str(error))
    except (OSError, ValueError) as error:
        return Finding(False, f"the certificate {certfile} cannot be read: {error}")
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certfile, keyfile)
    except (ssl.SSLError, OSError) as error:
        return Finding(
            False,
            f"{certfile} and {keyfile} cannot be used: {first_line(error)}",
            "set NOTIFIER_SSL_CERTFILE and NOTIFIER_SSL_KEYFILE to a certificate and its own key",
        )
    if line is None:
        return Finding(True, "the certificate is valid")
    return Finding(False if expired else None, line, "renew it; running nodes load the new file")


def version(connection: Connection) -> Finding:
    """The version of the server."""
    major = connection.get_server_version().major
    fact = f"PostgreSQL {major}, {schema.OLDEST} or newer is needed"
    is_supported = major >= schema.OLDEST
    return Finding(is_supported, fact, "" if is_supported else "upgrade the server")


async def server(connection: Connection) -> AsyncIterator[Finding]:
    """The server's clock, room for the connections of nodes, and where rows change without a trigger."""
    before = time.time()
    row = await connection.fetchrow(sql.query("server_state"))
    assert row is not None
    apart = row["clock"] - (before + time.time()) / 2
    if abs(apart) > CLOCK_SECONDS:
        yield Finding(
            None,
            f"the database's clock is {abs(apart):.0f} s {'ahead' if apart > 0 else 'behind'}",
            "synchronise the clocks: tokens expire by this machine's, `At` is the database's",
        )
    else:
        yield Finding(True, "the clocks agree")
    free = f"{row['free']} of the server's {row['limit']} connections are free"
    if row["free"] < FREE_CONNECTIONS:
        yield Finding(
            None,
            free,
            "raise max_connections: a node opens six, with NOTIFIER_STATE=on nine, `migrate` one",
        )
    else:
        yield Finding(True, free)
    for row in await connection.fetch(sql.query("replica_settings")):
        yield Finding(
            False if row["general"] else None,
            f"{row['whose']} has session_replication_role = replica: its writes are not captured",
            f"{row['remedy']}, or enable the triggers of {sql.schema()} ALWAYS",
        )
    for row in await connection.fetch(sql.query("subscribed_tables")):
        yield Finding(
            None,
            f"subscription {row['subscription']} writes to {row['relation']}: the rows that it applies are not captured",
            f"ALTER TABLE {row['relation']} ENABLE ALWAYS TRIGGER, for each of {row['triggers']}",
        )
    for row in await connection.fetch(sql.query("unlogged_tables")):
        yield Finding(
            None,
            f"{row['unlogged']} is UNLOGGED: a crash of PostgreSQL empties it, and clients keep its rows",
            f"ALTER TABLE {row['unlogged']} SET LOGGED",
        )


async def state(connection: Connection, settings: Settings, role: str) -> AsyncIterator[Finding]:
    """Whether the rows that NOTIFIER_STATE=on sends can be read, and read by an index."""
    if settings.state == "off":
        return
    rows = await connection.fetch(sql.query("state_rights"))
    for row in rows:
        table = row["relation"]
        if not row["readable"]:
            yield Finding(
                False,
                f"NOTIFIER_STATE=on, but role {role} may not read the rows of {table}",
                f"run: notifier migrate --grant {role} --state",
            )
        elif row["hidden"]:
            yield Finding(
                False,
                f"NOTIFIER_STATE=on, but row-level security hides rows of {table} from role {role}",
                "give the role BYPASSRLS, or set NOTIFIER_STATE=off",
            )
        elif row["unindexed"]:
            yield Finding(
                None,
                f"NOTIFIER_STATE=on, but no index of {table} begins with {row['unindexed']}, by which a"
                " company's rows are found: each state reads the whole table",
            )
    bounds = [finding async for finding in _state_bounds(connection)]
    for finding in bounds:
        yield finding
    if not bounds and all(row["readable"] and not row["hidden"] for row in rows):
        yield Finding(True, "NOTIFIER_STATE=on: the rows of every watched table can be read")


async def confinement(
    connection: Connection, role: str, settings: Settings
) -> AsyncIterator[Finding]:
    """What code in an index of one table could read of the log, and of other owners' tables; a schema that queries do not search."""
    for name in {name for _, name in await grants.excessive(connection, role)}:
        yield Finding(None, schema.EXCESSIVE.format(role=name), schema.NARROW.format(role=name))
    for row in await connection.fetch(sql.query("excessive_memberships"), role):
        yield Finding(
            None,
            f"role {role} is a member of {row['role']}, which {row['why']}: `serve`, and code in an index of a table that"
            " it reads, has these rights (run it as a role that `notifier migrate --grant` has named and that has no others)",
        )
    owner = await connection.fetchval(sql.query("foreign_role_schema"))
    if owner is not None and (settings.membership_query or settings.user_query):
        yield Finding(
            None,
            f"schema {role} belongs to {owner}, which could not act as role {role}: no name in"
            " NOTIFIER_MEMBERSHIP_QUERY and NOTIFIER_USER_QUERY is looked up in it",
            "drop it unless it is yours; else name it in the query",
        )
    owners = [row["owner"] for row in await connection.fetch(sql.query("reading_owners"))]
    if len(owners) > 1:
        yield Finding(
            None,
            f"the tables of which nodes read rows belong to {summarize(owners)}: code in an index of one"
            f" owner's tables can read the columns of the others' tables that role {role} may read"
            " (a NOTIFIER_SCHEMA and a role of `serve` for each owner keep them apart)",
        )


async def _state_bounds(connection: Connection) -> AsyncIterator[Finding]:
    """Each `state_where` that its table, as it is now, does not have the columns for. None is evaluated."""
    for row in await connection.fetch(sql.query("state_tables").format(path=paths.joins("t"))):
        if row["state_where"] is None or not row["complete"]:
            continue
        problem = state_bounds.OTHER_TYPE if not row["bounded"] else None
        if problem is None:
            where = state_bounds.condition(row["state_where"])
            try:
                async with parsing(connection):
                    await connection.prepare(f"SELECT FROM {row['relation']} WHERE {where}")
            except asyncpg.InsufficientPrivilegeError:
                continue  # the finding on rights names it
            except asyncpg.PostgresError as error:
                problem = first_line(error)
        if problem is not None:
            yield Finding(
                False,
                f"NOTIFIER_STATE=on, but state_where of {row['entity']} cannot be used: {problem}",
                "correct it in notifier.toml, then run: notifier migrate",
            )
