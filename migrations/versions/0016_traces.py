"""The trace that a writer names, on its changes and on their messages."""

from __future__ import annotations

from notifier.database.schema import run

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # `migrate` creates the view again, with the new column.
    run(
        """
        DROP VIEW IF EXISTS notifier.changes;
        ALTER TABLE notifier.changes_0 ADD COLUMN traceparent text;
        ALTER TABLE notifier.changes_1 ADD COLUMN traceparent text;
        ALTER TABLE notifier.changes_0 ALTER COLUMN traceparent
            SET DEFAULT nullif(left(current_setting('notifier.traceparent', true), 100), '');
        ALTER TABLE notifier.changes_1 ALTER COLUMN traceparent
            SET DEFAULT nullif(left(current_setting('notifier.traceparent', true), 100), '');
        ALTER TABLE notifier.messages ADD COLUMN traceparent text;
        COMMENT ON COLUMN notifier.messages.traceparent IS
            'W3C Trace Context: the span of the relay, for the spans of the nodes. Null: the message is not traced';
        """
    )


def downgrade() -> None:
    run(
        """
        DROP VIEW IF EXISTS notifier.changes;
        ALTER TABLE notifier.changes_0 DROP COLUMN traceparent;
        ALTER TABLE notifier.changes_1 DROP COLUMN traceparent;
        ALTER TABLE notifier.messages DROP COLUMN traceparent;
        """
    )
