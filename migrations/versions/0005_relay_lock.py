"""The relay's lock has a key of its own in each database: any role may hold an advisory lock."""

from __future__ import annotations

from notifier.database.schema import run

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    run(
        """
        ALTER TABLE notifier.log ADD COLUMN relay_lock bigint NOT NULL
            DEFAULT ('x' || md5(gen_random_uuid()::text))::bit(62)::bigint;
        COMMENT ON COLUMN notifier.log.relay_lock IS
            'key of the advisory lock of the node that relays; replaced where another role holds it';
        """
    )


def downgrade() -> None:
    run("ALTER TABLE notifier.log DROP COLUMN relay_lock")
