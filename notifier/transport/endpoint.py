"""The ASGI application for WebSockets: accepts a connection and runs its session."""

from __future__ import annotations

import asyncio

import structlog
from starlette.datastructures import Headers
from starlette.types import Message, Receive, Scope, Send

from notifier import metrics
from notifier.access.admission import address_group
from notifier.delivery.session import Services, Session
from notifier.errors import Binary, Closure, Internal
from notifier.transport.asgi import AsgiTransport
from notifier.transport.refusals import EXPLANATIONS, Reason, Refusals
from notifier.transport.websocket import EXTENSION, WebSocketProtocol

_log = structlog.get_logger("notifier.endpoint")


class Endpoint:
    """Accepts WebSockets. `origins`: the origins that browsers may connect from; None allows any."""

    def __init__(
        self,
        services: Services,
        origins: tuple[str, ...] | None,
        max_buffer: int,
        refusals: Refusals,
    ) -> None:
        self._services = services
        self._origins = None if origins is None else frozenset(origins)
        self._max_buffer = max_buffer
        self._refusals = refusals

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await receive()  # websocket.connect
        if not self._origin_allowed(scope):
            origin = ", ".join(Headers(scope=scope).getlist("origin"))
            self._refusals.record(Reason.ORIGIN, _host(scope), origin=origin)
            await refuse(scope, send, 403, EXPLANATIONS[Reason.ORIGIN])
            return
        await send({"type": "websocket.accept"})
        address = address_group(_host(scope) or "")
        own = scope.get("extensions", {}).get(EXTENSION)
        if isinstance(own, WebSocketProtocol):
            own.forget_handshake()
            scope.clear()  # Application's copy
            await self._run_session(own, receive, address)
            return
        async with asyncio.TaskGroup() as tasks:
            transport = AsgiTransport(send, self._max_buffer)
            tasks.create_task(transport.run())
            try:
                await self._run_session(transport, receive, address)
            finally:
                transport.finish()

    async def refuse_path(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers a handshake at a path where there is no WebSocket."""
        await receive()
        self._refusals.record(Reason.PATH, _host(scope), path=scope["path"])
        await refuse(scope, send, 404, EXPLANATIONS[Reason.PATH])

    def _origin_allowed(self, scope: Scope) -> bool:
        """Browsers always send an Origin, which must be in the list; native clients send none."""
        origins = Headers(scope=scope).getlist("origin")
        return (
            self._origins is None
            or not origins
            or (len(origins) == 1 and origins[0] in self._origins)
        )

    async def _run_session(
        self, transport: WebSocketProtocol | AsgiTransport, receive: Receive, address: str
    ) -> None:
        session: Session | None = None
        try:
            session = Session(self._services, transport, address)
            metrics.WEBSOCKETS.inc()
            while True:
                event = await receive()
                if event["type"] == "websocket.disconnect":
                    return
                await session.receive(_text(event))
        except Closure as closure:
            if session is not None:
                session.closed()
            transport.end(closure)
        except Exception:
            _log.exception("a session failed")
            transport.end(Internal())
        finally:
            if session is not None:
                session.closed()
                metrics.WEBSOCKETS.dec()


async def refuse(scope: Scope, send: Send, status: int, text: str) -> None:
    """Answers a handshake with a status and a text, or with 403 where the server cannot do more."""
    if "websocket.http.response" not in scope.get("extensions", {}):
        await send({"type": "websocket.close", "code": 1008, "reason": text})
        return
    headers = [(b"content-type", b"text/plain; charset=utf-8")]
    await send({"type": "websocket.http.response.start", "status": status, "headers": headers})
    await send({"type": "websocket.http.response.body", "body": f"{text}\n".encode()})


def _host(scope: Scope) -> str | None:
    """The address of the peer, or that of the client where a trusted proxy names it."""
    peer = scope.get("client")
    return peer[0] if peer else None


def _text(event: Message) -> str:
    """The text of a text frame. Raises Binary for a binary one."""
    text = event.get("text")
    if not isinstance(text, str):
        raise Binary
    return text
