"""The way of a change as spans of its writer's trace, received by OTLP."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator

import pytest

from tests.clients import Client
from tests.conftest import Connect, Serve
from tests.databases import Database
from tests.natsd import NatsServer
from tests.otlp import Endpoint, Receiver, Span
from tests.ports import free_port
from tests.service.calendars import Calendar
from tests.service.test_nats import on_path

WRITER = "b7ad6b7169203331"
TITLE = "A title that belongs in no span"
ACTOR = "an actor who belongs in no span"


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    receiver = Receiver()
    await receiver.start()
    yield receiver
    await receiver.stop()


@pytest.fixture
def otlp(monkeypatch: pytest.MonkeyPatch, receiver: Receiver) -> Receiver:
    """The receiver, as the endpoint of the services that are started from now on."""
    export_to(monkeypatch, receiver.url)
    return receiver


def export_to(monkeypatch: pytest.MonkeyPatch, endpoint: str) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")


async def write(
    database: Database, company: str, traceparent: str | None, *, title: str = TITLE
) -> None:
    """An event, in a transaction that names its span."""
    app = await database.connect(app=True)
    async with app.transaction():
        await app.execute("SELECT set_config('notifier.actor', $1, true)", ACTOR)
        if traceparent is not None:
            await app.execute("SELECT set_config('notifier.traceparent', $1, true)", traceparent)
        await app.execute(
            "INSERT INTO events (company_id, title, starts_at, ends_at) VALUES ($1, $2, now(), now())",
            company,
            title,
        )


def named(spans: list[Span], name: str) -> list[Span]:
    return [span for span in spans if span.name == f"notifier.{name}"]


@pytest.mark.parametrize("path", ["postgres", "nats"])
async def test_spans_lead_from_the_writer_to_the_sockets_of_every_node(
    database: Database,
    serve: Serve,
    connect: Connect,
    otlp: Receiver,
    nats: NatsServer,
    path: str,
) -> None:
    url = nats.url if path == "nats" else ""
    nodes = [await serve(database, nats_url=url) for _ in range(2)]
    for node in nodes:
        await on_path(node, path)
    company = await Calendar(database).company("u1")
    clients: list[Client] = [await connect(node, "u1", company) for node in nodes]
    began = time.time_ns()
    trace = secrets.token_hex(16)
    await write(database, company, None)
    await write(database, company, "")
    await write(database, company, f"00-{trace}-{WRITER}-00")  # not sampled
    for malformed in (
        trace,
        f"00-{'0' * 32}-{WRITER}-01",
        f"ff-{trace}-{WRITER}-01",
        "';--",
        "x" * 10_000_000,
    ):
        await write(database, company, malformed)
    await write(database, company, f"00-{trace}-{WRITER}-01")
    for client in clients:
        await client.received(lambda messages: messages[-1].get("Position") == 10)
        assert "traceparent" not in str(client.messages).lower()
    spans = await otlp.received(
        [
            *(
                f"notifier.{name}"
                for name in ("capture", "relay", "read", "net", "store", "publish")
            ),
            *("notifier.deliver", "notifier.write") * 2,
        ]
    )

    # One trace, of which every span is a child of the right one.
    assert {span.trace for span in spans} == {trace}
    (capture,), (relay,) = named(spans, "capture"), named(spans, "relay")
    assert capture.parent == WRITER
    assert relay.parent == capture.id
    for name in ("read", "net", "store", "publish"):
        (span,) = named(spans, name)
        assert span.parent == relay.id
        assert relay.start <= span.start <= span.end <= relay.end
    delivered, written = named(spans, "deliver"), named(spans, "write")
    assert {span.parent for span in delivered} == {relay.id}
    assert {span.parent for span in written} == {span.id for span in delivered}
    assert [span.attributes["notifier.subscribers"] for span in written] == [1, 1]
    assert all(began < span.start <= span.end < time.time_ns() for span in spans)
    assert {span.service for span in spans} == {"notifier"}

    # By its number `notifier why --tx` finds the transaction, and by its position the message.
    message = clients[0].messages[-1]
    assert capture.attributes["notifier.tx"] == message["Tx"]
    assert {span.attributes["notifier.position"] for span in delivered} == {message["Position"]}

    # Of rows and tokens there is nothing.
    for secret in (company, TITLE, ACTOR, "u1", "eyJ", "Event", "events", "postgres:"):
        assert secret.encode() not in otlp.payloads, secret


@pytest.mark.parametrize("fault", ["refuses", "hangs", "answers with errors"])
async def test_an_endpoint_that_fails_delays_nothing(
    database: Database,
    serve: Serve,
    connect: Connect,
    monkeypatch: pytest.MonkeyPatch,
    fault: str,
) -> None:
    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        requests.set()
        if fault == "hangs":
            await asyncio.Event().wait()
        while await reader.read(65536):
            writer.write(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n")

    requests = asyncio.Event()
    endpoint = Endpoint(take)
    await endpoint.start()
    dead = f"http://127.0.0.1:{free_port()}"
    export_to(monkeypatch, dead if fault == "refuses" else endpoint.url)
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "600")
    service = await serve(database)
    company = await Calendar(database).company("u1")
    client = await connect(service, "u1", company)
    for _ in range(150):  # more spans than the queue holds
        await write(database, company, f"00-{secrets.token_hex(16)}-{WRITER}-01")
    if fault != "refuses":
        await requests.wait()
    await client.received(lambda messages: messages[-1].get("Position") == 151)
    assert (await service.get("/readyz")).is_success
    service.terminate()
    began = time.monotonic()
    assert await service.ended() == 0
    assert time.monotonic() - began < 10, "the exit has waited for the endpoint"
    assert TITLE not in service.log()
    await endpoint.stop()
