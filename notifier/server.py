"""Runs a node under uvicorn: sockets, TLS, signals, the drain, several workers."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import multiprocessing
import os
import resource
import signal
import socket
import ssl
from collections.abc import Callable, Iterator
from multiprocessing.context import SpawnProcess
from pathlib import Path

import structlog
import uvicorn

from notifier import logs
from notifier.errors import NotifierError, SettingsError
from notifier.node import Node
from notifier.settings import Settings
from notifier.transport.http_guard import REQUEST_SECONDS, GuardedHttp
from notifier.transport.websocket import MESSAGE_BYTES, Options, WebSocketProtocol

BACKLOG = 4096
EXIT_SECONDS = 28.0
CERTIFICATE_SECONDS = 10.0

Socket = socket.socket

GC_ALLOCATIONS = 50_000
"""Python looks for reference cycles after 700 new objects: in a batch of thousands, again and again."""

_log = structlog.get_logger("notifier")


class _Server(uvicorn.Server):
    """uvicorn's server without its signals: it closes every socket at once."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """As uvicorn's, with a deadline for the TLS handshake: left to itself, it may take 60 s."""
        config = self.config

        def protocol() -> GuardedHttp:
            return GuardedHttp(config, self.server_state, app_state={})

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


def configuration(settings: Settings, app: object) -> uvicorn.Config:
    """How uvicorn is set up. Raises SettingsError for a certificate that cannot be read."""
    options = Options(settings.max_buffer_bytes, settings.deflate)
    config = uvicorn.Config(
        app,  # type: ignore[arg-type]  # Starlette's ASGI types are not uvicorn's
        http=GuardedHttp,
        ws=WebSocketProtocol.configured(options),
        ws_max_size=MESSAGE_BYTES,
        ws_ping_interval=settings.ping_seconds,
        ws_ping_timeout=settings.ping_seconds,
        ws_per_message_deflate=False,
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=settings.trusted_proxies is not None,
        forwarded_allow_ips=list(settings.trusted_proxies or ()),
        timeout_graceful_shutdown=3,
        ssl_certfile=settings.ssl_certfile,
        ssl_keyfile=settings.ssl_keyfile,
    )
    try:
        config.load()
    except (ssl.SSLError, OSError) as error:
        raise SettingsError(f"NOTIFIER_SSL_CERTFILE: cannot be used: {error}") from error
    if config.ssl is not None:
        config.ssl.minimum_version = ssl.TLSVersion.TLSv1_2
    return config


def bind(host: str, port: int) -> socket.socket:
    """A listening socket. Raises NotifierError, in one line, where the port is taken."""
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
        raise NotifierError(f"cannot listen on {host}:{port}: {why}") from error
    return listening


async def serve(
    node: Node, settings: Settings, sockets: list[socket.socket], ready: Callable[[], None]
) -> None:
    """Serves until SIGTERM or SIGINT, then drains. A second signal ends it at once."""
    loop = asyncio.get_running_loop()
    asked = asyncio.Event()

    def stop() -> None:
        if asked.is_set():
            server.should_exit = server.force_exit = True
        asked.set()

    for name in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(name, stop)
    supervisor = multiprocessing.parent_process()
    if supervisor is not None:  # when it is killed, nobody else ends its workers
        loop.add_reader(supervisor.sentinel, asked.set)
    config = configuration(settings, node.app())
    server = _Server(config)
    tasks = [
        asyncio.create_task(node.run(), name="node"),
        asyncio.create_task(server.serve(sockets=sockets), name="server"),
        asyncio.create_task(asked.wait(), name="signal"),
        asyncio.create_task(_certificates(settings, config.ssl), name="certificates"),
    ]
    status: _Server | None = None
    if settings.status_port is not None or settings.status_host is not None:
        own = bind(settings.status_host or settings.host, settings.status_port or settings.port)
        status = _Server(
            uvicorn.Config(
                node.status_app(), lifespan="off", log_config=None, access_log=False, ws="none"
            )
        )
        tasks.append(asyncio.create_task(status.serve(sockets=[own]), name="status"))
    ready()
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        if supervisor is not None:
            loop.remove_reader(supervisor.sentinel)
        for task in done:
            if task.get_name() != "signal" and not task.cancelled():
                raise NotifierError(f"{task.get_name()} ended: {task.exception()!r}")
        async with asyncio.timeout(EXIT_SECONDS):
            tasks.append(asyncio.create_task(node.drain(), name="drain"))
            # A second signal ends the server in the middle of it.
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


async def _certificates(settings: Settings, context: ssl.SSLContext | None) -> None:
    """A renewed certificate is taken without a restart: at SIGHUP, or soon after it was written."""
    certfile, keyfile = settings.ssl_certfile, settings.ssl_keyfile
    hup = asyncio.Event()
    if hasattr(signal, "SIGHUP"):
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, hup.set)
    if context is None or certfile is None or keyfile is None:
        await asyncio.Event().wait()
        return
    seen = _stamp(certfile, keyfile)
    while True:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CERTIFICATE_SECONDS):
                await hup.wait()
        now = _stamp(certfile, keyfile)
        if now == seen and not hup.is_set():
            continue
        hup.clear()
        try:
            context.load_cert_chain(certfile, keyfile)
            seen = now
            _log.info("certificate taken anew")
        except (OSError, ssl.SSLError) as error:
            _log.error("certificate cannot be used, the old one stays", error=str(error))


def _stamp(*paths: Path) -> tuple[float, ...]:
    return tuple(path.stat().st_mtime if path.exists() else 0.0 for path in paths)


def run(settings: Settings, workers: int, ready: Callable[[str], None]) -> None:
    """`notifier serve`. Returns after a drain; raises NotifierError."""
    raise_file_limit()
    Node(settings)  # wrong settings are said before a socket is opened
    listening = bind(settings.host, settings.port)
    host, port = listening.getsockname()[:2]
    scheme = "wss" if settings.ssl_certfile else "ws"
    address = f"{scheme}://{host}:{port}/"
    if workers == 1:
        runner()(_one(settings, [listening], lambda: ready(address)))
        return
    ready(address)
    asyncio.run(_supervise(settings, listening, workers))


async def _supervise(settings: Settings, listening: socket.socket, workers: int) -> None:
    """Keeps so many processes on one socket, each a node of its own; a dead one is replaced."""
    loop = asyncio.get_running_loop()
    asked = asyncio.Event()
    spawn = multiprocessing.get_context("spawn")
    processes: set[SpawnProcess] = set()

    def stop() -> None:
        asked.set()
        for process in processes:
            process.terminate()

    def reread() -> None:
        for process in processes:
            if process.pid is not None:
                os.kill(process.pid, signal.SIGHUP)

    for name in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(name, stop)
    loop.add_signal_handler(signal.SIGHUP, reread)

    async def keep() -> None:
        while not asked.is_set():
            process = spawn.Process(target=_work, args=(settings, listening))
            process.start()
            processes.add(process)
            ended = asyncio.Event()
            loop.add_reader(process.sentinel, ended.set)
            await ended.wait()
            loop.remove_reader(process.sentinel)
            process.join()
            processes.discard(process)
            if not asked.is_set():
                _log.error("a worker ended", status=process.exitcode)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(1):
                        await asked.wait()

    async with asyncio.TaskGroup() as tasks:
        for _ in range(workers):
            tasks.create_task(keep())


def _work(settings: Settings, listening: socket.socket) -> None:
    """What a worker process runs."""
    logs.set_up(settings.log_level, settings.log_format)
    runner()(_one(settings, [listening], lambda: None))


async def _one(settings: Settings, sockets: list[socket.socket], ready: Callable[[], None]) -> None:
    gc.set_threshold(GC_ALLOCATIONS)
    await serve(Node(settings), settings, sockets, ready)


def runner() -> Callable[..., None]:
    """uvloop's `run` where there is one."""
    try:
        import uvloop
    except ImportError:
        return asyncio.run
    return uvloop.run


def raise_file_limit() -> None:
    """A socket is an open file; the usual limit of 1,024 is not meant for servers."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = hard if hard != resource.RLIM_INFINITY else 1_000_000
    if soft < wanted:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
