"""Groups of subscribers with filters: who is written what, encoded how often."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from msgspec.structs import replace
from prometheus_client import REGISTRY

from notifier.delivery import channel as channels
from notifier.delivery import filter as filters
from notifier.delivery import groups
from notifier.delivery.channel import Channel
from notifier.delivery.encoding import DEFLATED, TEXT
from notifier.delivery.filter import Change, Filter
from notifier.delivery.recent import Budget
from notifier.delivery.subscriber import Subscriber
from notifier.messages import Message, View
from tests.timeless import timeless
from tests.unit.subscribers import NOW, Recorder, positions, written
from tests.unit.test_channel import Counting

ENTITIES = {"EventCreated": "Event", "CompanyUpdated": "Company"}
PROPERTIES = {"Event": frozenset({"Title", "Room"}), "Company": frozenset({"Name"})}
EVENTS = Filter.parse(["Event"], None, PROPERTIES)
COMPANIES = Filter.parse(["Company"], None, PROPERTIES)


def channel_at(position: int = 0) -> Channel:
    return Channel("c", "e", position, None, Budget(), entities=ENTITIES)


def join(channel: Channel, wanted: Filter, encoding: Any = TEXT, user: str = "u") -> Recorder:
    subscriber = Recorder(user)
    channel.join(subscriber, encoding, subscriber.written.append, wanted)
    return subscriber


async def steps(count: int) -> None:
    """Lets every task take so many steps."""
    for _ in range(count):
        await asyncio.sleep(0)


async def first_slice(subscriber: Recorder) -> None:
    """Returns when the first subscriber was written to, and no other."""
    await steps(1)
    assert subscriber.written


def change(position: int, kind: str = "EventCreated", size: int = 0, **rest: Any) -> Message:
    body = json.dumps({"Type": kind, "Data": {"Pad": "x" * size}, "Position": position})
    return Message(position, "c", position, NOW, NOW, body.encode(), **rest)


def company(position: int) -> Message:
    return change(position, "CompanyUpdated")


async def test_a_member_that_joins_a_group_that_is_behind_gets_no_skipped() -> None:
    channel = channel_at()
    early = join(channel, EVENTS)
    channel.deliver([company(1)])
    late = join(channel, EVENTS)
    channel.deliver([change(2)])
    assert early.positions() == [1, 2]
    assert late.positions() == [2]
    channel.deliver([company(3), change(4)])
    assert late.positions() == [2, 3, 4]


async def test_a_member_that_joins_before_the_end_of_the_range_gets_its_skipped() -> None:
    channel = channel_at()
    join(channel, EVENTS)
    channel.deliver([company(1)])
    late = join(channel, EVENTS)
    channel.deliver([company(2), change(3)])
    assert late.positions() == [2, 3]


async def test_a_member_of_a_group_that_is_behind_leaves_at_the_position_that_it_has() -> None:
    channel = channel_at()
    early, other = join(channel, EVENTS), Recorder()
    channel.join(other, TEXT, other.written.append)
    channel.deliver([change(1), company(2)])
    late = join(channel, EVENTS)
    assert [channel.leave(each) for each in (early, late, other)] == [1, 2, 2]


async def test_groups_that_are_due_the_same_share_its_frames() -> None:
    encoding = Counting()
    channel = channel_at()
    wanted = [Filter.parse(["Event"], None, PROPERTIES) for _ in range(20)]
    members = [join(channel, each, encoding) for each in wanted for _ in range(3)]
    channel.deliver([change(1)])
    channel.deliver([company(2), change(3)])
    assert encoding.made == [("e", 1), ("e", 2), ("e", 3)]
    first, *others = members
    for other in others:
        assert all(one is two for one, two in zip(first.written, other.written, strict=True))


async def test_a_message_is_compared_once_however_many_subscribers_there_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    parsed: list[bytes] = []

    class CountedChange(Change):
        def __init__(self, body: bytes, entities: Any) -> None:
            parsed.append(body)
            super().__init__(body, entities)

    compared: list[object] = []
    meets = filters._meets

    def counted_meets(row: filters.Row, conditions: filters.Conditions) -> bool:
        compared.append(conditions)
        return meets(row, conditions)

    monkeypatch.setattr(groups, "Change", CountedChange)
    monkeypatch.setattr(filters, "_meets", counted_meets)
    channel = channel_at()
    titles = [
        Filter.parse(None, {"Event": {"Title": [n], "Room": [1, 2]}}, PROPERTIES) for n in range(50)
    ]
    members = [join(channel, each) for each in titles for _ in range(4)]
    body = b'{"Type":"EventCreated","Data":{"Title":7,"Room":2},"Position":1}'
    channel.deliver([Message(1, "c", 1, NOW, NOW, body)])
    assert parsed == [body]
    assert len(compared) == 1  # the index leaves out the other filters
    assert [each.positions() for each in members if each.written] == [[1]] * 4


async def test_without_filters_no_message_is_parsed_and_no_timer_runs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(groups, "Change", None)
    channel = channel_at()
    subscriber = Recorder()
    channel.join(subscriber, TEXT, subscriber.written.append)
    former = join(channel, EVENTS)
    channel.leave(former)
    channel.deliver([change(1)])
    assert subscriber.positions() == [1]
    assert channel._groups is None
    assert channel._skipping is None


@pytest.mark.parametrize("size", [0, 200_000])
async def test_a_paused_member_is_written_to_by_write_until_it_resumes(size: int) -> None:
    channel = channel_at()
    direct: list[bytes] = []
    subscriber = Recorder()
    channel.join(subscriber, TEXT, direct.append, EVENTS)
    channel.paused(subscriber)
    channel.deliver([company(1), change(2, size=size)])
    await written(channel)
    assert direct == []
    assert subscriber.positions() == [1, 2]
    channel.resumed(subscriber, direct.append)
    channel.deliver([change(3, size=size)])
    await written(channel)
    assert positions(b"".join(direct)) == [3]
    assert subscriber.positions() == [1, 2]


async def test_a_member_that_leaves_and_returns_during_a_batch_has_the_batch_already(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(channels, "SLICE", 1)
    channel = channel_at()
    first, second = join(channel, EVENTS), join(channel, EVENTS)
    channel.deliver([change(1)])
    await first_slice(first)
    channel.leave(second)
    channel.join(second, TEXT, second.written.append, EVENTS)  # at position 1
    await written(channel)
    assert second.positions() == []
    channel.deliver([change(2)])
    await written(channel)
    assert [each.positions() for each in (first, second)] == [[1, 2], [2]]


async def test_members_that_join_during_a_batch_get_what_follows_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(channels, "SLICE", 1)
    channel = channel_at()
    first, _ = join(channel, EVENTS), join(channel, EVENTS)
    channel.deliver([change(1), company(2)])
    await first_slice(first)
    late = join(channel, EVENTS)
    channel.deliver([change(3)])
    await written(channel)
    assert first.positions() == [1, 2, 3]
    assert late.positions() == [3]


async def test_each_encoding_has_its_group() -> None:
    channel = channel_at()
    plain, packed = join(channel, EVENTS), join(channel, EVENTS, DEFLATED)
    channel.deliver([company(1), change(2, size=1000)])
    assert plain.positions() == packed.positions() == [1, 2]
    assert len(packed.written[0]) < len(plain.written[0]) / 2


async def test_groups_that_are_behind_catch_up_when_the_time_has_come(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(channels, "SKIPPED_SECONDS", 0.0)
    channel = channel_at()
    behind, level = join(channel, EVENTS), join(channel, COMPANIES)
    channel.deliver([change(1), company(2), company(3)])
    await steps(5)
    assert behind.positions() == [1, 3]
    assert level.positions() == [1, 2, 3]
    assert b'"Type":"Skipped"' in behind.written[1]


@timeless
async def test_one_skipped_covers_what_came_meanwhile_not_later_than_five_seconds() -> None:
    channel = channel_at()
    behind = join(channel, EVENTS)
    for position in (1, 2, 3):
        channel.deliver([company(position)])
        await asyncio.sleep(1)
    assert behind.positions() == []
    await asyncio.sleep(2)
    assert behind.positions() == [3]
    channel.deliver([company(4)])
    await asyncio.sleep(5)
    assert behind.positions() == [3, 4]


async def test_the_metrics_count_distinct_filters_and_what_is_written() -> None:
    names = ("filters", "skipped_messages_total", "delivered_messages_total")

    def counted() -> list[float]:
        return [REGISTRY.get_sample_value(f"notifier_{name}") or 0 for name in names]

    before = counted()

    def new() -> list[float]:
        return [now - then for now, then in zip(counted(), before, strict=True)]

    channel = channel_at()
    members = [join(channel, each) for each in (EVENTS, EVENTS, COMPANIES)]
    channel.deliver([company(1)])
    members.append(join(channel, EVENTS))  # has come to position 1
    assert new() == [2, 0, 1]
    channel.deliver([change(2)])
    assert new() == [2, 2, 1 + 3]
    for member in members:
        channel.leave(member)
    assert new() == [0, 2, 4]


async def test_a_metric_counts_the_messages_that_are_hidden_from_users() -> None:
    name = "notifier_restricted_messages_total"
    before = REGISTRY.get_sample_value(name) or 0
    channel, hidden = channel_at(), change(2)
    join(channel, EVENTS)
    channel.deliver([change(1), replace(hidden, views=(view("u", of=hidden),)), change(3)])
    assert REGISTRY.get_sample_value(name) == before + 1


class Users(dict[str, set[Subscriber]]):
    """The subscribers of each user. `found`: the users that were looked up; all of them cannot be listed."""

    def __init__(self, users: Mapping[str, set[Subscriber]]) -> None:
        super().__init__(users)
        self.found: list[str] = []

    def get(self, user: str, default: Any = None) -> Any:
        self.found.append(user)
        return super().get(user, default)

    def __iter__(self) -> Iterator[str]:
        raise AssertionError("the users of a company are not scanned")


@pytest.mark.parametrize(("connected", "named"), [(5000, 2), (2, 100_000)])
async def test_those_who_see_a_row_are_found_by_index(connected: int, named: int) -> None:
    planned = groups.Groups(ENTITIES)
    users: dict[str, set[Subscriber]] = {}
    for number in range(connected):
        subscriber = Recorder(f"u{number}")
        planned.join(subscriber, None, TEXT, subscriber.written.append, 0)
        users[subscriber.user] = {subscriber}
    index = Users(users)
    message = change(1)
    seen = [f"u{number}" for number in range(1, named + 1)]
    restricted = replace(message, views=(view(*seen, of=message),))
    dues = planned.plan_views(restricted, index)
    both = {f"u{number}" for number in range(1, connected)} & {*seen}
    assert sorted(index.found) == sorted(both)
    assert {member.user for due in dues for member in due.members} == both


def view(*users: str, of: Message) -> View:
    return View(frozenset(users), False, of.body)


async def test_a_revocation_reaches_members_of_groups_after_the_message_that_carries_it() -> None:
    channel = channel_at()
    one, two = join(channel, EVENTS, user="one"), join(channel, COMPANIES, user="two")
    channel.deliver([change(1, revokes=("two",)), change(2, revokes=("*",))])
    assert one.rechecks == [(2, False)]
    assert two.rechecks == [(0, True), (0, False)]  # its filter passes neither of them


async def test_members_are_dropped_with_their_channel() -> None:
    channel = channel_at()
    member = join(channel, EVENTS)
    channel.drop()
    assert member.is_dropped
