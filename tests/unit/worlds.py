"""Sessions and a hub without connections and without a database: log and membership are the test's."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from math import inf
from typing import Any, TypeAlias, cast

from msgspec import structs

from notifier.access.admission import Admission
from notifier.access.membership import Membership, was_made_before
from notifier.access.tokens import Identity, Tokens
from notifier.database.query import Query
from notifier.delivery import arrivals
from notifier.delivery.arrivals import ArrivalLog, Arrivals
from notifier.delivery.clients import Client
from notifier.delivery.filter import Filter
from notifier.delivery.filter_catalogue import FilterCatalogue
from notifier.delivery.history import Head, History
from notifier.delivery.hub import Hub
from notifier.delivery.services import Services
from notifier.delivery.session import Session
from notifier.delivery.state import NoStates, State
from notifier.messages import Message, at_text
from notifier.watches import CALENDAR, Watch
from tests.services import SECRET, token
from tests.unit.lines import Line

A, B = "company a", "company b"

Setting: TypeAlias = asyncio.Task[None]
"""A `setCompany` that the session still handles."""


class FakeMembership:
    """Membership that answers while `open` is set, with what is true then."""

    def __init__(self) -> None:
        self.members: set[tuple[str, str]] = set()
        self.error: Exception | None = None
        self.open = asyncio.Event()
        self.open.set()
        self.checks = 0
        self.follows_rows = self.may_change = True
        self.maps_users = False
        self.accounts: dict[str, str] = {}
        """The rows' users of the tokens' users, while `maps_users` is set."""
        self.found: dict[str, str] = {}
        self.changed_at = -inf
        """When the rows' user of any token's user was last found to be another one."""
        self.conclusive = True

    async def may_see(self, identity: Identity, company: str) -> bool:
        self.checks += 1
        await self.open.wait()
        if self.error is not None:
            raise self.error
        user = self.accounts.get(identity.user, "") if self.maps_users else identity.user
        return (company, user) in self.members

    async def user_of(self, identity: Identity, max_age: float) -> str:
        await self.open.wait()
        user = self.accounts.get(identity.user, "")
        if self.found.setdefault(identity.user, user) != user:
            self.found[identity.user] = user
            self.changed_at = time.monotonic()
        return user

    def has_become_another(self, _: Identity, made: datetime | None, since: float) -> bool:
        changed = self.changed_at
        return changed >= since and (made is None or was_made_before(made, changed))


class FakeColumns:
    """The queries for the watched columns, those of the calendar's tables, and for the catalogue's version."""

    def __init__(self) -> None:
        self.columns = ["id", "company_id", "title", "organizer_id", "user_id"]
        self.watches: tuple[Watch, ...] = CALENDAR
        self.reads = 0
        self.version = 1
        self.versions = 0
        self.error: Exception | None = None
        self.on_read: Callable[[], None] = lambda: None
        self.open = asyncio.Event()
        self.open.set()

    async def fetch(self, query: str) -> list[Any]:
        if "catalogue_version" in query:
            self.versions += 1
            await asyncio.sleep(0)
            if self.error is not None:
                raise self.error
            return [(self.version,)]
        self.reads += 1
        await self.open.wait()
        if self.error is not None:
            raise self.error
        rows = [{**watch.to_row(), "columns": self.columns} for watch in self.watches]
        self.on_read()
        return rows

    async def read(self, convert: Callable[[list[Any]], Any], query: str) -> Any:
        return convert(await self.fetch(query))


def catalogue(columns: FakeColumns | None = None) -> FilterCatalogue:
    """What filters may name in these tests."""
    return FilterCatalogue(cast("Query", columns or FakeColumns()))


LATER = timedelta(minutes=1)
"""After a test has subscribed, by clocks that may differ: the loss of a member row is conclusive."""


class FakeLog(History):
    """The messages of all companies, and how many of them the stream has delivered.

    Their changes are made `later` than now, unless a test makes them older.
    """

    def __init__(self, *, started: bool = True) -> None:
        self.hub = Hub(self, 24, catalogue())
        if started:
            self.hub.begin_epoch("e")
        self.stored: dict[str, list[Message]] = {}
        self.later = LATER
        self._delivered = self._seq = 0
        self.page_reads = 0
        self.error: Exception | None = None
        self.open = asyncio.Event()
        self.open.set()

    def store(
        self, company: str, count: int = 1, revokes: tuple[str, ...] = (), pad: int = 0
    ) -> None:
        """Stores new messages, of which the last revokes access; they are not delivered yet."""
        log = self.stored.setdefault(company, [])
        for number in range(count):
            self._seq += 1
            text = {"Type": "E", "Company": company, "Position": len(log) + 1, "Pad": "x" * pad}
            last = revokes if number == count - 1 else ()
            log.append(
                Message(
                    self._seq, company, len(log) + 1, self._at(), datetime.now(UTC),
                    json.dumps(text).encode(), last,
                )
            )  # fmt: skip

    def store_change(
        self,
        company: str,
        kind: str,
        data: dict[str, Any],
        old: dict[str, Any] | None = None,
        revokes: tuple[str, ...] = (),
    ) -> Message:
        """Stores the message of a change as the relay renders it."""
        log = self.stored.setdefault(company, [])
        self._seq += 1
        at = self._at()
        text: dict[str, Any] = {"Type": kind, "Data": {"CompanyId": company, **data}}
        if old is not None:
            text["Old"] = old
        text |= {"Position": len(log) + 1, "At": at_text(at)}
        if kind != "Resync":
            text["Tx"] = str(self._seq)
        body = json.dumps(text).encode()
        log.append(Message(self._seq, company, len(log) + 1, at, datetime.now(UTC), body, revokes))
        return log[-1]

    def _at(self) -> datetime:
        """When the change of the next message was made: no two at the same time."""
        return datetime.now(UTC) + self.later + timedelta(microseconds=self._seq)

    def begin_epoch(self, epoch: str) -> None:
        """Empties the log; the new one begins with a Resync for A, which it knows."""
        self.stored.clear()
        self.hub.begin_epoch(epoch)
        for company in (A,):
            self.store_change(company, "Resync", {"Reason": "epoch", "Epoch": epoch})

    def deliver(self) -> None:
        """Delivers what was stored."""
        new = [m for log in self.stored.values() for m in log if m.seq > self._delivered]
        self._delivered = self._seq
        self.hub.deliver(sorted(new, key=lambda message: message.seq))

    def publish(self, company: str, count: int = 1, revokes: tuple[str, ...] = ()) -> None:
        """Stores new messages and delivers them."""
        self.store(company, count, revokes)
        self.deliver()

    async def head(self, company: str) -> Head:
        await self.open.wait()
        if self.error is not None:
            raise self.error
        log = self.stored.get(company)
        return Head(log[-1].position, log[-1].at) if log else Head(0, None)

    def age(self, company: str, position: int, hours: float) -> None:
        """Makes the messages up to this one as old as that."""
        then = datetime.now(UTC) - timedelta(hours=hours)
        log = self.stored[company]
        log[:position] = [structs.replace(message, stored=then) for message in log[:position]]

    async def page(self, company: str, after: int, epoch: str) -> list[Message]:
        self.page_reads += 1
        await self.open.wait()
        if epoch != self.hub.epoch:
            return []
        return [m for m in self.stored.get(company, []) if m.position > after][:1000]


class FakeTransactions(ArrivalLog):
    """Transactions whose states the test sets; those without one have a number of the future."""

    def __init__(self, log: FakeLog) -> None:
        self._log = log
        self.present: dict[int, str] = {}
        self.reads: list[list[int]] = []
        self.error: Exception | None = None

    async def states(self, transactions: Sequence[int]) -> dict[int, str]:
        self.reads.append(sorted(transactions))
        await asyncio.sleep(0)
        if self.error is not None:
            raise self.error
        return {tx: self.present.get(tx, "future") for tx in transactions}

    async def heads(self, companies: Sequence[str]) -> dict[str, arrivals.Head]:
        return {
            company: arrivals.Head("e", len(self._log.stored.get(company, [])))
            for company in companies
        }


class TwoPages(NoStates):
    """A state of two pages at a company's position 0."""

    async def read(self, company: str, _wanted: Filter | None, _user: str) -> State:
        data = {"CompanyId": company, "Entity": "Event", "Rows": [{}]}
        page = json.dumps({"Type": "State", "Data": data}).encode()
        return State("e", 0, None, (page, page))


class World:
    """A node without connections and without a database; `started`: it has read the log."""

    def __init__(self, *, started: bool = True) -> None:
        self.membership = FakeMembership()
        self.log = FakeLog(started=started)
        self.admission: Admission[Client] = Admission(1000, 600)
        self.transactions = FakeTransactions(self.log)
        self.arrivals = Arrivals(self.transactions, lambda: self.log.hub.epoch)
        self.services = Services(
            self.log.hub,
            Tokens(secret=SECRET),
            cast("Membership", self.membership),
            self.admission,
            self.arrivals,
            auth_timeout=60,
            leeway=10,
        )
        self.sessions: list[Session] = []

    def open(self, address: str = "", *, quick: bool = True) -> tuple[Session, Line]:
        line = Line(quick=quick)
        session = Session(self.services, line, address)
        self.sessions.append(session)
        return session, line

    async def enter(
        self,
        user: str = "u",
        company: str | None = A,
        *,
        quick: bool = True,
        member: bool = True,
        after: int | None = None,
        at: str | None = None,
    ) -> tuple[Session, Line]:
        """A session that has authenticated and follows its company."""
        session, line = self.open(quick=quick)
        await authenticate(session, user)
        if company is not None:
            if member:
                self.membership.members.add((company, user))
            await set_company(session, company, after, at)
        return session, line

    async def open_company(self, after: int | None = None) -> tuple[Session, Line, Setting]:
        """A member's session that waits, while it opens A, until the test sets `log.open`."""
        session, line = await self.enter(company=None)
        self.membership.members.add((A, "u"))
        self.log.open.clear()
        return session, line, await self._begin(session, after)

    async def replay(self, count: int, *, quick: bool = True) -> tuple[Session, Line, Setting]:
        """A member's session to which that many messages of A are replayed; its socket is full until
        the test sets `line.room`.
        """
        self.log.store(A, count, pad=1000)
        self.log.deliver()
        session, line = await self.enter(company=None, quick=quick)
        self.membership.members.add((A, "u"))
        line.room.clear()
        return session, line, await self._begin(session, 0)

    def pins(self, company: str) -> int:
        channel = self.log.hub.channel(company)
        return 0 if channel is None else channel.pins

    async def _begin(self, session: Session, after: int | None) -> Setting:
        setting = asyncio.create_task(set_company(session, A, after))
        await settle()
        return setting


async def authenticate(session: Session, user: str = "u", ttl: float = 3600, **claims: Any) -> None:
    command = {"type": "authenticate", "token": token(user, ttl=ttl, **claims)}
    await session.receive(json.dumps(command))


async def set_company(
    session: Session, company: str, after: int | None = None, at: str | None = None
) -> None:
    data: dict[str, Any] = {"companyId": company}
    if after is not None:
        data |= {"after": after, "epoch": "e"}
    if at is not None:
        data["at"] = at
    await session.receive(json.dumps({"type": "setCompany", "data": data}))


async def settle() -> None:
    """Lets every task run until it waits for the test."""
    for _ in range(50):
        await asyncio.sleep(0)
