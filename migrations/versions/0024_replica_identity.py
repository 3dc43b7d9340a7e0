"""The log's tables can be published: an epoch, and a hidden column, delete rows of those that have no primary key."""

from __future__ import annotations

from notifier.database.schema import run

revision = "0024"
down_revision = "0023"
branch_labels = None
depends_on = None

TABLES = ("changes_0", "changes_1", *(f"messages_{slot}" for slot in range(8)))


def upgrade() -> None:
    # Otherwise PostgreSQL refuses each DELETE, of no row as well, where a publication is FOR ALL TABLES.
    for table in TABLES:
        run(f"ALTER TABLE notifier.{table} REPLICA IDENTITY FULL")


def downgrade() -> None:
    for table in TABLES:
        run(f"ALTER TABLE notifier.{table} REPLICA IDENTITY DEFAULT")
