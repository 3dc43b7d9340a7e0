"""One socket from `authenticate` to its close: commands, answers, deadlines."""

from __future__ import annotations

import asyncio
import json
from asyncio import TimerHandle
from contextlib import suppress
from dataclasses import dataclass
from typing import NoReturn

from notifier.client.closes import (
    BROKEN_LINK,
    TOKEN_EXPIRED,
    TOKEN_INVALID,
    TOKEN_REFUSED,
    Disconnected,
    closed,
)
from notifier.client.inbox import Inbox
from notifier.client.pace import STEADY_SECONDS, Backoff, Pace
from notifier.client.reports import Position, Resync, Row, State, Status
from notifier.client.sockets import ConnectionClosed, Socket
from notifier.client.subscription import Gap, Subscription, Unreadable, nested, same_company
from notifier.client.tokens import TokenSource, TokenUnavailable


@dataclass
class _Request:
    """A `setCompany` without an answer yet. `outdated`: the application wants another company."""

    company: str
    head: Position | None
    outdated: bool = False


class Conversation:
    """Speaks the protocol on one open socket, for one subscription."""

    def __init__(
        self,
        socket: Socket,
        token: str,
        *,
        subscription: Subscription,
        inbox: Inbox,
        tokens: TokenSource,
        pace: Pace,
        backoff: Backoff,
    ) -> None:
        self._socket = socket
        self._token = token
        self._subscription = subscription
        self._inbox = inbox
        self._tokens = tokens
        self._pace = pace
        self._backoff = backoff
        self._loop = asyncio.get_running_loop()
        self._outbox: asyncio.Queue[str] = asyncio.Queue()
        self._ended: Disconnected | None = None
        self._farewell: Row | None = None  # the `Data` of `Disconnect`
        self._is_authenticated = False
        self._request: _Request | None = None
        self._subscribed = False
        self._renewal: asyncio.Task[None] | None = None
        self._deadline: TimerHandle | None = None
        self._heartbeat: TimerHandle | None = None
        self._steady: TimerHandle | None = None

    async def run(self) -> NoReturn:
        """Receives until the socket ends. Raises Disconnected."""
        sending = asyncio.create_task(self._send_queued())
        self._send({"type": "authenticate", "token": self._token})
        self._expect_answer(self._pace.timeout)
        try:
            await self._receive_all()
            raise self._ended or self._closed(self._socket.close_code, self._socket.close_reason)
        except asyncio.CancelledError:
            await self._socket.close()
            raise
        finally:
            for task in (sending, self._renewal):
                if task is not None:
                    task.cancel()
            _cancel(self._deadline, self._heartbeat, self._steady)
            self._socket.transport.abort()

    def subscribe(self) -> None:
        """Requests the subscription's company, now or as soon as the server can answer."""
        self._subscribed = False
        if self._request is not None:
            self._request.outdated = True  # repeated when the answer is there
        elif self._is_authenticated:
            self._set_company()

    async def _receive_all(self) -> None:
        with suppress(ConnectionClosed):
            while self._ended is None:
                if not self._inbox.room.is_set():
                    await self._pause()
                frame = await self._socket.recv()
                if self._ended is None:
                    self._mark_alive()
                    self._receive(frame)

    async def _send_queued(self) -> None:
        with suppress(ConnectionClosed):
            while True:
                await self._socket.send(await self._outbox.get())

    def _send(self, message: Row) -> None:
        self._outbox.put_nowait(json.dumps(message))

    def _report(self, state: State, reason: str | None = None, *, error: object = None) -> None:
        company = self._subscription.company
        self._inbox.put(Status(state=state, company=company, reason=reason, error=error))

    # --- deadlines

    def _expect_answer(self, seconds: float) -> None:
        """Drops the link unless the server answers in time."""
        _cancel(self._deadline)
        self._deadline = self._loop.call_later(seconds, self._drop, Disconnected("no answer"))

    def _expect_close(self) -> None:
        """The server has announced the close; the close itself may be lost."""
        _cancel(self._deadline)
        self._deadline = self._loop.call_later(
            self._pace.timeout, lambda: self._drop(self._closed(BROKEN_LINK, None))
        )

    def _drop(self, ended: Disconnected) -> None:
        """Aborts the socket: a closing handshake would wait for a dead peer."""
        self._ended = self._ended or ended
        self._socket.transport.abort()

    def _mark_alive(self) -> None:
        """Starts the heartbeat again; any message is a sign of life."""
        _cancel(self._heartbeat)
        self._heartbeat = None
        if self._is_authenticated:
            self._heartbeat = self._loop.call_later(self._pace.heartbeat, self._ping)

    def _ping(self) -> None:
        """Sends a ping on a silent link, and drops the link unless anything is received in time."""
        self._send({"type": "ping"})
        self._heartbeat = self._loop.call_later(
            self._pace.timeout, self._drop, Disconnected("silent link")
        )

    def _expect_to_last(self) -> None:
        """The connection is a success if it lasts."""
        _cancel(self._steady)
        self._steady = self._loop.call_later(STEADY_SECONDS, self._backoff.reset)

    async def _pause(self) -> None:
        """Stops reading until the application has taken reports. The server need not answer then."""
        _cancel(self._deadline, self._heartbeat)
        await self._inbox.room.wait()
        self._mark_alive()
        if self._request is not None:
            self._expect_answer(3 * self._pace.timeout)
        elif self._farewell is not None:
            self._expect_close()

    def _closed(self, code: int | None, reason: str | None) -> Disconnected:
        end = closed(code, reason, self._farewell)
        if end.code in TOKEN_REFUSED:
            self._tokens.refuse(self._token, end.code)
        return end

    # --- messages from the server

    def _receive(self, frame: str | bytes) -> None:
        """Handles one message. Raises Disconnected where the connection is of no use any more."""
        try:
            message = json.loads(frame)
        except (ValueError, RecursionError) as error:
            if self._subscribed:
                self._subscription.count_failure()
            raise Disconnected("unreadable message") from error
        if not isinstance(message, dict):
            return
        match message.get("Type"):
            case "AuthenticationResult":
                self._authenticated(message)
            case "SetCompanyResult":
                self._answered(message)
            case "TokenExpiring":
                if self._renewal is None or self._renewal.done():
                    self._renewal = asyncio.create_task(self._renew_token())
            case "CompanyRevoked":
                self._revoked(message)
            case "Disconnect":
                self._farewell = nested(message, "Data")
                self._expect_close()
            case "Error":
                fault = nested(message, "Error")
                self._report(self._inbox.status.state, fault.get("Code"), error=fault)
            case _ if "Position" in message:
                self._changed(message, frame if isinstance(frame, str) else frame.decode())
            case _:
                pass  # Pong, or a type of a later protocol: without a position it may be ignored

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
            _cancel(self._deadline)
            self._mark_alive()
            self._set_company()

    async def _renew_token(self) -> None:
        """Sends a new token on the live socket, as soon as `get_token` returns one."""
        failures = 0
        while True:
            try:
                token = await self._tokens.fetch()
            except TokenUnavailable as error:
                self._report(self._inbox.status.state, "no token", error=error.__cause__)
            else:
                if token != self._token:
                    self._token = token
                    self._send({"type": "authenticate", "token": token})
                    return
            await asyncio.sleep(self._pace.min_delay + self._pace.delay(failures))
            failures += 1

    def _set_company(self) -> None:
        subscription = self._subscription
        self._subscribed = False
        if subscription.company is None or subscription.blocked is not None:
            self._expect_to_last()
            self._report("idle", subscription.blocked or "no company")
            return
        data = subscription.request()
        self._request = _Request(subscription.company, subscription.head)
        self._send({"type": "setCompany", "data": data})
        # Many clients subscribe at the same time after a restart of the server.
        self._expect_answer(3 * self._pace.timeout)
        if self._inbox.status.state != "connecting":
            self._report("connecting")

    def _answered(self, message: Row) -> None:
        request = self._request
        success, data = bool(message.get("Success")), nested(message, "Data")
        if request is None or (
            success and not same_company(data.get("CompanyId"), request.company)
        ):
            return
        _cancel(self._deadline)
        self._request = None
        if request.outdated:
            self._set_company()
            return
        if not success:
            error = nested(message, "Error")
            reason = error.get("Code")
            if reason != "company_forbidden":
                raise Disconnected(reason or "unreadable message", error=error)
            self._subscription.blocked = reason
            self._expect_to_last()
            self._report("idle", reason, error=error)
            return
        try:
            report = self._subscription.acknowledge(request.company, request.head, data)
        except Unreadable as error:
            raise Disconnected("unreadable message") from error
        self._subscribed = True
        self._expect_to_last()
        self._report("live")
        if isinstance(report, Resync):
            self._inbox.discard()
        self._inbox.put(report)

    def _revoked(self, message: Row) -> None:
        company = nested(message, "Data").get("CompanyId")
        if self._request is None and same_company(company, self._subscription.company):
            self._subscribed = False
            self._subscription.blocked = "revoked"
            self._report("idle", "revoked")

    def _changed(self, message: Row, text: str) -> None:
        if not self._subscribed:
            return  # of the company that was left, or after a gap that was requested again
        try:
            report = self._subscription.accept(message, text)
        except Unreadable as error:
            raise Disconnected("unreadable message") from error
        except Gap:
            self._set_company()
            return
        if isinstance(report, Resync):
            self._inbox.discard()
        if report is not None:
            self._inbox.put(report)


def _cancel(*timers: TimerHandle | None) -> None:
    for timer in timers:
        if timer is not None:
            timer.cancel()
