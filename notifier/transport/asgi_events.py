"""Server-sent events for any ASGI server: a queue of events that go through ASGI's `send`."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

from starlette.types import Send

from notifier.delivery.encoding import EVENTS, event
from notifier.delivery.state import State
from notifier.delivery.subscription import Subscription
from notifier.errors import Closure
from notifier.messages import ServerMessage, StateEnd, SubscribeResult, encode
from notifier.transport.asgi import AsgiTransport
from notifier.transport.events import COMMENT, COMMENT_SECONDS, HEADERS, place

END = b""
"""The item that ends the response."""

_END_OF_EVENT = b"\n\n"
"""No line of an event is empty."""


class AsgiEvents(AsgiTransport):
    """One response. `headers` are sent beside HEADERS."""

    encoding = EVENTS

    def __init__(self, send: Send, max_buffer: int, headers: Mapping[str, str]) -> None:
        super().__init__(send, max_buffer)
        self._headers = {**HEADERS, **headers}
        self._timer: asyncio.TimerHandle | None = None
        self._place: str | None = None
        self.begun = False

    def begin(
        self, answer: SubscribeResult, subscription: Subscription, state: State | None = None
    ) -> None:
        """Queues the first event, before which `run` sends the head of the response."""
        self.begun = True
        self._place = place(answer.data)
        self._put([event(encode(answer), self._place if state is None else None)])
        self._comment_later()

    def write(self, frames: bytes, bodies: Sequence[bytes]) -> None:
        """Queues events, each by itself as in `EventEncoding`; ends with TooSlow beyond `max_buffer`."""
        self._put([each + _END_OF_EVENT for each in frames.split(_END_OF_EVENT)[:-1]])

    def send(self, message: ServerMessage) -> None:
        """Queues an event; only StateEnd has an id."""
        event_id = self._place if isinstance(message, StateEnd) else None
        self._put([event(encode(message), event_id)])

    def end(self, closure: Closure) -> None:
        """Queues Disconnect and the end of the response."""
        if self.begun:
            super().end(closure)

    def finish(self) -> None:
        """Queues the end of the response."""
        if self.begun and not self._ended:
            self._queue.put_nowait(END)
        super().finish()

    async def run(self) -> None:
        """Sends the response, until its end or a failure."""
        try:
            await super().run()
        finally:
            if self._timer is not None:
                self._timer.cancel()

    def _text(self, message: ServerMessage) -> bytes:
        return EVENTS.frame(super()._text(message))

    async def _send_item(self, item: bytes) -> None:
        if self._headers:
            headers = [(name.encode(), value.encode()) for name, value in self._headers.items()]
            self._headers = {}
            await self._send({"type": "http.response.start", "status": 200, "headers": headers})
        more = item is not END
        await self._send({"type": "http.response.body", "body": item, "more_body": more})

    async def _send_close(self, closure: Closure) -> None:
        await self._send_item(END)

    def _comment_later(self) -> None:
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(COMMENT_SECONDS, self._comment)

    def _comment(self) -> None:
        self._put([COMMENT])
        if not self._ended:
            self._comment_later()
