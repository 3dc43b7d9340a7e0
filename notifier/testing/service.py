"""A node in a thread with an event loop of its own, so that tests may be coroutines or not."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Collection, Coroutine, Mapping
from concurrent.futures import Future
from types import TracebackType
from typing import Any, Self, TypeVar

import uvicorn

from notifier.access.tokens import sign
from notifier.client.feed import Where
from notifier.embedding import Notifier
from notifier.server import bind
from notifier.testing.databases import SECRET, settings_for
from notifier.testing.follower import PATIENCE, Follower
from notifier.testing.waiting import until

READY_SECONDS = 30.0

T = TypeVar("T")


class RunningNotifier:
    """A node on a migrated database. `url` is for WebSockets, `http_url` for pages; both end with a slash."""

    def __init__(self, database_url: str, settings: Mapping[str, Any] | None = None) -> None:
        self.database_url = database_url
        self._settings = settings_for(database_url, settings or {})
        self._notifier = Notifier(self._settings)
        self._listening = bind("127.0.0.1", 0)
        port = self._listening.getsockname()[1]
        self.url = f"ws://127.0.0.1:{port}{self._settings.root_path}/"
        self.http_url = f"http://127.0.0.1:{port}{self._settings.root_path}/"
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="notifier", daemon=True)
        self._server = uvicorn.Server(
            uvicorn.Config(
                self._notifier,
                lifespan="on",
                log_config=None,
                access_log=False,
                timeout_graceful_shutdown=1,
                **self._notifier.uvicorn_options(events=True),
            )
        )
        self._followers: list[Follower] = []

    def token(self, user: str, companies: Collection[str] | None = None, ttl: float = 3600) -> str:
        """A token for `user`; `companies` for AUTHORIZATION=claim."""
        settings = self._settings
        secret, issuer, audience = settings.jwt_secret, settings.jwt_issuer, settings.jwt_audience
        return sign(
            user,
            companies,
            ttl,
            SECRET if secret is None else secret.get_secret_value(),
            issuer=issuer[0] if issuer else None,
            audience=audience[0] if audience else None,
            user_claim=settings.jwt_user_claim,
            companies_claim=settings.jwt_companies_claim,
        )

    def follow(self, user: str, company: str | int, **options: Any) -> Follower:
        """A client that has subscribed when it is returned, as `user`; see `afollow`."""
        return self._submit(self._follow(user, company, **options)).result()

    async def afollow(self, user: str, company: str | int, **options: Any) -> Follower:
        """A client that has subscribed. `entities` and `where`: its filter; `patience`: seconds until it fails.

        Raises AssertionError where it is refused.
        """
        return await asyncio.wrap_future(self._submit(self._follow(user, company, **options)))

    def start(self) -> None:
        """Starts the node; returns when it is ready. Raises TimeoutError, with the reason."""
        self._thread.start()
        try:
            self._submit(self._ready()).result()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Closes the clients and stops the node."""
        for follower in self._followers:
            follower.close()
        self._server.should_exit = True
        self._thread.join()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._server.serve(sockets=[self._listening]))

    def _submit(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    async def _ready(self) -> None:
        async def ready() -> bool:
            return self._notifier.problem is None

        try:
            await until(ready, READY_SECONDS)
        except TimeoutError:
            raise TimeoutError(f"not ready: {self._notifier.problem}") from None

    async def _follow(
        self,
        user: str,
        company: str | int,
        *,
        entities: Collection[str] | None = None,
        where: Where | None = None,
        patience: float = PATIENCE,
    ) -> Follower:
        follower = Follower(
            self.url,
            lambda: self.token(user, [str(company)]),
            str(company),
            self.database_url,
            patience=patience,
        )
        self._followers.append(follower)
        await follower.begin(entities, where)
        return follower
