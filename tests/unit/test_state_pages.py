"""The `State` messages that are made from row images."""

from __future__ import annotations

import json
from typing import Any

from notifier.relay.changes import Source
from notifier.relay.rendering import MESSAGE_LIMIT
from notifier.state.pages import pages
from notifier.watches import Watch

NOTES = Source(Watch(table="notes", entity="Note", company="team_id"))


def made(*rows: dict[str, Any]) -> list[bytes]:
    """The messages with these rows."""
    return [*pages("1", NOTES, [json.dumps(row).encode() for row in rows], None, "u")]


def test_a_table_without_rows_has_no_message() -> None:
    assert made() == []
    assert made({"id": 1, "team_id": 2, "body": "of another company"}) == []


def test_rows_are_spread_over_messages_up_to_their_limit() -> None:
    rows = [{"id": number, "team_id": 1, "body": "x" * 1000} for number in range(1000)]
    found = made(*rows)
    assert len(found) > 2
    assert all(len(page) <= MESSAGE_LIMIT for page in found)
    assert all(len(page) > MESSAGE_LIMIT - 1100 for page in found[:-1])
    data = [json.loads(page)["Data"] for page in found]
    assert {(each["CompanyId"], each["Entity"]) for each in data} == {("1", "Note")}
    assert [row["NoteId"] for each in data for row in each["Rows"]] == [*range(1000)]


def test_a_row_of_more_than_128_kib_has_its_keys_only() -> None:
    (page,) = made(
        {"id": 1, "team_id": 1, "body": "x" * 128 * 1024},
        {"id": 2, "team_id": 1, "body": "x" * 100 * 1024},
    )
    large, whole = json.loads(page)["Data"]["Rows"]
    assert large == {"NoteId": 1, "CompanyId": 1}
    assert len(whole["Body"]) == 100 * 1024
