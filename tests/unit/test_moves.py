"""Which transactions may not have seen a row on a path move, and what follows."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from notifier.relay import moves as relay_moves
from notifier.relay.changes import EVERY_COMPANY, REVOKE_ALL, Change, Source
from notifier.relay.moves import Moves
from notifier.relay.saved_moves import Move
from notifier.watches import Watch

NOW = datetime(2026, 1, 1, tzinfo=UTC)
SOURCES = {"M": Source(Watch(table="m", entity="M", company="c -> p.company"))}


def moves(cursor: str = "5:5:", saved: bytes = b"[]") -> Moves:
    made = Moves()
    made.configure(SOURCES)
    made.begin(cursor, saved)
    return made


def moved(xid: int, number: int, was: str = "7", became: str = "8") -> Change:
    old, new = f'{{"->M":{was}}}'.encode(), f'{{"->M":{became}}}'.encode()
    return Change(number, xid, "M", old, new, True, None, NOW)


def written(xid: int, number: int, company: str = "7", snapshot: str | None = None) -> Change:
    more = f',"->snapshot":"{snapshot}"' if snapshot else ""
    image = f'{{"->M":{company},"id":1{more}}}'.encode()  # as capture writes it
    return Change(number, xid, "M", None, image, False, None, NOW)


def due(given: Moves, *changes: Change) -> list[str]:
    last = {change.xid: change.id for change in changes}
    return sorted(draft.company for draft in given.resyncs(changes, last))


def test_a_transaction_that_was_open_is_a_resync_until_it_has_ended() -> None:
    given = moves()
    assert due(given, moved(10, 1)) == []
    given.advance("9:12:9,11")
    assert due(given, written(11, 2, "6")) == [], "of another company"
    assert due(given, written(12, 3)) == [], "begun later"
    assert due(given, written(11, 4)) == ["7", "8"]
    given.advance("9:13:9")
    given.advance("9:13:9")
    saved = given.unsaved()
    assert saved is not None
    assert given.unsaved() is None
    assert due(moves("9:13:9", saved), written(9, 5)) == ["7", "8"], "another relay"
    given.advance("13:13:")
    assert given.unsaved() is None, "needed until what was read with that snapshot is stored"
    assert due(given, written(9, 6)) == []
    given.advance("14:14:")
    assert given.unsaved() == b"[]"


def test_a_relay_that_reads_again_what_was_not_stored_knows_the_moves_before_it() -> None:
    given = moves()
    due(given, moved(10, 1))
    given.advance("9:11:9")
    first = given.unsaved()
    assert due(given, written(9, 2)) == ["7", "8"]
    given.advance("11:11:")
    saved = given.unsaved() or first
    assert saved is not None
    assert due(moves("9:11:9", saved), written(9, 2)) == ["7", "8"]


def test_moves_within_a_backlog_are_saved_before_its_end() -> None:
    given = moves()
    due(given, moved(10, 1))
    saved = given.unsaved()
    assert saved is not None
    assert due(moves("5:5:", saved), written(9, 2)) == ["7", "8"], "another relay, on a later page"


def test_a_row_that_was_written_before_the_move_and_committed_after_it_is_a_resync() -> None:
    given = moves()
    assert due(given, moved(10, 2)) == []
    given.advance("9:11:9")
    assert due(given, written(9, 1)) == ["7", "8"]


def test_what_is_read_together_counts_as_open_if_it_comes_after() -> None:
    assert due(moves(), written(9, 1), moved(10, 2)) == []
    assert due(moves(), moved(10, 1), written(9, 2)) == ["7", "8"]
    assert due(moves(), moved(10, 1), written(10, 2)) == [], "its own"
    assert due(moves(), moved(10, 1, "null", "8"), written(9, 2, "null")) == ["8"]


def test_a_writer_with_an_old_snapshot_does_not_see_what_came_later() -> None:
    given = moves()
    due(given, moved(10, 1))
    given.advance("11:11:")
    assert due(given, written(20, 2, "7", "10:10:")) == ["7", "8"]
    assert due(given, written(20, 2, "7", "9:11:9")) == []
    assert due(given, written(20, 2, "7", "10:11:10")) == ["7", "8"]
    later = moves("15:20:15")
    assert due(later, written(21, 1, "7", "10:10:")) == [EVERY_COMPANY], "moves are not known"
    assert due(later, written(21, 1, "7", "15:21:15")) == []
    assert due(later, written(21, 1, "7", "15:21:15,16")) == [EVERY_COMPANY]


def test_more_moves_than_are_kept_concern_every_company() -> None:
    given = moves()
    due(given, *(moved(10, n, str(n), str(n + 1)) for n in range(10, 10_020)))
    given.advance("9:11:9")
    assert EVERY_COMPANY in due(given, written(9, 20_000, "3"))


def test_moves_beside_a_long_transaction_take_bounded_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("notifier.relay.moves.LIMIT", 100)
    given = moves()
    for xids in (range(first, first + 40) for first in range(10, 170, 40)):
        due(given, *(moved(xid, xid, str(xid), str(xid + 1)) for xid in xids))
        given.advance(f"9:{xids.stop}:9")
    given.advance("9:171:9")
    assert len(msgspec.json.decode(given.unsaved() or b"[]")) < 110
    assert EVERY_COMPANY in due(given, written(9, 20_000, "3"))
    old = written(20_000, 20_001, "3", "165:165:")
    assert due(given, old) == [EVERY_COMPANY], "it does not see the last of them"


def test_changes_of_tables_without_a_path_are_not_compared_with_moves(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Beside a long transaction there may be thousands of moves, for each read."""
    given = moves()
    due(given, moved(10, 1))
    given.advance("9:11:9")
    compared: list[object] = []
    monkeypatch.setattr("notifier.relay.moves._by_value", compared.append)
    assert due(given, written(9, 2)._replace(entity="Other")) == []
    assert compared == []


def test_many_moves_between_the_same_companies_are_compared_as_two(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A relay that reads what was written during an outage has thousands of them, each in a transaction of its own."""
    compared: list[object] = []
    is_late = relay_moves._is_late

    def counted(*arguments: Any) -> bool:
        compared.append(arguments)
        return bool(is_late(*arguments))

    monkeypatch.setattr("notifier.relay.moves._is_late", counted)
    given = moves()
    assert due(given, *(moved(xid, xid) for xid in range(10, 210))) == ["7", "8"]
    assert len(compared) < 1000


@pytest.mark.parametrize("order", ["MN", "NM"])
def test_a_company_that_one_of_two_moves_revokes_is_revoked(order: str) -> None:
    sources = {
        "M": Source(Watch(table="m", entity="M", company="c -> p.company", member="user")),
        "N": Source(Watch(table="n", entity="N", company="c -> p.company")),
    }

    def of(entity: str, change: Change) -> Change:
        images = (
            image and image.replace(b"->M", b"->%b" % entity.encode()) for image in change[3:5]
        )
        return change._replace(entity=entity, old=next(images), new=next(images))

    given = Moves()
    given.configure(sources)
    given.begin("5:5:", b"[]")
    due(given, *(of(entity, moved(10, n)) for n, entity in enumerate(order)))
    given.advance("9:12:9,11")
    late = [of(entity, written(11, n)) for n, entity in enumerate(order, 3)]
    revoked = {each.company: each.revokes for each in given.resyncs(late, {11: 4})}
    assert revoked == {"7": REVOKE_ALL, "8": REVOKE_ALL}
    large = {each.company: each.revokes for each in given.resyncs_of_large(11, 4, [], NOW)}
    assert large == {"7": REVOKE_ALL, "8": REVOKE_ALL}


def test_a_large_transaction_is_not_looked_at() -> None:
    given = moves()
    due(given, moved(10, 1))
    given.advance("9:11:9")
    images = [("M", b'{"->M":1}', b'{"->M":2}')]
    assert [each.company for each in given.resyncs_of_large(9, 50, images, NOW)] in (
        ["7", "8"],
        ["8", "7"],
    )
    assert due(given, written(12, 60, "1")) == ["1", "2", "7", "8"], "it had missed another move"


def test_rows_that_have_a_path_are_no_moves_also_where_many_are_kept(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("notifier.relay.moves.LIMIT", 3)
    given = moves()
    for number in range(4):
        due(given, moved(20 + number, 1 + number))
    keys_only = written(12, 8, company="9")._replace(partial=True)
    assert due(given, written(10, 6, company="9"), written(11, 7, company="9"), keys_only) == []
    assert len(given._pending) == 4


@pytest.mark.parametrize(
    "value",
    [b'"x"', b'"1:2:3 BC"', b'"5:"', b'"' + b"1" * 5000 + b':1:"', b'"\\ud800"', b"7", b"[{}]"],
)
def test_a_column_that_has_the_name_of_the_snapshot_is_a_resync_for_every_company(
    value: bytes,
) -> None:
    image = b'{"->M":7,"id":1,"->snapshot":%b}' % value
    late = Change(1, 6, "M", None, image, False, None, NOW)
    assert due(moves(), late) == [EVERY_COMPANY]


def test_a_company_that_is_no_utf_8_does_not_end_the_relay() -> None:
    """In a SQL_ASCII database."""
    given = moves()
    due(given, moved(10, 1))
    image = b'{"->M":"\xff","id":1,"->snapshot":"12:12:"}'
    assert due(given, Change(2, 13, "M", None, image, False, None, NOW)) == []


def test_a_transaction_that_the_snapshot_does_not_list_may_have_been_open() -> None:
    given = moves()
    due(given, moved(10, 1))
    assert given.are_new
    given.advance("11:11:", before=14)
    assert not given.are_new
    saved = given.unsaved() or b""
    assert due(given, written(14, 2)) == [], "begun later"
    assert due(given, written(13, 3)) == ["7", "8"]
    assert due(moves("11:11:", saved), written(13, 3)) == ["7", "8"], "another relay"
    given.advance("12:13:12")
    assert due(given, written(11, 4)) == [], "ended"
    assert due(given, written(12, 5)) == ["7", "8"]
    assert due(given, written(13, 6)) == ["7", "8"]
    given.advance("12:15:12,14")
    assert due(given, written(13, 7)) == []
    assert due(given, written(12, 8)) == ["7", "8"]
    given.advance("14:15:14")
    assert due(given, written(14, 9)) == []
    given.advance("15:15:")
    assert given.unsaved() == b"[]"


@pytest.mark.parametrize("order", [(11, 12), (12, 11)])
def test_moves_that_a_snapshot_does_not_see_lead_on_from_each_other_in_any_order(
    order: tuple[int, int],
) -> None:
    given = moves()
    made = {11: moved(11, 1, "7", "8"), 12: moved(12, 2, "8", "9")}
    for xid in order:
        due(given, made[xid])
        given.advance("13:13:")
    assert due(given, written(20, 3, "7", "10:10:")) == ["7", "8", "9"]
    assert due(given, written(20, 3, "7", "11:12:11")) == ["7", "8", "9"]
    assert due(given, written(20, 3, "7", "12:12:")) == []


def test_a_move_whose_writer_has_missed_another_one_leads_there_too() -> None:
    given = moves()
    due(given, moved(10, 1, "8", "9"))
    given.advance("9:11:9")
    due(given, moved(9, 2, "7", "8"))
    given.advance("12:13:12")
    assert due(given, written(12, 3, "7")) == ["7", "8", "9"], "begun after the first move"


def test_a_move_that_is_kept_no_longer_is_missed_also_where_it_was_open_at_the_beginning(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("notifier.relay.moves.LIMIT", 2)
    given = moves("4:6:4")
    due(given, moved(4, 1))
    given.advance("7:7:")
    assert due(given, written(20, 2, "7", "4:6:4")) == ["7", "8"]
    for xid in (8, 9):
        due(given, moved(xid, xid, "1", "2"))
        given.advance(f"{xid + 1}:{xid + 1}:")
    assert due(given, written(20, 20, "7", "4:8:4")) == [EVERY_COMPANY]


def test_of_many_moves_another_relay_is_left_a_summary_that_seldom_changes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Beside a long transaction all of them were saved with each batch that had a move: megabytes each time."""
    monkeypatch.setattr("notifier.relay.moves.SAVED_LIMIT", 3)
    given = moves()
    for xid in range(10, 14):
        due(given, moved(xid, xid))
        given.advance(f"9:{xid + 1}:9")
    saved = given.unsaved() or b""
    assert len(msgspec.json.decode(saved)) == 1
    for xid in range(20, 24):
        due(given, moved(xid, xid))
        given.advance(f"9:{xid + 1}:9")
        assert given.unsaved() is None
    assert due(given, written(9, 30)) == ["7", "8"]
    assert due(given, written(9, 31, "5")) == []
    other = moves("9:25:9", saved)
    assert due(other, written(9, 32, "5")) == [EVERY_COMPANY]
    assert due(other, written(30, 33, "5")) == []


def test_the_summary_has_the_moves_of_which_it_is_not_known_who_has_missed_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("notifier.relay.moves.SAVED_LIMIT", 1)
    given = moves()
    due(given, moved(10, 1), moved(11, 2))
    other = moves("5:5:", given.unsaved() or b"")
    assert due(other, written(11, 3)) == [EVERY_COMPANY]
    assert other.are_new
    other.advance("9:12:9", before=14)
    for xid in (9, 12, 13):
        assert due(other, written(xid, 4 + xid)) == [EVERY_COMPANY]
    assert due(other, written(14, 20)) == []


def test_moves_that_were_read_together_are_compared_once_with_the_open_transactions(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Ten thousand moves beside two hundred open transactions held up the event loop with each batch."""
    is_missed, calls = Move.may_be_missed_by, list[int]()

    def counted(move: Move, xid: int) -> bool:
        calls.append(xid)
        return is_missed(move, xid)

    running = range(10, 30)
    snapshot = f"10:200:{','.join(map(str, running))}"
    given = moves()
    due(given, *(moved(100 + n, n, str(2 * n), str(2 * n + 1)) for n in range(50)))
    given.advance(snapshot)
    monkeypatch.setattr(Move, "may_be_missed_by", counted)
    given.advance(snapshot)
    assert len(calls) == len(running)
    assert due(given, written(10, 60, "3")) == ["2", "3"]


def test_of_moves_beside_many_open_transactions_another_relay_is_left_a_summary(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Two hundred moves beside a thousand of them were more than a megabyte with each batch."""
    monkeypatch.setattr("notifier.relay.moves.SAVED_OPEN", 5)
    given = moves()
    due(given, moved(20, 1), moved(21, 2, "5", "6"))
    given.advance("7:22:7,8,9")
    (saved,) = msgspec.json.decode(given.unsaved() or b"")
    assert sorted(saved["open"]) == [7, 8, 9]


@pytest.mark.parametrize("known", [1, 2])
def test_moves_of_a_large_transaction_that_are_too_many_or_too_large_concern_every_company(
    known: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The relay held all of them, of up to 8 MiB each."""
    monkeypatch.setattr("notifier.relay.moves.LIMIT", 1)
    given = moves()
    images = [("M", b'{"->M":1}', b'{"->M":2}'), ("M", b'{"->M":3}', b'{"->M":4}')][:known]
    given.resyncs_of_large(8, 50, images if known > 1 else [("M", None, None)], NOW)
    given.advance("9:11:9")
    assert EVERY_COMPANY in due(given, written(9, 60, "5"))
    assert due(given, written(12, 61, "5")) == []


def test_only_images_of_companies_alone_are_those_of_a_row_on_a_path() -> None:
    given = moves()
    assert given.has(moved(10, 1))
    assert not given.has(written(10, 2)._replace(partial=True))
    assert not given.has(moved(10, 3)._replace(entity="Other"))
    assert not given.has(Change(4, 10, "M", None, None, False, None, NOW)), "a TRUNCATE"
