"""A client of one company for tests: it records messages, and waits for those that a test expects."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Coroutine
from concurrent.futures import Future
from typing import Any, TypeVar

from notifier.client import Message, Resync, Status, connect
from notifier.client.feed import Where
from notifier.database import sql
from notifier.database.connections import connected
from notifier.testing.waiting import until

PATIENCE = 30.0
"""Seconds after which a test fails that waits for a message."""

T = TypeVar("T")


class Follower:
    """The messages of a company that a user receives. Methods whose name begins with `a` are for coroutines.

    `received`: every message and every `Resync`, also those that were taken.
    """

    def __init__(
        self,
        url: str,
        get_token: Callable[[], str],
        company: str,
        database_url: str,
        *,
        patience: float,
    ) -> None:
        self.received: list[Message | Resync] = []
        self._patience = patience
        self._database_url = database_url
        self._company = company
        self._client = connect(url, get_token)
        self._taken = 0
        self._live = False
        self._end: Status | None = None
        self._arrived = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._task: asyncio.Task[None] | None = None

    def expect(self, kind: str, /, **data: object) -> Message:
        """The next message whose `type` is `kind` and whose row has these values; skips those before it.

        Raises AssertionError after the timeout, or when access has ended.
        """
        return self._submit(self._expect(kind, data)).result()

    async def aexpect(self, kind: str, /, **data: object) -> Message:
        """As `expect`, in a coroutine."""
        return await asyncio.wrap_future(self._submit(self._expect(kind, data)))

    def expect_resync(self) -> Resync:
        """The next Resync; what came before it is skipped."""
        return self._submit(self._expect_resync()).result()

    async def aexpect_resync(self) -> Resync:
        """As `expect_resync`, in a coroutine."""
        return await asyncio.wrap_future(self._submit(self._expect_resync()))

    def messages(self) -> list[Message | Resync]:
        """The messages not taken yet, of everything that was committed before the call; may be empty."""
        return self._submit(self._rest()).result()

    async def amessages(self) -> list[Message | Resync]:
        """As `messages`, in a coroutine."""
        return await asyncio.wrap_future(self._submit(self._rest()))

    def close(self) -> None:
        """Disconnects."""
        self._submit(self._client.close()).result()

    async def begin(self, entities: Collection[str] | None, where: Where | None) -> None:
        """Connects and subscribes, in the loop of the node. Raises AssertionError where it is refused.

        What was committed before is no message of it, even if the relay had not read it yet.
        """
        self._subscription = self._client.subscribe(self._company, entities=entities, where=where)
        self._task = asyncio.create_task(self._read())
        await self._wait(lambda: self._live, "messages of this company", PATIENCE)
        await self._rest()
        self.received.clear()
        self._taken = 0

    async def _read(self) -> None:
        async with self._client:
            async for report in self._client:
                match report:
                    case Status(state="live"):
                        self._live = True
                    case Status(state="idle" | "stopped") if report.company == self._company:
                        self._end = report
                    case Resync(reason="start"):
                        pass
                    case Message() | Resync():
                        self.received.append(report)
                self._arrived.set()

    async def _expect(self, kind: str, data: dict[str, object]) -> Message:
        def wanted(report: Message | Resync) -> bool:
            return (
                isinstance(report, Message)
                and report.type == kind
                and all(report.data.get(name) == value for name, value in data.items())
            )

        message = await self._next(wanted, f"{kind} {data or ''}".rstrip())
        assert isinstance(message, Message)
        return message

    async def _expect_resync(self) -> Resync:
        resync = await self._next(lambda each: isinstance(each, Resync), "Resync")
        assert isinstance(resync, Resync)
        return resync

    async def _next(
        self, wanted: Callable[[Message | Resync], bool], name: str
    ) -> Message | Resync:
        def found() -> bool:
            while self._taken < len(self.received):
                self._taken += 1
                if wanted(self.received[self._taken - 1]):
                    return True
            return False

        await self._wait(found, name, self._patience)
        return self.received[self._taken - 1]

    async def _rest(self) -> list[Message | Resync]:
        """Waits for all that is committed: until it is stored, and then until it was received."""
        async with (
            asyncio.timeout(max(self._patience, PATIENCE)),
            connected(self._database_url, "testing") as connection,
        ):
            snapshot = await connection.fetchval("SELECT pg_current_snapshot()::text")
            await until(lambda: connection.fetchval(sql.query("is_relayed"), snapshot))
            tx = await connection.fetchval("SELECT pg_current_xact_id()::text")
            await self._subscription.arrived(tx)
        rest, self._taken = self.received[self._taken :], len(self.received)
        return rest

    async def _wait(self, found: Callable[[], bool], name: str, patience: float) -> None:
        try:
            async with asyncio.timeout(patience):
                while not found():
                    if self._end is not None:
                        raise AssertionError(f"no {name}: {self._end.reason}; {self._summary()}")
                    self._arrived.clear()
                    await self._arrived.wait()
        except TimeoutError:
            raise AssertionError(f"no {name} in {patience:g} s; {self._summary()}") from None

    def _summary(self) -> str:
        names = [each.type if isinstance(each, Message) else "Resync" for each in self.received]
        return f"received: {', '.join(names[-20:]) or 'nothing'}; {self._client.status}"

    def _submit(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        return asyncio.run_coroutine_threadsafe(work, self._loop)
