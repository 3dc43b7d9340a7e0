"""One company's messages to one session: access, replay, live messages, re-checks of access.

    subscription = await Subscription.open(session, hub, membership, company)   access is checked
    await subscription.use_filter(entities, where)
    await subscription.can_resume(after, epoch, at, since=0)
    subscription.begin(after)                                       the answer is sent now
    await subscription.deliver()                                    replays, then is live
    subscription.close()

From `open` to `close` it keeps its channel pinned. It is live only while it has joined the channel. When its user may have
lost the company, it ends if that is conclusive; otherwise it leaves, checks access, and replays from its last position.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Sequence
from datetime import datetime
from enum import Enum
from typing import Any, Self

import structlog

from notifier import metrics
from notifier.access.membership import Membership, was_made_before
from notifier.delivery.channel import Channel
from notifier.delivery.encoding import Chunk
from notifier.delivery.filter import Filter
from notifier.delivery.hub import Hub
from notifier.delivery.owner import Owner
from notifier.delivery.replay import ReplayWriter
from notifier.delivery.state import State, StateSource
from notifier.errors import Closure, DatabaseError, Internal, NotReady
from notifier.messages import (
    JSON,
    CompanyOnly,
    CompanyRevoked,
    StateEnd,
    StatePlace,
    is_at,
    resync_text,
)

STATE_SECONDS = 5.0
"""How long the stream may take to deliver the messages up to the position of a state."""

STATE_CHECKS = 3
"""Where each check before a page is overtaken, the page is sent after this many: its rows were read before the check."""

REPLAY_SECONDS = 60.0
"""How often access is re-checked during a replay: a slow reader may never become live."""

OPEN_SECONDS = 5.0
"""When a user subscribes, an account that was looked up longer ago is looked up again."""

_logger = structlog.get_logger("notifier.subscription")


class Phase(Enum):
    """The phase of a subscription's life."""

    STATE = "sending a state"
    REPLAYING = "replaying"
    LIVE = "live"
    RECHECKING = "re-checking"
    CLOSED = "closed"


class Subscription:
    """A channel's subscriber. Its messages are those after `position` in `epoch`.

    `checked`: the start of the last check that allowed access, in seconds of time.monotonic().
    `at`: when the change of the message at `position` was made; None where that is not known.
    """

    __slots__ = (
        "_channel",
        "_filter",
        "_hub",
        "_membership",
        "_owner",
        "_phase",
        "_revocations_seen",
        "_task",
        "at",
        "checked",
        "epoch",
        "position",
        "user",
    )

    def __init__(
        self,
        owner: Owner,
        hub: Hub,
        membership: Membership,
        channel: Channel,
        *,
        user: str,
        serial: int,
        checked: float,
    ) -> None:
        self._owner = owner
        self._hub = hub
        self._membership = membership
        self._channel = channel
        self._filter: Filter | None = None
        self._revocations_seen = serial
        self.checked = checked
        self._phase = Phase.REPLAYING
        self._task: asyncio.Task[None] | None = None
        self.epoch = channel.epoch
        self.position = channel.position
        self.at: datetime | None = None
        self.user = user

    @classmethod
    async def open(
        cls, owner: Owner, hub: Hub, membership: Membership, company: str
    ) -> Self | None:
        """A subscription whose channel is pinned; None where the user may not see the company.

        Raises DatabaseError where access or the company's position cannot be read now.
        """
        await hub.started()
        user = owner.identity.user
        if membership.maps_users:
            user = await membership.user_of(owner.identity, OPEN_SECONDS)
        serial, channel_before = hub.revocations.serial, hub.channel(company)
        checked = time.monotonic()
        if not await membership.may_see(owner.identity, company):
            return None
        channel = await hub.open(company)
        # If the channel was opened after the check began, it starts at the end of the log, beyond what the stream
        # has delivered. Revocations in between would be missed, so check again.
        try:
            allowed = channel is channel_before
            if not allowed:
                checked = time.monotonic()
                allowed = await membership.may_see(owner.identity, company)
        except BaseException:
            hub.close(channel)
            raise
        if allowed:
            return cls(owner, hub, membership, channel, user=user, serial=serial, checked=checked)
        hub.close(channel)
        return None

    @property
    def company(self) -> str:
        """The company's id in its canonical spelling."""
        return self._channel.company

    @property
    def live(self) -> bool:
        """Whether messages go to the client as the channel receives them."""
        return self._phase is Phase.LIVE

    def has_delivered(self, position: int) -> bool:
        """Whether everything up to `position` was written to the client; not before the last row of a state."""
        if self._phase in (Phase.LIVE, Phase.STATE):
            return self.live and self._channel.delivered >= position
        return self.epoch == self._hub.epoch and self.position >= position

    async def use_filter(self, entities: Any, where: Any) -> None:
        """Restricts it to the changes that pass a client's filter. Raises BadFilter, DatabaseError."""
        self._filter = await self._hub.filters.parse(entities, where)

    # --- replay

    async def can_resume(self, after: int, epoch: str | None, at: str | None, since: float) -> bool:
        """Whether every message after `after` of the epoch can be delivered. Raises DatabaseError and NotReady.

        With `at` the client proves which message it has at `after`: a restored log may hold another. `since`: see `_may_be_of_another`.
        """
        hub, recovered = self._hub, False
        if epoch == hub.epoch and (found := await hub.begin_replay(self._channel, after)):
            self.at = found.at
            recovered = at is None or is_at(at, found.at)
            recovered &= not self._may_be_of_another(found.at, since)
        metrics.RESUMES.labels(str(recovered).lower()).inc()
        return recovered

    async def read_state(self, source: StateSource) -> State:
        """The rows that the company has at a position which the channel has reached. Raises Refused, NotReady and DatabaseError."""
        hub, channel = self._hub, self._channel
        state = await source.read(self.company, self._filter, self.user)
        try:
            async with asyncio.timeout(STATE_SECONDS):
                while state.epoch == hub.epoch and channel.position < state.position:
                    await channel.growth()
        except TimeoutError:
            raise NotReady from None
        if state.epoch != hub.epoch or not hub.is_current(channel):
            raise NotReady
        return state

    async def send_state(self, state: State) -> bool:
        """Sends the rows, and StateEnd. Returns False where access was lost meanwhile. Raises as `deliver`."""
        transport = self._owner.transport
        encoding, user = transport.encoding.unshared or transport.encoding, self.user
        for page in state.pages:
            for _ in range(STATE_CHECKS):
                if not self.is_closed and self._must_recheck() and not await self._check_access():
                    self.revoke()
            if self.is_closed:
                return False
            if self.user != user:
                raise NotReady  # the rows are those of another user: the client requests them again
            transport.write(encoding.frame(page), [page])
            await transport.drain()
        if not self.is_closed:
            data = StatePlace(company_id=self.company, position=state.position)
            self._owner.send(StateEnd(data=data))
        return not self.is_closed

    def begin(self, after: int | None, state: State | None = None) -> None:
        """Fixes the position: `after`, or that of the state, or the present one.

        The caller must send the answer before it awaits anything.
        """
        channel = self._channel
        self.epoch = self._hub.epoch
        if state is not None:
            self._phase, self.position, self.at = Phase.STATE, state.position, state.at
        elif after is None:
            self.position, self.at = channel.position, channel.at(channel.position)
        else:
            self.position = after
        if self._may_be_of_another(self.at):  # with `At` it would be taken for the former user's
            self.at = None

    def _may_be_of_another(self, at: datetime | None, since: float = 0) -> bool:
        """Whether a message of that time may have been sent to another of the rows' users, who became this one after `since` (time.monotonic())."""
        membership, restricts = self._membership, self._hub.filters.restricts
        return restricts and membership.has_become_another(self._owner.identity, at, since)

    async def deliver(self, former: str | None = None) -> None:
        """Replays what comes after the position, then joins the channel, with nothing in between.

        `former`: the rows' user of the messages up to the position, if it may be another one than now. Raises NotReady and DatabaseError.
        """
        if self.is_closed:  # the answer was one message too many for the transport
            return
        user = self.user
        is_another = former not in (None, user)
        hub, channel, transport = self._hub, self._channel, self._owner.transport
        encoding = transport.encoding.unshared or transport.encoding
        self._phase, writer = Phase.REPLAYING, ReplayWriter(transport)
        page: deque[Chunk] = deque()  # of `user`, up to `until`, not written yet
        until = self.position
        while self._phase is Phase.REPLAYING:
            if self.epoch != hub.epoch or not hub.is_current(channel):
                raise NotReady
            if not page and self.position < (until := channel.position):
                place = channel, self.position, encoding, user, self._filter
                page += await hub.replay(*place, until=until)
                if not page:
                    raise NotReady  # pruned meanwhile: the client resumes, and `Recovered` is false
            is_overtaken = False
            if self._must_recheck():  # after the page has had its turn, which may have taken long
                if not await self._check_access():
                    self.revoke()
                    continue
                if user != self.user:
                    user, is_another = self.user, True
                    page.clear()
                if not page:
                    continue
                # What was read before the check is sent: else nothing would be while member rows keep changing.
                is_overtaken = self._must_recheck()
            elif not page:
                self._phase = Phase.LIVE
                channel.join(self, transport.encoding, transport.write_direct, self._filter)
                if is_another and hub.filters.restricts:
                    self._send_resync()
                return
            await self._write_page(writer, page, until, is_overtaken)

    async def _write_page(
        self, writer: ReplayWriter, page: deque[Chunk], until: int, is_overtaken: bool
    ) -> None:
        """Writes a page until access must be checked again; one chunk where it must be already."""
        while page:
            is_due = not is_overtaken and self._must_recheck()
            if is_due or self.epoch != self._hub.epoch or self.is_closed:
                return
            chunk = page.popleft()
            self.position = chunk.last
            await writer.write(chunk, is_last=chunk.last >= until)
            if is_overtaken:
                return

    def _send_resync(self) -> None:
        """With USER_QUERY the rows' user has become another one, who sees rows that were not sent before. Without `At`, as `begin`."""
        transport = self._owner.transport
        body = resync_text(self.company, self.epoch, self.position)
        transport.write((transport.encoding.unshared or transport.encoding).frame(body), [body])

    @property
    def is_closed(self) -> bool:
        """Whether it has ended."""
        return self._phase is Phase.CLOSED

    def _must_recheck(self) -> bool:
        """Whether access must be checked again before anything is written."""
        return self._membership.may_change and (
            self._hub.revocations.since(self._revocations_seen, self._channel.company, self.user)
            or time.monotonic() > self.checked + REPLAY_SECONDS
        )

    async def _check_access(self) -> bool:
        membership, owner = self._membership, self._owner  # which may get a newer token meanwhile
        self._revocations_seen, checked = self._hub.revocations.serial, time.monotonic()
        if membership.maps_users:  # it has not joined the channel, which knows it by its user
            self.user = await membership.user_of(owner.identity, REPLAY_SECONDS)
        allowed = await membership.may_see(owner.identity, self._channel.company)
        if not allowed and membership.maps_users:
            self.user = await membership.user_of(owner.identity, 0)
            allowed = await membership.may_see(owner.identity, self._channel.company)
        self.checked = checked if allowed else self.checked
        return allowed

    # --- from the channel

    def write(self, frames: bytes, bodies: Sequence[JSON]) -> None:
        """Live messages while the transport has no direct write."""
        self._owner.transport.write(frames, bodies)

    def access_in_doubt(self, *, named_at: datetime | None) -> None:
        """Ends the subscription, or suspends it until access was checked again.

        It ends where the loss is conclusive: the message names this user, and its change was made after access was
        checked. A removal may be delivered late, by a relay or a node that lags, after the user was added again and subscribed.
        """
        membership = self._membership
        if not membership.may_change or not self.live:
            return
        # Where the clocks differ, a check too many is made, or a user who was removed, added and subscribed meanwhile subscribes again.
        if named_at and membership.conclusive and not was_made_before(named_at, self.checked):
            self.revoke()
            return
        # With a filter it may be behind the channel, and is sent a Skipped when it is live again.
        self.position = self._channel.leave(self)
        self.epoch = self._hub.epoch
        self._phase = Phase.RECHECKING
        self._task = asyncio.create_task(self._recheck())

    async def _recheck(self) -> None:
        owner, former = self._owner, self.user
        try:
            if await self._check_access():
                await self.deliver(former)
            else:
                self.revoke()
        except (Closure, DatabaseError) as error:
            owner.end(error if isinstance(error, Closure) else NotReady())
        except Exception:
            owner.end(Internal())
            _logger.exception("a re-check of access failed")

    def dropped(self) -> None:
        """The channel ends: the client must reconnect and resume."""
        self._owner.end(NotReady())

    # --- from the session

    def paused(self) -> None:
        """The transport is under back-pressure."""
        self._channel.paused(self)

    def resumed(self) -> None:
        """The transport takes direct writes again."""
        if (write := self._owner.transport.write_direct) is not None:
            self._channel.resumed(self, write)

    def revoke(self) -> None:
        """Closes the subscription, as the user may not see the company any more."""
        if self.is_closed:
            return
        self.close()
        metrics.REVOKED.inc()
        self._owner.send(CompanyRevoked(data=CompanyOnly(company_id=self.company)))
        self._owner.unsubscribed(self)

    def close(self) -> None:
        """Ends it; nothing of the company is written any more."""
        if self.is_closed:
            return
        self._phase = Phase.CLOSED
        if self._task is not None:
            self._task.cancel()
        self._channel.leave(self)
        self._hub.close(self._channel)
