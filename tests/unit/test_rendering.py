"""Rendering: properties, metadata, numbers, and messages over the limit."""

from __future__ import annotations

import json
from datetime import timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from notifier.relay import rendering
from notifier.relay.rendering import MESSAGE_LIMIT, Draft
from tests.unit.captured import (
    EVENT,
    JSON_VALUES,
    NOON,
    change,
    drafts_of,
    inserted,
    messages_of,
    row,
    text_of,
)

# --- properties and metadata


@pytest.mark.parametrize(
    ("column", "name"),
    [
        ("id", "EventId"),
        ("company_id", "CompanyId"),
        ("starts_at", "StartsAt"),
        ("title", "Title"),
        ("a_b_c", "ABC"),
        ("line_2_text", "Line2Text"),
        ("camelCase", "CamelCase"),
        ("_hidden", "Hidden"),
        ("öl_stand", "ÖlStand"),
        ("straße", "Straße"),
        ("with space", "With space"),
    ],
)
def test_a_column_is_named_in_pascal_case(column: str, name: str) -> None:
    assert EVENT.property(column) == name


def test_the_key_of_a_company_row_is_its_company() -> None:
    (message,) = messages_of(change(1, {"id": "c", "n": 1}, {"id": "c", "n": 2}, entity="Company"))
    assert message["Data"] == {"CompanyId": "c", "N": 2}


@pytest.mark.parametrize("column", ["100%", "%b", "50%% %s", 'quo"te', "back\\slash"])
def test_a_column_may_have_any_character_in_its_name(column: str) -> None:
    data = inserted(**{column: 7, "title": "%b %s"})
    assert data == {"EventId": 1, "CompanyId": "c", EVENT.property(column): 7, "Title": "%b %s"}


def test_where_two_columns_share_a_name_the_key_wins() -> None:
    data = inserted(event_id=99, CompanyId="other")
    assert data == {"EventId": 1, "CompanyId": "c"}


@pytest.mark.parametrize("written", [{}, {"Actor": 'Zoë "x"'}])
def test_metadata_is_beside_the_data(written: dict[str, str]) -> None:
    actor = written.get("Actor")
    (message,) = messages_of(change(1, None, row(title="Tea"), xid=2**63 - 1, actor=actor))
    assert message == {
        "Type": "EventCreated",
        "Data": {"EventId": 1, "CompanyId": "c", "Title": "Tea"},
        "At": "2026-11-22T12:00:01.000000+00:00",
        "Tx": "9223372036854775807",
        **written,
    }


def test_timestamps_are_in_utc() -> None:
    moved = change(1, None, row())._replace(at=NOON.astimezone(timezone(timedelta(hours=5.75))))
    (message,) = messages_of(moved)
    assert message["At"] == "2026-11-22T12:00:00.000000+00:00"


# --- values


@pytest.mark.parametrize(
    ("number", "value"),
    [
        ("9007199254740992", 9007199254740992),
        ("-9007199254740992", -9007199254740992),
        ("9007199254740993", "9007199254740993"),
        ("-9007199254740993", "-9007199254740993"),
        ("1" + "0" * 400, "1" + "0" * 400),
        ("0.1000000000000000055511151231257827", 0.1),
        ("1e+300", "1e+300"),
        ("1e-300", 1e-300),
        ("1e9999999", "1e9999999"),
        ("1e-9999999", 0),
        ("1e" + "9" * 30, "1e" + "9" * 30),
        ("0", 0),
        ("-0.5", -0.5),
    ],
)
def test_a_number_beyond_2_to_53_is_a_string(number: str, value: object) -> None:
    image = b'{"id":1,"company_id":"c","n":%s,"many":[%s,{"x":%s}]}' % ((number.encode(),) * 3)
    (message,) = messages_of(change(1, None, image))
    assert message["Data"]["N"] == value
    assert message["Data"]["Many"] == [value, {"x": value}]


def test_elements_that_cannot_be_beyond_it_are_not_looked_at(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A million of them would take a second."""
    monkeypatch.setattr(rendering, "Decimal", None)
    array = [1, -2, 0.5, 123456789012345, "1", None, [True, {"x": 3}]]
    assert inserted(n=array)["N"] == array
    monkeypatch.setattr(rendering, "_nested", None)
    assert inserted(n=array)["N"] == array
    array = [1, 12345678901234567]
    monkeypatch.undo()
    assert inserted(n=array)["N"] == [1, "12345678901234567"]


@given(st.integers() | st.integers(2**53 - 3, 2**53 + 3) | st.integers(-(2**53) - 3, 3 - 2**53))
def test_every_integer_arrives_exactly(number: int) -> None:
    value = inserted(n=number)["N"]
    assert isinstance(value, str) == (abs(number) > 2**53)
    assert int(value) == number


# Without capital letters most texts pass: Hypothesis fails a test where too many examples do not.
COLUMNS = st.text(st.characters(exclude_categories=["Cs", "Lu", "Lt"]), min_size=1).filter(
    str.islower
)


@given(st.dictionaries(COLUMNS, JSON_VALUES, max_size=4), st.booleans())
def test_every_row_becomes_valid_json(values: dict[str, Any], ascii_only: bool) -> None:
    image = json.dumps({**values, **row()}, ensure_ascii=ascii_only).encode()
    for draft in drafts_of(change(1, None, image), change(2, image, None, xid=2)):
        assert text_of(draft)["Data"]["EventId"] == 1


@given(JSON_VALUES)
def test_values_of_json_columns_travel_untouched(value: Any) -> None:
    values = {**row(), "body": value}
    (draft,) = drafts_of(change(1, None, values, entity="Employee"))
    assert isinstance(draft, Draft)
    assert b'"Body":%s}' % json.dumps(value).encode() in draft.body(1)


# --- large


def test_a_message_over_the_limit_is_sent_with_keys_only() -> None:
    (message,) = messages_of(change(1, row(a="x"), row(a="x" * MESSAGE_LIMIT)))
    assert message["Type"] == "EventUpdated"
    assert message["Data"] == {"EventId": 1, "CompanyId": "c"}
    assert message["Partial"] is True
    assert "Old" not in message


@given(st.integers(MESSAGE_LIMIT - 400, MESSAGE_LIMIT + 100))
def test_no_message_is_over_the_limit(size: int) -> None:
    (draft,) = drafts_of(change(1, None, row(a="x" * size), actor="a"))
    assert isinstance(draft, Draft)
    whole = draft.body(2**63)
    assert len(whole) <= MESSAGE_LIMIT + 200
    if size < MESSAGE_LIMIT - 300:
        assert b"Partial" not in whole
    if b"Partial" not in whole:
        assert len(whole) <= MESSAGE_LIMIT


def test_a_partial_change_of_a_member_is_partial_and_rechecks_every_user() -> None:
    (draft,) = drafts_of(change(1, row(), row(), entity="Employee", partial=True))
    assert text_of(draft)["Partial"] is True
    assert draft.revokes == ("*",)
