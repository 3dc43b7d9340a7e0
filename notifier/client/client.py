"""Notifier's client for Python: follows one company and never loses a message silently.

    async with connect("wss://calendar.example/", get_token, company) as client:
        async for report in client:
            match report:
                case Resync():
                    show(await read_everything(report.company))
                case Message():
                    apply(report.type, report.data)

Each subscription is reported as either `Recovered` (every missed message follows) or `Resync`
(reload your state). Reports that arrive while the loop's body runs wait for it, so a state that was
read earlier can never overwrite a newer message. A slow body slows the socket down; messages that
the server drops meanwhile are requested again.

js/client.js has the same rules and words. The protocol is in docs/protocol.md.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from types import TracebackType
from typing import Any, NoReturn, Self

from notifier.client.closes import COMPANY_FORBIDDEN, TOKEN_INVALID, Disconnected
from notifier.client.conversation import Conversation
from notifier.client.inbox import Inbox
from notifier.client.pace import Backoff, Pace
from notifier.client.reports import Message, Position, Report, Resync, State, Status, position_of
from notifier.client.sockets import OpenSocket, check_url, open_in_time, opener
from notifier.client.subscription import Subscription
from notifier.client.tokens import GetToken, TokenSource, TokenUnavailable


def connect(
    url: str,
    get_token: GetToken,
    company: str | int | None = None,
    *,
    after: int | None = None,
    epoch: str | None = None,
    at: str | None = None,
    heartbeat: float = 15.0,
    timeout: float = 10.0,
    min_delay: float = 1.0,
    max_delay: float = 30.0,
    **options: Any,
) -> Client:
    """A client of the notifier at `url` (`wss://…`); it connects when its `async with` begins.

    Without a company it waits for `set_company`. `after`, `epoch` and `at` are where to resume: the
    value of `client.position` when you saved your state. A token that was refused or has expired is not
    presented again, so a cache behind `get_token` should not outlive the token.

    In seconds: after `heartbeat` of silence the client sends a ping; without an answer within
    `timeout` it drops the link. The first wait before a reconnect is a random part of `min_delay`,
    each further one of twice as long, up to `max_delay`. `options` are those of `websockets`
    (`ssl`, `proxy`, `additional_headers`, …). Raises ValueError for arguments that cannot work.
    """
    check_url(url)
    return Client(
        url,
        get_token,
        company,
        _position(after, epoch, at),
        pace=Pace(heartbeat, timeout, min_delay, max_delay),
        open_socket=opener(options),
    )


class Client:
    """An async context manager that stays connected, and an async iterator of reports."""

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
        self._open_socket = open_socket
        self._pace = pace
        self._subscription = Subscription(None if company is None else str(company), position)
        self._position = position
        self._inbox = Inbox(self._subscription.company)
        self._tokens = TokenSource(get_token, 3 * pace.timeout)
        self._backoff = Backoff(pace)
        self._resync: Resync | None = None  # the application is reloading its state
        self._conversation: Conversation | None = None
        self._running: asyncio.Task[None] | None = None

    @property
    def company(self) -> str | None:
        """The company that the client follows."""
        return self._subscription.company

    @property
    def position(self) -> Position | None:
        """The last message that you have received, with all before it: save it with your state.

        None while your state is incomplete: until you have handled the first `Resync`, and from
        each later one until you request the next report.
        """
        return self._position

    @property
    def status(self) -> Status:
        """The latest status, also if its report has not been taken yet."""
        return self._inbox.status

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

    def __aiter__(self) -> AsyncIterator[Report]:
        return self

    async def __anext__(self) -> Report:
        """The next report. Ends after the last one when the client is stopped or closed."""
        if self._resync is not None:
            self._position = position_of(self._resync)
            self._resync = None
        while (report := self._inbox.take()) is None:
            if self._running is None or self._running.done():
                self._raise_failure()
                raise StopAsyncIteration
            await self._inbox.wait()
        match report:
            case Message():
                self._position = position_of(report)
            case Resync():
                self._position, self._resync = None, report
        return report

    def set_company(
        self,
        company: str | int,
        *,
        after: int | None = None,
        epoch: str | None = None,
        at: str | None = None,
    ) -> None:
        """Follows another company, from a saved position or from the present one.

        Nothing more of the former company is reported.
        """
        self._check_open()
        position = _position(after, epoch, at)
        self._subscription.follow(str(company), position)
        self._position, self._resync = position, None
        self._inbox.discard()
        if self._conversation is not None:
            self._conversation.subscribe()
        elif self.status.code == COMPANY_FORBIDDEN:
            self._start()

    def reconnect(self) -> None:
        """Connects again now, whatever the reason not to."""
        self._check_open()
        self._subscription.blocked = None
        self._tokens.forget_refusal()
        self._backoff.reset()
        self._start()

    async def close(self) -> None:
        """Closes the client for good; the end of `async with` does it."""
        self._inbox.status = Status(state="closed", company=self.company)
        self._inbox.discard()
        if self._running is not None:
            self._running.cancel()
            await asyncio.wait([self._running])
        self._inbox.wake()

    def _check_open(self) -> None:
        if self.status.state == "closed":
            raise RuntimeError("this client is closed")

    def _start(self) -> None:
        former = self._running
        if former is not None:
            former.cancel()
        self._running = asyncio.create_task(self._run(former))
        self._running.add_done_callback(lambda _: self._inbox.wake())

    def _raise_failure(self) -> None:
        """Raises a fault of the client itself, which must not look like a regular end."""
        if self._running is not None and not self._running.cancelled():
            self._running.result()

    async def _run(self, former: asyncio.Task[None] | None) -> None:
        """Connects again and again, until an attempt ends for good."""
        if former is not None:
            await asyncio.wait([former])
        while True:
            await self._inbox.room.wait()
            self._report("connecting")
            try:
                await self._converse()
            except Disconnected as end:
                if end.final:
                    self._report("stopped", end)
                    return
                delay = self._backoff.next_delay(end.floor)
                self._report("waiting", end, retry_in=delay)
                await asyncio.sleep(delay)

    async def _converse(self) -> NoReturn:
        """One attempt, from the token to the close. Raises Disconnected."""
        try:
            token = await self._tokens.fetch()
        except TokenUnavailable as error:
            raise Disconnected("no token", error=error.__cause__) from error
        refused = self._tokens.refusal(token)
        if refused is not None:
            invalid = refused == TOKEN_INVALID
            reason = "token refused" if invalid else "token expired"
            raise Disconnected(reason, code=refused, final=invalid)
        self._conversation = Conversation(
            await open_in_time(self._open_socket, self._url, self._pace.timeout),
            token,
            subscription=self._subscription,
            inbox=self._inbox,
            tokens=self._tokens,
            pace=self._pace,
            backoff=self._backoff,
        )
        try:
            await self._conversation.run()
        finally:
            self._conversation = None

    def _report(
        self, state: State, end: Disconnected | None = None, *, retry_in: float | None = None
    ) -> None:
        status = Status(
            state=state,
            company=self.company,
            reason=None if end is None else end.reason,
            code=None if end is None else end.code,
            error=None if end is None else end.error,
            retry_in=retry_in,
        )
        self._inbox.put(status)


def _position(after: int | None, epoch: str | None, at: str | None) -> Position | None:
    if (after is None) != (epoch is None):
        raise ValueError("after and epoch go together: a position means nothing in another log")
    if after is None or epoch is None:
        return None
    return Position(after, epoch, at)
