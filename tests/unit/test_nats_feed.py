"""The feed: what it delivers, what it reads from the log instead, and when it may be relied on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import suppress
from typing import Any, cast

import pytest
from msgspec import structs

from notifier.delivery.channel import Channel
from notifier.delivery.healing import Healing
from notifier.delivery.history import Head, History
from notifier.delivery.hub import Hub
from notifier.messages import Message
from notifier.nats import feed as feeds
from notifier.nats.feed import NatsFeed
from notifier.nats.key import Key
from notifier.nats.link import Link, Unusable
from notifier.nats.payloads import (
    SIGNATURE,
    Beat,
    Notice,
    Seal,
    encode,
    encode_head,
    encode_messages,
)
from notifier.nats.subjects import accounts_subject, company_subject, log_subject
from tests.unit.subscribers import NOW, message
from tests.unit.worlds import catalogue
from tests.waiting import until

SEAL = Seal(b"key")


class Log(History):
    """A log in the test's hands."""

    def __init__(self) -> None:
        self.stored: list[Message] = []
        self.heads = asyncio.Event()
        self.heads.set()
        self.reads = 0

    def store(self, *messages: Message) -> None:
        self.stored += messages

    async def head(self, company: str) -> Head:
        own = [each.position for each in self.stored if each.company == company]
        await self.heads.wait()
        return Head(max(own, default=0), NOW if own else None)

    async def page(self, company: str, after: int, epoch: str) -> list[Message]:
        self.reads += 1
        await asyncio.sleep(0)
        return [each for each in self.stored if each.company == company and each.position > after]


class FakeLink:
    """Takes commands, and lets the test receive."""

    def __init__(self) -> None:
        self.is_connected = True
        self.subjects: list[str] = []
        self.fails = False

    def add(self, listener: object) -> None: ...

    async def subscribe(self, subject: str) -> str:
        if self.fails:
            raise Unusable
        self.subjects.append(subject)
        return subject

    async def unsubscribe(self, subject: str) -> None:
        self.subjects.remove(subject)

    async def flush(self) -> None:
        await asyncio.sleep(0)


class FakeKey:
    def __init__(self) -> None:
        self.seal = SEAL
        self.rejections = 0

    def rejected(self) -> None:
        self.rejections += 1


class World:
    """A feed between a hub and a link. `delivered`: positions by company, in order."""

    def __init__(self) -> None:
        self.log, self.link, self.key = Log(), FakeLink(), FakeKey()
        self.hub = Hub(self.log, 24, catalogue())
        self.hub.begin_epoch("e")
        self.delivered: list[tuple[str, int]] = []
        self.changes = self.configurations = 0
        self.accounts: list[Collection[str] | None] = []
        self.is_relay = False
        self.feed = NatsFeed(
            self.hub,
            Healing(self.hub, self.log, self.deliver),
            cast("Link", self.link),
            cast("Key", self.key),
            "n",
            is_relay=lambda: self.is_relay,
            on_configuration=self._configured,
            on_accounts=self.accounts.append,
        )
        self.feed.changed = self._changed
        self.number = 0

    def _changed(self) -> None:
        self.changes += 1

    def _configured(self) -> None:
        self.configurations += 1

    def deliver(self, messages: Sequence[Message]) -> None:
        assert messages
        self.delivered += [(each.company, each.position) for each in messages]
        self.hub.deliver(messages)

    def receive(self, subject: str, payload: bytes, seal: Seal = SEAL) -> None:
        headers = f"NATS/1.0\r\n{SIGNATURE}: {seal.sign(subject, payload)}\r\n\r\n"
        self.feed.received(subject, payload, headers.encode())

    def receives(self, *messages: Message, epoch: str = "e", seal: Seal = SEAL) -> None:
        self.receive(
            company_subject("n", messages[0].company), encode_messages(epoch, messages), seal
        )

    def receives_head(self, company: str, position: int) -> None:
        self.receive(company_subject("n", company), encode_head("e", company, position))

    def beats(self, count: int = 1, **changes: Any) -> None:
        for _ in range(count):
            self.number += 1
            given = {
                "term": "t",
                "epoch": "e",
                "seq": 0,
                "missed": 0,
                "configuration": 0,
                "notices": 0,
            }
            self.receive(
                log_subject("n"), encode(Beat(**{"number": self.number, **given, **changes}))
            )

    async def joins(self) -> None:
        self.beats(feeds.BEATS)
        assert await self.feed.subscribe()
        assert self.feed.start()

    async def opens(self, company: str = "c") -> Channel:
        return await self.hub.open(company)

    async def has_delivered(self, *expected: int, company: str = "c") -> None:
        """Returns when exactly these positions of the company were delivered."""

        async def is_so() -> bool:
            return [at for name, at in self.delivered if name == company] == [*expected]

        await until(is_so)

    async def subscribes(self, *companies: str) -> None:
        """Returns when exactly these companies are subscribed to."""

        async def is_so() -> bool:
            return self.link.subjects == [company_subject("n", each) for each in companies]

        await until(is_so)


@pytest.fixture
async def world(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    """No silence ends the path, however long a busy machine takes, unless a test wants one."""
    monkeypatch.setattr(feeds, "SILENCE_SECONDS", 3600.0)
    world = World()
    running = asyncio.create_task(world.feed.run())
    yield world
    running.cancel()
    with suppress(asyncio.CancelledError):
        await running
    if world.feed._silence is not None:
        world.feed._silence.cancel()


# --- messages


async def test_messages_are_delivered_once_and_in_order(world: World) -> None:
    await world.opens()
    await world.joins()
    world.receives(message(1), message(2))
    world.receives(message(2))  # repeated
    world.receives(message(1), message(2), message(3))  # overlapping
    await world.has_delivered(1, 2, 3)
    assert world.log.reads == 0


async def test_a_lost_message_is_read_from_the_log_before_the_next_one(world: World) -> None:
    await world.opens()
    await world.joins()
    world.log.store(*(message(at) for at in (1, 2, 3)))
    world.receives(message(1))
    world.receives(message(3))
    await world.has_delivered(1, 2, 3)
    world.receives(message(2))  # late
    world.receives(message(4))
    await world.has_delivered(1, 2, 3, 4)


async def test_a_lost_last_message_is_found_by_a_head(world: World) -> None:
    await world.opens()
    await world.joins()
    world.log.store(message(1), message(2))
    world.receives_head("c", 2)
    await world.has_delivered(1, 2)
    world.receives_head("c", 2)
    world.receives_head("c", 1)
    assert world.log.reads == 1


async def test_messages_that_the_log_no_longer_has_end_the_channel(world: World) -> None:
    await world.opens()
    await world.joins()
    world.log.store(message(7))
    world.receives(message(7))

    async def is_dropped() -> bool:
        return world.hub.channel("c") is None

    await until(is_dropped)
    assert world.delivered == []


async def test_a_position_that_is_given_out_again_ends_the_channel(world: World) -> None:
    """Others have deleted messages or positions: what follows is not what the clients lack."""
    await world.opens()
    await world.joins()
    world.receives(message(1), message(2))
    world.receives(message(2))
    assert world.hub.accepted("c") == 2
    world.receives(structs.replace(message(2), seq=4), structs.replace(message(3), seq=5))
    assert world.hub.channel("c") is None
    assert world.delivered == [("c", 1), ("c", 2)]


async def test_a_message_with_a_wrong_signature_or_of_another_epoch_is_not_delivered(
    world: World,
) -> None:
    await world.opens()
    await world.joins()
    world.receives(message(1), seal=Seal(b"other"))
    world.receives(message(1), epoch="former")
    payload = encode_messages("e", [message(1)])
    world.feed.received(company_subject("n", "c"), payload, b"")
    other = f"NATS/1.0\r\n{SIGNATURE}: {SEAL.sign(company_subject('n', 'd'), payload)}\r\n\r\n"
    world.feed.received(company_subject("n", "c"), payload, other.encode())
    assert (world.delivered, world.key.rejections, world.feed.is_proven) == ([], 3, True)


async def test_after_another_key_the_stream_must_read_the_log_before_messages_are_delivered(
    world: World,
) -> None:
    """The server was started again: its log may have been rewound, and these follow messages that are lost."""
    await world.opens()
    await world.joins()
    world.receives(message(1))
    world.key.seal = renewed = Seal(b"renewed")
    world.log.store(message(1), message(2))
    world.receives(message(2), seal=renewed)
    assert (world.delivered, world.feed.is_wanted) == ([("c", 1)], False)
    world.feed.stop()  # by the stream
    assert await world.feed.subscribe()
    assert not world.feed.start()  # no beats


async def test_messages_of_companies_without_a_channel_are_ignored(world: World) -> None:
    await world.joins()
    world.receives(message(1, "d"))
    assert (world.delivered, world.feed._wanted) == ([], {})


async def test_messages_that_pass_while_a_channel_opens_are_delivered(world: World) -> None:
    await world.joins()
    world.log.heads.clear()
    opening = asyncio.create_task(world.opens())
    await world.subscribes("c")
    world.receives(message(1))
    world.log.store(message(1), message(2))  # the second one is lost
    world.receives(message(3))
    world.log.store(message(3))
    world.log.heads.set()
    await opening
    await world.has_delivered(1, 2, 3)


async def test_a_channel_that_opens_while_the_path_changes_is_compared_with_the_log(
    world: World,
) -> None:
    await world.joins()
    world.log.heads.clear()
    opening = asyncio.create_task(world.opens())
    await world.subscribes("c")
    world.feed.stop()
    world.log.store(message(1))  # before the stream follows the log again
    world.log.heads.set()
    await opening
    await world.has_delivered(1)


async def test_a_channel_that_still_opens_when_the_log_is_followed_again_is_compared_with_it(
    world: World,
) -> None:
    await world.joins()
    world.feed.stop()
    world.log.heads.clear()
    opening = asyncio.create_task(world.opens())

    async def has_read_the_head() -> bool:
        return "c" in world.hub._early

    await until(has_read_the_head)
    world.log.store(message(1))  # before the stream follows the log again
    world.feed.resumed()
    world.log.heads.set()
    await opening
    await world.has_delivered(1)


async def test_messages_that_come_before_the_start_are_delivered_after_it(world: World) -> None:
    await world.opens()
    world.beats(feeds.BEATS)
    assert await world.feed.subscribe()
    world.receives(message(1))
    world.log.store(message(1))
    await asyncio.sleep(0)
    assert world.delivered == []
    assert world.feed.start()
    await world.has_delivered(1)


async def test_subscriptions_follow_the_channels(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("notifier.delivery.hub.IDLE_CHANNELS", 1)
    channel = await world.opens()
    assert world.link.subjects == []
    await world.joins()
    await world.opens("d")
    assert world.link.subjects == ["n.company.c", "n.company.d"]
    world.hub.close(channel)
    await world.subscribes("d")
    world.feed.stop()
    await world.subscribes()


# --- beats


async def test_two_beats_prove_the_path_unless_this_node_relays(world: World) -> None:
    world.beats()
    assert not world.feed.is_proven
    world.beats()
    assert (world.feed.is_proven, world.feed.is_wanted, world.changes) == (True, True, 1)
    world.is_relay = True
    assert (world.feed.is_proven, world.feed.is_wanted) == (True, False)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda world: world.beats(number=world.number + 2),
        lambda world: world.beats(missed=1),
        lambda world: world.beats(term="other", number=1),
        lambda world: world.beats(epoch="other"),
        lambda world: world.feed.lost(),
    ],
    ids=["lost beat", "not published", "another relay", "another epoch", "lost connection"],
)
async def test_all_that_may_have_lost_messages_ends_the_proof(
    world: World, spoil: Callable[[World], object]
) -> None:
    await world.joins()
    world.beats(5)
    before = world.changes
    spoil(world)
    assert (world.feed.is_proven, world.changes > before) == (False, True)


async def test_a_path_that_fails_again_and_again_is_proven_later_each_time(world: World) -> None:
    needed = []
    for missed in range(6):
        beats = 0
        while not world.feed.is_proven:
            world.beats(missed=missed)
            beats += 1
        needed.append(beats)
        world.beats(missed=missed + 1)
    assert needed == [2, 3, 7, 15, 15, 15]  # the beat that shows the failure is the first one
    world.beats(feeds.STEADY_BEATS + feeds.MOST_BEATS, missed=6)
    world.beats(missed=7)
    assert not world.feed.is_proven
    world.beats(missed=7)
    assert world.feed.is_proven


async def test_repeated_and_old_beats_prove_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await world.joins()
    silent = asyncio.Event()
    world.feed.changed = silent.set
    monkeypatch.setattr(feeds, "SILENCE_SECONDS", 0.5)
    world.beats()  # the last one that proves anything
    world.feed.logged(10)  # the log has more than the next beats report

    async def is_silent() -> bool:
        world.beats(seq=9)
        world.beats(number=1)  # a repetition
        world.number -= 1
        world.beats(term="former", number=1, seq=8)
        world.number -= 1
        return silent.is_set()

    await until(is_silent)
    assert not world.feed.is_proven
    world.beats(2 * feeds.BEATS, seq=10)
    assert world.feed.is_proven


async def test_a_configuration_is_announced_by_a_beat(world: World) -> None:
    world.beats()
    world.beats()
    assert world.configurations == 0
    world.beats(configuration=1)
    world.beats(configuration=1)
    assert world.configurations == 1
    world.beats(term="other", number=1)  # it may have missed an announcement
    assert world.configurations == 2


async def test_a_server_that_takes_no_subscriptions_leaves_the_log_in_charge(world: World) -> None:
    await world.opens()
    world.beats(feeds.BEATS)
    world.link.fails = True
    assert not await world.feed.subscribe()
    assert not world.feed.start()
    world.link.fails = False
    assert await world.feed.subscribe()
    world.feed.lost()
    assert not world.feed.start()


async def test_notices_of_accounts_reach_every_node_and_a_lost_one_means_all(world: World) -> None:
    notice = encode(Notice(["u1"]))
    await world.joins()
    world.receive(accounts_subject("n"), notice)
    world.beats(notices=1)
    assert world.accounts == [["u1"]]
    world.beats(notices=2)  # one was lost
    world.beats(notices=2)
    assert world.accounts == [["u1"], None]
    world.receive(accounts_subject("n"), notice, Seal(b"other"))
    world.feed.stop()
    world.feed.resumed()  # messages of other companies may have been missed until then
    assert world.accounts == [["u1"], None, None]


async def test_beats_that_come_late_prove_nothing_though_they_are_consecutive(world: World) -> None:
    """A server in between may have held them back, and hold back all that follows: no silence would end the path."""
    world.beats(seq=9)
    world.feed.lost()
    world.feed.logged(10)  # the log has more than the next beats report
    world.beats(2 * feeds.MOST_BEATS, seq=9)
    assert not world.feed.is_proven
    world.beats(feeds.BEATS, seq=10)
    assert world.feed.is_proven


async def test_a_repeated_notice_does_not_stand_for_a_lost_one(world: World) -> None:
    await world.joins()
    first, third = (encode(Notice([f"u{number}"], "t", number)) for number in (1, 3))
    world.receive(accounts_subject("n"), first)
    world.beats(notices=1)
    assert world.accounts == [["u1"]]
    world.receive(accounts_subject("n"), first)  # once more; that of another user is lost
    world.receive(accounts_subject("n"), encode(Notice(["u2"], "former", 2)))
    assert world.accounts == [["u1"]]
    world.beats(notices=2)
    assert world.accounts == [["u1"], None]
    world.receive(accounts_subject("n"), third)
    world.receive(accounts_subject("n"), encode(Notice(["u5"], "t", 5)))  # behind one that is lost
    world.beats(notices=5)
    assert world.accounts == [["u1"], None, ["u3"], None]
