"""Conditions under which a member row gives access."""

from __future__ import annotations

from notifier.database.schema import run

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    run(
        """
        ALTER TABLE notifier.watches ADD COLUMN member_if text[] NOT NULL DEFAULT '{}';
        COMMENT ON COLUMN notifier.watches.member_if IS
            'pairs of a column and the value, as JSON, that it has in rows that give access';
        """
    )


def downgrade() -> None:
    # Not without the conditions: a member row that does not meet them would give access.
    run(
        """
        DELETE FROM notifier.watches WHERE member_if <> '{}';
        ALTER TABLE notifier.watches DROP COLUMN member_if;
        """
    )
