"""The queue of reports between the connection and the application."""

from __future__ import annotations

from notifier.client import Recovered, Status
from notifier.client.inbox import MAX_WAITING, Inbox
from tests.timeless import timeless

LIVE = Status(state="live", company="a")


def report(position: int = 1) -> Recovered:
    return Recovered(company="a", position=position, epoch="e")


def test_reports_are_taken_in_order() -> None:
    inbox = Inbox("a")
    inbox.put(report(1))
    inbox.put(report(2))
    assert [inbox.take(), inbox.take(), inbox.take()] == [report(1), report(2), None]


def test_a_status_is_the_latest_before_it_is_taken() -> None:
    inbox = Inbox("a")
    assert inbox.status == Status(state="connecting", company="a")
    inbox.put(report())
    inbox.put(LIVE)
    assert inbox.status == LIVE


def test_discard_keeps_only_statuses() -> None:
    inbox = Inbox("a")
    for each in (report(1), LIVE, report(2)):
        inbox.put(each)
    inbox.discard()
    assert [inbox.take(), inbox.take()] == [LIVE, None]


def test_a_full_inbox_has_room_again_when_half_is_taken() -> None:
    inbox = Inbox("a")
    for position in range(MAX_WAITING):
        assert inbox.room.is_set()
        inbox.put(report(position))
    for _ in range(MAX_WAITING // 2):
        assert not inbox.room.is_set()
        inbox.take()
    assert inbox.room.is_set()


def test_discard_makes_room() -> None:
    inbox = Inbox("a")
    for position in range(MAX_WAITING):
        inbox.put(report(position))
    inbox.discard()
    assert inbox.room.is_set()


@timeless
async def test_a_report_or_a_wake_ends_the_wait() -> None:
    inbox = Inbox("a")
    inbox.put(report())
    await inbox.wait()
    inbox.wake()
    await inbox.wait()
