"""The `State` messages that are made from row images."""

from __future__ import annotations

import json
from typing import Any

from notifier.delivery.filter import Filter
from notifier.relay.changes import Source
from notifier.relay.rendering import MESSAGE_LIMIT
from notifier.state.pages import pages, passing
from notifier.watches import Watch

NOTES = Source(Watch(table="notes", entity="Note", company="team_id"))


def made(*rows: dict[str, Any]) -> list[bytes]:
    """The messages with these rows."""
    return [*pages("1", NOTES, [json.dumps(row).encode() for row in rows], "u")]


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


def test_a_row_is_whole_as_long_as_it_fits_into_a_message_and_has_its_keys_only_beyond() -> None:
    (small,) = made({"id": 1, "team_id": 1, "body": ""})
    longest = MESSAGE_LIMIT - len(small)
    (page,) = made({"id": 1, "team_id": 1, "body": "x" * longest})
    assert len(page) == MESSAGE_LIMIT
    assert len(json.loads(page)["Data"]["Rows"][0]["Body"]) == longest
    first, second, third = made(
        {"id": 1, "team_id": 1, "body": "x" * longest},
        {"id": 2, "team_id": 1, "body": "x" * longest},
        {"id": 3, "team_id": 1, "body": "x" * (longest + 1)},
    )
    assert [len(first), len(second)] == [MESSAGE_LIMIT, MESSAGE_LIMIT]
    assert json.loads(third)["Data"]["Rows"] == [{"NoteId": 3, "CompanyId": 1}]
    assert ["Partial" in json.loads(each) for each in (first, second, third)] == [
        False,
        False,
        True,
    ]


def test_rows_with_keys_only_are_in_marked_messages_of_their_own() -> None:
    large, small = {"team_id": 1, "body": "x" * MESSAGE_LIMIT}, {"team_id": 1, "body": "x"}
    sizes = [small, large, large, small, large, small]
    found = [json.loads(page) for page in made(*({"id": n, **row} for n, row in enumerate(sizes)))]
    seen = [
        (each.get("Partial"), [row["NoteId"] for row in each["Data"]["Rows"]]) for each in found
    ]
    assert seen == [(None, [0]), (True, [1, 2]), (None, [3]), (True, [4]), (None, [5])]
    assert all(
        ("Body" in row) is ("Partial" not in each) for each in found for row in each["Data"]["Rows"]
    )


def test_a_row_that_no_json_reader_takes_is_marked_too() -> None:
    image = b'{"id":1,"team_id":1,"body":"\\ud800"}'
    (page,) = pages("1", NOTES, [image], "u")
    assert json.loads(page)["Data"]["Rows"] == [{"NoteId": 1, "CompanyId": 1}]
    assert json.loads(page)["Partial"] is True


def test_messages_are_filled_to_the_last_byte() -> None:
    (small,) = made({"id": 1, "team_id": 1, "body": ""})
    rest = MESSAGE_LIMIT - len(small) - len(b',{"NoteId":2,"CompanyId":1}')
    for extra, count in ((0, 1), (1, 2)):
        found = made({"id": 1, "team_id": 1, "body": "x" * (rest + extra)}, {"id": 2, "team_id": 1})
        assert len(found) == count
        assert all(len(page) <= MESSAGE_LIMIT for page in found)


def test_a_row_that_no_decoder_reads_has_its_keys_only_for_the_users_who_see_it() -> None:
    """As a message about it has, with `Partial`."""
    notes = Source(Watch(table="n", entity="Note", company="team_id", visible_to=("owner",)))
    image = b'{"id":%d,"team_id":1,"owner":%b,"body":' + b"[" * 5000 + b"]" * 5000 + b"}"
    images = [image % (1, b'"u"'), image % (2, b"null"), image % (3, b'"other"')]
    (page,) = pages("1", notes, images, "u")
    rows = json.loads(page)["Data"]["Rows"]
    assert rows == [{"NoteId": 1, "CompanyId": 1}, {"NoteId": 2, "CompanyId": 1}]
    known = {"Note": frozenset({"NoteId", "Body"})}
    for where, found in (({"Body": ["x"]}, images), ({"NoteId": [2]}, images[1:2])):
        assert passing("1", notes, images, Filter.parse(None, {"Note": where}, known)) == found


def test_a_user_without_an_account_is_not_the_user_whom_an_empty_text_names() -> None:
    notes = Source(Watch(table="n", entity="Note", company="team_id", visible_to=("readers",)))
    images = [b'{"id":1,"team_id":1,"readers":["u",""]}', b'{"id":2,"team_id":1,"readers":[]}']
    seen = {user: [*pages("1", notes, images, user)] for user in ("u", "")}
    rows = {
        user: [row["NoteId"] for row in json.loads(page)["Data"]["Rows"]]
        for user, (page,) in seen.items()
    }
    assert rows == {"u": [1, 2], "": [2]}
