"""The column that marks a row as deleted."""

from __future__ import annotations

from notifier.database.schema import run

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    run(
        """
        ALTER TABLE notifier.watches ADD COLUMN deleted_if text;
        COMMENT ON COLUMN notifier.watches.deleted_if IS
            'the column that marks a row as deleted: neither null nor false';
        """
    )


def downgrade() -> None:
    run("ALTER TABLE notifier.watches DROP COLUMN deleted_if")
