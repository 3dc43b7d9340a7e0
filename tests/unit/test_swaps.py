"""Keys that another transaction takes before the one that gave them away has ended, in transactions without end."""

from __future__ import annotations

import pytest

from notifier.relay import swaps
from notifier.relay.changes import REVOKE_ALL
from notifier.relay.rendering import ResyncDraft
from notifier.relay.swaps import Name, Swaps
from tests.unit.captured import NOON


def row(key: int, company: str = "c") -> Name:
    return company, "Event", str(key).encode()


def transaction(found: Swaps, *rows: tuple[Name, int, int], grants: bool = False) -> list[str]:
    """The companies that are found in a transaction with these rows, of each the first and the last change."""
    for name, first, last in rows:
        found.add(name, first, last, NOON, grants=grants)
    found.end()
    return [draft.company for draft in found.resyncs()]


def test_a_row_that_a_transaction_of_an_earlier_page_has_changed_later_is_found_once() -> None:
    found = Swaps()
    assert transaction(found, (row(1), 11, 11), (row(1, "d"), 12, 12)) == []
    assert transaction(found, (row(2), 9, 9), (row(1), 10, 10)) == ["c"]
    assert transaction(found, (row(1), 13, 14), (row(1, "d"), 15, 15)) == []


def test_a_row_that_may_give_access_makes_the_resync_revoke() -> None:
    found = Swaps()
    transaction(found, (row(1), 11, 11), (row(2), 12, 12))
    found.add(row(1), 9, 9, NOON, grants=True)
    found.add(row(2), 10, 10, NOON, grants=False)
    assert found.resyncs() == [ResyncDraft("c", "overflow", NOON, REVOKE_ALL)]


def test_of_rows_that_are_not_remembered_each_may_have_a_later_change(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Their number has a limit. Those of the same transaction, which come by company, are not compared with each other."""
    monkeypatch.setattr(swaps, "LIMIT", 10)
    found = Swaps()
    for number in range(100, 200):
        assert transaction(found, (row(number), number, number)) == []
        assert len(found._latest) <= 10
    assert transaction(found, (row(1), 199, 250), (row(2, "d"), 80, 251)) == ["d"]
    many = [(row(number), 400 - number, 500) for number in range(100)]
    assert transaction(found, *many) == []
    assert len(found._latest) <= 10
    assert transaction(found, (row(1), 499, 501)) == ["c"]
    assert transaction(found, (row(1), 502, 502)) == []


def test_rows_that_are_not_known_may_have_a_later_change() -> None:
    found = Swaps(upto=10)
    assert transaction(found, (row(1), 9, 11), (row(1, "d"), 12, 12)) == ["c"]
    found.hide("c", 20)
    found.end()
    assert transaction(found, (row(2, "d"), 19, 21), (row(2), 19, 22)) == ["c"]
    found.hide_all(30)
    assert transaction(found, (row(3, "d"), 29, 29)) == []
    assert transaction(found, (row(4, "d"), 29, 31)) == ["d"]
