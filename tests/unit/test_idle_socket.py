"""The memory of an idle socket: M1 in the README's table."""

from __future__ import annotations

import asyncio
import gc

from websockets.datastructures import Headers

from tests.unit.door import UPGRADE, open_door, request

MARK = "marked.example"


def kept() -> int:
    """How many headers of the marked handshake are still in memory."""
    gc.collect()
    found = [each for each in gc.get_objects() if isinstance(each, Headers)]
    return sum(value == f"https://{MARK}" for headers in found for value in headers.values())


async def test_an_open_socket_does_not_keep_the_headers_of_its_handshake() -> None:
    origin = f"Origin: https://{MARK}\r\n".encode()
    async with open_door(allowed_origins=f"https://{MARK}") as door:
        reader, writer = await asyncio.open_connection("127.0.0.1", door.port)
        writer.write(request(headers=UPGRADE + origin))
        assert b" 101 " in await reader.readuntil(b"\r\n\r\n")
        headers_kept = kept()
        writer.close()
    assert headers_kept == 0
