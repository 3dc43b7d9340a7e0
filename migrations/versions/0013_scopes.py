"""Kinds of companies."""

from __future__ import annotations

from notifier.database.schema import run

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    run(
        """
        CREATE TABLE notifier.scopes (name text PRIMARY KEY, membership text);
        COMMENT ON TABLE notifier.scopes IS
            'kinds of companies, whose ids are written name:id; membership: the query that decides on access';
        ALTER TABLE notifier.watches ADD COLUMN scope text;
        COMMENT ON COLUMN notifier.watches.scope IS 'the kind of company that its rows belong to';
        """
    )


def downgrade() -> None:
    # Not without the scope: companies of several kinds would share a channel.
    run(
        """
        DELETE FROM notifier.watches WHERE scope IS NOT NULL;
        ALTER TABLE notifier.watches DROP COLUMN scope;
        DROP TABLE notifier.scopes;
        """
    )
