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


def joined(frames: Iterable[bytes]) -> list[bytes]:
    """Frames joined into as few pieces of about CHUNK_BYTES as they need."""
    pieces: list[bytes] = []
    piece: list[bytes] = []
    size = 0
    for each in frames:
        if piece and size + len(each) > CHUNK_BYTES:
            pieces.append(b"".join(piece))
            piece, size = [], 0
        piece.append(each)
        size += len(each)
    if piece:
        pieces.append(b"".join(piece))
    return pieces
