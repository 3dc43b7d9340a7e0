"""Passes the events of one WebSocket to its session, one at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Self

import structlog

from notifier import metrics
from notifier.delivery.services import Services
from notifier.delivery.session import Session
from notifier.delivery.transport import Transport
from notifier.errors import Binary, Closure, Internal
from notifier.transport.queues import Event

_log = structlog.get_logger("notifier.conversation")


class Conversation:
    """A session and its transport, from the accepted handshake to the end of either."""

    __slots__ = ("_session", "_transport")

    def __init__(self, session: Session, transport: Transport) -> None:
        self._session: Session | None = session
        self._transport = transport
        metrics.WEBSOCKETS.inc()

    @classmethod
    def begin(cls, services: Services, transport: Transport, address: str) -> Self | None:
        """The conversation; None where the node takes no more, which ends the transport."""
        try:
            return cls(Session(services, transport, address), transport)
        except Closure as closure:
            transport.end(closure)
            return None

    async def receive(self, event: Event) -> None:
        """Handles one ASGI event. Whatever fails ends the transport."""
        session = self._session
        if session is None:
            return
        if event["type"] == "websocket.disconnect":
            self.end()
            return
        try:
            await session.receive(_text(event))
        except Closure as closure:
            self.end()
            self._transport.end(closure)
        except Exception:
            _log.exception("a session failed")
            self.end()
            self._transport.end(Internal())

    def end(self) -> None:
        """Closes the session; further events are dropped."""
        if self._session is not None:
            self._session.closed()
            self._session = None
            metrics.WEBSOCKETS.dec()

    @property
    def ended(self) -> bool:
        """Whether it takes no further events."""
        return self._session is None


async def converse(
    conversation: Conversation | None, receive: Callable[[], Awaitable[Event]]
) -> None:
    """Gives it the events of an ASGI connection until it has ended.

    While it handles one, the next is received already: a disconnect interrupts it.
    """
    if conversation is None:
        return

    def look(received: asyncio.Future[Event]) -> None:
        if not received.cancelled() and (
            received.exception() or received.result()["type"] == "websocket.disconnect"
        ):
            conversation.end()

    try:
        event = await receive()
        while not conversation.ended:
            following = asyncio.ensure_future(receive())
            following.add_done_callback(look)
            try:
                await conversation.receive(event)
                if not conversation.ended:
                    event = await following
            finally:
                following.cancel()
    finally:
        conversation.end()


def _text(event: Event) -> str:
    """The text of a text frame. Raises Binary for a binary one."""
    text = event.get("text")
    if not isinstance(text, str):
        raise Binary
    return text
