"""An embedded PostgreSQL server for `notifier demo` and the tests.

Under its directory:

    cluster/      the data, made by initdb
    server.log    the server's log
    port          the port of the last start, so that the address stays the same

The server is a child process with a guard beside it (`programs.guard`).
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

from notifier.demo.programs import (
    VARIABLE,
    Account,
    EmbeddedPostgresError,
    account_for,
    binaries,
    dismiss,
    environment,
    guard,
    run,
    runnable,
    start,
)

HOST = "127.0.0.1"
START_SECONDS = 120.0
"""How long a start may take, including recovery after a crash."""
STOP_SECONDS = 30.0
LEAVING_SECONDS = 5.0
"""How long a server on the same directory may take to stop before it counts as another one's."""

_POLL_SECONDS = 0.01
# PostgreSQL's own, the same on every system.
_UNICODE = ("--locale-provider=builtin", "--builtin-locale=C.UTF-8")
_UNICODE_SINCE = 17
_STATUS_LINE = 7  # of `postmaster.pid`, counted from 0


def default_directory() -> Path:
    """The default directory of the data, which the server's user can reach."""
    if os.geteuid() == 0:
        return Path("/var/lib/notifier")
    data = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(data) / "notifier"


class EmbeddedPostgres:
    """One PostgreSQL server on 127.0.0.1 that lives no longer than this process.

    Every user of this machine may connect as its superuser `postgres`, without a password.

        with EmbeddedPostgres(Path("data")) as server:
            print(server.dsn())

    `port` 0 means the port of the last start if it is free, otherwise any. `options` are settings
    of PostgreSQL. Without `durable` a power cut may destroy the data; a killed server still loses
    nothing. Started by root, the server runs as the owner of `cluster/`. All methods raise
    EmbeddedPostgresError.
    """

    def __init__(
        self,
        data: Path,
        programs: Path | None = None,
        port: int = 0,
        options: Mapping[str, str] | None = None,
        durable: bool = True,
    ) -> None:
        self.data = data.absolute()
        self.log = self.data / "server.log"
        self._cluster = self.data / "cluster"
        self._programs = programs
        self._wanted_port = port
        self._port: int | None = None
        self._options = dict(options or {})
        self._durable = durable
        self._log_offset = 0
        self._server: subprocess.Popen[bytes] | None = None
        self._guard: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Starts the server, after `initdb` if there is no cluster yet; returns when it is ready.

        Waits for a server on the same directory that is about to stop. One that another process
        keeps running is an error.
        """
        if self._server is not None and self._server.poll() is None:
            raise EmbeddedPostgresError(f"the PostgreSQL of {self.data} has been started already")
        self._forget()
        try:
            with self._claimed() as claim:
                account = account_for(self._cluster)
                programs, major = runnable(self._programs or binaries(), account)
                self._create(programs, major, account, claim)
                self._port = self._choose_port()  # at last: another program may take it meanwhile
                self._launch(programs, account, claim)
                self._programs = programs
            self._await_ready()
        except OSError as error:
            self.stop()
            place = error.filename or self.data
            raise EmbeddedPostgresError(f"cannot use {place}: {error.strerror}") from error
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Stops the server and closes its connections. Does nothing if it is not running."""
        if self._server is not None:
            self._end(self._server)

    def kill(self) -> None:
        """Ends the server as a crash would: SIGKILL, nothing flushed.

        Waits until its other processes have noticed and ended: until then they still answer.
        """
        if self._server is not None:
            self._server.kill()
            self._server.wait()
            self._forget()
            with self._claimed(STOP_SECONDS):
                pass

    def dsn(self, database: str = "postgres") -> str:
        """The URL of a database."""
        return f"postgresql://postgres@{HOST}:{self.port}/{database}"

    def program(self, name: str) -> Path:
        """The path of `psql`, `pg_dump` or another program of the server's version."""
        return (self._programs or binaries()) / name

    @property
    def pid(self) -> int:
        """The process id of the postmaster."""
        if self._server is None:
            raise EmbeddedPostgresError(f"the PostgreSQL of {self.data} does not run")
        return self._server.pid

    @property
    def port(self) -> int:
        """The port of this start, or of the last one."""
        if self._port is None:
            raise EmbeddedPostgresError(f"the PostgreSQL of {self.data} has not been started")
        return self._port

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    @contextmanager
    def _claimed(self, seconds: float | None = None) -> Iterator[int]:
        """Holds the directory's lock, a descriptor that `initdb` and the server inherit.

        `seconds`: how long it may be another's until then; None: LEAVING_SECONDS.

        So the lock lasts as long as any process of the server, even one that outlives a killed
        postmaster. The process id in `postmaster.pid` proves less: after a crash it may belong to
        another program.
        """
        if not self.data.exists():
            self.data.mkdir(parents=True)
            # The server's user has to pass; the cluster inside stays private.
            self.data.chmod(0o755)
        claim = os.open(self.data, os.O_RDONLY | os.O_DIRECTORY)
        try:
            deadline = time.monotonic() + (LEAVING_SECONDS if seconds is None else seconds)
            while not _locked(claim):
                if time.monotonic() > deadline:
                    raise EmbeddedPostgresError(
                        f"another PostgreSQL ({self._server_name()}) runs on {self.data}:"
                        " stop it, or use another directory"
                    )
                time.sleep(_POLL_SECONDS)
            yield claim
        finally:
            os.close(claim)

    def _create(self, programs: Path, major: int, account: Account, claim: int) -> None:
        """Creates the cluster if there is none, completely or not at all."""
        if self._cluster.exists():
            made_by = (self._cluster / "PG_VERSION").read_text().strip()
            if made_by != str(major):
                raise EmbeddedPostgresError(
                    f"{self._cluster} was made by PostgreSQL {made_by}, and this is {major}:"
                    f" move it away, or set {VARIABLE} to a PostgreSQL {made_by}"
                )
            return
        partial = self.data / "cluster.partial"
        if partial.exists():
            shutil.rmtree(partial)
        partial.mkdir(mode=0o700)
        if account:
            os.chown(partial, account["user"], account["group"])
        run(
            account,
            [
                str(programs / "initdb"),
                f"--pgdata={partial}",
                "--username=postgres",
                "--auth=trust",
                "--encoding=UTF8",
                "--locale=C",
                *(_UNICODE if major >= _UNICODE_SINCE else []),
                *([] if self._durable else ["--no-sync"]),
            ],
            claim,
        )
        partial.rename(self._cluster)

    def _launch(self, programs: Path, account: Account, claim: int) -> None:
        options = {
            "listen_addresses": HOST,
            "port": str(self._port),
            # No Unix socket: one address is enough, and the paths of sockets must be short.
            "unix_socket_directories": "",
            **({} if self._durable else {"fsync": "off", "full_page_writes": "off"}),
            **self._options,
        }
        settings = [word for name, value in options.items() for word in ("-c", f"{name}={value}")]
        with self.log.open("ab") as log:
            self._log_offset = log.tell()
            self._server = start(
                [str(programs / "postgres"), "-D", str(self._cluster), *settings],
                account,
                env=environment() | self._stale(),
                stdout=log,
                stderr=log,
                pass_fds=[claim],
            )
        self._guard = guard(self._server, account)
        (self.data / "port").write_text(f"{self._port}\n")

    def _choose_port(self) -> int:
        if self._wanted_port:
            return _free(self._wanted_port)
        try:
            return _free(int((self.data / "port").read_text()))
        except (FileNotFoundError, ValueError, EmbeddedPostgresError):
            return _free(0)

    def _await_ready(self) -> None:
        """Waits for the status in `postmaster.pid`, as `pg_ctl` does."""
        deadline = time.monotonic() + START_SECONDS
        while not self._is_ready():
            if self._server is None or self._server.poll() is not None:
                raise EmbeddedPostgresError(f"PostgreSQL does not start: {self._reason()}")
            if time.monotonic() > deadline:
                raise EmbeddedPostgresError(
                    f"PostgreSQL is not ready after {START_SECONDS:.0f} s: {self._reason()}"
                )
            time.sleep(_POLL_SECONDS)

    def _is_ready(self) -> bool:
        lines = self._postmaster()
        if len(lines) <= _STATUS_LINE or lines[0] != str(self.pid):
            return False
        return lines[_STATUS_LINE].strip() == "ready"

    def _postmaster(self) -> list[str]:
        """The lines of `postmaster.pid`; none if there is no such file."""
        try:
            return (self._cluster / "postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            return []

    def _server_name(self) -> str:
        """The server that runs on this directory, for a message."""
        lines = self._postmaster()
        return f"process {lines[0]}" if lines else "still starting"

    def _stale(self) -> dict[str, str]:
        """Environment that makes the server ignore the process id that a crash left behind.

        PostgreSQL refuses to start while a process with that id exists, although it may belong to
        another program by now. The lock proves that no server is running. `pg_ctl` passes an id to
        ignore in the same way. PostgreSQL's other safeguard, the shared memory of the former
        server, stays in force.
        """
        lines = self._postmaster()
        return {"PG_GRANDPARENT_PID": lines[0]} if lines else {}

    def _reason(self) -> str:
        """Why the start failed: the last fatal line of the log, otherwise the last line."""
        with self.log.open("rb") as log:
            log.seek(self._log_offset)
            lines = log.read().decode(errors="replace").splitlines()
        fatal = [line for line in lines if "FATAL:" in line or "PANIC:" in line]
        last = (fatal or lines or ["it logged nothing"])[-1]
        return re.sub(r"^.*?(FATAL|PANIC|LOG|HINT): +", "", last)

    def _end(self, server: subprocess.Popen[bytes]) -> None:
        for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGKILL):
            server.send_signal(number)
            try:
                server.wait(STOP_SECONDS)
                break
            except subprocess.TimeoutExpired:
                continue
        self._forget()

    def _forget(self) -> None:
        """Ends the guard of a server that has ended: the process id may be reused."""
        self._server = None
        if self._guard is not None:
            dismiss(self._guard)
            self._guard = None


def _free(port: int) -> int:
    """The port if it is free, or any free one for 0."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            raise EmbeddedPostgresError(
                f"cannot listen on {HOST}:{port}: {error.strerror}"
            ) from error
        chosen: int = probe.getsockname()[1]
        return chosen


def _locked(descriptor: int) -> bool:
    """Tries to take the lock."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
