"""A schema per tenant: the tables that patterns match, each brought up to date in a transaction of its own.

So a writer waits for one short transaction at most, and a table that is locked, or has other columns in one
tenant, does not delay the other tenants.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from notifier.companies import canonical
from notifier.database import (
    catalogue,
    configuration,
    functions,
    grants,
    sql,
    state_bounds,
    triggers,
)
from notifier.database.configuration import OptionChange, Stored
from notifier.database.connections import Connection, first_line
from notifier.database.transactions import (
    OF_ONE_TABLE,
    Report,
    exclusive,
    summarize,
    table_by_table,
)
from notifier.errors import DatabaseError, SettingsError
from notifier.patterns import Only
from notifier.watches import Watch


class Match(NamedTuple):
    """A table that one or more patterns match. `problems`: why it cannot be watched like that.

    `usable`: the role has USAGE on its schema. Without it no trigger on the table can be looked at or changed.
    """

    relation: str
    schema: str
    watches: tuple[Stored, ...]
    problems: tuple[str, ...]
    usable: bool


class Survey(NamedTuple):
    """Tables that cannot be watched, a line each; schemas that match and are not watched as set; by the
    name of each pattern, how many schemas it matches."""

    problems: list[str]
    unwatched: list[str]
    schemas: dict[str, int]


class Plan(NamedTuple):
    """The pending steps for tables of tenants.

    `watched`: those that are or shall be. `pending`: those of which watches or triggers differ, with the
    watches that they shall have. `changes`: what that means for clients. `problems`: tables that cannot
    be watched, a line each, with the remedy. `forget`: the log holds values that are excluded now.
    """

    watched: list[Match]
    pending: dict[str, tuple[Stored, ...]]
    changes: list[OptionChange]
    problems: list[str]
    forget: bool

    @property
    def is_due(self) -> bool:
        """Whether there is anything to do."""
        return bool(self.pending) or self.forget

    @property
    def relations(self) -> set[str]:
        """The tables that are left to it."""
        return {*self.pending, *(match.relation for match in self.watched)}

    def preview(self) -> list[str]:
        """The pending steps as lines, for a dry run."""
        new = sorted({each.tenant or "" for watches in self.pending.values() for each in watches})
        lines = [f"schemas {summarize(new)}: would be watched"] if new else []
        gone = [relation for relation, watches in self.pending.items() if not watches]
        return [*lines, *(f"table {relation}: would not be watched any more" for relation in gone)]


NOTHING = Plan([], {}, [], [], False)


async def matching(connection: Connection, patterns: Iterable[Watch]) -> list[str]:
    """The names of the tables that `find` returns. It reads nothing in the schema `notifier`, and runs no function of it."""
    found = [watch.pattern for watch in patterns if watch.pattern is not None]
    rows = await connection.fetch(sql.query("tenant_tables"), [each.table for each in found])
    return [
        row["relation"]
        for row in rows
        if any(each.table == row["table"] and each.matches(row["schema"]) for each in found)
    ]


async def find(
    connection: Connection,
    patterns: Iterable[Watch],
    only: Only | None = None,
    *,
    bounds: bool = True,
) -> list[Match]:
    """The tables that the patterns match; with `only`, those of them that it names.

    `bounds`: their problems include those of `state_where`, for which the role must be the one that migrates.
    """
    watches: dict[str, list[Watch]] = {}
    for watch in patterns:
        if watch.pattern is not None:
            watches.setdefault(watch.pattern.table, []).append(watch)
    rows = await connection.fetch(sql.query("tenant_tables"), list(watches))
    found: dict[str, tuple[str, bool, list[Watch]]] = {}
    for row in rows:
        if only is not None and not only.names(row["schema"], row["table"]):
            continue
        matching = [
            watch
            for watch in watches[row["table"]]
            if watch.pattern is not None and watch.pattern.matches(row["schema"])
        ]
        if matching:
            found[row["relation"]] = row["schema"], row["usable"], matching
    tables = await catalogue.describe_found(connection, list(found))
    matches = []
    for (relation, (schema, usable, matching)), table in zip(found.items(), tables, strict=True):
        if table is not None:
            bound = bounds and usable
            problems = await _problems(connection, matching, table, list(found), bounds=bound)
            stored = (Stored(watch, relation, tenant=schema) for watch in matching)
            matches.append(Match(relation, schema, tuple(stored), tuple(problems), usable))
    return matches


async def _problems(
    connection: Connection,
    watches: Sequence[Watch],
    table: catalogue.Table,
    relations: Sequence[str],
    *,
    bounds: bool,
) -> list[str]:
    """Why the table cannot be watched like that; each names it."""
    found = []
    for watch in watches:
        own = catalogue.problems(watch, table, relations)
        if bounds:
            try:
                await state_bounds.require(connection, watch, table.relation)
            except SettingsError as error:
                own.append(str(error))
        found += [
            problem.replace(f"table {watch.table}", f"table {table.relation}", 1) for problem in own
        ]
    return found


async def plan(connection: Connection, patterns: Sequence[Watch], only: Only | None = None) -> Plan:
    """Compares the tables that match with those that are watched. Changes nothing.

    Raises SettingsError where a pattern fits none of its tables.
    """
    found = await _distinct(connection, await find(connection, patterns, only))
    sound = [match for match in found if not match.problems]
    for watch in patterns:
        own = [match for match in found if any(each.watch == watch for each in match.watches)]
        if own and not any(match in sound for match in own):
            raise SettingsError(own[0].problems[0])
    former = await configuration.load(connection)
    by_relation: dict[str, dict[str, Stored]] = {}
    for name, stored in former.items():
        if stored.tenant is not None:
            by_relation.setdefault(stored.relation, {})[name] = stored
        elif (match := next((m for m in found if m.relation == stored.relation), None)) is not None:
            raise SettingsError(
                f"table {stored.relation} is watched as {name}, and matches"
                f" {match.watches[0].watch.table}: remove one [[watch]]"
            )
    differing = await _differing(connection, [match.relation for match in found] if only else None)
    pending: dict[str, tuple[Stored, ...]] = {}
    changes: list[OptionChange] = []
    kept = []
    for match in found:
        before = by_relation.pop(match.relation, {})
        wanted = {each.name: each for each in match.watches}
        if match.problems:
            if _watches(before) == _watches(wanted):
                kept.append(match)  # captured as before, as far as that is possible
                continue
            wanted = {}
        wanted = configuration.share_tables(before, wanted)
        differences = list(configuration.compare(before, wanted))
        if differences or match.relation in differing or not match.usable:
            pending[match.relation] = tuple(wanted.values())
            changes += differences
    if only is None:
        for relation in by_relation:  # no pattern matches it any more, or it is gone
            pending[relation] = ()
    problems = [match.problems[0] for match in found if match.problems]
    forget = await connection.fetchval(sql.adapt("SELECT forget FROM notifier.configuration"))
    if not forget and any(change.is_secret for change in changes):
        await connection.execute(sql.adapt("UPDATE notifier.configuration SET forget = true"))
        forget = True
    return Plan([*sound, *kept], pending, changes, problems, forget)


def _watches(stored: Mapping[str, Stored]) -> dict[str, Watch]:
    return {name: each.watch for name, each in stored.items()}


async def _differing(connection: Connection, relations: Sequence[str] | None) -> set[str]:
    """The tables with a trigger that differs; among these, or all."""
    found = (
        await triggers.differences(connection)
        if relations is None
        else [
            trigger
            for relation in relations
            for trigger in await triggers.differences(connection, relation)
        ]
    )
    return {trigger.relation for trigger in found}


async def survey(connection: Connection, patterns: Sequence[Watch]) -> Survey:
    """Compares the tables that match with those that are watched, for `notifier check`."""
    found = await _distinct(connection, await find(connection, patterns, bounds=False))
    stored = await configuration.load(connection)
    unwatched = {
        match.schema
        for match in found
        if not match.problems
        and any(
            (known := stored.get(each.name)) is None
            or (known.watch, known.relation) != (each.watch, each.relation)
            for each in match.watches
        )
    }
    matched = Counter(each.watch.name for match in found for each in match.watches)
    return Survey(
        [problem for match in found for problem in match.problems],
        sorted(unwatched),
        {watch.name: matched[watch.name] for watch in patterns},
    )


async def carry_out(connection: Connection, plan: Plan, report: Report, warn: Report) -> None:
    """Does it, a table at a time. Raises DatabaseError where a table stays locked, or cannot be changed: the others are done.

    `warn` gets a line for each right on these tables that the current role may not grant.
    """
    async with exclusive(connection):
        lacking_before = await grants.synchronize(connection)
    schemas = Counter(each.tenant for watches in plan.pending.values() for each in watches[:1])
    total, done = len(schemas), 0
    refused: list[str] = []

    async def change(relation: str) -> list[str]:
        nonlocal done
        watches = plan.pending[relation]
        try:
            async with connection.transaction():
                await _apply(connection, relation, watches, plan.changes)
        except OF_ONE_TABLE as error:
            refused.append(f"table {relation}: {first_line(error)}")
            return [f"warning: not watched as set: {refused[-1]}"]
        if not watches:
            return [f"table {relation}: no longer watched"]
        tenant = watches[0].tenant
        schemas[tenant] -= 1
        if schemas[tenant]:
            return []
        done += 1
        return [f"schema {tenant}: watched ({done} of {total})"]

    locked: triggers.Locked | None = None
    try:
        await table_by_table(connection, plan.pending, change, report)
    except triggers.Locked as error:
        locked = error
    async with exclusive(connection):
        lacking = await _finish(connection, plan, forget=plan.forget and locked is None)
    for line in dict.fromkeys(lacking):
        if line not in lacking_before:
            warn(line)
    if refused:
        rest = locked or "all others are done, try again when the cause is removed"
        raise DatabaseError(f"not watched as set: {summarize(refused)}; {rest}") from locked
    if locked is not None:
        raise locked


async def _apply(
    connection: Connection,
    relation: str,
    watches: Sequence[Stored],
    changes: Iterable[OptionChange],
) -> None:
    """Replaces the watches and the triggers of a table. Raises Locked, and where its schema may not be used."""
    await connection.execute(sql.query("require_usage"), relation)
    await connection.execute(
        sql.adapt("DELETE FROM notifier.watches WHERE relation = $1 AND tenant IS NOT NULL"),
        relation,
    )
    await configuration.save_watches(connection, watches)
    found = await triggers.differences(connection, relation)
    await triggers.synchronize(connection, triggers.Locks(connection), found)
    names = {stored.captured_as for stored in watches}
    resync = [each for each in changes if each.is_resync and each.entity in names]
    if resync:
        await configuration.announce(connection, resync)


async def _finish(connection: Connection, plan: Plan, *, forget: bool) -> list[str]:
    """Completes the tables together: their types in capture, the right to read their members, a reload of the nodes.

    Returns the lines of `grants.synchronize`.
    """
    await functions.create(connection, await functions.outdated(connection))
    await configuration.save_hidden_columns(connection, (), sorted(plan.relations))
    lacking = await grants.synchronize(connection)
    secret = []
    if forget:
        await configuration.forget_messages(connection)
        stored = await configuration.load(connection)
        secret = [
            OptionChange(each.captured_as, "", is_secret=True)
            for each in stored.values()
            if each.tenant is not None
        ]
        await connection.execute(sql.adapt("UPDATE notifier.configuration SET forget = false"))
    await configuration.announce(connection, secret)
    return lacking


async def _distinct(connection: Connection, found: Sequence[Match]) -> list[Match]:
    """The matches; those are problems whose schema has the id of another one: a uuid in two spellings.

    The one that is watched keeps the id.
    """
    rows = await connection.fetch(
        sql.adapt("SELECT DISTINCT tenant FROM notifier.watches WHERE tenant IS NOT NULL")
    )
    companies = {canonical(tenant): tenant for (tenant,) in rows}
    matches = []
    for match in found:
        other = companies.setdefault(canonical(match.schema), match.schema)
        problems = match.problems
        if other != match.schema:
            same = f"table {match.relation}: schema {other} is the same company; rename one of them"
            problems = (same, *problems)
        matches.append(match._replace(problems=problems))
    return matches
