"""Applications that write at random, many rows to a transaction, and sometimes roll back."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Sequence

import asyncpg

from notifier.database.connections import FAILURES
from tests.chaos.history import History
from tests.chaos.ledger import Ledger
from tests.waiting import DEADLINE_SECONDS


class _ChangedMind(Exception):
    """The app rolls back."""


class Writer:
    """One application. It writes its own rows, so it waits for others only at a company's name."""

    def __init__(
        self, name: str, dsn: str, companies: Sequence[str], guests: Sequence[str], history: History
    ) -> None:
        self.name = name
        self.committed = 0
        self._dsn = dsn
        self._companies = companies
        self._guests = guests
        self._history = history
        self._random = random.Random(f"{history.seed} {name}")
        self._rows: dict[str, list[str]] = {"Event": [], "Employee": []}
        self._count = 0

    async def run(self, enough: asyncio.Event) -> None:
        """Writes until `enough`; records errors and reconnects."""
        while not enough.is_set():
            connection, begun = None, time.monotonic()
            try:
                connection = await asyncpg.connect(self._dsn, timeout=DEADLINE_SECONDS)
                while not enough.is_set():
                    begun = time.monotonic()
                    await self._transaction(connection)
                    await asyncio.sleep(self._random.expovariate(100))
            except FAILURES as error:
                self._history.failed(self.name, error, begun)
                await asyncio.sleep(0.05)
            finally:
                if connection is not None:
                    connection.terminate()

    async def _transaction(self, connection: asyncpg.Connection[asyncpg.Record]) -> None:
        ledger = Ledger(connection)
        before = {entity: list(rows) for entity, rows in self._rows.items()}
        begun = time.monotonic()
        try:
            async with connection.transaction():
                if self._chance(0.2):
                    await ledger.rename("Company", self._pick(self._companies), self._value())
                for _ in range(self._random.choice((1, 1, 1, 2, 3, 5, 8, 20))):
                    await self._step(connection, ledger)
                if self._chance(0.05):
                    await asyncio.sleep(self._random.uniform(0, 0.5))  # a late commit
                self._consider(0.1)
        except _ChangedMind:
            self._rows = before
            return
        except BaseException:
            # It may have committed: those rows are not touched again.
            self._rows = {
                entity: [row for row in rows if row in self._rows[entity]]
                for entity, rows in before.items()
            }
            raise
        self.committed += 1
        self._history.waited(time.monotonic() - begun)

    async def _step(self, connection: asyncpg.Connection[asyncpg.Record], ledger: Ledger) -> None:
        if not self._chance(0.1):
            await self._write(ledger)
            return
        before = {entity: list(rows) for entity, rows in self._rows.items()}
        try:
            async with connection.transaction():  # a savepoint
                await self._write(ledger)
                await self._write(ledger)
                self._consider(0.5)
        except _ChangedMind:
            self._rows = before

    async def _write(self, ledger: Ledger) -> None:
        entity = "Event" if self._chance(0.8) else "Employee"
        rows = self._rows[entity]
        what = self._random.random()
        if not rows or what < 0.3:
            rows.append(await ledger.add(entity, self._pick(self._companies), self._value()))
        elif what < 0.65:
            await ledger.rename(entity, self._pick(rows), self._value())
        elif what < 0.8 and entity == "Event":
            await ledger.move(self._pick(rows), self._pick(self._companies), self._value())
        elif what < 0.97:
            key = self._pick(rows)
            await ledger.remove(entity, key)
            rows.remove(key)
        elif self._guests:
            guest, company = self._pick(self._guests), self._pick(self._companies)
            await ledger.dismiss(company, guest)
            if self._chance(0.7):
                await ledger.add("Employee", company, self._value(), guest)

    def _consider(self, chance: float) -> None:
        if self._chance(chance):
            raise _ChangedMind

    def _value(self) -> str:
        self._count += 1
        return f"{self.name} {self._count}"

    def _chance(self, chance: float) -> bool:
        return self._random.random() < chance

    def _pick(self, names: Sequence[str]) -> str:
        return self._random.choice(names)
