"""States as a role of the database reads them."""

from __future__ import annotations

from typing import Any

import msgspec

from notifier.delivery.filter import Filter
from notifier.state.reader import StateReader
from tests.databases import Database, as_app


def url_of(database: Database, role: str) -> str:
    """The URL for a role whose password is `app`."""
    return as_app(database.dsn).replace("app:app@", f"{role}:app@")


async def rows_of(
    states: StateReader, company: str, wanted: Filter | None, user: str
) -> dict[str, Any]:
    """The rows by their entity, as `states` reads them for a user; then closes it."""
    try:
        state = await states.read(company, wanted, user)
    finally:
        states.close()
    pages = [msgspec.json.decode(page)["Data"] for page in state.pages]
    return {page["Entity"]: page["Rows"] for page in pages}
