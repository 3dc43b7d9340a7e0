"""Frames, compared with those that the library `websockets` makes and reads."""

from __future__ import annotations

from collections.abc import Generator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.extensions.permessage_deflate import PerMessageDeflate
from websockets.frames import Frame, Opcode
from websockets.streams import StreamReader

from notifier.frames import WINDOW_BITS, deflated, frame

EDGES = [0, 1, 125, 126, 127, 65535, 65536, 300_000]


@pytest.mark.parametrize("size", EDGES)
def test_a_frame_is_the_one_that_websockets_makes(size: int) -> None:
    text = b"x" * size
    assert frame(text) == Frame(Opcode.TEXT, text).serialize(mask=False)


@given(st.text(max_size=3000).map(str.encode) | st.sampled_from([b"ab" * size for size in EDGES]))
def test_a_compressed_frame_can_be_read_without_the_frames_before_it(text: bytes) -> None:
    for _ in range(2):
        assert unpacked(deflated(text)) == text


def test_only_texts_that_are_long_enough_are_compressed() -> None:
    assert deflated(b"{}") == frame(b"{}")
    assert len(deflated(b"change " * 100)) < 100


def unpacked(framed: bytes) -> bytes:
    """The text that a client reads that negotiated compression."""
    stream = StreamReader()
    stream.feed_data(framed)
    deflate = PerMessageDeflate(
        remote_no_context_takeover=True,
        local_no_context_takeover=True,
        remote_max_window_bits=WINDOW_BITS,
        local_max_window_bits=WINDOW_BITS,
    )
    read = finished(Frame.parse(stream.read_exact, mask=False, extensions=[deflate]))
    assert read.opcode is Opcode.TEXT
    assert read.fin
    assert not read.rsv1
    return bytes(read.data)


def finished(parsing: Generator[None, None, Frame]) -> Frame:
    try:
        next(parsing)
    except StopIteration as end:
        read: Frame = end.value
        return read
    raise AssertionError("the frame is longer than its bytes")
