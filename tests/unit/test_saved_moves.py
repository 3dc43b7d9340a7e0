"""A summary of moves: it concerns every company, for each transaction that may have missed one of them."""

from __future__ import annotations

from notifier.relay.changes import EVERY_COMPANY, REVOKE_ALL
from notifier.relay.saved_moves import Move, summary


def move(number: int, column: str = "c", **more: object) -> Move:
    given = {"revokes": (), **more}
    company = str(number)
    return Move("M", column, frozenset({company}), frozenset({company}), number, number, **given)  # type: ignore[arg-type]


def test_a_summary_has_a_move_for_each_watch_and_one_for_those_that_are_not_settled() -> None:
    moves = [
        move(4, open=frozenset({1, 2}), begun=5, before=7),
        move(6, open=frozenset({2, 3}), begun=0, before=0, revokes=REVOKE_ALL),
        move(9, open=frozenset({3}), begun=9, before=12),
        move(20),
        move(21),
        move(22, "d", open=frozenset({8})),
    ]
    settled, fresh, other = summary(moves)
    assert settled.open == frozenset({1, 2, 3})
    assert (settled.begun, settled.before, settled.revokes) == (5, 12, REVOKE_ALL)
    assert (fresh.open, fresh.last, fresh.column) == (None, 20, "c")
    assert (other.open, other.column) == (frozenset({8}), "d")
    assert all(each.companies == {EVERY_COMPANY} for each in (settled, fresh, other))
    assert not any(each.values for each in (settled, fresh, other))
    for xid in (1, 3, 5, 11):
        assert settled.may_be_missed_by(xid)
    assert not settled.may_be_missed_by(12)
