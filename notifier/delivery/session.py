"""One client's conversation, without its connection: commands in, answers out.

    authenticate → AuthenticationResult
    setCompany   → SetCompanyResult, the missed messages, live ones
    ping         → Pong

Commands are handled one after the other. A Closure ends the session: it is raised while a command
is handled, and given to `Transport.end` at any other time.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from enum import Enum
from typing import NoReturn, assert_never

import msgspec
import structlog

from notifier import metrics
from notifier.access.admission import Admission
from notifier.access.membership import Membership
from notifier.access.tokens import Identity, Tokens
from notifier.commands import (
    MESSAGE_BYTES,
    Authenticate,
    CompanyRequest,
    Ping,
    SetCompany,
    Unreadable,
    decode,
)
from notifier.companies import canonical
from notifier.delivery.expiry import ExpiryTimer
from notifier.delivery.hub import Hub
from notifier.delivery.subscription import Subscription
from notifier.delivery.transport import Transport
from notifier.errors import (
    AnotherUser,
    BadToken,
    Closure,
    Code,
    DatabaseError,
    Expired,
    Forbidden,
    KeysUnavailable,
    Malformed,
    NotReady,
    TokenExpired,
    TokenInvalid,
    TooBig,
    TooMany,
)
from notifier.messages import (
    Authenticated,
    AuthenticationResult,
    CompanySet,
    Error,
    Fault,
    Pong,
    ServerMessage,
    SetCompanyResult,
    at_text,
    encode,
    timestamp,
)

MALFORMED_LIMIT = 10
REFUSED_LIMIT = 10
REFUSED_SECONDS = 0.1
"""How long a refusal takes, which bounds how many ids or tokens can be tried."""

RATE_LIMIT, RATE_SECONDS = 100, 10.0

_logger = structlog.get_logger("notifier.session")


@dataclass(slots=True)
class Services:
    """What all sessions of a node share. `auth_timeout` and `leeway` (of expiry) are in seconds."""

    hub: Hub
    tokens: Tokens
    membership: Membership
    admission: Admission[Session]
    auth_timeout: float
    leeway: float


class Stage(Enum):
    """Where in its life a session is."""

    NEW = "new"
    AUTHENTICATED = "authenticated"
    ENDED = "ended"


class Session:
    """One conversation; the listener of its transport.

    `address`: the address group that its peer is counted by; empty where it is not known.
    `user`: empty until it has authenticated.
    """

    __slots__ = (
        "_command_times",
        "_expiry",
        "_identity",
        "_malformed",
        "_refused",
        "_services",
        "_subscription",
        "address",
        "stage",
        "transport",
        "user",
    )

    def __init__(self, services: Services, transport: Transport, address: str = "") -> None:
        """Raises TooMany, or Restart while the node is shutting down."""
        self.address = address
        self.user = ""
        self.stage = Stage.NEW
        self.transport = transport
        self._services = services
        self._identity: Identity | None = None
        self._subscription: Subscription | None = None
        self._malformed = self._refused = 0
        self._command_times: list[float] = []
        services.admission.enter(self)
        self._expiry = ExpiryTimer(self, services.auth_timeout, services.leeway)
        transport.listener = self

    @property
    def identity(self) -> Identity:
        """Who has authenticated."""
        assert self._identity is not None
        return self._identity

    @property
    def live_subscriptions(self) -> list[Subscription]:
        """The subscriptions whose access the periodic re-check must cover; others check themselves."""
        subscription = self._subscription
        return [subscription] if subscription is not None and subscription.live else []

    # --- commands

    async def receive(self, text: str) -> None:
        """Handles one message of the client. Raises the Closure that it is answered with, if any."""
        if self._is_ended():
            return
        if len(text) > MESSAGE_BYTES // 4 and len(text.encode()) > MESSAGE_BYTES:
            raise TooBig
        self._check_rate()
        try:
            command = decode(text)
        except Unreadable as error:
            self._malformed += 1
            if self._malformed > MALFORMED_LIMIT:
                raise Malformed from error
            self.send(Error(error=Fault(code=error.code, message=error.message)))
            return
        match command:
            case Authenticate():
                await self._authenticate(command)
            case SetCompany():
                await self._set_company(command)
            case Ping():
                self.send(Pong())
            case _:
                assert_never(command)

    def _check_rate(self) -> None:
        """Allows 100 messages in any 10 seconds."""
        now = time.monotonic()
        times = self._command_times
        while times and times[0] <= now - RATE_SECONDS:
            del times[0]
        times.append(now)
        if len(times) > RATE_LIMIT:
            raise TooMany

    async def _authenticate(self, command: Authenticate) -> None:
        admission = self._services.admission
        if self.stage is Stage.NEW:
            admission.check_token_queue(self.address)
        try:
            identity = await self._services.tokens.verify(command.token)
        except KeysUnavailable as error:
            raise NotReady from error
        except TokenInvalid as error:
            await self._reject(error)
        if self._is_ended():  # the keys took their time
            return
        if self.stage is Stage.NEW:
            admission.identify(identity.user)
            self.user = identity.user
            self.stage = Stage.AUTHENTICATED
        elif identity.user != self.user:
            raise AnotherUser
        self._identity = identity
        expires = timestamp(identity.expires_at)
        data = Authenticated(user_id=identity.user, expires_at=expires)
        self.send(AuthenticationResult(success=True, data=data))
        self._expiry.renew(identity.expires_at)
        membership = self._services.membership
        if not membership.follows_rows:  # the new token may name other companies
            for subscription in self.live_subscriptions:
                if not await membership.may_see(identity, subscription.company):
                    subscription.revoke()

    async def _reject(self, error: TokenInvalid) -> NoReturn:
        expired = isinstance(error, TokenExpired)
        # Many tokens expire while a service is out of reach: these do not queue.
        address = "" if expired else self.address
        await self._services.admission.delay_rejection(address, REFUSED_SECONDS)
        code = Code.TOKEN_EXPIRED if expired else Code.TOKEN_INVALID
        message = "the token has expired" if expired else "the token is not valid"
        self.send(AuthenticationResult(success=False, error=Fault(code=code, message=message)))
        raise (Expired if expired else BadToken) from error

    async def _set_company(self, command: SetCompany) -> None:
        if self.stage is Stage.NEW:
            fault = Fault(code=Code.NOT_AUTHENTICATED, message="authenticate first")
            self.send(Error(error=fault))
            return
        services, request = self._services, command.data
        company = canonical(str(request.company_id))
        try:
            subscription = await Subscription.open(self, services.hub, services.membership, company)
        except DatabaseError as error:
            _logger.warning("access to a company could not be checked", error=str(error))
            fault = Fault(code=Code.UNAVAILABLE, message="access cannot be checked now; try again")
            self.send(SetCompanyResult(success=False, error=fault))
            return
        if subscription is None:
            await self._refuse()
            return
        try:
            await self._follow(subscription, request)
        except BaseException as error:
            subscription.close()
            if isinstance(error, DatabaseError):
                raise NotReady from error
            raise

    async def _follow(self, subscription: Subscription, request: CompanyRequest) -> None:
        """Answers setCompany, leaves the former company, and replays up to the present."""
        recovered: bool | msgspec.UnsetType = msgspec.UNSET
        if request.after is not None:
            recovered = await subscription.can_resume(request.after, request.epoch, request.at)
        if self._is_ended():
            subscription.close()
            return
        if self._subscription is not None:
            self._subscription.close()
        self._subscription = subscription
        subscription.begin(request.after if recovered is True else None)
        data = CompanySet(
            company_id=subscription.company,
            position=subscription.position,
            epoch=subscription.epoch,
            at=msgspec.UNSET if subscription.at is None else at_text(subscription.at),
            recovered=recovered,
        )
        self.send(SetCompanyResult(success=True, data=data))
        await subscription.deliver()

    async def _refuse(self) -> None:
        self._refused += 1
        metrics.REFUSED.inc()
        if self._refused > REFUSED_LIMIT:
            raise Forbidden
        await asyncio.sleep(REFUSED_SECONDS)
        fault = Fault(code=Code.COMPANY_FORBIDDEN, message="no such company for this user")
        self.send(SetCompanyResult(success=False, error=fault))

    def unsubscribed(self, subscription: Subscription) -> None:
        """The user has lost the company."""
        if self._subscription is subscription:
            self._subscription = None

    def clock_was_set(self) -> None:
        """Restarts the wait for the token's expiry: timers do not follow the clock."""
        self._expiry.look()

    # --- the transport

    def paused(self) -> None:
        """The transport is under back-pressure."""
        if self._subscription is not None:
            self._subscription.paused()

    def resumed(self) -> None:
        """The transport takes direct writes again."""
        if self._subscription is not None:
            self._subscription.resumed()

    def send(self, message: ServerMessage) -> None:
        """Sends a message to this client alone."""
        transport, body = self.transport, encode(message)
        encoding = transport.encoding.unshared or transport.encoding
        transport.write(encoding.frame(body), [body])

    # --- the end

    def _is_ended(self) -> bool:
        return self.stage is Stage.ENDED

    def closed(self) -> None:
        """The connection is closing or closed: nothing more is written."""
        if self._is_ended():
            return
        self.stage = Stage.ENDED
        self._expiry.cancel()
        if self._subscription is not None:
            self._subscription.close()
            self._subscription = None
        self._services.admission.leave(self)

    def end(self, closure: Closure) -> None:
        """Ends the session for a reason that is sent to the client."""
        if not self._is_ended():
            self.closed()
            self.transport.end(closure)
