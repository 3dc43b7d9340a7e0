"""Channels: frames made once per encoding, order kept, paused subscribers apart, nothing twice."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import msgspec
import pytest

from notifier import frames
from notifier.delivery.channel import SLICE, Channel
from notifier.delivery.encoding import DEFLATED, TEXT, Encoding
from notifier.delivery.recent import Budget
from notifier.messages import ALL_USERS, Message
from tests.unit.subscribers import Recorder, channel_of, message, positions, written


@dataclass(frozen=True, eq=False)
class Counting(Encoding):
    """TEXT, recording the epoch and position of every frame that it makes."""

    name: str = "counting"
    frame: Callable[[bytes], bytes] = frames.frame
    made: list[tuple[str, int]] = field(default_factory=list)

    def frames(self, messages: Sequence[Message], epoch: str) -> bytes:
        self.made.extend((epoch, each.position) for each in messages)
        return super().frames(messages, epoch)


# --- writes


async def test_a_message_is_framed_once_for_all_subscribers() -> None:
    encoding = Counting()
    subscribers = [Recorder() for _ in range(SLICE)]
    channel = channel_of(*subscribers, encoding=encoding)
    channel.deliver([message(1)])
    assert encoding.made == [("e", 1)]
    (first,) = subscribers[0].written
    assert all(subscriber.written[0] is first for subscriber in subscribers)


async def test_a_message_is_framed_once_for_all_paused_subscribers() -> None:
    encoding = Counting()
    subscribers = [Recorder() for _ in range(10)]
    channel = channel_of(*subscribers, encoding=encoding)
    for subscriber in subscribers:
        channel.paused(subscriber)
    channel.deliver([message(1)])
    assert encoding.made == [("e", 1)]
    assert [subscriber.positions() for subscriber in subscribers] == [[1]] * 10


async def test_messages_that_come_together_are_one_write() -> None:
    subscriber = Recorder()
    channel_of(subscriber).deliver([message(n) for n in range(1, 101)])
    assert len(subscriber.written) == 1
    assert subscriber.positions() == list(range(1, 101))


@pytest.mark.parametrize("size", [0, 10_000])
async def test_many_subscribers_and_large_batches_are_written_in_slices_and_in_order(
    size: int,
) -> None:
    subscribers = [Recorder() for _ in range(SLICE * 2 + 1)]
    channel = channel_of(*subscribers)
    channel.deliver([message(n, size=size) for n in range(1, 31)])
    channel.deliver([message(31)])
    assert channel._pumping is not None
    await written(channel)
    assert all(subscriber.positions() == list(range(1, 32)) for subscriber in subscribers)


async def test_messages_before_the_channels_position_are_not_written_but_may_revoke() -> None:
    subscriber = Recorder("u")
    channel = channel_of(subscriber, position=5)
    channel.deliver([message(4), message(5, revokes=("u",)), message(6)])
    assert subscriber.positions() == [6]
    assert len(subscriber.written) == 1
    assert subscriber.rechecks == [(0, False)]


# --- joining, leaving, pausing


async def test_between_slices_a_subscriber_that_leaves_gets_no_more_and_one_that_joins_nothing_twice() -> (
    None
):
    subscribers = [Recorder() for _ in range(SLICE * 2)]
    channel = channel_of(*subscribers)
    channel.deliver([message(1)])
    await asyncio.sleep(0)  # the first slice
    gone, late = subscribers[SLICE], Recorder()
    channel.leave(gone)
    assert channel.position == 1
    channel.join(late, TEXT, late.written.append)
    channel.join(gone, TEXT, gone.written.append)
    await written(channel)
    assert gone.positions() == late.positions() == []
    assert all(other.positions() == [1] for other in subscribers if other is not gone)
    channel.deliver([message(2)])
    await written(channel)
    assert gone.positions() == late.positions() == [2]


async def test_a_write_that_pauses_its_subscriber_writes_once() -> None:
    pausing, other = Recorder(), Recorder()
    channel = channel_of()

    def write(data: bytes) -> None:
        pausing.written.append(data)
        channel.paused(pausing)

    channel.join(pausing, TEXT, write)
    channel.join(other, TEXT, other.written.append)
    channel.deliver([message(1)])
    channel.deliver([message(2)])
    assert pausing.positions() == other.positions() == [1, 2]


async def test_a_subscriber_is_in_one_group_at_a_time() -> None:
    direct: list[bytes] = []
    own = Recorder()
    channel = channel_of()
    channel.resumed(own, direct.append)  # it has not joined: none of these makes it join
    channel.paused(own)
    channel.leave(own)
    assert len(channel) == 0
    channel.join(own, TEXT, None)
    channel.deliver([message(1)])
    channel.paused(own)
    channel.deliver([message(2)])
    channel.resumed(own, direct.append)
    channel.resumed(own, own.written.append)
    channel.deliver([message(3, size=1000)])
    assert len(channel) == 1
    channel.paused(own)
    channel.deliver([message(4)])
    channel.leave(own)
    channel.leave(own)
    channel.deliver([message(5)])
    assert own.positions() == [1, 2, 4]
    assert positions(b"".join(direct)) == [3]
    assert len(direct[0]) > 1000  # in its own encoding, which does not compress


async def test_nothing_is_kept_of_a_subscriber_that_left() -> None:
    subscribers = [Recorder("u"), Recorder("u"), Recorder("v")]
    channel = channel_of(*subscribers)
    channel.leave(subscribers[0])
    channel.deliver([message(1, revokes=("u",))])
    assert [subscriber.rechecks for subscriber in subscribers] == [[], [(1, True)], []]
    for subscriber in subscribers:
        channel.leave(subscriber)
    assert not channel._users
    assert not channel._left
    assert channel.subscribers() == []


async def test_a_subscriber_that_leaves_and_joins_again_between_slices_gets_what_comes_then() -> (
    None
):
    subscribers = [Recorder() for _ in range(SLICE * 2)]
    channel = channel_of(*subscribers)
    last, again = subscribers[-1], list[bytes]()
    channel.deliver([message(1)])
    await asyncio.sleep(0)  # the first slice
    channel.leave(last)
    channel.join(last, TEXT, again.append)
    channel.deliver([message(2)])
    await written(channel)
    assert last.positions() == []
    assert positions(b"".join(again)) == [2]


# --- encodings


async def test_a_message_is_compressed_once_for_all_that_take_it_so() -> None:
    plain, *packed = subscribers = [Recorder() for _ in range(10)]
    channel = channel_of(plain)
    channel.deliver([message(1, size=1000)])
    for subscriber in packed:
        channel.join(subscriber, DEFLATED, subscriber.written.append)
    channel.deliver([message(2, size=1000)])
    assert len(plain.written[1]) > 1000
    assert all(subscriber.written[0] is packed[0].written[0] for subscriber in packed)
    assert len(packed[0].written[0]) < 100
    for subscriber in subscribers:
        channel.paused(subscriber)
    channel.deliver([message(3, size=1000)])
    assert [positions(subscriber.written[-1]) for subscriber in subscribers] == [[3]] * 10
    packed[0].written.clear()
    channel.resumed(packed[0], packed[0].written.append)
    channel.leave(packed[1])
    channel.deliver([message(4, size=1000)])
    assert len(packed[0].written[0]) < 100
    assert len(packed[1].written) == 2
    assert len(channel) == 9


async def test_nothing_is_encoded_for_encodings_without_subscribers() -> None:
    encoding, plain, gone = Counting(), Recorder(), Recorder()
    channel = channel_of(plain)
    channel.join(gone, encoding, gone.written.append)
    channel.leave(gone)
    channel.deliver([message(1)])
    for _ in range(SLICE):
        channel.join(Recorder(), TEXT, list[bytes]().append)
    channel.deliver([message(2)])
    await written(channel)
    assert encoding.made == []
    assert plain.positions() == [1, 2]


async def test_compressed_frames_are_written_in_slices_as_well() -> None:
    packed = [Recorder() for _ in range(SLICE + 1)]
    channel = channel_of(*packed, encoding=DEFLATED)
    channel.deliver([message(n, size=1000) for n in range(1, 4)])
    await written(channel)
    assert all(subscriber.written == packed[0].written for subscriber in packed)
    assert packed[0].positions() == [1, 2, 3]
    assert len(b"".join(packed[0].written)) < 300


async def test_a_subscriber_that_takes_compressed_frames_and_leaves_gets_no_more() -> None:
    leaver, stays = Recorder(), Recorder()
    channel = channel_of(leaver, stays, encoding=DEFLATED)
    channel.deliver([message(1, size=1000)])
    channel.leave(leaver)
    channel.deliver([message(2, size=1000)])
    assert leaver.positions() == [1]
    assert stays.positions() == [1, 2]


async def test_between_slices_each_subscriber_is_written_to_as_it_takes_it_by_then() -> None:
    """None of them is written to before the first slice, and by then all take it otherwise."""
    channel = channel_of(*(Recorder() for _ in range(SLICE)))
    others = paused, direct, packing = [Recorder() for _ in range(3)]
    channel.join(paused, TEXT, paused.written.append)
    channel.join(direct, TEXT, None)
    channel.join(packing, DEFLATED, None)
    channel.deliver([message(1, size=1000)])
    await asyncio.sleep(0)  # the first slice
    channel.paused(paused)
    channel.resumed(direct, direct.written.append)
    channel.resumed(packing, packing.written.append)
    await written(channel)
    channel.deliver([message(2, size=1000)])
    await written(channel)
    assert [other.positions() for other in others] == [[1, 2]] * 3
    assert [len(text) < 100 for text in packing.written] == [True, True]


async def test_a_batch_is_encoded_for_the_epoch_that_it_was_published_in() -> None:
    encoding = Counting()
    subscribers = [Recorder() for _ in range(SLICE + 1)]
    channel = channel_of(*subscribers, encoding=encoding)
    channel.deliver([message(1)])
    await asyncio.sleep(0)  # the first slice
    channel.begin_epoch("f")
    channel.deliver([message(1)])
    await written(channel)
    assert encoding.made == [("e", 1), ("f", 1)]
    assert subscribers[-1].positions() == [1, 1]


# --- revocations


async def test_a_batch_is_cut_behind_the_message_that_takes_access_away() -> None:
    leaver, stays = Recorder("u1"), Recorder("u2")
    channel = channel_of(leaver, stays)
    seen: list[list[int]] = []

    def leave() -> None:
        seen.append(leaver.positions())
        channel.leave(leaver)

    leaver.on_recheck = leave
    channel.deliver([message(1), message(2, revokes=("u1",)), message(3)])
    assert seen == [[1, 2]]
    assert leaver.positions() == [1, 2]
    assert stays.positions() == [1, 2, 3]
    assert not stays.rechecks


async def test_a_revocation_of_any_user_is_conclusive_for_none() -> None:
    subscribers = [Recorder("u1"), Recorder("u2"), Recorder(ALL_USERS)]  # the id of a user, too
    channel_of(*subscribers).deliver([message(1, revokes=(ALL_USERS,))])
    assert [subscriber.rechecks for subscriber in subscribers] == [[(1, False)]] * 3


# --- ends


async def test_when_a_write_fails_between_slices_all_subscribers_are_dropped() -> None:
    def fail(_: bytes) -> None:
        raise RuntimeError("out of memory")

    subscribers = [Recorder() for _ in range(SLICE * 2)]
    channel = channel_of(*subscribers)
    channel.join(Recorder(), TEXT, fail)
    channel.deliver([message(1)])
    pumping = channel._pumping
    assert pumping is not None
    with pytest.raises(RuntimeError):
        await pumping
    assert all(subscriber.is_dropped for subscriber in subscribers)
    assert channel._pumping is None


async def test_queued_messages_are_discarded_with_their_epoch_or_their_channel() -> None:
    ends = [lambda channel: Channel.begin_epoch(channel, "f"), Channel.drop]
    for end in ends:
        channel = channel_of(*(Recorder() for _ in range(SLICE + 1)))
        channel.deliver([message(1), message(2, revokes=("v",)), message(3)])
        end(channel)
        assert channel._queued_bytes == 0
        await written(channel)
        assert channel._queued_bytes == 0


async def test_a_message_that_is_stored_later_than_those_delivered_cannot_have_an_earlier_position() -> (
    None
):
    """Others have deleted messages or positions, and the relay gives positions out again: nothing is dropped as known."""
    channel = Channel("a", "e", 5, None, Budget(), entities={}, seq=9)
    assert channel.deliver([msgspec.structs.replace(message(5), seq=9)])
    assert channel.deliver([msgspec.structs.replace(message(6), seq=10)])
    assert channel.deliver([msgspec.structs.replace(message(6), seq=10)])
    assert not channel.deliver([msgspec.structs.replace(message(1), seq=11)])
