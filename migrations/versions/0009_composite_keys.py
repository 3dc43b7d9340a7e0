"""Keys of several columns."""

from __future__ import annotations

from notifier.database.schema import run

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    run(
        """
        ALTER TABLE notifier.watches ADD COLUMN more_keys text[] NOT NULL DEFAULT '{}';
        COMMENT ON COLUMN notifier.watches.more_keys IS 'the columns that name a row together with key';
        """
    )


def downgrade() -> None:
    run("ALTER TABLE notifier.watches DROP COLUMN more_keys")
