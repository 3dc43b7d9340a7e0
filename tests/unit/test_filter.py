"""Filters of subscriptions: what is refused, what passes, and the index over many of them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from notifier.delivery.filter import Change, Filter, FilterIndex
from notifier.errors import BadFilter

PROPERTIES = {
    "Event": frozenset({"EventId", "CompanyId", *(f"P{n}" for n in range(11))}),
    "Employee": frozenset({"EmployeeId", "Name"}),
}
ENTITIES = {"EventCreated": "Event", "EventUpdated": "Event", "EmployeeAdded": "Employee"}


def parse(entities: Any = None, where: Any = None) -> Filter:
    return Filter.parse(entities, where, PROPERTIES)


def change(kind: str, data: dict[str, Any], old: dict[str, Any] | None = None) -> Change:
    message = {"Type": kind, "Data": data, **({} if old is None else {"Old": old}), "Position": 1}
    return Change(json.dumps(message).encode(), ENTITIES)


def index_of(*filters: Filter) -> FilterIndex:
    index = FilterIndex()
    for each in filters:
        index.add(each)
    return index


@pytest.mark.parametrize(
    ("entities", "where"),
    [
        ([], None),
        (["Nothing"], None),
        ([["Event"]], None),
        ([7], None),
        (None, {"Nothing": {"P1": [1]}}),
        (None, {"Event": {"Secret": [1]}}),
        (["Employee"], {"Event": {"P1": [1]}}),
        ("Event", None),
        ({"Event": 1}, None),
        (None, ["Event"]),
        (None, "Event"),
        (None, {"Event": [1]}),
        (None, {"Event": {"P1": []}}),
        (None, {"Event": {"P1": 1}}),
        (None, {"Event": {"P1": "text"}}),
        (None, {"Event": {"P1": [[1]]}}),
        (None, {"Event": {"P1": [{}]}}),
        (None, {"Event": {f"P{n}": [1] for n in range(11)}}),
        (None, {"Event": {f"P{n}": [1] for n in range(10)}, "Employee": {"Name": [1]}}),
        (None, {"Event": {"P1": [*range(101)]}}),
    ],
)
def test_a_bad_filter_is_refused(entities: Any, where: Any) -> None:
    with pytest.raises(BadFilter):
        parse(entities, where)


def test_the_answer_repeats_little_of_an_unknown_name() -> None:
    with pytest.raises(BadFilter, match=r"^unknown entity: x{100}$"):
        parse(["x" * 60_000])


def test_ten_properties_and_a_hundred_values_are_accepted() -> None:
    parse(None, {"Event": {f"P{n}": [*range(100)] for n in range(10)}})


def test_a_where_without_conditions_is_no_filter() -> None:
    assert parse(None, {"Event": {}}).passes_all
    assert parse(None, {}).passes_all
    assert not parse(["Event"], {"Event": {}}).passes_all


def test_equal_filters_are_one_value_however_they_are_spelled() -> None:
    first = parse(["Event", "Employee"], {"Event": {"P1": [1, 2], "P2": ["x"]}})
    second = parse(["Employee", "Event", "Event"], {"Event": {"P2": ["x"], "P1": [2, 1.0, 1]}})
    assert (first.entities, first.where) == (second.entities, second.where)


@pytest.mark.parametrize(
    ("wanted", "value", "passes"),
    [
        (7, 7, True),
        (7, 7.0, True),
        (7, "7", False),
        ("7", 7, False),
        (1, True, False),
        (True, 1, False),
        (True, True, True),
        (False, 0, False),
        (None, None, True),
        (None, "", False),
        ("a", ["a"], False),
        ("a", {"a": 1}, False),
    ],
)
def test_values_are_compared_as_json(wanted: Any, value: Any, passes: bool) -> None:
    chosen = parse(None, {"Event": {"P1": [wanted]}})
    seen = change("EventCreated", {"P1": value})
    assert chosen.passes(seen) is passes
    assert [*index_of(chosen).passing(seen)] == [chosen] * passes


def test_a_row_that_leaves_or_enters_the_filter_passes() -> None:
    chosen = parse(None, {"Event": {"P1": [1]}})
    assert chosen.passes(change("EventUpdated", {"P1": 2}, {"P1": 1}))
    assert chosen.passes(change("EventUpdated", {"P1": 1}, {"P1": 2}))
    assert not chosen.passes(change("EventUpdated", {"P1": 2}, {"P1": 3}))


def test_before_and_after_are_not_mixed() -> None:
    chosen = parse(None, {"Event": {"P1": [1], "P2": [1]}})
    assert not chosen.passes(change("EventUpdated", {"P1": 1, "P2": 2}, {"P1": 2, "P2": 1}))
    # The property that did not change had the same value before.
    assert not chosen.passes(change("EventUpdated", {"P1": 2, "P2": 2}, {"P2": 1}))
    assert chosen.passes(change("EventUpdated", {"P1": 1, "P2": 2}, {"P2": 1}))


def test_keys_alone_pass_unless_they_decide() -> None:
    partial = change("EventUpdated", {"EventId": 1, "CompanyId": "c"})
    assert parse(None, {"Event": {"P1": [1]}}).passes(partial)
    assert parse(None, {"Event": {"EventId": [1], "P1": [1]}}).passes(partial)
    assert not parse(None, {"Event": {"EventId": [2], "P1": [1]}}).passes(partial)


def test_a_resync_passes_every_filter() -> None:
    chosen = parse(["Employee"])
    resync = change("Resync", {"CompanyId": "c", "Reason": "bulk", "Epoch": "e"})
    assert chosen.passes(resync)
    assert [*index_of(chosen).passing(resync)] == [chosen]


def test_an_entity_without_conditions_passes_whole() -> None:
    chosen = parse(["Event", "Employee"], {"Event": {"P1": [1]}})
    assert chosen.passes(change("EmployeeAdded", {"Name": "x"}))
    assert not parse(["Event"]).passes(change("EmployeeAdded", {"Name": "x"}))


@pytest.mark.parametrize("broken", ['"\\ud800"', "[" * 5000, "1e999", "1" * 5000])
def test_a_value_that_cannot_be_decoded_harms_no_subscriber(broken: str) -> None:
    body = f'{{"Type":"EventCreated","Data":{{"P1":{broken},"P2":"x"}},"Position":1}}'
    seen = Change(body.encode(), ENTITIES)
    one, two = parse(None, {"Event": {"P1": ["y"]}}), parse(None, {"Event": {"P2": ["x"]}})
    assert two in index_of(one, two).passing(seen)
    assert one.passes(seen) is (one in index_of(one, two).passing(seen))


scalars = st.sampled_from([None, True, False, 0, 1, 1.0, 1.5, "1", "", "a"])
values = scalars | st.just([1]) | st.just({"a": 1})
names = st.sampled_from(["EventId", "P1", "P2"])
filters = st.builds(
    parse,
    st.none() | st.just(["Event"]) | st.just(["Event", "Employee"]),
    st.none()
    | st.fixed_dictionaries(
        {"Event": st.dictionaries(names, st.lists(scalars, min_size=1, max_size=3), min_size=1)}
    ),
)


@given(
    st.lists(filters, max_size=8),
    st.sampled_from([*ENTITIES, "Resync"]),
    st.dictionaries(names, values),
    st.none() | st.dictionaries(names, values),
)
def test_the_index_finds_exactly_the_filters_that_pass(
    chosen: list[Filter], kind: str, data: dict[str, Any], old: dict[str, Any] | None
) -> None:
    seen = change(kind, data, old)
    assert {*index_of(*chosen).passing(seen)} == {each for each in chosen if each.passes(seen)}


@given(st.lists(filters, min_size=1, max_size=8), st.data())
def test_filters_that_were_removed_are_not_found(chosen: list[Filter], data: st.DataObject) -> None:
    seen = change("EventUpdated", {"P1": 1, "P2": "a"}, {"P1": None})
    index = FilterIndex()
    left: list[Filter] = []
    for each in chosen:
        index.add(each)
        left.append(each)
        index.passing(seen)
        if data.draw(st.booleans()):
            gone = data.draw(st.sampled_from(left))
            index.remove(gone)
            left.remove(gone)
        assert {*index.passing(seen)} == {each for each in left if each.passes(seen)}
