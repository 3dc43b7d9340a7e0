"""`deleted_if`: a row whose mark is set counts as deleted."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from notifier.relay.changes import Change, Source
from notifier.relay.netting import net
from tests.unit.captured import EMPLOYEE, EVENT, Json, change, drafts_of, row, text_of

NOW = "2026-11-29T12:00:00+00:00"
MARKED = replace(EVENT, deleted_if="gone")


def messages(*changes: Change) -> list[Json]:
    drafts, unattributed = net(changes, {"Event": Source(MARKED)}, 1000)
    assert unattributed == 0
    return [text_of(draft) for draft in drafts]


def seen(*changes: Change) -> list[tuple[str, Json]]:
    return [(message["Type"], message["Data"]) for message in messages(*changes)]


@pytest.mark.parametrize(
    ("unset", "mark"), [(None, NOW), (None, True), (False, True), (None, 0), (None, "")]
)
def test_a_mark_that_is_set_is_a_deletion_and_one_that_is_taken_away_a_creation(
    unset: Any, mark: Any
) -> None:
    present, deleted = row(title="a", gone=unset), row(title="a", gone=mark)
    data = {"EventId": 1, "CompanyId": "c", "Title": "a", "Gone": unset}
    assert seen(change(1, present, deleted)) == [("EventDeleted", data)]
    assert seen(change(1, deleted, present)) == [("EventCreated", data)]


def test_of_rows_that_stay_deleted_nothing_is_sent() -> None:
    first, second = row(title="a", gone=True), row(title="b", gone=True)
    assert seen(change(1, None, first)) == []
    assert seen(change(1, first, second)) == []
    assert seen(change(1, first, None)) == []
    assert seen(change(1, first, row(company="d", gone=True))) == []
    assert seen(change(1, first, row(key=2, gone=True))) == []


def test_a_row_that_is_deleted_and_restored_in_one_transaction_is_an_update() -> None:
    present, deleted, restored = row(title="a", gone=None), row(gone=NOW), row(title="b", gone=None)
    (message,) = messages(change(1, present, deleted), change(2, deleted, restored))
    assert message["Type"] == "EventUpdated"
    assert message["Old"] == {"Title": "a"}


def test_a_row_that_is_created_and_deleted_in_one_transaction_is_nothing() -> None:
    present, deleted = row(gone=None), row(gone=NOW)
    assert seen(change(1, None, present), change(2, present, deleted)) == []


def test_an_image_that_is_not_json_is_deleted_by_the_mark_in_it() -> None:
    image = b'{"id":1,"company_id":"c","gone":%s,"x":"\xff"}'
    (deletion,) = seen(change(1, image % b"null", image % b"true"))
    assert deletion == ("EventDeleted", {"EventId": 1, "CompanyId": "c"})
    assert seen(change(1, None, image % b"true")) == []


def test_a_member_row_that_is_marked_removes_its_user() -> None:
    member = replace(EMPLOYEE, deleted_if="gone")
    present, deleted = row(user_id="u", gone=None), row(user_id="u", gone=NOW)
    sources = {"Employee": Source(member)}
    (draft,) = drafts_of(change(1, present, deleted, entity="Employee"), sources=sources)
    assert text_of(draft)["Type"] == "EmployeeRemoved"
    assert draft.revokes == ("u",)


def test_the_mark_cannot_be_excluded() -> None:
    with pytest.raises(ValueError, match="exclude names gone, which is needed"):
        replace(EVENT, deleted_if='"gone"', exclude=("gone",))
