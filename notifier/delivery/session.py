"""One client's conversation, without its connection: commands in, answers out.

    authenticate → AuthenticationResult
    setCompany   → SetCompanyResult, the missed messages, live ones
    subscribe    → SubscribeResult, the same for another company
    unsubscribe  → UnsubscribeResult
    await        → Arrived, or an Error, later
    ping         → Pong

Commands are handled one after the other. A Closure ends the session: it is raised while a command
is handled, and passed to `Transport.end` at any other time.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from enum import Enum
from typing import NoReturn, assert_never

import msgspec
import structlog

from notifier import metrics
from notifier.access.tokens import Identity
from notifier.commands import (
    MESSAGE_BYTES,
    Authenticate,
    Await,
    Command,
    CompanyRequest,
    FilteredRequest,
    Ping,
    SetCompany,
    Subscribe,
    Unreadable,
    Unsubscribe,
    decode,
)
from notifier.companies import canonical
from notifier.delivery import answers
from notifier.delivery.expiry import ExpiryTimer
from notifier.delivery.rate import count_command
from notifier.delivery.services import Services
from notifier.delivery.state import State
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
    Refused,
    TokenExpired,
    TokenInvalid,
    TooBig,
    Unavailable,
)
from notifier.messages import (
    Authenticated,
    AuthenticationResult,
    Error,
    Fault,
    Pong,
    ServerMessage,
    encode,
    timestamp,
)

MALFORMED_LIMIT = 10
REFUSED_LIMIT = 10
REFUSED_SECONDS = 0.1
"""How long a refusal takes, which bounds how many ids or tokens can be tried."""

RATE_LIMIT = 100
"""How many commands a client may send in any RATE_SECONDS."""

SUBSCRIBE_RATE_LIMIT = 500
"""The same for commands of which a client sends one for each company: `subscribe`, `unsubscribe` and `await`."""

_logger = structlog.get_logger("notifier.session")


class Stage(Enum):
    """The stage of a session's life."""

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
        "_handling",
        "_identity",
        "_malformed",
        "_refused",
        "_services",
        "_subscribe_times",
        "_subscriptions",
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
        # A tuple: most sessions have one subscription, and those that have many keep them.
        self._subscriptions: tuple[Subscription, ...] = ()
        self._malformed = self._refused = 0
        self._command_times: list[float] = []
        self._subscribe_times: list[float] | None = None
        self._handling: asyncio.Timeout | None = None
        services.admission.enter(self)
        self._expiry = ExpiryTimer(self, services.auth_timeout, services.leeway)
        transport.listener = self

    @property
    def identity(self) -> Identity:
        """The authenticated user."""
        assert self._identity is not None
        return self._identity

    @property
    def live_subscriptions(self) -> list[Subscription]:
        """The subscriptions whose access the periodic re-check must cover; others check themselves."""
        return [subscription for subscription in self._subscriptions if subscription.live]

    # --- commands

    async def receive(self, text: str) -> None:
        """Handles one message of the client. Raises the Closure that it is answered with, if any."""
        if self._is_ended():
            return
        if len(text) > MESSAGE_BYTES // 4 and len(text.encode()) > MESSAGE_BYTES:
            raise TooBig
        try:
            command = decode(text)
        except Unreadable as error:
            self._check_rate(None)
            self._malformed += 1
            if self._malformed > MALFORMED_LIMIT:
                raise Malformed from error
            self.send(Error(error=Fault(code=error.code, message=error.message)))
            return
        self._check_rate(command)
        match command:
            case Authenticate():
                await self._authenticate(command)
            case Ping():
                self.send(Pong())
            case _ if self.stage is Stage.NEW:
                fault = Fault(code=Code.NOT_AUTHENTICATED, message="authenticate first")
                self.send(Error(error=fault))
            case SetCompany() | Subscribe():
                async with self._until_end():
                    await self._subscribe(command)
            case Unsubscribe():
                self._unsubscribe(command)
            case Await():
                company = canonical(str(command.data.company_id))
                self._services.arrivals.wait(self, company, int(command.data.tx))
            case _:
                assert_never(command)

    def _check_rate(self, command: Command | None) -> None:
        """Counts a command, None where it is unreadable. Raises TooMany."""
        if command is None or isinstance(command, Authenticate | SetCompany | Ping):
            count_command(self._command_times, RATE_LIMIT)
            return
        if self._subscribe_times is None:
            self._subscribe_times = []
        count_command(self._subscribe_times, SUBSCRIBE_RATE_LIMIT)

    async def _authenticate(self, command: Authenticate) -> None:
        admission = self._services.admission
        if self.stage is Stage.NEW:
            admission.check_rejections(self.address)
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
            async with self._until_end():
                for subscription in self._subscriptions:
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

    async def _subscribe(self, command: SetCompany | Subscribe) -> None:
        """Handles setCompany and subscribe, which differ in what becomes of the other companies."""
        services, company = self._services, canonical(str(command.data.company_id))
        is_full = len(self._subscriptions) >= services.max_companies
        if is_full and isinstance(command, Subscribe) and self.subscription_to(company) is None:
            text = f"at most {services.max_companies} companies on one socket"
            self._fail(command, company, Code.TOO_MANY_COMPANIES, text)
            return
        try:
            subscription = await Subscription.open(self, services.hub, services.membership, company)
        except DatabaseError as error:
            _logger.warning("access to a company could not be checked", error=str(error))
            self._fail(
                command, company, Code.UNAVAILABLE, "access cannot be checked now; try again"
            )
            return
        if subscription is None:
            await self._refuse(command, company)
            return
        try:
            await self._follow(subscription, command)
        except Refused as error:
            subscription.close()
            self._fail(command, company, error.code, str(error))
        except BaseException as error:
            subscription.close()
            if isinstance(error, DatabaseError):
                raise NotReady from error
            raise

    async def _follow(self, subscription: Subscription, command: SetCompany | Subscribe) -> None:
        """Answers, closes the subscriptions that it replaces, and replays up to the present.

        Raises Refused before anything has changed.
        """
        request = command.data
        try:
            recovered, state = await self._prepare(subscription, request)
        except DatabaseError as error:
            _logger.warning("a company could not be subscribed to", error=str(error))
            raise Unavailable("the database does not answer now; try again") from error
        if self._is_ended():
            subscription.close()
            return
        for each in self._subscriptions:
            if isinstance(command, SetCompany) or each.company == subscription.company:
                each.close()
                self.unsubscribed(each)
        self._subscriptions += (subscription,)
        subscription.begin(request.after if recovered is True else None, state)
        self.send(answers.success(command, subscription, recovered))
        if state is None or await subscription.send_state(state):
            await subscription.deliver()

    async def _prepare(
        self, subscription: Subscription, request: CompanyRequest
    ) -> tuple[bool | msgspec.UnsetType, State | None]:
        """What the answer needs of the database: `Recovered`, and the state if one is sent."""
        recovered: bool | msgspec.UnsetType = msgspec.UNSET
        filtered = request if isinstance(request, FilteredRequest) else None
        if filtered is not None:
            await subscription.use_filter(filtered.entities, filtered.where)
        if request.after is not None:
            place = request.after, request.epoch, request.at
            recovered = await subscription.can_resume(*place, since=0)
        if filtered is not None and filtered.state and recovered is not True:
            return recovered, await subscription.read_state(self._services.states)
        return recovered, None

    def _unsubscribe(self, command: Unsubscribe) -> None:
        company = canonical(str(command.data.company_id))
        subscription = self.subscription_to(company)
        if subscription is not None:
            subscription.close()
            self.unsubscribed(subscription)
        self.send(answers.unsubscribed(company, was_subscribed=subscription is not None))

    async def _refuse(self, command: SetCompany | Subscribe, company: str) -> None:
        self._refused += 1
        metrics.REFUSED.inc()
        if self._refused > REFUSED_LIMIT:
            raise Forbidden
        await asyncio.sleep(REFUSED_SECONDS)
        self._fail(command, company, Code.COMPANY_FORBIDDEN, "no such company for this user")

    def _fail(self, command: SetCompany | Subscribe, company: str, code: Code, text: str) -> None:
        self.send(answers.failure(command, company, code, text))

    def subscription_to(self, company: str) -> Subscription | None:
        """The subscription to a company, if there is one."""
        return next((each for each in self._subscriptions if each.company == company), None)

    def unsubscribed(self, subscription: Subscription) -> None:
        """The subscription is closed: the user has lost the company, or has left it."""
        self._subscriptions = tuple(
            each for each in self._subscriptions if each is not subscription
        )

    def clock_was_set(self) -> None:
        """Restarts the wait for the token's expiry: timers do not follow the clock."""
        self._expiry.reschedule()

    # --- the transport

    def paused(self) -> None:
        """The transport is under back-pressure."""
        for subscription in self._subscriptions:
            subscription.paused()

    def resumed(self) -> None:
        """The transport takes direct writes again."""
        for subscription in self._subscriptions:
            subscription.resumed()

    def send(self, message: ServerMessage) -> None:
        """Sends a message to this client alone."""
        transport, body = self.transport, encode(message)
        encoding = transport.encoding.unshared or transport.encoding
        transport.write(encoding.frame(body), [body])

    # --- the end

    def _is_ended(self) -> bool:
        return self.stage is Stage.ENDED

    @asynccontextmanager
    async def _until_end(self) -> AsyncIterator[None]:
        """Interrupts the block where the session ends: what was requested of the database is not needed any more."""
        try:
            async with asyncio.timeout(None) as handling:
                self._handling = handling
                yield
        except TimeoutError:
            if not handling.expired():
                raise  # the block's own
        finally:
            self._handling = None

    def closed(self) -> None:
        """The connection is closing or closed: nothing more is written."""
        if self._is_ended():
            return
        self.stage = Stage.ENDED
        self._expiry.cancel()
        if self._handling is not None:
            self._handling.reschedule(asyncio.get_running_loop().time())
        for subscription in self._subscriptions:
            subscription.close()
        self._subscriptions = ()
        self._services.arrivals.forget(self)
        self._services.admission.leave(self)

    def end(self, closure: Closure) -> None:
        """Ends the session for a reason that is sent to the client."""
        if not self._is_ended():
            self.closed()
            self.transport.end(closure)
