"""Rows on paths that a transaction deletes: the table that each was in."""

from __future__ import annotations

from notifier.database.schema import run

revision = "0023"
down_revision = "0022"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # No transaction that captures is in flight: none needs its records any more.
    run(
        """
        TRUNCATE notifier.vanished;
        ALTER TABLE notifier.vanished ADD COLUMN relation oid NOT NULL;
        """
    )


def downgrade() -> None:
    run("ALTER TABLE notifier.vanished DROP COLUMN relation")
