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


def upgrade() -> None:
    for table, column in COLUMNS:
        run(f"ALTER TABLE notifier.{table} ALTER COLUMN {column} SET STATISTICS 0;")


def downgrade() -> None:
    run("DROP VIEW IF EXISTS notifier.stored_messages, notifier.signing_secret;")
    for table, column in COLUMNS:
        run(f"ALTER TABLE notifier.{table} ALTER COLUMN {column} SET STATISTICS -1;")
