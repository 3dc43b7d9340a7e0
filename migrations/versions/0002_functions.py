"""Functions and the view of changes, as they are now, also where an older log has others."""

from __future__ import annotations

from notifier.database import sql
from notifier.database.schema import run

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

FUNCTIONS = (
    *("log_bytes", "is_full", "strip_columns", "keys", "sanitize_json", "readable_json", "capture"),
    *("truncate_changes", "rotate_changes", "reopen", "prune"),
)
SERVING = (
    "notifier.log_bytes(), notifier.system(), notifier.readable_json(json), notifier.sanitize_json(json),"
    " notifier.truncate_changes(int, text, bigint), notifier.rotate_changes(), notifier.reopen(),"
    " notifier.prune(int, text, bigint)"
)


def upgrade() -> None:
    # First the tables that are captured: whoever writes to one of them is in the middle of an older
    # `capture` that knows its columns, and holds what is to be altered.
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
    run(sql.view("changes"))
    for name in FUNCTIONS:
        run(sql.function(name))
    run("REVOKE ALL ON ALL FUNCTIONS IN SCHEMA notifier FROM PUBLIC")
    # Whoever was granted to may relay: with these functions from now on.
    run(
        f"""
        DO $$
        DECLARE
            grantee regrole;
        BEGIN
            FOR grantee IN
                SELECT granted.grantee::regrole
                FROM pg_class AS c, aclexplode(c.relacl) AS granted
                WHERE c.oid = 'notifier.change_ids'::regclass AND granted.grantee <> c.relowner
                  AND granted.privilege_type = 'UPDATE'
            LOOP
                EXECUTE format('GRANT SELECT ON notifier.changes TO %s', grantee);
                EXECUTE format('GRANT EXECUTE ON FUNCTION {SERVING} TO %s', grantee);
            END LOOP;
        END
        $$
        """
    )


def downgrade() -> None:
    run("DROP VIEW notifier.changes")
    for name in reversed(FUNCTIONS):
        run(f"DROP FUNCTION notifier.{name} CASCADE")  # with `capture` go its triggers
