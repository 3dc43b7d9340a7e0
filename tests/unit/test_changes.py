"""What a transaction did, in the end, to each company: netting, naming, numbers, poison."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta, timezone
from itertools import pairwise
from typing import Any, TypeAlias

import pytest
from hypothesis import given
from hypothesis import strategies as st

from notifier.relay.changes import (
    EVERY_COMPANY,
    MESSAGE_LIMIT,
    Change,
    Draft,
    Watched,
    company_named,
    fill,
    translate,
)

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)

EVENT = Watched("Event", "id", "company_id", None, "EventCreated", "EventUpdated", "EventDeleted")
EMPLOYEE = Watched(
    "Employee",
    "id",
    "company_id",
    "user_id",
    "EmployeeAdded",
    "EmployeeUpdated",
    "EmployeeRemoved",
    frozenset({"body"}),
)
COMPANY = Watched("Company", "id", "id", None, None, "CompanyUpdated", "CompanyDeleted")
WATCHED = {watch.entity: watch for watch in (EVENT, EMPLOYEE, COMPANY)}

Values: TypeAlias = dict[str, Any]
Said: TypeAlias = dict[str, Any]


def change(
    number: int,
    old: Values | bytes | None,
    new: Values | bytes | None,
    *,
    entity: str = "Event",
    xid: int = 1,
    partial: bool = False,
    actor: str | None = None,
) -> Change:
    """A change as capture stores it."""
    return Change(
        number,
        xid,
        entity,
        _image(old),
        _image(new),
        partial,
        actor,
        NOON + timedelta(seconds=number),
    )


def _image(row: Values | bytes | None) -> bytes | None:
    return json.dumps(row).encode() if isinstance(row, dict) else row


def row(company: str | None = "c", key: Any = 1, **values: Any) -> Values:
    return {"id": key, "company_id": company, **values}


def said(draft: Draft) -> Said:
    """The message that becomes of a draft, as number 7 of its company."""
    if draft.reason:
        draft = fill(draft, draft.company or "c", "e")
    message: Said = json.loads(b'%s,"Position":7%s' % (draft.head, draft.tail))
    assert message.pop("Position") == 7
    return message


def drafts_of(*changes: Change, bulk_limit: int = 1000) -> list[Draft]:
    drafts, broken = translate(changes, WATCHED, bulk_limit)
    assert broken == 0
    return drafts


def messages_of(*changes: Change, bulk_limit: int = 1000) -> list[Said]:
    return [said(draft) for draft in drafts_of(*changes, bulk_limit=bulk_limit)]


def data_of(**values: Any) -> Said:
    (message,) = messages_of(change(1, None, row(**values)))
    data: Said = message["Data"]
    return data


# --- naming


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


def test_the_key_of_a_company_is_its_company() -> None:
    (message,) = messages_of(change(1, {"id": "c", "n": 1}, {"id": "c", "n": 2}, entity="Company"))
    assert message["Data"] == {"CompanyId": "c", "N": 2}


def test_where_two_columns_share_a_name_the_key_wins() -> None:
    data = data_of(event_id=99, CompanyId="other")
    assert data == {"EventId": 1, "CompanyId": "c"}


def test_metadata_stands_beside_the_data() -> None:
    (message,) = messages_of(change(1, None, row(title="Tea"), actor='Zoë "x"'))
    assert message == {
        "Type": "EventCreated",
        "Data": {"EventId": 1, "CompanyId": "c", "Title": "Tea"},
        "At": "2026-11-22T12:00:01.000000+00:00",
        "Actor": 'Zoë "x"',
    }


def test_the_time_is_said_in_utc() -> None:
    moved = change(1, None, row())._replace(at=NOON.astimezone(timezone(timedelta(hours=5.75))))
    (message,) = messages_of(moved)
    assert message["At"] == "2026-11-22T12:00:00.000000+00:00"


# --- netting


def test_old_has_exactly_what_changed() -> None:
    (message,) = messages_of(change(1, row(a=1, b=2, c=None), row(a=1, b=3, c="x")))
    assert message["Old"] == {"B": 2, "C": None}


def test_nothing_changed_is_nothing() -> None:
    assert messages_of(change(1, row(a=1), row(a=1))) == []


def test_a_deletion_carries_the_row_as_it_was_before_the_transaction() -> None:
    (message,) = messages_of(
        change(1, row(a=1), row(a=2)), change(2, row(a=2), row(a=3)), change(3, row(a=3), None)
    )
    assert message["Type"] == "EventDeleted"
    assert message["Data"]["A"] == 1


def test_a_move_there_and_back_is_an_update_for_one_and_nothing_for_the_other() -> None:
    (message,) = drafts_of(
        change(1, row("a", v=1), row("b", v=2)), change(2, row("b", v=2), row("a", v=3))
    )
    assert message.company == "a"
    assert said(message)["Type"] == "EventUpdated"
    assert said(message)["Old"] == {"V": 1}


def test_neither_side_of_a_move_learns_of_the_other() -> None:
    removed, added = drafts_of(change(1, row("a", v="of a"), row("b", v="of b")))
    assert (removed.company, said(removed)["Type"]) == ("a", "EventDeleted")
    assert (added.company, said(added)["Type"]) == ("b", "EventCreated")
    assert "of b" not in str(said(removed))
    assert "of a" not in str(said(added))
    assert "Old" not in said(added)


def test_a_key_changed_and_changed_back_is_nothing() -> None:
    assert messages_of(change(1, row(key=1), row(key=2)), change(2, row(key=2), row(key=1))) == []


def test_keys_that_are_swapped_are_two_updates() -> None:
    messages = messages_of(
        change(1, row(key=1, v="x"), row(key=0, v="x")),
        change(2, row(key=2, v="y"), row(key=1, v="y")),
        change(3, row(key=0, v="x"), row(key=2, v="x")),
    )
    assert [(m["Type"], m["Data"]["EventId"], m["Old"]["V"]) for m in messages] == [
        ("EventUpdated", 1, "x"),
        ("EventUpdated", 2, "y"),
    ]


def test_a_creation_stands_where_it_was_first_written_a_deletion_where_it_happened() -> None:
    messages = messages_of(
        change(1, row(key=1), row(key=1, a=1)),
        change(2, None, row(key=2)),
        change(3, None, row(key=3)),
        change(4, row(key=1, a=1), None),
        change(5, row(key=2), row(key=2, a=1)),
    )
    assert [(m["Type"], m["Data"]["EventId"]) for m in messages] == [
        ("EventCreated", 2),
        ("EventCreated", 3),
        ("EventDeleted", 1),
    ]


@given(
    st.lists(st.integers(0, 3), max_size=8).flatmap(
        lambda way: st.tuples(st.just(way), st.permutations(list(pairwise(way))))
    )
)
def test_the_steps_of_a_row_may_come_in_any_order(
    way_and_steps: tuple[list[int], list[tuple[int, int]]],
) -> None:
    """What a trigger writes may be captured before what fired it. 0: there is no such row."""
    way, steps = way_and_steps

    def image(state: int) -> Values | None:
        return row(n=state) if state else None

    changes = [
        change(number, image(old), image(new))
        for number, (old, new) in enumerate(steps)
        if old != new
    ]
    old, new = (way[0], way[-1]) if way else (0, 0)
    assert [(m["Type"], m["Data"]["N"], m.get("Old")) for m in messages_of(*changes)] == (
        []
        if old == new
        else [("EventCreated", new, None)]
        if not old
        else [("EventDeleted", old, None)]
        if not new
        else [("EventUpdated", new, {"N": old})]
    )


def test_images_that_do_not_fit_one_another_count_by_the_first_and_the_last() -> None:
    """A column that is added again and again, in one transaction."""
    changes = [
        change(number, *({**row(n=n), f"v{number}": 0} for n in (number, number + 1)))
        for number in range(1000)
    ]
    (message,) = messages_of(*changes)
    assert message["Data"]["N"] == 1000
    assert message["Old"]["N"] == 0


def test_transactions_are_netted_one_by_one() -> None:
    messages = messages_of(
        change(1, None, row(), xid=1), change(2, row(), None, xid=2), change(3, None, row(), xid=3)
    )
    assert [m["Type"] for m in messages] == ["EventCreated", "EventDeleted", "EventCreated"]


def test_an_inserted_company_says_nothing() -> None:
    assert messages_of(change(1, None, {"id": "c", "name": "x"}, entity="Company")) == []


def test_an_entity_that_nobody_watches_says_nothing() -> None:
    assert messages_of(change(1, None, row(), entity="Gone")) == []


Step: TypeAlias = tuple[int, str, int]
"""Row, company (or "" for none at all: the row goes), value."""


@given(
    st.lists(
        st.tuples(st.integers(0, 3), st.sampled_from(["", "a", "b"]), st.integers(0, 2)),
        max_size=30,
    ),
    st.lists(st.integers(1, 6), max_size=10),
)
def test_whoever_applies_what_he_hears_has_the_rows(steps: list[Step], cuts: list[int]) -> None:
    """A client that follows one company, and a ledger of the table, agree after each transaction."""
    table: dict[int, Values] = {}
    changes: list[Change] = []
    for number, (key, company, value) in enumerate(steps):
        new = row(company, key, v=value) if company else None
        old = table.get(key)
        if old is None and new is None:
            continue
        changes.append(change(number, old, new))
        if new is None:
            del table[key]
        else:
            table[key] = new
    whole = _cut(changes, cuts)
    clients: dict[str, dict[int, Values]] = {"a": {}, "b": {}}
    for draft in drafts_of(*whole):
        _apply(clients[draft.company], said(draft))
    for company, client in clients.items():
        assert client == {
            key: {"EventId": key, "CompanyId": company, "V": values["v"]}
            for key, values in table.items()
            if values["company_id"] == company
        }


def _cut(changes: Sequence[Change], cuts: Iterable[int]) -> list[Change]:
    """The same changes as transactions of the lengths `cuts`."""
    ends = [0]
    for length in cuts:
        ends.append(ends[-1] + length)
    ends.append(max(ends[-1], len(changes)))
    return [
        each._replace(xid=xid)
        for xid, (start, end) in enumerate(pairwise(ends))
        for each in changes[start:end]
    ]


def _apply(client: dict[int, Values], message: Said) -> None:
    """Strict: what is created was not there, what is updated was as `Old` says."""
    data = message["Data"]
    key = data["EventId"]
    match message["Type"]:
        case "EventCreated":
            assert key not in client
            client[key] = data
        case "EventUpdated":
            assert message["Old"]
            assert client[key] == {**data, **message["Old"]}
            client[key] = data
        case "EventDeleted":
            client.pop(key)


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2)), min_size=1, max_size=20))
def test_one_transaction_says_at_most_one_thing_of_each_row(steps: list[tuple[int, int]]) -> None:
    table: dict[int, Values] = {}
    changes = []
    for number, (key, value) in enumerate(steps):
        new = row("c", key, v=value) if value else None
        if (old := table.pop(key, None)) is None and new is None:
            continue
        changes.append(change(number, old, new))
        if new is not None:
            table[key] = new
    keys = [message["Data"]["EventId"] for message in messages_of(*changes)]
    assert sorted(keys) == sorted(table)


# --- TRUNCATE


def test_a_truncate_is_a_resync_for_everybody_and_forgets_what_was_before_it() -> None:
    resync, created = drafts_of(
        change(1, None, row(key=1)),
        change(2, None, None),
        change(3, None, row(key=2)),
    )
    assert resync.company == EVERY_COMPANY
    assert said(resync)["Type"] == "Resync"
    assert said(resync)["Data"] == {"CompanyId": "c", "Reason": "truncate", "Epoch": "e"}
    assert said(created)["Data"]["EventId"] == 2


def test_a_truncate_of_members_revokes_whoever_it_concerns() -> None:
    (events,) = drafts_of(change(1, None, None))
    assert events.revokes == ()
    (both,) = drafts_of(
        change(1, None, None, entity="Employee"),
        change(2, None, None),
    )
    assert both.revokes == ("*",)


def test_many_truncates_in_one_transaction_are_one_resync() -> None:
    assert len(drafts_of(*(change(n, None, None) for n in range(5)))) == 1


# --- bulk


def test_more_messages_than_the_limit_become_one_resync_of_that_company_alone() -> None:
    drafts = drafts_of(
        *(change(n, None, row("many", n)) for n in range(4)),
        change(4, None, row("few", 9)),
        bulk_limit=3,
    )
    assert [(draft.company, said(draft)["Type"]) for draft in drafts] == [
        ("many", "Resync"),
        ("few", "EventCreated"),
    ]
    assert said(drafts[0])["Data"]["Reason"] == "bulk"


def test_as_many_messages_as_the_limit_are_sent() -> None:
    assert len(messages_of(*(change(n, None, row(key=n)) for n in range(3)), bulk_limit=3)) == 3


def test_a_row_that_changes_often_is_no_bulk() -> None:
    assert (
        len(messages_of(*(change(n, row(v=n), row(v=n + 1)) for n in range(9)), bulk_limit=1)) == 1
    )


def test_a_resync_for_bulk_still_revokes() -> None:
    removals = [change(n, row(key=n, user_id=f"u{n}"), None, entity="Employee") for n in range(4)]
    (draft,) = drafts_of(*removals, bulk_limit=3)
    assert draft.revokes == ("u0", "u1", "u2", "u3")


# --- access


@pytest.mark.parametrize(
    ("old", "new", "revoked"),
    [
        (row(user_id="u"), None, ("u",)),
        (row(user_id="u"), row(user_id=None), ("u",)),
        (row(user_id="u"), row(user_id="v"), ("u",)),
        (row(user_id="u"), row("d", user_id="u"), ("u",)),
        (row(user_id="u", a=1), row(user_id="u", a=2), ()),
        (None, row(user_id="u"), ()),
        (row(user_id=None), None, ()),
        (row(user_id=12345678901234567890), None, ("12345678901234567890",)),
        (row(user_id='ü"\\'), None, ('ü"\\',)),
    ],
)
def test_whoever_loses_his_row_loses_the_company(
    old: Values | None, new: Values | None, revoked: tuple[str, ...]
) -> None:
    drafts = drafts_of(change(1, old, new, entity="Employee"))
    assert [draft.revokes for draft in drafts if draft.company == "c"] == [revoked]


def test_whoever_has_another_row_keeps_the_company() -> None:
    _, last = drafts_of(
        change(1, row(key=1, user_id="u"), None, entity="Employee"),
        change(2, None, row(key=2, user_id="u"), entity="Employee"),
    )
    assert last.revokes == ()


def test_a_user_whom_no_text_can_name_loses_nothing() -> None:
    (draft,) = drafts_of(change(1, row(user_id="\0"), None, entity="Employee"))
    assert draft.revokes == ()


def test_a_deleted_company_is_lost_to_everybody_with_its_last_message() -> None:
    drafts = drafts_of(
        change(1, row(key=1, user_id="u"), None, entity="Employee"),
        change(2, {"id": "c"}, None, entity="Company"),
    )
    assert [draft.revokes for draft in drafts] == [(), ("*", "u")]


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


@given(st.integers() | st.integers(2**53 - 3, 2**53 + 3) | st.integers(-(2**53) - 3, 3 - 2**53))
def test_every_integer_arrives_exactly(number: int) -> None:
    said_number = data_of(n=number)["N"]
    assert isinstance(said_number, str) == (abs(number) > 2**53)
    assert int(said_number) == number


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.text()
    | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)


@given(st.dictionaries(st.text(min_size=1).filter(str.islower), JSON, max_size=4), st.booleans())
def test_every_row_becomes_a_message_that_any_reader_takes(
    values: dict[str, Any], ascii_only: bool
) -> None:
    image = json.dumps({**values, **row()}, ensure_ascii=ascii_only).encode()
    for draft in drafts_of(change(1, None, image), change(2, image, None, xid=2)):
        assert said(draft)["Data"]["EventId"] == 1


@given(JSON)
def test_values_of_json_columns_travel_untouched(value: Any) -> None:
    values = {**row(), "body": value}
    (draft,) = drafts_of(change(1, None, values, entity="Employee"))
    assert b'"Body":%s}' % json.dumps(value).encode() in draft.head


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
    whole = b'%s,"Position":%d%s' % (draft.head, 2**63, draft.tail)
    assert len(whole) <= MESSAGE_LIMIT + 200
    if size < MESSAGE_LIMIT - 300:
        assert b"Partial" not in whole
    if b"Partial" not in whole:
        assert len(whole) <= MESSAGE_LIMIT


def test_what_capture_could_not_store_whole_is_partial_and_asks_for_every_member() -> None:
    (draft,) = drafts_of(change(1, row(), row(), entity="Employee", partial=True))
    assert said(draft)["Partial"] is True
    assert draft.revokes == ("*",)


# --- poison


DEEP = b"[" * 5000 + b"]" * 5000


@pytest.mark.parametrize(
    "value",
    [rb'"\ud800"', rb'"\udc00\ud800"', b'"\xff"', b'{"\xc3": 1}', DEEP, b'"\xed\xa0\x80"'],
    ids=["half a surrogate", "the wrong halves", "no text", "no name", "an abyss", "CESU"],
)
@pytest.mark.parametrize(
    "place", [b'{"x":%s,"id":1,"company_id":"c"}', b'{"id":1,"company_id":"c","x":%s}']
)
def test_poison_is_heard_by_its_keys_and_stops_nobody(value: bytes, place: bytes) -> None:
    first, poisonous, last = messages_of(
        change(1, None, row(key=0)), change(2, None, place % value), change(3, None, row(key=2))
    )
    assert poisonous["Data"] == {"EventId": 1, "CompanyId": "c"}
    assert poisonous["Partial"] is True
    assert [first["Data"]["EventId"], last["Data"]["EventId"]] == [0, 2]


@pytest.mark.parametrize(
    "value", [rb'"\u0000"', rb'"\ud83d\ude00"', rb'"\\ud800"', b'{"a":1,"a":2}', b'"\xe2\x80\xa8"']
)
def test_what_only_looks_like_poison_is_heard_whole(value: bytes) -> None:
    (message,) = messages_of(change(1, None, b'{"id":1,"company_id":"c","x":%s}' % value))
    assert message["Data"]["X"] == json.loads(value)
    assert "Partial" not in message


@given(JSON, JSON, st.sampled_from([1, "k", 'a"}],{[:\\', 12345678901234567890]))
def test_the_keys_of_poison_are_found_wherever_they_are(before: Any, after: Any, key: Any) -> None:
    image = json.dumps({"before": before, "id": key, "x": 0, "company_id": "c", "after": after})
    poisonous = image.encode().replace(b'"x": 0', rb'"x": "\ud800"', 1)
    (message,) = messages_of(change(1, None, poisonous))
    expected = key if isinstance(key, str) or abs(key) <= 2**53 else str(key)
    assert message["Data"] == {"EventId": expected, "CompanyId": "c"}


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (None, {"id": 1}),
        ({"company_id": "c"}, None),
        (None, None),
        (None, b'{"id":1,"x":"\\ud800"}'),
    ],
    ids=["no company", "no key", "nothing at all", "poison without a company"],
)
def test_what_cannot_be_ascribed_to_a_company_is_told_to_everybody(
    old: Values | None, new: Values | bytes | None
) -> None:
    bare = old is None and new is None
    changes = [change(number, old, new, partial=bare) for number in (1, 2)]
    drafts, broken = translate(changes, WATCHED, 1000)
    (draft,) = drafts
    assert broken == 2
    assert draft.company == EVERY_COMPANY
    assert draft.revokes == ("*",)
    assert said(draft)["Type"] == "Resync"


# --- companies


@pytest.mark.parametrize(
    ("value", "name"),
    [
        (b'"c"', "c"),
        (b"9007199254740993", "9007199254740993"),
        (b'"5AF3C0DE-0000-4000-8000-00000000000A"', "5af3c0de-0000-4000-8000-00000000000a"),
        (b'"Mixed Case"', "Mixed Case"),
        (rb'"a\"\\\u00fc"', 'a"\\ü'),
        (b'"*"', "*"),
        (b'""', None),
        (b'"%s"' % (b"c" * 201), None),
        (b'"%s"' % (b"c" * 200), "c" * 200),
        (rb'"\ud800"', None),
        (rb'"a\u0000"', None),
    ],
)
def test_a_company_is_any_text_that_a_client_can_ask_for(value: bytes, name: str | None) -> None:
    assert company_named(value) == name
    assert company_named(value) != EVERY_COMPANY


def test_a_row_of_no_company_is_heard_by_nobody() -> None:
    assert messages_of(change(1, None, row(None)), change(2, row(None), None)) == []
