"""What stands in the way of a start is one readable line, and a status that says whose fault it is."""

from __future__ import annotations

import json
import socket
from contextlib import suppress
from functools import partial
from pathlib import Path

import httpx
import pytest

from notifier import __version__
from notifier.database.schema import migrate
from notifier.demo.postgres import EmbeddedPostgres
from tests.conftest import Serve
from tests.databases import Database
from tests.services import SECRET, Service
from tests.waiting import until


async def refusal(place: Path, *arguments: str, **settings: object) -> tuple[int, str]:
    """The exit status, and the only line that was said."""
    service = Service(place, str(settings.pop("database_url", "")), arguments, settings)
    await service.start()
    status = await service.ended()
    lines = service.log().splitlines()
    assert len(lines) == 1, service.log()
    assert lines[0].startswith("notifier: ")
    assert SECRET not in lines[0]
    return status, lines[0]


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"allowed_origins": "app.example"}, "NOTIFIER_ALLOWED_ORIGINS"),
        ({"root_path": "/a?b"}, "NOTIFIER_ROOT_PATH"),
        ({"ping_seconds": "soon"}, "NOTIFIER_PING_SECONDS"),
        ({"ping_seconds": "-1"}, "NOTIFIER_PING_SECONDS"),
        ({"max_buffer_bytes": "1"}, "NOTIFIER_MAX_BUFFER_BYTES"),
        ({"authorization": "anybody"}, "NOTIFIER_AUTHORIZATION"),
        ({"jwt_secret": "short"}, "JWT_SECRET"),
        ({"jwt_secret": ""}, "JWT"),
        ({"jwt_algorithms": "none"}, "JWT_ALGORITHMS"),
        ({"ssl_certfile": "/nowhere.pem"}, "SSL"),
        ({"ssl_certfile": __file__, "ssl_keyfile": __file__}, "SSL_CERTFILE"),
        ({"nats_url": "nats.example.com"}, "NOTIFIER_NATS_URL"),
        ({"nats_url": "nats://h", "nats_credentials": __file__}, "NOTIFIER_NATS_CREDENTIALS"),
        ({"database_url": ""}, "NOTIFIER_DATABASE_URL"),
        ({"config": "/nowhere.toml"}, "NOTIFIER_CONFIG"),
    ],
    ids=lambda value: "" if isinstance(value, str) else " ".join(value),
)
async def test_a_wrong_setting_is_named_in_one_line_with_status_2(
    tmp_path: Path, settings: dict[str, object], named: str
) -> None:
    given = {"database_url": "postgresql://someone@127.0.0.1:1/none", **settings}
    status, line = await refusal(tmp_path, **given)
    assert status == 2
    assert named in line


@pytest.mark.usefixtures("interpreter")
async def test_a_port_in_use_is_one_line_with_status_1(tmp_path: Path, database: Database) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        status, line = await refusal(tmp_path, "--port", str(port), database_url=database.dsn)
    assert status == 1
    assert str(port) in line
    assert "in use" in line


async def is_unready(service: Service, words: str) -> bool:
    """Whether it is not ready for a reason with these words."""
    with suppress(httpx.TransportError):
        answer = await service.get("/readyz")
        assert answer.status_code == 503
        return words in answer.json()["reason"]
    return False


async def test_e10_a_database_that_cannot_be_reached_is_waited_for(
    mortal: EmbeddedPostgres, mortal_database: Database, serve: Serve
) -> None:
    """It may start later than we do: alive and not ready, and why, until it is there."""
    mortal.stop()
    service = await serve(mortal_database, ready=False)
    await until(partial(is_unready, service, "cannot reach the database"))
    assert (await service.get("/livez")).is_success
    assert "cannot reach the database 127.0.0.1" in service.log()
    mortal.start()
    await service.ready()


async def test_e10_a_database_without_our_schema_is_waited_for_and_the_remedy_named(
    database: Database, serve: Serve
) -> None:
    await database.execute("DROP SCHEMA notifier CASCADE")
    service = await serve(database, ready=False)
    await until(partial(is_unready, service, "notifier migrate"))
    assert (await service.get("/livez")).is_success
    assert "run: notifier migrate" in service.log()
    await migrate(database.dsn, calendar=True)
    await service.ready()


@pytest.mark.usefixtures("interpreter")
async def test_e10_a_service_that_waits_for_its_database_can_be_ended(serve: Serve) -> None:
    service = await serve("postgresql://someone@127.0.0.1:1/none", ready=False)
    await until(partial(is_unready, service, "cannot reach the database"))
    service.terminate()
    assert await service.ended() == 0


@pytest.mark.usefixtures("interpreter")
async def test_a_start_is_logged_with_version_database_role_and_relay(
    database: Database, serve: Serve
) -> None:
    service = await serve(database, log_format="json")

    async def logged() -> bool:
        log = service.log()
        return all(event in log for event in ("relay leads", "database reached", '"watching"'))

    await until(logged)
    lines = [
        json.loads(line) for line in service.log().splitlines()
    ]  # no other line, on stdout either
    events = {line["event"]: line for line in lines}
    assert events["starting"]["version"] == __version__
    assert database.name in events["database reached"]["database"]
    assert events["database reached"]["role"]
    assert events["listening"]["address"] == service.url
    assert sorted(events["watching"]["tables"]) == [
        "companies as Company",
        "employees as Employee",
        "events as Event",
    ]
    other = await serve(database, log_format="json", ready=False)

    async def finds_the_relay() -> bool:
        return '"a node relays already"' in other.log()

    await until(finds_the_relay)


async def test_an_unknown_variable_is_a_warning_in_the_log(serve: Serve) -> None:
    service = await serve(
        "postgresql://none@127.0.0.1:1/none",
        ready=False,
        log_format="json",
        prot="1",
        service_host="10.0.0.1",
    )

    async def logged() -> bool:
        return "NOTIFIER_PROT" in service.log()

    await until(logged)
    assert "NOTIFIER_SERVICE_HOST" in service.log()
    for line in service.log().splitlines():
        json.loads(line)
