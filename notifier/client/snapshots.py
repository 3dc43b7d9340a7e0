"""The rows of a company together with their position: saved by the application, and restored."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from notifier.client.feed import Feed, Filter
from notifier.client.progress import same_company
from notifier.client.reports import Position, Row
from notifier.client.rows import Names, Rows, Store


def rows_of(feed: Feed, entity: str) -> Rows:
    """The rows of an entity. Raises RuntimeError without `state=True`."""
    if feed.store is None:
        raise RuntimeError("there are no rows without state=True")
    return feed.store.rows(entity)


def snapshot_of(feed: Feed) -> Row | None:
    """All rows and their position, for JSON; None while they are not complete."""
    store, position = feed.store, feed.position
    if store is None or position is None:
        return None
    return {
        "companyId": feed.company,
        "filter": (feed.accepted or feed.filter).request(),
        "position": position._asdict(),
        "rows": store.saved(),
    }


def restored(
    company: str,
    chosen: Filter,
    snapshot: Mapping[str, Any] | None,
    tables: Mapping[str, Names] | None,
) -> tuple[Store, Position | None]:
    """A store, with the rows of a snapshot if it is of this company and filter, and their position.

    Raises ValueError for what no `snapshot` has returned.
    """
    store = Store(tables)
    if snapshot is None:
        return store, None
    try:
        if (
            not same_company(snapshot["companyId"], company)
            or snapshot["filter"] != chosen.request()
        ):
            return store, None
        position = Position(**snapshot["position"])
        store.restore(snapshot["rows"], chosen.where)
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError("this is not a snapshot of a client") from error
    return store, position
