"""How the properties of a watched table are spelled."""

from __future__ import annotations

from notifier.database.schema import run

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    run(
        """
        ALTER TABLE notifier.watches
            ADD COLUMN rename text[] NOT NULL DEFAULT '{}', ADD COLUMN spelling text NOT NULL DEFAULT 'pascal';
        COMMENT ON COLUMN notifier.watches.rename IS 'pairs: a column and its property';
        COMMENT ON COLUMN notifier.watches.spelling IS 'of all other properties: pascal, camel or column';
        """
    )


def downgrade() -> None:
    run("ALTER TABLE notifier.watches DROP COLUMN rename, DROP COLUMN spelling")
