"""A node's ASGI application: WebSockets at the root, pages elsewhere, under a prefix if there is one."""

from __future__ import annotations

from urllib.parse import quote, unquote

from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from notifier.transport.company_messages import PATH, CompanyMessages
from notifier.transport.endpoint import Endpoint
from notifier.transport.refusals import EXPLANATIONS, Reason, Refusals


class Application:
    """Routes connections. `root_path` is a prefix such as `/realtime`, or empty.

    Paths are accepted with and without the prefix, so a proxy may strip it or not. A prefix under
    which another application mounts this one (the scope's `root_path`) is removed before it.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        messages: CompanyMessages,
        pages: ASGIApp,
        refusals: Refusals,
        root_path: str = "",
    ) -> None:
        self._messages = messages
        self._endpoint = endpoint
        self._pages = pages
        self._refusals = refusals
        self._root_path = root_path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._pages(scope, receive, send)
            return
        prefix, path = self._split(scope)
        scope = {**scope, "root_path": prefix, "path": prefix + path}
        if scope["type"] == "websocket":
            serve = self._endpoint if path == "/" else self._endpoint.refuse_path
            await serve(scope, receive, send)
        elif path == "/" and _is_handshake(Headers(scope=scope)):
            await self._explain_upgrade(scope, receive, send)
        elif company := PATH.fullmatch(_raw_path(scope, path)):
            await self._messages.serve(company[1], scope, receive, send)
        else:
            await self._pages(scope, receive, send)

    def _split(self, scope: Scope) -> tuple[str, str]:
        """The prefix of a path as clients see it, and the path below it, which begins with a slash."""
        mounted = scope.get("root_path", "").rstrip("/")
        path = _remove(mounted, scope["path"])
        return mounted + self._root_path, _remove(self._root_path, path)

    async def _explain_upgrade(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers a handshake that has lost its Upgrade header with 426 (RFC 9110, 15.5.22)."""
        peer = scope.get("client")
        self._refusals.record(Reason.UPGRADE_REMOVED, peer[0] if peer else None)
        response = PlainTextResponse(
            EXPLANATIONS[Reason.UPGRADE_REMOVED] + "\n",
            status_code=426,
            headers={"Upgrade": "websocket", "Connection": "Upgrade", "Cache-Control": "no-store"},
        )
        await response(scope, receive, send)


def _raw_path(scope: Scope, path: str) -> str:
    """The end of the scope's raw path that `path` was decoded from, as percent-encoded as the client has sent it.

    Servers differ in how much of the prefix is in it, and clients in how they encode that. A slash of the prefix is
    not encoded. Where `path` was not decoded from it, `path` is encoded again.
    """
    raw = (scope.get("raw_path") or b"").decode("latin-1")
    prefix = unquote(raw).removesuffix(path)
    end = "/" + raw.split("/", prefix.count("/") + 1)[-1]
    return end if unquote(end) == path else quote(path)


def _remove(prefix: str, path: str) -> str:
    """The path below a prefix; the path itself where it does not begin with the prefix."""
    if prefix and (path == prefix or path.startswith(f"{prefix}/")):
        path = path[len(prefix) :]
    return path or "/"


def _is_handshake(headers: Headers) -> bool:
    """Whether headers of a WebSocket handshake are left in a request that is no upgrade."""
    return (
        "sec-websocket-key" in headers
        or "sec-websocket-version" in headers
        or headers.get("upgrade", "").lower() == "websocket"
    )
