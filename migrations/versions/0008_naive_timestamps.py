"""The zone of timestamps without one."""

from __future__ import annotations

from notifier.database.schema import run

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    run(
        """
        ALTER TABLE notifier.watches ADD COLUMN naive_timestamps text;
        COMMENT ON COLUMN notifier.watches.naive_timestamps IS
            'the zone of timestamps without one; null: they are sent without an offset';
        """
    )


def downgrade() -> None:
    run("ALTER TABLE notifier.watches DROP COLUMN naive_timestamps")
