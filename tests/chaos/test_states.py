"""In any order of writes, visits and faults, every client ends with the rows of the ledger."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterator
from functools import partial
from typing import Any, TypeVar
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, settings
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

from notifier.delivery.session import Session, Stage
from tests.chaos.ledger import TABLE, Ledger, State, apply, collect, expected, state
from tests.chaos.local import LocalNode, Voice
from tests.databases import Database
from tests.waiting import until

T = TypeVar("T")
END = "the end"


class Reader:
    """A client: the messages of a company that it received over all its visits."""

    def __init__(self, company: str, epoch: str) -> None:
        self.company = company
        self.epoch = epoch
        self.received: list[dict[str, Any]] = []
        self.state: State = {("Company", company): ""}
        self._session: Session | None = None
        self._voice = Voice()

    @property
    def here(self) -> bool:
        """Whether it is on a visit."""
        return self._session is not None and self._session.stage is not Stage.ENDED

    async def come(self, node: LocalNode) -> None:
        """Resumes after its last message."""
        self.leave()
        self._session, self._voice = await node.visit(
            "u1", self.company, len(self.received), self.epoch
        )
        answers = [each for each in self._voice.messages if each["Type"] == "SetCompanyResult"]
        if not answers or not answers[0]["Success"]:
            self._session.closed()  # the database was not available: it retries
            return
        data = {name: value for name, value in answers[0]["Data"].items() if name != "At"}
        assert data == {
            "CompanyId": self.company,
            "Position": len(self.received),
            "Epoch": self.epoch,
            "Recovered": True,
        }

    def take(self) -> None:
        """Takes the messages since its last look."""
        received, self._voice.messages = self._voice.messages, []
        for message in received:
            if message["Type"] in {"AuthenticationResult", "SetCompanyResult"}:
                continue
            assert message["Position"] == len(self.received) + 1, message
            assert message["Data"]["CompanyId"] == self.company
            self.received.append(message)
            apply(self.state, message)

    def leave(self) -> None:
        """Leaves without closing."""
        self.take()
        if self._session is not None:
            self._session.closed()
            self._session = None


class Machine(RuleBasedStateMachine):
    """The ledger is the model: three companies, one application, one node that may be restarted."""

    events = Bundle("events")
    companies = st.integers(0, 2)

    def __init__(self, dsn: str, name: str) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.database = Database(dsn, name)
        self.node = LocalNode(self.database.dsn)
        self.readers: list[Reader] = []
        self.count = 0

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(coroutine)

    @initialize()
    def begin(self) -> None:
        async def begin() -> None:
            await self.node.start()
            self.connection = await self.database.connect()
            self.ledger = Ledger(self.connection)
            self.ids = [
                str(
                    await self.database.fetchval(
                        "INSERT INTO companies (name) VALUES ('') RETURNING id"
                    )
                )
                for _ in range(3)
            ]
            for company in self.ids:
                await self.ledger.add("Employee", company, "staff", "u1")
            self.epoch = await self.database.fetchval("SELECT epoch FROM notifier.log")

        self.run(begin())

    def value(self) -> str:
        self.count += 1
        return f"value {self.count}"

    # --- the app

    @rule(target=events, company=companies, number=st.integers(1, 4))
    def write(self, company: int, number: int) -> Any:
        async def write() -> list[str]:
            async with self.connection.transaction():
                return [
                    await self.ledger.add("Event", self.ids[company], self.value())
                    for _ in range(number)
                ]

        return multiple(*self.run(write()))

    @rule(event=events, times=st.integers(1, 3))
    def rename(self, event: str, times: int) -> None:
        async def rename() -> None:
            async with self.connection.transaction():
                for _ in range(times):
                    await self.ledger.rename("Event", event, self.value())

        self.run(rename())

    @rule(event=events, company=companies)
    def move(self, event: str, company: int) -> None:
        self.run(self.ledger.move(event, self.ids[company], self.value()))

    @rule(event=consumes(events))
    def delete(self, event: str) -> None:
        self.run(self.ledger.remove("Event", event))

    @rule(event=events, company=companies)
    def roll_back(self, event: str, company: int) -> None:
        async def roll_back() -> None:
            transaction = self.connection.transaction()
            await transaction.start()
            await self.ledger.add("Event", self.ids[company], self.value())
            await self.ledger.move(event, self.ids[company], self.value())
            await transaction.rollback()

        self.run(roll_back())

    # --- clients

    @rule(company=companies)
    def subscribe(self, company: int) -> None:
        reader = Reader(self.ids[company], self.epoch)
        self.readers.append(reader)
        self.run(reader.come(self.node))

    @rule(which=st.integers(0, 9))
    def drop(self, which: int) -> None:
        for reader in self.readers[which : which + 1]:
            reader.leave()

    @rule(which=st.integers(0, 9))
    def resume(self, which: int) -> None:
        for reader in self.readers[which : which + 1]:
            self.run(reader.come(self.node))

    # --- faults

    @rule()
    def terminate_backends(self) -> None:
        self.run(
            self.database.fetch(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE application_name LIKE 'notifier %' AND datname = current_database()"
            )
        )

    @rule()
    def restart_the_node(self) -> None:
        async def restart() -> None:
            await self.node.stop()
            await self.node.start()

        self.run(restart())

    # --- what must hold

    @invariant()
    def nothing_is_missing_or_doubled(self) -> None:
        for reader in self.readers:
            reader.take()

    def teardown(self) -> None:
        try:
            self.run(self._judge())
        finally:
            self.run(self.node.stop())
            self.database.leave()
            self.runner.close()

    async def _judge(self) -> None:
        for company in self.ids:
            await self.ledger.rename("Company", company, END)

        async def level(reader: Reader) -> bool:
            if not reader.here:
                await reader.come(self.node)
            reader.take()
            return reader.state["Company", reader.company] == END

        ledger = await expected(self.database)
        for reader in [*self.readers, *(Reader(company, self.epoch) for company in self.ids)]:
            await until(partial(level, reader))
            assert collect(reader.received) == ledger[reader.company]
            assert reader.state == await state(self.database, reader.company)


@pytest.fixture
def ledgered(postgres: str, template: str) -> Iterator[str]:
    """The name of a database with a ledger."""
    database = Database(postgres, f"notifier_test_{uuid4().hex[:12]}")

    async def create() -> None:
        await database.create(template)
        await database.execute(TABLE)
        database.leave()

    asyncio.run(create())
    yield database.name
    asyncio.run(database.drop())


@pytest.mark.chaos
@pytest.mark.timeout(600)
def test_no_order_of_writes_visits_and_faults_loses_anything(postgres: str, ledgered: str) -> None:
    class Ready(Machine):
        def __init__(self) -> None:
            super().__init__(postgres, ledgered)

    run_state_machine_as_test(
        Ready,
        settings=settings(
            max_examples=12,
            stateful_step_count=20,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
