"""Changes as capture stores them, and the messages that the relay makes of them."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any, TypeAlias

from hypothesis import strategies as st

from notifier.relay.changes import Change, Source
from notifier.relay.netting import AnyDraft, net
from notifier.relay.rendering import ResyncDraft
from notifier.watches import CALENDAR

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)

EVENT, EMPLOYEE, COMPANY = CALENDAR
SOURCES = {
    "Event": Source(EVENT),
    "Employee": Source(EMPLOYEE, json_columns=frozenset({"body"})),
    "Company": Source(COMPANY),
}

Values: TypeAlias = dict[str, Any]
Json: TypeAlias = dict[str, Any]

JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.text()
    | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)


def change(
    number: int,
    old: Values | bytes | None,
    new: Values | bytes | None,
    *,
    entity: str = "Event",
    xid: int = 1,
    partial: bool = False,
    actor: str | None = None,
) -> Change:
    """A change as capture stores it."""
    return Change(
        number,
        xid,
        entity,
        _image(old),
        _image(new),
        partial,
        actor,
        NOON + timedelta(seconds=number),
    )


def _image(row: Values | bytes | None) -> bytes | None:
    return json.dumps(row).encode() if isinstance(row, dict) else row


def row(company: str | None = "c", key: Any = 1, **values: Any) -> Values:
    """The columns of an event."""
    return {"id": key, "company_id": company, **values}


def text_of(draft: AnyDraft) -> Json:
    """The message that a draft becomes at position 7 of its company."""
    if isinstance(draft, ResyncDraft):
        body = draft.body(draft.company or "c", "e", 7)
    else:
        body = draft.body(7)
    message: Json = json.loads(body)
    assert message.pop("Position") == 7
    return message


def drafts_of(
    *changes: Change, sources: dict[str, Source] = SOURCES, bulk_limit: int = 1000
) -> list[AnyDraft]:
    """The net drafts of whole transactions."""
    drafts, unattributed = net(changes, sources, bulk_limit)
    assert unattributed == 0
    return drafts


def messages_of(
    *changes: Change, sources: dict[str, Source] = SOURCES, bulk_limit: int = 1000
) -> list[Json]:
    """The net messages of whole transactions."""
    return [text_of(draft) for draft in drafts_of(*changes, sources=sources, bulk_limit=bulk_limit)]


def inserted(**values: Any) -> Json:
    """`Data` of an inserted row."""
    (message,) = messages_of(change(1, None, row(**values)))
    data: Json = message["Data"]
    return data
