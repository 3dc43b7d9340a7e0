"""The fixtures of the service tests: a real `notifier serve`, and its clients."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tests.clients import Client
from tests.conftest import Connect, Serve
from tests.databases import Database
from tests.ports import free_port, reservations
from tests.proxy import Proxy
from tests.services import token


async def employer(database: Database, user: str) -> str:
    """A company that employs the user."""
    company = await database.fetchval("INSERT INTO companies (name) VALUES ('Acme') RETURNING id")
    await database.execute(
        "INSERT INTO employees (company_id, user_id, name) VALUES ($1, $2, 'Ann')", company, user
    )
    return str(company)


async def write(database: Database, company: str) -> str:
    """Inserts an event as the application does; returns its id."""
    app = await database.connect(app=True)
    return str(
        await app.fetchval(
            "INSERT INTO events (company_id, title, starts_at, ends_at)"
            " VALUES ($1, 'Tea', now(), now()) RETURNING id",
            company,
        )
    )


async def test_a_client_receives_the_writes_of_an_application(
    database: Database, serve: Serve, connect: Connect
) -> None:
    company = await employer(database, "ann")
    client = await connect(await serve(database), "ann", company)
    event = await write(database, company)
    assert (await client.next("EventCreated"))["Data"]["EventId"] == event
    await client.quiet()


async def test_a_client_resumes_after_its_position(
    database: Database, serve: Serve, connect: Connect
) -> None:
    company = await employer(database, "ann")
    service = await serve(database)
    first = await connect(service, "ann", company)
    await write(database, company)
    await first.next("EventCreated")
    await first.leave()
    missed = await write(database, company)
    second = await connect(service, "ann", company, after=first.position, epoch=first.epoch)
    assert second.messages[1]["Data"]["Recovered"] is True
    assert (await second.expect("EventCreated"))["Data"]["EventId"] == missed


async def test_a_service_can_be_terminated_and_killed(
    database: Database, serve: Serve, connect: Connect
) -> None:
    service = await serve(database, drain_seconds=0)
    client = await connect(service, "ann", company=await employer(database, "ann"))
    service.terminate()
    assert await service.ended() == 0
    assert await client.closed() in {1001, 1012}
    await service.start()
    await service.ready()
    service.kill()
    assert await service.ended() == -9


async def test_a_bad_token_is_refused(database: Database, serve: Serve, connect: Connect) -> None:
    client: Client = await connect(await serve(database))
    answer = await client.authenticate(token=token("ann", ttl=-3600))
    assert answer["Success"] is False
    assert (await client.expect("Disconnect"))["Data"]["Code"] == 4419
    assert await client.closed() == 4419
    with pytest.raises(AssertionError, match="closed with 4419"):
        await client.expect("Pong")


async def test_a_service_reaches_its_database_through_a_proxy(
    database: Database, serve: Serve
) -> None:
    async with Proxy(*database.address) as proxy:
        service = await serve(database.through(proxy.port))
        assert proxy.links > 0
        assert (await service.get("/readyz")).status_code == 200


async def test_a_variable_that_only_a_new_process_reads_starts_an_interpreter(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Others are forks of one that has imported everything, and so children of another process."""
    nowhere = "postgresql://none@127.0.0.1:1/none"
    forked = await serve(nowhere, ready=False)
    monkeypatch.setenv("MALLOC_ARENA_MAX", "1")
    interpreted = await serve(nowhere, ready=False)
    assert psutil.Process(forked.pid).ppid() != os.getpid()
    assert psutil.Process(interpreted.pid).ppid() == os.getpid()


def test_a_port_is_reserved_against_other_runs_of_the_tests() -> None:
    """A lock of this process does not stop this process itself, so another one tries."""
    lock = "import fcntl, os, sys; fcntl.lockf(os.open(sys.argv[1], os.O_RDWR), 6, 1, int(sys.argv[2]))"
    file = str(Path(f"/proc/self/fd/{reservations()}").readlink())

    def status(port: int) -> int:
        command = [sys.executable, "-c", lock, file, str(port)]
        return subprocess.run(command, check=False, stderr=subprocess.DEVNULL).returncode

    assert status(free_port()) == 1
    assert status(1) == 0
