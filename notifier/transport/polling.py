"""A long poll: waits for a first message, and responds with all there are, up to a size."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple, Protocol

import msgspec
from msgspec import UNSET, UnsetType

from notifier import metrics
from notifier.delivery.encoding import JSON_TEXTS
from notifier.delivery.state import State
from notifier.delivery.subscription import Subscription
from notifier.delivery.transport import TransportListener
from notifier.errors import Closure, TooSlow
from notifier.messages import (
    JSON,
    ServerMessage,
    StateEnd,
    Subscribed,
    SubscribeResult,
    TokenExpiring,
    encode,
)
from notifier.transport.queues import DRAIN_SECONDS

PAGE_BYTES = 256 * 1024
"""A page of this size takes no more messages; the last one may exceed it."""


class _Header(msgspec.Struct, rename="pascal"):
    """The parts of a message that move a client: its position, if it has one, and with a Resync the epoch in its `data`.

    That of other messages is a row, which may have a property of any name and type.
    """

    type: str
    position: int | UnsetType = UNSET
    at: str | UnsetType = UNSET
    data: msgspec.Raw = msgspec.Raw(b"{}")


class _Resync(msgspec.Struct, rename="pascal"):
    epoch: str | None = None


_decode = msgspec.json.Decoder(_Header).decode
_decode_resync = msgspec.json.Decoder(_Resync).decode


_ROWS, _END = b'"Rows":[', b"]}}"
"""What stands before and behind the rows in a `State` message. The first cannot be within a JSON string."""


class Page(NamedTuple):
    """A complete response: `head`, the rows of a state, `tail`."""

    head: bytes
    state: tuple[JSON, ...]
    tail: bytes

    @property
    def size(self) -> int:
        """In bytes."""
        rows = sum(len(before) + len(rows) for before, rows in self._rows())
        return len(self.head) + rows + len(self._end())

    def parts(self) -> Iterator[bytes]:
        """The response: a part for each `State` message, then what follows the rows."""
        head = self.head
        for before, rows in self._rows():
            yield b"".join((head, before, rows))
            head = b""
        yield head + self._end()

    def _rows(self) -> Iterator[tuple[bytes, memoryview]]:
        """The rows of each message, and what comes before them. They are not copied: many clients may share them."""
        entity = b""
        for page in self.state:
            start = page.index(_ROWS)
            name = page[:start].rpartition(b'"Entity":')[2].rstrip(b",")
            before = b"," if name == entity else b"%b%b:[" % (b"]," if entity else b"", name)
            entity = name
            yield before, memoryview(page)[start + len(_ROWS) : -len(_END)]

    def _end(self) -> bytes:
        return (b"]" if self.state else b"") + self.tail


class RowsResponse(Protocol):
    """The response to a poll whose answer has rows."""

    async def begin(self, size: int) -> None:
        """Sends its head. `size`: of the body, in bytes."""

    async def send(self, part: bytes) -> None:
        """Sends a part of the body, and waits until there is room for the next one."""

    def abort(self) -> None:
        """Ends the connection: the size of the body was promised."""


class LongPoll:
    """One response. It has no direct write, so messages come through `write`.

    The page is sent when it is complete; but the rows of a state to `response`, where there is one, as access is checked before
    each part of them. `immediate`: whether not to wait, as the client has no position.
    """

    __slots__ = (
        "_begin",
        "_bodies",
        "_closure",
        "_complete",
        "_immediate",
        "_parts",
        "_response",
        "_size",
        "_state",
        "_subscription",
        "_waiting",
        "begun",
        "listener",
        "lost",
    )

    write_direct: Final = None
    encoding: Final = JSON_TEXTS

    def __init__(self, response: RowsResponse | None = None, *, immediate: bool) -> None:
        self._immediate = immediate
        self._response = response
        self._parts: Iterator[bytes] = iter(())
        self._begin: Subscribed | None = None
        self._subscription: Subscription | None = None
        self._state: State | None = None
        self._bodies: list[bytes] = []
        self._size = 0
        self._waiting = False
        self._closure: Closure | None = None
        self._complete = asyncio.get_running_loop().create_future()
        self.listener: TransportListener | None = None
        self.begun = self.lost = False

    def begin(
        self, answer: SubscribeResult, subscription: Subscription, state: State | None = None
    ) -> None:
        """Takes the messages after this position; with a state the page is complete at its end, when access was checked again."""
        self._begin = answer.data
        self._subscription = subscription
        self._state = state
        if state is None and (self._immediate or answer.data.recovered is False):
            self.finish()

    def write(self, frames: bytes, bodies: Sequence[bytes]) -> None:
        """Takes messages until the page is large enough; the first that are live complete it.

        How those of a replay are grouped depends on the sizes of others, which the user may not see: the page does not.
        """
        if self._complete.done() or self._state is not None:  # its rows are sent as they are
            return
        for body in bodies:
            if self._size < PAGE_BYTES:
                self._bodies.append(body)
                self._size += len(body)
        is_live = self._subscription is not None and self._subscription.live
        if is_live or self._size >= PAGE_BYTES:
            self.finish()

    def send(self, message: ServerMessage) -> None:
        """Takes a message of the session, except TokenExpiring: the next request has another token."""
        if isinstance(message, StateEnd):
            self.finish()
        elif not isinstance(message, TokenExpiring) and not self._is_cut():
            self._state = None  # access was lost
            body = encode(message)
            self.write(body, [body])

    async def drain(self) -> None:
        """Sends the rows that were written last; for messages there is room until the page is complete. Raises TooSlow."""
        response = self._response
        if response is None or self._state is None or self._complete.done():
            return
        try:
            async with asyncio.timeout(DRAIN_SECONDS):
                if not self.begun:
                    page = self._page(self._state)
                    self._parts, self.begun = page.parts(), True
                    await response.begin(page.size)
                await response.send(next(self._parts))
        except TimeoutError:
            raise TooSlow from None

    def rest(self) -> bytes:
        """What follows the rows that were sent."""
        return next(self._parts)

    def _is_cut(self) -> bool:
        """Aborts the connection where rows are being sent: this response has no other end."""
        if self._response is None or not self.begun or self._complete.done():
            return False
        self._response.abort()
        self.closed()
        return True

    def replayed(self) -> None:
        """Completes a page that has messages while the poll waits: they were replayed after a re-check of access."""
        if self._waiting and self._bodies:
            self.finish()

    def end(self, closure: Closure) -> None:
        """Completes the page; if it has no message, the closure takes its place. Where rows are being sent, they are cut."""
        if self._is_cut():
            metrics.CLOSED.labels(str(closure.code)).inc()
        elif not self._bodies and not self._complete.done():
            self._closure = closure.copy()
        self.finish()

    def finish(self) -> None:
        """Completes the page: no further message is taken."""
        if not self._complete.done():
            self._complete.set_result(None)
            if self.listener is not None:
                self.listener.closed()

    async def wait(self, seconds: float) -> None:
        """Waits until the page is complete, and completes it after `seconds`."""
        if not self._bodies:
            self._waiting = True
            timer = asyncio.get_running_loop().call_later(seconds, self.finish)
            try:
                await self._complete
            finally:
                timer.cancel()
        self.finish()

    def page(self) -> Page:
        """The complete page, once: nothing keeps its rows. Raises the Closure that ended it without one."""
        state, self._state = self._state, None
        if self._closure is not None:
            raise self._closure.copy()
        return self._page(state)

    def _page(self, state: State | None) -> Page:
        begin = self._begin
        assert begin is not None
        epoch, position, at = begin.epoch, begin.position, begin.at
        for body in self._bodies:
            header = _decode(body)
            if header.position is not UNSET:
                position, at = header.position, header.at
            if header.type == "Resync":
                epoch = _decode_resync(header.data).epoch or epoch
        head = Subscribed(
            company_id=begin.company_id,
            position=position,
            epoch=epoch,
            at=at,
            recovered=begin.recovered,
        )
        tail = b'"Messages":[%b]}' % b",".join(self._bodies)
        begun = encode(head)[:-1] + b","
        if state is None:
            return Page(begun + tail, (), b"")
        if not state.pages:
            return Page(begun + b'"State":{},' + tail, (), b"")
        return Page(begun + b'"State":{', state.pages, b"}," + tail)

    # --- what the connection reports

    def paused(self) -> None:
        """Nothing is written while the poll waits."""

    def resumed(self) -> None:
        """Nothing is written while the poll waits."""

    def closed(self) -> None:
        """The client has gone: there is no response, or no more of it."""
        self.lost = True
        self._state, self._parts = None, iter(())
        self.finish()
