"""`GET /companies/{id}/messages`: a company's messages as server-sent events, or by long polls."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from math import ceil
from typing import NamedTuple

import structlog
from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from notifier import metrics
from notifier.access.admission import address_group
from notifier.commands import FilteredRequest
from notifier.delivery.http_session import HttpSession, ResponseTransport
from notifier.delivery.services import Services
from notifier.errors import (
    Closure,
    Code,
    DatabaseError,
    Expired,
    Internal,
    NotReady,
    Refused,
    TokenExpired,
    TokenInvalid,
    TooMany,
)
from notifier.transport.asgi_events import AsgiEvents
from notifier.transport.cors import PREFLIGHT, Cors
from notifier.transport.events import EventStream
from notifier.transport.http_guard import EXTENSION, GuardedHttp
from notifier.transport.polling import LongPoll, Page
from notifier.transport.problems import HttpCode, Problem
from notifier.transport.requests import STREAM, bearer_token, company_request, media_type

PATH = re.compile(r"/companies/(.*)/messages")
"""Some proxies decode the slashes of an id: what is between is one segment."""

NO_STORE = {"Cache-Control": "no-store"}

_log = structlog.get_logger("notifier.http")


class Call(NamedTuple):
    """One request. `wait`: the seconds that a long poll waits; `address`: the client's address group."""

    kind: str
    request: FilteredRequest
    wait: int
    token: str
    address: str


class CompanyMessages:
    """The endpoint. `cookie`: the name of the cookie that may carry the token, if any."""

    def __init__(
        self, services: Services, cors: Cors, max_buffer: int, cookie: str | None = None
    ) -> None:
        self._services = services
        self._cors = cors
        self._max_buffer = max_buffer
        self._cookie = cookie

    async def serve(self, segment: str, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers a request for the company in the path's `segment`, which is percent-encoded."""
        try:
            await self._answer(segment, scope, receive, send)
        except Problem as problem:
            await self._send(problem.response(), scope, receive, send)

    async def _answer(self, segment: str, scope: Scope, receive: Receive, send: Send) -> None:
        headers, method = Headers(scope=scope), scope["method"]
        if not self._cors.allows(headers):
            raise Problem(403, HttpCode.ORIGIN_FORBIDDEN, "the Origin is not in ALLOWED_ORIGINS")
        if method == "OPTIONS":
            await self._send(Response(status_code=204, headers=PREFLIGHT), scope, receive, send)
            return
        if method not in ("GET", "HEAD"):
            allow = {"Allow": "GET, HEAD, OPTIONS"}
            raise Problem(405, HttpCode.METHOD_NOT_ALLOWED, "GET, HEAD and OPTIONS only", allow)
        call = self._read(segment, scope, headers)
        if method == "GET" and call.kind == STREAM:
            await self._stream(call, scope, receive, send)
        else:
            await self._poll(call, scope, receive, send)

    def _read(self, segment: str, scope: Scope, headers: Headers) -> Call:
        kind = media_type(headers)
        request, wait = company_request(segment, scope.get("query_string", b""), headers)
        token = bearer_token(headers, self._cookie, self._cors)
        peer = scope.get("client")
        return Call(kind, request, wait, token, address_group(peer[0]) if peer else "")

    async def _send(self, response: Response, scope: Scope, receive: Receive, send: Send) -> None:
        response.headers.update(NO_STORE | self._cors.headers(Headers(scope=scope)))
        await response(scope, receive, send)

    async def _stream(self, call: Call, scope: Scope, receive: Receive, send: Send) -> None:
        """Streams until the connection has ended. Raises Problem before the response has begun."""
        headers = self._cors.headers(Headers(scope=scope))
        if (protocol := _protocol(scope)) is not None:
            chunked = scope["http_version"] != "1.0"
            stream = EventStream(protocol, self._max_buffer, headers, chunked=chunked)
            protocol.listener = stream
            try:
                async with self._streaming(call, stream):
                    await _disconnected(receive)
            finally:
                if not stream.begun:
                    protocol.listener = None
            return
        queued = AsgiEvents(send, self._max_buffer, headers)
        running = asyncio.create_task(queued.run())
        gone = asyncio.create_task(_disconnected(receive))
        gone.add_done_callback(lambda _: queued.closed())
        try:
            async with self._streaming(call, queued):
                await asyncio.wait([running, gone], return_when=asyncio.FIRST_COMPLETED)
        finally:
            gone.cancel()
            queued.finish()
            await running

    @asynccontextmanager
    async def _streaming(self, call: Call, stream: EventStream | AsgiEvents) -> AsyncIterator[None]:
        """A session that has subscribed."""
        session = self._enter(call, stream)
        metrics.STREAMS.inc()
        try:
            await _subscribe(session, call, stream)
            yield
        finally:
            session.leave()
            metrics.STREAMS.dec()

    async def _poll(self, call: Call, scope: Scope, receive: Receive, send: Send) -> None:
        """Sends a page; for HEAD only the head of the response that GET would get.

        The session is counted until the client has read the page: it may be a slow reader.
        """
        head = scope["method"] == "HEAD"
        rows = _Rows(call.kind, self._cors, scope, send)
        poll = LongPoll(None if head else rows, immediate=head or call.request.after is None)
        session = self._enter(call, poll)
        metrics.POLLS.inc()
        try:
            async with _connected(poll, scope, receive) as protocol:
                await _subscribe(session, call, poll)
                await poll.wait(call.wait)
            if poll.lost:
                if protocol is not None:  # else uvicorn reports a response that is not complete
                    await _disconnected(receive)
                return
            if poll.begun:
                await rows.end(poll.rest())
            else:
                page = _page(poll)
                response = Response(page.head, media_type=call.kind)
                if head:
                    response = Response(media_type=call.kind)
                    del response.headers["Content-Length"]
                await self._send(response, scope, receive, send)
            if protocol is not None:
                await protocol.flow.drain()
        finally:
            session.leave()
            metrics.POLLS.dec()

    def _enter(self, call: Call, response: ResponseTransport) -> HttpSession:
        try:
            return HttpSession(self._services, response, call.address)
        except Closure as closure:
            raise _problem(closure) from closure


async def _subscribe(session: HttpSession, call: Call, response: ResponseTransport) -> None:
    """Subscribes, and replays what was missed. Raises Problem, unless the response has begun."""
    try:
        async with session.until_end():
            await session.authenticate(call.token)
            if await session.subscribe(call.request):
                return
    except Exception as error:
        if not response.begun:
            raise _problem(error) from error
        session.end(_closure(error))
        return
    raise Problem(403, Code.COMPANY_FORBIDDEN, "no such company for this user")


def _protocol(scope: Scope) -> GuardedHttp | None:
    """The connection, where uvicorn serves it with this class."""
    protocol = scope.get("extensions", {}).get(EXTENSION)
    return protocol if isinstance(protocol, GuardedHttp) else None


@asynccontextmanager
async def _connected(
    poll: LongPoll, scope: Scope, receive: Receive
) -> AsyncIterator[GuardedHttp | None]:
    """Reports the end of the connection to `poll`: by the protocol itself, otherwise by a task."""
    if (protocol := _protocol(scope)) is not None:
        protocol.listener = poll
        try:
            yield protocol
        finally:
            protocol.listener = None
        return
    task = asyncio.create_task(_disconnected(receive))
    task.add_done_callback(lambda _: poll.closed())
    try:
        yield None
    finally:
        task.cancel()


async def _disconnected(receive: Receive) -> None:
    """Waits for the end of the connection, or of the response."""
    while (await receive())["type"] != "http.disconnect":
        pass


class _Rows:
    """The response to a long poll, where it has rows. `kind`: its media type."""

    def __init__(self, kind: str, cors: Cors, scope: Scope, send: Send) -> None:
        self._kind = kind
        self._cors = cors
        self._scope = scope
        self._send = send

    async def begin(self, size: int) -> None:
        """Sends its head."""
        headers = NO_STORE | self._cors.headers(Headers(scope=self._scope))
        head = Response(media_type=self._kind, headers={**headers, "Content-Length": str(size)})
        await self._send(
            {"type": "http.response.start", "status": 200, "headers": head.raw_headers}
        )

    async def send(self, part: bytes) -> None:
        """Sends a part. A server waits for room before the next one: here before an empty one."""
        for body in (part, b""):
            await self._send({"type": "http.response.body", "body": body, "more_body": True})

    async def end(self, part: bytes) -> None:
        """Sends the last part."""
        await self._send({"type": "http.response.body", "body": part, "more_body": False})

    def abort(self) -> None:
        """Ends the connection. Other servers do so when the application returns before the end of the body."""
        if (protocol := _protocol(self._scope)) is not None:
            protocol.transport.abort()


def _page(poll: LongPoll) -> Page:
    """The page. Raises Problem where the poll was ended without one."""
    try:
        return poll.page()
    except Closure as closure:
        raise _problem(closure) from closure


def _closure(error: Exception) -> Closure:
    """The Closure that ends a response because of an error."""
    if isinstance(error, Closure):
        return error
    if isinstance(error, DatabaseError):
        return NotReady()
    _log.error("a request for messages failed", exc_info=error)
    return Internal()


def _problem(error: Exception) -> Problem:
    """The refusal of a request because of an error."""
    code: Code | HttpCode
    match error:
        case Refused():
            return Problem(400, error.code, str(error))
        case TokenExpired() | Expired():
            return Problem(
                401, Code.TOKEN_EXPIRED, "the token has expired", {"WWW-Authenticate": _INVALID}
            )
        case TokenInvalid():
            return Problem(
                401, Code.TOKEN_INVALID, "the token is not valid", {"WWW-Authenticate": _INVALID}
            )
        case TooMany():
            status, code, detail = 429, HttpCode.TOO_MANY, "too many connections"
        case _:
            status, code, detail = 503, Code.UNAVAILABLE, "not ready; try again"
    seconds = ceil((_closure(error).retry_after_ms or 0) / 1000)
    return Problem(status, code, detail, {"Retry-After": str(max(1, seconds))})


_INVALID = 'Bearer error="invalid_token"'
"""The challenge of RFC 6750, section 3.1."""
