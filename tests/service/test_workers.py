"""`notifier serve --workers 2`: one status port and one set of metrics for all workers."""

from __future__ import annotations

import re
import shutil
import signal
from contextlib import suppress
from pathlib import Path

import httpx
import psutil
import pytest

from notifier.workers import DIRECTORY_PREFIX as PREFIX
from notifier.workers import kept
from tests.conftest import Connect, Serve
from tests.databases import Database
from tests.ports import free_port
from tests.service.calendars import Calendar
from tests.waiting import until

SOCKETS = 12


def value(text: str, name: str) -> float:
    """The value of a metric, with its labels in `name`; -1 where it is not there."""
    found = re.search(rf"^{re.escape(name)} (\S+)$", text, re.MULTILINE)
    return float(found[1]) if found else -1.0


def metered(supervisor: int) -> dict[psutil.Process, Path]:
    """The worker processes, each with the directory of its metrics."""
    return {
        child: Path(paths[0]).parent
        for child in psutil.Process(supervisor).children()
        if (paths := [each.path for each in child.memory_maps() if PREFIX in each.path])
    }


def both_ready(text: str) -> bool:
    return value(text, "notifier_workers") == 2 and value(text, "notifier_ready") == 1


async def test_case_e3_workers_share_a_status_port_whose_metrics_count_them_all(
    database: Database, serve: Serve, connect: Connect
) -> None:
    status = free_port()
    service = await serve(
        database, "--workers", "2", ready=False, status_port=status, status_host="127.0.0.1"
    )
    company = await Calendar(database).company("u1")
    async with httpx.AsyncClient(
        trust_env=False, base_url=f"http://127.0.0.1:{status}", timeout=20
    ) as operator:

        async def metrics() -> str:
            with suppress(httpx.TransportError):
                return (await operator.get("/metrics")).text
            return ""

        async def ready() -> bool:
            return both_ready(await metrics())

        await until(ready)
        for _ in range(SOCKETS):
            await connect(service, "u1", company)
        for _ in range(6):  # whichever worker answers
            text = await metrics()
            assert value(text, "notifier_sockets") == SOCKETS
            assert value(text, "notifier_relay") == 1
            assert value(text, 'notifier_handshakes_refused_total{reason="path"}') == 0
        assert (await operator.get("/livez")).is_success
        worker = max(
            psutil.Process(service.pid).children(),
            # the last one started; all may begin in one clock tick, the resource tracker first
            key=lambda process: (process.create_time(), process.pid),
        )
        worker.kill()

        async def replaced() -> bool:
            return "a worker ended" in service.log() and await ready()

        await until(replaced)
        assert 0 <= value(await metrics(), "notifier_sockets") <= SOCKETS
    assert service.log().count("a worker ended") == 1
    assert "cannot listen" not in service.log()


async def test_case_e12_the_public_port_answers_for_all_workers_as_well(
    database: Database, serve: Serve, connect: Connect
) -> None:
    service = await serve(database, "--workers", "2")

    async def ready() -> bool:
        return both_ready((await service.get("/metrics")).text)

    await until(ready)
    company = await Calendar(database).company("u1")
    for _ in range(SOCKETS):
        await connect(service, "u1", company)
    for _ in range(6):
        text = (await service.get("/metrics")).text
        assert f"\nnotifier_sockets {SOCKETS:.1f}\n" in text
        assert 'notifier_build_info{version="' in text


async def test_a_reload_does_not_end_a_worker_that_starts(database: Database, serve: Serve) -> None:
    service = await serve(database, "--workers", "2")
    supervisor = psutil.Process(service.pid)

    def workers() -> set[int]:
        return {each.pid for each in supervisor.children() if "spawn_main" in str(each.cmdline())}

    async def started() -> int | None:
        with suppress(psutil.NoSuchProcess):
            return next(iter(workers() - before), None)
        return None

    async def ready() -> bool:
        return both_ready((await service.get("/metrics")).text)

    await until(ready)
    before = workers()
    assert len(before) == 2
    psutil.Process(max(before)).kill()
    await until(started, every=0.005)
    service.send(signal.SIGHUP)
    await until(ready)
    assert service.log().count("a worker ended") == 1


@pytest.mark.parametrize("taken", [False, True])
async def test_workers_are_replaced_although_the_directory_of_their_metrics_was_removed(
    database: Database, serve: Serve, tmp_path: Path, taken: bool
) -> None:
    """By a cleaner of /tmp, behind which another user may take the name. At the end only our own is removed."""
    status = free_port()
    service = await serve(
        database, "--workers", "2", ready=False, status_port=status, status_host="127.0.0.1"
    )
    async with httpx.AsyncClient(
        trust_env=False, base_url=f"http://127.0.0.1:{status}", timeout=20
    ) as operator:

        async def ready() -> bool:
            with suppress(httpx.TransportError):
                return both_ready((await operator.get("/metrics")).text)
            return False

        await until(ready)
        workers = metered(service.pid)
        (directory,) = set(workers.values())
        shutil.rmtree(directory)
        if taken:
            directory.symlink_to(tmp_path)
        for worker in workers:
            worker.kill()

        async def replaced() -> bool:
            return service.log().count("a worker ended") == 2 and await ready()

        await until(replaced)
    (last,) = set(metered(service.pid).values())
    service.terminate()
    assert await service.ended() == 0
    assert "Traceback" not in service.log()
    assert not last.exists()
    assert directory.is_symlink() == taken
    directory.unlink(missing_ok=True)


def test_the_directory_of_the_metrics_is_not_where_another_user_leads_its_name(
    tmp_path: Path,
) -> None:
    directory, elsewhere = tmp_path / "ours", tmp_path / "theirs"
    assert kept(str(directory)) == kept(str(directory)) == str(directory)
    assert directory.stat().st_mode & 0o777 == 0o700
    directory.rmdir()
    elsewhere.mkdir()
    directory.symlink_to(elsewhere)
    other = Path(kept(str(directory)))
    assert other.resolve() != elsewhere
    other.rmdir()


def test_a_directory_of_metrics_that_cannot_be_made_ends_no_supervisor(tmp_path: Path) -> None:
    """As where a disk is full: the workers that it has go on, and a further one is tried again."""
    directory = str(tmp_path / "removed" / "ours")
    assert kept(directory) == directory
