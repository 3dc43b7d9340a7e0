"""The faults of NATS in a chaos run. Others go on while a server is away, or a node is cut off from it."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence

from tests.chaos.history import History
from tests.natsd import NatsServer
from tests.proxy import Proxy


class NatsFaults:
    """`nodes[1]` reaches one server, through `proxy`; the others reach all of the cluster, whose servers
    reach one another through `routes`.
    """

    def __init__(
        self,
        cluster: Sequence[NatsServer],
        routes: Sequence[Proxy],
        proxy: Proxy,
        history: History,
    ) -> None:
        self._cluster = cluster
        self._routes = routes
        self._proxy = proxy
        self._random = random.Random(f"{history.seed} NATS")
        self.kinds: list[Callable[[], Awaitable[None]]] = [
            self._kill_a_server,
            self._freeze_a_server,
            self._kill_all_servers,
            self._freeze_all_servers,
            self._part_the_servers,
            self._cut_the_servers_apart,
            self._freeze_the_link_to_nats,
            self._deafen_the_link_to_nats,
            self._reset_the_link_to_nats,
            self._delay_the_link_to_nats,
        ]
        self.first = [
            self._kill_a_server,
            self._freeze_a_server,
            self._part_the_servers,
            self._freeze_the_link_to_nats,
        ]

    async def _kill_a_server(self) -> None:
        server = self._random.choice(self._cluster)
        await server.kill()
        await self._wait()
        await server.start()

    async def _freeze_a_server(self) -> None:
        server = self._random.choice(self._cluster)
        server.freeze()
        await self._wait()
        server.thaw()

    async def _kill_all_servers(self) -> None:
        for server in self._cluster:
            await server.kill()
        await self._wait()
        for server in self._cluster:
            await server.start()

    async def _freeze_all_servers(self) -> None:
        for server in self._cluster:
            server.freeze()
        await self._wait()
        for server in self._cluster:
            server.thaw()

    async def _part_the_servers(self) -> None:
        """They stay connected, and nothing passes from one to another."""
        for route in self._routes:
            route.freeze()
        await self._wait()
        for route in self._routes:
            route.thaw()

    async def _cut_the_servers_apart(self) -> None:
        for route in self._routes:
            route.refuse()
            await route.cut()
        await self._wait()
        for route in self._routes:
            await route.accept()

    async def _freeze_the_link_to_nats(self) -> None:
        self._proxy.freeze()
        await self._wait()
        self._proxy.thaw()

    async def _deafen_the_link_to_nats(self) -> None:
        self._proxy.one_way()
        await self._wait()
        self._proxy.thaw()

    async def _reset_the_link_to_nats(self) -> None:
        for _ in range(3):
            await self._proxy.reset()
            await asyncio.sleep(self._random.uniform(0, 0.5))

    async def _delay_the_link_to_nats(self) -> None:
        self._proxy.delay(self._random.choice((0.02, 0.5)))
        await self._wait()
        self._proxy.delay(0)

    async def _wait(self) -> None:
        """Waits for less time than a node takes to leave NATS, for a little more, or for much more."""
        await asyncio.sleep(self._random.choice((0.2, 1, 3, 6)))
