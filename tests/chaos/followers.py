"""The product's own client, over each of its transports: it connects, leaves, resumes, and keeps a company's rows."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, NamedTuple

from notifier.client import (
    Client,
    CompanyState,
    Message,
    Position,
    Recovered,
    Report,
    Resync,
    Status,
    connect,
)
from notifier.client.transports import Choice
from tests.chaos.history import History
from tests.chaos.ledger import KINDS, VALUES, State, apply
from tests.chaos.wire import NEVER, WIRE, Canon, Wire
from tests.services import token

KEPT = 5000
"""A follower with more rows does not request its state once more."""

HEARTBEAT_SECONDS = 3.0
"""After so much silence a client takes a link for dead, and a stream for one that a proxy holds back."""


class Way(NamedTuple):
    """How a node is reached; over one transport, or by the client's own choice."""

    url: str
    transport: Choice


class Leave(Exception):
    """The visit ends."""


class Follower:
    """A client of one company. Its visits are short until `stay` is called.

    `forgetful`: sometimes it drops its rows, and reads them again: from the database by `snapshot`, or with
    `has_state` from the service. `guest`: it may be refused at times.
    """

    def __init__(
        self,
        name: str,
        user: str,
        company: str,
        ways: Sequence[Way],
        canon: Canon,
        history: History,
        snapshot: Callable[[str], Awaitable[State]],
        *,
        forgetful: bool = False,
        has_state: bool = False,
        guest: bool = False,
    ) -> None:
        self.name = name
        self.company = company
        self.epochs: set[str] = set()
        self.state: State = {}
        self.resumed = 0
        self.saved: Position | None = None
        self._rows: dict[str, Any] | None = None  # the client's snapshot
        self._user = user
        self._ways = ways
        self._history = history
        self._snapshot = snapshot
        self._forgetful = forgetful
        self._has_state = has_state
        self._guest = guest
        self._random = random.Random(f"{history.seed} {name}")
        self._wire = Wire(name, company, canon, history, guest=guest)
        self._begins = True
        self._staying = False
        self._visiting: asyncio.Timeout | None = None
        self._client: Client | None = None

    @property
    def position(self) -> int | None:
        """How far it is."""
        place = self.saved if self._client is None else self._client.position
        return None if place is None else place.after

    def begin(self, epoch: str, name: str) -> None:
        """Follows the company, which has this name, from the first message on."""
        self.saved = Position(0, epoch)
        self.state = {("Company", self.company): name}

    def stay(self) -> None:
        """From now on it leaves only when it is disconnected."""
        self._staying = True
        if self._visiting is not None and not self._visiting.expired():  # or it leaves once more
            self._visiting.reschedule(None)

    async def run(self) -> None:
        """Returns again and again until it is cancelled."""
        WIRE.set(self._wire)
        while True:
            try:
                async with asyncio.timeout(30) as visiting:
                    try:
                        await self._visit(self._random.choice(self._ways), visiting)
                    finally:
                        self._visiting = None
            except TimeoutError:
                self._history.note("left", who=self.name)
            except Leave as reason:
                self._history.note("left", who=self.name, why=str(reason))
            await asyncio.sleep(self._random.uniform(0.01, 0.3))

    async def _visit(self, way: Way, visiting: asyncio.Timeout) -> None:
        """Connects, and takes reports until `visiting` expires. Raises Leave."""
        self._forget()
        self._begins = self.saved is None
        place = {} if self.saved is None or self._has_state else self.saved._asdict()
        self._history.note("visits", who=self.name, way=way, place=self.saved)
        client = self._client = connect(
            way.url,
            lambda: token(self._user),
            self.company,
            **place,
            state=self._has_state,
            snapshot=self._rows,
            transport=way.transport,
            heartbeat=HEARTBEAT_SECONDS,
            min_delay=0.05,
            max_delay=1.0,
            proxy=None,
        )
        try:
            async with client:
                try:
                    async for report in client:
                        await self._take(report, visiting)
                finally:
                    self._save(client)
            raise Leave("the client has ended")
        finally:
            self._client = None

    def _forget(self) -> None:
        """Drops the rows, sometimes."""
        if self._forgetful and self._random.random() < 0.3 and len(self.state) < KEPT:
            self.saved = self._rows = None

    def _save(self, client: Client) -> None:
        """What the application stores: the rows and their position."""
        self.saved = client.position
        if not self._has_state:
            return
        self._rows = json.loads(json.dumps(client.snapshot()))
        if self.saved is not None and (rows := _rows(client)) != self.state:
            wrong = [row for row in rows | self.state if rows.get(row) != self.state.get(row)]
            self._violated("the client's rows are not those of its reports", rows=wrong[:5])

    async def _take(self, report: Report, visiting: asyncio.Timeout) -> None:
        """Applies a report. Raises Leave."""
        match report:
            case Message():
                apply(self.state, {"Type": report.type, "Data": report.data})
            case Recovered():
                self.resumed += 1
                self._joined(report, visiting)
            case Resync() if self._begins and report.reason == "start":
                self._joined(report, visiting)
                try:
                    self.state = await self._snapshot(self.company)
                except OSError as error:
                    raise Leave(f"the database is not there: {error}") from error
                self._begins = False
            case CompanyState() if self._begins and report.reason == "start":
                self._joined(report, visiting)
                self.state = _flat(report.rows)
                self._begins = False
            case Status():
                await self._check(report)
            case _:
                self._violated("not recovered", at=self.position, report=report)
                self.saved = None
                raise Leave("not recovered")

    async def _check(self, status: Status) -> None:
        """Checks why there is no connection, or no company."""
        self._history.note("status", who=self.name, state=status.state, reason=status.reason)
        if status.code in NEVER or status.reason == "unreadable message":
            self._violated("ended for a reason that no fault explains", status=status)
        if status.state == "idle" and self._guest:
            if status.reason not in ("revoked", "company_forbidden"):
                self._violated("without a company", status=status)
            await asyncio.sleep(0.2)  # in which its wire checks that nothing more is received
            raise Leave(str(status.reason))
        if status.state in ("idle", "stopped"):
            self._violated("stopped", status=status)
            raise Leave(str(status.reason))

    def _joined(self, report: Recovered | Resync | CompanyState, visiting: asyncio.Timeout) -> None:
        """Decides how long a visit that was accepted lasts."""
        self._history.note("joined", who=self.name, at_position=report.position)
        self.epochs.add(report.epoch)
        if self._staying:
            visiting.reschedule(None)
        elif self._visiting is None:
            life = self._random.choice((0.05, 0.5, 2, 5, 40)) * self._random.random()
            visiting.reschedule(asyncio.get_running_loop().time() + life)
            self._visiting = visiting

    def _violated(self, what: str, **details: Any) -> None:
        self._history.violated(f"{self.name}: {what}", **details)


def _flat(rows: dict[str, list[dict[str, Any]]]) -> State:
    """The value of each row."""
    return {
        (entity, row[f"{entity}Id"]): row[VALUES[entity]]
        for entity, each in rows.items()
        for row in each
    }


def _rows(client: Client) -> State:
    """The rows that a client keeps."""
    return _flat({entity: client.rows(entity).all() for entity in KINDS})
