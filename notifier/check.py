"""`notifier check`: is the whole path sound, from the database's settings to NOTIFY and back?"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import NamedTuple

import asyncpg

from notifier import certificates
from notifier.access.membership import as_text
from notifier.access.membership_query import MembershipQuery, tables_query
from notifier.database import catalogue, functions, grants, schema, sql, triggers, views
from notifier.database.connections import (
    DEADLINE_SECONDS,
    PINNED,
    Connection,
    connect,
    connected,
    first_line,
    listener,
)
from notifier.database.url import resolve
from notifier.errors import DatabaseError, NotifierError, SchemaMissing
from notifier.settings import Settings
from notifier.watches import Watch

OLDEST = 14
QUEUE_LIMIT = 0.5


class Finding(NamedTuple):
    """What was looked at; `sound` is None for what need not be mended."""

    sound: bool | None
    line: str


async def findings(settings: Settings) -> AsyncIterator[Finding]:
    """Looks at one thing after the other, until one is missing on which the rest is built."""
    try:
        async with connected(settings.listen_database, "check", pinned=False) as connection:
            yield Finding(True, "the database answers")
            for note in resolve(settings.listen_database).notes:
                yield Finding(None, note)
            async for finding in _inside(connection, settings):
                yield finding
        if settings.ssl_certfile is not None:
            yield _certificate(settings.ssl_certfile)
        if settings.database != settings.listen_database:
            other = await connect(settings.database, "check", pooled=True)
            other.terminate()
            yield Finding(True, "NOTIFIER_DATABASE_URL answers too")
    except NotifierError as error:
        yield Finding(False, str(error))


def _certificate(certfile: Path) -> Finding:
    """Whether the TLS certificate is valid, and will be for a while."""
    try:
        line = certificates.problem(certfile, time.time())
        expired = line is not None and certificates.expiry(certfile) <= time.time()
    except (OSError, ValueError) as error:
        return Finding(False, f"the certificate {certfile} cannot be read: {error}")
    if line is None:
        return Finding(True, "the certificate is valid")
    return Finding(False if expired else None, line)


async def _inside(connection: Connection, settings: Settings) -> AsyncIterator[Finding]:
    version = connection.get_server_version()
    yield Finding(
        version.major >= OLDEST, f"PostgreSQL {version.major}, {OLDEST} or newer is needed"
    )
    if await connection.fetchval("SELECT pg_is_in_recovery()"):
        yield Finding(False, "this is a standby: it can neither be written to nor notify")
        return
    there = await connection.fetchval("SELECT to_regclass('notifier.version') IS NOT NULL")
    revision = (
        await connection.fetchval("SELECT max(version_num) FROM notifier.version")
        if there
        else None
    )
    if revision != schema.newest():
        found = f"the schema is of version {revision}" if revision else "the schema is missing"
        yield Finding(False, f"{found}, {schema.newest()} is needed; run: notifier migrate")
        return
    yield Finding(True, f"the schema notifier is of version {revision}")
    async for finding in _watches(connection, settings):
        yield finding
    async for finding in _definitions(connection):
        yield finding
    yield await _round_trip(connection)
    yield await _membership(connection, settings)
    probe = await connection.fetchrow(sql.query("probe"), "check", 10.0)
    assert probe is not None
    if probe["relay"]:
        yield Finding(True, "a node relays")
    else:
        yield Finding(None, "no node relays at present; start: notifier serve")
    if probe["waiting"]:
        yield Finding(not probe["relay"] and None, "changes wait and are not relayed")
    if probe["queue"] > QUEUE_LIMIT:
        yield Finding(
            False, f"the notification queue is {probe['queue']:.0%} full: a listener hangs"
        )
    used, limit, full = await connection.fetchrow(
        "SELECT notifier.log_bytes(), max_log_bytes, (SELECT last_value >= 2::bigint ^ 62"
        " FROM notifier.change_ids) FROM notifier.configuration"
    ) or (0, 0, False)
    yield Finding(
        None if full else True,
        f"the log takes {used / 2**20:.0f} of {limit / 2**20:.0f} MiB"
        + (": full, changes are dropped until a node relays" if full else ""),
    )
    if limit != settings.max_log_bytes:
        yield Finding(
            False, "NOTIFIER_MAX_LOG_BYTES is not what the database has; run: notifier migrate"
        )
    if int(await connection.fetchval("SHOW max_prepared_transactions")) > 0 and settings.doorbell:
        yield Finding(
            None,
            "max_prepared_transactions is not 0: an app that uses PREPARE TRANSACTION on a watched"
            " table needs NOTIFIER_DOORBELL=off",
        )


async def _watches(connection: Connection, settings: Settings) -> AsyncIterator[Finding]:
    """The watched tables of the settings, and those of the database."""
    rows = await connection.fetch("SELECT * FROM notifier.watches")
    stored = {row["entity"]: (Watch.from_row(row), row["relation"]) for row in rows}
    relations = [relation for _, relation in stored.values()]
    for watch in settings.watch:
        present, relation = stored.pop(watch.entity, (None, ""))
        if present != watch:
            yield Finding(False, f"{watch.table} is not watched as set; run: notifier migrate")
            continue
        (table,) = await catalogue.describe(connection, [relation])
        if table is None:
            yield Finding(False, f"the watched table {relation} is gone")
        elif found := catalogue.problems(watch, table, relations):
            for problem in found:
                yield Finding(False, problem)
        else:
            yield Finding(True, f"{watch.table} is watched as {watch.entity}")
    for entity in stored:
        yield Finding(False, f"{entity} is still watched; run: notifier migrate")


async def _definitions(connection: Connection) -> AsyncIterator[Finding]:
    """Functions, views and triggers, compared with those that `migrate` makes."""
    async with connection.transaction():
        await connection.execute("SET LOCAL search_path = pg_catalog, pg_temp")
        different: list[object] = [*await functions.differences(connection)]
        different += [f"view {name} differs" for name in await views.differences(connection)]
        if not different:  # a function lists the triggers
            found = await triggers.differences(connection)
            different += [f"{each} is {each.state}" for each in found]
        foreign = await grants.foreign(connection)
    for each in different:
        yield Finding(False, f"{each}; run: notifier migrate")
    if not different:
        yield Finding(True, "functions and triggers are this version's")
    for privilege, role in foreign:
        yield Finding(False, f"{role} has {privilege}; run: notifier migrate")


async def _round_trip(connection: Connection) -> Finding:
    """NOTIFY to ourselves: behind a pooler LISTEN is lost without a word."""
    heard = asyncio.Event()
    nonce = secrets.token_hex(8)

    def hear(payload: str) -> None:
        if payload == nonce:
            heard.set()

    await connection.add_listener("notifier_messages", listener(hear))
    await connection.execute(f"NOTIFY notifier_messages, '{nonce}'")
    try:
        async with asyncio.timeout(DEADLINE_SECONDS):
            await heard.wait()
    except TimeoutError:
        return Finding(
            False,
            "NOTIFY does not come back: a pooler in transaction mode?"
            " set NOTIFIER_LISTEN_DATABASE_URL to a direct connection",
        )
    return Finding(True, "NOTIFY comes back")


async def _membership(connection: Connection, settings: Settings) -> Finding:
    """Whether the question of who may see a company can be asked."""
    if settings.authorization == "claim":
        return Finding(True, "the token's claim decides on access")
    query = settings.membership_query
    if query is None:
        return await _member_rows(connection)
    try:
        await as_text(connection, query)
        answer = await connection.fetchval(query, "0", "0")
    except asyncpg.DataError:
        answer = False
    except (asyncpg.PostgresError, asyncpg.InterfaceError, TypeError) as error:
        return Finding(False, f"NOTIFIER_MEMBERSHIP_QUERY: {first_line(error)}")
    if answer is not None and not isinstance(answer, bool):
        return Finding(False, "NOTIFIER_MEMBERSHIP_QUERY does not return a boolean")
    return Finding(True, "the membership query decides on access")


async def _member_rows(connection: Connection) -> Finding:
    """Runs the query that decides on access: a row that cannot be read looks like no row."""
    try:
        async with connection.transaction():
            for name, value in PINNED.items():
                await connection.execute("SELECT set_config($1, $2, true)", name, value)
            rows = await connection.fetch(tables_query())
            query = MembershipQuery.compile([dict(row) for row in rows])
            await connection.fetch(query.statement, *query.arguments([("0", "0")]))
    except SchemaMissing as error:
        return Finding(False, str(error))
    except asyncpg.PostgresError as error:
        return Finding(
            False,
            f"the rows that name members cannot be read: {first_line(error)}; let the role read them"
            " without row-level security (BYPASSRLS)"
            if "row-level security" in str(error)
            else f"the rows that name members cannot be read: {first_line(error)}",
        )
    return Finding(True, "the rows of members decide on access")


async def check(settings: Settings) -> list[Finding]:
    """All findings. Raises nothing of the database's: that is a finding too."""
    try:
        return [finding async for finding in findings(settings)]
    except DatabaseError as error:
        return [Finding(False, str(error))]
