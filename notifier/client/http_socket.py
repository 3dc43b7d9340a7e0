"""A socket over HTTP: takes the same commands as a WebSocket, and returns the same messages.

So companies, positions, proofs and deadlines are those of `notifier.client.conversation`. Each company is a request
of its own. The commands `authenticate` and `ping` are answered here: each request has the token, and watches its
own silence.
"""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import Mapping
from typing import Any

from notifier.client.http import HttpConnection
from notifier.client.http_reader import UNREADABLE, HttpReader
from notifier.client.http_requests import Failure, http_url
from notifier.client.pace import Pace
from notifier.client.reports import Row
from notifier.client.sockets import closed_error

QUEUED = 64
"""When this many messages wait to be received, responses are not read."""


class HttpSocket:
    """`streams`: by server-sent events, otherwise by long polls. `options` are those of `websockets`: `ssl`,
    `additional_headers`."""

    def __init__(
        self, url: str, *, streams: bool, pace: Pace, options: Mapping[str, Any] | None = None
    ) -> None:
        given = options or {}
        context = given.get("ssl")
        self._base = http_url(url)
        self._tls = context if isinstance(context, ssl.SSLContext) else None
        self._headers = dict(given.get("additional_headers") or {})
        self._streams = streams
        self._pace = pace
        self._token = ""
        self._renewed = asyncio.Event()
        self._messages: asyncio.Queue[str | None] = asyncio.Queue(QUEUED)
        self._readers: dict[str, tuple[HttpReader, asyncio.Task[None]]] = {}
        self._former: dict[HttpReader, tuple[HttpReader, asyncio.Task[None]]] = {}
        self._is_closed = False
        self.is_proven = False
        """The server has answered."""
        self.fell_silent = False
        """A stream did not bring what it should have: a proxy may hold it back."""
        self.close_code: int | None = None
        self.close_reason: str | None = None

    @property
    def transport(self) -> HttpSocket:
        """The transport, for an abort."""
        return self

    async def recv(self) -> str:
        """The next message. Raises ConnectionClosed."""
        message = None if self._is_closed and self._messages.empty() else await self._messages.get()
        if message is None:
            raise closed_error()
        return message

    async def send(self, message: str) -> None:
        """Takes a command."""
        if self._is_closed:
            raise closed_error()
        command = json.loads(message)
        data = command.get("data", {})
        match command["type"]:
            case "authenticate":
                self._token = command["token"]
                self._renewed.set()
                await self._put({"Type": "AuthenticationResult", "Success": True, "Data": {}})
            case "ping":
                await self._put({"Type": "Pong"})
            case "await":
                if found := self._readers.get(data["companyId"]):
                    found[0].arrivals.expect(data["tx"])
            case "unsubscribe":
                self._stop(data["companyId"])
            case "setCompany" | "subscribe":
                if command["type"] == "setCompany":
                    for company in self._readers.keys() - {data["companyId"]}:
                        self._stop(company)
                self._start(command["type"], data)

    async def close(self) -> None:
        self.abort()

    def abort(self) -> None:
        """Ends all requests; `recv` returns what has arrived, then raises ConnectionClosed."""
        if self._is_closed:
            return
        self._is_closed = True
        for company in list(self._readers):
            self._stop(company)
        if not self._messages.full():
            self._messages.put_nowait(None)

    def _start(self, command: str, request: Row) -> None:
        """Requests a company. A former request of it goes on until this one is answered."""
        company = request["companyId"]
        former = self._readers.get(company)
        reader = HttpReader(
            command,
            request,
            open_connection=lambda: HttpConnection(self._base, self._tls),
            headers=self._headers,
            streams=self._streams,
            pace=self._pace,
            token=lambda: self._token,
            renew=self._renew,
            report=lambda message, text: self._report(reader, message, text),
        )
        if former is not None:
            self._former[reader] = former
        self._readers[company] = reader, asyncio.create_task(self._run(reader))

    def _stop(self, company: str) -> None:
        found = self._readers.pop(company, None)
        while found is not None:
            reader, task = found
            task.cancel()
            reader.arrivals.close()
            found = self._former.pop(reader, None)

    async def _run(self, reader: HttpReader) -> None:
        company = reader.request["companyId"]
        try:
            await reader.run()
        except Exception as error:
            failure = Failure("", "connection lost")
            if isinstance(error, Failure):
                failure = error
            elif not isinstance(error, OSError):
                failure = Failure("", f"{type(error).__name__}: {error}")
            if failure.code:
                self.is_proven = True
            if self._streams and failure.reason in ("silent link", "no answer"):
                self.fell_silent = True
            if failure.reason == UNREADABLE:
                await self._put({}, UNREADABLE)  # is counted: the position may have to be given up
            if (farewell := failure.farewell) is not None:
                await self._put({"Type": "Disconnect", "Data": farewell})
            self.close_reason = failure.reason
            self.abort()
        else:
            if self._readers.get(company, (None,))[0] is reader:
                former = self._former.pop(reader, None)
                del self._readers[company]
                if former is not None:  # the new request was refused
                    self._readers[company] = former

    async def _report(self, reader: HttpReader, message: Row, text: str | None) -> None:
        if reader.answered:
            self.is_proven = True
            if (former := self._former.pop(reader, None)) is not None:
                former[1].cancel()
                former[0].arrivals.close()
        elif message.get("Success") is False:
            self.is_proven = True
        await self._put(message, text)

    async def _put(self, message: Row, text: str | None = None) -> None:
        if not self._is_closed:
            await self._messages.put(text or json.dumps(message))

    async def _renew(self, used: str) -> bool:
        """Requests another token than `used`; whether there is one in time."""
        self._renewed.clear()
        await self._put({"Type": "TokenExpiring", "Data": {}})
        try:
            async with asyncio.timeout(3 * self._pace.timeout):
                while self._token == used:
                    await self._renewed.wait()
                    self._renewed.clear()
        except TimeoutError:
            return False
        return True
