"""Server-sent events: a response whose chunks are written to the connection directly.

As with WebSockets, the connection's buffer is the queue, and its size is limited.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Mapping, Sequence

from notifier import metrics
from notifier.delivery.encoding import EVENT_CHUNKS, EVENTS, Encoding, chunk, event
from notifier.delivery.state import State
from notifier.delivery.subscription import Subscription
from notifier.delivery.transport import TransportListener, Write
from notifier.errors import Closure, TooSlow
from notifier.messages import (
    Disconnect,
    ServerMessage,
    StateEnd,
    Subscribed,
    SubscribeResult,
    encode,
)
from notifier.transport.http_guard import GuardedHttp
from notifier.transport.queues import Bound, Gate, drained
from notifier.transport.websocket import CLOSE_SECONDS, HIGH_WATER

COMMENT_SECONDS = 10.0
"""The interval of comments, which keep proxies from closing a stream that has no messages."""

UNACKNOWLEDGED_MS = 30_000
"""TCP_USER_TIMEOUT: after how long without an acknowledgement the kernel drops the connection."""

HEADERS = {
    "content-type": "text/event-stream; charset=utf-8",
    "cache-control": "no-store, no-transform",
    "x-accel-buffering": "no",
}
STATUS_LINE = b"HTTP/1.1 200 OK\r\n"
LAST_CHUNK = b"0\r\n\r\n"

COMMENT = b":\n\n"


class EventStream:
    """One response; the protocol's listener. `headers` are sent beside HEADERS.

    `chunked`: whether the client understands chunks, which HTTP/1.0 does not have.
    """

    listener: TransportListener | None = None

    def __init__(
        self,
        protocol: GuardedHttp,
        max_buffer: int,
        headers: Mapping[str, str],
        *,
        chunked: bool = True,
    ) -> None:
        self._protocol = protocol
        self._transport = protocol.transport
        self._max_buffer = max_buffer
        self._bound = Bound(max_buffer)
        self._headers = {**HEADERS, **headers, "connection": "close"}
        if chunked:
            self._headers["transfer-encoding"] = "chunked"
        self._writable = Gate(protocol.loop)
        self._open = True
        self._timer: asyncio.TimerHandle | None = None
        self._chunked = chunked
        self._place: str | None = None
        self.encoding: Encoding = EVENT_CHUNKS if chunked else EVENTS
        self.begun = False
        self.write_direct: Write | None = None

    def begin(
        self, answer: SubscribeResult, subscription: Subscription, state: State | None = None
    ) -> None:
        """Sends the head of the response and its first event."""
        if not self._open or self._transport.is_closing():
            return
        self.begun = True
        self._attach()
        head = "".join(f"{name}: {value}\r\n" for name, value in self._headers.items()).encode()
        for name, value in self._protocol.server_state.default_headers:
            head += b"%b: %b\r\n" % (name, value)
        self._place = place(answer.data)
        first = self._wrapped(event(encode(answer), self._place if state is None else None))
        self._transport.write(b"%b%b\r\n%b" % (STATUS_LINE, head, first))
        self._comment_later()

    def _attach(self) -> None:
        """Takes over the connection, and bounds its buffer."""
        transport = self._transport
        self.write_direct = transport.write
        self._protocol.stream(self)
        high = min(HIGH_WATER, self._max_buffer // 2)
        transport.set_write_buffer_limits(high=high, low=high // 4)
        own = transport.get_extra_info("socket")
        internet = own is not None and own.family in (socket.AF_INET, socket.AF_INET6)
        if internet and hasattr(socket, "TCP_USER_TIMEOUT"):
            own.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, UNACKNOWLEDGED_MS)

    def write(self, frames: bytes, bodies: Sequence[bytes]) -> None:
        """Writes whole chunks; ends with TooSlow when more waits than may."""
        if not self._open or self._transport.is_closing():
            return
        self._transport.write(frames)
        if self._bound.is_exceeded(self._transport.get_write_buffer_size(), len(frames)):
            self._report_closed()
            self.end(TooSlow())

    def send(self, message: ServerMessage) -> None:
        """Sends an event; only StateEnd has an id, so a reader who is cut before it begins again."""
        event_id = self._place if isinstance(message, StateEnd) else None
        self.write(self._wrapped(event(encode(message), event_id)), ())

    async def drain(self) -> None:
        """Waits until the buffer has room. Raises TooSlow."""
        await drained(self._writable)

    def replayed(self) -> None:
        """Live messages need nothing else."""

    def end(self, closure: Closure) -> None:
        """Sends Disconnect and ends the response; aborts when the peer does not read in time."""
        if self._open and self.begun and not self._transport.is_closing():
            metrics.CLOSED.labels(str(closure.code)).inc()
            self._transport.write(self.encoding.frame(encode(Disconnect.of(closure))))
        self.finish()

    def finish(self) -> None:
        """Ends the response."""
        if not self._open:
            return
        self._stop()
        if self.begun and not self._transport.is_closing():
            if self._chunked:
                self._transport.write(LAST_CHUNK)
            self._transport.close()
            self._timer = self._protocol.loop.call_later(CLOSE_SECONDS, self._transport.abort)

    # --- what the protocol reports

    def paused(self) -> None:
        """The connection's buffer is over its high-water mark."""
        self._bound.paused(self._transport.get_write_buffer_size())
        self._writable.clear()
        self.write_direct = None
        if self.listener is not None:
            self.listener.paused()

    def resumed(self) -> None:
        """The buffer has drained."""
        self._bound.drained()
        self._writable.set()
        if self._open:
            self.write_direct = self._transport.write
            if self.listener is not None:
                self.listener.resumed()

    def closed(self) -> None:
        """The connection is lost."""
        self._stop()
        if self._timer is not None:
            self._timer.cancel()
        self._writable.set()
        self._report_closed()

    def _stop(self) -> None:
        self._open = False
        self.write_direct = None
        if self._timer is not None:
            self._timer.cancel()

    def _report_closed(self) -> None:
        if self.listener is not None:
            self.listener.closed()

    def _comment_later(self) -> None:
        self._timer = self._protocol.loop.call_later(COMMENT_SECONDS, self._comment)

    def _comment(self) -> None:
        self._comment_later()
        self.write(self._wrapped(COMMENT), ())

    def _wrapped(self, data: bytes) -> bytes:
        return chunk(data) if self._chunked else data


def place(data: Subscribed) -> str:
    """The id of an event whose position is that of an answer."""
    return f"{data.epoch}:{data.position}" + (f":{data.at}" if data.at else "")
