"""Notifier's client for Python: follows one company and never loses a message silently.

    async with connect("wss://calendar.example/", get_token, company) as client:
        async for said in client:
            match said:
                case Resync():
                    show(await read_everything(said.company))
                case Message():
                    apply(said.type, said.data)

Each subscription is reported as exactly one of `Recovered` (what was missed follows, nothing is
lost) and `Resync` (read your state afresh). What comes while a loop's body runs waits for it, so
that an old reading can never overwrite a newer message; a slow body slows the socket, and what the
server will not keep for it is asked for again.

The sibling of static/client.js, with the same rules and words; the protocol is in docs/protocol.md.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import random
from asyncio import TimerHandle
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Literal, NamedTuple, NoReturn, Protocol, Self, TypeAlias, TypeGuard

from websockets.asyncio.client import connect as open_websocket
from websockets.exceptions import ConnectionClosed, InvalidStatus, InvalidURI, WebSocketException
from websockets.uri import parse_uri

Row: TypeAlias = dict[str, Any]
"""What a changed row looks like: its properties in PascalCase."""

State: TypeAlias = Literal["connecting", "live", "waiting", "idle", "stopped", "closed"]
"""
- `connecting`: a token is fetched, a socket opened, a company asked for
- `live`: messages come as they are committed
- `waiting`: there is no connection; the next attempt is in `retry_in` seconds
- `idle`: connected, without a company: none was named, it was refused, or access to it was lost
- `stopped`: the client does not return by itself: the token was refused or something is broken
- `closed`: the `async with` block is over
"""


class Position(NamedTuple):
    """Where a client is in a company's messages: the last one it has, and the log that counts it."""

    after: int
    epoch: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One committed change of one row.

    `data` is the whole row; of a deletion the last one; only its keys where `partial` is true.
    `old` has the former values of exactly the properties that changed. `at` is when the change was
    captured, ISO 8601. `text` is the message as it was received.
    """

    type: str
    company: str
    data: Row
    old: Row | None
    position: int
    epoch: str
    at: str
    actor: str | None
    partial: bool
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Recovered:
    """What was missed after `position` follows as messages, every one of it."""

    company: str
    position: int
    epoch: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Resync:
    """What follows `position` is complete, what came before may not be: read your state afresh.

    `reason` is `start` (there was nothing to resume from), `expired` (the position is beyond the
    retention), `epoch`, `gap` (what is missing could not be had), or the server's word: `bulk`,
    `truncate`, `overflow`, `epoch`.
    """

    company: str
    reason: str
    position: int
    epoch: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """How the connection is. `code` is the close code, 1006 where the link broke."""

    state: State
    company: str | None
    reason: str | None = None
    code: int | None = None
    error: object = None
    """What `get_token` raised, or the `Error` that the server sent."""
    retry_in: float | None = None


Said: TypeAlias = Message | Recovered | Resync | Status

GetToken: TypeAlias = Callable[[], str | Awaitable[str]]
"""Asked anew at each connection and shortly before the token expires."""


class Socket(Protocol):
    """What the client asks of a WebSocket; the package `websockets` gives it."""

    @property
    def close_code(self) -> int | None: ...
    @property
    def close_reason(self) -> str | None: ...
    @property
    def transport(self) -> asyncio.Transport: ...
    async def send(self, message: str) -> None: ...
    async def recv(self) -> str | bytes: ...
    async def close(self) -> None: ...


OpenSocket: TypeAlias = Callable[[str], Awaitable[Socket]]

FINAL = frozenset({1002, 1003, 1007, 1009, 4400, 4403, 4409})
"""Our own fault, or one that trying again cannot mend: the application has to act."""

TOKEN_INVALID, COMPANY_FORBIDDEN, TOKEN_EXPIRED, TOO_MANY = 4401, 4403, 4419, 4429
BROKEN_LINK = 1006

SPEECHLESS = frozenset({1000, 1005, BROKEN_LINK})
"""Closes that carry no meaning of their own: what Disconnect said before counts."""

TOO_MANY_SECONDS = 5.0
LONGEST_SECONDS = 3600.0

MOST_HELD = 1000
"""With so many reports waiting for the application, the socket is not read."""

MOST_MENDS = 3
"""So often is one hole mended by asking for what is missing; then the state has to be read."""


def connect(
    url: str,
    get_token: GetToken,
    company: str | int | None = None,
    *,
    after: int | None = None,
    epoch: str | None = None,
    heartbeat: float = 15.0,
    timeout: float = 10.0,
    min_delay: float = 1.0,
    max_delay: float = 30.0,
    **options: Any,
) -> Client:
    """A client of the notifier at `url` (`wss://…`); it connects when its `async with` begins.

    Without a company it waits for `set_company`. `after` and `epoch` are where to resume: what
    `client.position` was when the state you hold was saved. A token that was refused or has expired
    is not shown again, so a cache behind `get_token` should not outlive the token.

    Seconds: after `heartbeat` of silence the server is asked for a sign of life; without an answer
    in `timeout` the link is dead. The first wait before a return is a random part of `min_delay`,
    the next of twice as long… up to `max_delay`. `options` are those of `websockets` (`ssl`,
    `proxy`, `additional_headers`…). Raises ValueError for arguments that cannot work.
    """
    try:
        parse_uri(url)
    except InvalidURI as error:
        raise ValueError(f"{url} is no WebSocket address") from error
    given = {"compression": None, "ping_interval": None, "close_timeout": 1.0, **options}

    async def open_socket(url: str) -> Socket:
        return await open_websocket(url, open_timeout=None, **given)

    return Client(
        url,
        get_token,
        company,
        _position(after, epoch),
        pace=Pace(heartbeat, timeout, min_delay, max_delay),
        open_socket=open_socket,
    )


class Pace(NamedTuple):
    """How long what may take, in seconds, and the dice: a random number in [0, 1)."""

    heartbeat: float = 15.0
    timeout: float = 10.0
    min_delay: float = 1.0
    max_delay: float = 30.0
    dice: Callable[[], float] = random.random

    def backoff(self, failures: int) -> float:
        """Full jitter: anything up to a time that doubles with each failure."""
        return self.dice() * min(self.max_delay, self.min_delay * 2.0 ** min(failures, 60))


class Client:
    """What `connect` returns: an async context manager, and an iterator of what is to be known."""

    def __init__(
        self,
        url: str,
        get_token: GetToken,
        company: str | int | None,
        position: Position | None,
        *,
        pace: Pace,
        open_socket: OpenSocket,
    ) -> None:
        self._url = url
        self._get_token = get_token
        self._open_socket = open_socket
        self._pace = pace
        self._company = None if company is None else str(company)
        self._head = self._position = position
        self._status = Status(state="connecting", company=self._company)
        self._barred: str | None = None  # why the company is not to be asked for again
        self._spent: tuple[str, int] | None = None  # the token that was refused, and the code
        self._failures = 0  # in a row, for the backoff
        self._mends = 0
        self._held: deque[Said] = deque()
        self._reading: Resync | None = None  # the application reads its state
        self._moved = asyncio.Event()  # something is held, or nothing will be
        self._room = asyncio.Event()
        self._room.set()
        self._conversation: _Conversation | None = None
        self._running: asyncio.Task[None] | None = None

    @property
    def company(self) -> str | None:
        return self._company

    @property
    def position(self) -> Position | None:
        """The last message that was given to you, with all before it: save it with your state.

        None as long as the state has to be read: before the first `Resync` is dealt with, and from
        each until you ask for what comes next.
        """
        return self._position

    @property
    def status(self) -> Status:
        return self._status

    async def __aenter__(self) -> Self:
        self._start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    def __aiter__(self) -> AsyncIterator[Said]:
        return self

    async def __anext__(self) -> Said:
        """What is said next. Ends when the client is stopped or closed, and all was said."""
        if self._reading is not None:
            self._position = Position(self._reading.position, self._reading.epoch)
            self._reading = None
        while not self._held:
            if self._running is None or self._running.done():
                self._surface()
                raise StopAsyncIteration
            self._moved.clear()
            await self._moved.wait()
        said = self._held.popleft()
        if len(self._held) <= MOST_HELD // 2:
            self._room.set()
        match said:
            case Message():
                self._position = Position(said.position, said.epoch)
            case Resync():
                self._position, self._reading = None, said
        return said

    def set_company(
        self, company: str | int, *, after: int | None = None, epoch: str | None = None
    ) -> None:
        """Follows another company, from a position that you kept or afresh.

        Nothing of the former comes any more.
        """
        self._alive()
        self._company = str(company)
        self._head = self._position = _position(after, epoch)
        self._barred = self._reading = None
        self._mends = 0
        self._forget()
        if self._conversation is not None:
            self._conversation.switch()
        elif self._status.code == COMPANY_FORBIDDEN:
            self._start()

    def reconnect(self) -> None:
        """Connects anew, now, whatever the reason was not to."""
        self._alive()
        self._barred = self._spent = None
        self._failures = 0
        self._start()

    async def close(self) -> None:
        """Ends it for good; `async with` does it."""
        self._status = Status(state="closed", company=self._company)
        self._forget()
        if self._running is not None:
            self._running.cancel()
            await asyncio.wait([self._running])
        self._moved.set()

    # --- the connection

    def _alive(self) -> None:
        if self._status.state == "closed":
            raise RuntimeError("this client is closed")

    def _start(self) -> None:
        former = self._running
        if former is not None:
            former.cancel()
        self._running = asyncio.create_task(self._run(former))
        self._running.add_done_callback(lambda _: self._moved.set())

    def _surface(self) -> None:
        """An error of our own must not look like a quiet end."""
        if self._running is not None and not self._running.cancelled():
            self._running.result()

    async def _run(self, former: asyncio.Task[None] | None) -> None:
        """Connects again and again, until it makes no sense any more."""
        if former is not None:
            await asyncio.wait([former])
        while True:
            await self._room.wait()
            self._tell("connecting")
            try:
                await self._converse()
            except _Over as over:
                if over.final:
                    self._tell("stopped", over.reason, code=over.code, error=over.error)
                    return
                seconds = over.floor + self._pace.backoff(self._failures)
                self._failures += 1
                seconds = min(seconds, LONGEST_SECONDS)
                self._tell(
                    "waiting", over.reason, code=over.code, error=over.error, retry_in=seconds
                )
                await asyncio.sleep(seconds)

    async def _converse(self) -> NoReturn:
        """One attempt, from the token to the close. Raises _Over."""
        token = await self._token()
        if self._spent is not None and self._spent[0] == token:
            code = self._spent[1]
            invalid = code == TOKEN_INVALID
            reason = "token refused" if invalid else "token expired"
            raise _Over(reason, code=code, final=invalid)
        try:
            async with asyncio.timeout(self._pace.timeout):
                socket = await self._open_socket(self._url)
        except TimeoutError as error:
            raise _Over("no answer", code=BROKEN_LINK) from error
        except InvalidStatus as error:
            raise _Over(f"HTTP {error.response.status_code}", code=BROKEN_LINK) from error
        except (OSError, WebSocketException) as error:
            raise _Over("cannot connect", code=BROKEN_LINK, error=error) from error
        self._conversation = _Conversation(self, socket, token, self._pace)
        try:
            await self._conversation.run()
        finally:
            self._conversation = None

    async def _token(self) -> str:
        """The token must come in time: a `get_token` that hangs would be the end of us."""
        try:
            async with asyncio.timeout(3 * self._pace.timeout):
                given = self._get_token()
                token: object = await given if inspect.isawaitable(given) else given
        except TimeoutError as error:
            late = TimeoutError("get_token() did not answer")
            raise _Over("no token", error=late) from error
        except Exception as error:
            raise _Over("no token", error=error) from error
        if not isinstance(token, str) or not token:
            raise _Over("no token", error=TypeError("get_token() returned no token"))
        return token

    # --- the reports

    def _say(self, said: Said) -> None:
        self._held.append(said)
        self._moved.set()
        if len(self._held) >= MOST_HELD:
            self._room.clear()

    def _tell(
        self,
        state: State,
        reason: str | None = None,
        *,
        code: int | None = None,
        error: object = None,
        retry_in: float | None = None,
    ) -> None:
        self._status = Status(
            state=state,
            company=self._company,
            reason=reason,
            code=code,
            error=error,
            retry_in=retry_in,
        )
        self._say(self._status)

    def _resync(self, company: str, reason: str, head: Position) -> None:
        """The state has to be read: what was to be said before it is covered by it."""
        self._head = head
        self._mends = 0
        self._forget()
        self._say(Resync(company=company, reason=reason, position=head.after, epoch=head.epoch))

    def _forget(self) -> None:
        """What was not given to the application yet is of no use to it any more."""
        kept = [said for said in self._held if isinstance(said, Status)]
        self._held.clear()
        self._held.extend(kept)
        if len(kept) <= MOST_HELD // 2:
            self._room.set()


class _Over(Exception):
    """An attempt has ended. `floor` is the shortest wait in seconds; `final`: it is the last one."""

    def __init__(
        self,
        reason: str,
        *,
        code: int | None = None,
        error: object = None,
        floor: float = 0.0,
        final: bool = False,
    ) -> None:
        super().__init__(reason)
        self.reason = reason
        self.code = code
        self.error = error
        self.floor = floor
        self.final = final


class _Asked:
    """A `setCompany` that has no answer yet. `outdated`: the application wants another one."""

    def __init__(self, company: str, head: Position | None) -> None:
        self.company = company
        self.head = head
        self.outdated = False


class _Conversation:
    """One socket's life: what is said on it, and when its silence is its end."""

    def __init__(self, client: Client, socket: Socket, token: str, pace: Pace) -> None:
        self._client = client
        self._socket = socket
        self._token = token
        self._pace = pace
        self._loop = asyncio.get_running_loop()
        self._outbox: asyncio.Queue[str] = asyncio.Queue()
        self._over: _Over | None = None
        self._farewell: Row | None = None  # what Disconnect said
        self._authenticated_at: float | None = None
        self._asked: _Asked | None = None
        self._subscribed = False
        self._renewing: asyncio.Task[None] | None = None
        self._deadline: TimerHandle | None = None
        self._pulse: TimerHandle | None = None

    async def run(self) -> NoReturn:
        """Hears the server until the end of the socket. Raises _Over."""
        speaking = asyncio.create_task(self._speak())
        self._send({"type": "authenticate", "token": self._token})
        self._expect(self._pace.timeout)
        try:
            await self._listen()
            raise self._over or self._closed(self._socket.close_code, self._socket.close_reason)
        except asyncio.CancelledError:
            await self._socket.close()
            raise
        finally:
            for task in (speaking, self._renewing):
                if task is not None:
                    task.cancel()
            _cancel(self._deadline, self._pulse)
            self._socket.transport.abort()

    async def _listen(self) -> None:
        with suppress(ConnectionClosed):
            while self._over is None:
                if not self._client._room.is_set():
                    await self._pause()
                frame = await self._socket.recv()
                if self._over is None:
                    self._heard()
                    self._receive(frame)

    def switch(self) -> None:
        """The application follows another company."""
        self._subscribed = False
        if self._asked is not None:
            self._asked.outdated = True  # asked again when the answer is there
        elif self._authenticated_at is not None:
            self._ask()

    async def _speak(self) -> None:
        with suppress(ConnectionClosed):
            while True:
                await self._socket.send(await self._outbox.get())

    def _send(self, message: Row) -> None:
        self._outbox.put_nowait(json.dumps(message))

    # --- deadlines

    def _expect(self, seconds: float) -> None:
        """An answer is due, else the link counts as dead."""
        _cancel(self._deadline)
        self._deadline = self._loop.call_later(seconds, self._lose, _Over("no answer"))

    def _expect_close(self) -> None:
        """The server has said why it closes; the close itself may be lost."""
        _cancel(self._deadline)
        self._deadline = self._loop.call_later(
            self._pace.timeout, lambda: self._lose(self._closed(BROKEN_LINK, None))
        )

    def _lose(self, over: _Over) -> None:
        """The socket is of no use any more; a close that would wait for a dead peer is not."""
        self._over = self._over or over
        self._socket.transport.abort()

    def _heard(self) -> None:
        """Any message is a sign of life."""
        _cancel(self._pulse)
        self._pulse = None
        if self._authenticated_at is not None:
            self._pulse = self._loop.call_later(self._pace.heartbeat, self._probe)
            if self._loop.time() - self._authenticated_at >= self._pace.heartbeat:
                self._client._failures = 0  # it has lived: the next failure is a first one

    def _probe(self) -> None:
        """A silent link is asked; one that does not answer is dead, whatever the socket says."""
        self._send({"type": "ping"})
        self._pulse = self._loop.call_later(self._pace.timeout, self._lose, _Over("silent link"))

    async def _pause(self) -> None:
        """Nothing is read until the application has room: the silence is our own."""
        _cancel(self._deadline, self._pulse)
        await self._client._room.wait()
        self._heard()
        if self._asked is not None:
            self._expect(3 * self._pace.timeout)
        elif self._farewell is not None:
            self._expect_close()

    def _closed(self, code: int | None, reason: str | None) -> _Over:
        """The server closed, or the link broke: what the code means is in docs/protocol.md."""
        farewell = self._farewell or {}
        code = BROKEN_LINK if code is None else code
        if self._farewell is not None and code in SPEECHLESS:
            code = farewell.get("Code", code)
        final = code in FINAL or farewell.get("Reconnect") is False
        if code in {TOKEN_INVALID, TOKEN_EXPIRED}:
            self._client._spent = (self._token, code)
            final = False
        wait = farewell.get("RetryAfterMs")
        if isinstance(wait, int | float) and wait >= 0:
            floor = wait / 1000
        else:
            floor = TOO_MANY_SECONDS if code == TOO_MANY else 0.0
        reason = reason or farewell.get("Reason") or "connection lost"
        return _Over(reason, code=code, floor=floor, final=final)

    # --- what the server says

    def _receive(self, frame: str | bytes) -> None:
        """Takes one message. Raises _Over where there is no sense in going on."""
        try:
            message = json.loads(frame)
        except (ValueError, RecursionError) as error:
            raise self._unreadable() from error
        if not isinstance(message, dict):
            return
        match message.get("Type"):
            case "AuthenticationResult":
                self._admitted(message)
            case "SetCompanyResult":
                self._answered(message)
            case "TokenExpiring":
                if self._renewing is None or self._renewing.done():
                    self._renewing = asyncio.create_task(self._renew())
            case "CompanyRevoked":
                self._revoked(message)
            case "Disconnect":
                self._farewell = _object(message, "Data")
                self._expect_close()
            case "Error":
                fault = _object(message, "Error")
                self._client._tell(self._client.status.state, fault.get("Code"), error=fault)
            case _ if "Position" in message:
                self._change(message, frame)
            case _:
                pass  # Pong; or a later protocol's: what we do not know has no position

    def _unreadable(self) -> _Over:
        """It is asked for again; when that does not help, the state has to be read."""
        if self._subscribed:
            self._client._mends += 1
        return _Over("unreadable message")

    def _admitted(self, message: Row) -> None:
        if not message.get("Success"):
            # The close says what to do; should it get lost, this is it.
            error = _object(message, "Error")
            code = TOKEN_EXPIRED if error.get("Code") == "token_expired" else TOKEN_INVALID
            self._farewell = self._farewell or {"Code": code, "Reason": error.get("Message")}
            self._expect_close()
            return
        self._client._spent = None
        if self._authenticated_at is None:  # else a renewal
            self._authenticated_at = self._loop.time()
            _cancel(self._deadline)
            self._heard()
            self._ask()

    async def _renew(self) -> None:
        """Shows a fresh token on the live socket; without one, the server's close is the last resort."""
        failures = 0
        while True:
            try:
                token = await self._client._token()
            except _Over as over:
                self._client._tell(self._client.status.state, over.reason, error=over.error)
            else:
                if token != self._token:
                    self._token = token
                    self._send({"type": "authenticate", "token": token})
                    return
            await asyncio.sleep(self._pace.min_delay + self._pace.backoff(failures))
            failures += 1

    def _ask(self) -> None:
        client = self._client
        self._subscribed = False
        if client.company is None or client._barred is not None:
            client._tell("idle", client._barred or "no company")
            return
        if client._mends > MOST_MENDS:
            client._head = None  # it cannot be had: the state must be read
        head = client._head
        self._asked = _Asked(client.company, head)
        place = {} if head is None else head._asdict()
        self._send({"type": "setCompany", "data": {"companyId": client.company, **place}})
        self._expect(3 * self._pace.timeout)  # after a restart many ask at once
        if client.status.state != "connecting":
            client._tell("connecting")

    def _answered(self, message: Row) -> None:
        asked, client = self._asked, self._client
        success, data = bool(message.get("Success")), _object(message, "Data")
        if asked is None or (success and not _same(data.get("CompanyId"), asked.company)):
            return
        _cancel(self._deadline)
        self._asked = None
        if asked.outdated:
            self._ask()
            return
        if not success:
            error = _object(message, "Error")
            reason = error.get("Code")
            if reason != "company_forbidden":
                raise _Over(reason or "unreadable message", error=error)
            client._barred = reason
            client._tell("idle", reason, error=error)
            return
        position, epoch = data.get("Position"), data.get("Epoch")
        if not _is_position(position) or not isinstance(epoch, str):
            raise _Over("unreadable message")
        self._subscribed = True
        head = Position(position, epoch)
        client._tell("live")
        if data.get("Recovered") is True and head == asked.head:
            client._say(Recovered(company=asked.company, position=position, epoch=epoch))
            return
        reason = "expired"
        if client._mends > MOST_MENDS:
            reason = "gap"
        elif asked.head is None:
            reason = "start"
        elif epoch != asked.head.epoch:
            reason = "epoch"
        client._resync(asked.company, reason, head)

    def _revoked(self, message: Row) -> None:
        client = self._client
        if self._asked is None and _same(_object(message, "Data").get("CompanyId"), client.company):
            self._subscribed = False
            client._barred = "revoked"
            client._tell("idle", "revoked")

    def _change(self, message: Row, frame: str | bytes) -> None:
        """A message with a position: a change, or a `Resync` of the server's."""
        client, head = self._client, self._client._head
        if not self._subscribed or head is None or client.company is None:
            return  # of the company that we leave, or after the hole that we mend
        position = message["Position"]
        if not _is_position(position):
            raise self._unreadable()
        data = _object(message, "Data")
        if message["Type"] == "Resync":
            epoch = data.get("Epoch") or head.epoch
            if epoch != head.epoch or position > head.after:
                client._resync(client.company, data.get("Reason", ""), Position(position, epoch))
        elif position > head.after + 1:
            client._mends += 1  # something is missing: it is asked for again
            self._ask()
        elif position == head.after + 1:  # else a double
            client._mends = 0
            client._head = Position(position, head.epoch)
            client._say(
                Message(
                    type=message["Type"],
                    company=client.company,
                    data=data,
                    old=_object(message, "Old") if "Old" in message else None,
                    position=position,
                    epoch=head.epoch,
                    at=message.get("At", ""),
                    actor=message.get("Actor"),
                    partial=message.get("Partial") is True,
                    text=frame if isinstance(frame, str) else frame.decode(),
                )
            )


def _position(after: int | None, epoch: str | None) -> Position | None:
    if (after is None) != (epoch is None):
        raise ValueError("after and epoch go together: a position means nothing in another log")
    return None if after is None or epoch is None else Position(after, epoch)


def _cancel(*timers: TimerHandle | None) -> None:
    for timer in timers:
        if timer is not None:
            timer.cancel()


def _object(message: Row, name: str) -> Row:
    value = message.get(name)
    return value if isinstance(value, dict) else {}


def _is_position(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _same(one: object, other: object) -> bool:
    """A uuid may come back in another spelling than it was sent in."""
    return _plain(one) == _plain(other)


def _plain(company: object) -> str:
    return "".join(letter for letter in str(company).lower() if letter not in "-{} \t\r\n")
