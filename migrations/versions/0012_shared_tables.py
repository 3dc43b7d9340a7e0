"""Several watches of one table."""

from __future__ import annotations

from notifier.database.schema import run

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    run(
        """
        ALTER TABLE notifier.watches ADD COLUMN captured_as text;
        UPDATE notifier.watches SET captured_as = entity;
        ALTER TABLE notifier.watches ALTER COLUMN captured_as SET NOT NULL;
        COMMENT ON COLUMN notifier.watches.captured_as IS
            'the entity of the changes of the table, which is captured once: that of one of its watches';
        """
    )


def downgrade() -> None:
    run(
        """
        DELETE FROM notifier.watches WHERE entity <> captured_as;
        ALTER TABLE notifier.watches DROP COLUMN captured_as;
        """
    )
