"""The revisions of the schema's tables: that of a database, and those that this version has in `migrations/`."""

from __future__ import annotations

from typing import TypeGuard

from alembic.config import Config
from alembic.script import ScriptDirectory

from notifier.database import sql
from notifier.database.connections import Connection
from notifier.errors import DatabaseError


def newest() -> str:
    """The revision that this version needs."""
    head = _scripts().get_current_head()
    assert head is not None
    return head


async def current(connection: Connection) -> str | None:
    """The revision of the database; None where there is none. Raises DatabaseError where there are several.

    A restore of rows alone into a database that was migrated adds that of the dump.
    """
    if not await connection.fetchval(
        sql.adapt("SELECT to_regclass('notifier.version') IS NOT NULL")
    ):
        return None
    rows = await connection.fetch(
        sql.adapt("SELECT version_num FROM notifier.version ORDER BY version_num")
    )
    revisions: list[str] = [row["version_num"] for row in rows]
    if len(revisions) > 1:
        raise DatabaseError(
            f"the table version of the schema {sql.schema()} has several rows ({', '.join(revisions)}), such as after"
            " a restore of rows alone: delete those that are not the schema's"
        )
    return revisions[0] if revisions else None


def is_newer(revision: str | None) -> TypeGuard[str]:
    """Whether it is of a newer version, whose objects this one does not know."""
    return revision is not None and revision not in {
        script.revision for script in _scripts().walk_revisions()
    }


def newer(revision: str) -> str:
    """The fault of a database whose revision is of a newer version."""
    return f"the schema {sql.schema()} is of a newer version ({revision}) than this program"


def config(connection: object = None) -> Config:
    """Alembic's configuration. `connection`: that of SQLAlchemy which `migrations/env.py` uses."""
    made = Config()
    made.attributes["connection"] = connection
    made.set_main_option("script_location", str(sql.folder("migrations")))
    made.set_main_option("path_separator", "os")
    return made


def _scripts() -> ScriptDirectory:
    return ScriptDirectory.from_config(config())
