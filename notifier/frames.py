"""Frames as they go over the wire (RFC 6455, section 5): made once, written to many."""

from __future__ import annotations

from collections.abc import Iterable

from websockets.frames import Frame, Opcode

from notifier.messages import JSON

CHUNK_BYTES = 128 * 1024
"""What is written to one socket without letting others have their turn."""


def frame(body: JSON) -> bytes:
    """One unmasked text frame."""
    return Frame(Opcode.TEXT, body).serialize(mask=False)


def body(framed: bytes) -> JSON:
    """What is in a frame that `frame` made."""
    length = framed[1]
    return framed[2 if length < _EXTENDED else 4 if length == _EXTENDED else 10 :]


_EXTENDED = 126  # RFC 6455, 5.2: 126 and 127 say that the length follows, in two or eight bytes


def chunks(frames: Iterable[bytes]) -> list[list[bytes]]:
    """Frames in groups of about CHUNK_BYTES; a larger one stands alone."""
    groups: list[list[bytes]] = []
    size = CHUNK_BYTES
    for each in frames:
        if size + len(each) > CHUNK_BYTES:
            groups.append([])
            size = 0
        groups[-1].append(each)
        size += len(each)
    return groups
