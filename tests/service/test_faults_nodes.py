"""Nodes are cut off, a part of one dies, a thousand clients come back at once."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import signal
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime
from functools import partial

import pytest

from notifier import node as app
from notifier import server, watchdogs
from notifier.commands import FilteredRequest
from notifier.delivery import hub, periodic_recheck
from notifier.delivery.channel import SLICE, Channel
from notifier.delivery.encoding import TEXT
from notifier.delivery.http_session import HttpSession
from notifier.delivery.recent import Budget
from notifier.delivery.session import Session, Stage
from notifier.errors import NotifierError
from notifier.messages import Message
from notifier.node import Node
from notifier.settings import load
from notifier.transport.polling import LongPoll
from tests.chaos.local import LocalNode, Voice
from tests.clients import open_client
from tests.conftest import Connect, Serve
from tests.databases import Database
from tests.ports import free_port
from tests.proxy import Proxy
from tests.service.calendars import Calendar, positions
from tests.service.test_faults_database import not_ready
from tests.services import SECRET, token
from tests.waiting import DEADLINE_SECONDS, until


async def test_e3_a_node_that_is_cut_off_is_not_ready_and_the_other_goes_on(
    database: Database, serve: Serve, connect: Connect
) -> None:
    async with Proxy(*database.address) as proxy:
        lonely = await serve(database.through(proxy.port))  # it relays
        other, calendar = await serve(database), Calendar(database)
        company = await calendar.company("u1")
        cut, well = await connect(lonely, "u1", company), await connect(other, "u1", company)
        proxy.refuse()
        proxy.freeze()
        for _ in range(5):
            await calendar.event(company)
        await well.received(lambda messages: positions(messages) == [2, 3, 4, 5, 6])
        await not_ready(lonely)
        assert positions(cut.messages) == []
        stranger = await connect(lonely, "u1")
        answer = await stranger.set_company(company)
        assert answer["Error"]["Code"] == "unavailable"
        proxy.thaw()
        await proxy.accept()
        await cut.received(lambda messages: positions(messages) == [2, 3, 4, 5, 6])
        await lonely.ready()


async def test_e3_clients_of_a_node_that_stays_cut_off_are_sent_away(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(periodic_recheck, "RECHECK_SECONDS", 0.2)
    monkeypatch.setattr(periodic_recheck, "BLIND_SECONDS", 0.5)
    async with Proxy(*database.address) as proxy:
        node = LocalNode(database.through(proxy.port))
        await node.start()
        company = await Calendar(database).company("u1")
        session, voice = await node.visit("u1", company)
        proxy.refuse()
        await proxy.reset()

        async def ended() -> bool:
            return session.stage is Stage.ENDED

        await until(ended)
        assert voice.closure is not None
        assert voice.closure.code == 4503
        await node.stop()


async def test_e4_a_node_that_is_behind_repeats_nothing_and_waits_only_for_missing_messages(
    database: Database, node: LocalNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub, "BEHIND_SECONDS", DEADLINE_SECONDS)  # a busy machine needs longer
    async with Proxy(*database.address) as proxy:
        behind = LocalNode(database.dsn, listen_database_url=database.through(proxy.port))
        await node.start()  # it relays
        await behind.start()
        calendar = Calendar(database)
        new, known = await calendar.company("u1"), await calendar.company("u1")
        _, first = await behind.visit("u1", known)
        proxy.freeze()
        for company in (new, known):
            await calendar.events(company, 3)
            await calendar.reaches(company, 4)
        epoch = node.node.hub.epoch
        _, fresh = await behind.visit("u1", new)
        assert fresh.messages[-1]["Data"]["Position"] == 4
        quicker = asyncio.create_task(behind.visit("u1", known, 4, epoch))
        unknown = asyncio.create_task(behind.visit("u1", known, 5, epoch))
        assert (await unknown)[1].messages[-1]["Data"]["Recovered"] is False
        proxy.thaw()
        _, resumed = await quicker
        assert resumed.messages[1]["Data"]["Recovered"] is True
        for company in (new, known):
            await calendar.event(company, "last")
        for voice, expected in ((fresh, [5]), (resumed, [5]), (first, [2, 3, 4, 5])):
            await until(partial(ends, voice))
            assert positions(voice.messages) == expected
        await behind.stop()


async def ends(voice: Voice) -> bool:
    """Whether it has received the last event."""
    return bool(voice.messages[-1].get("Data", {}).get("Title") == "last")


@pytest.mark.parametrize("part", ["stream", "relay", "recheck", "clock"])
async def test_e8_a_node_of_which_a_part_dies_ends_as_a_whole(
    database: Database, monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    dead = asyncio.Event()
    async with served(database) as (node, url, serving):
        parts: dict[str, tuple[object, str]] = {
            "stream": (node.stream, "run"),
            "relay": (node.relay, "run"),
            "recheck": (periodic_recheck.PeriodicRecheck, "run"),
            "clock": (app, "watch_clock"),
        }
        owner, name = parts[part]
        run = getattr(owner, name)

        async def die(*arguments: object) -> None:
            running = asyncio.create_task(run(*arguments))
            await dead.wait()
            running.cancel()
            await asyncio.wait([running])
            raise ValueError("a fault of ours")

        monkeypatch.setattr(owner, name, die)
        await until(partial(ready, node))
        client = await open_client(url, "u1")
        dead.set()
        with pytest.raises(NotifierError, match="node ended"):
            await serving
        await client.drop()


async def test_e8_a_session_that_fails_is_closed_with_4500_and_no_other(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    receive = Session.receive

    async def fail(session: Session, text: str) -> None:
        if "fail" in text:
            raise ValueError("a fault of ours")
        await receive(session, text)

    monkeypatch.setattr(Session, "receive", fail)
    async with served(database) as (node, url, _):
        await until(partial(ready, node))
        failing, other = await open_client(url, "u1"), await open_client(url, "u1")
        await failing.send({"type": "fail"})
        assert await failing.closed() == 4500
        assert failing.messages[-1]["Data"]["Reconnect"] is True
        await other.quiet()
        await other.drop()


async def test_e1_a_second_signal_does_not_wait_for_the_end_of_a_drain(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "EXIT_SECONDS", 600.0)
    draining = asyncio.Event()

    async def drain() -> None:
        draining.set()
        await asyncio.Event().wait()

    async with served(database) as (node, _, serving):
        monkeypatch.setattr(node, "drain", drain)
        await until(partial(ready, node))
        os.kill(os.getpid(), signal.SIGTERM)
        await draining.wait()
        os.kill(os.getpid(), signal.SIGTERM)
        async with asyncio.timeout(DEADLINE_SECONDS):
            await serving


async def ready(node: Node) -> bool:
    """Whether it says so."""
    return node.health.reason() is None


@asynccontextmanager
async def served(database: Database) -> AsyncIterator[tuple[Node, str, asyncio.Task[None]]]:
    """A node in this process, its address, and what serves it: as `notifier serve` does."""
    port = free_port()
    settings = load({}, database_url=database.dsn, jwt_secret=SECRET, host="127.0.0.1", port=port)
    node = Node(settings)
    listening = server.bind("127.0.0.1", port)
    serving = asyncio.create_task(server.serve(node, settings, [listening], lambda: None))
    try:
        yield node, f"ws://127.0.0.1:{port}/", serving
    finally:
        serving.cancel()
        await asyncio.wait([serving])
        if listening.fileno() >= 0:
            asyncio.get_running_loop().remove_reader(listening)
            listening.close()


class Follower:
    """A subscriber whose transport breaks, if the test wants it."""

    user = "u1"

    def __init__(self, broken: bool = False) -> None:
        self.is_lost = False
        self._broken = broken

    def write(self, frames: bytes, bodies: Sequence[bytes]) -> None:
        if self._broken:
            raise ValueError("a fault of ours")

    def access_in_doubt(self, *, named_at: datetime | None) -> None:
        raise AssertionError

    def dropped(self) -> None:
        self.is_lost = True


async def test_e8_when_the_fan_out_fails_every_client_reconnects() -> None:
    channel = Channel("c", "e", 0, None, Budget(), entities={})
    followers = [Follower(broken=number == 7) for number in range(SLICE + 1)]
    for follower in followers:
        channel.join(follower, TEXT, None)
    now = datetime.now(UTC)
    with raised() as errors:
        channel.deliver([Message(1, "c", 1, now, now, b"{}", ())])

        async def lost() -> bool:
            return all(follower.is_lost for follower in followers)

        await until(lost)
        gc.collect()
    assert [str(error) for error in errors] == ["a fault of ours"]


@contextmanager
def raised() -> Iterator[list[BaseException]]:
    """Errors of tasks that no task awaits, as the event loop reports them."""
    errors: list[BaseException] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: errors.append(context["exception"]))
    yield errors
    loop.set_exception_handler(None)


async def test_an_idle_node_makes_few_queries(
    database: Database, serve: Serve, connect: Connect
) -> None:
    company = await Calendar(database).add_company("u1")
    await connect(await serve(database), "u1", company)

    async def transactions() -> int:
        count: int = await database.fetchval(
            "SELECT xact_commit FROM pg_stat_database WHERE datname = current_database()"
        )
        return count

    await until(database.doorbell_is_armed)
    await asyncio.sleep(2)  # what was before is counted late
    before = await transactions()
    await asyncio.sleep(6)
    assert await transactions() - before < 100  # busy polling would be thousands


@pytest.fixture
async def node(database: Database) -> AsyncIterator[LocalNode]:
    """A node in this process; a test starts and stops it."""
    node = LocalNode(database.dsn)
    yield node
    await node.stop()


@pytest.mark.parametrize(("companies", "limit"), [(1, 8), (50, 50)])
async def test_a_thousand_clients_that_reconnect_at_once_cost_few_queries(
    database: Database,
    node: LocalNode,
    monkeypatch: pytest.MonkeyPatch,
    companies: int,
    limit: int,
) -> None:
    monkeypatch.setattr(watchdogs, "NEWCOMER_SECONDS", 600.0)  # its queries are counted, too
    await node.start()
    calendar = Calendar(database)
    names = [await calendar.company("u1") for _ in range(companies)]
    for name in names:
        await calendar.events(name, 100)
        await calendar.reaches(name, 101)
    epoch = node.node.hub.epoch
    await node.stop()
    await node.start()
    before = node.queries
    visits = await asyncio.gather(
        *(node.visit("u1", names[number % companies], 1, epoch) for number in range(1000))
    )
    for _, voice in visits:
        assert positions([message for message in voice.messages if "Position" in message]) == list(
            range(2, 102)
        )
    assert node.queries - before <= limit


async def test_polls_share_the_pages_of_the_log_and_wait_without_a_query(
    database: Database, node: LocalNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watchdogs, "NEWCOMER_SECONDS", 600.0)  # its queries are counted, too
    count = 300

    async def poll(after: int) -> list[int]:
        response = LongPoll(immediate=False)
        session = HttpSession(node.node.services, response, "127.0.0.1")
        request = FilteredRequest(company_id=company, after=after, epoch=epoch)
        try:
            await session.authenticate(token("u1"))
            assert await session.subscribe(request)
            await response.wait(DEADLINE_SECONDS)
            page = json.loads(b"".join(response.page().parts()))
        finally:
            session.leave()
        return positions(page["Messages"])

    async def all_wait() -> bool:
        sessions = node.node.admission.connections
        return len([each for each in sessions if each.live_subscriptions]) == count

    await node.start()
    calendar = Calendar(database)
    company = await calendar.company("u1")
    await calendar.events(company, 100)
    await calendar.reaches(company, 101)
    epoch = node.node.hub.epoch
    await node.stop()
    await node.start()
    before = node.queries
    pages = await asyncio.gather(*(poll(1) for _ in range(count)))
    assert all(page == [*range(2, 102)] for page in pages)
    assert node.queries - before <= 8
    waiting = [asyncio.create_task(poll(101)) for _ in range(count)]
    await until(all_wait)
    before = node.queries
    await calendar.event(company)
    assert await asyncio.gather(*waiting) == [[102]] * count
    assert node.queries - before <= 3  # the periodic re-check may fall into this time
