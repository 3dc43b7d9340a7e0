"""Rows that only some users of a company see."""

from __future__ import annotations

from notifier.database.schema import run

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    run(
        """
        ALTER TABLE notifier.watches ADD COLUMN visible_to text[] NOT NULL DEFAULT '{}';
        ALTER TABLE notifier.messages ADD COLUMN views json;
        COMMENT ON COLUMN notifier.watches.visible_to IS
            'columns that name the users who see the row, or hold arrays of them';
        COMMENT ON COLUMN notifier.messages.views IS
            'what single users get; all others get body. Null: body is for every user of the company';
        """
    )


def downgrade() -> None:
    run(
        "ALTER TABLE notifier.watches DROP COLUMN visible_to; ALTER TABLE notifier.messages DROP COLUMN views"
    )
