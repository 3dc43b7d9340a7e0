"""What proves that the relay's row is the version that the relay wrote, and that capture had no gap."""

from __future__ import annotations

from notifier.database.schema import run

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    run(
        """
        ALTER TABLE notifier.log ADD COLUMN saved_by xid8, ADD COLUMN captured jsonb;
        COMMENT ON COLUMN notifier.log.saved_by IS
            'the transaction that wrote this version of the row; not its xmin: the row was restored or altered';
        COMMENT ON COLUMN notifier.log.captured IS
            'the capture triggers, by entity and oid, with the version of their row in pg_trigger';
        """
    )


def downgrade() -> None:
    run("ALTER TABLE notifier.log DROP COLUMN saved_by, DROP COLUMN captured")
