"""Alembic, on the connection that `notifier.database.schema` hands over."""

from __future__ import annotations

from alembic import context

from notifier.database import sql

context.configure(
    connection=context.config.attributes["connection"],
    version_table="version",
    version_table_schema=sql.schema(),
)
context.run_migrations()
