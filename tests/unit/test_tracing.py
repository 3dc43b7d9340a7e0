"""Spans of batches and writes, without a database; what happens where tracing is off, or fails."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, SamplingResult
from pydantic import SecretStr

from notifier import Notifier, Settings, node
from notifier.messages import Message
from notifier.node import Node
from notifier.relay.changes import Change
from notifier.relay.tracing import UNTRACED
from notifier.tracing import MAX_TRANSACTIONS, Tracing
from tests.services import environment

AT = datetime(2026, 11, 29, 9, 30, tzinfo=UTC)
WRITER = "b7ad6b7169203331"


def traceparent(number: int) -> str:
    return f"00-{number:032x}-{WRITER}-01"


def change(number: int, xid: int, trace: str | None) -> Change:
    return Change(number, xid, "Event", None, b"{}", False, None, AT, trace)


def message(trace: str | None) -> Message:
    return Message(1, "c", 1, AT, AT, b"{}", traceparent=trace)


class World:
    """A provider of an application, and the spans that it has got."""

    def __init__(self, sampler: Any = None) -> None:
        self._exporter = InMemorySpanExporter()
        self.provider = TracerProvider(sampler=sampler)
        self.provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        self.tracing = Tracing(self.provider)
        self.tracing.start()

    @property
    def spans(self) -> Sequence[ReadableSpan]:
        spans: Sequence[ReadableSpan] = self._exporter.get_finished_spans()
        return spans

    def names(self) -> list[str]:
        return [span.name.removeprefix("notifier.") for span in self.spans]


def test_only_transactions_that_name_a_span_are_traced() -> None:
    world = World()
    trace = world.tracing.begin()
    trace.read([change(1, 7, None), change(2, 8, traceparent(5)), change(3, 8, traceparent(6))])
    with trace.stage("net"):
        pass
    trace.end()
    assert world.names() == ["capture", "read", "net", "relay"]
    assert {span.context.trace_id for span in world.spans if span.context} == {5}
    assert list(trace.links) == [8]


@pytest.mark.parametrize(
    "malformed",
    ["", "00", "00-1-2-01", f"00-{'0' * 32}-{WRITER}-01", f"ff-{5:032x}-{WRITER}-01", "ü\n' OR 1"],
)
def test_a_malformed_traceparent_is_ignored(malformed: str) -> None:
    world = World()
    trace = world.tracing.begin()
    trace.read([change(1, 7, malformed)])
    with trace.stage("net"):
        pass
    trace.end()
    assert world.names() == []
    assert not trace.links


def test_what_the_sampler_refuses_is_not_traced_any_further() -> None:
    world = World(ALWAYS_OFF)
    trace = world.tracing.begin()
    trace.read([change(1, 7, traceparent(5))])
    assert not trace.links


def test_a_batch_of_very_many_traced_transactions_does_not_hold_up_the_loop() -> None:
    world = World()
    trace = world.tracing.begin()
    trace.read([change(number, number, traceparent(number)) for number in range(1, 2000)])
    trace.end()
    assert world.names().count("relay") == MAX_TRANSACTIONS


def test_a_stage_that_fails_marks_the_relay_as_failed() -> None:
    world = World()
    trace = world.tracing.begin()
    trace.read([change(1, 7, traceparent(5))])
    with pytest.raises(ZeroDivisionError), trace.stage("store"):
        raise ZeroDivisionError("a text that may hold a value")
    assert world.names() == ["capture", "read", "store", "relay"]
    assert world.spans[-1].status.description == "ZeroDivisionError"


class Broken:
    def should_sample(self, *_: Any, **__: Any) -> SamplingResult:
        raise RuntimeError("a sampler of the application")

    def get_description(self) -> str:
        return "broken"


def test_a_sampler_that_fails_ends_neither_relay_nor_channel() -> None:
    world = World(Broken())
    trace = world.tracing.begin()
    trace.read([change(1, 7, traceparent(5))])
    with trace.stage("net"):
        pass
    trace.end()
    writes = world.tracing.received([message(traceparent(5))])
    assert writes is not None
    writes.begin()
    writes.end(1)
    assert world.names() == []


def test_a_transaction_with_very_many_messages_has_one_span_for_their_delivery() -> None:
    world = World()
    batch = [msgspec.structs.replace(message(traceparent(5)), position=n) for n in range(1, 2001)]
    writes = world.tracing.received([*batch, message(traceparent(6)), message(None)])
    assert writes is not None
    writes.begin()
    writes.end(3)
    assert world.names() == ["write", "deliver"] * 2
    delivered = world.spans[1].attributes
    assert delivered is not None
    assert (delivered["notifier.messages"], delivered["notifier.position"]) == (2000, 2000)


def test_messages_without_a_trace_are_written_without_spans() -> None:
    assert World().tracing.received([message(None)]) is None


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "-1"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "user:s3cret@collector"),
        ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://[s3cret"),
    ],
)
async def test_settings_that_cannot_work_turn_tracing_off(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    variable: str,
    value: str,
) -> None:
    monkeypatch.setenv(variable, value)
    tracing = Tracing()
    tracing.start()
    trace = tracing.begin()
    trace.read([change(1, 7, traceparent(5))])
    assert not trace.links
    await tracing.close()
    assert "s3cret" not in "".join(capsys.readouterr())


SETTINGS = Settings(
    database_url=SecretStr("postgresql://localhost/x"), jwt_secret=SecretStr("s" * 32)
)


def relayed_by(node: Node) -> object:
    return node.relay._options.tracer


def test_it_is_off_without_an_endpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(node.OTLP_ENDPOINT, raising=False)
    assert relayed_by(Node(SETTINGS)) is UNTRACED
    monkeypatch.setenv(node.OTLP_ENDPOINT, "http://127.0.0.1:4318")
    assert isinstance(relayed_by(Node(SETTINGS)), Tracing)
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    assert relayed_by(Node(SETTINGS)) is UNTRACED


def test_an_endpoint_without_the_library_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(node.OTLP_ENDPOINT, "http://127.0.0.1:4318")
    monkeypatch.setitem(sys.modules, "notifier.tracing", None)
    node._load_tracing.cache_clear()
    assert relayed_by(Node(SETTINGS)) is UNTRACED
    node._load_tracing.cache_clear()


def test_the_provider_of_an_application_is_used() -> None:
    world = World()
    notifier = Notifier(SETTINGS, tracer_provider=world.provider)
    notifier._start()
    tracing = relayed_by(notifier._running(notifier._node))
    assert isinstance(tracing, Tracing)
    tracing.start()
    trace = tracing.begin()
    trace.read([change(1, 7, traceparent(5))])
    assert world.names() == ["capture", "read"]


async def test_the_provider_that_an_application_has_set_is_used_and_not_closed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = World()
    monkeypatch.setenv(node.OTLP_ENDPOINT, "http://127.0.0.1:4318")
    monkeypatch.setattr("notifier.tracing.get_tracer_provider", lambda: world.provider)
    tracing = Tracing()
    tracing.start()
    trace = tracing.begin()
    trace.read([change(1, 7, traceparent(5))])
    await tracing.close()
    trace.end()
    assert world.names() == ["capture", "read", "relay"]


def test_nothing_of_opentelemetry_is_imported_while_it_is_off() -> None:
    program = (
        "import sys; from notifier import Settings; from notifier.node import Node;"
        " Node(Settings(database_url='postgresql://localhost/x', jwt_secret='s' * 32));"
        " sys.exit(any(name.startswith('opentelemetry') for name in sys.modules))"
    )
    environ = {
        name: value for name, value in environment({}).items() if not name.startswith("OTEL_")
    }
    subprocess.run([sys.executable, "-c", program], env=environ, check=True)
