"""Processes of `notifier` that begin as copies of one that has imported everything.

A new interpreter spends half a second on imports before it does anything; a copy has them. The rest is as
for `python -m notifier`: a process group, environment, directory and output of its own. A test of the start
itself, or with `--workers`, starts an interpreter (`Service` and `run` in services.py).

This file is both sides: the tests import it, and run it as the program that is copied.
"""

from __future__ import annotations

import asyncio
import atexit
import gc
import importlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
PRELOADED = ("notifier.cli", "notifier.workers", "notifier.check.links", "uvloop")
READ_AT_START = ("GLIBC_", "LANG", "LC_", "LD_", "MALLOC_", "OPENSSL_", "PYTHON")
"""Variables that begin like this are read by the dynamic linker, libraries or the interpreter as they start."""
REQUEST_BYTES = 2**17
POLL_SECONDS = 0.01


class Forked:
    """A process, as `asyncio.subprocess.Process` is one. Its event loop may be another at each call."""

    def __init__(self, status: socket.socket) -> None:
        self._status = status
        self.pid = self._read()
        status.setblocking(False)
        self._returncode: int | None = None

    def __del__(self) -> None:
        """A process that was killed and not waited for must not fail a later test by a ResourceWarning."""
        self._status.close()

    @property
    def returncode(self) -> int | None:
        """The exit status; negative: the signal that ended it. None while it runs."""
        if self._returncode is None:
            with suppress(BlockingIOError):
                self._returncode = self._read()
                self._status.close()
        return self._returncode

    def _read(self) -> int:
        data = self._status.recv(4)
        assert data, "the fork server has ended"
        return int.from_bytes(data, "little", signed=True)

    async def wait(self) -> int:
        """Waits for its end; returns the exit status."""
        while self.returncode is None:  # noqa: ASYNC110 - it belongs to no event loop
            await asyncio.sleep(POLL_SECONDS)
        assert self.returncode is not None
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.returncode is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def _read_at_start(environ: Mapping[str, str]) -> dict[str, str]:
    return {
        name: value
        for name, value in environ.items()
        if name.startswith(READ_AT_START) and name != "PYTHONPATH"
    }


OWN = _read_at_start(os.environ)


def fits(environ: Mapping[str, str]) -> bool:
    """Whether a copy behaves like a new process in this environment."""
    return _read_at_start(environ) == OWN


def fork(
    arguments: Sequence[str],
    place: Path,
    environ: Mapping[str, str],
    stdout: int,
    stderr: int | None = None,
) -> Forked:
    """Starts `notifier` with these arguments; its outputs are these files. stderr None: as stdout."""
    status, remote = socket.socketpair()
    request = json.dumps([list(arguments), str(place), dict(environ)]).encode()
    files = [remote.fileno(), stdout, stdout if stderr is None else stderr]
    with remote:
        socket.send_fds(_server(), [request], files)
    return Forked(status)


async def fork_piped(
    arguments: Sequence[str], place: Path, environ: Mapping[str, str]
) -> tuple[Forked, asyncio.StreamReader, asyncio.StreamReader]:
    """The same with readers of its stdout and stderr."""
    out, err = os.pipe(), os.pipe()
    process = fork(arguments, place, environ, out[1], err[1])
    for _, theirs in (out, err):
        os.close(theirs)
    return process, await _reader(out[0]), await _reader(err[0])


async def _reader(pipe: int) -> asyncio.StreamReader:
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(pipe, "rb", buffering=0)
    )
    return reader


@cache
def _server() -> socket.socket:
    """The connection to the fork server of this process, which ends with it."""
    control, remote = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with remote:
        process = subprocess.Popen(
            [sys.executable, __file__, str(remote.fileno())],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            pass_fds=[remote.fileno()],
            start_new_session=True,
        )

    def end() -> None:
        control.close()
        process.wait()

    atexit.register(end)
    return control


# --- the program


def serve(control: socket.socket) -> list[str]:
    """Forks a child for each request. Returns in each child, with the arguments of its request."""
    woken, wake = socket.socketpair()
    for each in (woken, wake):
        each.setblocking(False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wake.fileno())
    children: dict[int, socket.socket] = {}
    while True:
        for ready in select.select([control, woken], [], [])[0]:
            if ready is woken:
                with suppress(BlockingIOError):
                    woken.recv(4096)
                _report(children)
                continue
            request, files, _, _ = socket.recv_fds(control, REQUEST_BYTES, 3)
            if not request:
                for pid in children:
                    with suppress(ProcessLookupError):
                        os.killpg(pid, signal.SIGKILL)
                os._exit(0)
            status = socket.socket(fileno=files[0])
            pid = os.fork()
            if pid == 0:
                for each in (control, woken, wake, *children.values()):
                    each.close()
                return _become(json.loads(request), status, *files[1:])
            for file in files[1:]:
                os.close(file)
            children[pid] = status


def _report(children: dict[int, socket.socket]) -> None:
    """Sends the exit status of each child that ended."""
    while children:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid == 0:
            return
        with children.pop(pid) as remote, suppress(OSError):
            remote.send(os.waitstatus_to_exitcode(status).to_bytes(4, "little", signed=True))


def _become(request: Any, status: socket.socket, stdout: int, stderr: int) -> list[str]:
    """Gives this child what `exec` would have given it, and sends its process id. Returns the arguments."""
    arguments, place, environ = request
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.setsid()
    os.chdir(place)
    os.environ.clear()
    os.environ.update(environ)
    time.tzset()
    os.dup2(stdout, 1)
    os.dup2(stderr, 2)
    os.close(stdout)
    os.close(stderr)
    with status:
        status.send(os.getpid().to_bytes(4, "little"))
    return list(arguments)


if __name__ == "__main__":
    for name in PRELOADED:
        importlib.import_module(name)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    gc.collect()
    gc.freeze()  # a collection in a child would write to every object, and so copy its page
    sys.argv = ["notifier", *serve(socket.socket(fileno=int(sys.argv[1])))]
    importlib.import_module("notifier.cli").main()
