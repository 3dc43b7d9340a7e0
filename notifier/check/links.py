"""The checks of each link from trigger to client, in this order."""

from __future__ import annotations

import shlex
from collections.abc import AsyncIterator

import asyncpg

from notifier.access.accounts import Accounts
from notifier.access.membership import Membership
from notifier.check import prerequisites
from notifier.check.findings import Finding
from notifier.database import (
    catalogue,
    configuration,
    functions,
    grants,
    ownership,
    paths,
    revisions,
    schema,
    sql,
    tenants,
    transactions,
    triggers,
    views,
)
from notifier.database.connections import (
    Connection,
    connect,
    connected,
    first_line,
    listener,
)
from notifier.database.constants import FULL_MARK
from notifier.database.query import Query, as_text
from notifier.database.url import resolve
from notifier.delivery.probe import Probe
from notifier.errors import DatabaseError, NotifierError, Unreachable
from notifier.patterns import quoted
from notifier.settings import Settings
from notifier.watches import with_zone

QUEUE_LIMIT = 0.5
"""The part of PostgreSQL's notification queue that may be in use."""

LOG_LIMIT = 0.8
"""The part of MAX_LOG_BYTES above which there is a note."""

MIGRATE = "run: notifier migrate"
CONFIGURE = (
    "set NOTIFIER_CONFIG to the notifier.toml (or NOTIFIER_NAIVE_TIMESTAMPS) that configured the"
    " database, or run: notifier migrate --calendar"
)
QUERY = "correct it: $1 is the company, $2 the user, and one boolean is the answer"
DIRECT = "set NOTIFIER_LISTEN_DATABASE_URL to a direct connection"


async def check(settings: Settings) -> list[Finding]:
    """All findings. An error of the database is one of them."""
    try:
        return [finding async for finding in findings(settings)]
    except DatabaseError as error:
        return [_failed(error)]


async def findings(settings: Settings) -> AsyncIterator[Finding]:
    """One thing after the other, until one is missing that the rest needs."""
    try:
        async with connected(settings.listen_database, "check", standby=True) as connection:
            yield Finding(True, "the database answers")
            for note in resolve(settings.listen_database).notes:
                yield Finding(None, note)
            async for finding in _listening(connection, settings):
                yield finding
        if settings.database != settings.listen_database:
            other = await connect(settings.database, "check", pooled=True)
            other.terminate()
            yield Finding(True, "NOTIFIER_DATABASE_URL answers too")
        reached = True
    except NotifierError as error:
        yield _failed(error)
        reached = False
    if settings.nats_url is not None:
        from notifier.check import nats

        async for finding in nats.findings(settings):
            yield finding
    async for finding in prerequisites.local(settings):
        if reached or finding.is_actionable:
            yield finding


def _failed(error: NotifierError) -> Finding:
    """The finding for an error that ends the checks; most texts have the remedy in them."""
    remedy = (
        "see that the server runs, and that NOTIFIER_DATABASE_URL and pg_hba.conf are right"
        if isinstance(error, Unreachable)
        else ""
    )
    return Finding(False, str(error), remedy)


async def _listening(connection: Connection, settings: Settings) -> AsyncIterator[Finding]:
    """Checks the link on which a node listens."""
    yield prerequisites.version(connection)
    if await connection.fetchval("SELECT pg_is_in_recovery()"):
        yield Finding(
            False,
            "this is a standby: it can neither be written to nor notify",
            "name the primary in the URL",
        )
        return
    if await _is_pooled(connection, settings):
        yield Finding(False, "this is a pooler in transaction mode", DIRECT)
        return
    role, may = await connection.fetchrow(sql.query("schema_right")) or ("", None)
    if may is False:
        yield Finding(
            False, f"role {role} has no rights on the schema {sql.schema()}", _grant(role)
        )
        return
    revision = await revisions.current(connection)
    if revisions.is_newer(revision):
        yield Finding(False, revisions.newer(revision), "use the version that has migrated it")
        return
    if revision != revisions.newest():
        found = f"the schema is of version {revision}" if revision else "the schema is missing"
        yield Finding(False, f"{found}, {revisions.newest()} is needed", MIGRATE)
        return
    yield Finding(True, f"the schema {sql.schema()} is of version {revision}")
    await configuration.require_whole(connection, revision)
    if lacking := await grants.lacking(connection, role):
        names = ", ".join(each.privilege for each in lacking)
        yield Finding(False, f"role {role} lacks {names}", _grant(role))
        if not all(each.of_tenant for each in lacking):
            return
    for part in (
        _watches(connection, settings),
        _definitions(connection),
        _path(connection),
        _log(connection, settings),
        prerequisites.server(connection),
        prerequisites.state(connection, settings, role),
        prerequisites.confinement(connection, role, settings),
    ):
        async for finding in part:
            yield finding
    yield await _membership(settings)
    if settings.user_query is not None:
        yield await _accounts(settings, settings.user_query)
    if settings.doorbell and int(await connection.fetchval("SHOW max_prepared_transactions")) > 0:
        yield Finding(None, schema.PREPARED_TRANSACTIONS)


async def _is_pooled(connection: Connection, settings: Settings) -> bool:
    """Whether statements of one link run in several backends, or several links share one.

    An idle pooler gives a link the same backend again. So another transaction occupies it meanwhile.
    """
    backend = "SELECT pg_backend_pid()"
    mine = await connection.fetchval(backend)
    other = await connect(settings.listen_database, "check")
    try:
        async with other.transaction():
            beside = await other.fetchval(backend)
            return bool(beside == mine or await connection.fetchval(backend) != mine)
    finally:
        other.terminate()


def _grant(role: str) -> str:
    return f"run: notifier migrate --grant {role}"


async def _watches(connection: Connection, settings: Settings) -> AsyncIterator[Finding]:
    """The watches of the settings, those of the database, and the tables that they name."""
    stored = {
        name: each
        for name, each in (await configuration.load(connection)).items()
        if each.tenant is None
    }
    patterns = await configuration.load_patterns(connection)
    relations = [each.relation for each in stored.values()]
    # Without a notifier.toml `migrate` refuses to replace what another one configured.
    zoned = {with_zone(each.watch, settings.naive_timestamps) for each in stored.values()}
    is_other = settings.given_watches is None and (
        patterns or (stored and zoned != set(settings.watch))
    )
    remedy = CONFIGURE if is_other else MIGRATE
    for watch in settings.watch:
        if watch.pattern is not None:
            if patterns.pop(watch.name, None) != watch:
                yield Finding(False, f"{watch.table} is not watched as set", remedy)
            continue
        present = stored.pop(watch.name, None)
        if present is None or present.watch != watch:
            yield Finding(False, f"{watch.table} is not watched as set", remedy)
            continue
        (table,) = await catalogue.describe_found(connection, [present.relation])
        if table is None:
            yield Finding(
                False,
                f"the watched table {present.relation} is gone",
                f"create it or remove its [[watch]], then {MIGRATE}",
            )
        elif problems := catalogue.problems(watch, table, relations):
            for problem in problems:
                yield Finding(False, problem)
        elif (finding := await _altered(connection, present)) is not None:
            yield finding
        else:
            yield Finding(True, f"{watch.table} is watched as {watch.entity}")
    for entity in (*stored, *patterns):
        yield Finding(False, f"{entity} is still watched", remedy)
    wanted = configuration.named_scopes(settings.scope, settings.watch)
    if await configuration.load_scopes(connection) != wanted:
        yield Finding(False, "the scopes are not as set", remedy)
    async for finding in _tenants(connection):
        yield finding


async def _altered(connection: Connection, stored: configuration.Stored) -> Finding | None:
    """What has become of the columns that a watch hides, or of its path, since the last `migrate`."""
    watch = stored.watch
    hidden = (*watch.exclude, *watch.visible_to)
    if found := await configuration.renamed_column(connection, stored.relation, hidden):
        fact = (
            f"{watch.table}: the column that was {found[0]} at the last migrate is {found[1]} now"
        )
        return Finding(False, fact, f"exclude it, or name it in visible_to, then {MIGRATE}")
    if await connection.fetchval(sql.query("unsaved_hidden_columns"), stored.relation, hidden):
        fact = (
            f"{watch.table}: a hidden column was created since the last migrate, or the database was"
            " restored; renamed, it would not stay hidden"
        )
        return Finding(False, fact, MIGRATE)
    if watch.path is not None and (line := await paths.problem(connection, watch)):
        return Finding(False, line, f"change its company, then {MIGRATE}")
    return None


async def _tenants(connection: Connection) -> AsyncIterator[Finding]:
    """Tables of tenants that are not watched yet, or cannot be. A schema that is gone is no finding."""
    patterns = await configuration.load_patterns(connection)
    if not patterns:
        return
    found = await tenants.survey(connection, list(patterns.values()))
    for problem in found.problems:
        yield Finding(False, problem)
    if len(found.unwatched) > transactions.NAMED:
        names = transactions.summarize(found.unwatched)
        yield Finding(False, f"schemas {names} are not watched yet", MIGRATE)
    else:
        for name in found.unwatched:
            only = shlex.quote(f"{quoted(name)}.*")
            yield Finding(False, f"schema {name} is not watched yet", f"{MIGRATE} --only {only}")
    for watch in patterns.values():
        number = found.schemas[watch.name]
        yield Finding(True, f"{watch.table} is watched as {watch.entity} in {number} schemas")


async def _definitions(connection: Connection) -> AsyncIterator[Finding]:
    """Functions, views and triggers, compared with those that `migrate` makes."""
    different = [str(each) for each in await functions.differences(connection)]
    different += [f"view {name} differs" for name in await views.differences(connection)]
    different += [
        f"function {each.wanted} does not follow the paths of the watches"
        for each in await functions.outdated(connection)
        if each.wanted is not None and functions.PATHS in each.wanted.body
    ]
    different += await ownership.differences(connection)
    if not different:  # one of the functions compares the triggers
        found = await triggers.differences(connection)
        different += [f"{each} is {each.state}" for each in found]
    foreign = await grants.foreign(connection)
    for each in different:
        yield Finding(False, each, MIGRATE)
    if not different:
        yield Finding(True, "functions and triggers are this version's")
    for privilege, role in foreign:
        yield Finding(False, f"{role} has {privilege}", MIGRATE)


async def _path(connection: Connection) -> AsyncIterator[Finding]:
    """Checks the path with a node's probe."""
    probe = Probe()
    await connection.add_listener(sql.channel("messages"), listener(probe.receive))
    try:
        found = await probe.run(connection)
    except DatabaseError as error:
        yield _failed(error)
        return
    yield Finding(True, "NOTIFY comes back")
    if found["relay"]:
        yield Finding(True, "a node relays")
    else:
        yield Finding(None, "no node relays at present", "start: notifier serve")
    if found["waiting"]:
        yield Finding(
            not found["relay"] and None,
            "changes wait and are not relayed",
            "see the log of the node that relays" if found["relay"] else "",
        )
    if found["queue"] > QUEUE_LIMIT:
        yield Finding(
            False,
            f"the notification queue is {found['queue']:.0%} full: a listener hangs",
            "end the session that listens and has the oldest transaction (pg_stat_activity)",
        )


async def _log(connection: Connection, settings: Settings) -> AsyncIterator[Finding]:
    """The room that the log takes."""
    row = await connection.fetchrow(sql.query("log_usage"))
    if row is None:
        yield Finding(False, "the log is empty", MIGRATE)
        return
    size = f"the log takes {row['bytes'] / 2**20:.0f} of {row['limit'] / 2**20:.0f} MiB"
    if row["last_id"] >= FULL_MARK:
        yield Finding(None, f"{size}: full, changes are dropped until a node relays")
    elif row["bytes"] > LOG_LIMIT * row["limit"]:
        yield Finding(
            None, size, f"raise NOTIFIER_MAX_LOG_BYTES and {MIGRATE}, or see why no node relays"
        )
    else:
        yield Finding(True, size)
    if row["limit"] != settings.max_log_bytes:
        yield Finding(False, "NOTIFIER_MAX_LOG_BYTES is not what the database has", MIGRATE)


async def _membership(settings: Settings) -> Finding:
    """Whether it can be decided who may see a company, on the link on which `serve` decides it."""
    if settings.authorization == "claim":
        return Finding(True, "the token's claim decides on access")
    query = settings.membership_query
    decided = [
        *(watch.member for watch in settings.watch),
        *(each.membership for each in settings.scope),
    ]
    if query is None and not any(decided):
        return Finding(
            False, "no watched table names members", "set member in [[watch]], or MEMBERSHIP_QUERY"
        )
    pooled = settings.database != settings.listen_database
    rows_link = Query(settings.database, "check", pooled=pooled, read_only=True)
    link = rows_link.for_operator()
    membership = Membership(rows_link, "employees", query)
    try:
        await membership.require()
        if query is None:
            return Finding(True, "the rows of members decide on access")
        rows = await link.fetch(query, "0", "0", prepare=as_text, may_refuse=True)
    except asyncpg.DataError:
        rows = []
    except (asyncpg.PostgresError, asyncpg.InterfaceError, TypeError) as error:
        return Finding(False, f"NOTIFIER_MEMBERSHIP_QUERY: {first_line(error)}", QUERY)
    except DatabaseError as error:
        return _unreadable(error, query)
    finally:
        link.close()
        membership.close()
    if rows and rows[0][0] is not None and not isinstance(rows[0][0], bool):
        return Finding(False, "NOTIFIER_MEMBERSHIP_QUERY does not return a boolean", QUERY)
    return Finding(True, "the membership query decides on access")


async def _accounts(settings: Settings, query: str) -> Finding:
    """Whether the rows' users can be found, on the link on which `serve` finds them."""
    pooled = settings.database != settings.listen_database
    link = Query(settings.database, "check", pooled=pooled, pinned=False, read_only=True)
    try:
        accounts = Accounts(link, query, lambda _: None)
        await accounts.require()
        await accounts.find("0", 0)
    except DatabaseError as error:
        line = str(error) if error.__cause__ is None else first_line(error.__cause__)
        name = "" if line.startswith("NOTIFIER_USER_QUERY") else "NOTIFIER_USER_QUERY: "
        return Finding(False, f"{name}{line}")
    finally:
        link.close()
    return Finding(True, "the user query finds the rows' users")


def _unreadable(error: DatabaseError, query: str | None) -> Finding:
    """Why access cannot be decided: a row that cannot be read looks like no row."""
    if error.__cause__ is None:
        return _failed(error)
    name = "NOTIFIER_MEMBERSHIP_QUERY" if query else "the rows that name members cannot be read"
    fact = f"{name}: {first_line(error.__cause__)}"
    if "row-level security" in fact:
        return Finding(False, fact, "let the role read them without row-level security (BYPASSRLS)")
    if isinstance(error.__cause__, asyncpg.InsufficientPrivilegeError):
        return Finding(False, fact, "grant that right to the role of `serve`" if query else MIGRATE)
    return Finding(False, fact, QUERY if query else MIGRATE)
