"""Sockets with several companies and filters on two nodes: each gets exactly what it must by the ledger.

Some events are visible to one user only.

NOTIFIER_SOAK_STEPS    how many steps in all (default: 150)
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)

from notifier.database.schema import migrate
from notifier.delivery import channel
from notifier.delivery.session import Session, Stage
from notifier.errors import Closure
from notifier.watches import CALENDAR
from tests.chaos.ledger import ENTITIES, Ledger, Row, Sent, collect, expected
from tests.chaos.local import LocalNode, Voice
from tests.chaos.test_states import ledgered
from tests.databases import Database
from tests.services import token
from tests.waiting import until

__all__ = ["ledgered"]  # a fixture

T = TypeVar("T")
Message = dict[str, Any]

STEPS = int(os.environ.get("NOTIFIER_SOAK_STEPS") or 150)
EACH = 30
"""Steps of one example."""

MEMBER, GUEST = "u1", "u2"
"""The guest loses and regains companies; the member does not."""

FILTERS: list[dict[str, Any]] = [
    {},
    {"entities": ["Event"]},
    {"entities": ["Employee", "Company"]},
    {"where": {"Event": {"Title": ["a"]}}},
    {"entities": ["Event"], "where": {"Event": {"Title": ["a", "b"], "Location": [None]}}},
    {"where": {"Event": {"Title": ["c"]}, "Employee": {"UserId": [GUEST]}}},
]
TITLES = st.sampled_from(["a", "b", "c", "d"])
SIGHTS = st.sampled_from([None, None, MEMBER, GUEST])
"""The user who may see an event; None: all users."""

EVENT, EMPLOYEE, COMPANY = CALENDAR
WATCHES = [replace(EVENT, visible_to=("location",)), EMPLOYEE, COMPANY]

Log = dict[int, Message]
"""The changes of a company that one user may see, by position."""


def passes(wanted: Mapping[str, Any], message: Message) -> bool:
    """Whether a change passes a filter, by docs/protocol.md."""
    entity, after = ENTITIES[message["Type"]], message["Data"]
    conditions = wanted.get("where", {}).get(entity, {})
    return entity in wanted.get("entities", [entity]) and any(
        all(row[name] in values for name, values in conditions.items())
        for row in (after, {**after, **message.get("Old", {})})
    )


@dataclass
class Following:
    """What one client has of one company, through all its subscriptions."""

    company: str
    wanted: dict[str, Any]
    position: int | None = None
    live: bool = False
    received: list[tuple[int, Message, dict[str, Any]]] = field(default_factory=list)
    """Changes with their position, and the filter that they came under."""
    skipped: list[tuple[range, dict[str, Any]]] = field(default_factory=list)

    def receive(self, message: Message) -> None:
        """Checks that a message follows what is there."""
        assert self.live, ("a message without a subscription", message)
        assert self.position is not None
        position = message["Position"]
        if message["Type"] == "Skipped":
            assert position > self.position
            self.skipped.append((range(self.position + 1, position + 1), self.wanted))
        else:
            assert position == self.position + 1, (self.position, message)
            self.received.append((position, message, self.wanted))
        self.position = position


class Client:
    """A user with a socket, whose places survive it."""

    def __init__(self, user: str, epoch: str) -> None:
        self.user = user
        self.epoch = epoch
        self.followings: dict[str, Following] = {}
        self._session: Session | None = None
        self._voice = Voice()

    @property
    def connected(self) -> bool:
        return self._session is not None and self._session.stage is not Stage.ENDED

    async def connect(self, node: LocalNode) -> None:
        """Resumes all its companies on a node, with their filters."""
        self.leave()
        self._voice = Voice()
        self._session = Session(node.node.services, self._voice)
        await self._send({"type": "authenticate", "token": token(self.user)})
        for following in list(self.followings.values()):
            await self.subscribe(following.company, following.wanted, resume=True)

    async def subscribe(self, company: str, wanted: dict[str, Any], *, resume: bool) -> None:
        """Subscribes, or replaces the filter; with `resume` from the place that it has."""
        if not self.connected:
            return
        self.receive()
        known = self.followings.get(company)
        data = {"companyId": company, **wanted}
        after = known.position if known is not None and resume else None
        if after is not None:
            data |= {"after": after, "epoch": self.epoch}
        await self._send({"type": "subscribe", "data": data})
        answers = [each for each in self._voice.messages if each["Type"] == "SubscribeResult"]
        if not answers:
            assert not self.connected
            return
        (answer,) = answers
        assert answer["Data"]["CompanyId"] == company
        if not answer["Success"]:
            code = answer["Error"]["Code"]
            assert code == "unavailable" or (self.user == GUEST and code == "company_forbidden")
            self.receive()
            return
        # What came before the answer is of the former filter.
        before = self._voice.messages.index(answer)
        later, self._voice.messages = (
            self._voice.messages[before + 1 :],
            self._voice.messages[:before],
        )
        self.receive()
        following = self.followings.setdefault(company, Following(company, wanted))
        if after is not None:  # what came since from the former subscription comes again
            assert answer["Data"]["Recovered"] is True
            assert answer["Data"]["Position"] == after
        following.wanted, following.live = wanted, True
        following.position = answer["Data"]["Position"]
        assert answer["Data"]["Epoch"] == self.epoch
        self._voice.messages = [*later, *self._voice.messages]
        self.receive()

    async def unsubscribe(self, company: str) -> None:
        if not self.connected:
            return
        await self._send({"type": "unsubscribe", "data": {"companyId": company}})
        self.receive()
        if company in self.followings:
            self.followings[company].live = False

    def receive(self) -> None:
        """Takes the messages since the last look."""
        received, self._voice.messages = self._voice.messages, []
        for message in received:
            if "Position" in message:
                self.followings[message["Data"]["CompanyId"]].receive(message)
            elif message["Type"] == "CompanyRevoked":
                assert self.user == GUEST
                self.followings[message["Data"]["CompanyId"]].live = False
            else:
                answers = {"AuthenticationResult", "SubscribeResult", "UnsubscribeResult"}
                assert message["Type"] in answers, message

    def leave(self) -> None:
        """Leaves without closing."""
        self.receive()
        if self._session is not None:
            self._session.closed()
            self._session = None
        for following in self.followings.values():
            following.live = False

    async def _send(self, command: dict[str, Any]) -> None:
        assert self._session is not None
        try:
            await self._session.receive(json.dumps(command))
        except Closure:
            self._session.closed()


class Subscriptions(RuleBasedStateMachine):
    """Two nodes, two companies, one application that moves events between them."""

    events = Bundle("events")
    companies = st.integers(0, 1)
    nodes = st.integers(0, 1)

    def __init__(self, dsn: str, name: str) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.database = Database(dsn, name)
        self.node = [LocalNode(self.database.dsn) for _ in range(2)]
        self.clients: list[Client] = []

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(coroutine)

    @initialize(
        target=events,
        wanted=st.lists(st.sampled_from(FILTERS), min_size=8, max_size=8),
        titles=st.lists(TITLES, min_size=4, max_size=4),
    )
    def begin(self, wanted: list[dict[str, Any]], titles: list[str]) -> Any:
        async def begin() -> list[str]:
            for node in self.node:
                await node.start()
            self.connection = await self.database.connect()
            self.ledger = Ledger(self.connection)
            insert = "INSERT INTO companies (name) VALUES ('') RETURNING id"
            self.ids = [str(await self.database.fetchval(insert)) for _ in range(2)]
            for company in self.ids:
                await self.ledger.add("Employee", company, "staff", MEMBER)
            await self.database.relayed()  # and with it the epoch that `migrate` has begun
            self.sights: dict[str, str | None] = {}
            self.epoch = await self.database.fetchval("SELECT epoch FROM notifier.log")
            self.members: set[str] = set()
            self.clients = [Client(user, self.epoch) for user in (MEMBER, MEMBER, MEMBER, GUEST)]
            for number, client in enumerate(self.clients):
                await client.connect(self.node[number % 2])
                for company, each in zip(self.ids, wanted[number * 2 :], strict=False):
                    await client.subscribe(company, each, resume=False)
            return [
                await self.add_event(company, title, None)
                for company, title in zip(self.ids * 2, titles, strict=True)
            ]

        return multiple(*self.run(begin()))

    # --- the application

    async def add_event(self, company: str, title: str, sight: str | None) -> str:
        event = await self.ledger.add("Event", company, title, sight)
        self.sights[event] = sight
        return event

    @rule(
        target=events,
        company=companies,
        rows=st.lists(st.tuples(TITLES, SIGHTS), min_size=1, max_size=4),
    )
    def write(self, company: int, rows: list[tuple[str, str | None]]) -> Any:
        async def write() -> list[str]:
            async with self.connection.transaction():
                return [await self.add_event(self.ids[company], *row) for row in rows]

        return multiple(*self.run(write()))

    @rule(event=events, titles=st.lists(TITLES, min_size=1, max_size=3))
    def rename(self, event: str, titles: list[str]) -> None:
        async def rename() -> None:
            async with self.connection.transaction():
                for title in titles:
                    await self.ledger.rename("Event", event, title)

        self.run(rename())

    @rule(event=events, company=companies, title=TITLES)
    def move(self, event: str, company: int, title: str) -> None:
        self.run(self.ledger.move(event, self.ids[company], title))

    @rule(event=consumes(events))
    def delete(self, event: str) -> None:
        self.run(self.ledger.remove("Event", event))

    @rule(event=events, company=companies, title=TITLES)
    def roll_back(self, event: str, company: int, title: str) -> None:
        async def roll_back() -> None:
            transaction = self.connection.transaction()
            await transaction.start()
            await self.ledger.add("Event", self.ids[company], title)
            await self.ledger.move(event, self.ids[company], title)
            await transaction.rollback()

        self.run(roll_back())

    @rule(company=companies)
    def invite_or_dismiss(self, company: int) -> None:
        name = self.ids[company]
        if name in self.members:
            self.run(self.ledger.dismiss(name, GUEST))
        else:
            self.run(self.ledger.add("Employee", name, "guest", GUEST))
        self.members ^= {name}

    # --- clients

    @rule(
        which=st.integers(0, 3),
        company=companies,
        wanted=st.sampled_from(FILTERS),
        resume=st.booleans(),
    )
    def subscribe(self, which: int, company: int, wanted: dict[str, Any], resume: bool) -> None:
        self.run(self.clients[which].subscribe(self.ids[company], wanted, resume=resume))

    @rule(which=st.integers(0, 3), company=companies)
    def unsubscribe(self, which: int, company: int) -> None:
        self.run(self.clients[which].unsubscribe(self.ids[company]))

    @rule(which=st.integers(0, 3), node=nodes)
    def come_back(self, which: int, node: int) -> None:
        self.run(self.clients[which].connect(self.node[node]))

    @rule(which=st.integers(0, 3))
    def drop(self, which: int) -> None:
        self.clients[which].leave()

    # --- faults

    @rule()
    def terminate_backends(self) -> None:
        self.run(
            self.database.fetch(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE application_name LIKE 'notifier %' AND datname = current_database()"
            )
        )

    @rule(node=nodes)
    def restart_a_node(self, node: int) -> None:
        async def restart() -> None:
            await self.node[node].stop()
            await self.node[node].start()

        self.run(restart())

    # --- what must hold

    @invariant()
    def nothing_is_missing_or_doubled(self) -> None:
        for client in self.clients:
            client.receive()

    def teardown(self) -> None:
        try:
            if self.clients:
                self.run(self._judge())
        finally:
            for node in self.node:
                self.run(node.stop())
            self.database.leave()
            self.runner.close()

    async def _judge(self) -> None:
        for company in self.ids:
            await self.ledger.rename("Company", company, "the end")
            if company not in self.members:
                await self.ledger.add("Employee", company, "guest", GUEST)
        ledger = await expected(self.database)
        logs = {
            (user, company): await self._whole_log(user, company, ledger[company])
            for company in self.ids
            for user in (MEMBER, GUEST)
        }
        ends = {  # the last change, which all users may see, is among them
            company: await self.database.fetchval(
                "SELECT max(position) FROM notifier.messages WHERE company = $1", company
            )
            for company in self.ids
        }

        async def level(client: Client, following: Following) -> bool:
            if not client.connected:
                await client.connect(self.node[0])
            elif not following.live:
                await client.subscribe(following.company, following.wanted, resume=True)
            client.receive()
            return bool(following.position == ends[following.company])

        for client in self.clients:
            for following in client.followings.values():
                await until(partial(level, client, following))
                self._check(following, logs[client.user, following.company])

    async def _whole_log(self, user: str, company: str, rows: Mapping[Row, list[Sent]]) -> Log:
        """All changes of a company that the user may see, which are those of the ledger."""
        seen = {row: sent for row, sent in rows.items() if self.sights.get(row[1]) in {None, user}}
        witness = Client(user, self.epoch)
        witness.followings[company] = whole = Following(company, {}, 0)
        count = sum(map(len, seen.values()))

        async def complete() -> bool:
            if not witness.connected:
                await witness.connect(self.node[1])
            witness.receive()
            return len(whole.received) >= count

        await until(complete)
        assert collect(message for _, message, _ in whole.received) == seen
        witness.leave()
        return {position: message for position, message, _ in whole.received}

    @staticmethod
    def _check(following: Following, log: Log) -> None:
        for position, message, wanted in following.received:
            assert message == log[position]
            assert passes(wanted, message)
        for positions, wanted in following.skipped:
            for position in positions:
                assert position not in log or not passes(wanted, log[position]), log[position]


# A node that is killed while it connects leaves a connection that asyncpg has not returned yet.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.chaos
@pytest.mark.timeout(300 + STEPS)
def test_each_subscription_gets_exactly_what_it_must_by_the_ledger(
    postgres: str, ledgered: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(channel, "SKIPPED_SECONDS", 0.1)
    database = Database(postgres, ledgered)
    asyncio.run(migrate(database.dsn, watches=WATCHES))

    class Ready(Subscriptions):
        def __init__(self) -> None:
            super().__init__(postgres, ledgered)

    run_state_machine_as_test(
        Ready,
        settings=settings(
            max_examples=max(1, STEPS // EACH),
            stateful_step_count=EACH,
            deadline=None,
            phases=[Phase.generate],  # each step takes milliseconds: shrinking would take an hour
            suppress_health_check=list(HealthCheck),
        ),
    )
