"""What TCP knows about the peer of a connection, where a node does not read the connection itself."""

from __future__ import annotations

import asyncio
import socket
import struct

_ESTABLISHED = 1

_INFO = struct.Struct("=B23xI28xI84xI")
"""Of Linux's `tcp_info`: tcpi_state, tcpi_unacked, tcpi_last_ack_recv (in milliseconds), tcpi_notsent_bytes."""


def acknowledges(transport: asyncio.Transport, seconds: float) -> bool:
    """Whether the peer has acknowledged all that was written, or sent any acknowledgement within so many seconds.

    Also where that is not known: for sockets that are not TCP, and on other systems than Linux. A process that stands still
    acknowledges too, since its kernel does.
    """
    if transport.is_closing():
        return False
    own = transport.get_extra_info("socket")
    if own is None or own.family not in (socket.AF_INET, socket.AF_INET6):
        return True
    if not hasattr(socket, "TCP_INFO"):
        return True
    info = own.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _INFO.size)
    if len(info) < _INFO.size:
        return True
    state, unacknowledged, silent_ms, unsent = _INFO.unpack(info)
    waits = unacknowledged or unsent or transport.get_write_buffer_size()
    return state == _ESTABLISHED and (not waits or silent_ms < seconds * 1000)
