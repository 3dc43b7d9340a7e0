"""A real NATS server in a separate process, which a test may freeze, kill and start again."""

from __future__ import annotations

import asyncio
import signal
import sysconfig
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from nats.aio.client import PING_PROTO, Client

from tests.ports import free_port
from tests.proxy import Proxy
from tests.waiting import until_accepting

PROGRAM = Path(sysconfig.get_path("scripts"), "nats-server")


class NatsServer:
    """One server. `options` are lines of its configuration file; `url` is without any user."""

    def __init__(self, place: Path, options: str = "", scheme: str = "nats") -> None:
        self.port = free_port()
        self.url = f"{scheme}://127.0.0.1:{self.port}"
        self._place = place
        self._options = options
        self._log = place / f"nats-{self.port}.log"
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Returns when it takes connections; also again after its end, on the same port."""
        configuration = self._place / f"nats-{self.port}.conf"
        configuration.write_text(f"listen: 127.0.0.1:{self.port}\n{self._options}\n")
        with self._log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                PROGRAM,
                "-c",
                configuration,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        await until_accepting(self._process, self.port, self.log)

    @property
    def process(self) -> asyncio.subprocess.Process:
        assert self._process is not None, "it has not been started"
        return self._process

    def freeze(self) -> None:
        """Stops it without closing anything."""
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    async def kill(self) -> None:
        self.process.kill()
        await self.process.wait()

    async def stop(self) -> None:
        """Ends it, whatever state it is in."""
        if self._process is not None and self.process.returncode is None:
            await self.kill()

    def log(self) -> str:
        """Its output so far."""
        return self._log.read_text(errors="replace") if self._log.exists() else ""


@asynccontextmanager
async def cluster_of(
    place: Path, count: int
) -> AsyncIterator[tuple[list[NatsServer], list[Proxy]]]:
    """`count` running servers of one cluster, and the proxies through which they reach one another."""
    async with AsyncExitStack() as stack:
        ports = [free_port() for _ in range(count)]
        proxies = [await stack.enter_async_context(Proxy("127.0.0.1", port)) for port in ports]
        routes = ", ".join(f"nats-route://127.0.0.1:{proxy.port}" for proxy in proxies)
        servers = [
            NatsServer(
                place,
                f"cluster {{ name: test, listen: 127.0.0.1:{port}, routes: [ {routes} ],"
                f' advertise: "127.0.0.1:{proxy.port}" }}',
            )
            for port, proxy in zip(ports, proxies, strict=True)
        ]
        for server in servers:
            stack.push_async_callback(server.stop)
            await server.start()
        yield servers, proxies


class OrderedClient(Client):
    """Sends PING behind the commands that wait: the library's own overtakes them, and `flush` returns too early."""

    async def _send_ping(self, future: asyncio.Future[bool] | None = None) -> None:
        self._pongs.append(future or asyncio.get_running_loop().create_future())
        await self._send_command(PING_PROTO)
        await self._flush_pending()


async def client_of(url: str) -> Client:
    """A client that reports its errors by exceptions only."""

    async def ignore(_: Exception) -> None: ...

    client = OrderedClient()
    await client.connect(url, error_cb=ignore, allow_reconnect=False)
    return client
