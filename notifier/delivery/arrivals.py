"""Answers `await`: `Arrived` once every message of a transaction in a company was delivered to a session.

A transaction has arrived when it has ended, the relay has stored the messages of its changes (if it has
any), and the session's subscription has delivered its company's messages up to the log head read afterwards.
While sessions wait, the node reads the states of all their transactions in one query, every
POLL_SECONDS; otherwise it reads nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
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
    head: Head | None = None


class Arrivals:
    """Everything that the sessions of a node wait for. `epoch`: that of the node's hub."""

    def __init__(self, log: ArrivalLog, epoch: Callable[[], str]) -> None:
        self._log = log
        self._epoch = epoch
        self._waiting: dict[Requester, list[_Awaited]] = {}
        self._task: asyncio.Task[None] | None = None

    def wait(self, session: Requester, company: str, tx: int) -> None:
        """Answers the session when the transaction has arrived, or with an error."""
        awaited = _Awaited(company, tx, asyncio.get_running_loop().time() + TIMEOUT_SECONDS)
        if session.subscription_to(company) is None:
            _refuse(session, awaited, Code.NOT_SUBSCRIBED)
        elif not 0 < tx <= LARGEST_XID:
            _refuse(session, awaited, Code.UNKNOWN_TX)
        elif len(self._waiting.get(session, ())) >= WAITING_LIMIT:
            _refuse(session, awaited, Code.TOO_MANY_WAITING)
        else:
            self._waiting.setdefault(session, []).append(awaited)
            if self._task is None:
                self._task = asyncio.create_task(self._run())

    def forget(self, session: Requester) -> None:
        """Ends the waiting of a session that has ended, without answers."""
        self._waiting.pop(session, None)

    async def _run(self) -> None:
        try:
            await asyncio.sleep(0)  # requests of the same turn of the loop share the first query
            while self._waiting:
                try:
                    with suppress(DatabaseError):  # until the timeout; the stream reports it
                        await self._read()
                except Exception as error:
                    _logger.warning("awaited transactions could not be read", error=repr(error))
                self._answer()
                if self._waiting:
                    await asyncio.sleep(POLL_SECONDS)
        finally:
            self._task = None

    async def _read(self) -> None:
        """Reads the heads for transactions whose messages are stored. Raises DatabaseError."""
        unread = [
            (session, awaited)
            for session, waiting in self._waiting.items()
            for awaited in waiting
            if awaited.head is None
        ]
        if not unread:
            return
        states = await self._log.states(list({awaited.tx for _, awaited in unread}))
        stored = []
        for session, awaited in unread:
            match states[awaited.tx]:
                case "stored":
                    stored.append(awaited)
                case "future":
                    self._end(session, awaited, Code.UNKNOWN_TX)
        if stored:
            heads = await self._log.heads(list({awaited.company for awaited in stored}))
            for awaited in stored:
                awaited.head = heads[awaited.company]

    def _answer(self) -> None:
        now, epoch = asyncio.get_running_loop().time(), self._epoch()
        for session, waiting in list(self._waiting.items()):
            for awaited in list(waiting):
                if awaited.head is not None and awaited.head.epoch != epoch:
                    awaited.head = None  # the node is behind or ahead: read it again
                head, subscription = awaited.head, session.subscription_to(awaited.company)
                if subscription is None:
                    self._end(session, awaited, Code.NOT_SUBSCRIBED)
                elif head is not None and subscription.has_delivered(head.position):
                    self._end(session, awaited)
                elif awaited.deadline <= now:
                    self._end(session, awaited, Code.TIMEOUT)

    def _end(self, session: Requester, awaited: _Awaited, refusal: Code | None = None) -> None:
        """Answers, unless the session has ended meanwhile."""
        waiting = self._waiting.get(session)
        if waiting is None or awaited not in waiting:
            return
        waiting.remove(awaited)
        if not waiting:
            del self._waiting[session]
        if refusal is not None:
            _refuse(session, awaited, refusal)
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


def _refuse(session: Requester, awaited: _Awaited, code: Code) -> None:
    session.send(
        Error(
            error=Fault(code=code, message=_MESSAGES[code]),
            data=AwaitedTransaction(company_id=awaited.company, tx=str(awaited.tx)),
        )
    )
