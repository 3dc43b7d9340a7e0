"""The Python client, on sockets that the test holds the other end of, in a time of its own."""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosedError

from notifier.client import client as module
from notifier.client.client import (
    MOST_HELD,
    Client,
    Message,
    Pace,
    Position,
    Recovered,
    Resync,
    Said,
    Status,
    connect,
)
from tests.timeless import timeless

EPOCH = "e1"
TEN = Position(10, EPOCH)


class Peer:
    """The server's end of one socket; also the socket that the client has."""

    def __init__(self) -> None:
        self.said: list[Any] = []
        self.closed = False
        self.close_code: int | None = None
        self.close_reason: str | None = None
        self._frames: asyncio.Queue[str | None] = asyncio.Queue()

    # --- the client's end

    @property
    def transport(self) -> Any:
        return self

    async def send(self, message: str) -> None:
        self.said.append(json.loads(message))

    async def recv(self) -> str:
        frame = await self._frames.get()
        if frame is None or self.closed:
            self.closed = True
            raise ConnectionClosedError(None, None)
        return frame

    async def close(self) -> None:
        self.abort()

    def abort(self) -> None:
        self.closed = True
        self._frames.put_nowait(None)

    # --- the server's end

    @property
    def last(self) -> Any:
        return self.said[-1]

    async def say(self, *messages: Any) -> None:
        for message in messages:
            self._frames.put_nowait(message if isinstance(message, str) else json.dumps(message))
        await settle()

    async def end(self, code: int, reason: str = "") -> None:
        self.close_code, self.close_reason = code, reason
        self._frames.put_nowait(None)
        await settle()

    async def welcome(
        self, position: int = 10, epoch: str = EPOCH, recovered: bool | None = None
    ) -> None:
        """From the handshake to the acknowledgement."""
        await settle()
        await self.say(admitted())
        await self.say(subscribed(self.last["data"]["companyId"], position, epoch, recovered))


async def settle() -> None:
    """Lets everything happen that is due now."""
    for _ in range(20):
        await asyncio.sleep(0)


async def till(moment: float) -> None:
    """Lets time pass up to a moment of the loop's clock."""
    await asyncio.sleep(max(0.0, moment - now()))
    await settle()


def now() -> float:
    return asyncio.get_running_loop().time()


def admitted() -> Any:
    return {"Type": "AuthenticationResult", "Success": True, "Data": {"UserId": "u1"}}


def subscribed(
    company: str, position: Any, epoch: Any = EPOCH, recovered: bool | None = None
) -> Any:
    data = {"CompanyId": company, "Position": position, "Epoch": epoch}
    if recovered is not None:
        data["Recovered"] = recovered
    return {"Type": "SetCompanyResult", "Success": True, "Data": data}


def refused(code: str = "company_forbidden") -> Any:
    error = {"Code": code, "Message": "No."}
    return {"Type": "SetCompanyResult", "Success": False, "Error": error}


def change(position: Any, **data: Any) -> Any:
    return {
        "Type": "EventUpdated",
        "Data": {"EventId": "1", "CompanyId": "a", **data},
        "Position": position,
    }


def resync(position: int, reason: str = "bulk", epoch: str = EPOCH) -> Any:
    data = {"CompanyId": "a", "Reason": reason, "Epoch": epoch}
    return {"Type": "Resync", "Data": data, "Position": position}


def disconnect(code: int, reconnect: bool = True, wait: int | None = None) -> Any:
    data: dict[str, Any] = {"Code": code, "Reason": "for a reason", "Reconnect": reconnect}
    if wait is not None:
        data["RetryAfterMs"] = wait
    return {"Type": "Disconnect", "Data": data}


def brief(said: Said) -> tuple[Any, ...]:
    match said:
        case Message():
            return ("message", said.position)
        case Recovered():
            return ("recovered", said.position)
        case Resync():
            return ("resync", said.reason, said.position)
        case Status():
            return ("status", said.state)


class World:
    """A client, the sockets that it opened, and what it said."""

    def __init__(self, **options: Any) -> None:
        self.peers: list[Peer] = []
        self.asked = 0
        self.said: list[Said] = []
        self._token: Callable[[int], Any] = options.pop("token", lambda time: f"token-{time}")
        self._unreachable: Exception | None = options.pop("unreachable", None)
        dice = options.pop("dice", 0.5)
        self.client = Client(
            "ws://notifier.test/",
            self._next_token,
            options.pop("company", "a"),
            options.pop("position", None),
            pace=Pace(dice=lambda: dice),
            open_socket=self._open,
        )
        assert not options

    def _next_token(self) -> Any:
        self.asked += 1
        return self._token(self.asked)

    async def _open(self, _: str) -> Peer:
        self.peers.append(Peer())
        if self._unreachable is not None:
            raise self._unreachable
        return self.peers[-1]

    @property
    def peer(self) -> Peer:
        return self.peers[-1]

    @property
    def state(self) -> str:
        return self.client.status.state

    def news(self) -> list[tuple[Any, ...]]:
        """What was said since the last time that one asked, statuses aside."""
        told = [brief(said) for said in self.said if not isinstance(said, Status)]
        self.said.clear()
        return told

    async def returned(self) -> float:
        """Lets the wait pass, and says how long it was."""
        assert self.state == "waiting"
        begun, count = now(), len(self.peers)
        assert self.client.status.retry_in is not None
        await till(begun + self.client.status.retry_in)
        assert len(self.peers) == count + 1
        return round(now() - begun, 6)


@asynccontextmanager
async def follow(**options: Any) -> AsyncIterator[World]:
    """A client whose every word is heard at once."""
    world = World(**options)
    async with world.client:
        listening = asyncio.create_task(_listen(world))
        await settle()
        yield world
    await listening


async def _listen(world: World) -> None:
    async for said in world.client:
        world.said.append(said)


# --- the conversation


@timeless
async def test_it_authenticates_asks_for_the_company_and_has_the_state_read_once() -> None:
    async with follow() as world:
        assert world.peer.said == [{"type": "authenticate", "token": "token-1"}]
        await world.peer.say(admitted())
        assert world.peer.last == {"type": "setCompany", "data": {"companyId": "a"}}
        assert world.state == "connecting"
        await world.peer.say(subscribed("a", 10))
        assert world.state == "live"
        assert world.news() == [("resync", "start", 10)]
        assert world.client.position == TEN
        await world.peer.say(change(11), change(12))
        assert world.news() == [("message", 11), ("message", 12)]
        assert world.client.position == Position(12, EPOCH)


@timeless
async def test_a_message_has_all_that_was_sent() -> None:
    async with follow() as world:
        await world.peer.welcome()
        text = json.dumps(
            change(11, Title="ä") | {"Old": {"Title": "b"}, "At": "now", "Actor": "u7"}, indent=1
        )
        await world.peer.say(text, change(12) | {"Partial": True})
        first, second = world.said[-2:]
        assert first == Message(
            type="EventUpdated",
            company="a",
            data={"EventId": "1", "CompanyId": "a", "Title": "ä"},
            old={"Title": "b"},
            position=11,
            epoch=EPOCH,
            at="now",
            actor="u7",
            partial=False,
            text=text,
        )
        assert isinstance(second, Message)
        assert second.partial
        assert (second.old, second.actor) == (None, None)


@timeless
async def test_without_a_company_it_waits_for_one() -> None:
    async with follow(company=None) as world:
        await world.peer.say(admitted())
        await till(12)
        assert world.state == "idle"
        world.client.set_company(7)
        await settle()
        assert world.peer.last == {"type": "setCompany", "data": {"companyId": "7"}}
        await world.peer.say(subscribed("7", 0))
        assert world.news() == [("resync", "start", 0)]


@timeless
async def test_a_uuid_may_come_back_in_another_spelling() -> None:
    async with follow(company="A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11") as world:
        await world.peer.say(admitted(), subscribed("a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11", 3))
        assert world.state == "live"


@timeless
async def test_a_message_of_a_later_protocol_is_passed_over() -> None:
    async with follow() as world:
        await world.peer.welcome()
        world.news()
        await world.peer.say({"Type": "New", "Data": [1]}, {"Type": "Pong"}, [1], "null")
        assert world.state == "live"
        assert world.news() == []


@pytest.mark.parametrize("frame", ["{", "[" * 100_000], ids=["broken", "deep"])
@timeless
async def test_what_nobody_can_read_is_asked_for_again_but_not_for_ever(frame: str) -> None:
    async with follow() as world:
        await world.peer.welcome()
        world.news()
        for _ in range(4):
            await world.peer.say(frame)
            assert world.state == "waiting"
            await world.returned()
            await world.peer.say(admitted())
            if world.peer.last["data"] == {"companyId": "a"}:
                break
            assert world.peer.last["data"] == {"companyId": "a", "after": 10, "epoch": EPOCH}
            await world.peer.say(subscribed("a", 10, recovered=True))
        await world.peer.say(subscribed("a", 12), change(13))
        assert world.news()[-2:] == [("resync", "gap", 12), ("message", 13)]


@pytest.mark.parametrize("url", ["not a url", "http://x/", "ws://"])
def test_an_address_that_cannot_work_is_refused_at_once(url: str) -> None:
    with pytest.raises(ValueError, match="WebSocket address"):
        connect(url, lambda: "t")


def test_a_position_without_its_epoch_is_refused_at_once() -> None:
    with pytest.raises(ValueError, match="go together"):
        connect("ws://x/", lambda: "t", "a", after=1)


@timeless
async def test_closed_is_closed() -> None:
    async with follow() as world:
        await world.peer.welcome()
        await world.client.close()
        assert world.peer.closed
        assert world.state == "closed"
        await till(60)
        assert len(world.peers) == 1
        with pytest.raises(RuntimeError, match="closed"):
            world.client.set_company("b")
        with pytest.raises(RuntimeError, match="closed"):
            world.client.reconnect()


@timeless
async def test_an_error_of_its_own_does_not_look_like_a_quiet_end() -> None:
    with pytest.raises(ZeroDivisionError):
        async with follow(unreachable=ZeroDivisionError()) as world:
            await settle()
    assert len(world.peers) == 1


# --- the close codes

RETURNS = [1000, 1001, 1005, 1006, 1011, 1012, 1013, 4408, 4419, 4429, 4500, 4503, 4508, 4999]


@pytest.mark.parametrize("code", RETURNS)
@timeless
async def test_it_returns_with_a_token_asked_anew_and_resumes(code: int) -> None:
    async with follow() as world:
        await world.peer.welcome()
        await world.peer.say(change(11))
        world.news()
        await world.peer.end(code, "for a reason")
        status = world.client.status
        assert (status.state, status.code, status.reason) == ("waiting", code, "for a reason")
        assert await world.returned() == (5.5 if code == 4429 else 0.5)
        await world.peer.say(admitted())
        assert world.peer.said == [
            {"type": "authenticate", "token": "token-2"},
            {"type": "setCompany", "data": {"companyId": "a", "after": 11, "epoch": EPOCH}},
        ]
        await world.peer.say(subscribed("a", 11, recovered=True), change(12))
        assert world.news() == [("recovered", 11), ("message", 12)]


@pytest.mark.parametrize("code", [1002, 1003, 1007, 1009, 4400, 4403, 4409])
@timeless
async def test_broken_it_stops_and_its_loop_ends(code: int) -> None:
    world = World()
    async with world.client:
        await settle()
        await world.peer.welcome()
        await world.peer.end(code)
        said = [brief(each) async for each in world.client]
        assert said[-1] == ("status", "stopped")
        assert world.client.status.code == code
        await till(120)
        assert len(world.peers) == 1
        world.client.reconnect()
        await settle()
        assert len(world.peers) == 2


@timeless
async def test_it_does_not_return_with_a_token_that_was_refused() -> None:
    async with follow(token=lambda _: "the same") as world:
        await world.peer.say({"Type": "AuthenticationResult", "Success": False})
        await world.peer.end(4401)
        await till(120)
        assert len(world.peers) == 1
        assert world.asked == 2
        assert (world.state, world.client.status.code) == ("stopped", 4401)


@timeless
async def test_it_returns_with_another_token() -> None:
    async with follow() as world:
        await world.peer.say(disconnect(4401, reconnect=False))
        await world.peer.end(4401)
        await world.returned()
        assert world.peer.said == [{"type": "authenticate", "token": "token-2"}]


@timeless
async def test_an_expired_token_is_not_shown_again_and_a_fresh_one_is_waited_for() -> None:
    async with follow(token=lambda time: "old" if time < 4 else "fresh") as world:
        await world.peer.welcome()
        await world.peer.end(4419)
        await till(now() + 0.5)
        assert world.state == "waiting"
        assert len(world.peers) == 1
        await till(now() + 3)
        assert world.peer.said == [{"type": "authenticate", "token": "fresh"}]


@timeless
async def test_a_forbidden_company_stops_it_and_another_one_starts_it() -> None:
    async with follow() as world:
        await world.peer.say(admitted())
        await world.peer.end(4403)
        assert world.state == "stopped"
        world.client.set_company("b")
        await settle()
        await world.peer.say(admitted())
        assert world.peer.last == {"type": "setCompany", "data": {"companyId": "b"}}


@timeless
async def test_a_time_that_the_server_names_is_kept() -> None:
    async with follow() as world:
        await world.peer.welcome()
        await world.peer.say(disconnect(4429, wait=20_000))
        await world.peer.end(4429)
        assert await world.returned() == 20.5


@timeless
async def test_what_disconnect_said_counts_where_the_close_has_no_code_of_its_own() -> None:
    async with follow() as world:
        await world.peer.welcome()
        await world.peer.say(disconnect(4409, reconnect=False))
        await world.peer.end(1006)
        status = world.client.status
        assert (status.state, status.code, status.reason) == ("stopped", 4409, "for a reason")


@timeless
async def test_a_code_of_a_later_protocol_obeys_the_word_reconnect() -> None:
    async with follow() as world:
        await world.peer.welcome()
        await world.peer.say(disconnect(4777, reconnect=False))
        await world.peer.end(4777)
        assert world.state == "stopped"


@timeless
async def test_a_disconnect_whose_close_never_comes_is_one_all_the_same() -> None:
    async with follow() as world:
        await world.peer.welcome()
        await world.peer.say(disconnect(4508, wait=100))
        await till(now() + 10)
        status = world.client.status
        assert (status.state, status.code, status.retry_in) == ("waiting", 4508, 0.6)
        assert world.peer.closed


@pytest.mark.parametrize(("code", "close"), [("token_invalid", 4401), ("token_expired", 4419)])
@timeless
async def test_a_refusal_whose_close_never_comes_is_one_all_the_same(code: str, close: int) -> None:
    async with follow(token=lambda _: "the same") as world:
        error = {"Code": code, "Message": "No."}
        await world.peer.say({"Type": "AuthenticationResult", "Success": False, "Error": error})
        await till(10)
        assert (world.state, world.client.status.code) == ("waiting", close)


# --- coming back


@pytest.mark.parametrize(
    ("dice", "waits"),
    [
        (0.999, [0.999, 1.998, 3.996, 7.992, 15.984, 29.97, 29.97]),
        (0.5, [0.5, 1, 2, 4, 8, 15, 15]),
        (0.0, [0, 0, 0]),
    ],
)
@timeless
async def test_the_waits_grow_are_random_in_full_and_have_an_upper_end(
    dice: float, waits: list[float]
) -> None:
    async with follow(dice=dice, unreachable=OSError("refused")) as world:
        for wait in waits:
            if wait:
                assert world.client.status.retry_in == pytest.approx(wait)
                assert await world.returned() == pytest.approx(wait, abs=1e-5)
        assert len(world.peers) > len(waits)


@timeless
async def test_a_connection_that_broke_right_after_the_greeting_is_no_success() -> None:
    async with follow() as world:
        for wait in [0.5, 1, 2]:
            await world.peer.welcome()
            await world.peer.end(1012)
            assert await world.returned() == wait
        await world.peer.welcome()
        await till(now() + 15)
        await world.peer.say({"Type": "Pong"})
        await world.peer.end(1012)
        assert world.client.status.retry_in == 0.5


@timeless
async def test_a_server_that_does_not_admit_or_answer_is_left_after_a_while() -> None:
    async with follow() as world:
        await till(10)
        assert (world.state, world.client.status.reason) == ("waiting", "no answer")
        await world.returned()
        await world.peer.say(admitted())
        for _ in range(2):
            await till(now() + 10)
            await world.peer.say({"Type": "Pong"})
        assert world.state == "connecting"
        await till(now() + 10)
        assert world.state == "waiting"
        assert all(peer.closed for peer in world.peers)


@timeless
async def test_a_saved_position_is_resumed_by_another_client() -> None:
    async with follow(position=Position(11, EPOCH)) as world:
        await world.peer.welcome(11, recovered=True)
        assert world.peer.last["data"] == {"companyId": "a", "after": 11, "epoch": EPOCH}
        await world.peer.say(change(12))
        assert world.news() == [("recovered", 11), ("message", 12)]


@pytest.mark.parametrize(
    ("position", "epoch", "recovered", "reason"),
    [
        (50, EPOCH, False, "expired"),
        (50, EPOCH, None, "expired"),
        (50, EPOCH, True, "expired"),
        (3, "e2", False, "epoch"),
        (11, "e2", True, "epoch"),
    ],
)
@timeless
async def test_what_was_not_recovered_has_to_be_read(
    position: int, epoch: str, recovered: bool | None, reason: str
) -> None:
    async with follow(position=Position(11, EPOCH)) as world:
        await world.peer.welcome(position, epoch, recovered)
        assert world.news() == [("resync", reason, position)]
        await world.peer.say(change(position + 1))
        assert world.client.position == Position(position + 1, epoch)


@timeless
async def test_position_0_is_one_to_resume_from() -> None:
    async with follow(position=Position(0, EPOCH)) as world:
        await world.peer.welcome(0, recovered=True)
        assert world.news() == [("recovered", 0)]


@pytest.mark.parametrize(("position", "epoch"), [("10", EPOCH), (True, EPOCH), (10, None)])
@timeless
async def test_an_answer_without_position_or_epoch_is_no_answer(position: Any, epoch: Any) -> None:
    async with follow() as world:
        await world.peer.say(admitted(), subscribed("a", position, epoch))
        assert world.state == "waiting"
        assert world.news() == []


# --- the token

EXPIRING = {"Type": "TokenExpiring", "Data": {"ExpiresAt": "2026-11-22T18:00:00Z"}}


@timeless
async def test_the_token_is_renewed_on_the_live_socket_and_nothing_else_happens() -> None:
    async with follow() as world:
        await world.peer.welcome()
        world.news()
        await world.peer.say(EXPIRING, EXPIRING)
        assert world.peer.last == {"type": "authenticate", "token": "token-2"}
        await world.peer.say(admitted(), change(11))
        assert world.news() == [("message", 11)]
        assert world.state == "live"


@timeless
async def test_a_provider_that_fails_hangs_or_has_nothing_newer_is_asked_again() -> None:
    async def hang() -> str:
        await asyncio.Event().wait()
        raise AssertionError

    def token(time: int) -> Any:
        if time == 2:
            raise OSError("provider down")
        return hang() if time == 4 else "second" if time == 5 else "first"

    async with follow(token=token) as world:
        await world.peer.welcome()
        await world.peer.say(EXPIRING, EXPIRING)
        assert world.asked == 2
        for _ in range(5):
            await till(now() + 10)
            await world.peer.say({"Type": "Pong"})
        assert world.asked == 5
        errors = [str(said.error) for said in world.said if isinstance(said, Status) if said.error]
        assert errors == ["provider down", "get_token() did not answer"]
        shown = [said["token"] for said in world.peer.said if said["type"] == "authenticate"]
        assert shown == ["first", "second"]


@timeless
async def test_without_a_token_there_is_no_socket_and_the_wait_grows() -> None:
    async with follow(token=lambda time: ["", None, "token"][time - 1]) as world:
        assert world.client.status.reason == "no token"
        await till(0.5)
        assert world.client.status.retry_in == 1
        assert world.peers == []
        await till(1.5)
        assert len(world.peers) == 1


# --- holes and doubles


@timeless
async def test_a_double_is_dropped() -> None:
    async with follow() as world:
        await world.peer.welcome()
        world.news()
        await world.peer.say(change(11), change(11), change(10), change(12), change(3))
        assert world.news() == [("message", 11), ("message", 12)]
        assert len(world.peer.said) == 2


@timeless
async def test_a_hole_is_asked_for_and_nothing_behind_it_is_said_before_it_is_filled() -> None:
    async with follow() as world:
        await world.peer.welcome()
        await world.peer.say(change(11))
        world.news()
        await world.peer.say(change(13), change(14))
        assert world.news() == []
        assert world.client.position == Position(11, EPOCH)
        assert world.state == "connecting"
        assert len(world.peer.said) == 3
        assert world.peer.last["data"] == {"companyId": "a", "after": 11, "epoch": EPOCH}
        await world.peer.say(subscribed("a", 11, recovered=True), *map(change, (12, 13, 14)))
        assert world.news() == [("recovered", 11), *(("message", n) for n in (12, 13, 14))]


@timeless
async def test_a_hole_that_cannot_be_filled_has_the_state_read() -> None:
    async with follow() as world:
        await world.peer.welcome()
        world.news()
        await world.peer.say(change(13), subscribed("a", 20, recovered=False), change(21))
        assert world.news() == [("resync", "expired", 20), ("message", 21)]


@timeless
async def test_a_server_that_never_sends_what_it_promises_is_not_believed_for_ever() -> None:
    async with follow() as world:
        await world.peer.welcome()
        world.news()
        for _ in range(3):
            await world.peer.say(change(13))
            assert world.peer.last["data"] == {"companyId": "a", "after": 10, "epoch": EPOCH}
            await world.peer.say(subscribed("a", 10, recovered=True))
            assert world.news() == [("recovered", 10)]
        await world.peer.say(change(13))
        assert world.peer.last["data"] == {"companyId": "a"}
        await world.peer.say(subscribed("a", 13), change(14))
        assert world.news() == [("resync", "gap", 13), ("message", 14)]


@pytest.mark.parametrize("position", ["11", 11.5, None, -1, True])
@timeless
async def test_a_position_that_is_no_number_ends_the_connection(position: Any) -> None:
    async with follow() as world:
        await world.peer.welcome()
        world.news()
        await world.peer.say(change(position))
        assert world.news() == []
        assert world.state == "waiting"


@timeless
async def test_what_nobody_asked_for_counts_for_nothing() -> None:
    async with follow() as world:
        await world.peer.say(change(11), admitted(), change(11), subscribed("b", 99))
        assert world.news() == []
        await world.peer.say(subscribed("a", 10), subscribed("a", 4), change(11))
        assert world.news() == [("resync", "start", 10), ("message", 11)]


# --- resync


@timeless
async def test_the_servers_resync_counts_as_one_and_covers_what_came_before() -> None:
    async with follow() as world:
        await world.peer.welcome()
        world.news()
        await world.peer.say(change(11), resync(12), change(13))
        assert world.news()[-2:] == [("resync", "bulk", 12), ("message", 13)]
        await world.peer.say(resync(12), resync(20, "truncate"), change(15), change(21))
        assert world.news() == [("resync", "truncate", 20), ("message", 21)]
        await world.peer.say(resync(1, "epoch", "e2"), change(2))
        assert world.news() == [("resync", "epoch", 1), ("message", 2)]
        assert world.client.position == Position(2, "e2")


@timeless
async def test_until_the_state_has_been_read_nothing_is_known() -> None:
    world = World()
    async with world.client as client:
        await settle()
        await world.peer.welcome()
        await world.peer.say(change(11))
        said = [await anext(client) for _ in range(3)]
        assert brief(said[-1]) == ("resync", "start", 10)
        assert client.position is None
        assert brief(await anext(client)) == ("message", 11)
        assert client.position == Position(11, EPOCH)


@timeless
async def test_what_a_newer_resync_covers_is_not_said_any_more() -> None:
    world = World()
    async with world.client as client:
        await settle()
        await world.peer.welcome()
        while not isinstance(await anext(client), Resync):
            pass
        await world.peer.say(change(11), resync(12), change(13))
        assert brief(await anext(client)) == ("resync", "bulk", 12)
        assert client.position is None
        assert brief(await anext(client)) == ("message", 13)


@timeless
async def test_a_slow_application_slows_the_socket_and_misses_nothing() -> None:
    world = World()
    async with world.client as client:
        await settle()
        await world.peer.welcome()
        many = 3 * MOST_HELD
        await world.peer.say(*map(change, range(11, 11 + many)))
        await till(300)
        assert len(world.peers) == 1, "the silence is our own"
        positions = []
        async for said in client:
            if isinstance(said, Message):
                positions.append(said.position)
                if len(positions) == many:
                    break
        assert positions == list(range(11, 11 + many))


# --- companies


@timeless
async def test_nothing_of_the_former_company_is_said_after_the_switch() -> None:
    world = World()
    async with world.client as client:
        await settle()
        await world.peer.welcome()
        await world.peer.say(change(11))
        client.set_company("b")
        assert client.position is None
        await world.peer.say(change(12), subscribed("b", 11), change(12))
        said = [await anext(client) for _ in range(6)]
        assert [brief(each) for each in said if not isinstance(each, Status)] == [
            ("resync", "start", 11),
            ("message", 12),
        ]


@timeless
async def test_a_position_that_the_application_kept_is_resumed() -> None:
    async with follow() as world:
        await world.peer.welcome()
        kept = world.client.position
        assert kept is not None
        world.client.set_company("b")
        await world.peer.say(subscribed("b", 3))
        world.client.set_company("a", after=kept.after, epoch=kept.epoch)
        await settle()
        assert world.peer.last["data"] == {"companyId": "a", "after": 10, "epoch": EPOCH}


@timeless
async def test_of_many_switches_in_a_row_only_the_last_one_counts() -> None:
    async with follow() as world:
        await world.peer.welcome()
        world.news()
        for company in "bcad":
            world.client.set_company(company)
        await world.peer.say(subscribed("b", 1), change(2))
        assert world.peer.last["data"] == {"companyId": "d"}
        assert len(world.peer.said) == 4
        await world.peer.say(subscribed("d", 7))
        assert world.news() == [("resync", "start", 7)]


@timeless
async def test_a_switch_while_there_is_no_connection_is_asked_for_on_return() -> None:
    async with follow() as world:
        await world.peer.welcome()
        await world.peer.end(1006)
        world.client.set_company("b")
        await world.returned()
        await world.peer.say(admitted())
        assert world.peer.last["data"] == {"companyId": "b"}


@timeless
async def test_a_refused_company_is_not_asked_for_again_not_even_on_another_socket() -> None:
    async with follow() as world:
        await world.peer.say(admitted(), refused())
        status = world.client.status
        assert (status.state, status.reason) == ("idle", "company_forbidden")
        await world.peer.end(1012)
        await world.returned()
        await world.peer.say(admitted())
        assert world.state == "idle"
        assert len(world.peer.said) == 1
        world.client.set_company("a")
        await settle()
        assert world.peer.last["data"] == {"companyId": "a"}


@timeless
async def test_an_answer_that_failed_for_another_reason_is_asked_for_again() -> None:
    async with follow() as world:
        await world.peer.say(admitted(), refused("unavailable"))
        await world.returned()
        assert len(world.peers) == 2


@timeless
async def test_lost_access_ends_the_messages_and_is_told() -> None:
    async with follow() as world:
        await world.peer.welcome()
        world.news()
        await world.peer.say({"Type": "CompanyRevoked", "Data": {"CompanyId": "b"}}, change(11))
        assert world.news() == [("message", 11)]
        await world.peer.say({"Type": "CompanyRevoked", "Data": {"CompanyId": "a"}}, change(12))
        assert world.news() == []
        assert (world.state, world.client.status.reason) == ("idle", "revoked")
        world.client.set_company("b")
        await world.peer.say(subscribed("b", 2))
        assert world.state == "live"


# --- a link that is silent


@timeless
async def test_a_silent_link_is_asked_for_a_sign_of_life_and_any_message_is_one() -> None:
    async with follow() as world:
        await world.peer.welcome()
        await till(now() + 15)
        assert world.peer.last == {"type": "ping"}
        await world.peer.say({"Type": "Pong"})
        for position in range(11, 20):
            await till(now() + 10)
            await world.peer.say(change(position))
        assert world.state == "live"
        assert world.peer.said.count({"type": "ping"}) == 1


@timeless
async def test_a_link_that_gives_none_is_dead_whatever_the_socket_says() -> None:
    async with follow() as world:
        await world.peer.welcome()
        world.news()
        await till(now() + 25)
        assert (world.state, world.client.status.reason) == ("waiting", "silent link")
        assert world.peer.closed
        await world.peer.say(change(11))
        assert world.news() == [], "what the dead socket still brings is not said"
        await world.returned()
        await world.peer.welcome(recovered=True)
        assert world.news() == [("recovered", 10)]


# --- any line: drops, doubles, disorder, closes, epochs, an application that is slow or dies


class Log:
    """A company's log. Message n sets a row to n; what was written is what must be known."""

    def __init__(self) -> None:
        self.epoch = 1
        self.kept = 0
        self.log: list[Any] = []

    def append(self, dice: random.Random) -> None:
        position = len(self.log) + 1
        bulk = dice.random() < 0.05
        message = resync(position, epoch=self.name) if bulk else change(position)
        if dice.random() < 0.02:
            message["lost"] = True  # it cannot be had, however often the client asks
        self.log.append(message)

    def begin(self) -> None:
        self.epoch += 1
        self.log = []
        self.kept = 0

    @property
    def name(self) -> str:
        return f"e{self.epoch}"


class BadLine(Peer):
    """The server's end behind a line that loses, repeats and reorders."""

    def __init__(self, log: Log, dice: random.Random, bad: Callable[[], bool]) -> None:
        super().__init__()
        self._log, self._dice, self._bad = log, dice, bad
        self._following = False

    async def send(self, message: str) -> None:
        said = json.loads(message)
        if self._lucky(0.03):
            return
        match said["type"]:
            case "authenticate":
                self.tell(admitted())
            case "ping":
                self.tell({"Type": "Pong"})
            case _:
                self._subscribe(**said["data"])

    def _subscribe(self, companyId: str, after: int = -1, epoch: str = "") -> None:  # noqa: N803 - as on the wire
        log = self._log
        resumes = epoch == log.name and log.kept <= after <= len(log.log) and not self._lucky(0.1)
        position = after if resumes else len(log.log)
        self.tell(subscribed(companyId, position, log.name, resumes if after >= 0 else None))
        self._following = True
        for message in log.log[position:]:
            self.tell(message)

    def follow(self) -> None:
        if self._following:
            self.tell(self._log.log[-1])

    def tell(self, message: Any) -> None:
        if "lost" in message or self._lucky(0.05):
            return
        text = json.dumps(message)
        for _ in range(2 if self._lucky(0.05) else 1):
            self._frames.put_nowait(text)
        if self._lucky(0.05) and self._frames.qsize() > 1:
            self._frames.put_nowait(self._frames.get_nowait())

    def _lucky(self, chance: float) -> bool:
        return self._bad() and self._dice.random() < chance


CLOSES = [1000, 1001, 1006, 1011, 1012, 4401, 4408, 4419, 4429, 4500, 4503, 4508]


@timeless
async def fuzz(seed: int, counts: Counter[str]) -> None:
    dice = random.Random(seed)
    log = Log()
    lines: list[BadLine] = []
    bad = True
    last: Position | None = None
    tokens = 0

    def get_token() -> str:
        nonlocal tokens
        tokens += 1
        return f"token-{tokens}"

    async def open_socket(_: str) -> BadLine:
        if bad and dice.random() < 0.1:
            raise OSError("unreachable")
        lines.append(BadLine(log, dice, lambda: bad))
        return lines[-1]

    async def believe(client: Client) -> None:
        nonlocal last
        async for said in client:
            counts[brief(said)[0]] += 1
            match said:
                case Message():
                    assert last == Position(said.position - 1, said.epoch), "positions are dense"
                    last = Position(said.position, said.epoch)
                case Recovered():
                    assert last == Position(said.position, said.epoch)
                case Resync():
                    counts[said.reason] += 1
                    last = None
                    await asyncio.sleep(dice.choice([0, 0, 3]))
                    last = Position(said.position, said.epoch)

    def start() -> Client:
        pace = Pace(dice=dice.random)
        place = client.position if client is not None else None
        return Client("ws://x/", get_token, "a", place, pace=pace, open_socket=open_socket)

    client: Client | None = None
    for life in range(4):
        client = start()
        last = client.position
        async with client:
            believing = asyncio.create_task(believe(client))
            for _ in range(60):
                if dice.random() < 0.02:
                    log.begin()
                    for line in lines:
                        await line.end(4503)
                log.append(dice)
                for line in lines:
                    line.follow()
                if dice.random() < 0.03:
                    log.kept = max(0, len(log.log) - 3)
                if lines and dice.random() < 0.05:
                    await lines[-1].end(dice.choice(CLOSES))
                await asyncio.sleep(dice.choice([0, 0.1, 0.1, 0.5, 20]))
                assert not believing.done()
            if life == 3:
                bad = False
                while (
                    client.position != Position(len(log.log), log.name) or last != client.position
                ):
                    if round(now()) % 7 == 0:
                        log.append(dice)
                        for line in lines:
                            line.follow()
                    await asyncio.sleep(1)
                    assert not believing.done()
                    assert now() < 10_000, "not level in time"
        await believing


def test_on_any_line_what_it_says_is_dense_and_in_the_end_complete() -> None:
    counts: Counter[str] = Counter()
    for seed in range(30):
        try:
            fuzz(seed, counts)
        except BaseException as error:
            error.add_note(f"seed {seed}")
            raise
    for what in ("message", "recovered", "start", "expired", "epoch", "gap", "bulk"):
        assert counts[what], (what, counts)


def test_the_words_are_those_of_the_browser_client() -> None:
    """Every state and constant that JavaScript has, Python has."""
    text = Path(module.__file__ or "").with_name("js").joinpath("client.js").read_text("utf-8")
    for state in ("connecting", "live", "waiting", "idle", "stopped", "closed"):
        assert f'"{state}"' in text
    for reason in ("silent link", "no answer", "no token", "token refused", "unreadable message"):
        assert f'"{reason}"' in text
    assert ", ".join(map(str, sorted(module.FINAL))) in text
