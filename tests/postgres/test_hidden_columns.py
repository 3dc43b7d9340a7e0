"""Columns that decide who sees a row, in tables that `migrate --only` does not name."""

from __future__ import annotations

from notifier.database.schema import migrate, migrate_only
from notifier.watches import CALENDAR, Watch
from tests.databases import Database

NOTE = Watch(table="workspace_*.note", entity="Note", company="schema", visible_to=("owner",))
MEMO = Watch(table="memos", entity="Memo", visible_to=("owner",))


def tables(schema: str) -> str:
    return f"CREATE SCHEMA {schema}; CREATE TABLE {schema}.note (id int PRIMARY KEY, owner text)"


async def test_migrate_for_a_new_tenant_shows_no_row_of_another_table(database: Database) -> None:
    """A column that took the name of one of `visible_to` names no users: its rows stay hidden until `migrate` for their table."""
    await database.execute("CREATE TABLE memos (id int PRIMARY KEY, company_id text, owner text)")
    for schema in ("workspace_a", "workspace_b"):
        await database.execute(tables(schema))
    await migrate(database.dsn, watches=[*CALENDAR, NOTE, MEMO])
    for table in ("workspace_a.note", "workspace_b.note", "memos"):
        await database.execute(f"ALTER TABLE {table} RENAME owner TO made_by")
        await database.execute(f"ALTER TABLE {table} ADD owner text")
    await database.execute(tables("workspace_c"))
    await migrate_only(database.dsn, "workspace_c.*")
    assert await renamed(database) == {"memos", "workspace_a.note", "workspace_b.note"}
    await database.execute("DROP TRIGGER notifier_capture ON workspace_a.note")
    await migrate_only(database.dsn, "workspace_a.*")
    assert await renamed(database) == {"memos", "workspace_b.note"}
    await migrate(database.dsn, watches=[*CALENDAR, NOTE, MEMO])
    assert await renamed(database) == set()


async def renamed(database: Database) -> set[str]:
    """The tables with a column of `visible_to` that has another name now."""
    rows = await database.fetch(
        "SELECT relation::regclass::text AS name FROM notifier.renamed_columns()"
    )
    return {row["name"] for row in rows}
