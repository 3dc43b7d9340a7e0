"""Serves a node with uvicorn: listening sockets, TLS, signals and the drain."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import multiprocessing
import resource
import signal
import socket
import ssl
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from ipaddress import IPv4Network, ip_network
from typing import Any, cast

import structlog
import uvicorn

from notifier import certificates, systemd
from notifier.commands import MESSAGE_BYTES
from notifier.errors import NotifierError, SettingsError
from notifier.node import Node
from notifier.settings import Settings
from notifier.transport.http_guard import REQUEST_SECONDS, GuardedHttp
from notifier.transport.keepalive import Keepalive
from notifier.transport.refusals import Refusals
from notifier.transport.websocket import Options, WebSocketProtocol

BACKLOG = 4096
EXIT_SECONDS = 28.0
"""How long a drain may take: the process ends within 30 s of SIGTERM."""

Socket = socket.socket

GC_ALLOCATIONS = 50_000
"""Python's default looks for reference cycles after every 700 new objects, many times in one batch."""

_log = structlog.get_logger("notifier")


class _Server(uvicorn.Server):
    """uvicorn's server without its signal handlers, which close every socket at once."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Like uvicorn's, with a deadline for the TLS handshake, which is 60 s by default."""
        config = self.config

        # uvicorn declares the class as any asyncio.Protocol, which takes no arguments.
        http_protocol = cast("Callable[..., asyncio.Protocol]", config.http_protocol_class)
        protocol = partial(
            http_protocol, config=config, server_state=self.server_state, app_state={}
        )

        self.servers = [
            await asyncio.get_running_loop().create_server(
                protocol,
                sock=each,
                ssl=config.ssl,
                ssl_handshake_timeout=REQUEST_SECONDS if config.ssl else None,
                backlog=config.backlog,
            )
            for each in sockets or ()
        ]
        self.started = True

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def configuration(
    settings: Settings, app: Callable[..., Any], refusals: Refusals
) -> uvicorn.Config:
    """The configuration of uvicorn. Raises SettingsError for a certificate that cannot be read."""
    keepalive = Keepalive(settings.ping_seconds)
    options = Options(refusals, keepalive, settings.max_buffer_bytes, settings.deflate)
    config = uvicorn.Config(
        app,
        http=GuardedHttp.configured(refusals),
        ws=WebSocketProtocol.configured(options),
        ws_max_size=MESSAGE_BYTES,
        ws_per_message_deflate=False,
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=settings.trusted_proxies is not None,
        forwarded_allow_ips=_peers(settings.trusted_proxies or ()),
        timeout_graceful_shutdown=3,
        ssl_certfile=settings.ssl_certfile,
        ssl_keyfile=settings.ssl_keyfile,
    )
    certfile, keyfile = settings.ssl_certfile, settings.ssl_keyfile
    try:
        if certfile is None or keyfile is None:
            config.load()
        else:  # before uvicorn loads the key: for an encrypted one OpenSSL would prompt
            context = certificates.RenewableContext.load(certfile, keyfile)
            config.load()
            config.ssl = context
    except (ssl.SSLError, OSError) as error:
        raise SettingsError(f"NOTIFIER_SSL_CERTFILE: cannot be used: {error}") from error
    return config


def _peers(networks: Sequence[str]) -> list[str]:
    """The networks, and the addresses that those of IPv4 have on a socket of IPv6 (RFC 4291, 2.5.5.2)."""
    given = [ip_network(text, strict=False) for text in networks]
    mapped = [
        f"::ffff:{network.network_address}/{96 + network.prefixlen}"
        for network in given
        if isinstance(network, IPv4Network)
    ]
    return [*networks, *mapped]


def bind(host: str, port: int) -> socket.socket:
    """A listening socket. Raises NotifierError, in one line, where the address is in use or not ours."""
    try:
        family, kind, proto, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listening = socket.socket(family, kind, proto)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if hasattr(socket, "TCP_USER_TIMEOUT"):  # accepted sockets inherit it
            listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 40_000)
        listening.bind(address)
        listening.listen(BACKLOG)
        listening.setblocking(False)
    except (OSError, UnicodeError) as error:
        why = getattr(error, "strerror", None) or error
        where = f"[{host}]" if ":" in host else host
        raise NotifierError(f"cannot listen on {where}:{port}: {why}") from error
    return listening


def bind_status(settings: Settings) -> socket.socket | None:
    """The listening socket of STATUS_HOST and STATUS_PORT; None where neither is set."""
    if settings.status_port is None and settings.status_host is None:
        return None
    return bind(settings.status_host or settings.host, settings.status_port or settings.port)


async def serve(
    node: Node,
    settings: Settings,
    sockets: list[socket.socket],
    ready: Callable[[], None],
    status_socket: socket.socket | None = None,
) -> None:
    """Serves until SIGTERM or SIGINT, then drains. A second signal ends it at once."""
    loop = asyncio.get_running_loop()
    stopping = asyncio.Event()

    def stop() -> None:
        if stopping.is_set():
            server.should_exit = server.force_exit = True
        stopping.set()

    for name in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(name, stop)
    supervisor = multiprocessing.parent_process()
    if supervisor is not None:  # a supervisor that is killed cannot end its workers
        loop.add_reader(supervisor.sentinel, stopping.set)
    config = configuration(settings, node.app(), node.refusals)
    server = _Server(config)
    tasks = [
        asyncio.create_task(node.run(), name="node"),
        asyncio.create_task(server.serve(sockets=sockets), name="server"),
        asyncio.create_task(stopping.wait(), name="signal"),
        asyncio.create_task(systemd.keep_alive(), name="watchdog"),
        asyncio.create_task(
            certificates.reload_renewed(config.ssl, settings.ssl_certfile, settings.ssl_keyfile),
            name="certificates",
        ),
    ]
    status: _Server | None = None
    if status_socket is not None:
        status = _Server(
            uvicorn.Config(
                node.status_app(),
                http=GuardedHttp.configured(node.refusals),
                lifespan="off",
                log_config=None,
                access_log=False,
                ws="none",
            )
        )
        tasks.append(asyncio.create_task(status.serve(sockets=[status_socket]), name="status"))
    ready()
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        systemd.report(systemd.STOPPING)
        if supervisor is not None:
            loop.remove_reader(supervisor.sentinel)
        for task in done:
            if task.get_name() != "signal" and not task.cancelled():
                raise NotifierError(f"{task.get_name()} ended: {task.exception()!r}")
        async with asyncio.timeout(EXIT_SECONDS):
            tasks.append(asyncio.create_task(node.drain(), name="drain"))
            # A second signal ends the server during the drain.
            await asyncio.wait({tasks[1], tasks[-1]}, return_when=asyncio.FIRST_COMPLETED)
            server.should_exit = True
            await tasks[1]
    except TimeoutError:
        _log.warning("the drain took too long")
    finally:
        if status is not None:
            status.should_exit = True
            await asyncio.wait([task for task in tasks if task.get_name() == "status"], timeout=1)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def run(settings: Settings, ready: Callable[[str], None]) -> None:
    """`notifier serve` in one process. Returns after the drain. Raises NotifierError."""
    raise_file_limit()
    Node(settings)  # raises SettingsError before a socket is bound
    listening, status = bind(settings.host, settings.port), bind_status(settings)
    run_node(settings, [listening], lambda: ready(address(settings, listening)), status)


def run_node(
    settings: Settings,
    sockets: list[socket.socket],
    ready: Callable[[], None],
    status_socket: socket.socket | None,
) -> None:
    """Runs a node in an event loop of its own until its drain is over."""

    async def main() -> None:
        gc.set_threshold(GC_ALLOCATIONS)
        gc.freeze()  # what was imported lives as long as the process: a full collection need not visit it
        await serve(Node(settings), settings, sockets, ready, status_socket)

    runner()(main())


def address(settings: Settings, listening: socket.socket) -> str:
    """The URL of a listening socket."""
    host, port = listening.getsockname()[:2]
    if ":" in host:  # IPv6 (RFC 3986, section 3.2.2)
        host = f"[{host}]"
    scheme = "wss" if settings.ssl_certfile else "ws"
    return f"{scheme}://{host}:{port}{settings.root_path}/"


def runner() -> Callable[..., None]:
    """uvloop's `run` where uvloop is installed, otherwise asyncio's."""
    try:
        import uvloop
    except ImportError:
        return asyncio.run
    return uvloop.run


def raise_file_limit() -> None:
    """Raises the limit of open files; each connection is one, and 1,024 is a common default."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = hard if hard != resource.RLIM_INFINITY else 1_000_000
    if soft < wanted:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
