"""The node's side: receives the messages of the companies that have a channel here, and heals gaps.

A message is delivered only if its signature is valid, its epoch is the hub's, and its position is the next one of
its company. An earlier one is a repetition. A later one, or a head, shows that messages are missing: they are
read from the log. The stream follows this path while beats prove that it delivers everything, and the log
when they do not.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Coroutine
from contextlib import suppress
from enum import Enum
from typing import Any

import msgspec
import structlog
from nats.aio.subscription import Subscription

from notifier import metrics
from notifier.delivery.healing import Healing
from notifier.delivery.hub import Hub
from notifier.errors import DatabaseError
from notifier.nats.key import Key
from notifier.nats.link import Link, Unusable
from notifier.nats.payloads import (
    Beat,
    Messages,
    Notice,
    decode_beat,
    decode_messages,
    decode_notice,
)
from notifier.nats.subjects import accounts_subject, company_subject, log_subject

SILENCE_SECONDS = 2.5
"""Without a beat for this long the path is not used; publisher.BEAT_SECONDS is a fifth of it."""

BEATS, MOST_BEATS = 2, 16
"""So many consecutive beats prove the path; after each failure within STEADY_BEATS twice as many."""

STEADY_BEATS = 40

SLICE = 500
"""Subscriptions that are sent before other tasks get a turn."""

HEAL_SECONDS = 1.0
"""The wait after a failed read of the log."""

_logger = structlog.get_logger("notifier.nats")


class _State(Enum):
    OFF = "off"
    """The stream follows the log; only beats are subscribed to."""

    JOINING = "joining"
    """Subscribed to all companies; the stream reads the log once more."""

    ON = "on"
    """Messages are delivered from here."""


class NatsFeed:
    """A `Feed` of the stream. `is_relay` is whether this node relays.

    `changed` is called whenever the stream must look at `is_wanted` again. `on_configuration`: the relay
    announces another configuration. `on_accounts` takes the values of rows that have changed, or None where
    messages of other companies may have been missed.
    """

    def __init__(
        self,
        hub: Hub,
        healing: Healing,
        link: Link,
        key: Key,
        prefix: str,
        *,
        is_relay: Callable[[], bool],
        on_configuration: Callable[[], None],
        on_accounts: Callable[[Collection[str] | None], None],
    ) -> None:
        self._hub = hub
        self._healing = healing
        self._link = link
        self._key = key
        self._prefix = prefix
        self._log, self._accounts = log_subject(prefix), accounts_subject(prefix)
        self._is_relay = is_relay
        self._on_configuration = on_configuration
        self._on_accounts = on_accounts
        self.changed: Callable[[], None] = lambda: None
        self._state = _State.OFF
        self._seal = key.seal  # of the messages that follow what the stream has delivered
        self._subscriptions: dict[str, Subscription] = {}
        self._joined = 0  # how often the state has changed
        self._opening: dict[str, int] = {}  # `_joined` when the company's channel began to open
        self._wanted: dict[str, int] = {}  # positions that the log has and the channel does not
        self._woken = asyncio.Event()  # something is wanted
        self._beat: Beat | None = None
        self._beats = 0  # consecutive ones
        self._needed = BEATS
        self._noticed = 0  # notices received, counted as the last beat does
        self._log_seq = 0  # the log has come at least so far
        self._silence: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        link.add(self)
        hub.broker = self

    # --- from the stream

    @property
    def is_proven(self) -> bool:
        """Whether beats show that messages come by NATS now."""
        return self._link.is_connected and self._beats >= self._needed

    @property
    def is_wanted(self) -> bool:
        """Whether the stream may rely on it; the relay's own node has every message already."""
        return self.is_proven and not self._is_relay() and not self._is_from_another_server

    def leadership_changed(self) -> None:
        """This node has become the relay, or has ceased to be it."""
        self.changed()

    def logged(self, seq: int) -> None:
        """The log has come to `seq`: a beat that reports less is an old one, sent late or once more."""
        self._log_seq = seq

    async def subscribe(self) -> bool:
        """Subscribes to the companies of the hub. Returns whether the server has all of it."""
        self._change(_State.JOINING)
        try:
            for number, company in enumerate(self._hub.companies()):
                await self._subscribe(company)
                if number % SLICE == SLICE - 1:
                    await asyncio.sleep(0)
            await self._link.flush()
        except Unusable:
            self.stop()
        return self._state is _State.JOINING

    def start(self) -> bool:
        """Delivers messages from now on: the log was read since `subscribe`. Returns whether it does."""
        if self._state is not _State.JOINING or not self.is_wanted:
            self.stop()
            return False
        self._state, self._seal = _State.ON, self._key.seal
        self._woken.set()  # for messages that came meanwhile
        return True

    def stop(self) -> None:
        """Stops delivering; the stream follows the log."""
        self._change(_State.OFF)
        for company in list(self._subscriptions):
            self._unsubscribe(company)

    def resumed(self) -> None:
        """Channels that are being opened are compared, as after each change of the path.

        Rows that USER_QUERY reads may have changed in messages that did not come.
        """
        self._joined += 1
        self._on_accounts(None)

    def _change(self, state: _State) -> None:
        self._state = state
        self._joined += 1
        self._wanted.clear()

    # --- from the hub

    async def opening(self, company: str) -> None:
        """Subscribes before the company's position is read; a failure makes the stream follow the log."""
        self._opening[company] = self._joined
        if self._state is not _State.OFF:
            with suppress(Unusable):
                await self._subscribe(company)
                await self._link.flush()

    def opened(self, company: str) -> None:
        """Reads what came while the channel was being opened."""
        joined = self._opening.pop(company, self._joined)
        accepted = self._hub.accepted(company)
        if joined != self._joined:
            # The path changed meanwhile: neither may have brought messages after the position.
            self._wanted.setdefault(company, 0)
        if company in self._wanted and accepted is not None:
            if 0 < self._wanted[company] <= accepted:
                del self._wanted[company]
            else:
                self._woken.set()

    def closed(self, company: str) -> None:
        """Unsubscribes."""
        self._opening.pop(company, None)
        self._wanted.pop(company, None)
        self._unsubscribe(company)

    async def _subscribe(self, company: str) -> None:
        if company not in self._subscriptions:
            subscription = await self._link.subscribe(company_subject(self._prefix, company))
            self._subscriptions[company] = subscription

    def _unsubscribe(self, company: str) -> None:
        if (subscription := self._subscriptions.pop(company, None)) is not None:
            self._spawn(self._link.unsubscribe(subscription))

    # --- from the link

    def connected(self) -> None:
        """Subscribes to what concerns every node."""
        self._spawn(self._link.subscribe(self._accounts))
        self._spawn(self._link.subscribe(self._log))

    def lost(self) -> None:
        """Messages may be lost from now on."""
        self._subscriptions.clear()
        self._fail("the connection was lost")

    def received(self, subject: str, payload: bytes, headers: bytes) -> None:
        """Takes a payload if it was signed by a relay of this database."""
        is_company = subject not in (self._log, self._accounts)
        seal = self._key.seal
        if seal is None or (is_company and self._state is _State.OFF):
            return
        if self._is_from_another_server:
            self._wanted.clear()
            self._fail("another key")
            if is_company:
                return
        if not seal.is_valid(subject, payload, headers):
            self._key.rejected()
            return
        try:
            if is_company:
                self._accept(decode_messages(payload))
            elif subject == self._log:
                self._take_beat(decode_beat(payload))
            else:
                self._take_notice(decode_notice(payload))
        except msgspec.DecodeError as error:  # signed, so by a relay of another version
            metrics.NATS_REJECTED.inc()
            self._fail(f"a payload of another version: {error}")

    def _spawn(self, call: Coroutine[Any, Any, object]) -> None:
        """Runs a command in a task; where it fails, the link has ended or will."""

        async def run() -> None:
            with suppress(Unusable):
                await call

        task = asyncio.create_task(run())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    @property
    def _is_from_another_server(self) -> bool:
        """Whether the key has changed since the stream has read the log.

        PostgreSQL was started again, perhaps with a log that was rewound, and the relay may be faster than the stream: only
        the stream, when it has reconnected, determines whether the log continues what was delivered.
        """
        return self._state is _State.ON and self._seal != self._key.seal

    # --- beats

    def _take_beat(self, beat: Beat) -> None:
        last, is_old = self._beat, beat.seq < self._log_seq
        is_same_term = last is not None and beat.term == last.term
        if last is not None and is_same_term:
            if beat.number <= last.number:
                return  # a repetition
        elif is_old:
            return  # of a relay that leads no more
        self._beat = beat
        if is_same_term and beat.notices != self._noticed and self._state is _State.ON:
            self._on_accounts(None)
        self._noticed = beat.notices
        if last is not None and (not is_same_term or beat.configuration != last.configuration):
            self._on_configuration()
        if beat.epoch != self._hub.epoch:
            self._fail("another epoch")
            self.changed()  # the log must be read even where it is followed already
            return
        if last is not None and (
            not is_same_term or beat.number != last.number + 1 or beat.missed != last.missed
        ):
            self._fail("messages were not published, or beats were lost")
        if is_old:
            return  # it was held back, and what follows it may be held back too
        self._beats += 1
        self._await_beat()
        if self._beats == self._needed:
            self.changed()

    def _take_notice(self, notice: Notice) -> None:
        """Takes the next notice of the present term. A repeated one must not be counted in the place of one that is lost.

        Notices before the first beat of a term are not needed: that beat makes the stream follow the log.
        """
        if notice.term is None:  # of a relay of an earlier version
            self._noticed += 1
            self._on_accounts(notice.values)
            return
        term = None if self._beat is None else self._beat.term
        if notice.term == term and notice.number > self._noticed:
            is_next = notice.number == self._noticed + 1
            self._noticed = notice.number
            self._on_accounts(notice.values if is_next else None)

    def _await_beat(self) -> None:
        if self._silence is not None:
            self._silence.cancel()
        self._silence = asyncio.get_running_loop().call_later(
            SILENCE_SECONDS, self._fail, "no beat in time"
        )

    def _fail(self, reason: str) -> None:
        """The path counts as unproven, until enough beats have arrived.

        Each change of the path compares all channels with the log: it must not come every second.
        """
        beats, self._beats = self._beats, 0
        if beats >= self._needed:
            is_steady = beats >= STEADY_BEATS
            self._needed = BEATS if is_steady else min(MOST_BEATS, 2 * self._needed)
            _logger.info("messages do not come by NATS", reason=reason)
            self.changed()

    # --- messages

    def _accept(self, messages: Messages) -> None:
        company = messages.company_id
        accepted = self._hub.accepted(company)
        if messages.epoch != self._hub.epoch:
            return
        known = messages.log[: max(0, (accepted or 0) + 1 - messages.first)]
        if known and self._hub.contradicts(company, known[-1].seq):
            _logger.error("a position was given out again: its log was altered", company=company)
            self._hub.drop_company(company)
            return
        if messages.position <= (accepted or 0):
            return
        if accepted is None and company not in self._opening:
            return
        if accepted is None or self._state is not _State.ON or messages.first > accepted + 1:
            self._wanted[company] = max(self._wanted.get(company, 0), messages.position)
            if accepted is not None and self._state is _State.ON:
                self._woken.set()
        elif messages.messages:
            self._healing.deliver(messages.after(accepted))

    # --- the task

    async def run(self) -> None:
        """Reads from the log what is missing, until it is cancelled."""
        while True:
            await self._woken.wait()
            self._woken.clear()
            wanted = {
                company: position
                for company, position in self._wanted.items()
                if self._hub.accepted(company) is not None
            }
            for company, position in list(wanted.items()):
                del self._wanted[company]
                if 0 < position <= (self._hub.accepted(company) or 0):
                    del wanted[company]
            try:
                await self._healing.heal(wanted)
            except DatabaseError as error:
                _logger.warning("missing messages could not be read", error=str(error))
                for company, position in wanted.items():
                    if self._hub.accepted(company) is not None:
                        self._wanted[company] = max(self._wanted.get(company, 0), position)
                await asyncio.sleep(HEAL_SECONDS)
                self._woken.set()
