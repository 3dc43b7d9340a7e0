"""HTTP/1.1 requests of the client: a GET at a time on a connection, read while it arrives (httptools, RFC 9112)."""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from collections.abc import AsyncIterator, Mapping
from http import HTTPStatus
from urllib.parse import urlsplit

import httptools

READ_BYTES = 64 * 1024

ENVELOPE_BYTES = 256 * 1024
"""The most that is received without a byte of the body: a head, or trailers."""


class HttpError(OSError):
    """The connection broke, or what came over it is not HTTP."""


class Response:
    """Collects the callbacks of httptools while a response arrives. Header names are in lower case."""

    def __init__(self, reader: asyncio.StreamReader) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        self.is_complete = False
        self.may_be_reused = False
        """Another request may follow on the connection."""
        self._reader = reader
        self._has_head = False
        self._chunks: deque[bytes] = deque()
        self._received = 0  # bytes since the last one of the body
        self._parser = httptools.HttpResponseParser(self)

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        self.status = self._parser.get_status_code()
        self._has_head = self.status >= HTTPStatus.OK  # before it there may be informational ones

    def on_body(self, chunk: bytes) -> None:
        self._chunks.append(chunk)
        self._received = 0

    def on_message_complete(self) -> None:
        self.is_complete = self._has_head
        self.may_be_reused = self._has_head and bool(self._parser.should_keep_alive())

    async def read_head(self) -> None:
        """Returns when status and headers are known. Raises HttpError."""
        while not self._has_head:
            await self._receive()

    async def chunks(self) -> AsyncIterator[bytes]:
        """The body, as it arrives. Raises HttpError where it ends too early."""
        while True:
            while self._chunks:
                yield self._chunks.popleft()
            if self.is_complete:
                return
            await self._receive()

    async def read(self, limit: int) -> bytes:
        """The whole body. Raises HttpError also where it exceeds `limit` bytes."""
        body = bytearray()
        async for chunk in self.chunks():
            body += chunk
            if len(body) > limit:
                raise HttpError(f"a response of more than {limit:,} bytes")
        return bytes(body)

    async def _receive(self) -> None:
        data = await self._reader.read(READ_BYTES)
        if not data:
            ends_by_close = not {"content-length", "transfer-encoding"} & self.headers.keys()
            if not (self._has_head and ends_by_close):
                raise HttpError("connection lost")
            self.is_complete = True
            return
        self._received += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            raise HttpError(f"not HTTP: {error}") from error
        except httptools.HttpParserUpgrade:
            raise HttpError("the server changes to another protocol") from None
        if self._received > ENVELOPE_BYTES:
            raise HttpError("a head without end")


class HttpConnection:
    """Connects when a request needs it, and again where the server has closed it meanwhile.

    `base` is an http:// or https:// URL, `context` replaces the default TLS settings.
    """

    def __init__(self, base: str, context: ssl.SSLContext | None = None) -> None:
        parts = urlsplit(base)
        self._host = parts.hostname or ""
        self._port = parts.port or (443 if parts.scheme == "https" else 80)
        self._authority = parts.netloc.rpartition("@")[2]
        self._tls = None if parts.scheme == "http" else context or ssl.create_default_context()
        self._path = parts.path.rstrip("/")
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self._response: Response | None = None

    async def get(self, path: str, headers: Mapping[str, str]) -> Response:
        """A response whose head has arrived. Raises OSError."""
        lines = [f"GET {self._path}/{path} HTTP/1.1", f"Host: {self._authority}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        if any(letter in line for line in lines for letter in "\r\n\0"):
            raise HttpError("a header has a line break")
        try:
            request = "\r\n".join([*lines, "", ""]).encode("latin-1")
        except UnicodeEncodeError:
            raise HttpError("a header has a character that HTTP does not have") from None
        if self._response is None or not self._response.may_be_reused:
            self.close()
        reused = self._streams is not None
        try:
            return await self._exchange(request)
        except OSError:
            self.close()
            if not reused:
                raise
        return await self._exchange(request)  # the server had closed it while it was idle

    async def _exchange(self, request: bytes) -> Response:
        if self._streams is None:
            self._streams = await asyncio.open_connection(self._host, self._port, ssl=self._tls)
        reader, writer = self._streams
        writer.write(request)
        await writer.drain()
        self._response = Response(reader)
        await self._response.read_head()
        return self._response

    def close(self) -> None:
        """Ends the connection, and a response that is under way."""
        if self._streams is not None:
            self._streams[1].transport.abort()
            self._streams = None
