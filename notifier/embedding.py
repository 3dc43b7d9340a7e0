"""The public way to run a node inside another ASGI application: `from notifier import Notifier`.

notifier = Notifier()
app = Starlette(routes=[Mount("/realtime", notifier)], lifespan=notifier.lifespan)
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

import structlog
from starlette.applications import Starlette
from starlette.types import ASGIApp, Receive, Scope, Send

from notifier import logs
from notifier.cancellation import is_cancelled
from notifier.commands import MESSAGE_BYTES
from notifier.node import Node
from notifier.settings import Settings, load
from notifier.transport.http_guard import GuardedHttp
from notifier.transport.keepalive import Keepalive
from notifier.transport.refusals import Refusals
from notifier.transport.websocket import Options, WebSocketProtocol

if TYPE_CHECKING:
    from opentelemetry.trace import TracerProvider

EXIT_SECONDS = 28.0
"""How long a drain may take."""

RESTART_SECONDS = 1.0
"""The pause before a new node takes the place of one that failed."""

_log = structlog.get_logger("notifier.embedding")


class Notifier:
    """A node as an ASGI application. It runs while its lifespan does.

    Without `settings` they are read as `notifier serve` reads them: from NOTIFIER_ variables and
    `notifier.toml`. Raises SettingsError where they cannot work. Host, port, TLS, ping interval and
    log settings have no effect: those are the server's. `tracer_provider` traces the changes whose writers
    name a span (docs/tracing.md).
    """

    def __init__(
        self, settings: Settings | None = None, tracer_provider: TracerProvider | None = None
    ) -> None:
        logs.use_logging()
        self._settings = load() if settings is None else settings
        Node(self._settings)  # raises SettingsError now, not in the lifespan
        self._tracer_provider = tracer_provider
        self._node: Node | None = None
        self._app: ASGIApp | None = None
        self._status_app: ASGIApp | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """WebSockets and pages, below any path at which another application mounts it."""
        if scope["type"] == "lifespan":
            await Starlette(lifespan=self.lifespan)(scope, receive, send)
            return
        await self._running(self._app)(scope, receive, send)

    @asynccontextmanager
    async def lifespan(self, app: object = None) -> AsyncIterator[None]:
        """Runs the node; at the end its connections are closed. For the argument `lifespan` of
        Starlette and FastAPI, and for `async with` in a lifespan of your own.
        """
        del app
        if self._node is not None:
            raise RuntimeError("this Notifier runs already")
        self._start()
        running = asyncio.create_task(self._run(), name="notifier")
        try:
            yield
        finally:
            try:
                with suppress(TimeoutError):
                    async with asyncio.timeout(EXIT_SECONDS):
                        await self._running(self._node).drain()
            finally:
                running.cancel()
                await asyncio.wait([running])
                self._node = self._app = self._status_app = None

    def beside(self, app: ASGIApp, path: str) -> ASGIApp:
        """An application that serves this one below `path` and `app` elsewhere.

        For an application that has no lifespan of its own, such as Django's. Raises ValueError for the path `/`, below
        which everything is.
        """
        prefix = "/" + path.strip("/")
        if prefix == "/":
            raise ValueError("the notifier needs a path of its own, such as /realtime")

        async def both(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] == "lifespan":
                await self(scope, receive, send)
                return
            root = scope.get("root_path", "").rstrip("/")
            # Some servers leave the root path out of the path.
            is_below_root = scope["path"] == root or scope["path"].startswith(f"{root}/")
            below = scope["path"].removeprefix(root) if is_below_root else scope["path"]
            if below == prefix or below.startswith(f"{prefix}/"):
                await self(
                    {**scope, "root_path": root + prefix, "path": root + below}, receive, send
                )
            else:
                await app(scope, receive, send)

        return both

    def uvicorn_options(self, *, events: bool = False) -> dict[str, Any]:
        """Arguments for `uvicorn.run` by which messages are written to the sockets directly.

        They apply to all WebSockets of the process: a text from a client may have 64 KiB, and is
        not compressed. With `events` server-sent events are written directly too, by a protocol for
        all HTTP requests of the process: each must arrive within ten seconds, its head may have
        64 KiB, 16 may wait behind another, and a client must go on reading its response. A body
        may have any size.
        """
        settings, refusals = self._settings, Refusals()
        keepalive = Keepalive(settings.ping_seconds)
        options = Options(refusals, keepalive, settings.max_buffer_bytes, settings.deflate)
        found: dict[str, Any] = {
            "ws": WebSocketProtocol.configured(options),
            "ws_max_size": MESSAGE_BYTES,
            "ws_per_message_deflate": False,
        }
        if events:
            found["http"] = GuardedHttp.configured(refusals, body_bytes=None)
        return found

    @property
    def status(self) -> ASGIApp:
        """`/livez`, `/readyz` and `/metrics` alone, for an address of their own."""

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await self._running(self._status_app)(scope, receive, send)

        return app

    @property
    def problem(self) -> str | None:
        """Why it is not ready, as in `/readyz`; None: it is."""
        return "not running" if self._node is None else self._node.health.reason()

    def _start(self) -> None:
        """Puts a new node in place of the former one; each runs once."""
        self._node = Node(self._settings, tracer_provider=self._tracer_provider)
        self._app, self._status_app = self._node.app(), self._node.status_app()

    async def _run(self) -> None:
        """Runs one node after another: a node whose component fails ends as a whole."""
        while True:
            try:
                await self._running(self._node).run()
            except Exception as error:
                if is_cancelled():
                    # A task group raises the errors of its tasks in the place of its own cancellation.
                    _log.warning("a part of the node failed as it ended", error=repr(error))
                    raise asyncio.CancelledError from error
                _log.exception("the node failed; another one takes its place")
            await self._running(self._node).drain()
            await asyncio.sleep(RESTART_SECONDS)
            self._start()

    @staticmethod
    def _running(part: Any) -> Any:
        if part is None:
            raise RuntimeError(
                "this Notifier does not run: pass `lifespan=notifier.lifespan` to the application"
                " that mounts it, and serve that by a server with lifespan support"
            )
        return part
