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
    # Not without the condition: a member row that is deleted would give access.
    run(
        """
        DELETE FROM notifier.watches WHERE deleted_if IS NOT NULL;
        ALTER TABLE notifier.watches DROP COLUMN deleted_if;
        """
    )
