"""The HTTP pages: health, metrics, the browser client and the description of the protocol."""

from __future__ import annotations

import asyncio
from pathlib import Path

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import BaseRoute, Route

from notifier import __version__
from notifier.health import Health
from notifier.watches import CALENDAR, Watch
from notifier.web import asyncapi

CLIENT = Path(__file__).parents[1] / "client" / "js"

HEADERS = {"X-Content-Type-Options": "nosniff", "Cache-Control": "no-cache"}


class Pages:
    """The routes: `public` for clients, `status` for operators, which may have an address of its own."""

    def __init__(self, health: Health, watches: tuple[Watch, ...] = CALENDAR) -> None:
        self._health = health
        self._watches = watches

    def public(self) -> list[BaseRoute]:
        """Pages for clients."""
        return [
            Route("/", self._front),
            Route("/client.js", self._client),
            Route("/client.d.ts", self._types),
            Route("/asyncapi.json", self._protocol),
        ]

    def status(self) -> list[BaseRoute]:
        """Pages for load balancers and monitoring."""
        return [
            Route("/livez", self._livez),
            Route("/readyz", self._readyz),
            Route("/metrics", self._metrics),
        ]

    async def _front(self, _: Request) -> Response:
        reason = self._health.reason()
        state = "ready" if reason is None else f"not ready: {reason}"
        return PlainTextResponse(
            f"Notifier {__version__}: {state}\n\n"
            "WebSocket clients connect to this address.\n"
            "/client.js the browser client · /asyncapi.json the protocol · /readyz /livez /metrics\n",
            headers=HEADERS,
        )

    async def _client(self, _: Request) -> Response:
        headers = {
            **HEADERS,
            "Access-Control-Allow-Origin": "*",
        }  # a module for pages of any origin
        return FileResponse(CLIENT / "client.js", media_type="text/javascript", headers=headers)

    async def _types(self, _: Request) -> Response:
        return FileResponse(CLIENT / "client.d.ts", media_type="text/plain", headers=HEADERS)

    async def _protocol(self, _: Request) -> Response:
        text = await asyncio.to_thread(asyncapi.text, self._watches)
        return Response(text, media_type="application/json", headers=HEADERS)

    async def _livez(self, _: Request) -> Response:
        return JSONResponse({"live": True}, headers=HEADERS)

    async def _readyz(self, _: Request) -> Response:
        reason = self._health.reason()
        if reason is None:
            return JSONResponse({"ready": True}, headers=HEADERS)
        return JSONResponse({"ready": False, "reason": reason}, status_code=503, headers=HEADERS)

    async def _metrics(self, _: Request) -> Response:
        return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST, headers=HEADERS)
