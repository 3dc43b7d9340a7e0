"""Puts the parts together: one node, from its links to the database to its ASGI app."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Sequence
from contextlib import suppress
from itertools import count

import structlog
from starlette.applications import Starlette
from starlette.routing import BaseRoute
from starlette.types import ASGIApp, Receive, Scope, Send

from notifier import metrics
from notifier.access.admission import Admission
from notifier.access.membership import Doubts, Membership, Pair
from notifier.access.tokens import Tokens
from notifier.database import sql
from notifier.database.connections import backoff, is_shutting_down
from notifier.database.query import Query
from notifier.delivery.session import Parts, Session
from notifier.delivery.stream import Stream
from notifier.errors import DatabaseError, NotReady, Restart
from notifier.health import Health
from notifier.relay.changes import Watched
from notifier.relay.publisher import PostgresPublisher
from notifier.relay.relay import Relay
from notifier.settings import Settings, Watch
from notifier.transport.endpoint import Endpoint
from notifier.web.pages import Pages

RECHECK_SECONDS = 60.0
BLIND_SECONDS = 120.0
"""When access could not be checked for so long, there is none."""

CLOCK_SECONDS = 4.0
"""How often the clock is looked at."""

DOOR_SECONDS = 30.0
"""How often somebody looks whether the server waits for us to go."""

LOOP_SECONDS = 1.0
"""How often the event loop is looked at."""

CLOSES_PER_SECOND = 200

_log = structlog.get_logger("notifier")


class Node:
    """One node. Raises SettingsError where the settings do not do."""

    def __init__(self, settings: Settings, routes: Sequence[BaseRoute] | None = None) -> None:
        self._settings = settings
        listen = settings.listen_database
        pooled = settings.listen_database_url is not None and settings.database != listen
        secret = settings.jwt_secret
        self.tokens = Tokens(
            secret=secret.get_secret_value() if secret else None,
            public_key=settings.jwt_public_key,
            jwks_url=settings.jwks_url,
            algorithms=settings.jwt_algorithms,
            issuer=settings.jwt_issuer,
            audience=settings.jwt_audience,
            leeway_seconds=settings.jwt_leeway_seconds,
        )
        self.health = Health()
        own = settings.membership_query is None
        self._askers = [
            Query(settings.database, "stream", pooled=pooled),
            Query(settings.database, "membership", pooled=pooled, pinned=own),
        ]
        self.membership = Membership(
            self._askers[1], settings.authorization, settings.membership_query
        )
        self.stream = Stream(
            listen,
            self._askers[0],
            self.health,
            settings.retention_hours,
            None if own else Doubts(_members(settings.watch)).doubted,
        )
        self.relay = Relay(
            listen,
            PostgresPublisher(self.stream.take),
            bulk_limit=settings.bulk_limit,
            retention_hours=settings.retention_hours,
            doorbell=settings.doorbell,
        )
        self.admission: Admission[Session] = Admission(
            settings.max_connections,
            settings.max_connections_per_user,
            settings.max_connections_per_address,
        )
        self._parts = Parts(
            self.stream.hub,
            self.tokens,
            self.membership,
            self.admission,
            auth_timeout=settings.auth_timeout_seconds,
            leeway=settings.jwt_leeway_seconds,
        )
        self._routes = routes

    def app(self) -> ASGIApp:
        """The ASGI app: sockets on `/`, pages elsewhere."""
        settings = self._settings
        pages = Pages(self.health, settings.watch)
        routes = [*(self._routes or ()), *pages.public()]
        if settings.status_port is None and settings.status_host is None:
            routes += pages.status()
        http = Starlette(routes=routes)
        sockets = Endpoint(self._parts, settings.allowed_origins, settings.max_buffer_bytes)

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] == "websocket" and scope["path"] == "/":
                await sockets(scope, receive, send)
            else:
                await http(scope, receive, send)

        return app

    def status_app(self) -> ASGIApp:
        """Health and metrics alone, for an address of their own."""
        return Starlette(routes=Pages(self.health).status())

    async def run(self) -> None:
        """All that goes on in the background. Ends only by an error: never half-alive."""
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self.tokens.warm_up())
                tasks.create_task(self.stream.run(), name="stream")
                tasks.create_task(self.relay.run(), name="relay")
                tasks.create_task(self._recheck(), name="recheck")
                tasks.create_task(self._watch_the_clock(), name="clock")
                tasks.create_task(self._watch_the_door(), name="door")
                tasks.create_task(_watch_the_loop(), name="loop")
                tasks.create_task(self._compare(), name="compare")
        finally:
            for asker in self._askers:
                asker.close()

    async def _compare(self) -> None:
        """Says, once, where the database was migrated with other settings than these."""
        rows = None
        for attempt in count():
            try:
                rows = await self._askers[0].fetch(
                    "SELECT entity, key, company, member, exclude, created, updated, deleted,"
                    " max_log_bytes FROM notifier.watches, notifier.configuration"
                )
                break
            except DatabaseError:
                await backoff(attempt)
        settings = self._settings
        wanted = {
            (w.entity, w.key, w.company, w.member, tuple(w.exclude), *w.names)
            for w in settings.watch
        }
        if {(*row[:4], tuple(row[4]), *row[5:8]) for row in rows or ()} != wanted:
            _log.warning("the tables watched in the database are others; run: notifier migrate")
        if any(row["max_log_bytes"] != settings.max_log_bytes for row in rows or ()):
            _log.warning(
                "MAX_LOG_BYTES in the database is another; run: notifier migrate",
                here=settings.max_log_bytes,
                there=rows[0]["max_log_bytes"] if rows else None,
            )

    async def _recheck(self) -> None:
        """Every minute: may everybody still see what they follow?

        Each pair of company and user is asked about once, in pieces that are spread over the
        minute: what others ask meanwhile goes between two of them.
        """
        if not self.membership.follows_rows:
            return
        loop = asyncio.get_running_loop()
        asked: dict[Session, float] = {}
        while True:
            begun = loop.time()
            following: dict[Pair, list[Session]] = {}
            for session in self.admission.connections:
                if (pair := session.following) is not None:
                    identity, channel = pair
                    following.setdefault((channel.company, identity.user), []).append(session)
            asked = {
                session: asked.get(session, begun)
                for sessions in following.values()
                for session in sessions
            }
            pairs, size = list(following), self.membership.piece
            pieces = [pairs[start : start + size] for start in range(0, len(pairs), size)] or [[]]
            for number, piece in enumerate(pieces, 1):
                due = begun + RECHECK_SECONDS * number / len(pieces)
                await asyncio.sleep(max(0.0, due - loop.time()))
                now = loop.time()
                sessions = [session for pair in piece for session in following[pair]]
                try:
                    await self._ask_about(sessions)
                except DatabaseError as error:
                    _log.warning("access could not be checked", error=str(error))
                    for session, then in asked.items():
                        if now - then > BLIND_SECONDS and session.following is not None:
                            session.end(NotReady())
                else:
                    asked |= dict.fromkeys(sessions, now)

    async def _ask_about(self, sessions: Sequence[Session]) -> None:
        """Takes the company from those who may not see it any more. Raises DatabaseError."""
        following = [
            (session, *pair) for session in sessions if (pair := session.following) is not None
        ]
        answers = await asyncio.gather(
            *(self.membership.may(identity, channel.company) for _, identity, channel in following)
        )
        for (session, _, channel), allowed in zip(following, answers, strict=True):
            if not allowed:
                session.revoke(channel)

    async def _watch_the_clock(self) -> None:
        """Timers do not follow a clock that is set, nor a machine that slept."""
        offset = time.time() - time.monotonic()
        while True:
            await asyncio.sleep(CLOCK_SECONDS)
            now = time.time() - time.monotonic()
            if abs(now - offset) > 1:
                offset = now
                _log.warning("the clock was set")
                for session in list(self.admission.connections):
                    session.look_at_the_clock()

    async def _watch_the_door(self) -> None:
        """A server that is told to shut down smartly waits until nobody is connected: we go."""
        while True:
            await asyncio.sleep(DOOR_SECONDS)
            if await is_shutting_down(self._settings.listen_database):
                with suppress(DatabaseError):  # it may be on its way up instead
                    await self._askers[0].fetch(sql.query("terminate_own_backends"))
                    self._askers[0].close()
                    _log.warning("the database shuts down, and is left")

    async def drain(self) -> None:
        """Not ready from now on; every client is told, the closes are spread out."""
        self.health.draining = True
        self.admission.closed = True
        sessions = list(self.admission.connections)
        random.shuffle(sessions)
        seconds = min(self._settings.drain_seconds, len(sessions) / CLOSES_PER_SECOND)
        _log.info("going away", sockets=len(sessions), seconds=round(seconds, 1))
        begun = asyncio.get_running_loop().time()
        for number, session in enumerate(sessions):
            due = begun + seconds * number / max(1, len(sessions))
            await asyncio.sleep(max(0.0, due - asyncio.get_running_loop().time()))
            _go(session)


def _members(watches: Sequence[Watch]) -> dict[str, str]:
    """What an update of a row that gives a user access is called, and the property that names him."""
    members: dict[str, str] = {}
    for watch in watches:
        if watch.member is not None:
            watched = Watched(watch.entity, watch.key, watch.company, watch.member, *watch.names)
            members[watched.updated or ""] = watched.property(watch.member)
    return members


async def _watch_the_loop() -> None:
    """While the event loop is blocked, or the process stands still, nobody is served."""
    clock = asyncio.get_running_loop().time
    while True:
        due = clock() + LOOP_SECONDS
        await asyncio.sleep(LOOP_SECONDS)
        late = max(0.0, clock() - due)
        metrics.LOOP.observe(late)
        if late > LOOP_SECONDS:
            _log.warning("the event loop was blocked", seconds=round(late, 1))


def _go(session: Session) -> None:
    """The wait spreads the reconnects as the closes were spread."""
    session.end(Restart(retry_after_ms=random.randrange(0, 2000)))
