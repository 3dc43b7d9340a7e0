"""One socket from `authenticate` to its close."""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from typing import NoReturn

from notifier.client.closes import (
    BROKEN_LINK,
    COMPANY_FORBIDDEN,
    TOKEN_EXPIRED,
    TOKEN_INVALID,
    TOKEN_REFUSED,
    Disconnected,
    closed,
)
from notifier.client.companies import Companies
from notifier.client.deadlines import Deadlines
from notifier.client.feed import Feeds
from notifier.client.inbox import Inbox
from notifier.client.pace import STEADY_SECONDS, Backoff, Pace
from notifier.client.progress import Unreadable, nested
from notifier.client.reports import Row
from notifier.client.shapes import check
from notifier.client.sockets import ConnectionClosed, Socket
from notifier.client.tokens import TokenSource, TokenUnavailable


class Conversation:
    """Speaks the protocol on one open socket, for the companies of one client."""

    def __init__(
        self,
        socket: Socket,
        token: str,
        *,
        feeds: Feeds,
        inbox: Inbox,
        tokens: TokenSource,
        pace: Pace,
        backoff: Backoff,
    ) -> None:
        self._socket = socket
        self._token = token
        self._feeds = feeds
        self._inbox = inbox
        self._tokens = tokens
        self._pace = pace
        self._outbox: asyncio.Queue[str] = asyncio.Queue()
        self._ended: Disconnected | None = None
        self._farewell: Row | None = None  # the `Data` of `Disconnect`
        self._is_authenticated = False
        self._renewal: asyncio.Task[None] | None = None
        self._renewals = 0  # in a row, each soon after the one before
        self._renewed = float("-inf")
        self._deadlines = Deadlines(
            pace, backoff, ping=lambda: self._send({"type": "ping"}), drop=self.drop
        )
        self.companies = Companies(feeds, inbox, deadlines=self._deadlines, send=self._send)

    async def run(self) -> NoReturn:
        """Receives until the socket ends. Raises Disconnected."""
        sending = asyncio.create_task(self._send_queued())
        self._send({"type": "authenticate", "token": self._token})
        self._deadlines.expect_answer()
        try:
            await self._receive_all()
            raise self._ended or self._closed(self._socket.close_code, self._socket.close_reason)
        except asyncio.CancelledError:
            await self._socket.close()
            raise
        finally:
            self.companies.end()
            for task in (sending, self._renewal):
                if task is not None:
                    task.cancel()
            self._deadlines.cancel()
            self._socket.transport.abort()

    async def _receive_all(self) -> None:
        with suppress(ConnectionClosed):
            while self._ended is None:
                if not self._inbox.room.is_set():
                    await self._pause()
                frame = await self._socket.recv()
                if self._ended is None:
                    if self._is_authenticated:
                        self._deadlines.mark_alive()
                    self._receive(frame)

    async def _send_queued(self) -> None:
        with suppress(ConnectionClosed):
            while True:
                await self._socket.send(await self._outbox.get())

    def _send(self, message: Row) -> None:
        self._outbox.put_nowait(json.dumps(message))

    def _report_problem(self, reason: str | None, error: object) -> None:
        self._inbox.put(None, self._feeds.report_problem(reason, error))

    @property
    def is_authenticated(self) -> bool:
        """Whether the server has accepted a token."""
        return self._is_authenticated

    @property
    def token(self) -> str:
        """The token that was presented last."""
        return self._token

    def drop(self, ended: Disconnected) -> None:
        """Aborts the socket: a closing handshake would wait for a dead peer."""
        self._ended = self._ended or ended
        self._socket.transport.abort()

    def _expect_close(self) -> None:
        self._deadlines.expect_close(lambda: self._closed(BROKEN_LINK, None))

    async def _pause(self) -> None:
        """Stops reading until the application has taken reports. No deadline applies meanwhile."""
        self._deadlines.pause()
        await self._inbox.room.wait()
        if self._is_authenticated:
            self._deadlines.mark_alive()
        if self.companies.awaits_answer:
            self._deadlines.expect_result()
        elif self._farewell is not None:
            self._expect_close()
        elif not self._is_authenticated:
            self._deadlines.expect_answer()

    def _closed(self, code: int | None, reason: str | None) -> Disconnected:
        end = closed(code, reason, self._farewell)
        if end.code in TOKEN_REFUSED:
            self._tokens.refuse(self._token, end.code)
        if end.code == COMPANY_FORBIDDEN:
            end.final = self.companies.refuse_first()
        return end

    # --- messages from the server

    def _receive(self, frame: str | bytes) -> None:
        """Handles one message. Raises Disconnected where the connection is of no use any more."""
        try:
            message = json.loads(frame)
        except (ValueError, RecursionError) as error:
            self.companies.count_failure()
            raise Disconnected("unreadable message") from error
        if not isinstance(message, dict):
            return
        try:
            check(message)
        except Unreadable as error:
            self.companies.count_failure()
            raise Disconnected("unreadable message") from error
        match message.get("Type"):
            case "AuthenticationResult":
                self._authenticated(message)
            case "TokenExpiring":
                if self._renewal is None or self._renewal.done():
                    self._renewal = asyncio.create_task(self._renew_token())
            case "Disconnect":
                self._farewell = nested(message, "Data")
                self._expect_close()
            case "Error" if "Data" not in message:
                fault = nested(message, "Error")
                self._report_problem(fault.get("Code"), fault)
            case _:
                self.companies.receive(message, frame)

    def _authenticated(self, message: Row) -> None:
        if not message.get("Success"):
            # The close that follows decides what to do; this is used if the close is lost.
            error = nested(message, "Error")
            code = TOKEN_EXPIRED if error.get("Code") == "token_expired" else TOKEN_INVALID
            self._farewell = self._farewell or {"Code": code, "Reason": error.get("Message")}
            self._expect_close()
            return
        self._tokens.forget_refusal()
        if not self._is_authenticated:  # otherwise the token was renewed
            self._is_authenticated = True
            self._deadlines.end_wait()
            self._deadlines.mark_alive()
            self.companies.open()

    async def _renew_token(self) -> None:
        """Sends a new token on the live socket, as soon as `get_token` returns one.

        After a renewal just now it waits: where clocks differ, each new token is about to expire.
        """
        loop = asyncio.get_running_loop()
        if loop.time() < self._renewed + STEADY_SECONDS:
            await asyncio.sleep(self._pace.min_delay + self._pace.delay(self._renewals))
            self._renewals += 1
        else:
            self._renewals = 0
        failures = 0
        while True:
            try:
                token = await self._tokens.fetch()
            except TokenUnavailable as error:
                self._report_problem("no token", error.__cause__)
            else:
                if token != self._token:
                    self._token = token
                    self._renewed = loop.time()
                    self._send({"type": "authenticate", "token": token})
                    return
            await asyncio.sleep(self._pace.min_delay + self._pace.delay(failures))
            failures += 1
