"""What happens between a question about access and its answer, one interleaving after the other.

Sessions, the hub and tokens are the real ones; log and membership are in the test's hand.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import pytest
from msgspec import structs

from notifier.access import admission
from notifier.access.admission import Admission
from notifier.access.membership import Membership
from notifier.access.tokens import Identity, Tokens
from notifier.delivery import expiry, subscription
from notifier.delivery import session as sessions
from notifier.delivery.channel import SLICE
from notifier.delivery.encoding import DEFLATED, TEXT
from notifier.delivery.history import History
from notifier.delivery.hub import Hub
from notifier.delivery.session import Services, Session, Stage
from notifier.errors import (
    AnotherUser,
    BadToken,
    Closure,
    DatabaseError,
    Expired,
    Forbidden,
    KeysUnavailable,
    Malformed,
    NotAuthenticated,
    NotReady,
    Restart,
    TooBig,
    TooMany,
    Unreachable,
)
from notifier.messages import Message, timestamp
from tests.services import SECRET, token
from tests.timeless import timeless
from tests.unit.lines import Line

A, B = "company a", "company b"
NOW = datetime.now(UTC)


class Door:
    """Membership that answers when the test opens it, with what is true then."""

    def __init__(self) -> None:
        self.members: set[tuple[str, str]] = set()
        self.error: Exception | None = None
        self.open = asyncio.Event()
        self.open.set()
        self.asked = 0
        self.follows_rows = True
        self.definite = True

    async def may(self, identity: Identity, company: str) -> bool:
        self.asked += 1
        await self.open.wait()
        if self.error is not None:
            raise self.error
        return (company, identity.user) in self.members


class Log(History):
    """The messages of all companies, and how far the node has heard of them."""

    def __init__(self) -> None:
        self.hub = Hub(self, 24)
        self.hub.epoch = "e"
        self.stored: dict[str, list[Message]] = {}
        self._heard = self._seq = 0
        self.page_reads = 0
        self.open = asyncio.Event()
        self.open.set()

    def store(
        self, company: str, count: int = 1, revokes: tuple[str, ...] = (), pad: int = 0
    ) -> None:
        """New messages, of which the last takes access away; the node does not hear them yet."""
        log = self.stored.setdefault(company, [])
        for number in range(count):
            self._seq += 1
            text = {"Type": "E", "Company": company, "Position": len(log) + 1, "Pad": "x" * pad}
            last = revokes if number == count - 1 else ()
            log.append(
                Message(
                    self._seq, company, len(log) + 1, NOW, datetime.now(UTC),
                    json.dumps(text).encode(), last,
                )
            )  # fmt: skip

    def hear(self) -> None:
        """The node hears what was stored."""
        fresh = [m for log in self.stored.values() for m in log if m.seq > self._heard]
        self._heard = self._seq
        self.hub.deliver(sorted(fresh, key=lambda message: message.seq))

    def say(self, company: str, count: int = 1, revokes: tuple[str, ...] = ()) -> None:
        """New messages that the node hears at once."""
        self.store(company, count, revokes)
        self.hear()

    async def head(self, company: str) -> int:
        await self.open.wait()
        log = self.stored.get(company)
        return log[-1].position if log else 0

    def age(self, company: str, position: int, hours: float) -> None:
        """The messages up to this one were stored so long ago."""
        then = datetime.now(UTC) - timedelta(hours=hours)
        log = self.stored[company]
        log[:position] = [structs.replace(message, stored=then) for message in log[:position]]

    async def page(self, company: str, after: int, epoch: str) -> list[Message]:
        self.page_reads += 1
        await self.open.wait()
        if epoch != self.hub.epoch:
            return []
        return [m for m in self.stored.get(company, []) if m.position > after][:1000]


class World:
    """A node without sockets and database."""

    def __init__(self) -> None:
        self.door = Door()
        self.log = Log()
        self.admission: Admission[Session] = Admission(1000, 600)
        self.services = Services(
            self.log.hub,
            Tokens(secret=SECRET),
            cast("Membership", self.door),
            self.admission,
            auth_timeout=60,
            leeway=10,
        )
        self.sessions: list[Session] = []

    def open(self, address: str = "", *, quick: bool = True) -> tuple[Session, Line]:
        line = Line(quick=quick)
        session = Session(self.services, line, address)
        self.sessions.append(session)
        return session, line

    async def enter(
        self,
        user: str = "u",
        company: str | None = A,
        *,
        quick: bool = True,
        member: bool = True,
        after: int | None = None,
    ) -> tuple[Session, Line]:
        """A session that is authenticated and follows its company."""
        session, line = self.open(quick=quick)
        await authenticate(session, user)
        if company is not None:
            if member:
                self.door.members.add((company, user))
            await set_company(session, company, after)
        return session, line

    def pins(self, company: str) -> int:
        channel = self.log.hub.channel(company)
        return 0 if channel is None else channel.pins


@pytest.fixture
async def world() -> AsyncIterator[World]:
    world = World()
    yield world
    for session in world.sessions:
        session.closed()
    await settle()
    assert not world.admission.connections
    assert not world.admission._users
    assert not any(channel.pins or len(channel) for channel in world.log.hub._channels.values())


@pytest.fixture(autouse=True)
def quick_refusals(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "REFUSED_SECONDS", 0.0)


async def authenticate(session: Session, user: str = "u", ttl: float = 3600, **claims: Any) -> None:
    said = {"type": "authenticate", "token": token(user, ttl=ttl, **claims)}
    await session.receive(json.dumps(said))


async def set_company(session: Session, company: str, after: int | None = None) -> None:
    data: dict[str, Any] = {"companyId": company}
    if after is not None:
        data |= {"after": after, "epoch": "e"}
    await session.receive(json.dumps({"type": "setCompany", "data": data}))


async def settle() -> None:
    """Everything that can go on without the test has gone on."""
    for _ in range(50):
        await asyncio.sleep(0)


# --- between the question and the joining


REMOVED = pytest.mark.parametrize("who", [("u",), ("*",), ("v", "u")])


@REMOVED
async def test_who_is_removed_while_his_company_is_opened_is_refused(
    world: World, who: tuple[str, ...]
) -> None:
    world.log.say(A, 3)
    session, line = await world.enter(company=None)
    world.door.members.add((A, "u"))
    world.log.open.clear()
    setting = asyncio.create_task(set_company(session, A))
    await settle()
    world.door.members.remove((A, "u"))
    world.log.say(A, revokes=who)
    world.log.open.set()
    await setting
    world.log.say(A)
    assert line.heard == []
    assert line.said[-1]["Error"]["Code"] == "company_forbidden"
    assert not session.live_subscriptions


@REMOVED
async def test_who_is_removed_while_his_position_is_looked_up_hears_only_that_he_was(
    world: World, who: tuple[str, ...]
) -> None:
    world.log.say(A, 3)
    await world.enter("other")
    session, line = await world.enter(company=None)
    world.door.members.add((A, "u"))
    world.log.open.clear()
    setting = asyncio.create_task(set_company(session, A, 0))
    await settle()
    world.door.members.remove((A, "u"))
    world.log.say(A, revokes=who)
    world.log.open.set()
    await setting
    world.log.say(A)
    assert line.heard == []
    assert line.kinds[-2:] == ["SetCompanyResult", "CompanyRevoked"]
    assert not session.live_subscriptions


@pytest.mark.parametrize("who", [("v",), ("uu",), ("u ",)])
async def test_the_removal_of_somebody_else_is_nobodys_question(
    world: World, who: tuple[str, ...]
) -> None:
    world.log.say(A)
    session, line = await world.enter()
    asked = world.door.asked
    world.log.say(A, revokes=who)
    world.log.say(B, revokes=("u", "*"))
    world.log.say(A)
    await settle()
    assert line.heard == [(A, 2), (A, 3)]
    assert world.door.asked == asked
    assert session.live_subscriptions


async def test_his_own_removal_is_heard_and_nothing_after_it(world: World) -> None:
    session, line = await world.enter()
    assert line.said[-1] == {
        "Type": "SetCompanyResult",
        "Success": True,
        "Data": {"CompanyId": A, "Position": 0, "Epoch": "e"},
    }
    _, other = await world.enter("v")
    asked = world.door.asked
    world.log.store(A, 3, revokes=("u",))
    world.log.store(A, 2)
    world.log.hear()
    assert line.heard == [(A, 1), (A, 2), (A, 3)]
    assert line.said[-1] == {"Type": "CompanyRevoked", "Data": {"CompanyId": A}}
    assert other.heard == [(A, position) for position in range(1, 6)]
    assert world.door.asked == asked  # where the row decides, its loss is certain
    assert not session.live_subscriptions
    assert line.ended is None


async def test_all_sockets_of_a_user_lose_the_company(world: World) -> None:
    lines = [(await world.enter(quick=quick))[1] for quick in (True, False, True)]
    world.log.say(A, revokes=("u",))
    world.log.say(A)
    for line in lines:
        assert line.heard == [(A, 1)]
        assert line.kinds[-1] == "CompanyRevoked"


async def test_the_socket_goes_on_with_another_company(world: World) -> None:
    session, line = await world.enter()
    world.log.say(A, revokes=("u",))
    world.door.members = {(B, "u")}
    await set_company(session, A)
    assert line.said[-1]["Error"]["Code"] == "company_forbidden"
    await set_company(session, B)
    world.log.say(A)
    world.log.say(B)
    assert line.heard == [(A, 1), (B, 1)]


# --- when the row alone does not decide


async def test_who_may_have_lost_a_company_hears_nothing_until_that_is_known(world: World) -> None:
    world.door.definite = False
    session, line = await world.enter()
    world.door.open.clear()
    world.log.say(A, 2, revokes=("u",))
    world.log.say(A, 3)
    await settle()
    assert line.heard == [(A, 1), (A, 2)]
    assert not session.live_subscriptions
    world.log.say(A)
    world.door.open.set()
    await settle()
    world.log.say(A)
    assert line.heard == [(A, position) for position in range(1, 8)]
    assert line.kinds == ["AuthenticationResult", "SetCompanyResult"]


async def test_who_has_lost_a_company_is_told_and_hears_nothing_more(world: World) -> None:
    world.door.definite = False
    _, line = await world.enter()
    world.door.open.clear()
    world.log.say(A, revokes=("*",))
    world.log.say(A)
    world.door.members.clear()
    world.door.open.set()
    await settle()
    world.log.say(A)
    assert line.heard == [(A, 1)]
    assert line.said[-1] == {"Type": "CompanyRevoked", "Data": {"CompanyId": A}}


async def test_anybody_may_be_meant_although_rows_decide(world: World) -> None:
    stays, goes = [await world.enter(user) for user in ("stays", "goes")]
    world.door.members.remove((A, "goes"))
    world.log.store(A, revokes=("*",))
    world.log.store(A)
    world.log.hear()
    await settle()
    assert stays[1].heard == [(A, 1), (A, 2)]
    assert goes[1].heard == [(A, 1)]
    assert goes[1].kinds[-1] == "CompanyRevoked"


async def test_who_is_removed_twice_while_he_is_asked_about_is_asked_about_twice(
    world: World,
) -> None:
    world.door.definite = False
    _, line = await world.enter()
    world.door.open.clear()
    world.log.say(A, revokes=("u",))
    await settle()
    asked = world.door.asked
    world.log.say(A, revokes=("u",))
    world.door.open.set()
    await settle()
    assert world.door.asked == asked + 1
    assert line.heard == [(A, 1), (A, 2)]
    world.log.say(A)
    assert line.heard[-1] == (A, 3)


@pytest.mark.parametrize(
    ("error", "code"), [(Unreachable("gone"), 4503), (RuntimeError("a fault of ours"), 4500)]
)
async def test_who_cannot_be_asked_about_is_closed(
    world: World, error: Exception, code: int
) -> None:
    world.door.definite = False
    _, line = await world.enter()
    world.door.error = error
    world.log.say(A, revokes=("u",))
    world.log.say(A)
    await settle()
    assert line.heard == [(A, 1)]
    assert line.ended is not None
    assert line.ended.code == code


async def test_a_question_about_a_former_company_is_dropped_with_it(world: World) -> None:
    world.door.definite = False
    world.log.store(B, 2)
    await world.enter("v", B)
    session, line = await world.enter()
    world.door.members.add((B, "u"))
    world.log.open.clear()
    setting = asyncio.create_task(set_company(session, B, 0))
    await settle()
    world.door.open.clear()
    world.log.say(A, revokes=("u",))
    await settle()
    world.log.open.set()
    await setting
    world.door.open.set()
    await settle()
    world.log.say(A)
    world.log.say(B)
    assert line.heard == [(A, 1), (B, 1), (B, 2), (B, 3)]
    assert world.pins(A) == 0
    assert session.live_subscriptions


async def test_a_question_goes_with_its_socket(world: World) -> None:
    world.door.definite = False
    session, line = await world.enter()
    world.log.say(A, revokes=("u",))
    session.closed()
    await settle()
    assert world.pins(A) == 0
    assert line.ended is None


async def test_a_token_that_decides_is_not_asked_about_rows(world: World) -> None:
    world.door.follows_rows = world.door.definite = False
    session, line = await world.enter()
    asked = world.door.asked
    world.log.say(A, revokes=("u", "*"))
    world.log.say(A)
    await settle()
    assert line.heard == [(A, 1), (A, 2)]
    assert world.door.asked == asked
    await authenticate(session)
    assert line.kinds[-1] == "AuthenticationResult"
    world.door.members.clear()
    await authenticate(session)
    assert line.kinds[-2:] == ["AuthenticationResult", "CompanyRevoked"]
    world.log.say(A)
    assert line.heard == [(A, 1), (A, 2)]


async def test_where_rows_decide_a_new_token_asks_nothing(world: World) -> None:
    session, line = await world.enter()
    world.door.members.clear()
    await authenticate(session)
    assert line.kinds[-1] == "AuthenticationResult"
    assert session.live_subscriptions


# --- replay


@pytest.mark.parametrize("quick", [True, False])
async def test_a_replay_ends_with_the_access(world: World, quick: bool) -> None:
    world.log.store(A, 2500, pad=1000)
    world.log.hear()
    session, line = await world.enter(company=None, quick=quick)
    world.door.members.add((A, "u"))
    line.room.clear()
    setting = asyncio.create_task(set_company(session, A, 0))
    await settle()
    begun = len(line.heard)
    assert 0 < begun < 1000
    world.door.members.clear()
    world.log.say(A, revokes=("u",))
    line.room.set()
    await setting
    assert len(line.heard) == begun
    assert line.said[-1] == {"Type": "CompanyRevoked", "Data": {"CompanyId": A}}
    assert not session.live_subscriptions


async def test_a_replay_goes_on_where_it_was_when_access_was_only_in_doubt(world: World) -> None:
    world.log.store(A, 2500, pad=1000)
    world.log.hear()
    session, line = await world.enter(company=None)
    world.door.members.add((A, "u"))
    line.room.clear()
    setting = asyncio.create_task(set_company(session, A, 0))
    await settle()
    world.log.say(A, revokes=("*",))
    world.log.say(A, 3)
    line.room.set()
    await setting
    world.log.say(A)
    assert line.heard == [(A, position) for position in range(1, 2506)]
    assert "CompanyRevoked" not in line.kinds


@pytest.mark.parametrize("member", [True, False])
async def test_who_reads_so_slowly_that_he_is_never_level_is_asked_about_every_minute(
    world: World, monkeypatch: pytest.MonkeyPatch, member: bool
) -> None:
    """No message tells of a loss that no trigger saw, and only who is level is in the round."""
    later, monotonic = 0.0, time.monotonic
    monkeypatch.setattr(time, "monotonic", lambda: monotonic() + later)
    world.log.store(A, 2500, pad=1000)
    world.log.hear()
    session, line = await world.enter(company=None)
    world.door.members.add((A, "u"))
    line.room.clear()
    setting = asyncio.create_task(set_company(session, A, 0))
    await settle()
    begun, asked = len(line.heard), world.door.asked
    if not member:
        world.door.members.clear()
    later = subscription.REPLAY_SECONDS + 1
    line.room.set()
    await setting
    assert world.door.asked == asked + 1
    assert len(line.heard) == (2500 if member else begun)
    assert bool(session.live_subscriptions) is member
    assert (line.kinds[-1] == "CompanyRevoked") is not member


async def test_nothing_is_replayed_that_the_node_has_not_heard(world: World) -> None:
    world.log.store(A, 5)
    await world.enter("v")
    world.log.store(A, revokes=("u",))
    world.log.store(A, 4)
    _, line = await world.enter(after=0)
    assert line.heard == [(A, position) for position in range(1, 6)]
    world.log.hear()
    assert line.heard == [(A, position) for position in range(1, 7)]
    assert line.kinds[-1] == "CompanyRevoked"


async def test_who_was_removed_while_the_log_was_ahead_of_the_node_is_refused(world: World) -> None:
    session, line = await world.enter(company=None)
    world.door.members.add((A, "u"))
    world.log.open.clear()
    setting = asyncio.create_task(set_company(session, A, 0))
    await settle()
    world.door.members.clear()
    world.log.store(A, revokes=("u",))
    world.log.store(A, 3)
    world.log.open.set()
    await setting
    assert line.said[-1]["Error"]["Code"] == "company_forbidden"
    assert line.heard == []
    assert world.pins(A) == 0


async def test_a_channel_is_given_back_when_access_cannot_be_checked_again(world: World) -> None:
    session, line = await world.enter(company=None)
    world.door.members.add((A, "u"))
    world.log.open.clear()
    setting = asyncio.create_task(set_company(session, A))
    await settle()
    world.door.error = Unreachable("gone")
    world.log.open.set()
    await setting
    assert line.said[-1]["Error"]["Code"] == "unavailable"
    assert world.pins(A) == 0


async def test_a_company_that_is_known_is_asked_about_once(world: World) -> None:
    await world.enter("v")
    asked = world.door.asked
    await world.enter()
    assert world.door.asked == asked + 1


async def test_a_removal_that_the_node_hears_late_is_one_all_the_same(world: World) -> None:
    world.log.store(A, 4, revokes=("u",))
    session, line = await world.enter()
    _, other = await world.enter("v")
    assert line.said[-1]["Data"]["Position"] == 4
    world.door.members.remove((A, "u"))
    world.log.hear()
    await settle()
    assert line.kinds[-1] == "CompanyRevoked"
    assert not session.live_subscriptions
    assert other.heard == []
    world.log.say(A)
    assert other.heard == [(A, 5)]


async def test_a_removal_that_the_node_hears_after_the_return_takes_nothing_away(
    world: World,
) -> None:
    world.log.store(A, 4, revokes=("u",))
    session, line = await world.enter()  # who is a member again
    asked = world.door.asked
    world.log.hear()
    await settle()
    assert world.door.asked == asked + 1
    assert "CompanyRevoked" not in line.kinds
    assert session.live_subscriptions
    world.log.say(A)
    assert line.heard == [(A, 5)]


async def test_the_removal_of_others_is_no_question_in_a_replay(world: World) -> None:
    world.log.store(A, 2500, pad=1000)
    world.log.hear()
    session, line = await world.enter(company=None)
    world.door.members.add((A, "u"))
    line.room.clear()
    setting = asyncio.create_task(set_company(session, A, 0))
    await settle()
    asked = world.door.asked
    world.log.say(A, revokes=("v",))
    world.log.say(B, revokes=("u", "*"))
    line.room.set()
    await setting
    assert world.door.asked == asked
    assert line.heard == [(A, position) for position in range(1, 2502)]


async def test_another_epoch_while_somebody_is_asked_about_is_an_end(world: World) -> None:
    world.door.definite = False
    session, line = await world.enter()
    world.door.open.clear()
    world.log.say(A, revokes=("u",))
    world.log.hub.begin_epoch("f")
    world.door.open.set()
    await settle()
    world.log.say(A)
    assert line.heard == [(A, 1)]
    assert isinstance(line.ended, NotReady)
    assert not session.live_subscriptions


async def test_another_epoch_in_the_middle_of_a_replay_is_an_end(world: World) -> None:
    world.log.store(A, 500, pad=1000)
    world.log.hear()
    session, line = await world.enter(company=None)
    world.door.members.add((A, "u"))
    line.room.clear()
    setting = asyncio.create_task(set_company(session, A, 0))
    await settle()
    begun = len(line.heard)
    world.log.hub.begin_epoch("f")
    line.room.set()
    with pytest.raises(NotReady):
        await setting
    assert len(line.heard) == begun


async def test_a_channel_that_was_lost_in_the_middle_of_a_replay_is_an_end(world: World) -> None:
    world.log.store(A, 500, pad=1000)
    world.log.hear()
    session, line = await world.enter(company=None)
    world.door.members.add((A, "u"))
    line.room.clear()
    setting = asyncio.create_task(set_company(session, A, 0))
    await settle()
    world.log.hub.drop()
    line.room.set()
    with pytest.raises(NotReady):
        await setting


@pytest.mark.parametrize("end", ["the socket", "the epoch"])
async def test_who_is_asked_about_in_the_middle_of_a_replay_may_be_gone_by_the_answer(
    world: World, end: str
) -> None:
    world.log.store(A, 500, pad=1000)
    world.log.hear()
    session, line = await world.enter(company=None)
    world.door.members.add((A, "u"))
    line.room.clear()
    setting = asyncio.create_task(set_company(session, A, 0))
    await settle()
    begun = len(line.heard)
    world.door.open.clear()
    world.log.say(A, revokes=("*",))
    line.room.set()
    await settle()
    if end == "the socket":
        session.end(Expired())
    else:
        world.log.hub.begin_epoch("f")
    world.door.open.set()
    if end == "the socket":
        await setting
    else:
        with pytest.raises(NotReady):
            await setting
    world.log.say(A)
    assert len(line.heard) == begun
    assert not session.live_subscriptions


async def test_a_socket_that_goes_in_the_middle_of_a_replay_hears_nothing_more(
    world: World,
) -> None:
    world.log.store(A, 500, pad=1000)
    world.log.hear()
    session, line = await world.enter(company=None)
    world.door.members.add((A, "u"))
    line.room.clear()
    setting = asyncio.create_task(set_company(session, A, 0))
    await settle()
    begun = len(line.heard)
    session.end(Expired())
    assert isinstance(line.ended, Expired)
    line.room.set()
    await setting
    assert len(line.heard) == begun
    assert world.pins(A) == 0


# --- resume


def recovered(line: Line) -> tuple[bool, int]:
    """Whether the last company was recovered, and from where on."""
    data = next(m for m in reversed(line.said) if m["Type"] == "SetCompanyResult")["Data"]
    return data["Recovered"], data["Position"]


@pytest.mark.parametrize("heard", [True, False])
async def test_a_resume_is_complete_or_said_not_to_be(world: World, heard: bool) -> None:
    world.log.store(A, 1500)
    if heard:
        await world.enter("v")
        world.log.hear()
    for after in (0, 1, 999, 1000, 1499, 1500):
        _, line = await world.enter(after=after)
        assert recovered(line) == (True, after)
        assert line.heard == [(A, position) for position in range(after + 1, 1501)]
    for after in (1501, 10**30):
        _, line = await world.enter(after=after)
        assert recovered(line) == (False, 1500)
        assert line.heard == []


async def test_a_resume_in_another_epoch_brings_nothing(world: World) -> None:
    world.log.say(A, 3)
    session, line = await world.enter()
    for epoch in ({"epoch": "f"}, {"epoch": ""}, {}):
        data = {"companyId": A, "after": 1} | epoch
        await session.receive(json.dumps({"type": "setCompany", "data": data}))
        assert recovered(line) == (False, 3)
    assert line.heard == []


@pytest.mark.parametrize("kept", [True, False])
async def test_what_is_beyond_retention_is_not_recovered(world: World, kept: bool) -> None:
    world.log.store(A, 10)
    world.log.age(A, 5, 25)
    if kept:
        await world.enter("v")
        world.log.hear()
    for after in range(11):
        _, line = await world.enter(after=after)
        assert recovered(line) == ((True, after) if after >= 5 else (False, 10))


@pytest.mark.parametrize("after", [3, 4, 5])
async def test_the_oldest_message_that_is_wanted_decides_about_retention(
    world: World, after: int
) -> None:
    world.log.store(A, 10)
    world.log.age(A, 5, 25)
    _, line = await world.enter(after=after)
    assert recovered(line) == ((True, after) if after == 5 else (False, 10))


async def test_what_the_log_has_no_more_is_not_recovered(world: World) -> None:
    world.log.store(A, 10)
    del world.log.stored[A][:4]
    for after in range(11):
        _, line = await world.enter(after=after)
        assert recovered(line) == ((True, after) if after >= 4 else (False, 10))


async def test_what_goes_from_the_log_during_a_replay_is_an_end(world: World) -> None:
    world.log.store(A, 2500)
    session, line = await world.enter(company=None)
    world.door.members.add((A, "u"))
    line.room.clear()
    setting = asyncio.create_task(set_company(session, A, 0))
    await settle()
    del world.log.stored[A][:2000]
    line.room.set()
    with pytest.raises(NotReady):
        await setting
    assert line.heard == [(A, position) for position in range(1, len(line.heard) + 1)]


@pytest.mark.parametrize("after", [5, 6])
async def test_who_comes_from_a_quicker_node_waits_for_this_one(world: World, after: int) -> None:
    world.log.say(A, 2)
    await world.enter("v")
    world.log.store(A, 4)
    session, line = await world.enter(company=None)
    world.door.members.add((A, "u"))
    setting = asyncio.create_task(set_company(session, A, after))
    await settle()
    assert not setting.done()
    world.log.hear()
    await settle()
    assert setting.done()
    assert recovered(line) == (True, after)
    assert line.heard == [(A, position) for position in range(after + 1, 7)]


async def test_who_has_as_much_as_this_node_costs_the_log_nothing(world: World) -> None:
    world.log.say(A, 2)
    await world.enter("v")
    world.log.open.clear()
    _, line = await world.enter(after=2)
    assert recovered(line) == (True, 2)
    assert world.log.page_reads == 0


@pytest.mark.parametrize("room", [0, 1_000_000])
@pytest.mark.parametrize("after", range(11))
async def test_a_resume_is_complete_whatever_the_node_has_kept_of_it(
    world: World, monkeypatch: pytest.MonkeyPatch, after: int, room: int
) -> None:
    monkeypatch.setattr("notifier.delivery.recent.RECENT_BYTES", room)
    world.log.store(A, 10)
    if not room:
        await world.enter("v")
        world.log.store(A, 1)
        world.log.hear()
    last = world.log.stored[A][-1].position
    _, line = await world.enter(after=after)
    assert recovered(line) == (True, after)
    assert line.heard == [(A, position) for position in range(after + 1, last + 1)]


async def test_who_comes_from_a_quicker_node_comes_again_when_this_one_is_late(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("notifier.delivery.hub.BEHIND_SECONDS", 0.01)
    world.log.say(A, 2)
    await world.enter("v")
    world.log.store(A, 4)
    with pytest.raises(NotReady):
        await world.enter(after=5)


@pytest.mark.parametrize("after", [0, 5])
async def test_another_epoch_while_a_position_is_looked_up_is_a_resume_that_failed(
    world: World, after: int
) -> None:
    world.log.store(A, 2)
    await world.enter("v")
    session, line = await world.enter(company=None)
    world.door.members.add((A, "u"))
    if after:
        world.log.store(A, 5)
    else:
        world.log.open.clear()
    setting = asyncio.create_task(set_company(session, A, after))
    await settle()
    assert not setting.done()
    world.log.hub.begin_epoch("f")
    world.log.open.set()
    await setting
    assert recovered(line) == (False, 0)
    assert line.said[-1]["Data"]["Epoch"] == "f"
    assert line.heard == []


async def test_many_who_resume_cost_one_page(world: World) -> None:
    world.log.store(A, 900)
    for _ in range(5):
        _, line = await world.enter(after=0)
        assert len(line.heard) == 900
    assert world.log.page_reads == 1


# --- switching


async def test_a_refusal_and_a_failure_leave_the_company_that_was_followed(world: World) -> None:
    session, line = await world.enter()
    await set_company(session, B)
    assert line.said[-1]["Error"]["Code"] == "company_forbidden"
    world.door.error = DatabaseError("out of reach")
    await set_company(session, B)
    assert line.said[-1]["Error"]["Code"] == "unavailable"
    world.log.say(A)
    assert line.heard == [(A, 1)]


async def test_before_the_log_was_read_nobody_is_let_in(world: World) -> None:
    world.log.hub.epoch = ""
    session, line = await world.enter()
    assert line.said[-1]["Error"]["Code"] == "unavailable"
    assert not session.live_subscriptions


async def test_the_former_company_is_heard_until_the_acknowledgement_and_not_after(
    world: World,
) -> None:
    session, line = await world.enter()
    world.door.members.add((B, "u"))
    world.log.open.clear()
    setting = asyncio.create_task(set_company(session, B))
    await settle()
    world.log.say(A)
    world.log.open.set()
    await setting
    world.log.say(A)
    world.log.say(B)
    assert [m.get("Company", m["Type"]) for m in line.said[1:]] == [
        "SetCompanyResult",
        A,
        "SetCompanyResult",
        B,
    ]
    assert world.pins(A) == 0


async def test_the_loss_of_a_former_company_is_no_loss_of_the_next(world: World) -> None:
    session, line = await world.enter()
    world.door.members.add((B, "u"))
    await set_company(session, B)
    world.log.say(A, revokes=("u",))
    world.log.say(A, revokes=("*",))
    world.log.say(B)
    await settle()
    assert line.heard == [(B, 1)]
    assert line.kinds == ["AuthenticationResult", "SetCompanyResult", "SetCompanyResult"]


async def test_an_answer_about_a_former_company_takes_nothing_away(world: World) -> None:
    session, line = await world.enter()
    (former,) = session.live_subscriptions
    world.door.members.add((B, "u"))
    await set_company(session, B)
    former.revoke()
    world.log.say(B)
    assert line.heard == [(B, 1)]
    assert "CompanyRevoked" not in line.kinds


async def test_nobody_follows_a_company_without_a_token(world: World) -> None:
    session, line = world.open()
    world.door.members.add((A, ""))
    await set_company(session, A)
    assert line.said[-1]["Error"]["Code"] == "not_authenticated"
    assert world.door.asked == 0
    assert not session.live_subscriptions


async def test_ten_refusals_are_answered_and_the_next_is_the_end(world: World) -> None:
    session, line = await world.enter(company=None)
    for _ in range(10):
        await set_company(session, A)
    assert [message.get("Success") for message in line.said] == [True] + [False] * 10
    with pytest.raises(Forbidden):
        await set_company(session, A)


async def test_a_refusal_takes_its_time(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "REFUSED_SECONDS", 3600.0)
    session, line = await world.enter(company=None)
    guessing = asyncio.create_task(set_company(session, A))
    await settle()
    assert not guessing.done()
    assert line.kinds == ["AuthenticationResult"]
    guessing.cancel()


# --- many


async def test_of_many_who_hear_a_batch_in_slices_the_removed_hear_their_part_only(
    world: World,
) -> None:
    many = [
        await world.enter(f"u{number % 3}", quick=number % 2 == 0) for number in range(SLICE + 100)
    ]
    world.log.store(A, 2)
    world.log.store(A, revokes=("u1",))
    world.log.store(A, 2)
    world.log.hear()
    await settle()
    for number, (_, line) in enumerate(many):
        last = 3 if number % 3 == 1 else 5
        assert line.heard == [(A, position) for position in range(1, last + 1)]
        assert (line.kinds[-1] == "CompanyRevoked") is (number % 3 == 1)


async def test_of_another_epoch_nothing_is_heard_that_waited_in_the_former(world: World) -> None:
    many = [await world.enter(f"u{number}") for number in range(SLICE + 100)]
    for _ in range(3):
        world.log.store(A, 2, revokes=("nobody",))
    world.log.hear()
    await asyncio.sleep(0)
    world.log.hub.begin_epoch("f")
    await settle()
    world.log.stored.clear()
    world.log.say(A)
    await settle()
    for _, line in many:
        assert line.heard == [(A, 1), (A, 2), (A, 1)]


async def test_what_is_delivered_twice_is_heard_once(world: World) -> None:
    _, line = await world.enter()
    world.log.say(A, 3)
    world.log.hub.deliver(world.log.stored[A])
    world.log.say(A)
    assert line.heard == [(A, position) for position in range(1, 5)]


async def test_who_goes_between_two_slices_hears_nothing_more(world: World) -> None:
    many = [await world.enter(f"u{number}") for number in range(SLICE + 100)]
    world.log.say(A)
    await asyncio.sleep(0)
    (left, silent), (_, last) = many[-1], many[-2]
    assert not silent.heard
    left.closed()
    await settle()
    assert silent.heard == []
    assert last.heard == [(A, 1)]


# --- admission


async def test_a_socket_counts_for_its_user_until_it_is_gone(world: World) -> None:
    world.admission = world.services.admission = Admission(3, 1)
    session, _ = await world.enter(company=None)
    second, _ = world.open()
    with pytest.raises(TooMany):
        await authenticate(second)
    await authenticate(session)  # the same socket again
    third, _ = world.open()
    with pytest.raises(TooMany):
        world.open()
    session.closed()
    session.closed()
    await authenticate(third)
    world.admission.closed = True
    second.closed()
    with pytest.raises(Restart):
        world.open()


async def test_the_sockets_of_each_user_are_counted_as_they_come_and_go(world: World) -> None:
    world.admission = world.services.admission = Admission(100, 3)
    mine = [await world.enter("u", None) for _ in range(3)]
    await world.enter("v", None)
    for session, _ in mine[:2]:
        session.closed()
    mine[0][0].closed()
    for _ in range(2):
        await world.enter("u", None)
    for _ in range(2):
        with pytest.raises(TooMany):
            await world.enter("u", None)
    world.open()[0].closed()  # nobody's
    with pytest.raises(TooMany):
        await world.enter("u", None)


async def test_who_goes_before_his_token_was_checked_is_not_counted(world: World) -> None:
    class LateTokens(Tokens):
        async def verify(self, token: str) -> Identity:
            await late.wait()
            return await super().verify(token)

    late = asyncio.Event()
    world.admission = world.services.admission = Admission(3, 1)
    world.services.tokens = LateTokens(secret=SECRET)
    session, line = world.open()
    authenticating = asyncio.create_task(authenticate(session))
    await settle()
    session.end(NotAuthenticated())
    late.set()
    await authenticating
    assert line.kinds == []
    await world.enter(company=None)


# --- tokens


async def test_a_token_that_cannot_be_checked_now_is_no_bad_one(world: World) -> None:
    class KeylessTokens(Tokens):
        async def verify(self, token: str) -> Identity:
            raise KeysUnavailable("no keys")

    world.services.tokens = KeylessTokens(secret=SECRET)
    session, line = world.open()
    with pytest.raises(NotReady):
        await authenticate(session)
    assert line.said == []


@pytest.mark.parametrize(
    ("ttl", "code", "closure"),
    [(-60, "token_expired", Expired), (10**20, "token_invalid", BadToken)],
)
async def test_a_refused_token_is_answered_and_then_it_is_over(
    world: World, ttl: float, code: str, closure: type[Closure]
) -> None:
    session, line = world.open()
    with pytest.raises(closure):
        await authenticate(session, ttl=ttl, nbf=10**12 if ttl > 0 else 0)
    (answer,) = line.said
    assert answer["Success"] is False
    assert answer["Error"]["Code"] == code


async def test_a_bad_token_takes_its_time(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "REFUSED_SECONDS", 3600.0)
    session, line = world.open()
    guessing = asyncio.create_task(authenticate(session, ttl=-60))
    await settle()
    assert not guessing.done()
    assert line.said == []
    guessing.cancel()


async def test_another_user_is_an_end_and_the_first_remains_who_it_was(world: World) -> None:
    session, _ = await world.enter()
    with pytest.raises(AnotherUser):
        await authenticate(session, "v")
    assert session.user == "u"


@pytest.mark.parametrize(("life", "warned"), [(3600, 3540), (100, 40), (50, 40), (10, 8)])
async def test_a_client_is_warned_a_minute_ahead_or_at_four_fifths(
    world: World, life: float, warned: float
) -> None:
    session, _ = world.open()
    await authenticate(session, ttl=life)
    due = session._expiry._timer.when() - asyncio.get_running_loop().time()
    assert warned - 5 < due <= warned


# --- the clock


async def test_c15_a_clock_that_is_set_moves_the_end_of_a_token(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = time.time
    session, line = await world.enter(company=None)
    monkeypatch.setattr(time, "time", lambda: now() + 3600 - 30)
    session.clock_was_set()
    await asyncio.sleep(0)
    assert line.ended is None
    monkeypatch.setattr(time, "time", lambda: now() + 3600 + 5)
    session.clock_was_set()
    await settle()
    assert line.kinds[-1] == "TokenExpiring"
    assert line.ended is None  # the leeway
    due = session._expiry._timer.when() - asyncio.get_running_loop().time()
    assert 4 < due <= 5
    session._expiry._timer.cancel()
    session._expiry._expire()
    due = session._expiry._timer.when() - asyncio.get_running_loop().time()
    assert line.ended is None
    assert 4 < due <= 5
    monkeypatch.setattr(time, "time", lambda: now() + 3600 + 11)
    session._expiry._expire()
    assert isinstance(line.ended, Expired)


async def test_c15_a_clock_that_is_set_back_gives_a_token_its_time(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = time.time
    session, line = await world.enter(company=None)
    monkeypatch.setattr(time, "time", lambda: now() - 3600)
    session._expiry._expire()
    session.clock_was_set()
    await settle()
    assert line.ended is None
    assert line.kinds == ["AuthenticationResult"]


async def test_a_socket_that_is_gone_has_no_timer(world: World) -> None:
    session, _ = await world.enter(company=None)
    session.closed()
    before = session._expiry._timer
    session.clock_was_set()
    assert session._expiry._timer is before
    assert before.cancelled()


async def test_nobody_waits_for_the_token_of_a_socket_that_is_gone(world: World) -> None:
    session, line = world.open()
    session.clock_was_set()
    assert line.kinds == []
    await authenticate(session, ttl=1)
    session.closed()
    session.clock_was_set()
    session._expiry._warn()
    await settle()
    assert line.kinds == ["AuthenticationResult"]
    assert line.ended is None


async def test_a_life_of_years_is_waited_for_in_pieces(world: World) -> None:
    session, line = world.open()
    await authenticate(session, ttl=10**10)
    session._expiry._timer.cancel()
    session._expiry._wait(expiry.LONGEST_TIMER * 2)
    left = session._expiry._timer.when() - asyncio.get_running_loop().time()
    assert 0 < left <= expiry.LONGEST_TIMER
    assert line.kinds == ["AuthenticationResult"]


@pytest.fixture
def shifted(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """On a timeless loop the clock goes with it, and goes wrong by the sum of these seconds."""
    began, wrong = float(int(time.time())), list[float]()
    monkeypatch.setattr(
        time, "time", lambda: began + asyncio.get_running_loop().time() + sum(wrong)
    )
    return wrong


@timeless
async def test_who_does_not_say_who_he_is_goes_in_the_end() -> None:
    world = World()
    session, line = world.open()
    await asyncio.sleep(world.services.auth_timeout - 0.1)
    assert line.ended is None
    await asyncio.sleep(0.2)
    assert isinstance(line.ended, NotAuthenticated)
    assert session.stage is Stage.ENDED


@pytest.mark.parametrize(
    ("life", "warned"), [(3 * 24 * 3600.0, 3 * 24 * 3600.0 - 60), (61, 1), (60, 48), (5, 4)]
)
@timeless
async def test_a_token_is_good_until_it_ends_and_its_end_is_announced(
    shifted: list[float], life: float, warned: float
) -> None:
    world, ends = World(), timestamp(time.time() + life)
    session, line = world.open()
    await authenticate(session, ttl=life)
    await asyncio.sleep(warned - 0.1)
    assert line.kinds == ["AuthenticationResult"]
    await asyncio.sleep(0.2)
    assert line.said[1:] == [{"Type": "TokenExpiring", "Data": {"ExpiresAt": ends}}]
    await asyncio.sleep(life - warned + world.services.leeway - 0.2)
    assert line.ended is None
    await asyncio.sleep(0.2)
    assert isinstance(line.ended, Expired)
    assert len(line.said) == 2


@timeless
async def test_a_token_that_has_ended_already_but_for_the_leeway_is_warned_of_and_ends(
    shifted: list[float],
) -> None:
    world = World()
    world.services.tokens = Tokens(secret=SECRET, clock=time.time)
    session, line = world.open()
    await authenticate(session, ttl=-9.5)
    await asyncio.sleep(0.4)
    assert line.kinds == ["AuthenticationResult", "TokenExpiring"]
    assert line.ended is None
    await asyncio.sleep(0.2)
    assert isinstance(line.ended, Expired)


@timeless
async def test_a_clock_that_goes_wrong_at_the_end_is_looked_at_once_a_minute(
    shifted: list[float],
) -> None:
    world = World()
    session, line = world.open()
    await authenticate(session, ttl=100)
    await asyncio.sleep(50)
    shifted.append(-0.5)
    await asyncio.sleep(60.1)
    assert line.ended is None  # half a second is left
    shifted.append(-1000)
    await asyncio.sleep(1)
    assert line.ended is None
    shifted.append(1000)
    await asyncio.sleep(59.6)
    assert isinstance(line.ended, Expired)


# --- addresses


async def guess(session: Session) -> None:
    await session.receive('{"type": "authenticate", "token": "no token"}')


async def test_c17_no_address_has_more_sockets_than_allowed(world: World) -> None:
    world.admission = world.services.admission = Admission(100, 100, 2)
    first, _ = world.open("192.0.2.1")
    world.open("192.0.2.1")
    for _ in range(2):
        with pytest.raises(TooMany):
            world.open("192.0.2.1")
    for _ in range(2):
        world.open("192.0.2.2")
    for _ in range(3):
        world.open()  # nobody knows from where
        world.sessions.append(Session(world.services, Line(quick=True)))
    first.closed()
    first.closed()
    world.open("192.0.2.1")
    with pytest.raises(TooMany):
        world.open("192.0.2.1")
    assert len(world.admission.connections) == 10


async def test_c17_bad_tokens_of_an_address_stand_in_line_and_no_good_one_behind_them(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sessions, "REFUSED_SECONDS", 0.0)
    monkeypatch.setattr(admission, "QUEUE_STEP_SECONDS", 3600.0)
    told, _ = world.open("192.0.2.1")
    with pytest.raises(BadToken):
        await guess(told)
    guessing = [asyncio.create_task(guess(world.open("192.0.2.1")[0])) for _ in range(3)]
    await settle()
    assert [task.done() for task in guessing] == [True, False, False]
    good, line = world.open("192.0.2.1")
    await authenticate(good)
    assert line.kinds == ["AuthenticationResult"]
    late = [authenticate(world.open("192.0.2.1")[0], ttl=-60) for _ in range(3)]
    for end in await asyncio.gather(*late, return_exceptions=True):
        assert isinstance(end, Expired)  # a good one that is too late
    with pytest.raises(BadToken):
        await guess(world.open("192.0.2.2")[0])
    for task in guessing:
        task.cancel()
    await asyncio.gather(*guessing, return_exceptions=True)
    with pytest.raises(BadToken):  # the line is gone with them
        await guess(world.open("192.0.2.1")[0])


async def test_c17_with_too_long_a_line_no_token_of_the_address_is_looked_at(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:

    class CountingTokens(Tokens):
        async def verify(self, token: str) -> Identity:
            looked_at.append(token)
            return await super().verify(token)

    looked_at: list[str] = []
    monkeypatch.setattr(sessions, "REFUSED_SECONDS", 3600.0)
    monkeypatch.setattr(admission, "QUEUE_LIMIT", 2)
    world.services.tokens = CountingTokens(secret=SECRET)
    known, line = world.open("192.0.2.1")
    await authenticate(known)
    guessing = [asyncio.create_task(guess(world.open("192.0.2.1")[0])) for _ in range(2)]
    await settle()
    assert len(looked_at) == 3
    for attempt in (guess, authenticate):
        with pytest.raises(TooMany):
            await attempt(world.open("192.0.2.1")[0])
    assert len(looked_at) == 3
    await authenticate(known)  # who is known already may extend his stay
    await authenticate(world.open("192.0.2.2")[0])
    assert line.kinds == ["AuthenticationResult"] * 2
    for task in guessing:
        task.cancel()
    await asyncio.gather(*guessing, return_exceptions=True)
    await authenticate(world.open("192.0.2.1")[0])


# --- how much may be said


@pytest.mark.parametrize("known", [False, True])
async def test_a_message_is_as_long_as_it_may_be_and_no_longer(world: World, known: bool) -> None:
    session, line = world.open()
    if known:
        await authenticate(session)
    limit = (64 if known else 16) * 1024
    ping = '{"type": "ping", "x": "%s"}'
    room = limit - len(ping) + 2
    for letter in ("x", "é", "🗝"):
        size = len(letter.encode())
        await session.receive(ping % (letter * (room // size) + "x" * (room % size)))
        with pytest.raises(TooBig):
            await session.receive(ping % (letter * (room // size) + "x" * (room % size + 1)))
    assert line.kinds[-3:] == ["Pong"] * 3


async def test_a_hundred_messages_in_ten_seconds_are_heard(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    session, line = world.open()
    await session.receive('{"type": "ping"}')
    now += 5
    for _ in range(99):
        await session.receive('{"type": "ping"}')
    with pytest.raises(TooMany):
        await session.receive('{"type": "ping"}')
    assert line.kinds == ["Pong"] * 100
    now += 5  # the first is forgotten, the others and the refused one are not
    with pytest.raises(TooMany):
        await session.receive('{"type": "ping"}')
    now += 5
    for _ in range(99):
        await session.receive('{"type": "ping"}')
    with pytest.raises(TooMany):
        await session.receive('{"type": "ping"}')


async def test_ten_malformed_messages_are_answered_and_the_next_is_the_end(world: World) -> None:
    session, line = world.open()
    for _ in range(10):
        await session.receive("{")
        await session.receive('{"type": "ping"}')
    assert line.kinds == ["Error", "Pong"] * 10
    assert line.said[0]["Error"]["Code"] == "malformed"
    with pytest.raises(Malformed):
        await session.receive("{")


async def test_before_he_is_known_nobody_has_a_company(world: World) -> None:
    session, line = world.open()
    await set_company(session, A)
    assert line.said[-1]["Error"]["Code"] == "not_authenticated"
    assert world.door.asked == 0


async def test_before_the_log_was_read_no_company_can_be_entered(world: World) -> None:
    world.log.hub.epoch = ""
    session, line = await world.enter()
    assert line.said[-1]["Error"]["Code"] == "unavailable"
    assert not session.live_subscriptions


# --- the wire piles up, the log is lost


async def test_a_session_is_written_to_with_care_while_its_wire_piles_up(world: World) -> None:
    session, line = await world.enter()
    channel = world.log.hub.channel(A)
    assert channel is not None
    for pile, fast in ((session.paused, 0), (session.resumed, 1)):
        pile()
        assert len(channel._direct[TEXT]) == fast
        assert len(channel) == 1
        world.log.say(A)
    line.write_direct = None  # a wire that never is
    session.paused()
    session.resumed()
    assert not channel._direct[TEXT]
    world.log.say(A)
    assert line.heard == [(A, 1), (A, 2), (A, 3)]


async def test_a_session_is_written_to_as_its_wire_takes_it(world: World) -> None:
    ways = []
    for quick, encoding in ((False, TEXT), (True, TEXT), (True, DEFLATED)):
        session, line = world.open(quick=quick)
        line.encoding = encoding
        await authenticate(session)
        world.door.members.add((A, "u"))
        await set_company(session, A)
        channel = world.log.hub.channel(A)
        assert channel is not None
        (own,) = session.live_subscriptions
        direct: dict[Any, Any] = channel._direct
        groups = [channel._paused, direct.get(TEXT, {}), direct.get(DEFLATED, {})]
        ways.append([own in group for group in groups])
        session.paused()
        assert own in channel._paused
        session.resumed()
        ways.append([own in group for group in groups])
    slow, fast, deflating = [[n == way for n in range(3)] for way in range(3)]
    assert ways == [slow, slow, fast, fast, deflating, deflating]


async def test_a_session_without_a_company_may_pile_up_as_well(world: World) -> None:
    session, _ = world.open()
    session.paused()
    session.resumed()
    assert not session.live_subscriptions


async def test_when_the_log_is_lost_everybody_comes_back(world: World) -> None:
    session, line = await world.enter()
    world.log.say(A, 3)
    world.log.hub.drop()
    session.end(Restart())  # too late
    assert isinstance(line.ended, NotReady)
    assert session.stage is Stage.ENDED
    assert world.log.hub.channel(A) is None
    assert world.log.hub._budget.used == 0


async def test_another_epoch_gives_back_what_the_former_has_kept(world: World) -> None:
    await world.enter()
    world.log.say(A, 3)
    assert world.log.hub._budget.used > 0
    world.log.hub.begin_epoch("f")
    assert world.log.hub._budget.used == 0
