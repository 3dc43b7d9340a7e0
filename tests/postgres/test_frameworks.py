"""Beside the migrations of applications, configured as docs/deploy.md describes."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, Table
from sqlalchemy.ext.asyncio import create_async_engine

from notifier.database.calendar import Calendar
from tests.databases import Database

PAGE = (Path(__file__).parents[2] / "docs" / "deploy.md").read_text()


def include_name() -> Callable[..., bool]:
    """The function of the page."""
    match = re.search(r"^  def include_name\(.*?\n\n", PAGE, re.MULTILINE | re.DOTALL)
    assert match is not None
    found: dict[str, Any] = {}
    exec(re.sub("^  ", "", match[0], flags=re.MULTILINE), found)
    function: Callable[..., bool] = found["include_name"]
    return function


async def dropped(database: Database, **options: object) -> list[str]:
    """The tables that autogenerate would drop."""

    def compare(connection: Connection) -> list[str]:
        context = MigrationContext.configure(connection, opts={"include_schemas": True, **options})
        found = compare_metadata(context, Calendar.metadata)
        tables = [each[1] for each in found if each[0] == "remove_table"]
        return [str(each) for each in tables if isinstance(each, Table)]

    engine = create_async_engine(database.dsn.replace("postgresql://", "postgresql+asyncpg://"))
    try:
        async with engine.connect() as connection:
            return await connection.run_sync(compare)
    finally:
        await engine.dispose()


@pytest.mark.filterwarnings("ignore:Did not recognize type")  # xid8, of our tables
async def test_row_5_1_autogenerate_drops_nothing_of_ours_with_the_documented_function(
    database: Database,
) -> None:
    assert "notifier.log" in await dropped(database)
    assert await dropped(database, include_name=include_name()) == []
