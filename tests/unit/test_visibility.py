"""Who sees a row, and what its changes are for each user."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any, TypeAlias

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from notifier.messages import decode_views, encode_views
from notifier.relay.changes import Source
from notifier.relay.images import Row
from notifier.relay.netting import AnyDraft, net
from notifier.relay.rendering import Draft
from notifier.relay.visibility import HIDDEN, users_of
from notifier.watches import Watch
from tests.unit.captured import change, drafts_of

COLUMNS = ("owner", "guests")
WATCH = Watch(table="events", entity="Event", visible_to=COLUMNS)
SOURCE = Source(WATCH)

Json: TypeAlias = dict[str, Any]


def image(**columns: Any) -> Row:
    return {name: msgspec.Raw(json.dumps(value).encode()) for name, value in columns.items()}


@pytest.mark.parametrize(
    ("owner", "guests", "users"),
    [
        (None, None, None),
        ("", [], None),
        (None, [None, None], None),
        ({}, None, None),
        ("u1", None, {"u1"}),
        ("u1", ["u2", None, "u3"], {"u1", "u2", "u3"}),
        (7, [8, 9], {"7", "8", "9"}),
        (None, [["u1", None], ["u2"]], {"u1", "u2"}),
        ("ü", [], {"ü"}),
        ({"a": 1}, None, set()),
        (None, [{"id": 1}], set()),
        ("u1", [""], {"u1", ""}),
    ],
)
def test_the_columns_name_the_users(owner: Any, guests: Any, users: set[str] | None) -> None:
    assert users_of(image(owner=owner, guests=guests), SOURCE) == users


def test_a_missing_or_virtual_column_hides_the_row() -> None:
    assert users_of(image(owner=None), SOURCE) == HIDDEN
    assert users_of(image(owner="u1"), SOURCE) == HIDDEN
    assert users_of({}, SOURCE) == HIDDEN
    virtual = Source(WATCH, virtual_columns=frozenset({"guests"}))
    assert users_of(image(owner="u1", guests=None), virtual) == HIDDEN


@pytest.mark.parametrize("value", ["[" * 2000 + "1" + "]" * 2000, '["\\ud800"]', '"\\ud800"'])
def test_a_value_that_cannot_be_read_hides_the_row_from_others(value: str) -> None:
    row = image(owner="u1", guests=None) | {"guests": msgspec.Raw(value.encode())}
    assert users_of(row, SOURCE) == frozenset({"u1"})
    assert users_of(image(owner=None) | {"guests": row["guests"]}, SOURCE) == HIDDEN


def received(draft: AnyDraft, user: str) -> Json | None:
    """What a user gets of a draft; None: a Skipped, or nothing."""
    assert isinstance(draft, Draft)
    bodies = [view.body for view in draft.views_at(7) if view.is_for(user)]
    assert len(bodies) <= 1
    if not draft.views:
        bodies = [draft.body(7)]
    elif not bodies:
        skipped = json.loads(draft.body(7))
        assert skipped.pop("At").startswith("2026-11-22T12:00:0")
        assert skipped == {"Type": "Skipped", "Data": {"CompanyId": draft.company}, "Position": 7}
        return None
    message: Json = json.loads(bodies[0])
    assert message["Position"] == 7
    assert message["Tx"] == "1"
    return message


Values: TypeAlias = dict[str, Any]

some_users = st.sampled_from(["u1", "u2", "u3"])
values = st.fixed_dictionaries(
    {
        "id": st.just(1),
        "company_id": st.sampled_from(["a", "b"]),
        "title": st.sampled_from(["secret 1", "secret 2", "secret 3", "secret 4"]),
        "owner": st.none() | st.just("") | some_users,
        "guests": st.none() | st.lists(st.none() | some_users, max_size=2),
    }
)
histories = st.lists(st.none() | values, min_size=2, max_size=5)


def sees(user: str, row: Values | None, company: str) -> bool:
    """By the contract, written once more."""
    if row is None or row["company_id"] != company:
        return False
    named = {row["owner"], *(row["guests"] or ())} - {None, ""}
    return not named or user in named


@given(histories, st.sampled_from(["a", "b"]), st.sampled_from(["u1", "u2", "u9"]))
def test_each_user_gets_what_the_transaction_is_for_that_user(
    rows: list[Values | None], company: str, user: str
) -> None:
    """One transaction takes the row through all its states; the user may only learn of the two ends."""
    writes = [
        change(number, old, new)
        for number, (old, new) in enumerate(pairwise(rows), 1)
        if old != new
    ]
    drafts, _ = net(writes, {"Event": SOURCE}, 1000)
    got = [received(draft, user) for draft in drafts if draft.company == company]
    messages = [message for message in got if message is not None]
    before, after = rows[0], rows[-1]
    saw, will_see = sees(user, before, company), sees(user, after, company)
    if not saw and not will_see:
        assert messages == []
        return
    if saw and will_see and before == after:
        assert messages == []
        return
    (message,) = messages
    assert message["Type"] == (
        "EventUpdated" if saw and will_see else "EventCreated" if will_see else "EventDeleted"
    )
    shown = after if will_see else before
    assert shown is not None
    assert message["Data"]["Title"] == shown["title"]
    if saw and will_see:
        assert before is not None
        assert message["Old"].items() <= {
            "Title": before["title"], "Owner": before["owner"], "Guests": before["guests"]
        }.items()  # fmt: skip
    else:
        assert "Old" not in message


def draft_of(old: Values | None, new: Values | None, watch: Watch = WATCH, **given: Any) -> Draft:
    (draft,) = drafts_of(change(1, old, new, **given), sources={"Event": Source(watch)})
    assert isinstance(draft, Draft)
    return draft


ROW = {"id": 1, "company_id": "a", "title": "x", "owner": None, "guests": None}
MINE = ROW | {"owner": "u1"}


def test_a_message_for_everybody_has_no_views() -> None:
    for old, new in ((None, ROW), (ROW, ROW | {"title": "y"}), (ROW, None)):
        assert draft_of(old, new).views == ()
    hidden = {name: value for name, value in ROW.items() if name != "guests"}
    assert b"EventCreated" in draft_of(hidden, ROW).body(1)


def test_a_row_that_no_user_sees_leaves_a_skipped_position() -> None:
    hidden = {name: value for name, value in ROW.items() if name != "guests"}
    draft = draft_of(hidden, hidden | {"title": "y"})
    assert received(draft, "u1") is None
    assert received(draft, "*") is None
    assert json.loads(draft.body(7))["Type"] == "Skipped"


def test_a_user_without_an_account_is_not_the_user_whom_an_empty_text_names() -> None:
    """Where tokens name companies, USER_QUERY need not find their user, which is '' then."""
    row = ROW | {"guests": ["u1", ""]}
    assert received(draft_of(None, row), "") is None
    assert (received(draft_of(None, row), "u1") or {})["Type"] == "EventCreated"
    assert (received(draft_of(ROW, row), "") or {})["Type"] == "EventDeleted"
    assert (received(draft_of(row, ROW), "") or {})["Type"] == "EventCreated"
    assert received(draft_of(None, ROW | {"guests": [""]}), "") is None


def test_a_message_name_that_is_not_wanted_is_not_replaced_by_another() -> None:
    watch = Watch(table="events", entity="Event", visible_to=COLUMNS, created="")
    assert net([change(1, MINE, ROW)], {"Event": Source(watch)}, 9)[0] != []
    draft = draft_of(MINE, ROW, watch)
    assert received(draft, "u2") is None
    assert (received(draft, "u1") or {})["Type"] == "EventUpdated"


@pytest.mark.parametrize("partial", [False, True])
def test_a_message_with_keys_only_goes_to_the_same_users(partial: bool) -> None:
    big = {} if partial else {"note": "x" * 300_000}
    keys = MINE | big
    draft = draft_of(keys, ROW | {"owner": "u2"} | big, partial=partial)
    lost, gained = received(draft, "u1"), received(draft, "u2")
    assert lost is not None
    assert gained is not None
    assert received(draft, "u3") is None
    for message, kind in ((lost, "EventDeleted"), (gained, "EventCreated")):
        assert message["Type"] == kind
        assert message["Data"] == {"EventId": 1, "CompanyId": "a"}
        assert message["Partial"] is True


def test_views_are_stored_and_loaded() -> None:
    named = draft_of(MINE | {"guests": ["ü\0\"'"]}, ROW | {"owner": "*"}).views_at(3)
    others = draft_of(ROW, MINE).views_at(3)
    for views in (named, others):
        assert len(views) == 2
        assert decode_views(encode_views(views)) == views
    assert any(view.others for view in others)
    assert decode_views(None) == ()
