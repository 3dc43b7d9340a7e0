"""`notifier serve` in a separate process, and tokens that it accepts."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import jwt

from tests import forkserver
from tests.ports import free_port
from tests.waiting import DEADLINE_SECONDS, until

SECRET = "a secret of the tests that is long enough"
ROOT = Path(__file__).parents[1]
READY_SECONDS = 60.0
GONE_SECONDS = 35.0
"""A little more than the 30 seconds that a drain may take."""


def token(
    user: str, companies: Sequence[str] | None = None, ttl: float = 3600, **claims: Any
) -> str:
    """A token for `user` that expires in `ttl` seconds, which may be negative."""
    payload: dict[str, Any] = {"sub": user, "exp": time.time() + ttl, **claims}
    if companies is not None:
        payload["companies"] = list(companies)
    return jwt.encode(payload, SECRET, algorithm="HS256")


def environment(settings: dict[str, object]) -> dict[str, str]:
    """Ours, with these settings of Notifier and no others."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("NOTIFIER_")}
    given = {f"NOTIFIER_{name.upper()}": str(value) for name, value in settings.items()}
    return kept | given | {"PYTHONPATH": str(ROOT)}


async def run(place: Path, *arguments: str, **settings: object) -> tuple[int, str]:
    """Runs a command of Notifier to its end; returns the exit status and the output."""
    with tempfile.TemporaryFile() as output:
        process = await start(arguments, place, environment(settings), output.fileno())
        try:
            async with asyncio.timeout(DEADLINE_SECONDS):
                status = await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()
            raise AssertionError(f"notifier {arguments[0]} still runs") from None
        output.seek(0)
        return status, output.read().decode()


Process = asyncio.subprocess.Process | forkserver.Forked

WORKERS = "--workers"
"""The option with which a node has further processes."""

INTERPRETED = "NOTIFIER_TEST_INTERPRETED"
"""The variable with which every process is a new interpreter (the fixture `interpreter`)."""


async def start(
    arguments: Sequence[str], place: Path, environ: dict[str, str], output: int
) -> Process:
    """Starts `notifier` in a session of its own; stdout and stderr are the file `output`.

    It is a fork of a process that has imported everything. With `--workers`, which starts interpreters itself, and
    with variables that are read only at the start of an interpreter, it is a new one.
    """
    forks = WORKERS not in arguments and forkserver.fits(environ)
    if forks and INTERPRETED not in os.environ:
        return forkserver.fork(arguments, place, environ, output)
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "notifier",
        *arguments,
        cwd=place,
        env=environ,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        start_new_session=True,
    )


class Service:
    """One `notifier serve`. `url` is its WebSocket address, `http` that of its pages.

    `settings` are those of the README in lower case: `ping_seconds=1` is NOTIFIER_PING_SECONDS=1.
    """

    def __init__(
        self, place: Path, database_url: str, arguments: Sequence[str], settings: dict[str, object]
    ) -> None:
        self.port = free_port()
        self.url = f"ws://127.0.0.1:{self.port}/"
        self.http = f"http://127.0.0.1:{self.port}"
        self._place = place
        self._log = place / f"serve-{self.port}.log"
        self._arguments = ["serve", "--host", "127.0.0.1", "--port", str(self.port), *arguments]
        self._environment = environment(
            {"database_url": database_url, "jwt_secret": SECRET, **settings}
        )
        self._process: Process | None = None

    async def start(self) -> None:
        """Starts it, also again after its end: on the same port, with the same log."""
        with self._log.open("ab") as log:
            self._process = await start(
                self._arguments, self._place, self._environment, log.fileno()
            )

    async def ready(self) -> None:
        """Returns when `/readyz` answers 200. Raises AssertionError with the log if it ends before."""

        async def answers() -> bool:
            assert self.process.returncode is None, f"it ended:\n{self.log()}"
            with suppress(httpx.TransportError):
                return (await self.get("/readyz")).is_success
            return False

        try:
            await until(answers, READY_SECONDS, every=0.05)
        except TimeoutError:
            raise AssertionError(f"not ready in {READY_SECONDS} s:\n{self.log()}") from None

    async def get(self, path: str) -> httpx.Response:
        """A page of it. Over TLS, its certificate is not checked."""
        # A client that verifies certificates reads 140 of them, for 30 ms: this is a polled call.
        client = httpx.AsyncClient(trust_env=False, timeout=DEADLINE_SECONDS, verify=False)
        async with client:
            return await client.get(self.http + path)

    @property
    def process(self) -> Process:
        assert self._process is not None, "it has not been started"
        return self._process

    @property
    def pid(self) -> int:
        return self.process.pid

    def send(self, number: signal.Signals) -> None:
        """Sends a signal, for example SIGSTOP and SIGCONT to freeze and thaw it."""
        self.process.send_signal(number)

    def terminate(self) -> None:
        """Sends SIGTERM; `ended` waits for the exit."""
        self.process.terminate()

    def kill(self) -> None:
        """Sends SIGKILL, also to its workers."""
        self._signal_all(signal.SIGKILL)

    async def ended(self) -> int:
        """Waits for its end; returns the exit status."""
        async with asyncio.timeout(GONE_SECONDS):
            return await self.process.wait()

    async def stop(self) -> None:
        """Ends it and every process that it started, gracefully if possible."""
        if self._process is None:
            return
        if self.process.returncode is None:
            self._signal_all(signal.SIGCONT)
            self.terminate()
            with suppress(TimeoutError):
                await self.ended()
        # Not the group of one that has ended alone: its number may be that of another process by now.
        if self.process.returncode is None or WORKERS in self._arguments:
            self._signal_all(signal.SIGKILL)
        await self.process.wait()

    def log(self) -> str:
        """Its output so far."""
        return self._log.read_text(errors="replace") if self._log.exists() else ""

    def _signal_all(self, number: signal.Signals) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self.pid, number)
