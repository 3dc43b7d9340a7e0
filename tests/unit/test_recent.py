"""What a channel keeps for those who resume: dense, to the message and to the byte."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from notifier.delivery import hub
from notifier.delivery.hub import Budget, Recent
from notifier.frames import frame
from notifier.messages import Message

NOW = datetime.now(UTC)
FRAMED = len(frame(b"x" * 10))


def message(position: int) -> Message:
    return Message(position, "c", position, NOW, NOW + timedelta(seconds=position), b"x" * 10, ())


def recent(*positions: int, budget: Budget | None = None) -> Recent:
    made = Recent(positions[0] - 1, budget or Budget())
    for position in positions:
        made.append(message(position), frame(message(position).body))
    return made


def kept(some: Recent) -> list[float]:
    """The positions that are there, told by when they were stored."""
    return [(stored - NOW).total_seconds() for stored, _ in some.after(some.first - 1)]


def test_older_messages_go_before_those_that_are_there_and_none_twice() -> None:
    some = recent(5, 6)
    some.prepend([message(n) for n in range(1, 7)])
    assert kept(some) == [1, 2, 3, 4, 5, 6]
    assert (some.first, some.last) == (1, 6)
    assert [len(framed) for _, framed in some.after(4)] == [FRAMED, FRAMED]


def test_older_messages_with_a_hole_before_those_that_are_there_are_not_kept() -> None:
    some = recent(5)
    some.prepend([message(1), message(2), message(3)])
    assert kept(some) == [5]


def test_so_many_messages_are_kept_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "RECENT_MESSAGES", 3)
    some = recent(4, 5, 6)
    assert kept(some) == [4, 5, 6]
    some.append(message(7), b"x")
    assert kept(some) == [5, 6, 7]
    some.prepend([message(4)])
    assert kept(some) == [5, 6, 7]
    some = recent(3, 4)
    some.prepend([message(1), message(2)])
    assert kept(some) == [2, 3, 4]


def test_so_many_bytes_are_kept_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "RECENT_BYTES", FRAMED * 3)
    budget = Budget()
    some = recent(4, 5, 6, budget=budget)
    assert kept(some) == [4, 5, 6]
    assert budget.used == FRAMED * 3
    some.append(message(7), frame(message(7).body))
    assert kept(some) == [5, 6, 7]
    assert budget.used == FRAMED * 3
    some.prepend([message(4)])
    assert kept(some) == [5, 6, 7]
    some = recent(3, 4, budget=budget)
    some.prepend([message(1), message(2)])
    assert kept(some) == [2, 3, 4]
    assert budget.used == FRAMED * 6
    some.append(message(5), b"x" * FRAMED * 9)  # the last one stays, whatever it weighs
    assert kept(some) == [5]
    some.forget()
    assert budget.used == FRAMED * 3
    assert kept(some) == []
    some.forget()
    assert budget.used == FRAMED * 3


def test_when_all_have_too_much_each_keeps_little(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "PRESSED_BYTES", FRAMED)
    monkeypatch.setattr(hub, "BUDGET_BYTES", FRAMED * 3)
    budget = Budget()
    some = recent(4, 5, budget=budget)
    assert kept(some) == [4, 5]
    some.append(message(6), frame(message(6).body))
    assert kept(some) == [6]  # as much as all may keep is too much
    some.prepend([message(5)])
    assert kept(some) == [5, 6]
