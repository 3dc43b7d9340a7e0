"""The hub alone: frames made once, order kept, slow ones apart, nothing twice at the seams."""

from __future__ import annotations

import asyncio
import json
import zlib
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from itertools import count

import pytest

from notifier import frames
from notifier.delivery import hub
from notifier.delivery.hub import BUDGET_BYTES, PRESSED_BYTES, SLICE, Budget, Channel, Hub, Recent
from notifier.messages import Message

NOW = datetime.now(UTC)


def message(
    position: int, company: str = "c", size: int = 0, revokes: tuple[str, ...] = ()
) -> Message:
    body = json.dumps({"Position": position, "Data": "x" * size}).encode()
    return Message(position, company, position, NOW, NOW, body, revokes)


class Listener:
    """A subscriber that keeps the very objects that were written to it."""

    def __init__(self, user: str = "u") -> None:
        self.user = user
        self.written: list[bytes] = []
        self.suspected: list[tuple[int, bool]] = []
        self.is_lost = False
        self.when_suspected: Callable[[], None] = lambda: None

    def write(self, frames: bytes, bodies: Sequence[bytes]) -> None:
        self.written.append(frames)
        assert frames == b"".join(frames_of(bodies))

    def suspect(self, position: int, certain: bool) -> None:
        self.suspected.append((position, certain))
        self.when_suspected()

    def lost(self) -> None:
        self.is_lost = True

    def positions(self) -> list[int]:
        return positions(b"".join(self.written))


def frames_of(bodies: Sequence[bytes]) -> list[bytes]:
    return [frames.frame(body) for body in bodies]


def positions(data: bytes) -> list[int]:
    found = []
    while data:
        extended = {126: 2, 127: 8}.get(data[1], 0)
        head = 2 + extended
        size = int.from_bytes(data[2:head]) if extended else data[1]
        text = data[head : head + size]
        if data[0] & 0x40:
            text = zlib.decompress(text + b"\0\0\xff\xff\x03\0", -15)
        found.append(json.loads(text)["Position"])
        data = data[head + size :]
    return found


def channel_of(*listeners: Listener) -> Channel:
    channel = Channel("c", 0, Budget())
    for listener in listeners:
        channel.join(listener, listener.written.append)
    return channel


async def written(channel: Channel) -> None:
    """Until the channel has nothing more to write."""
    while channel._pumping is not None:
        await channel._pumping


async def test_a_message_is_framed_once_whoever_hears_it(monkeypatch: pytest.MonkeyPatch) -> None:
    made = count()
    monkeypatch.setattr(hub, "frame", lambda body: (next(made), frames.frame(body))[1])
    listeners = [Listener() for _ in range(SLICE)]
    channel = channel_of(*listeners)
    channel.publish([message(1)])
    assert next(made) == 1
    (first,) = listeners[0].written
    assert all(listener.written[0] is first for listener in listeners)


async def test_what_comes_together_is_one_write() -> None:
    listener = Listener()
    channel_of(listener).publish([message(n) for n in range(1, 101)])
    assert len(listener.written) == 1
    assert listener.positions() == list(range(1, 101))


@pytest.mark.parametrize("size", [0, 10_000])
async def test_many_subscribers_and_large_batches_are_written_in_slices_and_in_order(
    size: int,
) -> None:
    listeners = [Listener() for _ in range(SLICE * 2 + 1)]
    channel = channel_of(*listeners)
    channel.publish([message(n, size=size) for n in range(1, 31)])
    channel.publish([message(31)])
    assert channel._pumping is not None
    await written(channel)
    assert all(listener.positions() == list(range(1, 32)) for listener in listeners)


async def test_who_leaves_between_slices_hears_nothing_more_and_who_joins_nothing_twice() -> None:
    listeners = [Listener() for _ in range(SLICE * 2)]
    channel = channel_of(*listeners)
    channel.publish([message(1)])
    await asyncio.sleep(0)  # the first slice
    gone, late = listeners[SLICE], Listener()
    channel.leave(gone)
    assert channel.position == 1
    channel.join(late, late.written.append)
    channel.join(gone, gone.written.append)
    await written(channel)
    assert gone.positions() == late.positions() == []
    assert all(other.positions() == [1] for other in listeners if other is not gone)
    channel.publish([message(2)])
    await written(channel)
    assert gone.positions() == late.positions() == [2]


async def test_a_write_that_makes_its_subscriber_slow_writes_once() -> None:
    piled = Listener()
    channel = Channel("c", 0, Budget())

    def write(data: bytes) -> None:
        piled.written.append(data)
        channel.slow_down(piled)

    other = Listener()
    channel.join(piled, write)
    channel.join(other, other.written.append)
    channel.publish([message(1)])
    channel.publish([message(2)])
    assert piled.positions() == other.positions() == [1, 2]


async def test_a_batch_is_cut_behind_the_message_that_takes_access_away() -> None:
    leaver, stays = Listener("u1"), Listener("u2")
    channel = channel_of(leaver, stays)
    heard: list[list[int]] = []

    def leave() -> None:
        heard.append(leaver.positions())
        channel.leave(leaver)

    leaver.when_suspected = leave
    channel.publish([message(1), message(2, revokes=("u1",)), message(3)])
    assert heard == [[1, 2]]
    assert leaver.positions() == [1, 2]
    assert stays.positions() == [1, 2, 3]
    assert not stays.suspected


async def test_what_the_channel_knew_already_is_not_said_again_but_may_take_access() -> None:
    listener = Listener("u")
    channel = Channel("c", 5, Budget())
    channel.join(listener, listener.written.append)
    channel.publish([message(4), message(5, revokes=("u",)), message(6)])
    assert listener.positions() == [6]
    assert len(listener.written) == 1
    assert listener.suspected == [(5, False)]


def test_what_is_kept_is_bounded_for_one_and_for_all() -> None:
    budget = Budget()
    recent = Recent(0, budget)
    for n in range(1, 101):
        recent.append(message(n), frames.frame(b"x" * 100_000))
    assert recent.last == 100
    assert budget.used <= hub.RECENT_BYTES
    budget.used += BUDGET_BYTES
    recent.append(message(101), frames.frame(b"x" * 1000))
    assert budget.used - BUDGET_BYTES <= PRESSED_BYTES
    recent.forget()
    assert budget.used == BUDGET_BYTES


async def test_a_channel_that_is_opened_while_messages_pass_misses_none_and_doubles_none() -> None:
    asked = asyncio.Event()
    answer: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    async def heads(_: str) -> int:
        asked.set()
        return await answer

    async def pages(*_: object) -> list[Message]:
        raise AssertionError("nothing is to be read")

    node = Hub(heads, pages, 24)
    node.restart("e")
    opening = asyncio.create_task(node.open("c"))
    await asked.wait()
    node.deliver([message(1), message(2)])
    answer.set_result(1)
    channel = await opening
    assert channel.position == 2
    assert [frames.body(framed) for _, framed in channel.recent.after(1)] == [message(2).body]


async def test_who_asks_for_a_company_at_the_same_time_gets_one_channel_for_one_question() -> None:
    asked: list[str] = []

    async def heads(company: str) -> int:
        asked.append(company)
        return 0

    async def pages(*_: object) -> list[Message]:
        return []

    node = Hub(heads, pages, 24)
    node.restart("e")
    one, other = await asyncio.gather(node.open("c"), node.open("c"))
    assert one is other
    assert one.pins == 2
    assert asked == ["c"]


async def test_for_a_company_that_is_open_or_forgotten_nothing_waits() -> None:
    node = quiet_hub()
    node.close(await node.open("c"))
    assert not node._early
    node.lose()
    node.deliver([message(1)])
    assert not node._early


async def test_everybody_must_come_back_when_messages_are_gone() -> None:
    async def heads(_: str) -> int:
        return 0

    async def pages(*_: object) -> list[Message]:
        return []

    node = Hub(heads, pages, 24)
    node.restart("e")
    channel = await node.open("c")
    listener = Listener()
    channel.join(listener, listener.written.append)
    node.lose()
    assert listener.is_lost
    assert not node.holds(channel)


@pytest.mark.parametrize("size", [0, 1, 125, 126, 65535, 65536, 300_000])
def test_a_frame_gives_its_body_back(size: int) -> None:
    body = b"x" * size
    assert frames.body(frames.frame(body)) == body


def test_chunks_keep_order_and_size() -> None:
    many = [b"x" * size for size in (10, 100_000, 50_000, 300_000, 5, 5)]
    groups = frames.chunks(many)
    assert [each for group in groups for each in group] == many
    assert all(len(group) == 1 or sum(map(len, group)) <= frames.CHUNK_BYTES for group in groups)


async def test_a_subscriber_is_written_to_in_one_way_at_a_time() -> None:
    fast: list[bytes] = []
    own = Listener()
    channel = Channel("c", 0, Budget())
    channel.speed_up(own, fast.append)  # who does not follow is not made to
    channel.slow_down(own)
    channel.leave(own)
    assert len(channel) == 0
    channel.join(own, None)
    channel.publish([message(1)])
    channel.slow_down(own)
    channel.publish([message(2)])
    channel.speed_up(own, fast.append)
    channel.speed_up(own, own.written.append)
    channel.publish([message(3, size=1000)])
    assert len(channel) == 1
    channel.slow_down(own)
    channel.publish([message(4)])
    channel.leave(own)
    channel.leave(own)
    channel.publish([message(5)])
    assert own.positions() == [1, 2, 4]
    assert positions(b"".join(fast)) == [3]
    assert len(fast[0]) > 1000  # nobody has asked for it to be compressed


async def test_of_who_has_left_nothing_is_kept() -> None:
    listeners = [Listener("u"), Listener("u"), Listener("v")]
    channel = channel_of(*listeners)
    channel.leave(listeners[0])
    channel.publish([message(1, revokes=("u",))])
    assert [listener.suspected for listener in listeners] == [[], [(1, True)], []]
    for listener in listeners:
        channel.leave(listener)
    assert not channel._users
    assert not channel._gone
    assert channel.subscribers() == []


async def test_who_leaves_and_returns_while_others_are_written_to_hears_what_comes_then() -> None:
    listeners = [Listener() for _ in range(SLICE * 2)]
    channel = channel_of(*listeners)
    last, fast = listeners[-1], list[bytes]()
    channel.publish([message(1)])
    await asyncio.sleep(0)  # the first slice
    channel.leave(last)
    channel.join(last, fast.append)
    channel.publish([message(2)])
    await written(channel)
    assert last.positions() == []
    assert positions(b"".join(fast)) == [2]


async def test_when_a_write_fails_in_the_middle_everybody_must_come_back() -> None:
    def fail(_: bytes) -> None:
        raise RuntimeError("out of memory")

    listeners = [Listener() for _ in range(SLICE * 2)]
    channel = channel_of(*listeners)
    channel.join(Listener(), fail)
    channel.publish([message(1)])
    pumping = channel._pumping
    assert pumping is not None
    with pytest.raises(RuntimeError):
        await pumping
    assert all(listener.is_lost for listener in listeners)
    assert channel._pumping is None


def quiet_hub(head: int = 0) -> Hub:
    """A hub whose companies have so many messages, all of them gone."""

    async def heads(_: str) -> int:
        return head

    async def pages(*_: object) -> list[Message]:
        return []

    node = Hub(heads, pages, 24)
    node.restart("e")
    return node


async def test_another_epoch_keeps_the_channels_that_are_needed_and_no_other() -> None:
    node = quiet_hub()
    idle, pinned, followed = [await node.open(name) for name in ("idle", "pinned", "followed")]
    listener = Listener()
    followed.join(listener, listener.written.append)
    for channel in (idle, followed):
        node.close(channel)
    node.deliver([message(1, name) for name in ("idle", "pinned", "followed")])
    node.restart("f")
    assert [node.known(name) for name in ("idle", "pinned", "followed")] == [None, pinned, followed]
    assert node._budget.used == 0
    assert followed.position == pinned.position == 0


async def test_revocations_are_remembered_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr("notifier.delivery.hub.time.monotonic", lambda: now)
    node = quiet_hub()
    node.deliver([message(1, revokes=("u",)), message(2, revokes=("v", "*"))])
    assert node.serial == 3
    assert node.revoked("c", "u", 0)
    assert node.revoked("c", "w", 2)
    assert not node.revoked("c", "w", 3)
    assert not node.revoked("d", "u", 0)
    now += hub.REVOCATION_SECONDS
    node.deliver([message(3, revokes=("x",))])
    assert node.revoked("c", "u", 0)
    now += 1
    node.deliver([message(4, revokes=("y",))])
    assert [user for *_, user in node._revocations] == ["x", "y"]


async def test_channels_that_nobody_uses_are_kept_for_a_while_the_latest_longest(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(hub, "IDLE_CHANNELS", 3)
    node = quiet_hub()
    used = await node.open("used")
    listener = Listener()
    followed = await node.open("followed")
    followed.join(listener, listener.written.append)
    node.close(followed)
    for name in ("a", "b", "a", "c"):
        channel = await node.open(name)
        node.close(channel)
        node.deliver([message(channel.position + 1, name)])
    names = ("used", "followed", "a", "b", "c")
    assert [name for name in names if node.known(name) is not None] == ["used", "followed", "c"]
    assert node._budget.used == sum(len(framed) for _, framed in channel.recent.after(0))
    node.close(used)
    assert node.known("used") is used


async def test_a_channel_that_nobody_uses_any_more_is_forgotten_without_a_look_at_the_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of many thousand companies that all go at once, each would be looked at for each."""
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

    monkeypatch.setattr(hub, "Channel", Watched)
    monkeypatch.setattr(hub, "IDLE_CHANNELS", 3)
    node = quiet_hub()
    channels = [await node.open(str(number)) for number in range(100)]
    looks = 0
    for channel in channels:
        node.close(channel)
    assert looks <= 2 * len(channels)
    assert [number for number in range(100) if node.known(str(number)) is not None] == [97, 98, 99]


async def test_a_channel_that_is_forgotten_before_it_is_used_is_opened_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(hub, "IDLE_CHANNELS", 1)
    node = quiet_hub()
    await node.open("used")
    other = await node.open("other")
    opening = asyncio.create_task(node.open("c"))
    await asyncio.sleep(0)
    await node._opening["c"]
    node.close(other)
    assert node.known("c") is None
    assert node.holds(await opening)


async def test_a_message_is_compressed_once_whoever_takes_it_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = count()
    monkeypatch.setattr(hub, "deflated", lambda body: (next(made), frames.deflated(body))[1])
    plain, *packed = listeners = [Listener() for _ in range(10)]
    channel = Channel("c", 0, Budget())
    channel.join(plain, plain.written.append)
    channel.publish([message(1, size=1000)])
    assert next(made) == 0, "nobody had asked for it"
    for listener in packed:
        channel.join(listener, listener.written.append, deflates=True)
    channel.publish([message(2, size=1000)])
    assert next(made) == 2
    assert len(plain.written[1]) > 1000
    assert all(listener.written[0] is packed[0].written[0] for listener in packed)
    assert len(packed[0].written[0]) < 100
    for listener in listeners:
        channel.slow_down(listener)
    channel.publish([message(3, size=1000)])
    assert [positions(listener.written[-1]) for listener in listeners] == [[3]] * 10
    packed[0].written.clear()
    channel.speed_up(packed[0], packed[0].written.append, deflates=True)
    channel.leave(packed[1])
    channel.publish([message(4, size=1000)])
    assert len(packed[0].written[0]) < 100
    assert len(packed[1].written) == 2
    assert len(channel) == 9


async def test_compressed_frames_go_out_in_slices_as_well() -> None:
    packed = [Listener() for _ in range(SLICE + 1)]
    channel = Channel("c", 0, Budget())
    for listener in packed:
        channel.join(listener, listener.written.append, deflates=True)
    channel.publish([message(n, size=1000) for n in range(1, 4)])
    await written(channel)
    assert all(listener.written == packed[0].written for listener in packed)
    assert packed[0].positions() == [1, 2, 3]
    assert len(b"".join(packed[0].written)) < 300


async def test_who_takes_compressed_frames_and_leaves_hears_nothing_more() -> None:
    leaver, stays = Listener(), Listener()
    channel = Channel("c", 0, Budget())
    for listener in (leaver, stays):
        channel.join(listener, listener.written.append, deflates=True)
    channel.publish([message(1, size=1000)])
    channel.leave(leaver)
    channel.publish([message(2, size=1000)])
    assert leaver.positions() == [1]
    assert stays.positions() == [1, 2]


async def test_between_slices_each_is_written_to_as_he_takes_it_by_then() -> None:
    """None of them is written to before the first slice was, and by then all take it otherwise."""
    first = [Listener() for _ in range(SLICE)]
    channel = channel_of(*first)
    others = [Listener() for _ in range(3)]
    slow, quick, packing = others
    channel.join(slow, slow.written.append)
    channel.join(quick, None)
    channel.join(packing, None)
    channel.publish([message(1, size=1000)])
    await asyncio.sleep(0)  # the first slice
    channel.slow_down(slow)
    channel.speed_up(quick, quick.written.append)
    channel.speed_up(packing, packing.written.append, deflates=True)
    await written(channel)
    channel.publish([message(2, size=1000)])
    await written(channel)
    assert [other.positions() for other in others] == [[1, 2]] * 3
    assert len(packing.written[0]) > 1000  # nobody had asked for it when the slices began
    assert len(packing.written[1]) < 100


async def test_what_waits_is_forgotten_with_its_epoch_or_its_log() -> None:
    for forget in (Channel.restart, Channel.lose):
        channel = channel_of(*(Listener() for _ in range(SLICE + 1)))
        channel.publish([message(1), message(2, revokes=("v",)), message(3)])
        forget(channel)
        assert channel._waiting == 0
        await written(channel)
        assert channel._waiting == 0


async def test_a_company_that_outruns_its_sockets_sends_them_away_and_forgets_what_waited() -> None:
    asked = iter([0, 1000])

    async def heads(_: str) -> int:
        return next(asked)

    async def pages(*_: object) -> list[Message]:
        return []

    node = Hub(heads, pages, 24)
    channel = await node.open("c")
    listeners = [Listener() for _ in range(SLICE + 1)]  # so many that they are written to in slices
    for listener in listeners:
        channel.join(listener, listener.written.append)
    position = 0
    while not listeners[0].is_lost:  # the pump never has its turn
        position += 1
        assert position < 100
        node.deliver([message(position, size=1024 * 1024)])
    assert position == hub.WAITING_BYTES // 1024**2
    assert all(listener.is_lost for listener in listeners)
    assert not channel.overrun
    await written(channel)
    assert not listeners[0].written
    assert not node.holds(channel)
    assert (await node.open("c")).position == 1000
