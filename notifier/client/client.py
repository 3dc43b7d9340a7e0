"""Notifier's client for Python: follows companies and never loses a message silently.

    async with connect("wss://calendar.example/", get_token, company) as client:
        async for report in client:
            match report:
                case Resync():
                    show(await read_everything(report.company))
                case Message():
                    apply(report.type, report.data)

Each subscription is reported as either `Recovered` (every missed message follows) or `Resync`
(reload your state). Reports that arrive while the loop's body runs wait for it, so a state that was
read earlier can never overwrite a newer message. A slow body slows the socket down; messages that
the server drops meanwhile are requested again.

One connection may follow several companies, each with a filter, a position and an end of its own:

    mine = client.subscribe("acme", where={"Event": {"OrganizerId": [me]}})
    tx = await save(event)           # your API returns the number of its transaction
    await mine.arrived(tx)           # in another task than the loop: its messages were handled there

clients/js/src/client.js has the same rules and words. The protocol is in docs/protocol.md.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Mapping
from types import TracebackType
from typing import Any, Self

from notifier.client.feed import NOT_SUBSCRIBED, Arrival, ArrivalError, Feed, Filter, Where
from notifier.client.link import Link
from notifier.client.pace import Pace
from notifier.client.reports import (
    CompanyState,
    Message,
    Position,
    Report,
    Resync,
    Row,
    Skipped,
    Status,
    position_of,
)
from notifier.client.rows import Names, Rows, Store
from notifier.client.snapshots import restored, rows_of, snapshot_of
from notifier.client.sockets import OpenSocket, check_url, opener
from notifier.client.subscription import Subscription
from notifier.client.tokens import GetToken
from notifier.client.transports import Choice, Transport, Transports


def connect(
    url: str,
    get_token: GetToken,
    company: str | int | None = None,
    *,
    after: int | None = None,
    epoch: str | None = None,
    at: str | None = None,
    entities: Collection[str] | None = None,
    where: Where | None = None,
    state: bool = False,
    snapshot: Mapping[str, Any] | None = None,
    tables: Mapping[str, Names] | None = None,
    heartbeat: float = 15.0,
    timeout: float = 10.0,
    min_delay: float = 1.0,
    max_delay: float = 30.0,
    transport: Choice = "auto",
    **options: Any,
) -> Client:
    """A client of the notifier at `url` (`wss://…`); it connects when its `async with` begins.

    Without a company it waits for `set_company` or `subscribe`. `entities` and `where` are the filter of
    this company, as in `Client.subscribe`. `after`, `epoch` and `at` are where to resume: the
    value of `client.position` when you saved your state. A token that was refused or has expired is not
    presented again, so a cache behind `get_token` should not outlive the token.

    With `state` the rows of the company come first, as a report `CompanyState` in place of each `Resync`, and `rows`
    keeps them. A `snapshot` of an earlier client is shown at once, and only what was missed since is requested. `tables` has
    the names of entities that have names of their own.

    In seconds: after `heartbeat` of silence the client sends a ping; without an answer within
    `timeout` it drops the link. The first wait before a reconnect is a random part of `min_delay`,
    each further one of twice as long, up to `max_delay`. `options` are those of `websockets`
    (`ssl`, `proxy`, `additional_headers`, …); over HTTP `ssl` and `additional_headers` apply too.

    `transport`: with "auto" the client uses server-sent events where a network lets no WebSocket through, long
    polls where it holds back streams, and a WebSocket again once one works; "websocket", "sse" or "poll" use only
    that one. Raises ValueError for arguments that cannot work.
    """
    check_url(url)
    return Client(
        url,
        get_token,
        company,
        _position(after, epoch, at),
        chosen=Filter.of(entities, where),
        state=state,
        snapshot=snapshot,
        tables=tables,
        pace=Pace(heartbeat, timeout, min_delay, max_delay),
        open_socket=opener(options),
        transport=transport,
        options=options,
    )


class Client:
    """An async context manager that stays connected, and an async iterator of reports."""

    def __init__(
        self,
        url: str,
        get_token: GetToken,
        company: str | int | None,
        position: Position | None,
        *,
        pace: Pace,
        open_socket: OpenSocket,
        chosen: Filter | None = None,
        transport: Choice = "websocket",
        options: Mapping[str, Any] | None = None,
        state: bool = False,
        snapshot: Mapping[str, Any] | None = None,
        tables: Mapping[str, Names] | None = None,
    ) -> None:
        transports = Transports(
            url, transport, pace=pace, open_websocket=open_socket, options=options
        )
        self._link = Link(get_token, pace=pace, transports=transports)
        self._feeds = self._link.feeds
        self._reloading: Feed | None = None  # the application reloads the state of this company
        self._has_state = state
        self._tables = tables
        if company is not None:
            self._feeds.main = self._add(
                str(company), chosen or Filter(), position, state, snapshot
            )
        self._feeds.report("connecting")

    @property
    def company(self) -> str | None:
        """The company of `connect` and `set_company`."""
        return self._feeds.company

    @property
    def position(self) -> Position | None:
        """The last message of this company that you have received, with all before it: save it with your state.

        None while your state is incomplete: until you have handled the first `Resync`, and from
        each later one until you request the next report.
        """
        return None if self._feeds.main is None else self._feeds.main.position

    @property
    def transport(self) -> Transport | None:
        """The transport of the open connection: `websocket`, `sse` or `poll`. None while there is none."""
        return self._link.transport

    @property
    def status(self) -> Status:
        """The latest status, also if its report has not been taken yet.

        With several companies that of one which is `connecting`; if there is none, of one which is `live`.
        """
        return self._feeds.status

    async def __aenter__(self) -> Self:
        self._link.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    def __aiter__(self) -> AsyncIterator[Report]:
        return self

    async def __anext__(self) -> Report:
        """The next report. Ends after the last one when the client is stopped or closed."""
        self._link.taker = asyncio.current_task()
        if self._reloading is not None:
            self._reloading.end_reload()
            self._reloading = None
        inbox = self._link.inbox
        while True:
            while (entry := inbox.take()) is None:
                if self._link.has_ended:
                    raise StopAsyncIteration
                await inbox.wait()
            feed, report = entry
            match report:
                case Arrival():
                    assert feed is not None, "an arrival has a company"
                    feed.resolve(report)
                    continue
                case Message() | Skipped() if feed is not None:
                    feed.position = position_of(report)
                case CompanyState() if feed is not None:
                    feed.position = position_of(report)
                case Status(state="idle", reason="revoked" | "company_forbidden") if (
                    feed is not None and feed.store is not None
                ):
                    feed.position = None
                    feed.store.clear()
                case Resync() if feed is not None:
                    feed.position, feed.reloading = None, position_of(report)
                    self._reloading = feed
            if feed is not None and feed.store is not None:
                _keep(feed.store, report)
            return report

    def rows(self, entity: str) -> Rows:
        """The rows of an entity, as of `position`: the report that was taken last is applied.

        Raises RuntimeError without `state=True`, or without a company.
        """
        if self._feeds.main is None:
            raise RuntimeError("there is no company")
        return rows_of(self._feeds.main, entity)

    def snapshot(self) -> Row | None:
        """The company's rows and their position, for JSON; None while they are not complete.

        They belong to the user who may see them: remove the snapshot when the user logs out.
        """
        return None if self._feeds.main is None else snapshot_of(self._feeds.main)

    def _add(
        self,
        company: str,
        chosen: Filter,
        position: Position | None,
        state: bool,
        snapshot: Mapping[str, Any] | None,
    ) -> Feed:
        if not state:
            return self._feeds.add(company, chosen, position)
        if position is not None:
            raise ValueError("with state=True a position is that of a snapshot")
        store, position = restored(company, chosen, snapshot, self._tables)
        return self._feeds.add(company, chosen, position, store)

    def set_company(
        self,
        company: str | int,
        *,
        after: int | None = None,
        epoch: str | None = None,
        at: str | None = None,
    ) -> None:
        """Follows another company, from a saved position or from the present one.

        No further message of the former company is reported.
        """
        self._link.check_open()
        position, feeds = _position(after, epoch, at), self._feeds
        if feeds.main is None:
            feeds.main = self._add(str(company), Filter(), position, self._has_state, None)
        else:
            feeds.check_free(str(company), but=feeds.main)
            feeds.main.follow(str(company), position)
            self._link.inbox.discard(feeds.main)
        self._link.subscribe(feeds.main)

    def subscribe(
        self,
        company: str | int,
        *,
        entities: Collection[str] | None = None,
        where: Where | None = None,
        after: int | None = None,
        epoch: str | None = None,
        at: str | None = None,
        state: bool | None = None,
        snapshot: Mapping[str, Any] | None = None,
    ) -> Subscription:
        """Follows one more company, from a saved position or from the present one.

        Its reports come through the same iteration; `report.company` names the company. With `entities`
        only changes of these are sent; with `where` (entity → property → list of values) only those of
        rows that have one of the values in each property, before the change or after it.
        `state` is that of `connect`, if it is not given, `snapshot` as there.
        Raises ValueError if the client follows this company already.
        """
        self._link.check_open()
        position = _position(after, epoch, at)
        wants_state = self._has_state if state is None else state
        feed = self._add(str(company), Filter.of(entities, where), position, wants_state, snapshot)
        self._link.subscribe(feed)
        return Subscription(self._link, feed)

    async def arrived(self, tx: str | int) -> int:
        """As `Subscription.arrived`, for the company of `connect` or `set_company`."""
        if self._feeds.main is None:
            raise ArrivalError(NOT_SUBSCRIBED, "no company")
        return await Subscription(self._link, self._feeds.main).arrived(tx)

    def reconnect(self) -> None:
        """Connects again now, whatever the reason not to."""
        self._link.check_open()
        self._link.restart()

    async def close(self) -> None:
        """Closes the client for good; the end of `async with` does it."""
        await self._link.close()


def _keep(store: Store, report: Report) -> None:
    """Applies a report to the rows."""
    match report:
        case CompanyState():
            store.replace(report)
        case Message():
            store.apply(report)


def _position(after: int | None, epoch: str | None, at: str | None) -> Position | None:
    if (after is None) != (epoch is None):
        raise ValueError("after and epoch go together: a position means nothing in another log")
    if after is None or epoch is None:
        return None
    return Position(after, epoch, at)
