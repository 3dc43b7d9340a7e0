"""Encodings: which frames go together, and that they keep order and size."""

from __future__ import annotations

from notifier.delivery.encoding import DEFLATED, TEXT, encode_chunks, pieces
from notifier.frames import CHUNK_BYTES, deflated, frame
from tests.unit.subscribers import message

SIZES = (10, 100_000, 50_000, 300_000, 5, 5)
MESSAGES = [message(position, size=size) for position, size in enumerate(SIZES, 1)]


def test_pieces_keep_order_and_size() -> None:
    groups = pieces(MESSAGES)
    assert [each for group in groups for each in group] == MESSAGES
    assert [len(group) for group in groups] == [2, 1, 1, 2]
    for group in groups:
        assert len(group) == 1 or sum(len(each.body) for each in group) <= CHUNK_BYTES


def test_a_chunk_has_the_frames_the_texts_and_the_last_position() -> None:
    for encoding, make in ((TEXT, frame), (DEFLATED, deflated)):
        chunks = encode_chunks(encoding, MESSAGES, "e")
        bodies = [body for chunk in chunks for body in chunk.bodies]
        assert bodies == [each.body for each in MESSAGES]
        assert b"".join(chunk.frames for chunk in chunks) == b"".join(map(make, bodies))
        assert [chunk.last for chunk in chunks] == [2, 3, 4, 6]


def test_a_message_for_one_client_is_not_compressed() -> None:
    assert DEFLATED.unshared is TEXT
    assert TEXT.unshared is None
