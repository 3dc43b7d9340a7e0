"""One client's conversation, without its socket: what it says, and what is answered.

    authenticate → AuthenticationResult
    setCompany   → SetCompanyResult, the missed messages, live ones
    ping         → Pong

Commands are heard one after the other. What ends the conversation is raised as a Closure while one
is heard, and given to `Wire.end` at any other time.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Protocol, assert_never

import msgspec
import structlog

from notifier import metrics
from notifier.access.admission import Admission
from notifier.access.membership import Membership
from notifier.access.tokens import Identity, Tokens
from notifier.companies import canonical
from notifier.delivery.hub import Channel, Hub
from notifier.errors import (
    AnotherUser,
    BadToken,
    Closure,
    Code,
    DatabaseError,
    Expired,
    Forbidden,
    Internal,
    KeysUnavailable,
    Malformed,
    NotAuthenticated,
    NotReady,
    TokenExpired,
    TokenInvalid,
    TooBig,
    TooMany,
)
from notifier.frames import body, chunks, frame
from notifier.messages import (
    Authenticate,
    Authenticated,
    AuthenticationResult,
    CompanyOnly,
    CompanyRevoked,
    CompanySet,
    Error,
    Expiry,
    Fault,
    NotUnderstood,
    Ping,
    Pong,
    Said,
    SetCompany,
    SetCompanyResult,
    TokenExpiring,
    decode,
    encode,
    timestamp,
)

MALFORMED_LIMIT = 10
REFUSED_LIMIT = 10
REFUSED_SECONDS = 0.1
"""What a refusal takes, so that nobody tries many ids or tokens in little time."""

BEFORE_BYTES, AFTER_BYTES = 16 * 1024, 64 * 1024
"""The largest message, before authentication and after."""

RATE_LIMIT, RATE_SECONDS = 100, 10.0
WARNING_SECONDS, SHORT_LIFE_SHARE = 60.0, 0.8
"""How long before its end a token is said to expire; at which part of a shorter life."""

LONGEST_TIMER = 24 * 3600.0

REPLAY_SECONDS = 60.0
"""After so long access is asked about anew in a replay: who reads slowly would never be level."""

_log = structlog.get_logger("notifier.session")


class Wire(Protocol):
    """The socket, as a session sees it."""

    @property
    def fast(self) -> Callable[[bytes], object] | None:
        """The transport's write, where there is one and it does not pile up: takes whole frames."""

    @property
    def deflates(self) -> bool:
        """Whether these may be compressed ones."""

    def write(self, frames: bytes, bodies: Sequence[bytes]) -> None:
        """Queues frames, or the same as texts; ends the socket when too much is queued."""

    async def drain(self) -> None:
        """Until there is room for more. Raises TooSlow."""

    def end(self, closure: Closure) -> None:
        """Says Disconnect, closes, and aborts if that is not heard."""


class Parts:
    """What all sessions share."""

    __slots__ = ("admission", "auth_timeout", "hub", "leeway", "membership", "tokens")

    def __init__(
        self,
        hub: Hub,
        tokens: Tokens,
        membership: Membership,
        admission: Admission[Session],
        *,
        auth_timeout: float,
        leeway: float,
    ) -> None:
        self.hub = hub
        self.tokens = tokens
        self.membership = membership
        self.admission = admission
        self.auth_timeout = auth_timeout
        self.leeway = leeway


class Session:
    """One conversation; also the subscriber of its company's channel.

    `address`: what its peer is counted by; empty where nobody knows.
    """

    __slots__ = (
        "_channel",
        "_identity",
        "_malformed",
        "_parts",
        "_refused",
        "_task",
        "_timer",
        "_times",
        "_wire",
        "address",
        "ended",
        "user",
    )

    def __init__(self, parts: Parts, wire: Wire, address: str = "") -> None:
        self.address = address
        self._parts = parts
        self._wire = wire
        self._identity: Identity | None = None
        self._channel: Channel | None = None
        self._malformed = self._refused = 0
        self._times: list[float] = []
        self._task: asyncio.Task[None] | None = None
        self.ended = False
        self.user = ""
        parts.admission.enter(self)
        self._timer = asyncio.get_running_loop().call_later(
            parts.auth_timeout, self._end, NotAuthenticated()
        )

    # --- what the client says

    async def hear(self, text: str) -> None:
        """Takes one message of the client's. Raises Closure when it was one too many."""
        limit = BEFORE_BYTES if self._identity is None else AFTER_BYTES
        if len(text) > limit // 4 and len(text.encode()) > limit:
            raise TooBig
        self._count()
        try:
            command = decode(text)
        except NotUnderstood as error:
            self._malformed += 1
            if self._malformed > MALFORMED_LIMIT:
                raise Malformed from error
            self._say(Error(error=Fault(code=error.code, message=error.message)))
            return
        match command:
            case Authenticate():
                await self._authenticate(command)
            case SetCompany():
                await self._set_company(command)
            case Ping():
                self._say(Pong())
            case _:
                assert_never(command)

    def _count(self) -> None:
        """No more than 100 messages in any 10 seconds."""
        now = time.monotonic()
        times = self._times
        while times and times[0] <= now - RATE_SECONDS:
            del times[0]
        times.append(now)
        if len(times) > RATE_LIMIT:
            raise TooMany

    async def _authenticate(self, command: Authenticate) -> None:
        admission = self._parts.admission
        if self._identity is None:
            admission.check_token_queue(self.address)
        try:
            identity = await self._parts.tokens.verify(command.token)
        except KeysUnavailable as error:
            raise NotReady from error
        except TokenInvalid as error:
            expired = isinstance(error, TokenExpired)
            code = Code.TOKEN_EXPIRED if expired else Code.TOKEN_INVALID
            said = "the token has expired" if expired else "the token is not valid"
            # Many tokens expire in the time of an outage: only bad ones stand in line.
            await admission.delay_rejection("" if expired else self.address, REFUSED_SECONDS)
            self._say(AuthenticationResult(success=False, error=Fault(code=code, message=said)))
            raise (Expired if expired else BadToken) from error
        if self.ended:  # the keys were long in coming
            return
        if self._identity is None:
            admission.identify(identity.user)
            self.user = identity.user
        elif identity.user != self.user:
            raise AnotherUser
        self._identity = identity
        expires = timestamp(identity.expires_at)
        self._say(
            AuthenticationResult(
                success=True, data=Authenticated(user_id=identity.user, expires_at=expires)
            )
        )
        self.look_at_the_clock()
        channel = self._channel
        membership = self._parts.membership
        if (
            channel is not None
            and not membership.follows_rows
            and not await membership.may(identity, channel.company)
        ):
            self.revoke(channel)

    # --- the token's life

    def look_at_the_clock(self) -> None:
        """Waits for the token's end; call it again when the clock was set."""
        if self._identity is None or self.ended:
            return
        left = self._identity.expires_at - time.time()
        self._wait(left - WARNING_SECONDS if left > WARNING_SECONDS else left * SHORT_LIFE_SHARE)

    def _wait(self, seconds: float) -> None:
        """The one timer: the warning first, then the end. Long waits are cut in pieces."""
        self._timer.cancel()
        loop = asyncio.get_running_loop()
        if seconds > LONGEST_TIMER:
            self._timer = loop.call_later(LONGEST_TIMER, self._wait, seconds - LONGEST_TIMER)
        else:
            self._timer = loop.call_later(max(0.0, seconds), self._warn)

    def _warn(self) -> None:
        identity = self._identity
        if identity is None or self.ended:
            return
        self._say(TokenExpiring(data=Expiry(expires_at=timestamp(identity.expires_at))))
        left = identity.expires_at + self._parts.leeway - time.time()
        self._timer = asyncio.get_running_loop().call_later(max(0.0, left), self._expire)

    def _expire(self) -> None:
        """Looks at the clock again: it may have been set."""
        identity = self._identity
        if identity is None:
            return
        left = identity.expires_at + self._parts.leeway - time.time()
        if left > 0:
            self._timer = asyncio.get_running_loop().call_later(min(left, 60.0), self._expire)
        else:
            self._end(Expired())

    # --- the company

    async def _set_company(self, command: SetCompany) -> None:
        identity = self._identity
        if identity is None:
            self._say(Error(error=Fault(code=Code.NOT_AUTHENTICATED, message="authenticate first")))
            return
        company = canonical(command.company)
        hub = self._parts.hub
        try:
            if not hub.epoch:
                raise DatabaseError("the log has not been read yet")  # noqa: TRY301 - answered like a failure
            serial = hub.serial
            channel = await self._enter(identity, company)
        except DatabaseError as error:
            _log.warning("a company could not be looked up", error=str(error))
            fault = Fault(code=Code.UNAVAILABLE, message="this cannot be checked now; try again")
            self._say(SetCompanyResult(success=False, error=fault))
            return
        if channel is None:
            await self._refuse()
            return
        try:
            recovered: bool | None = None
            if command.after is not None:
                recovered = command.epoch == hub.epoch and await hub.reaches(channel, command.after)
                metrics.RESUMES.labels(str(recovered).lower()).inc()
            self._leave()
            position = (
                command.after if recovered and command.after is not None else channel.position
            )
            data = CompanySet(
                company_id=company,
                position=position,
                epoch=hub.epoch,
                recovered=msgspec.UNSET if recovered is None else recovered,
            )
            self._say(SetCompanyResult(success=True, data=data))
            await self._follow(channel, position, hub.epoch, serial)
        except DatabaseError as error:
            raise NotReady from error
        finally:
            hub.close(channel)

    async def _enter(self, identity: Identity, company: str) -> Channel | None:
        """The company's channel, pinned; None where the user may not see it."""
        hub, may = self._parts.hub, self._parts.membership.may
        known = hub.known(company)
        if not await may(identity, company):
            return None
        channel = await hub.open(company)
        # A channel that was opened since begins where the log is, which this node may not have
        # heard yet: neither who has lost the company with it.
        try:
            allowed = channel is known or await may(identity, company)
        except BaseException:
            hub.close(channel)
            raise
        if allowed:
            return channel
        hub.close(channel)
        return None

    async def _refuse(self) -> None:
        self._refused += 1
        metrics.REFUSED.inc()
        if self._refused > REFUSED_LIMIT:
            raise Forbidden
        await asyncio.sleep(REFUSED_SECONDS)
        fault = Fault(code=Code.COMPANY_FORBIDDEN, message="no such company for this user")
        self._say(SetCompanyResult(success=False, error=fault))

    async def _follow(self, channel: Channel, position: int, epoch: str, serial: int) -> None:
        """Replays what comes after `position` of the epoch, then joins, with nothing between.

        `serial` is the hub's at a moment before access was checked.
        """
        hub, membership, identity = self._parts.hub, self._parts.membership, self._identity
        assert identity is not None
        asked = time.monotonic()

        def doubtful() -> bool:
            return membership.follows_rows and (
                hub.revoked(channel.company, self.user, serial)
                or time.monotonic() > asked + REPLAY_SECONDS
            )

        while not self.ended:
            if epoch != hub.epoch or not hub.holds(channel):
                raise NotReady
            if doubtful():
                serial, asked = hub.serial, time.monotonic()
                if not await membership.may(identity, channel.company):
                    self._revoked(channel.company)
                    return
                continue
            if position >= channel.position:
                channel.pins += 1
                self._channel = channel
                channel.join(self, self._wire.fast, deflates=self._wire.deflates)
                return
            frames = await hub.page(channel, position)
            if not frames:
                raise NotReady  # pruned meanwhile: the client resumes, and is told so
            for chunk in chunks(frames):
                if doubtful() or epoch != hub.epoch or self.ended:
                    break
                bodies = () if self._wire.fast else [body(framed) for framed in chunk]
                self._wire.write(b"".join(chunk), bodies)
                position += len(chunk)
                metrics.REPLAYED.inc(len(chunk))
                await self._wire.drain()

    def _leave(self) -> None:
        """Follows no company, and is about to follow none."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
        channel, self._channel = self._channel, None
        if channel is not None:
            channel.leave(self)
            self._parts.hub.close(channel)

    # --- what the channel says

    def write(self, frames: bytes, bodies: Sequence[bytes]) -> None:
        """Live messages, when the wire is not fast or not at present."""
        self._wire.write(frames, bodies)

    def suspect(self, position: int, certain: bool) -> None:
        """The company may be lost with the message at `position`: nothing more until that is known."""
        channel, membership = self._channel, self._parts.membership
        if channel is None or not membership.follows_rows:
            return
        if certain and membership.definite:
            self.revoke(channel)
            return
        channel.pins += 1
        self._leave()
        hub = self._parts.hub
        self._task = asyncio.create_task(self._recheck(channel, position, hub.epoch))
        self._task.add_done_callback(lambda _: hub.close(channel))

    def revoke(self, channel: Channel) -> None:
        """The user may not see the company any more."""
        if self._channel is channel:
            self._leave()
            self._revoked(channel.company)

    async def _recheck(self, channel: Channel, position: int, epoch: str) -> None:
        """Asks again; goes on where the session stopped, or says that it is over."""
        hub, identity = self._parts.hub, self._identity
        assert identity is not None
        try:
            serial = hub.serial
            if await self._parts.membership.may(identity, channel.company):
                await self._follow(channel, position, epoch, serial)
            else:
                self._revoked(channel.company)
        except DatabaseError:
            self._end(NotReady())
        except Closure as closure:
            self._end(closure)
        except Exception:
            self._end(Internal())
            _log.exception("a question about access failed")

    def _revoked(self, company: str) -> None:
        metrics.REVOKED.inc()
        self._say(CompanyRevoked(data=CompanyOnly(company_id=company)))

    def lost(self) -> None:
        """The channel cannot go on."""
        self._end(NotReady())

    def slow_down(self) -> None:
        """The wire piles up."""
        if self._channel is not None:
            self._channel.slow_down(self)

    def speed_up(self) -> None:
        """The wire has drained."""
        fast = self._wire.fast
        if self._channel is not None and fast is not None:
            self._channel.speed_up(self, fast, deflates=self._wire.deflates)

    # --- the end

    @property
    def following(self) -> tuple[Identity, Channel] | None:
        """Whom and what a periodic check must ask about."""
        if self._identity is None or self._channel is None:
            return None
        return self._identity, self._channel

    def forget(self) -> None:
        """The socket is gone, or is going: nothing more is written."""
        if self.ended:
            return
        self.ended = True
        self._timer.cancel()
        self._leave()
        self._parts.admission.leave(self)

    def end(self, closure: Closure) -> None:
        """Ends the conversation for a reason that the client is told."""
        self._end(closure)

    def _end(self, closure: Closure) -> None:
        if not self.ended:
            self.forget()
            self._wire.end(closure)

    def _say(self, said: Said) -> None:
        text = encode(said)
        self._wire.write(frame(text), [text])
