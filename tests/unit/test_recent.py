"""The recent messages of a channel: no gap, and bounded to the message and to the byte."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from msgspec import structs

from notifier.delivery import recent as module
from notifier.delivery.recent import Budget, Recent
from notifier.messages import Message, View
from notifier.relay.rendering import Draft, DraftView
from notifier.relay.visibility import Audience

NOW = datetime.now(UTC)
SIZE = 10


def message(position: int, size: int = SIZE) -> Message:
    return Message(position, "c", position, NOW, NOW, b"x" * size, ())


def recent(*positions: int, budget: Budget | None = None) -> Recent:
    made = Recent(positions[0] - 1, budget or Budget())
    for position in positions:
        made.append(message(position))
    return made


def kept(some: Recent) -> list[int]:
    """The positions of the messages that are kept."""
    return [message.position for message in some.after(some.first - 1)]


def test_older_messages_are_prepended_and_none_twice() -> None:
    some = recent(5, 6)
    some.prepend([message(n) for n in range(1, 7)])
    assert kept(some) == [1, 2, 3, 4, 5, 6]
    assert (some.first, some.last) == (1, 6)
    assert [message.position for message in some.after(4)] == [5, 6]


def test_older_messages_that_would_leave_a_gap_are_not_prepended() -> None:
    some = recent(5)
    some.prepend([message(1), message(2), message(3)])
    assert kept(some) == [5]


def test_the_number_of_messages_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RECENT_MESSAGES", 3)
    some = recent(4, 5, 6)
    assert kept(some) == [4, 5, 6]
    some.append(message(7))
    assert kept(some) == [5, 6, 7]
    some.prepend([message(4)])
    assert kept(some) == [5, 6, 7]
    some = recent(3, 4)
    some.prepend([message(1), message(2)])
    assert kept(some) == [2, 3, 4]


def test_the_bytes_of_messages_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RECENT_BYTES", SIZE * 3)
    budget = Budget()
    some = recent(4, 5, 6, budget=budget)
    assert kept(some) == [4, 5, 6]
    assert budget.used == SIZE * 3
    some.append(message(7))
    assert kept(some) == [5, 6, 7]
    assert budget.used == SIZE * 3
    some.prepend([message(4)])
    assert kept(some) == [5, 6, 7]
    some = recent(3, 4, budget=budget)
    some.prepend([message(1), message(2)])
    assert kept(some) == [2, 3, 4]
    assert budget.used == SIZE * 6
    some.append(message(5, SIZE * 9))  # the last one stays, whatever its size
    assert kept(some) == [5]
    some.clear()
    assert budget.used == SIZE * 3
    assert kept(some) == []
    some.clear()
    assert budget.used == SIZE * 3


def test_beyond_the_budget_of_all_channels_each_keeps_little(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "PRESSED_BYTES", SIZE)
    monkeypatch.setattr(module, "BUDGET_BYTES", SIZE * 3)
    budget = Budget()
    some = recent(4, 5, budget=budget)
    assert kept(some) == [4, 5]
    some.append(message(6))
    assert kept(some) == [6]  # the budget is used up
    some.prepend([message(5)])
    assert kept(some) == [5, 6]


def test_the_users_whom_a_message_names_count_by_the_length_of_their_ids() -> None:
    """A column of `visible_to` may have megabytes: a channel kept two thousand of them."""
    user = "u" * 100_000
    view = View(frozenset({user}), others=False, body=b"{}")
    assert structs.replace(message(1), views=(view,)).size > 100_000
    assert structs.replace(message(1), revokes=(user,)).size > 100_000
    audience = Audience(frozenset({user}))
    draft = Draft("c", b"{", b"}", NOW, views=(DraftView(audience, b"{", b"}"),))
    assert draft.size > 100_000
