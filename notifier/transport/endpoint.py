"""The ASGI application for WebSockets: accepts a connection and begins its conversation."""

from __future__ import annotations

import asyncio

from starlette.datastructures import Headers
from starlette.types import Receive, Scope, Send

from notifier.access.admission import address_group
from notifier.delivery.services import Services
from notifier.transport.asgi import AsgiTransport
from notifier.transport.conversation import Conversation, converse
from notifier.transport.refusals import EXPLANATIONS, Reason, Refusals
from notifier.transport.websocket import EXTENSION, WebSocketProtocol


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
            scope.clear()  # Application's copy
            own.detach(Conversation.begin(self._services, own, address))
            return
        async with asyncio.TaskGroup() as tasks:
            transport = AsgiTransport(send, self._max_buffer)
            tasks.create_task(transport.run())
            try:
                await converse(Conversation.begin(self._services, transport, address), receive)
            finally:
                transport.finish()

    async def refuse_path(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers a handshake at a path where there is no WebSocket."""
        await receive()
        self._refusals.record(Reason.PATH, _host(scope), path=scope["path"])
        await refuse(scope, send, 404, EXPLANATIONS[Reason.PATH])

    def _origin_allowed(self, scope: Scope) -> bool:
        """Browsers always send an Origin, which must be in the list; native clients send none."""
        if self._origins is None:
            return True
        origins = Headers(scope=scope).getlist("origin")
        return not origins or (len(origins) == 1 and origins[0] in self._origins)


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
