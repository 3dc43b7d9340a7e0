"""The configuration that `migrate` stores for capture, relay and nodes, and the effect of a change on clients."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import fields
from typing import NamedTuple

import asyncpg
import msgspec

from notifier.database import sql
from notifier.database.connections import Connection
from notifier.database.paths import Step
from notifier.errors import DatabaseError, SettingsError
from notifier.watches import CALENDAR, NaiveTimestamps, Scope, Watch, with_zone

COMPARED_APART = {"table", "entity", "case", "rename", "exclude", "visible_to", "state_where"}
"""Fields of a watch with a meaning of their own when they differ."""

RESYNCED = tuple(
    each.name for each in fields(Watch) if each.init and each.name not in COMPARED_APART
)
"""All others: what a client has may be wrong, so it must read the state again."""

RESYNC = "every company gets a Resync"


class Stored(NamedTuple):
    """A watch, and the full name of its table.

    `others_entity`: that of the changes of the table, where another watch of it has given its own.
    `steps`: of its path, if it has one; not loaded from the database. `tenant`: its schema, where the
    watch is of a schema per tenant.
    """

    watch: Watch
    relation: str
    others_entity: str | None = None
    steps: tuple[Step, ...] = ()
    tenant: str | None = None

    @property
    def name(self) -> str:
        """The watch of this table among all."""
        return self.watch.name if self.tenant is None else f"{self.watch.name}/{self.tenant}"

    @property
    def captured_as(self) -> str:
        """The entity of the changes of its table, which is captured once."""
        return self.others_entity or self.name


class OptionChange(NamedTuple):
    """One field of a watch that differs, and what follows from it. `entity`: that of the table's changes."""

    entity: str
    line: str
    is_resync: bool = False
    """What clients have may be wrong now."""
    is_secret: bool = False
    """The log holds values that must not be sent any more."""

    def __str__(self) -> str:
        return self.line


async def require_columns(connection: Connection, revision: str) -> None:
    """Raises DatabaseError where the schema is of the newest `revision` and lacks the column of an option."""
    statement = await connection.prepare(sql.adapt("SELECT * FROM notifier.watches"))
    present = {column.name for column in statement.get_attributes()}
    if missing := sorted(CALENDAR[0].to_row().keys() - present):
        raise DatabaseError(
            f"the schema {sql.schema()} is of version {revision}, but its table watches has no column"
            f" {', '.join(missing)}: restore it, or if the option is new, add a revision to migrations/versions"
        )


async def require_whole(connection: Connection, revision: str) -> None:
    """Raises DatabaseError where the schema of the newest `revision` lacks a table, a column, a partition or an index."""
    if missing := [row["name"] for row in await _missing(connection)]:
        raise DatabaseError(
            f"the schema {sql.schema()} lacks {', '.join(missing)}; run: notifier migrate"
        )
    await require_columns(connection, revision)


async def complete(connection: Connection, revision: str) -> list[str]:
    """Makes partitions, indexes and rows again that a restore has left out. Returns what was done, a line each.

    The relay then begins an epoch. Raises DatabaseError where a table or a column is missing.
    """
    missing = await _missing(connection)
    await require_columns(connection, revision)
    made = [row["name"] for row in await connection.fetch(sql.query("missing_rows"))]
    for _ in range(2):  # a partition needs indexes
        for row in missing:
            await connection.execute(row["statement"])
        made += [row["name"] for row in missing]
        missing = await _missing(connection)
    if made:
        await connection.execute(sql.adapt("UPDATE notifier.log SET saved_by = '0'"))
    return [f"{name}: made again; a new epoch begins" for name in made]


async def _missing(connection: Connection) -> list[asyncpg.Record]:
    """What `complete` can make again. Raises DatabaseError where it cannot."""
    missing = await connection.fetch(sql.query("missing_parts"))
    if lost := [row["name"] for row in missing if row["statement"] is None]:
        raise DatabaseError(
            f"the schema {sql.schema()} lacks {', '.join(lost)}: restore it, or run: notifier uninstall, and then"
            " notifier migrate"
        )
    return missing


async def load(connection: Connection) -> dict[str, Stored]:
    """The watches in the database, by name."""
    rows: list[asyncpg.Record] = await connection.fetch(sql.adapt("SELECT * FROM notifier.watches"))
    found = {}
    for row in rows:
        others = row["captured_as"] if row["captured_as"] != row["entity"] else None
        stored = Stored(Watch.from_row(row), row["relation"], others, tenant=row["tenant"])
        found[stored.name] = stored
    return found


async def load_patterns(connection: Connection) -> dict[str, Watch]:
    """The watches in the database whose table is a pattern, by name."""
    rows = await connection.fetch(
        sql.adapt("SELECT name, watch::text FROM notifier.patterns ORDER BY name")
    )
    return {row["name"]: Watch.from_json(row["watch"]) for row in rows}


def share_tables(former: Mapping[str, Stored], wanted: Mapping[str, Stored]) -> dict[str, Stored]:
    """The wanted watches, with one entity for the changes of each table: the former one if it is left."""
    first: dict[str, str] = {}
    for entity, stored in wanted.items():
        before = former.get(entity)
        if before is not None and before.relation == stored.relation and not before.others_entity:
            first[stored.relation] = entity
    for entity, stored in sorted(wanted.items()):
        first.setdefault(stored.relation, entity)
    return {
        entity: stored._replace(
            others_entity=None if first[stored.relation] == entity else first[stored.relation]
        )
        for entity, stored in wanted.items()
    }


def compare(former: Mapping[str, Stored], wanted: Mapping[str, Stored]) -> Iterator[OptionChange]:
    """Every field that differs."""
    for entity, stored in former.items():
        if entity not in wanted:
            line = f"{stored.watch.table}: no longer watched as {entity}: its changes are not sent"
            yield OptionChange(stored.captured_as, line)
    for entity, stored in wanted.items():
        if entity in former:
            yield from _fields(former[entity], stored)
            continue
        line = f"{stored.watch.table}: watched as {entity}: its changes are sent from now on"
        yield OptionChange(stored.captured_as, line)
        for other, each in former.items():
            if each.relation == stored.relation and other not in wanted:
                # Changes that the relay has not read yet have an entity that is gone: it drops them.
                line = f"{stored.watch.table}: entity {other} → {entity}: {RESYNC}"
                yield OptionChange(stored.captured_as, line, is_resync=True)
                yield from _hidden(each, stored)


def refuse_other(
    former: Mapping[str, Stored],
    wanted: Mapping[str, Stored],
    zone: NaiveTimestamps | None,
    patterns: Iterable[OptionChange],
) -> None:
    """For `migrate` without a `[[watch]]`: it may add the `zone` that is set, and change nothing else."""
    zoned = {
        name: each._replace(watch=with_zone(each.watch, zone)) for name, each in former.items()
    }
    if lost := [str(each) for each in (*compare(zoned, wanted), *patterns)]:
        raise SettingsError(
            "the database was configured by a notifier.toml or a NOTIFIER_NAIVE_TIMESTAMPS that is not"
            " here; set NOTIFIER_CONFIG or the zone, or replace its watches by the calendar's with"
            f" --calendar ({'; '.join(lost)})"
        )


def compare_patterns(
    former: Mapping[str, Watch], wanted: Mapping[str, Watch]
) -> Iterator[OptionChange]:
    """Every field that differs in watches whose table is a pattern; of its tables, `compare` finds it too."""
    return compare(
        {name: Stored(watch, watch.table) for name, watch in former.items()},
        {name: Stored(watch, watch.table) for name, watch in wanted.items()},
    )


def _fields(former: Stored, wanted: Stored) -> Iterator[OptionChange]:
    table, entity = wanted.watch.table, wanted.captured_as
    if former.relation != wanted.relation:
        line = f"{table}: table {former.relation} → {wanted.relation}: {RESYNC}"
        yield OptionChange(entity, line, is_resync=True)
    if former.captured_as != wanted.captured_as:
        line = f"{table}: captured for {former.captured_as} → {wanted.captured_as}: {RESYNC}"
        yield OptionChange(entity, line, is_resync=True)
    for name in RESYNCED:
        before, after = getattr(former.watch, name), getattr(wanted.watch, name)
        if before != after:
            line = f"{table}: {name} {_shown(before)} → {_shown(after)}: {RESYNC}"
            yield OptionChange(entity, line, is_resync=True)
    for name, before, after in _spellings(former.watch, wanted.watch):
        line = f"{table}: {name} {before} → {after}: {RESYNC}"
        yield OptionChange(entity, line, is_resync=True)
    yield from _hidden(former, wanted)
    if former.watch.visible_to and not wanted.watch.visible_to:
        line = f"{table}: visible_to -{', '.join(former.watch.visible_to)}: {RESYNC}"
        yield OptionChange(entity, line, is_resync=True)
    if former.watch.state_where != wanted.watch.state_where:
        before, after = _shown(former.watch.state_where), _shown(wanted.watch.state_where)
        line = f"{table}: state_where {before} → {after}: states that are read from now on"
        yield OptionChange(entity, line)
    for column in former.watch.exclude:
        if column not in wanted.watch.exclude:
            yield OptionChange(entity, f"{table}: exclude -{column}: new messages have it")


def _shown(value: object) -> str:
    if isinstance(value, Mapping):
        value = tuple(f"{column} = {json.dumps(wanted)}" for column, wanted in value.items())
    if isinstance(value, tuple):
        value = ", ".join(value)
    return "none" if value is None or value == "" else str(value)


def _spellings(former: Watch, wanted: Watch) -> Iterator[tuple[str, str, str]]:
    """The differences in the names of properties: the field, before and after."""
    if former.case != wanted.case:
        yield "case", former.case, wanted.case
    for column in sorted({*former.rename, *wanted.rename}):
        before, after = former.rename.get(column), wanted.rename.get(column)
        if before != after:
            yield f"rename {column}", before or "none", after or "none"


def _hidden(former: Stored, wanted: Stored) -> Iterator[OptionChange]:
    """Columns and rows that are in the changes of `former` and must not be sent to every user any more."""
    before, after = former.watch.visible_to, wanted.watch.visible_to
    if after and after != before:
        line = (
            f"{wanted.watch.table}: visible_to {_shown(before)} → {_shown(after)}: the log is emptied,"
            " new epoch"
        )
        yield OptionChange(former.captured_as, line, is_secret=True)
    for column in wanted.watch.exclude:
        if column not in former.watch.exclude:
            line = (
                f"{wanted.watch.table}: exclude +{column}: new messages without it; the log is emptied,"
                " new epoch"
            )
            yield OptionChange(former.captured_as, line, is_secret=True)


async def load_scopes(connection: Connection) -> dict[str, str | None]:
    """The scopes in the database, each with its query, if it has one."""
    rows = await connection.fetch(sql.adapt("SELECT name, membership FROM notifier.scopes"))
    return {row["name"]: row["membership"] for row in rows}


def named_scopes(scopes: Sequence[Scope], watches: Iterable[Watch]) -> dict[str, str | None]:
    """The scopes that are wanted: also those that only watches name."""
    names = {watch.scope: None for watch in watches if watch.scope is not None}
    return {**names, **{scope.name: scope.membership for scope in scopes}}


def compare_scopes(
    former: Mapping[str, str | None],
    wanted: Mapping[str, str | None],
    watches: Mapping[str, Stored],
) -> Iterator[OptionChange]:
    """Every scope that differs. `watches`: those that were there before."""
    for name in sorted({*former, *wanted}):
        if (before := former.get(name)) == (after := wanted.get(name)):
            continue
        line = f"scope {name}: membership {before or 'none'} → {after or 'none'}"
        entities = {each.captured_as for each in watches.values() if each.watch.scope == name}
        for entity in sorted(entities):
            yield OptionChange(entity, f"{line}: {RESYNC}", is_resync=True)
        if not entities:
            yield OptionChange("", line)


async def save(
    connection: Connection,
    wanted: Sequence[Stored],
    patterns: Sequence[Watch],
    scopes: Mapping[str, str | None],
) -> None:
    """Replaces the watches and the scopes in the database, but for the tables of tenants."""
    await connection.execute(sql.adapt("DELETE FROM notifier.scopes"))
    await connection.executemany(
        sql.adapt("INSERT INTO notifier.scopes (name, membership) VALUES ($1, $2)"),
        list(scopes.items()),
    )
    await connection.execute(sql.adapt("DELETE FROM notifier.watches WHERE tenant IS NULL"))
    await save_watches(connection, wanted)
    await connection.execute(sql.adapt("DELETE FROM notifier.steps"))
    steps = [step._asdict() for stored in wanted for step in stored.steps]
    await connection.execute(sql.query("save_steps"), msgspec.json.encode(steps).decode())
    await connection.execute(sql.adapt("DELETE FROM notifier.patterns"))
    await connection.executemany(
        sql.adapt("INSERT INTO notifier.patterns (name, watch) VALUES ($1, $2::text::json)"),
        [(watch.name, watch.to_json()) for watch in patterns],
    )


async def save_watches(connection: Connection, wanted: Iterable[Stored]) -> None:
    """Adds watches of tables, and gives the configuration another version."""
    rows = [
        {
            **stored.watch.to_row(),
            "entity": stored.name,
            "relation": stored.relation,
            "captured_as": stored.captured_as,
            "tenant": stored.tenant,
        }
        for stored in wanted
    ]
    await connection.execute(sql.query("save_watches"), msgspec.json.encode(rows).decode())
    await connection.execute(sql.adapt("UPDATE notifier.configuration SET version = version + 1"))


async def renamed_column(
    connection: Connection, relation: str, hidden: Sequence[str]
) -> tuple[str, str] | None:
    """A column that watches hide by one of these names, whose name another column has now; and its own."""
    row = await connection.fetchrow(sql.query("renamed_hidden_columns"), relation, list(hidden))
    return None if row is None else (row["name"], row["now"])


async def save_hidden_columns(
    connection: Connection, wanted: Iterable[Stored], relations: Sequence[str] | None = None
) -> None:
    """Saves which columns the watches hide, so that they stay hidden when they are renamed.

    `relations`: the tables whose columns are saved again, None: all. In the others, rows that are hidden stay so. Raises
    SettingsError where a column that a `wanted` watch excludes was renamed, and another one has its name now.
    """
    for stored in wanted:
        watch = stored.watch
        if found := await renamed_column(connection, stored.relation, watch.exclude):
            raise SettingsError(
                f"table {watch.table}: the column that was excluded as {found[0]} is {found[1]} now;"
                " exclude it by this name too, or drop it"
            )
    tables = None if relations is None else list(relations)
    await connection.execute(sql.query("forget_hidden_columns"), tables)
    await connection.execute(sql.query("save_hidden_columns"), tables)


async def forget_messages(connection: Connection) -> None:
    """Empties the log's messages; the relay begins an epoch when the transaction commits."""
    # First, as the relay does before it saves its checkpoint: otherwise both could wait for one another.
    await connection.execute(sql.adapt("LOCK TABLE notifier.messages"))
    await connection.execute(sql.query("save_positions"))
    await connection.execute(sql.adapt("TRUNCATE notifier.messages"))


async def announce(connection: Connection, changes: Sequence[OptionChange]) -> None:
    """Makes the changes take effect in running nodes, when the transaction commits.

    Must come after the triggers were replaced: what follows in the log is captured in the new way.
    """
    if secret := sorted({change.entity for change in changes if change.is_secret}):
        await connection.execute(sql.query("forget_changes_0"), secret)
        await connection.execute(sql.query("forget_changes_1"), secret)
    resync = sorted({change.entity for change in changes if change.is_resync})
    await connection.execute(sql.query("announce_configuration"), resync, bool(secret))
