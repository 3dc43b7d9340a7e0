"""Brings a database to what this version needs, and takes every trace out of it again."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Sequence
from typing import Any

import asyncpg
from alembic import command, op
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection as SyncConnection
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine
from sqlalchemy.pool import NullPool
from sqlalchemy.util import await_only

from notifier.database import sql
from notifier.database.calendar import Calendar
from notifier.database.connections import FAILURES, connect, first_line, translate_error
from notifier.errors import DatabaseError, SettingsError
from notifier.settings import CALENDAR, Watch

OLDEST = 140000

LOCK = 7815279002
"""Two migrations at once: the second waits."""

PATIENCE = "SET LOCAL lock_timeout = '500ms'"
"""Less than PostgreSQL's deadlock_timeout: where an app's transaction and ours wait for one another, it
is ours that gives up; and no writer queues behind us for longer."""

SETTINGS = {
    "row_security": "off",
    "statement_timeout": "0",
    "idle_in_transaction_session_timeout": "60000",
}
"""Of a migration's session: building an index may take long."""

Tell = Callable[[str], None]


def run(script: str) -> None:
    """Runs a script of any number of statements in the migration's transaction."""
    adapted = op.get_bind().connection.dbapi_connection
    assert adapted is not None
    await_only(adapted.driver_connection.execute(script))


def _quiet(_: str) -> None:
    return None


async def migrate(
    url: str,
    *,
    calendar: bool = False,
    watches: Sequence[Watch] = CALENDAR,
    max_log_bytes: int = 1024**3,
    dry_run: bool = False,
    grant: str | None = None,
    tell: Tell = _quiet,
) -> None:
    """Creates or upgrades the schema `notifier` and the triggers; with `calendar` its three tables.

    Does nothing where all is as it should be. `grant` names a role that may then run `serve`.
    With `dry_run` all is rolled back after it was told. Raises DatabaseError in one line.
    """
    async with _connection(url) as connection:
        await connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": LOCK})
        await connection.execute(text(PATIENCE))
        version = int((await connection.execute(text("SHOW server_version_num"))).scalar_one())
        if version < OLDEST:
            raise DatabaseError(f"PostgreSQL 14 or newer is needed, this is {version // 10000}")
        if calendar:
            before = await _tables(connection)
            await connection.run_sync(Calendar.metadata.create_all)
            for table in sorted(await _tables(connection) - before):
                tell(f"table {table}: created")
        await connection.execute(text("CREATE SCHEMA IF NOT EXISTS notifier"))
        await connection.run_sync(_upgrade, tell)
        await _configure(connection, watches, max_log_bytes, tell)
        await _watch(connection, watches, tell)
        if grant is not None:
            await _grant(connection, grant, tell)
        prepared = (await connection.execute(text("SHOW max_prepared_transactions"))).scalar_one()
        if int(prepared) > 0:
            tell(
                "warning: max_prepared_transactions is not 0; an app that uses PREPARE TRANSACTION on"
                " a watched table needs NOTIFIER_DOORBELL=off"
            )
        if dry_run:
            await connection.rollback()
            tell("nothing was changed: this was a dry run")
        else:
            await connection.commit()


async def uninstall(url: str, tell: Tell = _quiet) -> None:
    """Drops the triggers and the schema `notifier`; never a table of the app's."""
    async with _connection(url) as connection:
        await connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": LOCK})
        await connection.execute(text(PATIENCE))
        triggers = await _triggers(connection)
        await _lock(connection, {relation for relation, _ in triggers})
        for relation, trigger in triggers:
            await connection.exec_driver_sql(f"DROP TRIGGER {trigger} ON {relation}")
            tell(f"trigger {trigger} on {relation}: dropped")
        await _revoke(connection)
        schema = await connection.execute(text("SELECT to_regnamespace('notifier')"))
        if schema.scalar_one() is not None:
            await connection.execute(text("DROP SCHEMA notifier CASCADE"))
            tell("schema notifier: dropped")
        else:
            tell("schema notifier: was not there")
        await connection.commit()


def newest() -> str:
    """The schema's version that this code needs."""
    head = ScriptDirectory.from_config(_config()).get_current_head()
    assert head is not None
    return head


async def downgrade(url: str, revision: str) -> None:
    """Goes back to an older version of the schema; for tests and for those who must."""
    async with _connection(url) as connection:

        def back(sync: SyncConnection) -> None:
            config = _config()
            config.attributes["connection"] = sync
            command.downgrade(config, revision)

        await connection.run_sync(back)
        await connection.commit()


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(sql.folder("migrations")))
    config.set_main_option("path_separator", "os")
    return config


def _upgrade(connection: SyncConnection, tell: Tell) -> None:
    context = MigrationContext.configure(
        connection, opts={"version_table": "version", "version_table_schema": "notifier"}
    )
    before = context.get_current_revision()
    config = _config()
    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    if before is not None and before not in known:
        raise DatabaseError(f"the schema is of a newer version ({before}) than this program")
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
    if before != newest():
        tell(f"schema notifier: {before or 'none'} → {newest()}")


async def _configure(
    connection: AsyncConnection, watches: Sequence[Watch], max_log_bytes: int, tell: Tell
) -> None:
    wanted = {"bytes": max_log_bytes}
    changed = await connection.execute(
        text(
            "UPDATE notifier.configuration SET max_log_bytes = :bytes WHERE max_log_bytes <> :bytes"
        ),
        wanted,
    )
    if changed.rowcount:
        tell(f"max_log_bytes: {max_log_bytes}")
    await connection.execute(text("DELETE FROM notifier.watches"))
    for watch in watches:
        relation = await _relation(connection, watch.table)
        created, updated, deleted = watch.names
        await connection.execute(
            text(
                "INSERT INTO notifier.watches VALUES (:entity, :relation, :key, :company, :member,"
                " :exclude, :created, :updated, :deleted)"
            ),
            {
                "entity": watch.entity,
                "relation": relation,
                "key": watch.key,
                "company": watch.company,
                "member": watch.member,
                "exclude": list(watch.exclude),
                "created": created,
                "updated": updated,
                "deleted": deleted,
            },
        )


async def _relation(connection: AsyncConnection, table: str) -> str:
    """The table's full, quoted name. Raises SettingsError where there is no such table."""
    row = (
        await connection.execute(
            text(
                "SELECT format('%I.%I', n.nspname, c.relname) FROM pg_class AS c"
                " JOIN pg_namespace AS n ON n.oid = c.relnamespace"
                " WHERE c.oid = to_regclass(:table) AND c.relkind IN ('r', 'p')"
            ),
            {"table": table},
        )
    ).scalar_one_or_none()
    if row is None:
        raise SettingsError(
            f"no table {table} to watch; create it, or run: notifier migrate --calendar"
        )
    return str(row)


async def _watch(connection: AsyncConnection, watches: Sequence[Watch], tell: Tell) -> None:
    """Makes the triggers be exactly those of `watches`."""
    wanted: dict[tuple[str, str], str] = {}
    for watch in watches:
        relation = await _relation(connection, watch.table)
        await _columns(connection, relation, watch)
        for name, when in (
            ("notifier_capture", "INSERT OR UPDATE OR DELETE"),
            ("notifier_capture_truncate", "TRUNCATE"),
        ):
            wanted[relation, name] = _definition(name, when, relation, watch)
        # Row triggers come to partitions by themselves; a TRUNCATE of one would go unheard.
        for partition in await _partitions(connection, relation):
            wanted[partition, name] = _definition(name, when, partition, watch)
    present = {}
    for relation, name in await _triggers(connection):
        present[relation, name] = (
            await connection.execute(
                text(
                    "SELECT CASE WHEN tgenabled <> 'D' THEN obj_description(oid, 'pg_trigger') END"
                    " FROM pg_trigger"
                    " WHERE tgrelid = to_regclass(:relation) AND tgname = :name"
                ),
                {"relation": relation, "name": name},
            )
        ).scalar_one()
    dropped = {key for key, definition in present.items() if wanted.get(key) != definition}
    await _lock(connection, {relation for relation, _ in dropped})
    for relation, name in present.keys() - wanted.keys():
        await connection.exec_driver_sql(f"DROP TRIGGER {name} ON {relation}")
        tell(f"trigger {name} on {relation}: dropped")
    for (relation, name), definition in wanted.items():
        if present.get((relation, name)) == definition:
            continue
        if (relation, name) in present:
            await connection.exec_driver_sql(f"DROP TRIGGER {name} ON {relation}")
        await connection.exec_driver_sql(definition)
        quoted = definition.replace("'", "''")
        await connection.exec_driver_sql(f"COMMENT ON TRIGGER {name} ON {relation} IS '{quoted}'")
        tell(f"trigger {name} on {relation}: created")


async def _lock(connection: AsyncConnection, relations: Collection[str]) -> None:
    """Locks tables at once, and first those that nobody refers to, as a writer does.

    One by one, a writer who is in the middle of one table would wait for another, and we for him.
    """
    rows = await connection.execute(
        text(
            "SELECT relation FROM unnest(CAST(:relations AS text[])) AS relation ORDER BY (SELECT count(*)"
            " FROM pg_constraint WHERE contype = 'f' AND confrelid = to_regclass(relation)), relation"
        ),
        {"relations": list(relations)},
    )
    if ordered := rows.scalars().all():
        await connection.exec_driver_sql(f"LOCK TABLE {', '.join(ordered)}")


def _definition(name: str, when: str, relation: str, watch: Watch) -> str:
    def literal(word: str) -> str:
        return "'" + word.replace("'", "''") + "'"

    arguments = [watch.entity, watch.key, watch.company]
    if watch.exclude:
        quoted = ('"' + c.replace("\\", "\\\\").replace('"', '\\"') + '"' for c in watch.exclude)
        arguments.append("{" + ",".join(quoted) + "}")
    level = "STATEMENT" if when == "TRUNCATE" else "ROW"
    return (
        f"CREATE TRIGGER {name} AFTER {when} ON {relation} FOR EACH {level}"
        f" EXECUTE FUNCTION notifier.capture({', '.join(map(literal, arguments))})"
    )


async def _columns(connection: AsyncConnection, relation: str, watch: Watch) -> None:
    rows = await connection.execute(
        text(
            "SELECT attname::text, attgenerated = 'v' FROM pg_attribute"
            " WHERE attrelid = to_regclass(:relation) AND attnum > 0 AND NOT attisdropped"
        ),
        {"relation": relation},
    )
    there: dict[str, bool] = {row[0]: row[1] for row in rows}
    names = {name for name in (watch.key, watch.company, watch.member) if name is not None}
    if unseen := sorted(name for name in names if there.get(name)):
        raise SettingsError(
            f"table {watch.table}: no trigger sees the virtual column {', '.join(unseen)}"
        )
    needed = names | {*watch.exclude}
    if missing := sorted(needed - there.keys()):
        raise SettingsError(f"table {watch.table} has no column {', '.join(missing)}")


async def _partitions(connection: AsyncConnection, relation: str) -> list[str]:
    """The partitions of a table, at any depth."""
    rows = await connection.execute(
        text(
            "SELECT format('%I.%I', n.nspname, c.relname)"
            " FROM pg_partition_tree(to_regclass(:relation)) AS p"
            " JOIN pg_class AS c ON c.oid = p.relid JOIN pg_namespace AS n ON n.oid = c.relnamespace"
            " WHERE p.level > 0 AND c.relkind IN ('r', 'p')"
        ),
        {"relation": relation},
    )
    return [row[0] for row in rows]


async def _triggers(connection: AsyncConnection) -> list[tuple[str, str]]:
    """The triggers that are ours: (relation, name). Those of partitions come from their parents."""
    rows = await connection.execute(
        text(
            "SELECT format('%I.%I', n.nspname, c.relname), t.tgname::text FROM pg_trigger AS t"
            " JOIN pg_proc AS p ON p.oid = t.tgfoid JOIN pg_class AS c ON c.oid = t.tgrelid"
            " JOIN pg_namespace AS n ON n.oid = c.relnamespace"
            " WHERE p.pronamespace = to_regnamespace('notifier') AND t.tgparentid = 0"
            " AND NOT t.tgisinternal"
        )
    )
    return [(row[0], row[1]) for row in rows]


async def _tables(connection: AsyncConnection) -> set[str]:
    rows = await connection.execute(
        text("SELECT relname::text FROM pg_class WHERE relkind = 'r' AND relname = ANY (:names)"),
        {"names": list(Calendar.metadata.tables)},
    )
    return set(rows.scalars())


async def _grant(connection: AsyncConnection, role: str, tell: Tell) -> None:
    """What `serve` needs, and no more."""
    quoted = (
        await connection.execute(
            text("SELECT quote_ident(rolname) FROM pg_roles WHERE rolname = :role"), {"role": role}
        )
    ).scalar_one_or_none()
    if quoted is None:
        raise DatabaseError(f"there is no role {role}")
    for statement in sql.grants().replace(":role", quoted).split(";"):
        if statement.strip():
            await connection.exec_driver_sql(statement)
    await _members(connection, "GRANT", "TO", quoted)
    tell(f"role {role}: may serve")


async def _revoke(connection: AsyncConnection) -> None:
    """Takes the rights on the app's tables from whoever had them for `serve`."""
    there = await connection.execute(text("SELECT to_regclass('notifier.watches') IS NOT NULL"))
    if there.scalar_one():
        serving = await connection.execute(
            text(
                "SELECT DISTINCT acl.grantee::regrole::text"
                " FROM pg_namespace AS n, aclexplode(n.nspacl) AS acl"
                " WHERE n.nspname = 'notifier' AND acl.grantee NOT IN (0, n.nspowner)"
            )
        )
        for role in serving.scalars().all():
            await _members(connection, "REVOKE", "FROM", role)


async def _members(connection: AsyncConnection, verb: str, preposition: str, role: str) -> None:
    """Grants or revokes what the default membership query reads. `role` is quoted."""
    rows = await connection.execute(
        text(
            "SELECT format('SELECT (%I, %I) ON %s', w.company, w.member, w.relation),"
            " format('USAGE ON SCHEMA %s', c.relnamespace::regnamespace)"
            " FROM notifier.watches AS w JOIN pg_class AS c ON c.oid = to_regclass(w.relation)"
            " WHERE w.member IS NOT NULL"
        )
    )
    for right in [right for row in rows for right in row]:
        await connection.exec_driver_sql(f"{verb} {right} {preposition} {role}")


@contextlib.asynccontextmanager
async def _connection(url: str) -> Any:
    """A connection in a transaction; the driver's exceptions become ours."""
    engine = create_async_engine(
        "postgresql+asyncpg://",
        poolclass=NullPool,
        async_creator=lambda: connect(
            url, "migrate", pinned=False, deadline=600, settings=SETTINGS
        ),
    )
    try:
        async with engine.connect() as connection:
            yield connection
    except DBAPIError as error:
        cause = error.orig.__cause__ if error.orig is not None else None
        if isinstance(cause, asyncpg.LockNotAvailableError):
            raise DatabaseError("a watched table is locked; try again when it is not") from error
        if isinstance(cause, asyncpg.InsufficientPrivilegeError):
            raise DatabaseError(f"this role may not do that: {first_line(cause)}") from error
        raise DatabaseError(first_line(cause or error)) from error
    except FAILURES as error:
        raise translate_error(error, url) from error
    finally:
        await engine.dispose()
