"""Alembic, on the connection that `notifier.database.schema` hands over."""

from __future__ import annotations

from alembic import context

context.configure(
    connection=context.config.attributes["connection"],
    version_table="version",
    version_table_schema="notifier",
)
context.run_migrations()
