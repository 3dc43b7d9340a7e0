"""The HTTP pages: health, metrics, the browser client and the description of the protocol."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable
from typing import TypeAlias
from urllib.parse import quote, unquote

from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import BaseRoute, Route

from notifier import __version__, metrics
from notifier.health import Health
from notifier.watches import CALENDAR, Watch
from notifier.web import asyncapi, javascript, openapi

HEADERS = {"X-Content-Type-Options": "nosniff", "Cache-Control": "no-cache"}
SHARED = {**HEADERS, "Access-Control-Allow-Origin": "*"}
"""For what pages of any origin may load."""


Page: TypeAlias = Callable[[Request], Awaitable[Response]]


class Pages:
    """The routes: `public` for clients, `status` for operators, which may have an address of its own."""

    def __init__(self, health: Health, watches: tuple[Watch, ...] = CALENDAR) -> None:
        self._health = health
        self._watches = watches

    def public(self) -> list[BaseRoute]:
        """Pages for clients."""
        return [
            Route("/", self._front),
            Route("/", self._options, methods=["OPTIONS"]),
            Route("/client.js", self._client),
            Route("/client.d.ts", self._types),
            Route("/asyncapi.json", self._protocol),
            Route("/openapi.json", self._http),
        ]

    def status(self) -> list[BaseRoute]:
        """Pages for load balancers and monitoring."""
        return [
            Route("/livez", _literal(self._livez)),
            Route("/readyz", _literal(self._readyz)),
            Route("/metrics", _literal(self._metrics)),
        ]

    async def _front(self, _: Request) -> Response:
        reason = self._health.reason()
        state = "ready" if reason is None else f"not ready: {reason}"
        return PlainTextResponse(
            f"Notifier {__version__}: {state}\n\n"
            "WebSocket clients connect to this address.\n"
            "/companies/{id}/messages the same over HTTP\n"
            "/client.js the browser client · /asyncapi.json /openapi.json the protocol"
            " · /readyz /livez /metrics\n",
            headers=HEADERS,
        )

    async def _options(self, _: Request) -> Response:
        """HAProxy's `option httpchk` without arguments checks a server by `OPTIONS /`."""
        status = 503 if self._health.draining else 204
        return Response(status_code=status, headers={**HEADERS, "Allow": "GET, HEAD, OPTIONS"})

    async def _client(self, request: Request) -> Response:
        return _cacheable(request, javascript.client().encode(), "text/javascript")

    async def _types(self, request: Request) -> Response:
        return _cacheable(request, javascript.types().encode(), "text/plain")

    async def _protocol(self, request: Request) -> Response:
        text = await asyncio.to_thread(asyncapi.text, self._watches)
        return _cacheable(request, text.encode(), "application/json")

    async def _http(self, request: Request) -> Response:
        text = await asyncio.to_thread(openapi.text, self._watches)
        return _cacheable(request, text.encode(), "application/json")

    async def _livez(self, _: Request) -> Response:
        return JSONResponse({"live": True}, headers=HEADERS)

    async def _readyz(self, _: Request) -> Response:
        reason = self._health.reason()
        path = {} if self._health.path is None else {"path": self._health.path}
        if reason is None:
            return JSONResponse({"ready": True, **path}, headers=HEADERS)
        return JSONResponse(
            {"ready": False, "reason": reason, **path}, status_code=503, headers=HEADERS
        )

    async def _metrics(self, _: Request) -> Response:
        return Response(metrics.exposition(), media_type=metrics.CONTENT_TYPE, headers=HEADERS)


def _literal(page: Page) -> Page:
    """A page that is found only where no character of its path is percent-encoded that need not be.

    A proxy may refuse it by its path, and compare that before it is decoded; also one with the prefix of ROOT_PATH twice.
    """

    async def found(request: Request) -> Response:
        raw = (request.scope.get("raw_path") or b"").decode("latin-1")
        if raw != quote(unquote(raw), safe=_PLAIN):
            return PlainTextResponse("Not Found", status_code=404)
        return await page(request)

    return found


_PLAIN = "/:@!$&'()*+,;="
"""What a path may have as it is, beside letters, digits and -._~ (RFC 3986, 3.3)."""


def _cacheable(request: Request, content: bytes, media_type: str) -> Response:
    """The content with an ETag, or 304 where the client has it already (RFC 9110, 13.1.2)."""
    etag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
    headers = {**SHARED, "ETag": etag}
    held = {
        each.strip().removeprefix("W/")
        for each in request.headers.get("if-none-match", "").split(",")
    }
    if held & {etag, "*"}:
        return Response(status_code=304, headers=headers)
    return Response(content, media_type=media_type, headers=headers)
