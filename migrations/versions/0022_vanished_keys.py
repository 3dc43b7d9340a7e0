"""Rows on paths that a transaction deletes: one record of each key."""

from __future__ import annotations

from notifier.database.schema import run

revision = "0022"
down_revision = "0021"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # No transaction that captures is in flight: none needs its records any more.
    run(
        """
        TRUNCATE notifier.vanished;
        DROP INDEX notifier.vanished_xid_key_idx;
        CREATE UNIQUE INDEX ON notifier.vanished (xid, key, watch, step);
        """
    )


def downgrade() -> None:
    run(
        """
        DROP INDEX notifier.vanished_xid_key_watch_step_idx;
        CREATE INDEX ON notifier.vanished (xid, key);
        """
    )
