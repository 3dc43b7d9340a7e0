"""Numbers that Python and SQL share: `notifier.database.sql` puts them into the files of `sql/`.

There `:doorbell_lock` stands for DOORBELL_LOCK, and so on.
"""

from __future__ import annotations

DOORBELL_LOCK = 7815279001
"""Advisory lock that the relay holds while it sleeps: writers who cannot share it send a NOTIFY."""

MIGRATION_LOCK = 7815279002
"""Advisory lock of `migrate` and `uninstall`: the second one waits."""

FULL_MARK = 1 << 62
"""Values of `notifier.change_ids` from here on mean that the log is full and capture stores nothing."""

TABLE_BIT = 32
"""The bit of a change's id that is the number of its table of changes, 0 or 1."""

FIRST_USER_OID = 16384
"""Objects with lower OIDs come with PostgreSQL (FirstNormalObjectId in its sources)."""
