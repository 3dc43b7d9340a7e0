"""A changed `[[watch]]`: every option that differs is reported, with its meaning for clients."""

from __future__ import annotations

import dataclasses
from dataclasses import replace
from typing import Any

import pytest

from notifier.database.configuration import Stored, compare
from notifier.watches import CALENDAR, Watch

EVENT = CALENDAR[0]

REPORTED: list[tuple[dict[str, Any], str]] = [
    ({"key": "title"}, "key id → title: every company gets a Resync"),
    ({"key": ("id", "title")}, "key id → id, title: every company gets a Resync"),
    (
        {"company": "organizer_id"},
        "company company_id → organizer_id: every company gets a Resync",
    ),
    ({"scope": "team"}, "scope none → team: every company gets a Resync"),
    ({"member": "title"}, "member none → title: every company gets a Resync"),
    (
        {"member": "title", "member_if": {"all_day": True, "location": "B"}},
        'member_if none → all_day = true, location = "B": every company gets a Resync',
    ),
    ({"created": ""}, "created EventCreated → none: every company gets a Resync"),
    ({"updated": "Moved"}, "updated EventUpdated → Moved: every company gets a Resync"),
    ({"deleted": "Gone"}, "deleted EventDeleted → Gone: every company gets a Resync"),
    (
        {"deleted_if": "location"},
        "deleted_if none → location: every company gets a Resync",
    ),
    (
        {"naive_timestamps": "UTC"},
        "naive_timestamps none → UTC: every company gets a Resync",
    ),
    ({"case": "camel"}, "case pascal → camel: every company gets a Resync"),
    (
        {"rename": {"location": "place"}},
        "rename location none → place: every company gets a Resync",
    ),
    (
        {"exclude": ("location",)},
        "exclude +location: new messages without it; the log is emptied, new epoch",
    ),
    (
        {"visible_to": ("location", "title")},
        "visible_to none → location, title: the log is emptied, new epoch",
    ),
    (
        {"state_where": "all_day"},
        "state_where none → all_day: states that are read from now on",
    ),
]


@pytest.mark.parametrize(("fields", "line"), REPORTED)
def test_each_field_that_differs_is_reported_with_its_meaning(
    fields: dict[str, Any], line: str
) -> None:
    former = {"Event": Stored(EVENT, "public.events")}
    wanted = {"Event": Stored(replace(EVENT, **fields), "public.events")}
    assert [str(change) for change in compare(former, wanted)][-1] == f"events: {line}"


def test_a_table_that_moves_or_comes_back_without_an_exclude_is_reported() -> None:
    former = {"Event": Stored(replace(EVENT, exclude=("location",)), "public.events")}
    wanted = {"Event": Stored(EVENT, "old.events")}
    assert [str(change) for change in compare(former, wanted)] == [
        "events: table public.events → old.events: every company gets a Resync",
        "events: exclude -location: new messages have it",
    ]


def test_every_option_is_reported() -> None:
    """`table` and `entity` name the watch: another table is reported by its full name, another entity as new."""
    options = {each.name for each in dataclasses.fields(Watch) if each.init}
    assert {name for fields, _ in REPORTED for name in fields} == options - {"table", "entity"}


def test_other_conditions_of_members_are_a_resync() -> None:
    former = replace(EVENT, member="title")
    wanted = replace(former, member_if={"all_day": True, "location": "B"})
    (change,) = compare({"Event": Stored(former, "t")}, {"Event": Stored(wanted, "t")})
    assert change.is_resync
    assert str(change).startswith("events: member_if none → all_day = true")
