"""Netting: what a transaction did to each row, as each company sees it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import TypeAlias

import pytest
from hypothesis import given
from hypothesis import strategies as st

from notifier.relay.changes import EVERY_COMPANY, Change, Source
from notifier.relay.netting import Transaction, net
from notifier.watches import Watch
from tests.unit.captured import (
    EVENT,
    SOURCES,
    Json,
    Values,
    change,
    drafts_of,
    messages_of,
    row,
    text_of,
)

# --- rows


def test_old_has_exactly_what_changed() -> None:
    (message,) = messages_of(change(1, row(a=1, b=2, c=None), row(a=1, b=3, c="x")))
    assert message["Old"] == {"B": 2, "C": None}


def test_an_update_that_changes_nothing_sends_nothing() -> None:
    assert messages_of(change(1, row(a=1), row(a=1))) == []


def test_a_deletion_carries_the_row_as_it_was_before_the_transaction() -> None:
    (message,) = messages_of(
        change(1, row(a=1), row(a=2)), change(2, row(a=2), row(a=3)), change(3, row(a=3), None)
    )
    assert message["Type"] == "EventDeleted"
    assert message["Data"]["A"] == 1


def test_a_move_and_back_is_an_update_for_one_company_and_nothing_for_the_other() -> None:
    (message,) = drafts_of(
        change(1, row("a", v=1), row("b", v=2)), change(2, row("b", v=2), row("a", v=3))
    )
    assert message.company == "a"
    assert text_of(message)["Type"] == "EventUpdated"
    assert text_of(message)["Old"] == {"V": 1}


def test_neither_side_of_a_move_sees_values_of_the_other() -> None:
    removed, added = drafts_of(change(1, row("a", v="of a"), row("b", v="of b")))
    assert (removed.company, text_of(removed)["Type"]) == ("a", "EventDeleted")
    assert (added.company, text_of(added)["Type"]) == ("b", "EventCreated")
    assert "of b" not in str(text_of(removed))
    assert "of a" not in str(text_of(added))
    assert "Old" not in text_of(added)


def test_a_key_that_is_changed_and_changed_back_sends_nothing() -> None:
    assert messages_of(change(1, row(key=1), row(key=2)), change(2, row(key=2), row(key=1))) == []


def test_swapped_keys_are_two_updates() -> None:
    messages = messages_of(
        change(1, row(key=1, v="x"), row(key=0, v="x")),
        change(2, row(key=2, v="y"), row(key=1, v="y")),
        change(3, row(key=0, v="x"), row(key=2, v="x")),
    )
    assert [(m["Type"], m["Data"]["EventId"], m["Old"]["V"]) for m in messages] == [
        ("EventUpdated", 1, "x"),
        ("EventUpdated", 2, "y"),
    ]


def test_a_creation_is_ordered_by_the_first_write_and_a_deletion_by_the_last() -> None:
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
    """A nested trigger's write may be captured before the write that fired it. 0: no row."""
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


def test_images_that_do_not_fit_together_are_netted_by_the_first_and_the_last() -> None:
    """A column is added again and again in one transaction, so no image equals the next one."""
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


def test_an_inserted_company_sends_nothing() -> None:
    assert messages_of(change(1, None, {"id": "c", "name": "x"}, entity="Company")) == []


def test_an_entity_that_is_not_watched_sends_nothing() -> None:
    assert messages_of(change(1, None, row(), entity="Gone")) == []


Step: TypeAlias = tuple[int, str, int]
"""Key, company ("" deletes the row), value."""


@given(
    st.lists(
        st.tuples(st.integers(0, 3), st.sampled_from(["", "a", "b"]), st.integers(0, 2)),
        max_size=30,
    ),
    st.lists(st.integers(1, 6), max_size=10),
)
def test_applying_the_messages_gives_exactly_the_rows(steps: list[Step], cuts: list[int]) -> None:
    """A client that applies the messages of its company has the rows of the table."""
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
        _apply(clients[draft.company], text_of(draft))
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


def _apply(client: dict[int, Values], message: Json) -> None:
    """Strict: a created row was not there, an updated one was as `Old` says."""
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
def test_a_transaction_has_at_most_one_message_per_row(steps: list[tuple[int, int]]) -> None:
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


def test_a_truncate_is_a_resync_for_every_company_and_discards_what_was_before_it() -> None:
    resync, created = drafts_of(
        change(1, None, row(key=1)),
        change(2, None, None),
        change(3, None, row(key=2)),
    )
    assert resync.company == EVERY_COMPANY
    assert text_of(resync)["Type"] == "Resync"
    assert text_of(resync)["Data"] == {"CompanyId": "c", "Reason": "truncate", "Epoch": "e"}
    assert text_of(created)["Data"]["EventId"] == 2


def test_a_truncate_of_members_rechecks_every_user() -> None:
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
    assert [(draft.company, text_of(draft)["Type"]) for draft in drafts] == [
        ("many", "Resync"),
        ("few", "EventCreated"),
    ]
    assert text_of(drafts[0])["Data"]["Reason"] == "bulk"


def test_as_many_messages_as_the_limit_are_sent() -> None:
    assert len(messages_of(*(change(n, None, row(key=n)) for n in range(3)), bulk_limit=3)) == 3


def test_a_row_that_changes_often_is_not_bulk() -> None:
    assert (
        len(messages_of(*(change(n, row(v=n), row(v=n + 1)) for n in range(9)), bulk_limit=1)) == 1
    )


def test_a_resync_for_bulk_still_revokes() -> None:
    removals = [change(n, row(key=n, user_id=f"u{n}"), None, entity="Employee") for n in range(4)]
    (draft,) = drafts_of(*removals, bulk_limit=3)
    assert draft.revokes == ("u0", "u1", "u2", "u3")


def test_users_who_are_too_long_to_be_kept_are_all_rechecked() -> None:
    users = ["u" * 30_000 + str(n) for n in range(3)]
    removals = [
        change(n, row(key=n, user_id=user), None, entity="Employee") for n, user in enumerate(users)
    ]
    first, last = drafts_of(*removals[:2])
    assert (first.revokes, last.revokes) == ((), tuple(users[:2]))
    assert drafts_of(*removals)[-1].revokes == ("*",)


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
def test_a_user_who_loses_the_row_loses_the_company(
    old: Values | None, new: Values | None, revoked: tuple[str, ...]
) -> None:
    drafts = drafts_of(change(1, old, new, entity="Employee"))
    assert [draft.revokes for draft in drafts if draft.company == "c"] == [revoked]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ({"id": 1, "company_id": "c", "login": "u"}, None),
        (row(user_id="u"), {"id": 1, "company_id": "c", "login": "u"}),
        (None, {"id": 1, "company_id": "c", "login": "u"}),
    ],
    ids=["removed", "renamed in the transaction", "added"],
)
def test_case_16_a_row_without_its_member_column_rechecks_every_user(
    old: Values | None, new: Values | None
) -> None:
    """Case 16: the column was renamed or dropped, so the row names no user whose access to follow."""
    (draft,) = drafts_of(change(1, old, new, entity="Employee"))
    assert draft.revokes == ("*",)


def test_a_user_with_another_row_keeps_the_company() -> None:
    _, last = drafts_of(
        change(1, row(key=1, user_id="u"), None, entity="Employee"),
        change(2, None, row(key=2, user_id="u"), entity="Employee"),
    )
    assert last.revokes == ()


def test_a_user_with_the_id_of_the_mark_for_all_users_takes_no_revocation_away() -> None:
    """The user `*` keeps access by another row; the users of the row without its member column may not."""
    gone, last = drafts_of(
        change(1, {"id": 1, "company_id": "c", "login": "u"}, None, entity="Employee"),
        change(2, None, row(key=2, user_id="*"), entity="Employee"),
    )
    assert (gone.revokes, last.revokes) == ((), ("*",))


@pytest.mark.parametrize(("kept", "revoked"), [([], ("*",)), (["*"], ()), (["u"], ("*",))])
def test_a_removal_of_the_user_with_the_id_of_the_mark_for_all_users_rechecks_every_user(
    kept: list[str], revoked: tuple[str, ...]
) -> None:
    added = [
        change(2 + n, None, row(key=2 + n, user_id=user), entity="Employee")
        for n, user in enumerate(kept)
    ]
    drafts = drafts_of(change(1, row(key=1, user_id="*"), None, entity="Employee"), *added)
    assert drafts[-1].revokes == revoked


def test_a_user_id_that_is_not_text_in_postgresql_is_ignored() -> None:
    (draft,) = drafts_of(change(1, row(user_id="\0"), None, entity="Employee"))
    assert draft.revokes == ()


def test_a_deleted_company_is_revoked_with_its_last_message() -> None:
    drafts = drafts_of(
        change(1, row(key=1, user_id="u"), None, entity="Employee"),
        change(2, {"id": "c"}, None, entity="Company"),
    )
    assert [draft.revokes for draft in drafts] == [(), ("*", "u")]


def test_a_truncate_that_was_sent_elsewhere_only_discards_what_was_before_it() -> None:
    """In a large transaction the Resync of its TRUNCATE comes first, then company by company."""
    transaction = Transaction(SOURCES, only="c", truncates=[change(2, None, None)])
    transaction.add(change(1, None, row(key=1)))
    transaction.add(change(3, None, row(key=2)))
    transaction.add(change(4, None, row("other", key=3)))
    (created,) = transaction.drafts(bulk_limit=1000)
    assert text_of(created)["Data"] == {"EventId": 2, "CompanyId": "c"}


def test_rows_that_were_written_only_before_a_truncate_that_was_sent_elsewhere_are_discarded() -> (
    None
):
    truncates = [change(2, None, None, entity="Employee"), change(3, None, None)]
    transaction = Transaction(SOURCES, only="c", truncates=truncates)
    transaction.add(change(1, None, row(key=1)))
    assert transaction.drafts(bulk_limit=1000) == []


@pytest.mark.parametrize("entity", ["Event", "Employee"])
@pytest.mark.parametrize(
    "between",
    [
        [],
        [change(2, row(user_id="u"), row(user_id="u"), entity="Employee", partial=True)],
    ],
    ids=["an image of another form", "an image with the keys only"],
)
def test_a_row_that_may_have_been_inserted_and_deleted_is_a_resync(
    entity: str, between: list[Change]
) -> None:
    """The image of its deletion is not that of its insertion: the table was altered between, or a row was too large. It may be a
    trigger's insertion of a row that was deleted, too, which is captured first: then there is a row.
    """
    steps = [
        change(1, None, row(user_id="u", a=1)),
        *between,
        change(3, row(user_id="u", b=1), None, partial=bool(between)),
    ]
    drafts = drafts_of(*(each._replace(entity=entity) for each in steps))
    assert [text_of(draft)["Type"] for draft in drafts] == ["Resync"]
    assert [draft.company for draft in drafts] == ["c"]
    assert [draft.revokes for draft in drafts] == [("*",) if entity == "Employee" else ()]


def test_many_rows_that_may_have_been_inserted_and_deleted_are_one_resync() -> None:
    steps = [change(n, None, row(key=n, a=1)) for n in range(3)]
    steps += [change(9, None, row(key=9)), change(10, row("d", a=1), row("d", a=2))]
    steps += [change(20 + n, row(key=n, b=1), None) for n in range(3)]
    assert [(draft.company, text_of(draft)["Type"]) for draft in drafts_of(*steps)] == [
        ("c", "EventCreated"),
        ("d", "EventUpdated"),
        ("c", "Resync"),
    ]


def test_a_row_may_have_been_deleted_with_other_texts_than_it_was_inserted_with() -> None:
    """Those of money depend on the session. Where anything else differs, the row that was deleted is another one."""
    sources = {"Event": Source(EVENT, loose_columns=frozenset({"price"}))}
    first, second = row(price="$1.00", name="a"), row(price="$2.00", name="b")

    def types_of(deleted: Values) -> list[str]:
        steps = [change(1, None, first), change(2, first | {"price": "1"}, second)]
        steps.append(change(3, deleted, None))
        return [text_of(draft)["Type"] for draft in drafts_of(*steps, sources=sources)]

    assert types_of(first | {"price": "1.0"}) == ["Resync"]
    assert types_of(second | {"price": "2"}) == ["Resync"]
    assert types_of(row(price="$2.00", name="c")) == ["EventUpdated"]


def test_a_column_that_was_altered_may_have_had_other_texts() -> None:
    before = Source(EVENT, column_versions=frozenset({"1 700 id", "2 700 a b"}))
    now = Source(EVENT, column_versions=frozenset({"1 700 id", "2 701 a b", "3 701 c"}))
    altered = now.remembering(before)
    assert altered.loose_columns == {"a b", "c"}
    assert now.remembering(altered).loose_columns == {"a b", "c"}


def test_a_member_who_cannot_be_read_stops_no_relay() -> None:
    """Of a row that is read by its keys, where one of them is the column of the member."""
    member = Watch(
        table="members", entity="Member", company="team", member="login", visible_to=("login",)
    )
    image = rb'{"id":1,"team":"c","login":"\ud800"}'
    drafts, _ = net([change(1, None, image, entity="Member")], {"Member": Source(member)}, 1000)
    assert [(draft.company, draft.revokes) for draft in drafts] == [("c", ())]


def test_a_row_that_a_transaction_before_has_changed_later_is_a_resync() -> None:
    """A key that is DEFERRABLE is given away before the transaction has ended that deletes the row which had it."""
    steps = [
        change(11, None, row(key=1, a="second"), xid=2),
        change(10, row(key=1, a="first"), None, xid=1),
        change(12, row("d", key=2, a=1), row("d", key=2, a=2), xid=1),
    ]
    assert [(draft.company, text_of(draft)["Type"]) for draft in drafts_of(*steps)] == [
        ("c", "EventCreated"),
        ("c", "EventDeleted"),
        ("d", "EventUpdated"),
        ("c", "Resync"),
    ]
