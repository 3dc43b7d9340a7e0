"""All functions, as they are now, also where an older version of the log has others."""

from __future__ import annotations

from notifier.schema import run
from notifier.sql import read

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

FUNCTIONS = (
    *("log_bytes", "is_full", "without", "keys", "mended", "readable", "capture"),
    *("empty", "turn", "reopen", "prune"),
)
SERVING = (
    "notifier.log_bytes(), notifier.system(), notifier.readable(json), notifier.mended(json),"
    " notifier.empty(int, text, bigint), notifier.turn(), notifier.reopen(),"
    " notifier.prune(int, text, bigint)"
)


def upgrade() -> None:
    for name in FUNCTIONS:
        run(read(name))
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
                EXECUTE format('GRANT EXECUTE ON FUNCTION {SERVING} TO %s', grantee);
            END LOOP;
        END
        $$
        """
    )


def downgrade() -> None:
    for name in reversed(FUNCTIONS):
        run(f"DROP FUNCTION notifier.{name} CASCADE")  # with `capture` go its triggers
