"""The relay's side: what is published, in which order, and what is counted as not published."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress
from typing import cast

import msgspec
import pytest

from notifier.messages import Message
from notifier.nats import publisher as publishers
from notifier.nats.key import Key
from notifier.nats.link import Link, Unusable
from notifier.nats.payloads import (
    Beat,
    Messages,
    Seal,
    decode_beat,
    decode_messages,
    decode_notice,
)
from notifier.nats.publisher import NatsPublisher
from notifier.relay.publisher import LocalPublisher
from tests.unit.subscribers import message
from tests.waiting import until

SEAL = Seal(b"key")


class FakeLink:
    """Keeps what is published, and fails when the test wants it."""

    def __init__(self) -> None:
        self.is_connected = True
        self.max_payload = 1024 * 1024
        self.published: list[tuple[str, bytes]] = []
        self.fails = False
        self.sending: Callable[[], None] = lambda: None

    def add(self, listener: object) -> None: ...

    async def publish(self, subject: str, payload: bytes, signature: str) -> None:
        if self.fails:
            raise Unusable("it is gone")
        if subject != "n.log":
            self.sending()
        assert signature == SEAL.sign(subject, payload)
        self.published.append((subject, payload))


class FakeKey:
    seal = SEAL

    def reload(self) -> None: ...


class World:
    """A publisher between a relay and a link. `local`: what this node was served."""

    def __init__(self) -> None:
        self.link = FakeLink()
        self.local: list[Message] = []
        self.publisher = NatsPublisher(
            LocalPublisher(self._accept), cast("Link", self.link), cast("Key", FakeKey()), "n"
        )

    def _accept(self, epoch: str, messages: Sequence[Message]) -> None:
        self.local += messages

    def of(self, company: str) -> list[Messages]:
        return [
            decode_messages(payload)
            for subject, payload in self.link.published
            if subject == f"n.company.{company}"
        ]

    def beats(self) -> list[Beat]:
        return [decode_beat(body) for subject, body in self.link.published if subject == "n.log"]

    async def beat(self, fits: Callable[[Beat], bool] = lambda _: True) -> Beat:
        """The next beat that fits."""
        seen = len(self.link.published)

        async def comes() -> Beat | None:
            later = [body for subject, body in self.link.published[seen:] if subject == "n.log"]
            return next((beat for beat in map(decode_beat, later) if fits(beat)), None)

        found = await until(comes)
        assert found is not None
        return found


@pytest.fixture
async def world(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    monkeypatch.setattr(publishers, "BEAT_SECONDS", 0.02)
    world = World()
    running = asyncio.create_task(world.publisher.run())
    yield world
    running.cancel()
    with suppress(asyncio.CancelledError):
        await running


async def test_messages_are_published_by_company_and_then_counted_by_a_beat(world: World) -> None:
    world.publisher.begin("e", 0)
    batch = [message(1), message(1, "d"), message(2), message(3)]
    numbered = [msgspec.structs.replace(each, seq=seq) for seq, each in enumerate(batch, 1)]
    world.publisher.publish("e", numbered)
    assert world.local == numbered  # at once
    beat = await world.beat(lambda beat: beat.seq == 4)
    assert [payload.after(0) for payload in world.of("c")[:1]] == [
        [each for each in numbered if each.company == "c"]
    ]
    assert [payload.position for payload in world.of("d")[:1]] == [1]
    assert (beat.epoch, beat.missed) == ("e", 0)
    numbers = [each.number for each in world.beats()]
    assert numbers == list(range(1, len(numbers) + 1))
    subjects = [subject for subject, _ in world.link.published]
    counted = next(at for at, each in enumerate(world.beats()) if each.seq == 4)
    beats = [at for at, subject in enumerate(subjects) if subject == "n.log"]
    assert beats[counted] > subjects.index("n.company.d") > subjects.index("n.company.c")


async def test_heads_follow_the_last_message(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("notifier.nats.heads.HEAD_SECONDS", (0.01, 0.01))
    world.publisher.begin("e", 0)
    world.publisher.publish("e", [message(1)])

    async def repeated() -> bool:
        return len(world.of("c")) == 3

    await until(repeated)
    assert [(each.position, len(each.messages)) for each in world.of("c")] == [
        (1, 1),
        (1, 0),
        (1, 0),
    ]


@pytest.mark.parametrize("sends_head", [False, True])
async def test_no_head_names_an_epoch_that_began_while_the_position_was_sent(
    world: World, monkeypatch: pytest.MonkeyPatch, *, sends_head: bool
) -> None:
    monkeypatch.setattr("notifier.nats.heads.HEAD_SECONDS", (0.01, 0.01))
    world.publisher.begin("e", 0)
    batch = [message(7), message(8, "d")]

    def begin_epoch() -> None:
        if not sends_head or len(world.of("c")) + len(world.of("d")) >= 2:
            world.link.sending = lambda: None
            world.publisher.skip("f", 9)

    world.link.sending = begin_epoch
    world.publisher.publish("e", batch)
    beat = await world.beat(lambda beat: beat.epoch == "f")
    await world.beat(lambda later: later.number > beat.number + 2)
    assert {each.epoch for each in (*world.of("c"), *world.of("d"))} == {"e"}


async def test_a_node_that_does_not_relay_publishes_nothing(world: World) -> None:
    world.publisher.publish("e", [message(1)])
    world.publisher.skip("e", 1)
    world.publisher.notify(["u"])
    world.publisher.begin("e", 1)
    await world.beat()
    world.publisher.end()
    world.publisher.publish("e", [message(2)])
    world.publisher.announce_configuration()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert {subject for subject, _ in world.link.published} == {"n.log"}
    assert not world.publisher.leads


async def test_messages_that_are_not_published_are_counted_as_missed(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.publisher.begin("e", 0)
    await world.beat()
    world.publisher.skip("f", 7)  # another epoch
    beat = await world.beat(lambda beat: beat.missed == 1)
    assert (beat.epoch, beat.seq) == ("f", 7)
    world.link.fails = True
    world.publisher.publish("f", [message(8)])
    await until(lambda: has_missed(world, 2))
    world.link.fails = False
    assert (await world.beat(lambda beat: beat.missed == 2)).seq == 8
    world.link.is_connected = False
    world.publisher.publish("f", [message(9)])
    world.link.is_connected = True
    world.publisher.connected()
    assert (await world.beat(lambda beat: beat.missed == 4)).seq == 9
    monkeypatch.setattr(publishers, "QUEUE_BYTES", 100)
    world.publisher.publish("f", [message(10, size=200)])
    assert (await world.beat(lambda beat: beat.missed == 5)).seq == 10
    assert world.of("c") == []


async def has_missed(world: World, times: int) -> bool:
    return world.publisher._missed >= times


async def test_a_message_that_the_server_does_not_take_is_announced_by_a_head(world: World) -> None:
    world.link.max_payload = 64 * 1024
    world.publisher.begin("e", 0)
    world.publisher.publish("e", [message(1), message(2, size=70_000), message(3)])
    await world.beat(lambda beat: beat.seq == 3)
    sizes = [(each.position, len(each.messages)) for each in world.of("c")[:3]]
    assert sizes == [(1, 1), (2, 0), (3, 1)]
    world.link.max_payload = 1024 * 1024
    world.publisher.publish("e", [message(at, size=200_000) for at in (4, 5)])
    await world.beat(lambda beat: beat.seq == 5)
    assert [each.position for each in world.of("c") if each.messages] == [1, 3, 4, 5]


async def test_notices_and_configurations_are_counted(world: World) -> None:
    world.publisher.begin("e", 0)
    await world.beat()
    world.publisher.notify({"b", "a"})
    world.publisher.notify(None)
    world.publisher.announce_configuration()
    beat = await world.beat(lambda beat: beat.notices == 2)
    assert beat.configuration == 1
    notices = [body for subject, body in world.link.published if subject == "n.accounts"]
    assert [decode_notice(body).values for body in notices] == [["a", "b"], None]
