"""No statistics of columns that are read by way of views: an operator could read them while it is planned."""

from __future__ import annotations

from notifier.database.schema import run

revision = "0021"
down_revision = "0020"
branch_labels = None
depends_on = None

COLUMNS = (
    ("messages", "revokes"),
    ("messages", "traceparent"),
    ("changes_0", "actor"),
    ("changes_0", "traceparent"),
    ("changes_1", "actor"),
    ("changes_1", "traceparent"),
)
"""JSON has no statistics of its values."""


FORGET = """
DO $$
DECLARE
    gathered record;
BEGIN
    FOR gathered IN
        SELECT DISTINCT coalesce(i.inhparent, a.attrelid)::regclass AS relation, a.attname, a.atttypid::regtype AS type
        FROM pg_stats AS s
        JOIN pg_namespace AS n ON n.nspname = s.schemaname AND n.oid = 'notifier'::regnamespace
        JOIN pg_class AS c ON c.relnamespace = n.oid AND c.relname = s.tablename
        JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attname = s.attname AND a.attstattarget = 0
        LEFT JOIN pg_inherits AS i ON i.inhrelid = c.oid
    LOOP
        DROP VIEW IF EXISTS notifier.changes, notifier.stored_messages;
        EXECUTE format('ALTER TABLE %s ALTER COLUMN %I TYPE %s', gathered.relation, gathered.attname, gathered.type);
    END LOOP;
END $$;
"""
"""Removes what ANALYZE has gathered before: ALTER TYPE does, to the same type too. `migrate` creates the views again."""


def upgrade() -> None:
    for table, column in COLUMNS:
        run(f"ALTER TABLE notifier.{table} ALTER COLUMN {column} SET STATISTICS 0;")
    run(FORGET)


def downgrade() -> None:
    run("DROP VIEW IF EXISTS notifier.stored_messages, notifier.signing_secret;")
    for table, column in COLUMNS:
        run(f"ALTER TABLE notifier.{table} ALTER COLUMN {column} SET STATISTICS -1;")
