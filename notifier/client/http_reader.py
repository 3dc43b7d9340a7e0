"""One company over HTTP: a stream of server-sent events, or one long poll after the other."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any

import msgspec

from notifier.client.arrivals import Arrivals
from notifier.client.http import HttpConnection, Response
from notifier.client.http_requests import CLOSES, REFUSALS, Failure, check, path_of
from notifier.client.pace import Pace
from notifier.client.progress import nested
from notifier.client.reports import Row

UNREADABLE = "unreadable message"

WAIT_SECONDS = 25
"""How long a poll waits for a message."""

PAUSE_SECONDS = 0.2
"""After a poll: a busy company is not polled for each message, nor a cache that answers at once without end."""

COMMENT_SECONDS = 11.0
"""The server sends a comment on a silent stream every 10 seconds."""

EVENT_BYTES = 4 * 1024 * 1024
PAGE_BYTES = 64 * 1024 * 1024
"""The largest event, and the largest response of a poll."""

Report = Callable[[Row, str | None], Awaitable[None]]
"""Takes a message, and the text in which it was received; None for one that the client has made."""


class _Page(msgspec.Struct, rename="pascal"):
    """The answer of a poll, in which messages and rows stay the texts that they are."""

    messages: list[msgspec.Raw]
    company_id: str | None = None
    position: int | None = None
    epoch: str | None = None
    at: str | None = None
    recovered: bool | None = None
    state: dict[str, msgspec.Raw] | None = None

    @property
    def place(self) -> Row:
        return {"after": self.position, "epoch": self.epoch, "at": self.at}


_decode_page = msgspec.json.Decoder(_Page).decode


async def _page(response: Response) -> _Page:
    """The answer of a poll. Raises Failure and OSError."""
    body = await response.read(PAGE_BYTES)
    try:
        return _decode_page(body)
    except (msgspec.MsgspecError, RecursionError):
        raise Failure("", UNREADABLE) from None


class _Written(msgspec.Struct, rename="pascal"):
    """What a message has of the transaction that wrote its change."""

    tx: str | None = None
    position: int = 0


_decode_written = msgspec.json.Decoder(_Written).decode


class HttpReader:
    """Turns HTTP responses into the messages that a WebSocket gets after a command with this `request`.

    A message goes to `report`, which may wait. `token` returns the present token; `renew` requests another one,
    and returns False where none comes in time. `answered`: the company was accepted.
    """

    def __init__(
        self,
        command: str,
        request: Row,
        *,
        open_connection: Callable[[], HttpConnection],
        headers: Mapping[str, str],
        streams: bool,
        pace: Pace,
        token: Callable[[], str],
        renew: Callable[[str], Awaitable[bool]],
        report: Report,
    ) -> None:
        self.command = command
        self.request = request
        self.answered = False
        self._connection = open_connection()
        self._headers = headers
        self._streams = streams
        self._pace = pace
        self._token = token
        self._renew = renew
        self._report = report
        self._used = ""  # the token of the present request
        self._was_accepted = False  # a token, since another one was requested
        self._place: Row | None = None  # none while rows of the state are missing
        self._pending: Row | None = None  # that of the state whose rows arrive
        self._is_over = False
        self._open_connection = open_connection
        self.arrivals = Arrivals(
            str(request["companyId"]), lambda message: report(message, None), self._read_later
        )

    async def run(self) -> None:
        """Reads until access ends. Raises Failure and OSError; a refusal of the company is reported."""
        try:
            while not self._is_over:
                try:
                    await (self._stream() if self._streams else self._poll())
                except Failure as failure:
                    if failure.code != "token_expired" or self._place is None:
                        raise
                    if not self._was_accepted:
                        raise  # the new token too, as with clocks that differ: the next attempt waits
                    self._was_accepted = False
                    self._connection.close()
                    if self._token() == self._used and not await self._renew(self._used):
                        raise
        except Failure as failure:
            if not await self._refused(failure):
                raise
        finally:
            self.arrivals.close()
            self._connection.close()

    async def _refused(self, failure: Failure) -> bool:
        """Reports what concerns only this company; whether it does."""
        company = {"CompanyId": self.request["companyId"]}
        if failure.code in REFUSALS and not self.answered:
            error = {"Code": failure.code, "Message": failure.reason}
            kind = "SubscribeResult" if self.command == "subscribe" else "SetCompanyResult"
            refusal = {"Type": kind, "Success": False, "Error": error, "Data": company}
            await self._report(refusal, None)
        elif failure.code == "company_forbidden":
            await self._report({"Type": "CompanyRevoked", "Data": company}, None)
        else:
            return False
        return True

    async def _get(self, accept: str, **more: Any) -> Response:
        """Raises Failure and OSError."""
        self._used = self._token()
        headers = self._accept(accept)
        place = self._place
        if place is None:
            place = {} if self.answered else _only(self.request, "after", "epoch", "at")
            more["state"] = "true" if self.request.get("state") else None
        response = await self._connection.get(path_of(self.request, place, more), headers)
        await check(response)
        self._was_accepted = True
        return response

    def _accept(self, kind: str) -> dict[str, str]:
        return {**self._headers, "Accept": kind, "Authorization": f"Bearer {self._token()}"}

    # --- server-sent events

    async def _stream(self) -> None:
        silence = max(self._pace.heartbeat, COMMENT_SECONDS) + self._pace.timeout
        try:
            # A proxy that holds back a stream holds back its first event too.
            async with asyncio.timeout(self._pace.heartbeat) as deadline:
                response = await self._get("text/event-stream")
                if "event-stream" not in response.headers.get("content-type", ""):
                    raise Failure("", "not a stream of events")
                async for text in _events(response):
                    if text is not None:
                        await self._receive(_parsed(text), text)
                        if self._is_over:
                            return
                    elif not self.answered:
                        continue
                    deadline.reschedule(asyncio.get_running_loop().time() + silence)
        except TimeoutError:
            raise Failure("", "silent link" if self.answered else "no answer") from None
        finally:
            self._connection.close()
        raise Failure("", "connection lost")

    # --- long polls

    async def _poll(self) -> None:
        wait = WAIT_SECONDS if self.answered else 0
        try:
            async with asyncio.timeout(wait + self._pace.timeout):
                response = await self._get("application/json", wait=wait)
                page = await _page(response)
        except TimeoutError:
            raise Failure("", "silent link" if self.answered else "no answer") from None
        if not self.answered:
            await self._begin(page)
        elif page.recovered is not True:
            raise Failure("", "connection lost")  # the client requests its position again
        for raw in page.messages:
            await self._receive(_parsed(bytes(raw)), bytes(raw))
            if self._is_over:
                return
        self._place = page.place
        if page.messages or wait:
            await asyncio.sleep(PAUSE_SECONDS)

    async def _begin(self, page: _Page) -> None:
        """Reports the answer, and the rows of the state."""
        company = {"CompanyId": page.company_id}
        data: Row = {**company, "Position": page.position, "Epoch": page.epoch, "At": page.at}
        if page.recovered is not None:
            data["Recovered"] = page.recovered
        if page.recovered:  # what was missed follows
            here = {"Position": "after", "Epoch": "epoch", "At": "at"}
            data |= {name: self.request.get(key) for name, key in here.items()}
        data = {name: value for name, value in data.items() if value is not None}
        await self._receive({"Type": "SubscribeResult", "Success": True, "Data": data})
        if page.state is None:
            return
        for entity, rows in page.state.items():
            head = msgspec.json.encode({**company, "Entity": entity})[:-1]
            text = b'{"Type":"State","Data":%b,"Rows":%b}}' % (head, bytes(rows))
            await self._receive({"Type": "State"}, text)
        position = {"Position": page.position}
        await self._receive({"Type": "StateEnd", "Data": company | position})

    # --- messages

    async def _receive(self, message: Row, received: bytes | None = None) -> None:
        data, position = nested(message, "Data"), message.get("Position")
        match message.get("Type"):
            case "SubscribeResult":
                if self.answered:
                    if data.get("Recovered") is True:
                        return
                    raise Failure("", "connection lost")  # the client requests its position again
                self.answered = True
                recovered = data.get("Recovered") is True
                self._place = self._pending = _place(data)
                if self.request.get("state") and not recovered:
                    self._place = None
                if self.command != "subscribe":
                    message, received = {**message, "Type": "SetCompanyResult"}, None
            case "StateEnd":
                self._place = self._pending
            case "Disconnect" if (
                data.get("Code") == CLOSES["token_expired"] and self._place is not None
            ):
                raise Failure("token_expired", str(data.get("Reason")))
            case "Disconnect":
                await self._report(message, None)
                raise Failure("", str(data.get("Reason")))
            case "TokenExpiring" if self._used != self._token():
                return  # another one is there
            case "CompanyRevoked":
                self._is_over = True
            case kind if position is not None and self._place is not None:
                epoch = data.get("Epoch") if kind == "Resync" else None
                at = message.get("At")
                epoch = epoch or self._place.get("epoch")
                self._place = _place({"Position": position, "Epoch": epoch, "At": at})
        await self._report(message, None if received is None else received.decode())
        await self.arrivals.receive(message, self._place)

    # --- arrivals

    async def _read_later(self, place: Row) -> dict[str, int] | None:
        """The transactions with messages after a place: a poll that does not wait, beside the present request."""
        connection = self._open_connection()
        try:
            async with asyncio.timeout(self._pace.timeout):
                path = path_of(self.request, place, {"wait": 0})
                response = await connection.get(path, self._accept("application/json"))
                await check(response)
                page = await _page(response)
                written = [_decode_written(bytes(message)) for message in page.messages]
        except (Failure, OSError, TimeoutError, msgspec.MsgspecError, RecursionError):
            return None
        finally:
            connection.close()
        if page.recovered is not True:
            return None
        return {each.tx: each.position for each in written if each.tx is not None}


def _place(data: Row) -> Row:
    return {"after": data.get("Position"), "epoch": data.get("Epoch"), "at": data.get("At")}


def _only(row: Row, *names: str) -> Row:
    return {name: row[name] for name in names if row.get(name) is not None}


def _parsed(text: bytes) -> Row:
    """A JSON object. Raises Failure."""
    try:
        message = json.loads(text)
        text.decode()
    except (ValueError, RecursionError):
        message = None
    if not isinstance(message, dict):
        raise Failure("", UNREADABLE)
    return message


async def _events(response: Response) -> AsyncIterator[bytes | None]:
    """The data of each event; None for a comment (HTML, section 9.2.6)."""
    rest, data, size = bytearray(), list[bytes](), 0
    async for chunk in response.chunks():
        begin = len(rest)  # before it there is no end of a line
        rest += chunk
        while (end := rest.find(b"\n", begin)) >= 0:
            line = bytes(rest[:end])
            del rest[: end + 1]
            begin = 0
            if line.startswith(b"data:"):
                data.append(line[5:].strip())
                size += len(line) + 1
            elif line.startswith(b":"):
                yield None
            elif not line.strip() and data:
                yield b"\n".join(data)
                data.clear()
                size = 0
            if size > EVENT_BYTES:
                break
        if size + len(rest) > EVENT_BYTES:
            raise Failure("", UNREADABLE)
