"""The hub: channels opened once and without a gap, kept for a while, dropped when they must be."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from msgspec import structs

from notifier.delivery import channel as channels
from notifier.delivery import hub as hubs
from notifier.delivery import replay_pages
from notifier.delivery.channel import SLICE, Channel
from notifier.delivery.encoding import TEXT
from notifier.delivery.history import Head, History
from notifier.delivery.hub import Hub
from notifier.errors import DatabaseError
from notifier.messages import USER_BYTES, Message, View
from tests.unit.subscribers import NOW, Recorder, message, written
from tests.unit.worlds import catalogue


class Fake(History):
    """A log in the test's hands: heads as it answers, pages from a list."""

    def __init__(self, head: int = 0) -> None:
        self.reads: list[str] = []
        self.answer: Callable[[], Head] = lambda: Head(head, NOW if head else None)
        self.read = asyncio.Event()
        self.open = asyncio.Event()
        self.open.set()
        self.stored: list[Message] = []

    async def head(self, company: str) -> Head:
        self.reads.append(company)
        self.read.set()
        await self.open.wait()
        return self.answer()

    async def page(self, company: str, after: int, epoch: str) -> list[Message]:
        self.read.set()
        await self.open.wait()
        return [each for each in self.stored if each.position > after]


def hub_of(history: History | None = None) -> Hub:
    hub = Hub(history or Fake(), 24, catalogue())
    hub.begin_epoch("e")
    return hub


async def test_a_channel_that_is_opened_while_messages_pass_misses_none_and_doubles_none() -> None:
    history = Fake(head=1)
    history.open.clear()
    hub = hub_of(history)
    opening = asyncio.create_task(hub.open("c"))
    await history.read.wait()
    hub.deliver([message(1), message(2)])
    history.open.set()
    channel = await opening
    assert channel.position == 2
    assert channel.recent.after(1) == [message(2)]


@pytest.mark.parametrize("early", [[3], [2, 4]])
async def test_a_position_is_read_again_where_messages_after_it_did_not_come(
    early: list[int],
) -> None:
    history = Fake(head=1)
    history.open.clear()
    hub = hub_of(history)
    opening = asyncio.create_task(hub.open("c"))
    await history.read.wait()
    for position in early:  # by the path that is followed from now on; the others came by none
        hub.deliver([message(position)])
    heads = [Head(1, NOW), Head(4, NOW)]
    history.answer = lambda: heads.pop(0)
    history.open.set()
    channel = await opening
    assert history.reads == ["c", "c"]
    assert (channel.position, channel.recent.first) == (4, 5)
    hub.deliver([message(5)])
    assert channel.position == 5


@pytest.mark.parametrize("batch", [[3], [3, 4], [2, 4], [2, 3, 5, 6], [2, 2], [1, 2, 4]])
async def test_a_channel_is_dropped_before_it_delivers_behind_a_gap(batch: list[int]) -> None:
    hub = hub_of()
    channel = await hub.open("c")
    client = Recorder()
    channel.join(client, TEXT, client.written.append)
    hub.deliver([message(1)])
    hub.deliver([message(position) for position in batch])
    assert client.positions() == [1]
    assert client.is_dropped
    assert not hub.is_current(channel)


async def test_subscriptions_that_open_a_company_together_share_a_channel_and_a_query() -> None:
    history = Fake()
    hub = hub_of(history)
    one, other = await asyncio.gather(hub.open("c"), hub.open("c"))
    assert one is other
    assert one.pins == 2
    assert history.reads == ["c"]


async def test_messages_wait_only_for_channels_that_are_being_opened() -> None:
    hub = hub_of()
    hub.close(await hub.open("c"))
    assert not hub._early
    hub.drop()
    hub.deliver([message(1)])
    assert not hub._early


async def test_every_subscriber_is_dropped_when_messages_are_missing() -> None:
    hub = hub_of()
    channel = await hub.open("c")
    subscriber = Recorder()
    channel.join(subscriber, TEXT, subscriber.written.append)
    hub.drop()
    assert subscriber.is_dropped
    assert not hub.is_current(channel)


async def test_another_epoch_keeps_the_channels_that_are_in_use() -> None:
    hub = hub_of()
    idle, pinned, followed = [await hub.open(name) for name in ("idle", "pinned", "followed")]
    subscriber = Recorder()
    followed.join(subscriber, TEXT, subscriber.written.append)
    for channel in (idle, followed):
        hub.close(channel)
    hub.deliver([message(1, name) for name in ("idle", "pinned", "followed")])
    hub.begin_epoch("f")
    names = ("idle", "pinned", "followed")
    assert [hub.channel(name) for name in names] == [None, pinned, followed]
    assert hub._budget.used == 0
    assert followed.position == pinned.position == 0
    assert followed.epoch == "f"


async def test_delivered_messages_are_remembered_as_revocations() -> None:
    hub = hub_of()
    hub.deliver([message(1, revokes=("u",)), message(2, revokes=("v", "*"))])
    assert hub.revocations.serial == 3
    assert hub.revocations.since(0, "c", "u")
    assert not hub.revocations.since(0, "d", "u")


async def test_unused_channels_are_kept_for_a_while_the_latest_longest(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(hubs, "IDLE_CHANNELS", 3)
    hub = hub_of()
    used = await hub.open("used")
    followed = await hub.open("followed")
    subscriber = Recorder()
    followed.join(subscriber, TEXT, subscriber.written.append)
    hub.close(followed)
    for name in ("a", "b", "a", "c"):
        channel = await hub.open(name)
        hub.close(channel)
        hub.deliver([message(channel.position + 1, name)])
    names = ("used", "followed", "a", "b", "c")
    assert [name for name in names if hub.channel(name) is not None] == ["used", "followed", "c"]
    assert hub._budget.used == sum(len(each.body) for each in channel.recent.after(0))
    hub.close(used)
    assert hub.channel("used") is used


async def test_a_channel_is_removed_without_reading_the_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """When many thousand companies close at once, each would be looked at for each."""
    looks = 0

    class Watched(Channel):
        @property
        def pins(self) -> int:
            nonlocal looks
            looks += 1
            return self._pins

        @pins.setter
        def pins(self, pins: int) -> None:
            self._pins = pins

    monkeypatch.setattr(hubs, "Channel", Watched)
    monkeypatch.setattr(hubs, "IDLE_CHANNELS", 3)
    hub = hub_of()
    opened = [await hub.open(str(number)) for number in range(100)]
    looks = 0
    for channel in opened:
        hub.close(channel)
    assert looks <= 2 * len(opened)
    left = [number for number in range(100) if hub.channel(str(number)) is not None]
    assert left == [97, 98, 99]


async def test_a_channel_that_is_removed_before_it_is_pinned_is_opened_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(hubs, "IDLE_CHANNELS", 1)
    hub = hub_of()
    await hub.open("used")
    other = await hub.open("other")
    opening = asyncio.create_task(hub.open("c"))
    await asyncio.sleep(0)
    await hub._opening["c"]
    hub.close(other)
    assert hub.channel("c") is None
    assert hub.is_current(await opening)


async def test_a_company_that_outruns_its_sockets_drops_them_and_its_queue() -> None:
    heads = iter([Head(0, None), Head(1000, NOW)])
    history = Fake()
    history.answer = lambda: next(heads)
    hub = hub_of(history)
    channel = await hub.open("c")
    subscribers = [Recorder() for _ in range(SLICE + 1)]  # so many that they are written in slices
    for subscriber in subscribers:
        channel.join(subscriber, TEXT, subscriber.written.append)
    position = 0
    while not subscribers[0].is_dropped:  # the pump never gets its turn
        position += 1
        assert position < 100
        hub.deliver([message(position, size=1024 * 1024)])
    assert position == channels.QUEUE_BYTES // 1024**2 + 1
    assert all(subscriber.is_dropped for subscriber in subscribers)
    assert not channel.overrun
    await written(channel)
    assert not subscribers[0].written
    assert not hub.is_current(channel)
    assert (await hub.open("c")).position == 1000


async def test_one_message_with_views_for_very_many_users_drops_no_socket() -> None:
    """It is larger than a queue may be, but it does not wait for others."""
    hub = hub_of()
    channel = await hub.open("c")
    subscriber = Recorder()
    channel.join(subscriber, TEXT, subscriber.written.append)
    users = frozenset(str(number) for number in range(channels.QUEUE_BYTES // USER_BYTES + 1))
    sent = structs.replace(message(1), views=(View(users, others=False, body=b"{}"),))
    assert sent.size > channels.QUEUE_BYTES
    hub.deliver([sent])
    await written(channel)
    assert not subscriber.is_dropped
    assert hub.is_current(channel)
    assert channel.delivered == 1


async def test_a_channel_does_not_open_at_a_position_of_an_epoch_that_the_node_has_not_come_to() -> (
    None
):
    history = Fake()
    history.answer = lambda: Head(1, NOW, "f")
    hub = hub_of(history)
    opening = asyncio.create_task(hub.open("c"))
    await history.read.wait()
    for _ in range(10):
        await asyncio.sleep(0)
    assert not opening.done()
    hub.begin_epoch("f")
    hub.deliver([message(1)])
    channel = await opening
    assert (channel.epoch, channel.position) == ("f", 1)
    assert history.reads == ["c", "c"]


# --- replay


async def test_clients_that_replay_the_same_messages_share_their_frames() -> None:
    hub = hub_of()
    channel = await hub.open("c")
    hub.deliver([message(n) for n in range(1, 11)])
    one, other = [await hub.replay(channel, 3, TEXT, "u") for _ in range(2)]
    assert one is other
    assert [chunk.last for chunk in one] == [10]
    hub.deliver([message(11)])
    assert (await hub.replay(channel, 3, TEXT, "u"))[-1].last == 11
    assert await hub.replay(channel, 4, TEXT, "u") is not one


async def test_a_replay_ends_before_a_position_that_has_no_message() -> None:
    """PostgreSQL may refuse a message and the Resync in its place."""
    history = Fake(head=10)
    hub = hub_of(history)
    channel = await hub.open("c")
    history.stored = [message(n) for n in range(1, 11) if n != 7]
    (chunk,) = await hub.replay(channel, 3, TEXT, "u")
    assert chunk.bodies == [message(n).body for n in range(4, 7)]
    assert await hub.replay(channel, 6, TEXT, "u") == []


async def test_few_encoded_pages_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replay_pages, "ENCODED_PAGES", 2)
    hub = hub_of()
    channel = await hub.open("c")
    hub.deliver([message(n) for n in range(1, 11)])
    for after in (1, 2, 3):
        await hub.replay(channel, after, TEXT, "u")
    assert len(hub._pages._encoded) == 2


async def test_a_page_of_the_former_epoch_is_not_replayed_in_the_next() -> None:
    history = Fake(head=10)
    hub = hub_of(history)
    channel = await hub.open("c")
    history.stored = [message(n) for n in range(1, 11)]
    history.open.clear()
    history.read.clear()
    replaying = asyncio.create_task(hub.replay(channel, 3, TEXT, "u"))
    await history.read.wait()
    hub.begin_epoch("f")
    hub.deliver([message(n) for n in range(1, 11)])
    history.open.set()
    assert await replaying == []
    assert not hub._pages._encoded


async def test_frames_of_a_former_epoch_are_not_replayed_in_the_next() -> None:
    hub = hub_of()
    channel = await hub.open("c")
    hub.deliver([message(n, size=1) for n in range(1, 11)])
    await hub.replay(channel, 3, TEXT, "u")
    hub.begin_epoch("f")
    hub.deliver([message(n, size=2) for n in range(1, 11)])
    (chunk,) = await hub.replay(channel, 3, TEXT, "u")
    assert chunk.bodies == [message(n, size=2).body for n in range(4, 11)]


class Witness:
    """A listener that records what it is notified of."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    async def opening(self, company: str) -> None:
        self.calls.append(f"opening {company}")

    def opened(self, company: str) -> None:
        self.calls.append(f"opened {company}")

    def closed(self, company: str) -> None:
        self.calls.append(f"closed {company}")


async def test_a_listener_is_notified_before_a_position_is_read_and_when_a_channel_comes_and_goes() -> (
    None
):
    history = Fake(head=3)
    hub, witness = hub_of(history), Witness()
    hub.broker = witness
    history.open.clear()
    opening = asyncio.create_task(hub.open("c"))
    await history.read.wait()
    assert witness.calls == ["opening c"]
    assert (hub.companies(), hub.accepted("c")) == ({"c"}, None)
    history.open.set()
    await opening
    hub.deliver([message(4)])
    assert (hub.companies(), hub.accepted("c")) == ({"c"}, 4)
    hub.drop()
    assert witness.calls == ["opening c", "opened c", "closed c"]
    assert (hub.companies(), hub.accepted("c")) == (set(), None)


async def test_a_listener_is_notified_of_a_channel_that_cannot_be_opened() -> None:
    history = Fake()

    def fails() -> Head:
        raise DatabaseError("no answer")

    history.answer = fails
    hub, witness = hub_of(history), Witness()
    hub.broker = witness
    with pytest.raises(DatabaseError):
        await hub.open("c")
    assert witness.calls == ["opening c", "closed c"]
