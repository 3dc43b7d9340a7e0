"""A node with filtered subscriptions against a model: every message that passes, in order, no gap.

Hypothesis drives sessions without connections and without a database: messages of all sizes, joins,
replacements, resumes, pauses, slow replays, re-checks of access and new epochs. The clock is the
test's.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from notifier.delivery import channel, encoding
from notifier.delivery.session import Session
from notifier.errors import Closure, Forbidden, NotReady
from tests.unit.lines import Line
from tests.unit.worlds import A, World, authenticate

TURNS = st.sampled_from([0, 1, 3, 30])
FILTERS: list[dict[str, Any]] = [
    {},
    {"entities": ["Event"]},
    {"entities": ["Company"]},
    {"where": {"Event": {"Title": ["a"]}}},
    {"where": {"Event": {"Title": ["a", None]}}},
    {"entities": ["Event"], "where": {"Event": {"Title": ["b"], "OrganizerId": ["u", None]}}},
]


def passes(wanted: dict[str, Any], message: dict[str, Any]) -> bool:
    """The rules of docs/protocol.md, spelled another way than in the product."""
    kind = message["Type"]
    entity = next((name for name in ("Event", "Company") if kind.startswith(name)), None)
    if entity is None:
        return True
    if entity not in wanted.get("entities", [entity]):
        return False
    conditions = wanted.get("where", {}).get(entity, {})
    after = message["Data"]
    before = {**after, **message.get("Old", {})}
    return any(
        all(name not in row or row[name] in values for name, values in conditions.items())
        for row in (before, after)
    )


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop whose clock is the test's. Something must always be ready to run."""

    now = 0.0

    def time(self) -> float:
        return self.now


@dataclass
class Follower:
    """A client: what it has sent, what it was sent, and what it may conclude."""

    session: Session
    line: Line
    commands: asyncio.Queue[dict[str, Any]] = field(default_factory=asyncio.Queue)
    pending: list[dict[str, Any]] = field(default_factory=list)
    wanted: dict[str, Any] | None = None
    """The filter of its subscription; None while it has none."""
    epoch: str = ""
    position: int = 0
    read: int = 0
    busy: bool = False

    def send(self, command: dict[str, Any]) -> None:
        self.pending.append(command)
        self.commands.put_nowait(command)

    async def work(self) -> None:
        """Handles its commands one after the other, as the endpoint does."""
        while True:
            command = await self.commands.get()
            self.busy = True
            try:
                await self.session.receive(json.dumps(command))
            except Closure as closure:
                self.session.end(closure)
            self.busy = False


class FilteredDelivery(RuleBasedStateMachine):
    """One company, any number of clients."""

    @initialize(wanted=st.lists(st.sampled_from(FILTERS), min_size=4, max_size=4))
    def begin(self, wanted: list[dict[str, Any]]) -> None:
        self.loop = VirtualLoop()
        self.world = World()
        self.log = self.world.log
        self.world.membership.conclusive = False  # every revocation is checked
        self.world.membership.members |= {(A, "u"), (A, "v")}
        self.followers: list[Follower] = []
        self.workers: list[asyncio.Task[None]] = []
        self.texts: dict[tuple[str, int], dict[str, Any]] = {}
        self.epochs = 1
        users = [("u", True), ("u", False), ("v", True), ("v", True)]
        for (user, quick), each in zip(users, wanted, strict=True):
            self.connect(user, quick)
            self.followers[-1].send({"type": "subscribe", "data": {"companyId": A, **each}})
        self.turn(30)

    def run(self, what: Coroutine[Any, Any, None]) -> None:
        self.loop.run_until_complete(what)

    def turn(self, turns: int) -> None:
        """Lets every task take so many steps."""

        async def sleep() -> None:
            for _ in range(turns):
                await asyncio.sleep(0)

        self.run(sleep())

    def save(self) -> None:
        for each in self.log.stored.get(A, []):
            self.texts[self.log.hub.epoch, each.position] = json.loads(each.body)

    # --- what happens

    @rule(
        changes=st.lists(
            st.tuples(
                st.sampled_from(["EventCreated", "EventUpdated", "EventDeleted", "CompanyUpdated"]),
                st.fixed_dictionaries(
                    {"Title": st.sampled_from(["a", "b", None])},
                    optional={"OrganizerId": st.sampled_from(["u", "v", None])},
                ),
                st.sampled_from([None, {"Title": "a"}, {"Title": "b"}, {"OrganizerId": None}]),
                st.sampled_from([(), (), (), ("u",), ("*",)]),
            ),
            min_size=1,
            max_size=8,
        ),
        pad=st.sampled_from([0, 0, 200]),
        turns=TURNS,
    )
    def publish(self, changes: list[Any], pad: int, turns: int) -> None:
        for kind, data, old, revokes in changes:
            former = old if kind.endswith("Updated") else None
            self.log.store_change(A, kind, {**data, "Pad": "x" * pad}, former, revokes)
        self.save()

        async def deliver() -> None:
            self.log.deliver()

        self.run(deliver())
        self.turn(turns)

    @precondition(lambda self: len(self.followers) < 6)
    @rule(user=st.sampled_from(["u", "v"]), quick=st.booleans())
    def one_more_connects(self, user: str, quick: bool) -> None:
        self.connect(user, quick)

    def connect(self, user: str, quick: bool) -> None:
        async def enter() -> None:
            session, line = self.world.open(quick=quick)
            await authenticate(session, user)
            follower = Follower(session, line)
            self.followers.append(follower)
            self.workers.append(self.loop.create_task(follower.work()))

        self.run(enter())

    @precondition(lambda self: self.followers)
    @rule(data=st.data(), wanted=st.sampled_from(FILTERS), turns=TURNS)
    def subscribe(self, data: st.DataObject, wanted: dict[str, Any], turns: int) -> None:
        follower = data.draw(st.sampled_from(self.followers))
        request: dict[str, Any] = {"companyId": A, **wanted}
        if data.draw(st.booleans()):
            after = follower.position
            request |= {"after": after, "epoch": follower.epoch or "e"}
            if (known := self.texts.get((follower.epoch, after))) is not None:
                request["at"] = known["At"]
        follower.send({"type": "subscribe", "data": request})
        self.turn(turns)

    @precondition(lambda self: self.followers)
    @rule(data=st.data(), bad=st.sampled_from([[], ["Nothing"], "Event"]))
    def subscribe_badly(self, data: st.DataObject, bad: object) -> None:
        follower = data.draw(st.sampled_from(self.followers))
        follower.send({"type": "subscribe", "data": {"companyId": A, "entities": bad}})

    @precondition(lambda self: self.followers)
    @rule(data=st.data())
    def unsubscribe(self, data: st.DataObject) -> None:
        follower = data.draw(st.sampled_from(self.followers))
        follower.send({"type": "unsubscribe", "data": {"companyId": A}})

    @precondition(lambda self: self.followers)
    @rule(data=st.data())
    def pause_or_resume(self, data: st.DataObject) -> None:
        line = data.draw(st.sampled_from(self.followers)).line
        assert line.listener is not None
        if line.write_direct is None:
            line.write_direct = line._write
            line.listener.resumed()
        else:
            line.write_direct = None
            line.listener.paused()

    @precondition(lambda self: self.followers)
    @rule(data=st.data())
    def fill_or_drain(self, data: st.DataObject) -> None:
        room = data.draw(st.sampled_from(self.followers)).line.room
        if room.is_set():
            room.clear()
        else:
            room.set()

    @precondition(lambda self: self.followers)
    @rule(data=st.data())
    def disconnect(self, data: st.DataObject) -> None:
        follower = data.draw(st.sampled_from(self.followers))

        async def leave() -> None:
            follower.session.closed()

        self.run(leave())
        self.check(follower)
        self.followers.remove(follower)

    @rule()
    def hold_or_answer_checks(self) -> None:
        gate = self.world.membership.open
        if gate.is_set():
            gate.clear()
        else:
            gate.set()

    @rule(user=st.sampled_from(["u", "v"]))
    def lose_or_regain(self, user: str) -> None:
        self.world.membership.members ^= {(A, user)}

    @rule()
    def begin_epoch(self) -> None:
        self.epochs += 1

        async def restart() -> None:
            self.log.begin_epoch(f"e{self.epochs}")
            self.save()
            self.log.deliver()

        self.run(restart())

    @rule()
    def let_five_seconds_pass(self) -> None:
        """Everything that can go on goes on: then each live subscription has come to the end."""
        self.world.membership.open.set()
        for follower in self.followers:
            follower.line.room.set()
        self.run(self.settled())
        self.loop.now += 5
        self.run(self.settled())
        end = len(self.log.stored.get(A, []))
        for follower in self.followers:
            self.check(follower)
            if follower.line.ended is None and follower.wanted is not None:
                assert not follower.pending
                assert (follower.epoch, follower.position) == (self.log.hub.epoch, end)

    async def settled(self) -> None:
        refusals = 0
        while True:
            for _ in range(200):
                await asyncio.sleep(0)
            busy = [each for each in self.followers if each.busy and each.line.ended is None]
            if not busy or refusals > 50:
                break
            refusals += 1
            self.loop.now += 0.1  # a refusal of a company takes that long

    # --- what must be true

    @invariant()
    def every_client_has_what_it_must_have(self) -> None:
        for follower in getattr(self, "followers", []):
            self.check(follower)
        for follower in [each for each in getattr(self, "followers", []) if each.line.ended]:
            # The log of its replay has ended, or it was refused ten times.
            expected = (NotReady, Forbidden) if self.epochs > 1 else Forbidden
            assert isinstance(follower.line.ended, expected), follower.line.ended
            self.followers.remove(follower)

    def check(self, follower: Follower) -> None:
        new = follower.line.sent[follower.read :]
        follower.read += len(new)
        for message in new:
            match message["Type"]:
                case "AuthenticationResult":
                    pass
                case "SubscribeResult":
                    request = follower.pending.pop(0)["data"]
                    if message["Success"]:
                        follower.wanted = {
                            key: request[key] for key in ("entities", "where") if key in request
                        }
                        follower.epoch = message["Data"]["Epoch"]
                        follower.position = message["Data"]["Position"]
                        if message["Data"].get("Recovered"):
                            assert follower.position == request["after"]
                case "UnsubscribeResult":
                    follower.pending.pop(0)
                    follower.wanted = None
                case "CompanyRevoked":
                    follower.wanted = None
                case _:
                    self.check_message(follower, message)

    def check_message(self, follower: Follower, message: dict[str, Any]) -> None:
        wanted, position = follower.wanted, message["Position"]
        assert wanted is not None, "a message without a subscription"
        if message["Type"] == "Resync" and message["Data"]["Epoch"] != follower.epoch:
            follower.epoch = message["Data"]["Epoch"]
        elif message["Type"] == "Skipped":
            assert wanted, "a Skipped without a filter"
            assert message["Data"] == {"CompanyId": A}
            assert position > follower.position
            for covered in range(follower.position + 1, position + 1):
                assert not passes(wanted, self.texts[follower.epoch, covered])
            assert message["At"] == self.texts[follower.epoch, position]["At"]
        else:
            assert position == follower.position + 1
            assert message == self.texts[follower.epoch, position]
            assert passes(wanted, message)
        follower.position = position

    def teardown(self) -> None:
        if not hasattr(self, "loop"):
            return
        try:
            self.let_five_seconds_pass()
        finally:
            self.run(self.end())
            self.loop.close()

    async def end(self) -> None:
        for follower in self.followers:
            follower.session.closed()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@contextmanager
def small_slices() -> Iterator[None]:
    """Batches of a few subscribers or a few bytes are already written in a task of their own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(channel, "SLICE", 2)
        patch.setattr(channel, "CHUNK_BYTES", 700)
        patch.setattr(encoding, "CHUNK_BYTES", 700)
        yield


def test_every_subscription_receives_exactly_what_passes_its_filter() -> None:
    with small_slices():
        run_state_machine_as_test(
            FilteredDelivery,
            settings=settings(max_examples=60, stateful_step_count=40, deadline=None),
        )
