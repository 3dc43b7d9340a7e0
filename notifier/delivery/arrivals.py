"""Answers `await`: `Arrived` once every message of a transaction in a company was delivered to a session.

A transaction has arrived when it has ended, the relay has stored the messages of its changes (if it has
any), and the session's subscription has delivered its company's messages up to the log head read afterwards.
While sessions wait, the node reads the states of all their transactions in one query, every
POLL_SECONDS, or more seldom where very many wait; otherwise it reads nothing.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import suppress
from typing import NamedTuple, Protocol

import msgspec
import structlog

from notifier.database import sql
from notifier.database.answers import Natural, typed
from notifier.database.connections import VALUE_ERRORS
from notifier.database.query import Query
from notifier.errors import Code, DatabaseError
from notifier.messages import Arrival, Arrived, AwaitedTransaction, Error, Fault, ServerMessage

POLL_SECONDS = 0.05

POLL_SHARE = 4
"""Between two polls, so many times as long as one of them has used the event loop, at least: one user may wait for 100 transactions on each of
a thousand sockets.
"""

SLICE = 1000
"""How many transactions are looked at before the event loop goes on."""

TIMEOUT_SECONDS = 10.0
"""How long a session waits for one transaction."""

WAITING_LIMIT = 100
"""Transactions that one session may wait for at the same time."""

LARGEST_XID = 2**63 - 1
"""A transaction number beyond it cannot be stored, and is 300 years away at a million a second."""


_logger = structlog.get_logger("notifier.arrivals")


class Head(NamedTuple):
    """The position of a company's last message, in an epoch."""

    epoch: str
    position: int


class _HeadRow(NamedTuple):
    epoch: str
    company: str
    position: Natural


class ArrivalLog:
    """Reads transactions and heads from the database. Both methods raise DatabaseError."""

    def __init__(self, query: Query) -> None:
        self._query = query

    async def states(self, transactions: Sequence[int]) -> Mapping[int, str]:
        """The state of each transaction, as `sql/queries/transaction_states.sql` defines it."""
        return dict(
            await self._query.read(
                lambda rows: typed(rows, tuple[int, str]),
                sql.query("transaction_states"),
                list(transactions),
            )
        )

    async def heads(self, companies: Sequence[str]) -> Mapping[str, Head]:
        """The last position of each company."""
        try:
            rows = await self._query.read(
                lambda rows: typed(rows, _HeadRow),
                sql.query("arrival_heads"),
                list(companies),
                may_refuse=True,
            )
        except VALUE_ERRORS:  # a character that the database's encoding lacks: no such company
            if len(companies) == 1:
                return {companies[0]: (await self.heads([""]))[""]}  # it has no message either
            heads: dict[str, Head] = {}
            for company in companies:
                heads |= await self.heads([company])
            return heads
        return {row.company: Head(row.epoch, row.position) for row in rows}


class Delivery(Protocol):
    """A subscription, as seen from here."""

    @property
    def is_closed(self) -> bool:
        """Whether it has ended."""

    def has_delivered(self, position: int) -> bool:
        """Whether everything up to `position` was written to the client."""


class Requester(Protocol):
    """The session that waits."""

    def subscription_to(self, company: str) -> Delivery | None:
        """Its subscription to the company, if it has one."""

    def send(self, message: ServerMessage) -> None:
        """Sends a message to the client."""


class _Awaited(msgspec.Struct, eq=False):
    company: str
    tx: int
    deadline: float
    subscription: Delivery
    head: Head | None = None


class Arrivals:
    """Everything that the sessions of a node wait for. `epoch`: that of the node's hub."""

    def __init__(self, log: ArrivalLog, epoch: Callable[[], str]) -> None:
        self._log = log
        self._epoch = epoch
        self._waiting: dict[Requester, dict[_Awaited, None]] = {}
        self._task: asyncio.Task[None] | None = None
        self._busy = 0.0  # how long this poll has used the event loop, in seconds

    def wait(self, session: Requester, company: str, tx: int) -> None:
        """Answers the session when the transaction has arrived, or with an error."""
        if (subscription := session.subscription_to(company)) is None:
            _refuse(session, company, tx, Code.NOT_SUBSCRIBED)
        elif not 0 < tx <= LARGEST_XID:
            _refuse(session, company, tx, Code.UNKNOWN_TX)
        elif len(self._waiting.get(session, ())) >= WAITING_LIMIT:
            _refuse(session, company, tx, Code.TOO_MANY_WAITING)
        else:
            deadline = asyncio.get_running_loop().time() + TIMEOUT_SECONDS
            awaited = _Awaited(company, tx, deadline, subscription)
            self._waiting.setdefault(session, {})[awaited] = None
            if self._task is None:
                self._task = asyncio.create_task(self._run())

    def forget(self, session: Requester) -> None:
        """Ends the waiting of a session that has ended, without answers."""
        self._waiting.pop(session, None)

    async def _run(self) -> None:
        try:
            await asyncio.sleep(0)  # requests of the same turn of the loop share the first query
            while self._waiting:
                self._busy = 0.0
                try:
                    with suppress(DatabaseError):  # until the timeout; the stream reports it
                        await self._read()
                except Exception as error:
                    _logger.warning("awaited transactions could not be read", error=repr(error))
                await self._answer()
                if self._waiting:
                    await asyncio.sleep(max(POLL_SECONDS, POLL_SHARE * self._busy))
        finally:
            self._task = None

    async def _slices(self) -> AsyncIterator[list[tuple[Requester, _Awaited]]]:
        """Everything that waits, in slices between which the event loop goes on: some may not wait any more by then."""
        began, found = time.perf_counter(), list[tuple[Requester, _Awaited]]()
        for session in list(self._waiting):
            found += [(session, awaited) for awaited in self._waiting.get(session, ())]
            if len(found) >= SLICE:
                yield found
                self._busy += time.perf_counter() - began
                await asyncio.sleep(0)
                began, found = time.perf_counter(), []
        yield found
        self._busy += time.perf_counter() - began

    async def _read(self) -> None:
        """Reads the heads for transactions whose messages are stored. Raises DatabaseError."""
        unread = set[int]()
        async for found in self._slices():
            unread |= {awaited.tx for _, awaited in found if awaited.head is None}
        if not unread:
            return
        numbers, states = list(unread), dict[int, str]()
        for first in range(0, len(numbers), SLICE):  # other queries come in between
            states |= await self._log.states(numbers[first : first + SLICE])
        stored = list[_Awaited]()
        async for found in self._slices():
            for session, awaited in found:
                state = states.get(awaited.tx) if awaited.head is None else None
                if state == "stored":
                    stored.append(awaited)
                elif state == "future":
                    self._end(session, awaited, Code.UNKNOWN_TX)
        if stored:
            heads = await self._log.heads(list({awaited.company for awaited in stored}))
            for awaited in stored:
                awaited.head = heads[awaited.company]

    async def _answer(self) -> None:
        async for found in self._slices():
            now, epoch = asyncio.get_running_loop().time(), self._epoch()
            for session, awaited in found:
                if awaited.head is not None and awaited.head.epoch != epoch:
                    awaited.head = None  # the node is behind or ahead: read it again
                head, subscription = awaited.head, self._subscription_of(session, awaited)
                if subscription is None:
                    self._end(session, awaited, Code.NOT_SUBSCRIBED)
                elif head is not None and subscription.has_delivered(head.position):
                    self._end(session, awaited)
                elif awaited.deadline <= now:
                    self._end(session, awaited, Code.TIMEOUT)

    def _subscription_of(self, session: Requester, awaited: _Awaited) -> Delivery | None:
        """The session's subscription to the company: another one may have replaced that of the request."""
        if awaited.subscription.is_closed:
            found = session.subscription_to(awaited.company)
            if found is None:
                return None
            awaited.subscription = found
        return awaited.subscription

    def _end(self, session: Requester, awaited: _Awaited, refusal: Code | None = None) -> None:
        """Answers, unless the session has ended meanwhile."""
        waiting = self._waiting.get(session)
        if waiting is None or awaited not in waiting:
            return
        del waiting[awaited]
        if not waiting:
            del self._waiting[session]
        if refusal is not None:
            _refuse(session, awaited.company, awaited.tx, refusal)
            return
        assert awaited.head is not None
        session.send(
            Arrived(
                data=Arrival(
                    company_id=awaited.company, tx=str(awaited.tx), position=awaited.head.position
                )
            )
        )


_MESSAGES = {
    Code.UNKNOWN_TX: "no transaction has this number yet",
    Code.TIMEOUT: "the transaction has not arrived in time",
    Code.NOT_SUBSCRIBED: "subscribe to the company first",
    Code.TOO_MANY_WAITING: f"at most {WAITING_LIMIT} transactions can be awaited at once",
}


def _refuse(session: Requester, company: str, tx: int, code: Code) -> None:
    session.send(
        Error(
            error=Fault(code=code, message=_MESSAGES[code]),
            data=AwaitedTransaction(company_id=company, tx=str(tx)),
        )
    )
