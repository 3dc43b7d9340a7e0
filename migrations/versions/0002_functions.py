"""Changes without the columns that messages no longer need, also where an older log has them.

Functions and views are no longer made here: `notifier.database.functions` compares them.
"""

from __future__ import annotations

from notifier.database.schema import run

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # First the tables that are captured: a transaction that writes to one of them may be in an older
    # `capture` that knows these columns, and holds what is to be altered.
    run(
        """
        DO $$
        DECLARE
            captured regclass;
        BEGIN
            FOR captured IN
                SELECT tgrelid FROM pg_trigger
                WHERE tgfoid = to_regproc('notifier.capture')
                GROUP BY tgrelid
                ORDER BY (SELECT count(*) FROM pg_constraint WHERE contype = 'f' AND confrelid = tgrelid)
            LOOP
                EXECUTE format('LOCK TABLE %s', captured);
            END LOOP;
        END
        $$
        """
    )
    run(
        """
        DROP VIEW IF EXISTS notifier.changes;
        ALTER TABLE notifier.changes_0 DROP COLUMN IF EXISTS operation, DROP COLUMN IF EXISTS size;
        ALTER TABLE notifier.changes_1 DROP COLUMN IF EXISTS operation, DROP COLUMN IF EXISTS size;
        """
    )


def downgrade() -> None:
    # With `capture` go its triggers. The tables' own migration drops `system`.
    run(
        """
        DROP VIEW IF EXISTS notifier.changes;
        DO $$
        DECLARE
            function regprocedure;
        BEGIN
            FOR function IN
                SELECT oid FROM pg_proc
                WHERE pronamespace = 'notifier'::regnamespace AND proname <> 'system'
            LOOP
                EXECUTE format('DROP FUNCTION %s CASCADE', function);
            END LOOP;
        END
        $$
        """
    )
