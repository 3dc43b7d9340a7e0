"""An OTLP receiver over HTTP, as a collector is one, and endpoints that fail."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import NamedTuple

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.waiting import until


class Span(NamedTuple):
    """A span as it was exported; ids in hexadecimal digits."""

    name: str
    service: str
    trace: str
    id: str
    parent: str
    start: int
    end: int
    attributes: dict[str, object]


Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Endpoint:
    """A server that serves each connection by a function; `stop` closes all of them."""

    def __init__(self, serve: Serve) -> None:
        self._serve = serve
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)

    @property
    def url(self) -> str:
        assert self._server is not None
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def stop(self) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            await self._serve(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass  # the client has ended, or `stop` was called
        finally:
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()


class Receiver(Endpoint):
    """Receives spans. `payloads`: all bytes that have come, headers included."""

    def __init__(self) -> None:
        super().__init__(self._receive)
        self.spans: list[Span] = []
        self.payloads = b""

    async def received(self, names: Sequence[str]) -> list[Span]:
        """Returns all spans when there are those of these names, in any order, as often as they are named."""

        async def complete() -> bool:
            return sorted(names) == sorted(
                span.name for span in self.spans if span.name in set(names)
            )

        await until(complete)
        return self.spans

    async def _receive(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            lines = head.decode().split("\r\n")
            assert lines[0].startswith("POST /v1/traces "), lines[0]
            headers = dict(line.lower().split(": ", 1) for line in lines[1:] if line)
            body = await reader.readexactly(int(headers["content-length"]))
            self.payloads += head + body
            self._take(ExportTraceServiceRequest.FromString(body))
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    def _take(self, request: ExportTraceServiceRequest) -> None:
        for group in request.resource_spans:
            service = next(
                each.value.string_value
                for each in group.resource.attributes
                if each.key == "service.name"
            )
            for scope in group.scope_spans:
                for span in scope.spans:
                    attributes = {
                        each.key: getattr(each.value, str(each.value.WhichOneof("value")))
                        for each in span.attributes
                    }
                    self.spans.append(
                        Span(
                            span.name,
                            service,
                            span.trace_id.hex(),
                            span.span_id.hex(),
                            span.parent_span_id.hex(),
                            span.start_time_unix_nano,
                            span.end_time_unix_nano,
                            attributes,
                        )
                    )
