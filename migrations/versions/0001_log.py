"""The log and its capture."""

from __future__ import annotations

from notifier.schema import run
from notifier.sql import read

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    for name in (
        *("log", "log_bytes", "is_full", "system", "without", "keys", "readable", "capture"),
        *("empty", "turn", "reopen", "prune"),
    ):
        run(read(name))
    run(
        """
        REVOKE ALL ON ALL FUNCTIONS IN SCHEMA notifier FROM PUBLIC;
        INSERT INTO notifier.configuration (max_log_bytes) VALUES (1073741824);
        INSERT INTO notifier.log (epoch, system, cursor)
        VALUES (substr(md5(gen_random_uuid()::text), 1, 12), notifier.system(), pg_current_snapshot());
        """
    )


def downgrade() -> None:
    run(
        """
        DROP FUNCTION notifier.capture() CASCADE;
        DROP FUNCTION notifier.readable, notifier.keys, notifier.without, notifier.system, notifier.is_full,
                      notifier.log_bytes, notifier.empty, notifier.turn, notifier.reopen, notifier.prune;
        DROP VIEW notifier.changes;
        DROP TABLE notifier.messages, notifier.positions, notifier.log, notifier.changes_0,
                   notifier.changes_1, notifier.configuration, notifier.watches;
        DROP SEQUENCE notifier.change_ids;
        """
    )
