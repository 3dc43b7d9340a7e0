"""What is served over HTTP on the same port."""

from __future__ import annotations

import json
from contextlib import suppress
from uuid import UUID

import httpx
import pytest

from tests.conftest import Connect, Serve
from tests.databases import Database
from tests.ports import free_port
from tests.service.calendars import Calendar
from tests.service.test_floods import metric
from tests.services import Service, token
from tests.waiting import until


async def test_livez_is_200(service: Service) -> None:
    answer = await service.get("/livez")
    assert (answer.status_code, answer.json()) == (200, {"live": True})


async def test_readyz_is_200_on_a_ready_node(service: Service) -> None:
    answer = await service.get("/readyz")
    assert (answer.status_code, answer.json()) == (200, {"ready": True})


async def test_the_status_page_names_the_service(service: Service) -> None:
    answer = await service.get("/")
    assert answer.status_code == 200
    assert "ready" in answer.text
    assert answer.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize(
    ("path", "kind"),
    [("/client.js", "text/javascript"), ("/client.d.ts", "text/plain")],
)
async def test_the_browser_client_is_served(service: Service, path: str, kind: str) -> None:
    answer = await service.get(path)
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith(kind)
    assert "connect" in answer.text


async def test_c14_the_metrics_are_in_prometheus_format_and_name_no_user(
    service: Service, calendar: Calendar, connect: Connect
) -> None:
    company = await calendar.company("secret-user")
    client = await connect(service, "secret-user", company)
    event = await calendar.event(company, "a secret title")
    await client.expect("EventCreated")
    answer = await service.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=")
    for name in ("notifier_sockets", "notifier_ready 1.0", "notifier_lag_seconds_bucket"):
        assert name in answer.text
    for secret in (company, event, "secret-user", "a secret title"):
        assert secret not in answer.text
    for link in ("node", "relay", "stream", "membership"):
        assert f'notifier_database_links_up{{link="{link}"}} 1.0' in answer.text


async def test_the_metrics_name_the_stage_that_a_change_waits_in(
    database: Database, serve: Serve, connect: Connect
) -> None:
    service, calendar = await serve(database), Calendar(database)
    company = await calendar.company("u1")
    client = await connect(service, "u1", company)
    writer = await database.connect()

    async def seconds(stage: str) -> float:
        return await metric(service, f'notifier_stage_seconds_sum{{stage="{stage}"}}')

    stages = ("wait", "read", "net", "store", "receive", "write")
    before = {stage: await seconds(stage) for stage in stages}
    async with writer.transaction():
        await writer.execute(
            "INSERT INTO events (company_id, title, starts_at, ends_at)"
            " VALUES ($1, '', now(), now())",
            UUID(company),
        )
        await writer.execute("SELECT pg_sleep(0.3)")
    await client.expect("EventCreated")
    took = {stage: await seconds(stage) - before[stage] for stage in stages}
    assert all(took.values())
    assert took["wait"] > 0.3


async def test_c14_neither_token_nor_row_is_in_the_log(
    service: Service, calendar: Calendar, connect: Connect
) -> None:
    company = await calendar.company("u1")
    secret = token("u1")
    client = await connect(service.url + f"?token={secret}")
    await client.authenticate(token=secret)
    await client.set_company(company)
    await calendar.event(company, "a secret title")
    await client.expect("EventCreated")
    await client.authenticate(token=secret[:-2])
    await client.closed()
    assert secret[:40] not in service.log()
    assert "a secret title" not in service.log()


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "TRACE", "OPTIONS"])
async def test_pages_can_only_be_read(service: Service, method: str) -> None:
    async with httpx.AsyncClient(trust_env=False) as client:
        answer = await client.request(method, service.http + "/readyz")
    assert answer.status_code == 405


@pytest.mark.parametrize("path", ["/nothing", "/..%2f", "/static/", "/client.js/x", "/%00", "/é"])
async def test_an_unknown_path_is_not_found(service: Service, path: str) -> None:
    assert (await service.get(path)).status_code == 404


async def test_health_and_metrics_may_have_an_address_of_their_own(
    database: Database, serve: Serve
) -> None:
    own = free_port()
    service = await serve(database, ready=False, status_port=own, status_host="127.0.0.1")
    async with httpx.AsyncClient(trust_env=False, base_url=f"http://127.0.0.1:{own}") as operator:

        async def ready() -> bool:
            with suppress(httpx.TransportError):
                return (await operator.get("/readyz")).is_success
            return False

        await until(ready)
        assert (await operator.get("/metrics")).is_success
        assert (await operator.get("/livez")).is_success
    for path in ("/metrics", "/readyz", "/livez"):
        assert (await service.get(path)).status_code == 404
    assert (await service.get("/client.js")).status_code == 200


async def test_a_node_is_not_ready_while_its_triggers_are_disabled(
    database: Database, serve: Serve
) -> None:
    service = await serve(database)
    await database.execute("ALTER TABLE events DISABLE TRIGGER ALL")

    async def reason() -> str:
        answer = await service.get("/readyz")
        return str(answer.json()["reason"]) if answer.status_code == 503 else ""

    assert "events" in await until(reason)
    await database.execute("ALTER TABLE events ENABLE TRIGGER ALL")
    await service.ready()


async def test_the_protocol_is_described(service: Service) -> None:
    answer = await service.get("/asyncapi.json")
    assert answer.headers["content-type"] == "application/json"
    assert json.loads(answer.text)["asyncapi"].startswith("3.")
