"""The composition root: creates the connections, tasks and ASGI application of one node."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Collection, Sequence
from functools import cache
from typing import TYPE_CHECKING

import structlog
from starlette.applications import Starlette
from starlette.routing import BaseRoute
from starlette.types import ASGIApp

from notifier import metrics
from notifier.access.accounts import Accounts
from notifier.access.admission import Admission
from notifier.access.membership import Membership
from notifier.access.tokens import Tokens
from notifier.database import sql
from notifier.database.primary import Followed
from notifier.database.query import Query
from notifier.delivery.account_rule import AccountRule
from notifier.delivery.arrivals import ArrivalLog, Arrivals
from notifier.delivery.clients import Client
from notifier.delivery.drain import drain
from notifier.delivery.filter_catalogue import FilterCatalogue
from notifier.delivery.history import History
from notifier.delivery.hub import Hub
from notifier.delivery.periodic_recheck import PeriodicRecheck
from notifier.delivery.postgres_stream import PostgresStream
from notifier.delivery.recheck_rule import RecheckRule
from notifier.delivery.services import Services
from notifier.delivery.state import NoStates
from notifier.delivery.stream import Stream
from notifier.health import Health
from notifier.messages import Message
from notifier.relay.publisher import LocalPublisher, Publisher
from notifier.relay.relay import Relay
from notifier.relay.tracing import UNTRACED
from notifier.settings import Settings
from notifier.state.reader import StateReader
from notifier.transport.application import Application
from notifier.transport.company_messages import CompanyMessages
from notifier.transport.cors import Cors
from notifier.transport.endpoint import Endpoint
from notifier.transport.refusals import Refusals
from notifier.watchdogs import (
    follow_configuration,
    report_start,
    watch_clock,
    watch_loop,
    watch_newcomers,
    watch_shutdown,
)
from notifier.watches import Scope, Watch
from notifier.web.pages import Pages

if TYPE_CHECKING:
    from opentelemetry.trace import TracerProvider

    from notifier.nats.path import NatsPath
    from notifier.tracing import Tracing

OTLP_ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"
"""The variable that turns tracing on."""

_log = structlog.get_logger("notifier.node")


class Node:
    """One node. Raises SettingsError where the settings cannot work."""

    def __init__(
        self,
        settings: Settings,
        routes: Sequence[BaseRoute] | None = None,
        tracer_provider: TracerProvider | None = None,
    ) -> None:
        self._settings = settings
        self._tracing = tracing = _tracing(tracer_provider)
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
            user_claim=settings.jwt_user_claim,
            companies_claim=settings.jwt_companies_claim,
        )
        followed = Followed()
        self.log_query = Query(settings.database, "stream", pooled=pooled, followed=followed)
        history = History(self.log_query)
        self.hub = Hub(history, settings.retention_hours, FilterCatalogue(self.log_query), tracing)
        self.membership_query = Query(
            settings.database, "membership", pooled=pooled, read_only=True, followed=followed
        )
        self.user_query = Query(
            settings.database,
            "users",
            pooled=pooled,
            pinned=False,
            read_only=True,
            followed=followed,
        )
        self.accounts = (
            Accounts(self.user_query, settings.user_query, self.hub.recheck)
            if settings.user_query is not None
            else None
        )
        self.membership = Membership(
            self.membership_query,
            settings.authorization,
            settings.membership_query,
            self.accounts,
        )
        self._newcomers = {
            "the query link": lambda: self.log_query.fetch("SELECT"),
            "access": self.membership.require,
            "the signing keys": self.tokens.require_keys,
        }
        self.health = Health(self._newcomers)
        self._recheck_rule = RecheckRule([])
        self._account_rule: AccountRule | None = None
        if settings.user_query is not None and self.accounts is not None:
            self._account_rule = AccountRule(settings.user_query, self._refresh_accounts, [])
        self._new_configuration = asyncio.Event()
        stream = PostgresStream(
            listen,
            self.log_query,
            self.hub,
            history,
            self.health,
            on_configuration=self._configured,
            followed=followed,
            traces=tracing is not None,
        )
        self.stream: Stream = stream
        self._use_watches(settings.watch, settings.scope)
        self._nats: NatsPath | None = None
        publisher: Publisher = LocalPublisher(stream.accept, stream.doubt)
        if settings.nats_url is not None:
            from notifier.nats.path import NatsPath

            self._nats = NatsPath(
                settings,
                stream,
                self.hub,
                self.log_query,
                on_configuration=self._new_configuration.set,
                on_accounts=self.accounts.refresh if self.accounts is not None else lambda _: None,
            )
            publisher = self._nats.publisher
        self.relay = Relay(
            listen,
            publisher,
            bulk_limit=settings.bulk_limit,
            retention_hours=settings.retention_hours,
            doorbell=settings.doorbell,
            tracer=tracing or UNTRACED,
        )
        self.admission: Admission[Client] = Admission(
            settings.max_connections,
            settings.max_connections_per_user,
            settings.max_connections_per_address,
            proxies=settings.trusted_proxies is not None,
        )
        self.states = (
            StateReader(settings.database, pooled=pooled, max_rows=settings.max_state_rows)
            if settings.state == "on"
            else NoStates()
        )
        self.services = Services(
            self.hub,
            self.tokens,
            self.membership,
            self.admission,
            Arrivals(ArrivalLog(self.log_query), lambda: self.hub.epoch),
            auth_timeout=settings.auth_timeout_seconds,
            leeway=settings.jwt_leeway_seconds,
            states=self.states,
            max_companies=settings.max_companies_per_connection,
        )
        self.refusals = Refusals()
        metrics.expect_links("node", "relay", "stream")
        if settings.authorization != "claim":
            metrics.expect_links("membership")
        self._routes = routes

    def _refresh_accounts(self, values: Collection[str] | None) -> None:
        """A row has changed that USER_QUERY reads, here and on the nodes that follow NATS."""
        assert self.accounts is not None
        self.accounts.refresh(values)
        if self._nats is not None:
            self._nats.publisher.notify(values)

    def _configured(self) -> None:
        """The database has another configuration: `migrate` has notified this node."""
        self._new_configuration.set()
        if self._nats is not None:
            self._nats.publisher.announce_configuration()

    def app(self) -> ASGIApp:
        """The ASGI app: WebSockets on `/`, HTTP elsewhere."""
        settings = self._settings
        pages = Pages(self.health, settings.watch)
        routes = [*(self._routes or ()), *pages.public()]
        if settings.status_port is None and settings.status_host is None:
            routes += pages.status()
        http = Starlette(routes=routes)
        endpoint = Endpoint(
            self.services, settings.allowed_origins, settings.max_buffer_bytes, self.refusals
        )
        messages = CompanyMessages(
            self.services,
            Cors(settings.allowed_origins, credentials=settings.token_cookie is not None),
            settings.max_buffer_bytes,
            settings.token_cookie,
        )
        return Application(endpoint, messages, http, self.refusals, settings.root_path)

    def status_app(self) -> ASGIApp:
        """Health and metrics alone, for an address of their own."""
        return Starlette(routes=Pages(self.health).status())

    async def run(self) -> None:
        """Runs all background tasks. An error in one ends them all: a node never runs partially."""
        with sql.serving(self._settings.schema):
            await self._run()

    async def _run(self) -> None:
        sessions = self.admission.connections
        recheck = PeriodicRecheck(sessions, self.membership)
        listen = self._settings.listen_database
        if self._tracing is not None:
            self._tracing.start()
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self.tokens.warm_up())
                tasks.create_task(self.stream.run(), name="stream")
                tasks.create_task(self.relay.run(), name="relay")
                tasks.create_task(recheck.run(), name="recheck")
                if self._nats is not None:
                    tasks.create_task(self._nats.run(), name="NATS")
                tasks.create_task(watch_clock(sessions), name="clock")
                tasks.create_task(watch_shutdown(listen, self.log_query), name="shutdown")
                tasks.create_task(watch_loop(), name="loop")
                tasks.create_task(report_start(self.log_query), name="start")
                tasks.create_task(watch_newcomers(self.health, self._newcomers), name="newcomers")
                tasks.create_task(
                    follow_configuration(
                        self._settings, self.log_query, self._new_configuration, self._use_watches
                    ),
                    name="configuration",
                )
        finally:
            self.log_query.end()
            self.membership.end()
            self.states.close()
            if self.accounts is not None:
                self.accounts.end()
            if self._tracing is not None:
                await self._tracing.close()

    def _use_watches(self, watches: Sequence[Watch], scopes: Sequence[Scope]) -> None:
        """Sets the rules that each message passes before it is delivered: in most configurations none."""
        queried: set[str | None] = {scope.name for scope in scopes if scope.membership is not None}
        if self._settings.membership_query is not None:
            queried |= {watch.scope for watch in watches}
        self._recheck_rule.use([watch for watch in watches if watch.scope in queried])
        rules: list[Callable[[Message], Message]] = []
        if self._settings.membership_query is not None or queried:
            rules.append(self._recheck_rule)
        if self._account_rule is not None:
            self._account_rule.use(watches)
            rules.append(self._account_rule)
        self.stream.use_rules(rules)
        self.hub.filters.use(watches)

    async def drain(self) -> None:
        """Reports not ready from now on, takes no connection, and ends those that are open."""
        self.health.draining = True
        self.admission.closed = True
        await drain(list(self.admission.connections), self._settings.drain_seconds)


def _tracing(provider: TracerProvider | None) -> Tracing | None:
    """The tracing of a node; None, and OpenTelemetry is not imported, where it is off."""
    if provider is None and (
        not os.environ.get(OTLP_ENDPOINT)
        or os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true"
    ):
        return None
    tracing = _load_tracing()
    return None if tracing is None else tracing(provider)


@cache
def _load_tracing() -> type[Tracing] | None:
    try:
        from notifier.tracing import Tracing
    except ImportError as error:
        _log.warning(
            "tracing is off", missing=error.name, remedy="pip install 'postgres-notifier[otel]'"
        )
        return None
    return Tracing
