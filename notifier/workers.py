"""Several worker processes on one listening socket: `notifier serve --workers N`.

Written here because uvicorn's supervisor ends workers in the middle of their drain.
"""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import os
import shutil
import signal
import socket
import stat
import tempfile
from collections.abc import Callable
from multiprocessing.context import SpawnProcess
from pathlib import Path

import structlog

from notifier import logs, metrics, server, systemd
from notifier.node import Node
from notifier.settings import Settings

RESTART_SECONDS = 1.0
"""How long after its end a worker is replaced."""

DIRECTORY_PREFIX = "notifier-metrics-"

_log = structlog.get_logger("notifier.workers")


def run(settings: Settings, workers: int, ready: Callable[[str], None]) -> None:
    """Runs the workers until SIGTERM or SIGINT. Raises NotifierError before the first one starts."""
    server.raise_file_limit()
    Node(settings)  # raises SettingsError before a socket is bound
    listening = server.bind(settings.host, settings.port)
    status = server.bind_status(settings)
    ready(server.address(settings, listening))
    directory = tempfile.mkdtemp(prefix=DIRECTORY_PREFIX)
    asyncio.run(_supervise(settings, listening, status, workers, directory))


async def _supervise(
    settings: Settings,
    listening: socket.socket,
    status: socket.socket | None,
    workers: int,
    directory: str,
) -> None:
    """Keeps `workers` processes running; each is a node of its own. One that ended is replaced."""
    loop = asyncio.get_running_loop()
    stopping = asyncio.Event()
    spawn = multiprocessing.get_context("spawn")
    processes: set[SpawnProcess] = set()

    def stop() -> None:
        stopping.set()
        systemd.report(systemd.STOPPING)
        for process in processes:
            process.terminate()

    def reload_certificates() -> None:
        for process in processes:
            if process.pid is not None:
                os.kill(process.pid, signal.SIGHUP)

    for name in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(name, stop)
    loop.add_signal_handler(signal.SIGHUP, reload_certificates)

    async def keep_running() -> None:
        nonlocal directory
        while not stopping.is_set():
            directory = kept(directory)
            # For the workers: this process has no metrics.
            os.environ[metrics.DIRECTORY] = directory
            process = spawn.Process(target=_work, args=(settings, listening, status))
            # SIGHUP would end a worker that has no handler yet: it waits until there is one.
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
            try:
                process.start()
            finally:
                signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGHUP})
            processes.add(process)
            ended = asyncio.Event()
            loop.add_reader(process.sentinel, ended.set)
            await ended.wait()
            loop.remove_reader(process.sentinel)
            process.join()
            processes.discard(process)
            if process.pid is not None:
                metrics.drop_process(process.pid, directory)
            if not stopping.is_set():
                _log.error("a worker ended", status=process.exitcode)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(RESTART_SECONDS):
                        await stopping.wait()

    alive = asyncio.create_task(systemd.keep_alive(), name="watchdog")
    try:
        async with asyncio.TaskGroup() as tasks:
            for _ in range(workers):
                tasks.create_task(keep_running())
    finally:
        alive.cancel()
        shutil.rmtree(directory, ignore_errors=True)


def kept(directory: str) -> str:
    """The directory of the metrics, which is made again where a cleaner of /tmp has removed it: no worker starts without.

    Another one where its name leads to the directory of another user. The same where none can be made now, as on a full disk.
    """
    try:
        with contextlib.suppress(FileExistsError):
            Path(directory).mkdir(0o700)
        found = os.lstat(directory)
        if stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid():
            return directory
        return tempfile.mkdtemp(prefix=DIRECTORY_PREFIX)
    except OSError as error:
        _log.error("the directory of the metrics cannot be made", error=str(error))
        return directory


def _work(settings: Settings, listening: socket.socket, status: socket.socket | None) -> None:
    """The main function of a worker process."""
    systemd.leave_to_parent()
    logs.set_up(settings.log_level, settings.log_format)
    server.run_node(settings, [listening], lambda: None, status)
