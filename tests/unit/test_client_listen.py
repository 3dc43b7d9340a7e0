"""The conditions of `notifier listen --where`."""

from __future__ import annotations

import pytest

from notifier.client.listen import parse_where
from notifier.errors import SettingsError


def test_conditions_of_one_property_are_alternatives_and_values_are_json_or_text() -> None:
    conditions = ["Event.OrganizerId=u1", "Event.OrganizerId=null", "Event.AllDay=true"]
    text = ["Event.Title=a=b.c", 'Event.Title="7"', "Event.Title=", "Employee.Floor=7"]
    assert parse_where([*conditions, *text]) == {
        "Event": {"OrganizerId": ["u1", None], "AllDay": [True], "Title": ["a=b.c", "7", ""]},
        "Employee": {"Floor": [7]},
    }
    assert parse_where([]) is None


@pytest.mark.parametrize("wrong", ["Event", "Event.Title", "Event=1", ".Title=1", "Event.=1"])
def test_a_condition_of_another_form_is_named(wrong: str) -> None:
    with pytest.raises(SettingsError, match=f"--where {wrong}: write Entity.Property=value"):
        parse_where([wrong])


@pytest.mark.parametrize("value", ["[1]", "{}", "[" * 5000])
def test_a_value_is_no_list_and_no_object(value: str) -> None:
    with pytest.raises(SettingsError, match="a value is text, a number, true, false or null"):
        parse_where([f"Event.Title={value}"])


@pytest.mark.parametrize("wrong", ["Event.Title=\udcff", "Event.\udcff=1"])
def test_a_condition_that_is_not_unicode_is_named(wrong: str) -> None:
    with pytest.raises(SettingsError, match=r"--where 'Event\..*\\udcff.*' is not UTF-8"):
        parse_where([wrong])
