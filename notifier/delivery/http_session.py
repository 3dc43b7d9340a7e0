"""One HTTP request for a company's messages: a session that authenticates once and subscribes once.

It shares access, limits, revocation, expiry and drain with the sessions of WebSockets. Until the
response has begun, errors are raised; from then on they are passed to `Transport.end`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Protocol

import msgspec

from notifier import metrics
from notifier.access.tokens import Identity
from notifier.commands import FilteredRequest
from notifier.companies import canonical
from notifier.delivery import answers
from notifier.delivery.expiry import ExpiryTimer
from notifier.delivery.services import Services
from notifier.delivery.session import REFUSED_SECONDS
from notifier.delivery.state import State
from notifier.delivery.subscription import Subscription
from notifier.delivery.transport import Transport
from notifier.errors import Closure, KeysUnavailable, NotReady, TokenExpired, TokenInvalid
from notifier.messages import ServerMessage, SubscribeResult


class ResponseTransport(Transport, Protocol):
    """A transport whose connection carries one subscription."""

    @property
    def begun(self) -> bool:
        """Whether the head of the response was sent: the status can no longer be chosen."""

    def begin(
        self, answer: SubscribeResult, subscription: Subscription, state: State | None
    ) -> None:
        """Answers; the state, if there is one, and the messages after the position of `answer` follow."""

    def send(self, message: ServerMessage) -> None:
        """Sends a message that is not one of the log's."""

    def finish(self) -> None:
        """Ends the response without a Disconnect."""


class HttpSession:
    """One request; the listener of its transport. `user` is empty until it has authenticated.

    Admission counts it until `leave`, which the caller must call.
    """

    __slots__ = (
        "_closure",
        "_ended",
        "_expiry",
        "_identity",
        "_response",
        "_services",
        "_subscription",
        "_waiting",
        "address",
        "transport",
        "user",
    )

    def __init__(self, services: Services, response: ResponseTransport, address: str) -> None:
        """Raises TooMany, or Restart while the node is shutting down."""
        self.address = address
        self.user = ""
        self.transport: Transport = response
        self._response = response
        self._services = services
        self._identity: Identity | None = None
        self._subscription: Subscription | None = None
        self._closure: Closure = NotReady()
        self._ended = False
        self._waiting: asyncio.Timeout | None = None
        services.admission.enter(self)
        self._expiry = ExpiryTimer(self, services.auth_timeout, services.leeway)
        response.listener = self

    @property
    def identity(self) -> Identity:
        """The authenticated user."""
        assert self._identity is not None
        return self._identity

    @property
    def live_subscriptions(self) -> list[Subscription]:
        """The subscription whose access the periodic re-check must cover."""
        subscription = self._subscription
        return [subscription] if subscription is not None and subscription.live else []

    @asynccontextmanager
    async def until_end(self) -> AsyncIterator[None]:
        """Interrupts the block where the session ends before it has subscribed, and raises the Closure that ended it.

        Otherwise a node that is shut down would wait for the database, and cancel the request in the end.
        """
        try:
            async with asyncio.timeout(None) as waiting:
                self._waiting = waiting
                yield
        except TimeoutError:
            if not waiting.expired():
                raise  # the block's own
            raise self._closure.copy() from None
        finally:
            self._waiting = None

    async def authenticate(self, token: str) -> None:
        """Raises TokenInvalid, TooMany, and NotReady where no key is available."""
        admission = self._services.admission
        admission.check_rejections(self.address)
        try:
            identity = await self._services.tokens.verify(token)
        except KeysUnavailable as error:
            raise NotReady from error
        except TokenInvalid as error:
            # Many tokens expire while a service is out of reach: these do not queue.
            address = "" if isinstance(error, TokenExpired) else self.address
            await admission.delay_rejection(address, REFUSED_SECONDS)
            raise
        self._check_open()
        admission.identify(identity.user)
        self.user = identity.user
        self._identity = identity

    async def subscribe(self, request: FilteredRequest) -> bool:
        """Begins the response and replays up to the present; False where the company is refused.

        Refusals of one user delay each other, which bounds how many ids can be tried. Raises Closure,
        Refused and DatabaseError.
        """
        services = self._services
        services.admission.check_rejections(f"user {self.user}")
        company, began = canonical(str(request.company_id)), time.monotonic()
        subscription = await Subscription.open(self, services.hub, services.membership, company)
        if subscription is None:
            metrics.REFUSED.inc()
            await services.admission.delay_rejection(f"user {self.user}", REFUSED_SECONDS)
            return False
        try:
            self._check_open()
            await subscription.use_filter(request.entities, request.where)
            recovered: bool | msgspec.UnsetType = msgspec.UNSET
            if request.after is not None:
                # Without `at` the client of a poll cannot prove that it has reloaded since an earlier one.
                since = began if request.at is None else 0
                place = request.after, request.epoch, request.at
                recovered = await subscription.can_resume(*place, since)
            state = None
            if request.state and recovered is not True:
                state = await subscription.read_state(services.states)
            self._check_open()
        except BaseException:
            subscription.close()
            raise
        self._subscription = subscription
        subscription.begin(request.after if recovered is True else None, state)
        answer = answers.subscribed(subscription, recovered)
        self._response.begin(answer, subscription, state)
        self._expiry.renew(self.identity.expires_at)
        if not self._ended and (state is None or await subscription.send_state(state)):
            await subscription.deliver()
        return True

    def _check_open(self) -> None:
        """Raises the Closure that has ended the session, if any."""
        if self._ended:
            raise self._closure.copy()

    def unsubscribed(self, subscription: Subscription) -> None:
        """The user has lost the company: CompanyRevoked was the last message."""
        self.closed()
        self._response.finish()

    def send(self, message: ServerMessage) -> None:
        """Sends a message to this client alone."""
        self._response.send(message)

    # --- the transport

    def paused(self) -> None:
        """The transport is under back-pressure."""
        if self._subscription is not None:
            self._subscription.paused()

    def resumed(self) -> None:
        """The transport takes direct writes again."""
        if self._subscription is not None:
            self._subscription.resumed()

    # --- the end

    def clock_was_set(self) -> None:
        """Timers do not follow the clock: wait for the token's end by the new time."""
        self._expiry.reschedule()

    def closed(self) -> None:
        """The response has ended, or its connection: nothing more is written."""
        if self._ended:
            return
        self._ended = True
        self._expiry.cancel()
        if self._subscription is not None:
            self._subscription.close()
        elif self._waiting is not None:
            self._waiting.reschedule(asyncio.get_running_loop().time())

    def leave(self) -> None:
        """The response was sent, or its connection is lost: Admission no longer counts the session."""
        self.closed()
        self._services.admission.leave(self)

    def end(self, closure: Closure) -> None:
        """Ends the response for a reason that the client gets."""
        self._closure = closure.copy()
        self.closed()
        self.transport.end(closure)
