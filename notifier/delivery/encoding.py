"""Encodings: a message's text as bytes on a connection, encoded once for all connections with the same encoding."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from notifier.frames import CHUNK_BYTES, deflated, frame
from notifier.messages import JSON, Message, at_text


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


class Encoded(dict[Encoding, bytes]):
    """The frames of some messages in each encoding that is looked up."""

    def __init__(self, messages: list[Message], epoch: str) -> None:
        super().__init__()
        self._messages = messages
        self._epoch = epoch

    def __missing__(self, encoding: Encoding) -> bytes:
        frames = self[encoding] = encoding.frames(self._messages, self._epoch)
        return frames


class Chunk(NamedTuple):
    """Consecutive messages that go out in one write, framed and as texts. `last` is their last position.

    `is_covered`: the first of them is a Skipped. `is_end`: the only one is the Skipped at the end of a page.
    """

    frames: bytes
    bodies: list[JSON]
    last: int
    is_covered: bool = False
    is_end: bool = False


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


@dataclass(frozen=True, slots=True, eq=False)
class EventEncoding(Encoding):
    """Server-sent events; each message of the log has its place as its id.

    `wrap` makes what is written to the connection of an event: a chunk of HTTP/1.1, or the event as it is. How events are grouped
    depends on the sizes of others, which the user may not see.
    """

    wrap: Callable[[bytes], bytes] = bytes

    def frames(self, messages: Sequence[Message], epoch: str) -> bytes:
        """The events of several messages, joined."""
        wrap = self.wrap
        return b"".join([wrap(event(each.body, _event_id(each, epoch))) for each in messages])


def event(body: JSON, event_id: str | None = None) -> bytes:
    """One server-sent event (HTML, 9.2.6). Its data is one line, unless the JSON has several."""
    if b"\n" in body or b"\r" in body:  # between the tokens of a json column's value
        body = b"\ndata: ".join(body.splitlines())
    if event_id is None:
        return b"data: %b\n\n" % body
    return b"id: %b\ndata: %b\n\n" % (event_id.encode(), body)


def chunk(data: bytes) -> bytes:
    """One chunk of a body in chunked transfer coding (RFC 9112, 7.1)."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def _event_id(message: Message, epoch: str) -> str:
    return f"{epoch}:{message.position}:{at_text(message.at)}"


EVENTS = EventEncoding("events", event)
"""Server-sent events (HTML, section 9.2)."""

EVENT_CHUNKS = EventEncoding("event chunks", lambda body: chunk(event(body)), wrap=chunk)
"""The same as chunks of an HTTP/1.1 response."""


@dataclass(frozen=True, slots=True, eq=False)
class ListEncoding(Encoding):
    """The items of a JSON array, without its brackets."""

    def frames(self, messages: Sequence[Message], _epoch: str) -> bytes:
        """The texts of several messages, separated by commas."""
        return b",".join([each.body for each in messages])


JSON_TEXTS = ListEncoding("json", bytes)
"""The texts themselves."""
