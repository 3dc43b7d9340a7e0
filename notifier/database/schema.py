"""Migrates a database to this version's schema, downgrades it, and uninstalls it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

from alembic import command, op
from sqlalchemy import Connection as SyncConnection
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import StaticPool
from sqlalchemy.util import await_only

from notifier.database import calendar as calendar_tables
from notifier.database import (
    catalogue,
    configuration,
    functions,
    grants,
    ownership,
    paths,
    removal,
    revisions,
    signing_key,
    sql,
    state_bounds,
    tenants,
    triggers,
    views,
)
from notifier.database.configuration import Stored
from notifier.database.connections import Connection, first_line
from notifier.database.removal import State
from notifier.database.transactions import (
    Report,
    exclusive,
    in_transaction,
    quiet,
    session,
    summarize,
)
from notifier.errors import DatabaseError, SettingsError
from notifier.patterns import Only
from notifier.watches import CALENDAR, NaiveTimestamps, Scope, Watch
from notifier.watches import calendar as calendar_watches

OLDEST = 14
"""The oldest major version of PostgreSQL that is supported."""

PREPARED_TRANSACTIONS = """max_prepared_transactions is not 0: an application that uses PREPARE TRANSACTION on a \
watched table needs NOTIFIER_DOORBELL=off"""

EXCESSIVE = """role {role} may read the log, or let it look full, where code of the application runs as that role, as nodes of \
earlier versions need it"""
NARROW = "when none of these runs any more, run: notifier migrate --grant {role}"

T = TypeVar("T")


async def migrate(
    url: str,
    *,
    calendar: bool = False,
    watches: Sequence[Watch] | None = None,
    naive_timestamps: NaiveTimestamps | None = None,
    scopes: Sequence[Scope] = (),
    max_log_bytes: int = 1024**3,
    dry_run: bool = False,
    grant: str | None = None,
    state: bool = False,
    membership_query: str | None = None,
    user_query: str | None = None,
    doorbell: bool = True,
    report: Report = quiet,
) -> None:
    """Creates or upgrades the schema `notifier` and the triggers; with `calendar` its three tables.

    Does nothing where all is as it should be. Without `watches` the calendar's are meant, with
    `naive_timestamps`, which is refused where the database watches others, unless `calendar` confirms it. `grant` names a role
    that may then run `serve`, with these queries if there are any; with `state` it may read the watched
    tables. `doorbell`: whether nodes use it. With `dry_run` everything is rolled back after it was reported.
    Raises DatabaseError and SettingsError, in one line.
    """
    if state and grant is None:
        raise SettingsError("--state grants to a role: name it with --grant")

    plan = tenants.NOTHING

    async def once(connection: Connection) -> list[str]:
        nonlocal plan
        migration = _Migration(connection)
        await migration.run(watches, naive_timestamps, scopes, max_log_bytes, calendar=calendar)
        if grant is not None:
            await migration.grant(grant, membership_query, user_query, state=state)
        await migration.finish(doorbell=doorbell)
        plan = migration.tenants
        if dry_run:
            migration.lines += [*plan.preview(), "nothing was changed: this was a dry run"]
        return migration.lines

    await in_transaction(url, once, report, commit=not dry_run)
    for problem in plan.problems:
        report(f"warning: not watched as set: {problem}")
    if plan.is_due and not dry_run:
        async with session(url) as connection:
            await tenants.carry_out(connection, plan, report, report)


async def migrate_only(
    url: str, only: str, *, watches: Sequence[Watch] | None = None, report: Report = quiet
) -> None:
    """Watches tables of new tenants: those that `only` names and a pattern in the database matches.

    For an application that has made a schema. It touches no other table, and may run beside nodes and
    beside itself. Raises DatabaseError and SettingsError, in one line.
    """
    try:
        named = Only.parse(only)
    except ValueError as error:
        raise SettingsError(f"--only {only}: {error}") from error
    async with session(url) as connection:
        async with exclusive(connection):
            found = await revisions.current(connection)
            if revisions.is_newer(found):
                raise DatabaseError(revisions.newer(found))
            if found != revisions.newest():
                raise DatabaseError(
                    f"the schema {sql.schema()} is not this version's; run: notifier migrate"
                )
            await configuration.require_columns(connection, revisions.newest())
            patterns = await configuration.load_patterns(connection)
            given = [watch for watch in watches or () if watch.pattern is not None]
            if watches is not None and {watch.name: watch for watch in given} != patterns:
                raise SettingsError(
                    "the patterns of notifier.toml are not those of the database; run: notifier migrate"
                )
            plan = await tenants.plan(connection, list(patterns.values()), named)
        if plan.problems:
            raise SettingsError(plan.problems[0])
        if not plan.watched:
            raise SettingsError(f"--only {only}: no table that a [[watch]] matches")
        if plan.is_due:
            await tenants.carry_out(connection, plan, quiet, report)
    schemas = sorted({match.schema for match in plan.watched})
    noun = "schema" if len(schemas) == 1 else "schemas"
    report(f"{noun} {summarize(schemas)}: {len(plan.watched)} tables are watched")


async def uninstall(url: str, report: Report = quiet) -> None:
    """Drops the triggers, a table at a time, and the schema `notifier`; never an object that `migrate` did not make.

    Raises DatabaseError. Where an object of others depends on one of ours, the current role does not own a table
    with a trigger, or the schema is a newer version's, it is raised before anything is dropped.
    """
    await removal.uninstall(url, report)


async def downgrade(url: str, revision: str) -> None:
    """Goes back to an older version of the schema; for tests and emergencies."""

    def back(connection: SyncConnection) -> None:
        command.downgrade(revisions.config(connection), revision)

    async def once(connection: Connection) -> list[str]:
        await _with_sqlalchemy(connection, back)
        return []

    await in_transaction(url, once, quiet)


def run(script: str) -> None:
    """Runs a script of any number of statements in the migration's transaction."""
    adapted = op.get_bind().connection.dbapi_connection
    assert adapted is not None
    await_only(adapted.driver_connection.execute(sql.adapt(script)))


class _Migration:
    """One attempt of `migrate`, in a transaction. `lines`: what was done."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._locks = triggers.Locks(connection)
        self._is_fresh = False
        self._former: list[functions.Difference] = []
        self._patterns: list[configuration.OptionChange] = []
        self._differences: list[configuration.OptionChange] = []
        self.tenants = tenants.NOTHING
        self.lines: list[str] = []

    async def run(
        self,
        watches: Sequence[Watch] | None,
        zone: NaiveTimestamps | None,
        scopes: Sequence[Scope],
        max_log_bytes: int,
        *,
        calendar: bool,
    ) -> None:
        """Everything that does not make writers wait."""
        connection = self._connection
        if (version := connection.get_server_version().major) < OLDEST:
            raise DatabaseError(f"PostgreSQL {OLDEST} or newer is needed, this is {version}")
        if calendar:
            place = await catalogue.first_schema(connection)
            created = await _with_sqlalchemy(
                connection, lambda adapted: calendar_tables.create(adapted, place)
            )
            self.lines += [f"table {table}: created" for table in created]
        given = calendar_watches(zone) if watches is None else watches
        patterns = {watch.name: watch for watch in given if watch.pattern is not None}
        try:
            wanted = await resolve(connection, [watch for watch in given if watch.pattern is None])
        except SettingsError:  # the calendar's tables are missing
            if watches is None and not calendar:
                await self._refuse_calendar(given)
            raise
        tables = [each.relation for each in wanted.values()]
        tables = tables or await tenants.matching(connection, patterns.values())
        await ownership.claim(connection)
        await ownership.require_trust(connection, tables)
        await self._upgrade()
        self.lines += await configuration.complete(connection, revisions.newest())
        stored = await configuration.load(connection)
        former = {name: each for name, each in stored.items() if each.tenant is None}
        wanted = configuration.share_tables(former, wanted)
        former_patterns = await configuration.load_patterns(connection)
        self._patterns = list(configuration.compare_patterns(former_patterns, patterns))
        if watches is None and not calendar and (former or former_patterns):
            configuration.refuse_other(former, wanted, zone, self._patterns)
        former_scopes = await configuration.load_scopes(connection)
        named = configuration.named_scopes(scopes, given)
        self._differences = [
            *configuration.compare(former, wanted),
            *configuration.compare_scopes(
                former_scopes,
                named,
                {entity: each for entity, each in wanted.items() if entity in former},
            ),
        ]
        await self._configure(wanted, list(patterns.values()), named, max_log_bytes)
        changed = await functions.differences(connection)
        await functions.create(connection, changed)
        await functions.create(connection, await functions.outdated(connection))
        await configuration.save_hidden_columns(connection, wanted.values())
        for view in await views.differences(connection):
            await views.create(connection, view)
            self._note(f"view {view}: replaced")
        self.lines += await ownership.settle(connection)
        for each in changed:
            self._note(f"function {each.wanted or each.present}: {each.remedy}")
        self._former = [each for each in changed if each.wanted is None]
        for bounded in wanted.values():
            await state_bounds.require(connection, bounded.watch, bounded.relation)
        self.tenants = await tenants.plan(connection, list(patterns.values()))

    async def _refuse_calendar(self, given: Sequence[Watch]) -> None:
        """Raises SettingsError where the database has watches of a notifier.toml: its tables are others."""
        connection = self._connection
        if await revisions.current(connection) != revisions.newest():
            return
        names = {watch.name for watch in given}
        stored = await configuration.load(connection)
        others = {n: each for n, each in stored.items() if each.tenant is None and n not in names}
        patterns = await configuration.load_patterns(connection)
        lost = list(configuration.compare_patterns(patterns, {}))
        if others or lost:
            configuration.refuse_other(others, {}, None, lost)

    async def grant(
        self, role: str, membership_query: str | None, user_query: str | None, *, state: bool
    ) -> None:
        """Lets a role run `serve`."""
        await grants.allow(self._connection, role, state=state)
        await grants.revoke_excessive(self._connection, role)
        await grants.synchronize(self._connection)
        self.lines.append(f"role {role}: may serve")
        if warning := await grants.refusal(self._connection, role, membership_query, user_query):
            self.lines.append(f"warning: {warning}")

    async def finish(self, *, doorbell: bool) -> None:
        """The triggers, late, because from here on writers wait; and what must come after them."""
        connection = self._connection
        self.lines += await grants.synchronize(connection)
        for line in (*await signing_key.fill(connection), *await grants.revoke_foreign(connection)):
            self._note(line)
        for role in sorted({role for _, role in await grants.excessive(connection)}):
            self.lines.append(f"warning: {EXCESSIVE}; {NARROW}".format(role=role))
        found = [
            each
            for each in await triggers.differences(connection)
            if each.relation not in self.tenants.relations
        ]
        if self._former:
            await self._locks.exclude_writers()
        self.lines += await triggers.synchronize(connection, self._locks, found)
        await functions.drop(connection, self._former)
        if self._differences and not self._is_fresh:
            await configuration.announce(connection, self._differences)
        if doorbell and int(await connection.fetchval("SHOW max_prepared_transactions")) > 0:
            self.lines.append(f"warning: {PREPARED_TRANSACTIONS}")

    def _note(self, line: str) -> None:
        """A line about one object; not where all of them are new."""
        if not self._is_fresh:
            self.lines.append(line)

    async def _upgrade(self) -> None:
        """Creates the schema, and brings its tables to the newest revision."""
        connection = self._connection
        if await removal.state(connection) is State.FOREIGN:
            raise DatabaseError(
                f"there is a schema {sql.schema()} that migrate did not make; rename it, or set NOTIFIER_SCHEMA"
            )
        if await removal.state(connection) is State.EMPTY_COPY:
            self.lines += await removal.remove(connection, self._locks)
        self.lines += await ownership.create_schema(connection)
        before = await revisions.current(connection)
        if revisions.is_newer(before):
            raise DatabaseError(revisions.newer(before))
        self._is_fresh = before is None
        if before == revisions.newest():
            return
        if before is not None:
            await self._locks.exclude_writers()
        await _with_sqlalchemy(connection, _upgrade)
        if self._is_fresh:
            await connection.execute(sql.query("mark_new_log"))
        self.lines.append(f"schema {sql.schema()}: {before or 'none'} → {revisions.newest()}")

    async def _configure(
        self,
        wanted: Mapping[str, Stored],
        patterns: Sequence[Watch],
        scopes: Mapping[str, str | None],
        max_log_bytes: int,
    ) -> None:
        connection = self._connection
        status = await connection.execute(
            sql.adapt(
                "UPDATE notifier.configuration SET max_log_bytes = $1 WHERE max_log_bytes <> $1"
            ),
            max_log_bytes,
        )
        if status != "UPDATE 0":
            self.lines.append(f"max_log_bytes: {max_log_bytes}")
        for line in dict.fromkeys(map(str, (*self._differences, *self._patterns))):
            self._note(line)
        if any(each.is_secret for each in self._differences):
            await configuration.forget_messages(connection)
        await configuration.save(connection, list(wanted.values()), patterns, scopes)


async def resolve(connection: Connection, watches: Sequence[Watch]) -> dict[str, Stored]:
    """The watches by name. Raises SettingsError where a table cannot be watched as wanted."""
    tables = await catalogue.describe(connection, [watch.table for watch in watches])
    found: list[tuple[Watch, catalogue.Table]] = []
    for watch, table in zip(watches, tables, strict=True):
        if table is None:
            near = await catalogue.similar(connection, watch.table)
            other = (
                "run: notifier migrate --calendar"
                if replace(watch, naive_timestamps=None) in CALENDAR
                else "remove its [[watch]]"
            )
            raise SettingsError(
                f"no table {watch.table} to watch{near or f'; create it, or {other}'}"
            )
        found.append((watch, table))
    relations = [table.relation for _, table in found]
    for watch, table in found:
        if problems := catalogue.problems(watch, table, relations):
            raise SettingsError(problems[0])
    steps = await paths.resolve(connection, watches)
    return {each.name: Stored(each, it.relation, steps=steps[each.name]) for each, it in found}


async def _with_sqlalchemy(connection: Connection, work: Callable[[SyncConnection], T]) -> T:
    """Does work that needs SQLAlchemy on this connection, in a savepoint of its transaction."""

    async def opened() -> Connection:
        return connection

    engine = create_async_engine(
        "postgresql+asyncpg://", async_creator=opened, poolclass=StaticPool
    )
    try:
        async with engine.connect() as adapted:
            result = await adapted.run_sync(work)
            await adapted.commit()
            return result
    except DBAPIError as error:
        cause = error.orig.__cause__ if error.orig is not None else None
        raise cause or DatabaseError(first_line(error)) from error


def _upgrade(connection: SyncConnection) -> None:
    command.upgrade(revisions.config(connection), "head")
