"""A long poll's answer: what completes it, what it holds, and its bounds."""

from __future__ import annotations

import asyncio
import json
from typing import cast

import pytest

from notifier.delivery.state import State
from notifier.delivery.subscription import Subscription
from notifier.errors import Restart
from notifier.messages import (
    CompanyOnly,
    CompanyRevoked,
    Expiry,
    Subscribed,
    SubscribeResult,
    TokenExpiring,
)
from notifier.transport.polling import PAGE_BYTES, LongPoll


class Live:
    """A subscription, as far as a poll looks at it."""

    def __init__(self, *, live: bool) -> None:
        self.live = live


class Listener:
    """Counts how often the poll reports its end."""

    def __init__(self) -> None:
        self.ends = 0

    def paused(self) -> None:
        raise AssertionError

    resumed = paused

    def closed(self) -> None:
        self.ends += 1


def begun(*, live: bool = True, recovered: bool = True, immediate: bool = False) -> LongPoll:
    poll = LongPoll(immediate=immediate)
    poll.listener = Listener()
    data = Subscribed(company_id="c", position=41, epoch="e", at="then", recovered=recovered)
    subscription = cast("Subscription", Live(live=live))
    poll.begin(SubscribeResult(success=True, data=data), subscription)
    return poll


def write(poll: LongPoll, *messages: dict[str, object]) -> None:
    bodies = [json.dumps(message).encode() for message in messages]
    poll.write(b",".join(bodies), bodies)


def change(position: int, size: int = 0) -> dict[str, object]:
    return {"Type": "EventCreated", "Position": position, "At": f"at {position}", "X": "x" * size}


async def answer(poll: LongPoll) -> dict[str, object]:
    await poll.wait(0)
    page: dict[str, object] = json.loads(b"".join(poll.page().parts()))
    return page


async def test_the_first_live_messages_complete_it() -> None:
    poll = begun()
    waiting = asyncio.create_task(poll.wait(3600))
    await asyncio.sleep(0)
    assert not waiting.done()
    write(poll, change(42), change(43))
    await waiting
    write(poll, change(44))
    assert await answer(poll) == {
        "CompanyId": "c",
        "Position": 43,
        "Epoch": "e",
        "At": "at 43",
        "Recovered": True,
        "Messages": [change(42), change(43)],
    }
    assert cast("Listener", poll.listener).ends == 1


async def test_replayed_messages_are_taken_up_to_a_size() -> None:
    poll = begun(live=False)
    written = 0
    while not cast("Listener", poll.listener).ends:
        written += 1
        write(poll, change(41 + written, size=10_000))
        await poll.drain()
    write(poll, change(42 + written))
    page = await answer(poll)
    assert page["Position"] == 41 + written
    assert len(cast("list[object]", page["Messages"])) == written
    assert PAGE_BYTES <= poll.page().size < PAGE_BYTES + 11_000


async def test_without_a_message_it_is_empty() -> None:
    page = await answer(begun())
    assert (page["Position"], page["At"], page["Messages"]) == (41, "then", [])


@pytest.mark.parametrize(("recovered", "immediate"), [(False, False), (True, True)])
async def test_a_client_without_a_position_gets_the_present_one_at_once(
    recovered: bool, immediate: bool
) -> None:
    poll = begun(recovered=recovered, immediate=immediate)
    await poll.wait(3600)
    write(poll, change(42))
    assert (await answer(poll))["Messages"] == []


async def test_a_resync_that_begins_an_epoch_gives_the_answer_its_epoch() -> None:
    poll = begun()
    data = {"CompanyId": "c", "Reason": "epoch", "Epoch": "next"}
    write(poll, {"Type": "Resync", "Data": data, "Position": 1, "At": "now"})
    page = await answer(poll)
    assert (page["Epoch"], page["Position"], page["At"]) == ("next", 1, "now")


async def test_a_message_without_a_position_changes_none() -> None:
    poll = begun()
    poll.send(CompanyRevoked(data=CompanyOnly(company_id="c")))
    page = await answer(poll)
    assert page["Position"] == 41
    assert page["Messages"] == [{"Type": "CompanyRevoked", "Data": {"CompanyId": "c"}}]


async def test_the_warning_that_a_token_expires_completes_nothing() -> None:
    poll = begun()
    poll.send(TokenExpiring(data=Expiry(expires_at="soon")))
    assert (await answer(poll))["Messages"] == []


async def test_a_closure_takes_the_place_of_an_empty_answer() -> None:
    poll = begun()
    poll.end(Restart())
    await poll.wait(3600)
    with pytest.raises(Restart):
        poll.page()


async def test_a_closure_leaves_the_messages_that_are_there() -> None:
    poll = begun(live=False)
    write(poll, change(42))
    poll.end(Restart())
    assert (await answer(poll))["Position"] == 42


async def test_a_state_is_sent_by_entity_in_parts_and_byte_for_byte() -> None:
    pages = tuple(
        b'{"Type":"State","Data":{"CompanyId":"a{\\"Rows\\":[","Entity":"%b","Rows":[%b]}}' % each
        for each in (
            (b"Event", b'{"EventId":1,"Title":"]}}"},{"EventId":2}'),
            (b"Event", b'{"EventId":3,"Big":12345678901234567890}'),
            (b"Company", b'{"CompanyId":"a{\\"Rows\\":["}'),
        )
    )
    for given, expected in (
        (pages, b'"State":{"Event":[%b,%b],"Company":[%b]},"Messages":[]}'),
        (pages[2:], b'"State":{"Company":[%b]},"Messages":[]}'),
        ((), b'"State":{},"Messages":[]}'),
    ):
        poll = LongPoll(immediate=False)
        data = Subscribed(company_id="a", position=7, epoch="e")
        subscription = cast("Subscription", Live(live=False))
        poll.begin(
            SubscribeResult(success=True, data=data), subscription, State("e", 7, None, given)
        )
        page = poll.page()
        parts = [bytes(part) for part in page.parts()]
        rows = tuple(each[each.index(b'"Rows":[') + 8 : -3] for each in given)
        assert b"".join(parts).endswith(expected % rows)
        assert page.size == len(b"".join(parts))
        json.loads(b"".join(parts))


@pytest.mark.parametrize("value", [5, None, {}, [], "another"])
async def test_a_property_of_a_row_may_have_the_name_of_the_epoch(value: object) -> None:
    """Of a table with a column `epoch`."""
    poll = begun()
    write(poll, change(42) | {"Data": {"Epoch": value}})
    page = await answer(poll)
    assert (page["Position"], page["Epoch"]) == (42, "e")
