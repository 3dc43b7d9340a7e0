"""OpenTelemetry: records the stages of a change as spans of its writer's trace. docs/tracing.md describes them.

The writer names its span by `SET LOCAL notifier.traceparent` (W3C Trace Context). Imported only where tracing is
on. Spans are queued in memory and exported by a thread of the SDK; a slow or dead endpoint loses spans, and
delays nothing.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from datetime import datetime
from functools import wraps
from itertools import islice
from typing import NamedTuple, ParamSpec
from urllib.parse import urlsplit

import structlog
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, Resource
from opentelemetry.sdk.trace import TracerProvider as SdkTracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import (
    NoOpTracer,
    ProxyTracerProvider,
    Span,
    SpanKind,
    Status,
    StatusCode,
    Tracer,
    TracerProvider,
    get_tracer_provider,
    set_span_in_context,
)
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from notifier import __version__
from notifier.messages import Message
from notifier.relay.changes import Change
from notifier.relay.tracing import NO_LINKS

PROTOCOL = "http/protobuf"

MAX_TRANSACTIONS = 100
"""Traced transactions of one batch: each costs the event loop about 0.1 ms."""

FLUSH_SECONDS = 1.0
"""How long the end of a process waits for the last spans to be exported."""

_propagator = TraceContextTextMapPropagator()
_log = structlog.get_logger("notifier.tracing")

P = ParamSpec("P")


def _harmless(step: Callable[P, None]) -> Callable[P, None]:
    """Wraps a step: its failure, such as one of an application's sampler, is logged and does not end the relay."""

    @wraps(step)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            step(*args, **kwargs)
        except Exception:
            _log.exception("a span was not recorded")

    return run


class Tracing:
    """Sends the spans of a node to the provider of the application, or by OTLP to the endpoint."""

    def __init__(self, provider: TracerProvider | None = None) -> None:
        self._provider = provider
        self._own: SdkTracerProvider | None = None
        self._tracer: Tracer = NoOpTracer()

    def start(self) -> None:
        """Records spans from now on. Where that cannot be, the reason is logged, and there are none."""
        try:
            provider = self._provider or get_tracer_provider()
            if isinstance(provider, ProxyTracerProvider):  # the application has none
                provider = self._own = _exporting()
            self._tracer = provider.get_tracer("notifier", __version__)
        except Exception as error:
            _log.error("tracing is off", reason=f"{type(error).__name__}: {error}")

    async def close(self) -> None:
        """Exports the last spans, for at most FLUSH_SECONDS. The provider of an application stays open."""
        own, self._own, self._tracer = self._own, None, NoOpTracer()
        if own is None:
            return
        loop, closed = asyncio.get_running_loop(), asyncio.Event()

        def export() -> None:
            own.shutdown()
            with suppress(RuntimeError):  # the loop has ended meanwhile
                loop.call_soon_threadsafe(closed.set)

        # A daemon, for which the end of the process does not wait.
        threading.Thread(target=export, name="last spans", daemon=True).start()
        with suppress(TimeoutError):
            async with asyncio.timeout(FLUSH_SECONDS):
                await closed.wait()

    # --- the relay

    def begin(self) -> BatchSpans:
        """Changes are read from now on."""
        return BatchSpans(self._tracer)

    # --- the channels

    def received(self, messages: Sequence[Message]) -> WriteSpans | None:
        """A channel has received messages that will be written together."""
        traced: dict[str, list[Message]] = {}
        for message in messages:
            if message.traceparent is not None:
                traced.setdefault(message.traceparent, []).append(message)
        return WriteSpans(self._tracer, traced) if traced else None


def _exporting() -> SdkTracerProvider:
    """A provider that exports as the variables OTEL_… configure it; its sampler is that of OTEL_TRACES_SAMPLER."""
    for name in ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"):
        url = urlsplit(os.environ.get(name) or "http://localhost")
        if url.scheme not in ("http", "https") or not url.hostname:
            raise ValueError(f"{name} is not like http://collector:4318")  # it may hold a password
    protocol = os.environ.get("OTEL_EXPORTER_OTLP_PROTOCOL", PROTOCOL)
    if protocol != PROTOCOL:
        raise ValueError(f"OTEL_EXPORTER_OTLP_PROTOCOL is {protocol}; only {PROTOCOL} is there")
    attributes = {SERVICE_VERSION: __version__}
    if "OTEL_SERVICE_NAME" not in os.environ:
        attributes[SERVICE_NAME] = "notifier"
    provider = SdkTracerProvider(resource=Resource.create(attributes), shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return provider


class _Transaction(NamedTuple):
    """A traced transaction in a batch: the span of its way through the relay."""

    span: Span
    context: Context


class BatchSpans:
    """The spans of the traced transactions of a batch: capture, and below it relay with its stages."""

    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer
        self._begun = time.time_ns()
        self._transactions: list[_Transaction] = []
        self.links: Mapping[int, str] = NO_LINKS

    @_harmless
    def read(self, changes: Sequence[Change]) -> None:
        """Finds the traced transactions."""
        traced: dict[int, list[Change]] = {}
        for change in changes:
            if change.xid in traced:
                traced[change.xid].append(change)
            elif change.traceparent is not None and len(traced) < MAX_TRANSACTIONS:
                traced[change.xid] = [change]
        if not traced:
            return
        links = {}
        for xid, captured in traced.items():
            transaction = self._transaction(xid, captured, len(changes))
            if transaction is not None:
                self._transactions.append(transaction)
                links[xid] = _traceparent(transaction.span)
        self.links = links
        self._stage("read", self._begun)

    def _transaction(self, xid: int, captured: Sequence[Change], batch: int) -> _Transaction | None:
        """The spans of a transaction; None where it is not sampled, or its traceparent is malformed."""
        writer = _propagator.extract({"traceparent": str(captured[0].traceparent)}, Context())
        if not writer:
            return None
        capture = self._tracer.start_span(
            "notifier.capture",
            writer,
            SpanKind.PRODUCER,
            {"notifier.tx": str(xid), "notifier.changes": len(captured)},
            start_time=_nanoseconds(captured[0].at),
        )
        if not capture.is_recording():
            return None
        capture.end(_nanoseconds(captured[-1].at))
        relay = self._tracer.start_span(
            "notifier.relay",
            set_span_in_context(capture, Context()),
            SpanKind.CONSUMER,
            {"notifier.tx": str(xid), "notifier.batch.changes": batch},
            start_time=self._begun,
        )
        return _Transaction(relay, set_span_in_context(relay, Context()))

    def stage(self, name: str) -> AbstractContextManager[None]:
        """The batch is in this stage during the block."""
        return self._timed(name) if self._transactions else nullcontext()

    @contextmanager
    def _timed(self, name: str) -> Iterator[None]:
        begun = time.time_ns()
        try:
            yield
        except BaseException as error:
            for transaction in self._transactions:
                transaction.span.set_status(Status(StatusCode.ERROR, type(error).__name__))
            self._stage(name, begun)
            self.end()
            raise
        self._stage(name, begun)

    @_harmless
    def _stage(self, name: str, begun: int) -> None:
        for transaction in self._transactions:
            _record(self._tracer, f"notifier.{name}", transaction.context, begun)

    @_harmless
    def end(self) -> None:
        """The batch is stored and published."""
        for transaction in self._transactions:
            transaction.span.end()
        self._transactions = []


class WriteSpans:
    """The spans of messages that a channel writes together: deliver, and below it write, for each transaction.

    There are none where the company has no subscriber on this node.
    """

    def __init__(self, tracer: Tracer, traced: Mapping[str, Sequence[Message]]) -> None:
        self._tracer = tracer
        self._traced = traced
        self._received = self._begun = time.time_ns()

    def begin(self) -> None:
        """They are being written."""
        self._begun = time.time_ns()

    @_harmless
    def end(self, subscribers: int) -> None:
        """They were written to all subscribers."""
        for traceparent, messages in islice(self._traced.items(), MAX_TRANSACTIONS):
            deliver = self._tracer.start_span(
                "notifier.deliver",
                _propagator.extract({"traceparent": traceparent}, Context()),
                SpanKind.CONSUMER,
                {
                    "notifier.messages": len(messages),
                    "notifier.seq": messages[-1].seq,
                    "notifier.position": messages[-1].position,
                },
                start_time=self._received,
            )
            _record(
                self._tracer,
                "notifier.write",
                set_span_in_context(deliver, Context()),
                self._begun,
                {"notifier.subscribers": subscribers},
            )
            deliver.end()


def _record(
    tracer: Tracer,
    name: str,
    parent: Context,
    begun: int,
    attributes: Mapping[str, int] | None = None,
) -> None:
    """A span that ends now."""
    tracer.start_span(name, parent, attributes=attributes, start_time=begun).end()


def _traceparent(span: Span) -> str:
    carrier: dict[str, str] = {}
    _propagator.inject(carrier, set_span_in_context(span, Context()))
    return carrier["traceparent"]


def _nanoseconds(at: datetime) -> int:
    return int(at.timestamp() * 1_000_000) * 1000
