"""The log."""

from __future__ import annotations

from notifier.database import sql
from notifier.database.schema import run

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    run(sql.tables("log"))
    run(sql.function("system"))
    run(
        """
        INSERT INTO notifier.configuration (max_log_bytes) VALUES (1073741824);
        INSERT INTO notifier.log (epoch, system, cursor)
        VALUES (substr(md5(gen_random_uuid()::text), 1, 12), notifier.system(), pg_current_snapshot());
        """
    )


def downgrade() -> None:
    run(
        """
        DROP FUNCTION notifier.system;
        DROP TABLE notifier.messages, notifier.positions, notifier.log, notifier.changes_0,
                   notifier.changes_1, notifier.configuration, notifier.watches;
        DROP SEQUENCE notifier.change_ids;
        """
    )
