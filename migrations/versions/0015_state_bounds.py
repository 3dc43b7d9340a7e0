"""What bounds the rows of a state."""

from __future__ import annotations

from notifier.database.schema import run

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None


def upgrade() -> None:
    run(
        """
        ALTER TABLE notifier.watches ADD COLUMN state_where text;
        COMMENT ON COLUMN notifier.watches.state_where IS
            'the condition of rows that are part of a state; null: all are';
        """
    )


def downgrade() -> None:
    run("ALTER TABLE notifier.watches DROP COLUMN state_where")
