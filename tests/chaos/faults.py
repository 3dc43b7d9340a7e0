"""The faults of a chaos run, one after the other, in an order that the seed decides."""

from __future__ import annotations

import asyncio
import os
import random
import signal
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress

import httpx

from notifier.database.connections import FAILURES
from notifier.demo.postgres import EmbeddedPostgres
from tests.chaos.history import History
from tests.chaos.ledger import Ledger
from tests.databases import Database
from tests.proxy import Proxy
from tests.services import Service
from tests.waiting import until

OURS = "application_name LIKE 'notifier %' AND datname = current_database()"


class Faults:
    """`nodes[1]` reaches the database through `proxy`, `nodes[0]` directly."""

    def __init__(
        self,
        postgres: EmbeddedPostgres,
        database: Database,
        nodes: Sequence[Service],
        proxy: Proxy,
        companies: Sequence[str],
        history: History,
    ) -> None:
        self.found_without_a_ring = 0
        self.count = 0
        self.made: Counter[str] = Counter()
        self._postgres = postgres
        self._database = database
        self._nodes = nodes
        self._proxy = proxy
        self._companies = companies
        self._history = history
        self._random = random.Random(f"{history.seed} faults")
        self._stalled = False
        self.kinds: list[Callable[[], Awaitable[None]]] = [
            self._terminate_backends,
            self._terminate_backends_again_and_again,
            self._cancel_backends,
            self._kill_postgres,
            self._restart_postgres,
            self._kill_an_app,
            self._kill_a_node,
            self._kill_the_relay,
            self._restart_a_node,
            self._stop_a_node,
            self._freeze_the_link,
            self._deafen_the_link,
            self._cut_the_link,
            self._reset_the_link,
            self._flood_without_a_relay,
        ]
        self.first: list[Callable[[], Awaitable[None]]] = [
            self._restart_postgres,
            self._kill_the_relay,
        ]

    async def run(self, seconds: float) -> None:
        """Runs faults for this long; each kind comes once before one repeats, those of `first` before all."""
        loop = asyncio.get_running_loop()
        end = loop.time() + seconds
        waiting = [*self.first]
        self._random.shuffle(waiting)
        while loop.time() < end:
            if not waiting:
                waiting = [kind for kind in self.kinds if kind not in self.first]
                self.first = []
                self._random.shuffle(waiting)
            fault = waiting.pop()
            self._history.note("fault", kind=fault.__name__.strip("_"))
            await fault()
            self._history.note("fault over", kind=fault.__name__.strip("_"))
            self.count += 1
            self.made[fault.__name__.strip("_")] += 1
            await asyncio.sleep(self._random.expovariate(1))
        for node in self._nodes:
            await node.ready()
            await self._observe(node)

    # --- the database

    async def _terminate_backends(self) -> None:
        one = self._random.random() < 0.5
        await self._database.execute(
            "SELECT pg_terminate_backend(pid) FROM (SELECT pid FROM pg_stat_activity"
            f" WHERE {OURS} ORDER BY random() LIMIT {1 if one else 100}) AS backend"
        )

    async def _terminate_backends_again_and_again(self) -> None:
        for _ in range(self._random.randint(3, 12)):
            await self._database.execute(
                f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {OURS}"
            )
            await asyncio.sleep(0.2)

    async def _cancel_backends(self) -> None:
        for _ in range(10):
            await self._database.execute(
                f"SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE {OURS}"
            )

    async def _kill_postgres(self) -> None:
        self._history.down()
        await asyncio.to_thread(self._postgres.kill)
        await asyncio.sleep(self._random.choice((0, 0, 0.5, 3)))
        await asyncio.to_thread(self._postgres.start)
        self._history.up()

    async def _restart_postgres(self) -> None:
        self._history.down()
        await asyncio.to_thread(self._postgres.stop)
        await asyncio.to_thread(self._postgres.start)
        self._history.up()

    async def _kill_an_app(self) -> None:
        """Kills one backend with SIGKILL: the server restarts all of them and recovers."""
        pid = await self._database.fetchval(
            "SELECT pid FROM pg_stat_activity WHERE usename = 'app' ORDER BY random() LIMIT 1"
        )
        if pid is None:
            return
        own = await self._database.fetchval("SELECT pg_backend_pid()")
        self._history.down()
        os.kill(pid, signal.SIGKILL)

        async def back() -> bool:
            """On another backend: until the server has noticed, the present one goes on."""
            with suppress(*FAILURES):
                return bool(await self._database.fetchval("SELECT pg_backend_pid()") != own)
            return False

        await asyncio.sleep(0.1)
        await until(back)
        self._history.up()

    # --- the nodes

    async def _kill_a_node(self) -> None:
        await self._kill(self._pick())

    async def _kill_the_relay(self) -> None:
        for node in self._nodes:
            await node.ready()
        for node in self._nodes:
            with suppress(httpx.TransportError):
                if "notifier_relay 1.0" in (await node.get("/metrics")).text:
                    await self._kill(node)
                    return

    async def _kill(self, node: Service) -> None:
        await self._observe(node)
        node.kill()
        await node.ended()
        await asyncio.sleep(self._random.choice((0, 2)))
        await node.start()

    async def _restart_a_node(self) -> None:
        node = self._pick()
        await node.ready()
        await self._observe(node)
        node.terminate()
        status = await node.ended()
        if status != 0:
            self._history.violated("a node that received SIGTERM", port=node.port, status=status)
        await node.start()

    async def _stop_a_node(self) -> None:
        self._stalled = True
        node = self._pick()
        node.send(signal.SIGSTOP)
        await asyncio.sleep(self._random.uniform(0.5, 5))
        node.send(signal.SIGCONT)

    # --- the link

    async def _freeze_the_link(self) -> None:
        self._stalled = True
        self._proxy.freeze()
        await asyncio.sleep(self._random.choice((1, 4, 7)))
        self._proxy.thaw()

    async def _deafen_the_link(self) -> None:
        self._stalled = True
        self._proxy.one_way()
        await asyncio.sleep(self._random.uniform(1, 4))
        self._proxy.thaw()

    async def _cut_the_link(self) -> None:
        self._proxy.refuse()
        await self._proxy.cut()
        await asyncio.sleep(self._random.choice((0, 2)))
        await self._proxy.accept()

    async def _reset_the_link(self) -> None:
        for _ in range(3):
            await self._proxy.reset()
            await asyncio.sleep(self._random.uniform(0, 0.3))

    # --- a backlog

    async def _flood_without_a_relay(self) -> None:
        """More than a page of changes, and a transaction of more than a page, wait for the relay.

        It is killed once more while it is at it.
        """
        for node in self._nodes:
            await self._observe(node)
            node.kill()
            await node.ended()
        app = await self._database.connect(app=True)
        each = 5400 // len(self._companies)
        ledger = Ledger(app)
        for turn in range(120):
            await ledger.fill(self._companies, 8, f"flood {turn}")
        await ledger.fill(self._companies, each, "deluge")
        await app.close()
        for node in self._nodes:
            await node.start()
        for _ in range(2):
            await asyncio.sleep(self._random.uniform(0.7, 2.5))
            node = self._pick()
            node.kill()
            await node.ended()
            await node.start()

    # --- checks

    async def _observe(self, node: Service) -> None:
        """Counts the changes that a relay found without a ring; a stall excuses them."""
        with suppress(httpx.TransportError):
            for line in (await node.get("/metrics")).text.splitlines():
                if line.startswith("notifier_fallback_finds_total ") and not self._stalled:
                    self.found_without_a_ring += int(float(line.split()[1]))
        self._stalled = False

    def _pick(self) -> Service:
        return self._random.choice(self._nodes)
