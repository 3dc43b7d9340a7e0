"""Subscribers and messages for tests of channels and hubs."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

from notifier.delivery.channel import Channel
from notifier.delivery.encoding import TEXT, Encoding
from notifier.delivery.recent import Budget
from notifier.frames import frame
from notifier.messages import Message

NOW = datetime.now(UTC)


def message(
    position: int, company: str = "c", size: int = 0, revokes: tuple[str, ...] = ()
) -> Message:
    body = json.dumps({"Position": position, "Data": "x" * size}).encode()
    return Message(position, company, position, NOW, NOW, body, revokes)


class Recorder:
    """A subscriber that keeps the very objects that were written to it."""

    def __init__(self, user: str = "u") -> None:
        self.user = user
        self.written: list[bytes] = []
        self.rechecks: list[tuple[int, bool]] = []
        """Each with the number of messages that were written before, and whether the loss is proven."""
        self.is_dropped = False
        self.on_recheck: Callable[[], None] = lambda: None

    def write(self, frames: bytes, bodies: Sequence[bytes]) -> None:
        self.written.append(frames)
        if not frames[0] & 0x40:
            assert frames == b"".join(map(frame, bodies))

    def access_in_doubt(self, *, named_at: datetime | None) -> None:
        self.rechecks.append((len(self.positions()), named_at is not None))
        self.on_recheck()

    def dropped(self) -> None:
        self.is_dropped = True

    def positions(self) -> list[int]:
        return positions(b"".join(self.written))


def positions(data: bytes) -> list[int]:
    """The positions of the messages in frames, compressed or not."""
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


def channel_of(*subscribers: Recorder, encoding: Encoding = TEXT, position: int = 0) -> Channel:
    """A channel to which they have subscribed with a direct write."""
    channel = Channel("c", "e", position, None, Budget(), entities={})
    for subscriber in subscribers:
        channel.join(subscriber, encoding, subscriber.written.append)
    return channel


async def written(channel: Channel) -> None:
    """Waits until the channel has nothing more to write."""
    while channel._pumping is not None:
        await channel._pumping
