"""Writers, clients and faults at once; then the ledger shows whether anything was lost.

NOTIFIER_CHAOS_SECONDS    how long faults are made (default 30)
NOTIFIER_CHAOS_SEED       which ones, and what the apps write (default: a new one each time)
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Self

import asyncpg
import pytest

from notifier.client.transports import Transport
from notifier.database.connections import FAILURES
from notifier.demo.postgres import EmbeddedPostgres
from tests.chaos.faults import Faults
from tests.chaos.followers import KEPT, Follower, Way
from tests.chaos.history import History
from tests.chaos.ledger import TABLE, Ledger, State, collect, expected, state
from tests.chaos.nats_faults import NatsFaults
from tests.chaos.wire import Canon, watch
from tests.chaos.writers import Writer
from tests.conftest import Serve
from tests.databases import Database
from tests.http_proxy import HttpProxy
from tests.natsd import NatsServer, cluster_of
from tests.proxy import Proxy
from tests.services import Service
from tests.waiting import until

SECONDS = float(os.environ.get("NOTIFIER_CHAOS_SECONDS") or 30)
HEALING_SECONDS = 60.0
COMPANIES, WRITERS = 6, 4
END = "the end"

TRANSPORTS: tuple[Transport, ...] = ("websocket", "sse", "poll")
"""Each kind of client comes over each of them."""

KINDS = ("faithful", "guest", "forgetful", "stateful")

LIFETIME_SECONDS = 16.0
KILLED_SECONDS = LIFETIME_SECONDS if SECONDS >= 120 else 2.0
"""A proxy ends each connection after this time; in a short run sooner, as long as there are faults."""


@pytest.fixture
async def history(tmp_path: Path) -> AsyncIterator[History]:
    seed = int(os.environ.get("NOTIFIER_CHAOS_SEED") or random.SystemRandom().randrange(10**6))
    history = History(tmp_path / "history.jsonl", seed)
    print(f"NOTIFIER_CHAOS_SEED={seed}  history: {history.path}")  # noqa: T201 - it repeats the run
    yield history
    history.close()


@pytest.fixture
async def cluster(
    request: pytest.FixtureRequest, tmp_path: Path
) -> AsyncIterator[tuple[list[NatsServer], list[Proxy]]]:
    """So many servers of NATS, as one cluster, and the proxies between them."""
    async with cluster_of(tmp_path, request.param) as cluster:
        yield cluster


async def start_nodes(
    database: Database, serve: Serve, proxy: Proxy, cluster: list[NatsServer], nats_proxy: Proxy
) -> list[Service]:
    """Two nodes, or four where there is NATS. The second one reaches both through proxies."""
    settings: dict[str, Any] = {
        "drain_seconds": 0.5,
        "state": "on",
        "max_state_rows": 10 * KEPT,
    }
    if not cluster:
        return [
            await serve(database, **settings),
            await serve(database.through(proxy.port), **settings),
        ]
    urls = ",".join(server.url for server in cluster)
    nodes = [await serve(database, nats_url=urls, **settings) for _ in range(3)]
    cut = f"nats://127.0.0.1:{nats_proxy.port}"
    node = await serve(database.through(proxy.port), nats_url=cut, **settings)
    nodes.insert(1, node)
    return nodes


class Network:
    """The ways to each node: directly, by a proxy that ends each connection after a while, and by one that buffers.

    The last one lets no WebSocket through and holds back streams, so a client must choose its transport itself.
    """

    def __init__(self, nodes: Sequence[Service]) -> None:
        self._nodes = nodes
        self.killing = [HttpProxy(node.port) for node in nodes]
        self.buffering = [HttpProxy(node.port) for node in nodes]
        for killing in self.killing:
            killing.lifetime = KILLED_SECONDS
        for buffering in self.buffering:
            buffering.blocks = buffering.buffers = True

    async def __aenter__(self) -> Self:
        for proxy in (*self.killing, *self.buffering):
            await proxy.accept()
        return self

    async def __aexit__(self, *_: object) -> None:
        for proxy in (*self.killing, *self.buffering):
            await proxy.refuse()

    def ways(self, transport: Transport) -> list[Way]:
        """Those of a client."""
        direct = [Way(node.url, transport) for node in self._nodes]
        killed = [Way(proxy.url, transport) for proxy in self.killing]
        return direct + killed + [Way(proxy.url, "auto") for proxy in self.buffering]

    def calm(self) -> None:
        """The faults are over: a state must fit into the life of a connection, also on a busy machine."""
        for killing in self.killing:
            killing.lifetime = LIFETIME_SECONDS

    @property
    def ended(self) -> int:
        """Connections that a proxy has ended."""
        return sum(proxy.ended for proxy in self.killing)

    @property
    def held(self) -> int:
        """Streams that a proxy has held back."""
        accepted = [each.get("accept") for proxy in self.buffering for each in proxy.requests]
        return accepted.count("text/event-stream")


@pytest.mark.chaos
@pytest.mark.timeout(SECONDS + 600)
@pytest.mark.parametrize("cluster", [0, 3], ids=["PostgreSQL", "NATS"], indirect=True)
async def test_every_client_ends_with_the_committed_rows_whatever_dies(
    mortal: EmbeddedPostgres,
    mortal_database: Database,
    serve: Serve,
    history: History,
    cluster: tuple[list[NatsServer], list[Proxy]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    watch(monkeypatch)
    database, (servers, routes) = mortal_database, cluster
    await database.execute(TABLE)
    companies = [
        str(await database.fetchval("INSERT INTO companies (name) VALUES ('') RETURNING id"))
        for _ in range(COMPANIES)
    ]
    ledger = Ledger(await database.connect())
    for company in companies:
        await ledger.add("Employee", company, "staff", "ann")
        await ledger.add("Employee", company, "guest", "guest")
    broker = servers[1].port if servers else 0
    async with AsyncExitStack() as stack:
        proxy = await stack.enter_async_context(Proxy(*database.address))
        nats_proxy = await stack.enter_async_context(Proxy("127.0.0.1", broker))
        nodes = await start_nodes(database, serve, proxy, servers, nats_proxy)
        network = await stack.enter_async_context(Network(nodes))
        epoch = await database.fetchval("SELECT epoch FROM notifier.log")
        canon = Canon(history)

        async def snapshot(company: str) -> State:
            try:
                connection = await asyncpg.connect(database.dsn, timeout=5)
            except FAILURES as error:
                raise OSError(str(error)) from error
            try:
                return await state(connection, company)
            except FAILURES as error:
                raise OSError(str(error)) from error
            finally:
                connection.terminate()

        followers = []
        for number, company in enumerate(companies):
            for shift, kind in enumerate(KINDS):
                follower = Follower(
                    f"{kind} {number}",
                    "guest" if kind == "guest" else "ann",
                    company,
                    network.ways(TRANSPORTS[(number + shift) % len(TRANSPORTS)]),
                    canon,
                    history,
                    snapshot,
                    forgetful=kind in ("forgetful", "stateful"),
                    has_state=kind == "stateful",
                    guest=kind == "guest",
                )
                if kind in ("faithful", "guest"):
                    follower.begin(epoch, "")
                followers.append(follower)
        writers = [
            Writer(
                f"writer {number}",
                database.app_dsn,
                companies,
                [] if number else ["guest"],
                history,
            )
            for number in range(WRITERS)
        ]
        faults = Faults(mortal, database, nodes, proxy, companies, history)
        if servers:
            of_nats = NatsFaults(servers, routes, nats_proxy, history)
            faults.kinds += of_nats.kinds
            faults.first += of_nats.first
        enough = asyncio.Event()
        async with asyncio.TaskGroup() as tasks:
            following = [tasks.create_task(follower.run()) for follower in followers]
            writing = [tasks.create_task(writer.run(enough)) for writer in writers]
            await faults.run(SECONDS)
            network.calm()
            enough.set()
            await asyncio.gather(*writing)
            ledger = Ledger(await database.connect())
            for company in companies:  # the guest is back, and the last message of the company
                await ledger.dismiss(company, "guest")
                await ledger.add("Employee", company, "guest", "guest")
            for company in companies:
                await ledger.rename("Company", company, END)
            for follower in followers:
                follower.stay()
            healing = time.monotonic()

            async def level() -> bool:
                return all(
                    follower.state.get(("Company", follower.company)) == END
                    for follower in followers
                )

            try:
                await until(level, HEALING_SECONDS, every=0.1)
            except TimeoutError:
                for follower in followers:
                    if follower.state.get(("Company", follower.company)) != END:
                        history.violated("never level", who=follower.name, at=follower.position)
            healed = time.monotonic() - healing
            await all_on_nats(nodes if servers else [])
            for task in following:
                task.cancel()
    await judge(database, history, canon, followers, epoch)
    assert not history.inexcusable(), history.path
    assert faults.found_without_a_ring == 0, history.path
    assert network.ended > 0
    assert network.held > 0
    print(  # noqa: T201 - what a run was worth
        f"{faults.count} faults, {sum(writer.committed for writer in writers)} transactions,"
        f" {len(canon.texts)} messages, {sum(follower.resumed for follower in followers)} resumes,"
        f" {network.ended} connections ended and {network.held} streams held back by proxies,"
        f" level {healed:.1f} s after the last fault, longest transaction"
        f" {history.longest_write:.1f} s\n"
        + ", ".join(f"{kind} {count}" for kind, count in sorted(faults.made.items()))
    )


async def all_on_nats(nodes: list[Service]) -> None:
    """Returns when each node gets its messages by NATS again, and /readyz says so."""

    async def are_back() -> bool:
        answers = [(await node.get("/readyz")).json() for node in nodes]
        return answers == [{"ready": True, "path": "nats"}] * len(nodes)

    await until(are_back, HEALING_SECONDS)


async def judge(
    database: Database, history: History, canon: Canon, followers: list[Follower], epoch: str
) -> None:
    """Compares the ledger, the log, the received messages, and the tables."""
    expected_messages = await expected(database)
    log = await database.fetch(
        "SELECT company, position, body::text FROM notifier.messages ORDER BY company, position"
    )
    for company in {follower.company for follower in followers}:
        stored = {row["position"]: row["body"] for row in log if row["company"] == company}
        if list(stored) != list(range(1, len(stored) + 1)):
            history.violated("the log has a hole", company=company)
        received = {
            position: text
            for (name, era, position), text in canon.texts.items()
            if name == company and era == epoch
        }
        if received != stored:
            wrong = [key for key in stored | received if stored.get(key) != received.get(key)]
            history.violated("received messages differ from the log", company=company, at=wrong[:5])
        sent = collect(json.loads(text) for text in stored.values())
        wanted = expected_messages.get(company, {})
        for row in sent.keys() | wanted.keys():
            if sent.get(row) != wanted.get(row):
                history.violated(
                    "not what the ledger has",
                    company=company,
                    row=row,
                    committed=wanted.get(row),
                    sent=sent.get(row),
                )
        there = await state(database, company)
        for follower in followers:
            if follower.company != company:
                continue
            if follower.position != len(stored):
                history.violated("not at the end", who=follower.name, at=follower.position)
            if follower.state != there:
                wrong = [
                    row
                    for row in follower.state | there
                    if follower.state.get(row) != there.get(row)
                ]
                history.violated("another state", who=follower.name, rows=wrong[:5])
            if follower.epochs != {epoch}:
                history.violated("another epoch", who=follower.name, epochs=follower.epochs)
    assert not history.violations, (
        f"NOTIFIER_CHAOS_SEED={history.seed}, {len(history.violations)} violations in"
        f" {history.path}:\n" + "\n".join(history.violations[:10])
    )
