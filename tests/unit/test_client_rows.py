"""The rows that a client keeps: names, keys, filters, and snapshots."""

from __future__ import annotations

import json
from typing import Any

import pytest

from notifier.client import Message, Names, Position, UnknownNames
from notifier.client.feed import Filter
from notifier.client.rows import Store
from notifier.client.snapshots import restored


def message(kind: str, data: dict[str, Any], *, partial: bool = False) -> Message:
    return Message(
        type=kind,
        company="c",
        data=data,
        old=None,
        position=1,
        epoch="e",
        at="",
        actor=None,
        partial=partial,
        text="",
    )


def test_changes_add_replace_and_remove_rows() -> None:
    store = Store()
    rows = store.rows("Event")
    store.apply(message("EventCreated", {"EventId": 7, "Title": "a"}))
    store.apply(message("EventUpdated", {"EventId": 7, "Title": "b"}))
    store.apply(message("EmployeeAdded", {"EmployeeId": "x"}))
    assert (rows.get(7), rows.get("7"), len(rows)) == ({"EventId": 7, "Title": "b"},) * 2 + (1,)
    assert 7 in rows
    assert list(store.rows("Employee")) == [{"EmployeeId": "x"}]
    store.apply(message("EventDeleted", {"EventId": 7}))
    store.apply(message("EmployeeRemoved", {"EmployeeId": "x"}))
    assert not rows.all()
    assert not store.rows("Employee").all()


@pytest.mark.parametrize("key", ["eventId", "event_id", "EventId"])
def test_the_key_is_found_however_case_spells_it(key: str) -> None:
    store = Store()
    store.apply(message("EventCreated", {key: [2, "a@b"], "x": 1}))
    assert store.rows("Event").get([2, "a@b"]) == {key: [2, "a@b"], "x": 1}


def test_names_of_their_own_are_given_and_otherwise_an_error() -> None:
    member = Names(created="Joined", deleted="Left", key="login")
    store = Store({"Member": member, "Guest": member._replace(key="badge")})
    store.apply(message("Joined", {"login": "ada"}))
    store.apply(message("Joined", {"badge": 3}))
    assert store.rows("Member").all() == [{"login": "ada"}]
    assert store.rows("Guest").all() == [{"badge": 3}]
    store.apply(message("Left", {"login": "ada"}))
    assert not store.rows("Member").all()
    for unknown in (message("Moved", {"login": "ada"}), message("EventCreated", {"id": 1})):
        with pytest.raises(UnknownNames):
            store.apply(unknown)


def test_a_row_that_leaves_the_filter_is_removed_and_keys_only_do_not_show_it() -> None:
    store = Store()
    store.restore({"Event": [{"EventId": 1, "N": 1}]}, {"Event": {"N": [1, None]}})
    rows = store.rows("Event")
    store.apply(message("EventUpdated", {"EventId": 1}, partial=True))
    assert rows.all() == [{"EventId": 1}]
    store.apply(message("EventUpdated", {"EventId": 1, "N": 1.0}))
    assert 1 in rows
    store.apply(message("EventUpdated", {"EventId": 1, "N": True}))
    assert 1 not in rows


def test_a_snapshot_of_another_company_or_filter_is_ignored_and_anything_else_is_refused() -> None:
    chosen = Filter.of(["Event"], None)
    snapshot = {
        "companyId": "c",
        "filter": {"entities": ["Event"]},
        "position": Position(4, "e", "then")._asdict(),
        "rows": {"Event": [{"EventId": 1}]},
    }
    snapshot = json.loads(json.dumps(snapshot))
    store, position = restored("c", chosen, snapshot, None)
    assert (position, store.rows("Event").all()) == (Position(4, "e", "then"), [{"EventId": 1}])
    for company, other in (("d", chosen), ("c", Filter())):
        store, position = restored(company, other, snapshot, None)
        assert (position, store.rows("Event").all()) == (None, [])
    with pytest.raises(ValueError, match="snapshot"):
        restored("c", chosen, {"companyId": "c"}, None)
