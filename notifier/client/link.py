"""The connection of a client: connects, and connects again, for all of its companies."""

from __future__ import annotations

import asyncio
from typing import Any

from notifier.client.closes import COMPANY_FORBIDDEN, TOKEN_INVALID, Disconnected
from notifier.client.conversation import Conversation
from notifier.client.feed import NOT_SUBSCRIBED, ArrivalError, Feed, Feeds, Filter
from notifier.client.inbox import Inbox
from notifier.client.pace import Backoff, Pace
from notifier.client.reports import State
from notifier.client.tokens import GetToken, TokenSource, TokenUnavailable
from notifier.client.transports import Transport, Transports

_OVER_WEBSOCKET = Disconnected("a WebSocket works again")

_ENDED = frozenset({"stopped", "closed"})


class Link:
    """Keeps one connection open and the companies on it subscribed. Reports go to `inbox`.

    `taker` is the task that has requested a report last.
    """

    def __init__(self, get_token: GetToken, *, pace: Pace, transports: Transports) -> None:
        self.feeds = Feeds()
        self.inbox = Inbox()
        self.taker: asyncio.Task[Any] | None = None
        self._transports = transports
        self._pace = pace
        self._tokens = TokenSource(get_token, 3 * pace.timeout)
        self._backoff = Backoff(pace)
        self._conversation: Conversation | None = None
        self._running: asyncio.Task[None] | None = None

    @property
    def has_ended(self) -> bool:
        """Whether no further report follows. Raises a fault of the client, which must not look like that."""
        if self._running is None:
            return True
        if not self._running.done():
            return False
        if not self._running.cancelled():
            self._running.result()
        return True

    @property
    def transport(self) -> Transport | None:
        """The transport of the open connection."""
        conversation = self._conversation
        if conversation is None or not conversation.is_authenticated:
            return None
        return self._transports.present

    def start(self) -> None:
        """Connects, in place of an attempt that is under way."""
        former = self._running
        if former is not None:
            former.cancel()
        self._running = asyncio.create_task(self._run(former))
        self._running.add_done_callback(lambda _: self.inbox.wake())

    def restart(self) -> None:
        """Connects at once, and requests again what was refused."""
        for feed in self.feeds:
            feed.progress.blocked = None
        self._tokens.forget_refusal()
        self._backoff.reset()
        self.start()

    async def close(self) -> None:
        """Ends the connection for good."""
        self.feeds.report("closed")
        self.feeds.fail("the client is closed")
        self.inbox.clear()
        if self._running is not None:
            self._running.cancel()
            await asyncio.wait([self._running])
        self.inbox.wake()

    def check_open(self) -> None:
        """Raises RuntimeError once the client is closed."""
        if self.feeds.connection.state == "closed":
            raise RuntimeError("this client is closed")

    def subscribe(self, feed: Feed) -> None:
        """Requests a feed's company, now or when the connection is open."""
        if self._conversation is not None:
            self._conversation.companies.subscribe(feed)
        elif self.feeds.connection.code == COMPANY_FORBIDDEN:
            self.start()

    def set_filter(self, feed: Feed, new: Filter) -> None:
        """Requests another filter."""
        self.check_open()
        if feed.is_closed:
            raise RuntimeError("this subscription has ended")
        feed.filter = new
        if feed.progress.blocked == "bad_filter":
            feed.progress.blocked = None
        self.subscribe(feed)

    def unsubscribe(self, feed: Feed) -> None:
        """Leaves a feed's company."""
        if feed.is_closed:
            return
        feed.close()
        self.feeds.remove(feed)
        self.inbox.discard(feed)
        if self._conversation is not None:
            self._conversation.companies.unsubscribe(feed)

    async def arrived(self, feed: Feed, tx: str) -> int:
        """Waits until the application has taken all messages of a transaction. Raises ArrivalError."""
        if asyncio.current_task() is self.taker:
            raise RuntimeError(
                "arrived() waits for the reports before it: await it in another task"
            )
        state = self.feeds.connection.state
        if feed.is_closed or feed.progress.blocked or state in _ENDED:
            raise ArrivalError(NOT_SUBSCRIBED, feed.progress.blocked or feed.status.state)
        arrival = feed.expect(tx)
        if self._conversation is not None:
            self._conversation.companies.await_transactions()
        try:
            return await arrival
        finally:
            feed.forget(tx, arrival)

    async def _run(self, former: asyncio.Task[None] | None) -> None:
        """Connects again and again, until an attempt ends for good."""
        if former is not None:
            await asyncio.wait([former])
        while True:
            await self.inbox.room.wait()
            self._report("connecting")
            if (end := await self._attempt()) is not None:
                if end.final:
                    self._report("stopped", end)
                    self.feeds.fail(end.reason)
                    return
                delay = self._backoff.next_delay(end.floor)
                self._report("waiting", end, retry_in=delay)
                await asyncio.sleep(delay)

    async def _attempt(self) -> Disconnected | None:
        """One connection, from the token to its end. None: connect again at once, by another transport."""
        try:
            token = await self._fetch_token()
            socket = await self._transports.open()
        except Disconnected as end:
            return end
        conversation = self._conversation = Conversation(
            socket,
            token,
            feeds=self.feeds,
            inbox=self.inbox,
            tokens=self._tokens,
            pace=self._pace,
            backoff=self._backoff,
        )
        returning = asyncio.create_task(self._return_to_websocket(conversation))
        try:
            await conversation.run()
        except Disconnected as end:
            if end is _OVER_WEBSOCKET:
                return None
            return self._transports.ended(socket, end, authenticated=conversation.is_authenticated)
        finally:
            self._conversation = None
            returning.cancel()

    async def _fetch_token(self) -> str:
        """A token that the server has not refused yet. Raises Disconnected."""
        try:
            token = await self._tokens.fetch()
        except TokenUnavailable as error:
            raise Disconnected("no token", error=error.__cause__) from error
        refused = self._tokens.refusal(token)
        if refused is not None:
            invalid = refused == TOKEN_INVALID
            reason = "token refused" if invalid else "token expired"
            raise Disconnected(reason, code=refused, final=invalid)
        return token

    async def _return_to_websocket(self, conversation: Conversation) -> None:
        """Over HTTP: ends the connection once a WebSocket works again."""
        if not self._transports.may_return:
            return
        await self._transports.until_websocket(lambda: conversation.token)
        conversation.drop(_OVER_WEBSOCKET)

    def _report(
        self, state: State, end: Disconnected | None = None, *, retry_in: float | None = None
    ) -> None:
        status = self.feeds.report(
            state,
            reason=None if end is None else end.reason,
            code=None if end is None else end.code,
            error=None if end is None else end.error,
            retry_in=retry_in,
        )
        self.inbox.put(None, status)
