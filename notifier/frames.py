"""WebSocket frames (RFC 6455, section 5) that are made once and written to many connections."""

from __future__ import annotations

import zlib

from notifier.messages import JSON

CHUNK_BYTES = 128 * 1024
"""How much is written to one connection before others get their turn."""

WINDOW_BITS = 12
WORTHWHILE_BYTES = 150
"""The window of compression as a power of two, and the length from which a text is compressed."""


def frame(body: JSON) -> bytes:
    """One unmasked text frame, in a tenth of the time that `websockets` takes."""
    return _frame(_TEXT, body)


def deflated(body: JSON) -> bytes:
    """One compressed text frame for every client that negotiated it.

    It can be shared because no context is taken over between messages (RFC 7692, 7.2.1).
    """
    if len(body) < WORTHWHILE_BYTES:
        return frame(body)
    packer = zlib.compressobj(wbits=-WINDOW_BITS, memLevel=5)
    packed = packer.compress(body) + packer.flush(zlib.Z_SYNC_FLUSH)
    return _frame(_TEXT | _COMPRESSED, packed[: -len(b"\0\0\xff\xff")])


def _frame(first: int, payload: bytes) -> bytes:
    length = len(payload)
    if length < _TWO_BYTES:
        return b"%c%c%b" % (first, length, payload)
    if length < 1 << 16:
        return b"%c%c%b%b" % (first, _TWO_BYTES, length.to_bytes(2), payload)
    return b"%c%c%b%b" % (first, _EIGHT_BYTES, length.to_bytes(8), payload)


# RFC 6455, 5.2: FIN and the opcode for text, RSV1; that the length follows, in two or in eight bytes.
_TEXT, _COMPRESSED, _TWO_BYTES, _EIGHT_BYTES = 0x81, 0x40, 126, 127
