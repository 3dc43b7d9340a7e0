"""The queue of reports between the connection and the application."""

from __future__ import annotations

from notifier.client import Recovered, Report, Resync, Status
from notifier.client.feed import Arrival, Feed, Filter
from notifier.client.inbox import MAX_WAITING, Inbox
from notifier.client.progress import Progress
from tests.timeless import timeless

LIVE = Status(state="live", company="a")


FEED, OTHER = (Feed(Progress(company, None), Filter(), None, LIVE) for company in "ab")


def report(position: int = 1) -> Recovered:
    return Recovered(company="a", position=position, epoch="e")


def taken(inbox: Inbox) -> list[Report | Arrival]:
    """Everything in the inbox."""
    found = []
    while (entry := inbox.take()) is not None:
        found.append(entry[1])
    return found


def test_reports_are_taken_in_order() -> None:
    inbox = Inbox()
    inbox.put(FEED, report(1))
    inbox.put(FEED, report(2))
    assert taken(inbox) == [report(1), report(2)]
    assert inbox.take() is None


def test_discard_keeps_statuses_and_other_companies() -> None:
    inbox = Inbox()
    for feed, each in ((FEED, report(1)), (FEED, LIVE), (OTHER, report(2)), (FEED, report(3))):
        inbox.put(feed, each)
    inbox.discard(FEED)
    assert taken(inbox) == [LIVE, report(2)]


def test_a_resync_replaces_the_reports_of_its_company_and_comes_before_its_arrivals() -> None:
    inbox = Inbox()
    resync, arrival = Resync(company="a", reason="bulk", position=3, epoch="e"), Arrival("7", 2)
    for feed, each in ((FEED, report(1)), (FEED, arrival), (OTHER, report(1)), (FEED, resync)):
        inbox.put(feed, each)
    assert taken(inbox) == [report(1), resync, arrival]


def test_a_full_inbox_has_room_again_when_half_is_taken() -> None:
    inbox = Inbox()
    for position in range(MAX_WAITING):
        assert inbox.room.is_set()
        inbox.put(FEED, report(position))
    for _ in range(MAX_WAITING // 2):
        assert not inbox.room.is_set()
        inbox.take()
    assert inbox.room.is_set()


def test_discard_makes_room() -> None:
    inbox = Inbox()
    for position in range(MAX_WAITING):
        inbox.put(FEED, report(position))
    inbox.discard(FEED)
    assert inbox.room.is_set()


@timeless
async def test_a_report_or_a_wake_ends_the_wait() -> None:
    inbox = Inbox()
    inbox.put(FEED, report())
    await inbox.wait()
    inbox.wake()
    await inbox.wait()
