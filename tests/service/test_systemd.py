"""`serve` under systemd: it reports that it listens, that it lives, and that it stops (sd_notify(3))."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from notifier import systemd
from tests.conftest import Serve
from tests.databases import Database
from tests.installed import needs
from tests.waiting import DEADLINE_SECONDS

UNIT = Path(__file__).parents[2] / "deploy" / "systemd" / "notifier.service"

needs_systemd = needs(shutil.which("systemd-analyze"), "no systemd-analyze")


@pytest.fixture
def manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """The socket on which systemd receives the states of a service."""
    path = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as received:
        received.bind(str(path))
        received.settimeout(DEADLINE_SECONDS)
        received.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        monkeypatch.setenv("NOTIFY_SOCKET", str(path))
        monkeypatch.setenv("WATCHDOG_USEC", "200000")
        yield received


async def state(manager: socket.socket) -> tuple[str, int]:
    """The next state, and the process that has sent it (unix(7), SCM_CREDENTIALS)."""
    data, ancillary, _, _ = await asyncio.to_thread(manager.recvmsg, 1000, 100)
    pid, _, _ = struct.unpack("3i", ancillary[0][2])
    return data.decode(), pid


@pytest.mark.usefixtures("interpreter")
@pytest.mark.parametrize("workers", ["1", "2"])
async def test_only_the_main_process_reports_that_it_listens_lives_and_stops(
    database: Database, serve: Serve, manager: socket.socket, workers: str
) -> None:
    service = await serve(database, "--workers", workers, ready=False)
    senders: set[int] = set()

    async def until_reported(expected: str) -> None:
        reported = ""
        while reported != expected:
            reported, pid = await state(manager)
            senders.add(pid)

    await until_reported("READY=1")
    async with httpx.AsyncClient(trust_env=False, timeout=30) as client:
        assert (await client.get(service.http + "/livez")).is_success
    for _ in range(5):
        await until_reported("WATCHDOG=1")
    service.terminate()
    await until_reported("STOPPING=1")
    assert await service.ended() == 0
    assert senders == {service.pid}


def test_states_go_to_a_socket_without_a_file_and_a_missing_one_is_ignored(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    name = f"notifier-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as received:
        received.bind("\0" + name)
        received.settimeout(10)
        monkeypatch.setenv("NOTIFY_SOCKET", f"@{name}")
        systemd.report(systemd.READY)
        assert received.recv(100) == b"READY=1"
    systemd.report(systemd.READY)
    monkeypatch.setenv("NOTIFY_SOCKET", "vsock:2:1234")
    systemd.report(systemd.READY)


@pytest.mark.parametrize(
    ("environment", "seconds"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "30000000"}, 15.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid())}, 15.0),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
    ],
)
def test_only_the_process_that_systemd_watches_shows_that_it_lives(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], seconds: float | None
) -> None:
    for name in ("WATCHDOG_USEC", "WATCHDOG_PID"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert systemd.interval() == seconds


@needs_systemd
def test_systemd_accepts_the_unit_and_finds_it_hardened(tmp_path: Path) -> None:
    unit = tmp_path / "notifier.service"
    text = UNIT.read_text()
    unit.write_text(text.replace("/opt/notifier/bin/notifier", sys.executable))
    assert unit.read_text() != text
    verified = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", unit], capture_output=True, text=True, check=False
    )
    assert (verified.returncode, verified.stderr) == (0, "")
    rated = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--threshold=15", "--no-pager", unit],
        capture_output=True,
        text=True,
        check=False,
    )
    assert rated.returncode == 0, rated.stdout[-200:]
