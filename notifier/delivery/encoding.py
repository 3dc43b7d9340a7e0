"""How a message's text becomes bytes on a connection, made once for all that use the same encoding."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from notifier.frames import CHUNK_BYTES, deflated, frame
from notifier.messages import JSON, Message


@dataclass(frozen=True, slots=True, eq=False)
class Encoding:
    """One way to encode texts; subscribers are grouped by it. Frames can be joined into one write.

    `unshared`: what to use instead for texts that only one client gets; None means this encoding.
    """

    name: str
    frame: Callable[[JSON], bytes]
    unshared: Encoding | None = None

    def frames(self, messages: Sequence[Message], _epoch: str) -> bytes:
        """The frames of several messages, joined. The epoch is for encodings with event ids."""
        frame = self.frame
        if len(messages) == 1:  # most batches
            return frame(messages[0].body)
        return b"".join([frame(each.body) for each in messages])


class Chunk(NamedTuple):
    """Consecutive messages that go out in one write, framed and as texts. `last` is their last position."""

    frames: bytes
    bodies: list[JSON]
    last: int


def pieces(messages: Sequence[Message]) -> list[list[Message]]:
    """Messages in groups of about CHUNK_BYTES; a larger message is a group of its own."""
    groups: list[list[Message]] = []
    size = CHUNK_BYTES
    for message in messages:
        if size + len(message.body) > CHUNK_BYTES:
            groups.append([])
            size = 0
        groups[-1].append(message)
        size += len(message.body)
    return groups


def encode_chunks(encoding: Encoding, messages: Sequence[Message], epoch: str) -> list[Chunk]:
    """Messages as chunks of about CHUNK_BYTES."""
    return [
        Chunk(encoding.frames(piece, epoch), [each.body for each in piece], piece[-1].position)
        for piece in pieces(messages)
    ]


TEXT = Encoding("text", frame)
"""WebSocket text frames (RFC 6455)."""

DEFLATED = Encoding("deflated", deflated, unshared=TEXT)
"""Compressed ones (RFC 7692). Compressing a text pays only where many clients share the result."""
