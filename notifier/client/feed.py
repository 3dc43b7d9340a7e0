"""One company of a client: its filter, its position, its open request and the writes that are awaited."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, TypeAlias

from notifier.client.progress import Progress, same_company
from notifier.client.reports import CompanyState, Position, Resync, Row, State, Status
from notifier.client.rows import Store

Where: TypeAlias = Mapping[str, Mapping[str, Collection[Any]]]
"""Entity → property → the values that pass."""

NOT_SUBSCRIBED = "not_subscribed"


class ArrivalError(Exception):
    """It is not known whether a transaction's messages have arrived. `code` is one of the protocol:

    `unknown_tx` (no transaction has this number yet), `timeout` (it is still running after 10
    seconds), `not_subscribed` (the subscription was refused, revoked, left, or the client stopped).
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class Filter(NamedTuple):
    """Selects the changes of a company that a subscription gets; by default all of them."""

    entities: list[str] | None = None
    where: dict[str, dict[str, list[Any]]] | None = None

    @classmethod
    def of(cls, entities: Collection[str] | None, where: Where | None) -> Filter:
        """A copy of the application's filter. Raises ValueError for text in place of a list."""
        given = {} if where is None else where
        values = [value for properties in given.values() for value in properties.values()]
        if any(isinstance(each, str) for each in (entities, *values)):
            raise ValueError("entities, and the values of each property in where, are lists")
        return cls(
            None if entities is None else list(entities),
            None
            if where is None
            else {
                entity: {name: list(values) for name, values in properties.items()}
                for entity, properties in where.items()
            },
        )

    def request(self) -> Row:
        """The properties of the command `subscribe`."""
        return {name: value for name, value in self._asdict().items() if value is not None}


@dataclass
class Request:
    """A `setCompany` or `subscribe` without an answer yet.

    `outdated`: the application wants another company or filter. `replaces`: the server goes on with the
    former filter until it answers, and after a refusal.
    """

    feed: Feed
    command: str
    company: str
    head: Position | None
    filter: Filter
    replaces: bool = False
    outdated: bool = False


@dataclass
class Incoming:
    """A state whose rows are arriving: the request that it answers, and its position."""

    answer: Resync
    head: Position | None
    filter: Filter
    rows: dict[str, list[Row]] = field(default_factory=dict)
    size: int = 0

    def complete(self) -> CompanyState:
        """The report of it."""
        answer = self.answer
        return CompanyState(
            company=answer.company,
            reason=answer.reason,
            position=answer.position,
            epoch=answer.epoch,
            at=answer.at,
            rows=self.rows,
            where=self.filter.where,
        )


class Arrival(NamedTuple):
    """A transaction's last message stands before it in the inbox."""

    tx: str
    position: int


@dataclass(eq=False)
class Feed:
    """One company of a client. `eq=False`: two feeds are never the same.

    `filter` is the one that the application wants, `accepted` the one that the server has accepted last.
    `requested` is the company for which this connection has sent a command last. `waiting` has the futures of
    `Client.arrived` by transaction, `sent` the transactions that this connection has sent an `await` for,
    `arrived` those of which the arrival is in the inbox.

    With a `store` the state is requested; `incoming` is the one that arrives, `reason` why it is requested again.
    """

    progress: Progress
    filter: Filter
    position: Position | None
    status: Status
    store: Store | None = None
    incoming: Incoming | None = None
    reason: str | None = None
    accepted: Filter | None = None
    request: Request | None = None
    requested: str | None = None
    subscribed: bool = False
    is_closed: bool = False
    reloading: Position | None = None
    waiting: dict[str, list[asyncio.Future[int]]] = field(default_factory=dict)
    sent: set[str] = field(default_factory=set)
    arrived: set[str] = field(default_factory=set)

    @property
    def company(self) -> str | None:
        return self.progress.company

    def follow(self, company: str | None, position: Position | None) -> None:
        """Changes the company, and where to resume in it."""
        self.progress.follow(company, position)
        self.position, self.reloading = position, None
        self.filter, self.accepted = Filter(), None
        self.subscribed = False
        self.incoming = self.reason = None
        if self.store is not None:
            self.store.clear()
        self.fail("another company was set")

    def end_reload(self) -> None:
        """The application has reloaded its state, unless it has left the company meanwhile."""
        if self.reloading is not None:
            self.position, self.reloading = self.reloading, None

    def disconnect(self) -> None:
        """The connection has ended, and with it what was requested over it."""
        self.incoming = None
        self.request, self.requested, self.subscribed = None, None, False

    def close(self) -> None:
        """The application has left the company."""
        self.is_closed, self.subscribed = True, False
        self.position = self.reloading = None
        self.status = Status(state="closed", company=self.company)
        self.fail("unsubscribed")

    def block(self, reason: str) -> None:
        """The company must not be requested again before the application acts."""
        self.progress.blocked = reason
        self.subscribed = False
        self.fail(reason)

    def set_status(self, state: State | None, **why: Any) -> Status:
        """Replaces the status; None keeps the present state."""
        self.status = Status(state=state or self.status.state, company=self.company, **why)
        return self.status

    def unsent(self) -> list[str]:
        """The transactions that an `await` has to be sent for."""
        return [tx for tx in self.waiting if tx not in self.sent and tx not in self.arrived]

    def expect(self, tx: str) -> asyncio.Future[int]:
        """The position at which the messages of a transaction have arrived, once it is known."""
        arrival = asyncio.get_running_loop().create_future()
        self.waiting.setdefault(tx, []).append(arrival)
        return arrival

    def forget(self, tx: str, arrival: asyncio.Future[int]) -> None:
        """The application does not wait any more."""
        waiting = self.waiting.get(tx, [])
        if arrival in waiting:
            waiting.remove(arrival)
            if not waiting:
                del self.waiting[tx]

    def resolve(self, arrival: Arrival) -> None:
        """A transaction's messages were taken by the application."""
        self.arrived.discard(arrival.tx)
        for future in self.waiting.pop(arrival.tx, ()):
            if not future.done():
                future.set_result(arrival.position)

    def reject(self, tx: str, code: str, message: str) -> None:
        """The server will not report this transaction's arrival."""
        self.sent.discard(tx)
        self.arrived.discard(tx)
        for future in self.waiting.pop(tx, ()):
            if not future.done():
                future.set_exception(ArrivalError(code, message))

    def fail(self, reason: str) -> None:
        """No arrival will be reported any more."""
        for tx in list(self.waiting):
            self.reject(tx, NOT_SUBSCRIBED, reason)


class Feeds:
    """The companies of one client. `main` is that of `connect` and `set_company`."""

    def __init__(self) -> None:
        self.connection = Status(state="connecting", company=None)
        self.main: Feed | None = None
        self.is_open = False
        self._feeds: list[Feed] = []
        self._by_id: dict[str, Feed] = {}

    def __iter__(self) -> Iterator[Feed]:
        return iter(self._feeds)

    def __len__(self) -> int:
        return len(self._feeds)

    @property
    def company(self) -> str | None:
        """The company of `connect` and `set_company`."""
        return None if self.main is None else self.main.company

    @property
    def status(self) -> Status:
        """The connection's; while it is open that of a company, `connecting` before `live` before `idle`."""
        if self.is_open:
            for state in ("connecting", "live", "idle"):
                for feed in self._feeds:
                    if feed.status.state == state:
                        return feed.status
        return self.connection

    def add(
        self,
        company: str,
        chosen: Filter,
        position: Position | None,
        store: Store | None = None,
    ) -> Feed:
        """A new feed. Raises ValueError if there is one of this company already."""
        self.check_free(company)
        status = replace(self.connection, company=company)
        if self.is_open:
            status = Status(state="connecting", company=company)
        feed = Feed(Progress(company, position), chosen, position, status, store)
        self._feeds.append(feed)
        return feed

    def check_free(self, company: str, *, but: Feed | None = None) -> None:
        """Raises ValueError if another feed has this company."""
        if any(same_company(feed.company, company) for feed in self._feeds if feed is not but):
            raise ValueError(f"there is a subscription to this company already: {company}")

    def remove(self, feed: Feed) -> None:
        """Forgets a feed."""
        self._feeds.remove(feed)
        self.rename(feed, None)

    def rename(self, feed: Feed, company: object) -> None:
        """The server spells the feed's company like this."""
        self._by_id = {name: each for name, each in self._by_id.items() if each is not feed}
        if isinstance(company, str):
            self._by_id[company] = feed

    def find(self, company: object) -> Feed | None:
        """The feed of a company as the server spells it."""
        feed = self._by_id.get(company) if isinstance(company, str) else None
        if feed is None:
            feed = next((each for each in self._feeds if same_company(each.company, company)), None)
        return feed

    def report(self, state: State, **why: Any) -> Status:
        """The state of the connection, and of each company, has changed."""
        self.is_open = False
        self.connection = Status(state=state, company=self.company, **why)
        for feed in self._feeds:
            feed.status = replace(self.connection, company=feed.company)
        return self.connection

    def report_problem(self, reason: str | None, error: object) -> Status:
        """The state of the connection and of the companies stays, with a reason."""
        for feed in self._feeds:
            feed.set_status(None, reason=reason, error=error)
        state = self.status.state
        if not self._feeds or not self.is_open:
            self.connection = Status(state=state, company=self.company, reason=reason, error=error)
        return Status(state=state, company=self.company, reason=reason, error=error)

    def fail(self, reason: str) -> None:
        """No arrival will be reported any more."""
        for feed in self._feeds:
            feed.fail(reason)
