"""The .NET client, compiled and run by Mono: against the service, and against servers that fail."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, TypeAlias

import pytest
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from tests.compilers import dotnet
from tests.conftest import Serve
from tests.databases import Database
from tests.servers import listening
from tests.service.calendars import Calendar
from tests.services import token
from tests.waiting import DEADLINE_SECONDS, until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The command that runs tests/dotnet/Driver.cs."""
    return dotnet(tmp_path_factory.mktemp("dotnet"))


class Client:
    """The driver: commands in, lines out."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.lines: list[str] = []

    async def send(self, *commands: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write("".join(f"{command}\n" for command in commands).encode())
        await self.process.stdin.drain()

    async def until(self, wanted: Callable[[str], bool] | str) -> str:
        """The next line that is, or begins with, what is wanted."""
        try:
            async with asyncio.timeout(DEADLINE_SECONDS):
                return await self._find(wanted)
        except TimeoutError:
            pytest.fail(f"no line {wanted} in {self.lines[-30:]}")

    async def _find(self, wanted: Callable[[str], bool] | str) -> str:
        assert self.process.stdout is not None
        while True:
            line = (await self.process.stdout.readline()).decode().rstrip("\n")
            assert line, f"the driver ended: {self.lines}"
            assert line != "CONCURRENT", "two callbacks at the same time"
            self.lines.append(line)
            if line.startswith(wanted) if isinstance(wanted, str) else wanted(line):
                return line

    async def message(self, company: str, position: int) -> dict[str, Any]:
        """The message at this position; fails if another one of the company comes before it."""
        while True:
            found = json.loads(
                await self.until(lambda line: line.startswith("{") and company in line)
            )
            assert found["Position"] == position, self.lines
            return dict(found)

    async def position(self, company: str, wanted: int | str) -> None:
        """Returns when the subscription has this position: after the callback that prints the message."""

        async def reached() -> bool:
            await self.send(f"position {company}")
            return await self.until(f"position {company}") == f"position {company} {wanted}"

        await until(reached)


Start: TypeAlias = Callable[[str, str, str], Awaitable[Client]]


@pytest.fixture
async def start(driver: list[str]) -> AsyncIterator[Start]:
    started: list[asyncio.subprocess.Process] = []

    async def run(url: str, company: str, given: str) -> Client:
        process = await asyncio.create_subprocess_exec(
            *(*driver, url, company, given),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            limit=1024 * 1024,
        )
        started.append(process)
        return Client(process)

    yield run
    for process in started:
        with suppress(ProcessLookupError):
            process.kill()
        await process.communicate()


async def test_it_follows_companies_with_filters_through_restarts_and_revocations(
    serve: Serve, database: Database, start: Start, tmp_path: Path
) -> None:
    service = await serve(database)
    calendar = Calendar(database)
    acme = await calendar.company("u1", "u2")
    globex = await calendar.company("u1", name="Globex")
    secret = tmp_path / "token"
    secret.write_text(token("u1"))
    client = await start(service.url, acme, f"@{secret}")
    await client.until(f"resync: start {acme} 2")

    # A filter: what does not pass is skipped, and the position moves on.
    await client.send(f"subscribe {globex} Event Title Retro Ω \U0001f389")
    await client.until(f"resync: start {globex} 1")
    await calendar.event(globex, "Stand-up")
    await calendar.event(globex, "Retro Ω \U0001f389")
    await client.until(f"skipped {globex} 2")
    assert (await client.message(globex, 3))["Data"]["Title"] == "Retro Ω \U0001f389"
    await client.position(globex, 3)

    # An own write has arrived when its message was handled.
    tx = await database.fetchval(
        """
        WITH new AS (
            INSERT INTO events (company_id, title, starts_at, ends_at)
            VALUES ($1, 'Mine', now(), now()) RETURNING 1
        )
        SELECT pg_current_xact_id()::text FROM new
        """,
        acme,
    )
    await client.message(acme, 3)
    await client.send(f"arrived {acme} {tx}")
    await client.until(f"arrived {tx} 3")
    await client.send(f"arrived {acme} 4000000000")
    await client.until("not arrived 4000000000 unknown_tx")

    # Restarts: every message once.
    for end in (service.kill, service.terminate):
        end()
        await service.ended()
        await calendar.events(acme, 100)
        await service.start()
        await service.ready()
    for position in range(4, 204):
        await client.message(acme, position)
    await calendar.event(globex, "Retro Ω \U0001f389")
    await client.message(globex, 4)

    # Another filter begins with a reload; one that is refused leaves the former one.
    await client.send(f"filter {globex}")
    await client.until(f"resync: filter {globex} 4")
    await client.send(f"filter {globex} Event Absent x")
    await client.until(f"status {globex}: live (bad_filter)")
    await calendar.event(globex, "Any")
    await client.message(globex, 5)

    # Revoked in one company, the client goes on in the other one, and can be left by hand.
    await database.execute("DELETE FROM employees WHERE company_id = $1 AND user_id = 'u1'", globex)
    await client.until(f"status {globex}: idle (revoked)")
    await client.send(f"arrived {globex} {tx}")
    await client.until(f"not arrived {tx} not_subscribed")
    await calendar.event(acme, "Last")
    await client.message(acme, 204)
    await client.send(f"unsubscribe {acme}", "close")
    await client.until("closed")


Conversation: TypeAlias = Callable[[ServerConnection], Coroutine[Any, Any, None]]


@asynccontextmanager
async def serving(converse: Conversation) -> AsyncIterator[str]:
    """A server that follows this script on each socket."""

    async def accept(socket: ServerConnection) -> None:
        with suppress(ConnectionClosed):
            await converse(socket)

    async with serve(accept, "127.0.0.1", 0, ping_interval=None, close_timeout=1) as server:
        yield f"ws://127.0.0.1:{next(iter(server.sockets)).getsockname()[1]}/"


async def received(socket: ServerConnection, kind: str) -> dict[str, Any]:
    """The next command of this type."""
    while True:
        command = json.loads(await socket.recv())
        if command["type"] == kind:
            return dict(command)


async def admit(socket: ServerConnection, position: int, **data: Any) -> dict[str, Any]:
    """Accepts a token and a subscription, whose data is returned."""
    await received(socket, "authenticate")
    await socket.send('{"Type": "AuthenticationResult", "Success": true}')
    return await acknowledge(socket, position, **data)


async def acknowledge(socket: ServerConnection, position: int, **data: Any) -> dict[str, Any]:
    asked = dict((await received(socket, "subscribe"))["data"])
    answer = {"CompanyId": asked["companyId"], "Position": position, "Epoch": "e1", **data}
    await socket.send(json.dumps({"Type": "SubscribeResult", "Success": True, "Data": answer}))
    return asked


def change(company: str, position: int, **data: Any) -> str:
    row = {"EventId": f"e{position}", "CompanyId": company, **data}
    at = f"2026-11-22T18:00:00.{position:06}+00:00"
    return json.dumps({"Type": "EventCreated", "Data": row, "Position": position, "At": at})


async def test_callbacks_that_throw_lose_nothing_and_stop_nothing(start: Start) -> None:
    """A message that was not handled is followed by a reload; a reload that fails is repeated."""
    more = asyncio.Event()

    async def converse(socket: ServerConnection) -> None:
        await admit(socket, 10)
        await acknowledge(socket, 50)
        await more.wait()
        await socket.send(change("a", 11))
        await socket.send(change("b", 51))
        await socket.send(change("a", 12))
        await socket.wait_closed()

    async with serving(converse) as url:
        client = await start(url, "a", "t")
        await client.send("subscribe b")
        await client.until("resync: start a 10")
        await client.until("resync: start b 50")
        await client.position("a", 10)
        await client.send("fail 1", "fail-reload 2")
        await client.position("b", 50)
        more.set()
        await client.message('"b"', 51)  # the other company does not wait
        await client.until("resync: failed a 11")
        await client.message('"a"', 12)
        await client.position("a", 12)
        assert "status a: live (callback failed): of the application" in client.lines
        assert client.lines.count("status a: live (reload failed): of the reload") == 2


async def test_a_token_source_that_throws_is_called_again(start: Start) -> None:
    async def converse(socket: ServerConnection) -> None:
        await admit(socket, 10)
        await socket.wait_closed()

    async with serving(converse) as url:
        client = await start("ws://127.0.0.1:1/", "a", "t")  # nothing listens there
        await client.until("status waiting")
        del client
        client = await start(url, "a", "@/nowhere/at/all")
        line = await client.until("status waiting (no token)")
        assert "/nowhere" in line
        await client.send("fail-token 1", "reconnect")
        await client.until("status waiting (no token): no token today")


async def test_renewals_in_succession_are_spaced(start: Start) -> None:
    """As where the server's clock is ahead: each new token is about to expire."""
    pauses: asyncio.Future[list[float]] = asyncio.get_running_loop().create_future()

    async def converse(socket: ServerConnection) -> None:
        await admit(socket, 10)
        waits = []
        for _ in range(3):
            expiring = time.monotonic()
            await socket.send('{"Type": "TokenExpiring", "Data": {}}')
            await received(socket, "authenticate")
            waits.append(time.monotonic() - expiring)
            await socket.send('{"Type": "AuthenticationResult", "Success": true}')
        pauses.set_result(waits[1:])
        await socket.wait_closed()

    async with serving(converse) as url:
        await start(url, "a", "t")
        async with asyncio.timeout(DEADLINE_SECONDS):
            assert (
                min(await pauses) > 0.9
            )  # a second, and a random part, however busy the machine is


async def test_a_slow_reload_holds_messages_back_and_then_each_comes_once(start: Start) -> None:
    async def converse(socket: ServerConnection) -> None:
        await admit(socket, 10)
        for position in range(11, 3011):  # more than are held in memory
            await socket.send(change("a", position, Title="x" * 100))
            if position % 7 == 0:
                await socket.send(change("a", position))  # repeated
        await socket.wait_closed()

    async with serving(converse) as url:
        client = await start(url, "a", "t")
        await client.send("hold")
        # Either the first reload is held, or it is over already; then one is made.
        line = await client.until(lambda line: line.startswith(("holding", "resync")))
        if line.startswith("holding"):
            await client.position("a", "none")
            await client.send("release")
            await client.until("resync: start a 10")
        for position in range(11, 3011):
            await client.message('"a"', position)


async def test_it_closes_while_it_connects(start: Start) -> None:
    """A server that never answers the handshake.

    It has the whole request then: Mono ends a process that closes a socket which its selector is about to add.
    """
    requests: asyncio.Queue[bytes] = asyncio.Queue()

    async def never(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        requests.put_nowait(await reader.readuntil(b"\r\n\r\n"))
        await asyncio.sleep(3600)

    async with listening(never) as port:
        for end in ("close", "dispose"):
            client = await start(f"ws://127.0.0.1:{port}/", "a", "t")
            await client.until("status connecting")
            async with asyncio.timeout(DEADLINE_SECONDS):
                await requests.get()
            await client.send(end, "position a")
            await client.until(f"{end}d")
            await client.until("position a none")
            if "status closed" not in client.lines:
                await client.until("status closed")


async def test_it_resumes_with_at_and_believes_no_other_message_at_its_position(
    start: Start,
) -> None:
    resumed: list[dict[str, Any]] = []

    async def converse(socket: ServerConnection) -> None:
        at = f"2026-11-22T18:00:00.{11:06}+00:00"
        if not resumed:
            resumed.append(await admit(socket, 10))
            await socket.send(change("a", 11))
        elif len(resumed) == 1:
            resumed.append(await admit(socket, 11, Recovered=True, At=at))
            await socket.send(change("a", 12))
        else:  # a log that was restored from a backup, and has gone on since
            resumed.append(await admit(socket, 12, Recovered=True, At=at))
            await socket.send(change("a", 13))
            await socket.wait_closed()
        await socket.close(1012)

    async with serving(converse) as url:
        client = await start(url, "a", "t")
        await client.until("resync: start a 10")
        await client.message('"a"', 11)
        await client.until("recovered a 11")
        await client.message('"a"', 12)
        await client.until("resync: epoch a 12")
        await client.message('"a"', 13)
    known = {"companyId": "a", "epoch": "e1"}
    assert resumed == [
        {"companyId": "a"},
        {**known, "after": 11, "at": "2026-11-22T18:00:00.000011+00:00"},
        {**known, "after": 12, "at": "2026-11-22T18:00:00.000012+00:00"},
    ]


async def test_late_messages_of_a_company_that_was_left_are_of_no_other_one(start: Start) -> None:
    async def converse(socket: ServerConnection) -> None:
        await admit(socket, 10)
        await acknowledge(socket, 10)
        await received(socket, "unsubscribe")
        await socket.send(change("b", 11))
        await socket.send(change("a", 11))
        await socket.send(change("b", 12))
        await socket.send(change("a", 12))
        await socket.wait_closed()

    async with serving(converse) as url:
        client = await start(url, "a", "t")
        await client.send("subscribe b")
        await client.until("resync: start a 10")
        await client.until("resync: start b 10")
        await client.send("unsubscribe b")
        await client.message('"CompanyId": "a"', 11)
        await client.message('"CompanyId": "a"', 12)
        assert not [line for line in client.lines if '"CompanyId": "b"' in line]


async def test_a_company_whose_repeated_request_is_refused_is_left(start: Start) -> None:
    """The server would go on with the former subscription."""
    left = asyncio.Event()

    async def converse(socket: ServerConnection) -> None:
        await admit(socket, 10)
        await socket.send(change("a", 12))  # a gap
        await received(socket, "subscribe")
        refusal = {
            "Type": "SubscribeResult",
            "Success": False,
            "Data": {"CompanyId": "a"},
            "Error": {"Code": "bad_filter", "Message": "the column was dropped"},
        }
        await socket.send(json.dumps(refusal))
        await received(socket, "unsubscribe")
        left.set()
        await socket.wait_closed()

    async with serving(converse) as url:
        client = await start(url, "a", "t")
        await client.until("resync: start a 10")
        async with asyncio.timeout(DEADLINE_SECONDS):
            await left.wait()


async def test_a_company_whose_id_is_a_number_gets_its_messages(start: Start) -> None:
    """Another column may have the id of the other company."""
    ready = asyncio.Event()

    async def converse(socket: ServerConnection) -> None:
        await admit(socket, 10)
        await acknowledge(socket, 10)
        await ready.wait()
        for company, other in ((7, 8), (8, 7)):
            row = {"CompanyId": company, "Count": other}
            await socket.send(json.dumps({"Type": "EventCreated", "Data": row, "Position": 11}))
        await socket.wait_closed()

    async with serving(converse) as url:
        client = await start(url, "7", "t")
        await client.send("subscribe 8")
        await client.until("resync: start 7 10")
        await client.until("resync: start 8 10")
        ready.set()
        await client.position("7", 11)
        await client.position("8", 11)


UNREADABLE: list[str | bytes] = [
    "",
    "{",
    '{"Type": "EventCreated", "Position": "11", "Data": {}}',
    '{"Type": "EventCreated", "Position": -1, "Data": []}',
    '{"Type": "EventCreated", "Position": 1e400}',
    '{"Type": "EventCreated", "Position": 11, "Data": ' + "[" * 100_000 + "}",
    '{"Type": "Resync", "Position": 99999999999999999999, "Data": {}}',
    b"binary",
    b'{"Type": "EventCreated", "Position": 11, "Data": {"Name": "\xff"}}',
]
"""Frames of a broken server that may have been messages: the client cannot go on without them."""

MEANINGLESS: list[str | bytes] = [
    "null",
    "[]",
    '{"Type": null}',
    '{"Type": "SubscribeResult", "Success": true, "Data": {"Position": 1}}',
    '{"Type": "SubscribeResult", "Success": false}',
    '{"Type": "Disconnect", "Data": 7}',
    '{"Type": "Arrived"}',
    '{"Type": "CompanyRevoked"}',
    '{"Type": "Error", "Error": [], "Data": {"Tx": 7}}',
    '{"Type": "AuthenticationResult", "Success": true}',
    '{"Type": "Skipped"}',
]
"""Frames of a broken server that the client ignores."""


async def test_a_frame_that_it_cannot_read_ends_the_connection_and_the_position_is_requested_again(
    start: Start,
) -> None:
    frame: str | bytes | None = None

    async def converse(socket: ServerConnection) -> None:
        asked = await admit(socket, 10, Recovered=True)
        assert asked.get("after") in (None, 10)
        await socket.send(change("a", 11) if frame is None else frame)
        if frame in MEANINGLESS:
            await socket.close(1012)
        await socket.wait_closed()

    async with serving(converse) as url:
        client = await start(url, "a", "t")
        for frame in [*UNREADABLE, *MEANINGLESS]:
            await client.send("reconnect")  # no backoff
            reason = " (unreadable message)" if frame in UNREADABLE else ""
            await client.until(f"status waiting{reason}")
        frame = None
        await client.send("reconnect")
        await client.message('"a"', 11)


async def test_a_message_in_fragments_without_end_is_not_collected(start: Start) -> None:
    async def converse(socket: ServerConnection) -> None:
        async def fragments() -> AsyncIterator[str]:
            for _ in range(512):  # 32 MiB, whose end never comes
                yield "x" * 65_536
            await socket.wait_closed()

        await admit(socket, 10, Recovered=True)
        await socket.send(fragments())

    async with serving(converse) as url:
        client = await start(url, "a", "t")
        await client.until("status waiting (unreadable message)")


async def test_a_server_that_does_not_answer_is_left_when_the_queue_of_reports_has_room_again(
    start: Start,
) -> None:
    """While the queue is full the socket is not read, and no deadline applies."""
    ready, filled, silent = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def converse(socket: ServerConnection) -> None:
        if filled.is_set():
            await received(socket, "authenticate")
            silent.set()
            await socket.wait_closed()
            return
        await ready.wait()
        await admit(socket, 10)
        for position in range(11, 1010):  # the status of the next connection is the 1,000th report
            await socket.send(change("a", position))
        await socket.send('{"Type": "TokenExpiring", "Data": {}}')
        await received(socket, "authenticate")  # it has read all before that
        filled.set()
        await socket.wait_closed()

    async with serving(converse) as url:
        client = await start(url, "a", "t")
        await client.send("hold")
        await client.position("a", "none")
        ready.set()
        await client.until("holding a")
        await filled.wait()
        await client.position("a", "none")
        await client.send("reconnect")
        await silent.wait()
        await client.send("release")
        await client.until("status waiting (no answer)")


async def test_a_number_has_the_first_type_that_holds_it(start: Start) -> None:
    numbers = {
        "Whole": (9007199254740993, "Int64 9007199254740993"),
        "Fraction": (0.1, "Decimal 0.1"),
        "Small": (1e-30, "Double 1E-30"),
        "Long": (1.234567890123456e-20, "Double 1.234567890123456E-20"),
        "Large": (1e300, "Double 1E+300"),
    }

    ready = asyncio.Event()

    async def converse(socket: ServerConnection) -> None:
        await admit(socket, 10)
        await ready.wait()
        await socket.send(change("a", 11, **{name: each for name, (each, _) in numbers.items()}))
        await socket.wait_closed()

    async with serving(converse) as url:
        client = await start(url, "a", "t")
        await client.send("values")
        await client.position("a", 10)
        ready.set()
        for name, (_, printed) in numbers.items():
            assert await client.until(f"value {name} ") == f"value {name} {printed}"


async def test_a_callback_may_close_the_client(start: Start) -> None:
    async def converse(socket: ServerConnection) -> None:
        await admit(socket, 10)
        await socket.send(change("a", 11))
        await socket.send(change("a", 12))
        await socket.wait_closed()

    async with serving(converse) as url:
        client = await start(url, "b", "t")
        await client.send("close-in-callback", "reconnect")
        await client.until("closed in the callback")
        await client.until("status closed")
        await client.send("position b")
        await client.until("position b")
        assert len([line for line in client.lines if line.startswith(("{", "resync"))]) <= 2


async def test_it_may_be_used_from_many_threads(start: Start) -> None:
    sockets = 0

    async def converse(socket: ServerConnection) -> None:
        nonlocal sockets
        sockets += 1
        await received(socket, "authenticate")
        await socket.send('{"Type": "AuthenticationResult", "Success": true}')
        position = 10
        while True:
            asked = await acknowledge(socket, position, Recovered=False)
            assert asked["companyId"] == "a"
            for _ in range(3):
                position += 1
                await socket.send(change("a", position))

    async with serving(converse) as url:
        client = await start(url, "a", "t")
        await client.until("resync: start a 10")
        await client.send("storm a", "storm a")
        await client.until("stormed")
        await client.until("stormed")
        await client.send("reconnect")
        # It still converses: the last reload, and what follows.
        await client.until(lambda line: line.startswith("resync"))
        await client.until(lambda line: line.startswith("{"))
        await client.send("close")
        await client.until("closed")
    assert sockets > 1
