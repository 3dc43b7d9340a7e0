"""The Python client with several companies on one connection, filters, and writes that it waits for."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from notifier.client import ArrivalError, Position, Report, Status, Subscription
from notifier.client.feed import Filter
from tests.timeless import timeless
from tests.unit.fake_server import (
    EPOCH,
    TEN,
    World,
    answered,
    authenticated,
    change,
    follow,
    now,
    rejected,
    resync,
    settle,
    subscribed,
    summary,
    till,
)

MINE = {"Event": {"OrganizerId": ["u1", None]}}


def of(company: str, message: Any) -> Any:
    """The message, of this company."""
    return message | {"Data": message["Data"] | {"CompanyId": company}}


def skipped(company: str, position: int) -> Any:
    return {"Type": "Skipped", "Data": {"CompanyId": company}, "Position": position}


def arrival(company: str, tx: str, position: int = 11) -> Any:
    data = {"CompanyId": company, "Tx": tx, "Position": position}
    return {"Type": "Arrived", "Data": data}


def failure(company: str, tx: str, code: str) -> Any:
    error = {"Code": code, "Message": "No."}
    return {"Type": "Error", "Error": error, "Data": {"CompanyId": company, "Tx": tx}}


def reports(world: World) -> list[tuple[Any, ...]]:
    """The new reports with their companies, without statuses."""
    found = [
        (report.company, *summary(report))
        for report in world.reports
        if not isinstance(report, Status)
    ]
    world.reports.clear()
    return found


def commands(world: World) -> list[tuple[str, Any]]:
    return [(each["type"], each.get("data")) for each in world.peer.received[1:]]


def states(*subscriptions: Subscription) -> list[tuple[str, str | None]]:
    return [(each.status.state, each.status.reason) for each in subscriptions]


async def two(world: World) -> Subscription:
    """Acknowledges `a`, the company of `connect`, and `b`, a further one."""
    b = world.client.subscribe("b")
    await settle()
    await world.peer.send_messages(authenticated(), answered("a", 10), answered("b", 20))
    assert reports(world) == [("a", "resync", "start", 10), ("b", "resync", "start", 20)]
    return b


@timeless
async def test_each_company_has_its_own_position_gap_and_resync() -> None:
    async with follow() as world:
        b = await two(world)
        await world.peer.send_messages(
            of("b", change(21)), change(11), of("b", change(23)), change(12)
        )
        assert reports(world) == [
            ("b", "message", 21),
            ("a", "message", 11),
            ("a", "message", 12),
        ]
        assert (world.client.position, b.position) == (Position(12, EPOCH), Position(21, EPOCH))
        again = {"companyId": "b", "after": 21, "epoch": EPOCH}
        assert commands(world)[-1] == ("subscribe", again)
        assert states(b) == [("connecting", None)]
        await world.peer.send_messages(
            answered("b", 21, recovered=True),
            *(of("b", change(position)) for position in (22, 23)),
        )
        await world.peer.send_messages(of("b", resync(30)), change(13))
        assert reports(world) == [
            ("b", "recovered", 21),
            ("b", "message", 22),
            ("b", "message", 23),
            ("b", "resync", "bulk", 30),
            ("a", "message", 13),
        ]


@timeless
async def test_after_a_reconnect_each_company_resumes_with_its_filter() -> None:
    async with follow() as world:
        b = world.client.subscribe("b", entities=["Event"], where=MINE, after=3, epoch="e2", at="t")
        await settle()
        await world.peer.send_messages(authenticated())
        known = {"companyId": "b", "entities": ["Event"], "where": MINE}
        assert commands(world) == [
            ("subscribe", {"companyId": "a"}),
            ("subscribe", known | {"after": 3, "epoch": "e2", "at": "t"}),
        ]
        await world.peer.send_messages(answered("a", 10), answered("b", 20))
        assert reports(world)[-1] == ("b", "resync", "epoch", 20)
        await world.peer.send_messages(skipped("b", 57), of("b", change(58)), change(11))
        assert reports(world)[0] == ("b", "skipped", 57)
        await world.peer.close_with(1012)
        assert [each.status.state for each in (world.client, b)] == ["waiting", "waiting"]
        await world.reconnected()
        await world.peer.send_messages(authenticated())
        assert commands(world) == [
            ("subscribe", {"companyId": "a", "after": 11, "epoch": EPOCH}),
            ("subscribe", known | {"after": 58, "epoch": EPOCH}),
        ]


@timeless
async def test_a_lost_skip_is_a_gap() -> None:
    async with follow(chosen=Filter(["Event"])) as world:
        await settle()
        await world.peer.send_messages(authenticated())
        assert commands(world) == [("subscribe", {"companyId": "a", "entities": ["Event"]})]
        await world.peer.send_messages(answered("a", 10), skipped("a", 20))
        assert world.client.position == Position(20, EPOCH)
        await world.peer.send_messages(change(25))
        assert commands(world)[-1][1]["after"] == 20
        assert [each[1:] for each in reports(world)] == [("resync", "start", 10), ("skipped", 20)]


@timeless
async def test_losing_one_company_leaves_the_others() -> None:
    async with follow() as world:
        b = await two(world)
        revoked = {"Type": "CompanyRevoked", "Data": {"CompanyId": "b"}}
        await world.peer.send_messages(revoked, of("b", change(21)), change(11))
        assert reports(world) == [("a", "message", 11)]
        assert (world.state, states(b)) == ("live", [("idle", "revoked")])
        await world.peer.close_with(1006)
        await world.reconnected()
        await world.peer.send_messages(authenticated())
        assert [data["companyId"] for _, data in commands(world)] == ["a"]
        world.client.reconnect()
        await settle()
        await world.peer.send_messages(authenticated())
        assert [data["companyId"] for _, data in commands(world)] == ["a", "b"]


@pytest.mark.parametrize("code", ["company_forbidden", "bad_filter", "too_many_companies"])
@timeless
async def test_a_refused_company_leaves_the_others_and_is_not_requested_again(code: str) -> None:
    async with follow() as world:
        b = world.client.subscribe("b")
        await settle()
        await world.peer.send_messages(authenticated(), answered("a", 10), rejected("b", code))
        assert (world.state, states(b)) == ("live", [("idle", code)])
        refusals = [each for each in world.reports if isinstance(each, Status) and each.error]
        assert [each.company for each in refusals] == ["b"]
        await world.peer.close_with(1006)
        await world.reconnected()
        await world.peer.send_messages(authenticated())
        assert [data["companyId"] for _, data in commands(world)] == ["a"]


@timeless
async def test_the_close_for_refused_companies_stops_only_those() -> None:
    async with follow() as world:
        b = world.client.subscribe("b")
        await settle()
        await world.peer.send_messages(authenticated())
        await world.peer.close_with(4403)
        await world.reconnected()
        await world.peer.send_messages(authenticated(), answered("b", 1))
        assert [data["companyId"] for _, data in commands(world)] == ["b"]
        assert states(b) == [("live", None)]


@timeless
async def test_nothing_of_a_company_is_reported_after_it_was_left() -> None:
    world = World()
    async with world.client as client:
        b = client.subscribe("b")
        await settle()
        await world.peer.send_messages(authenticated(), answered("a", 10), answered("b", 20))
        await world.peer.send_messages(of("b", change(21)))
        b.unsubscribe()
        b.unsubscribe()
        await world.peer.send_messages(of("b", change(22)), change(11))
        assert commands(world)[-1] == ("unsubscribe", {"companyId": "b"})
        assert (b.position, states(b)) == (None, [("closed", None)])
        taken = [await anext(client) for _ in range(6)]
        found = [(each.company, *summary(each)) for each in taken if not isinstance(each, Status)]
        assert found == [("a", "resync", "start", 10), ("a", "message", 11)]
        with pytest.raises(RuntimeError, match="ended"):
            b.set_filter()


@timeless
async def test_a_company_that_is_left_and_followed_again_takes_only_its_own_answer() -> None:
    async with follow() as world:
        await world.peer.send_messages(authenticated(), subscribed("a", 10))
        world.client.subscribe("b").unsubscribe()
        again = world.client.subscribe("b", entities=["Event"])
        await world.peer.send_messages(answered("b", 5), of("b", change(6)), answered("b", 6))
        assert reports(world) == [("a", "resync", "start", 10), ("b", "resync", "start", 6)]
        assert again.position == Position(6, EPOCH)


@timeless
async def test_without_any_company_left_the_client_is_idle() -> None:
    async with follow(company=None) as world:
        b = world.client.subscribe("b")
        with pytest.raises(ValueError, match="already"):
            world.client.subscribe("b")
        await world.peer.send_messages(authenticated(), answered("b", 5))
        assert world.state == "live"
        b.unsubscribe()
        status = world.client.status
        assert (status.state, status.reason) == ("idle", "no company")
        with pytest.raises(ArrivalError):
            await world.client.arrived("1")


@timeless
async def test_set_company_replaces_its_own_company_only() -> None:
    async with follow() as world:
        await two(world)
        world.client.set_company("c")
        with pytest.raises(ValueError, match="already"):
            world.client.set_company("b")
        await world.peer.send_messages(
            change(11), answered("c", 7), of("c", change(8)), of("b", change(21))
        )
        assert commands(world)[-2:] == [
            ("unsubscribe", {"companyId": "a"}),
            ("subscribe", {"companyId": "c"}),
        ]
        assert reports(world) == [
            ("c", "resync", "start", 7),
            ("c", "message", 8),
            ("b", "message", 21),
        ]


@timeless
async def test_the_company_of_a_message_may_be_spelled_otherwise() -> None:
    async with follow() as world:
        await two(world)
        message = change(21)
        message["Data"] = {"id": 1, "tenant": "b", "title": "c", "notes": {"a": 1}}
        await world.peer.send_messages(message)
        assert reports(world) == [("b", "message", 21)]


@timeless
async def test_a_message_that_names_two_companies_is_never_guessed() -> None:
    """Also not if one of them was left: its last messages may be under way."""
    async with follow() as world:
        b = await two(world)
        b.unsubscribe()
        message = change(11)
        message["Data"] = {"tenant": "b", "partner": "a"}
        await world.peer.send_messages(message)
        assert reports(world) == []
        assert (world.state, world.client.status.reason) == ("waiting", "unreadable message")


@timeless
async def test_a_message_that_does_not_name_its_company_is_never_guessed() -> None:
    async with follow() as world:
        await two(world)
        message = change(11)
        del message["Data"]["CompanyId"]
        await world.peer.send_messages(message)
        assert (world.state, world.client.status.reason) == ("waiting", "unreadable message")


@timeless
async def test_of_only_one_company_no_message_has_to_name_it() -> None:
    """`case` and `rename` in notifier.toml may spell it otherwise."""
    async with follow(company=None) as world:
        world.client.subscribe("b")
        await settle()
        await world.peer.send_messages(authenticated(), rejected("b", "company_forbidden"))
        await world.peer.close_with(1012)
        world.client.subscribe("a", entities=["Event"])
        await world.reconnected()
        message = change(11)
        del message["Data"]["CompanyId"]
        await world.peer.send_messages(authenticated(), answered("a", 10), message)
        assert reports(world)[-1] == ("a", "message", 11)


@timeless
async def test_neither_an_array_nor_a_long_text_in_a_row_is_the_company_of_its_message() -> None:
    async with follow() as world:
        long = "b" * 300_000
        for company in ("['b']", long):
            world.client.subscribe(company)
        await settle()
        answers = [answered(company, 10) for company in ("a", "['b']", long)]
        await world.peer.send_messages(authenticated(), *answers)
        for position, value in enumerate((["b"], long), 11):
            message = change(position) | {"Data": {"id": 1, "company_id": "a", "extra": value}}
            await world.peer.send_messages(message)
        assert reports(world)[-2:] == [("a", "message", 11), ("a", "message", 12)]


# --- filters


@timeless
async def test_another_filter_is_a_resync_and_the_former_one_goes_on_until_then() -> None:
    async with follow() as world:
        b = await two(world)
        b.set_filter(where=MINE)
        await world.peer.send_messages(of("b", change(21)))
        assert commands(world)[-1] == ("subscribe", {"companyId": "b", "where": MINE})
        await world.peer.send_messages(answered("b", 25), of("b", change(26)))
        assert reports(world) == [
            ("b", "message", 21),
            ("b", "resync", "filter", 25),
            ("b", "message", 26),
        ]


@timeless
async def test_a_filter_that_changes_while_it_is_requested_is_requested_again() -> None:
    async with follow() as world:
        b = await two(world)
        for name in ("Event", "Employee"):
            b.set_filter(entities=[name])
        await world.peer.send_messages(answered("b", 25), of("b", change(26)))
        assert commands(world)[-1] == ("subscribe", {"companyId": "b", "entities": ["Employee"]})
        await world.peer.close_with(1006)
        await world.reconnected()
        await world.peer.send_messages(authenticated())
        assert commands(world)[-1] == ("subscribe", {"companyId": "b", "entities": ["Employee"]})
        await world.peer.send_messages(answered("a", 10, recovered=True), answered("b", 27))
        assert reports(world) == [("a", "recovered", 10), ("b", "resync", "filter", 27)]


@timeless
async def test_a_refused_filter_leaves_the_former_one() -> None:
    async with follow() as world:
        b = await two(world)
        b.set_filter(entities=["Nothing"])
        await settle()
        await world.peer.send_messages(rejected("b", "bad_filter"), of("b", change(21)))
        assert reports(world) == [("b", "message", 21)]
        assert states(b) == [("live", "bad_filter")]
        b.set_filter(entities=["Nothing"])
        await world.peer.close_with(1006)
        await world.reconnected()
        await world.peer.send_messages(authenticated(), rejected("b", "bad_filter"))
        resume = {"companyId": "b", "after": 21, "epoch": EPOCH}
        assert commands(world)[-1] == ("subscribe", resume)


@timeless
async def test_a_filter_that_was_refused_at_first_can_be_replaced() -> None:
    async with follow() as world:
        b = world.client.subscribe("b", entities=["Nothing"])
        await settle()
        await world.peer.send_messages(
            authenticated(), answered("a", 10), rejected("b", "bad_filter")
        )
        b.set_filter(entities=["Event"])
        await world.peer.send_messages(answered("b", 20))
        assert reports(world)[-1] == ("b", "resync", "start", 20)


def test_text_in_the_place_of_a_list_is_refused_at_once() -> None:
    for wrong in ({"entities": "Event"}, {"where": {"Event": {"OrganizerId": "u1"}}}):
        with pytest.raises(ValueError, match="lists"):
            Filter.of(**{"entities": None, "where": None} | wrong)


# --- has my write arrived?


@timeless
async def test_an_arrival_is_reported_once_the_loop_has_handled_what_came_before() -> None:
    world = World()
    async with world.client as client:
        await settle()
        await world.peer.acknowledge()
        waiting = asyncio.create_task(client.arrived(7))
        await settle()
        assert commands(world)[-1] == ("await", {"companyId": "a", "tx": "7"})
        await world.peer.send_messages(change(11), arrival("a", "7"))
        taken: list[Report] = []
        while not taken or summary(taken[-1]) != ("message", 11):
            taken.append(await anext(client))
        await settle()
        assert not waiting.done(), "the loop handles the message still"
        more = asyncio.create_task(anext(client))
        assert await waiting == 11
        more.cancel()


@timeless
async def test_an_arrival_is_requested_again_after_a_reconnect_and_comes_after_a_reload() -> None:
    async with follow() as world:
        await world.peer.acknowledge()
        waiting = asyncio.create_task(world.client.arrived("7"))
        await settle()
        await world.peer.close_with(1006)
        await world.reconnected()
        await world.peer.send_messages(authenticated())
        assert len(commands(world)) == 1, "nothing is awaited before the company is there"
        await world.peer.send_messages(subscribed("a", 20, recovered=False))
        assert commands(world)[-1] == ("await", {"companyId": "a", "tx": "7"})
        await world.peer.send_messages(arrival("a", "7", 20))
        assert await waiting == 20


@timeless
async def test_an_arrival_is_requested_again_after_a_gap() -> None:
    async with follow() as world:
        await world.peer.acknowledge()
        waiting = asyncio.create_task(world.client.arrived("7"))
        await settle()
        await world.peer.send_messages(change(12), arrival("a", "7", 12))
        await world.peer.send_messages(subscribed("a", 10, recovered=True))
        assert commands(world)[-1] == ("await", {"companyId": "a", "tx": "7"})
        assert not waiting.done(), "its messages are missing"
        await world.peer.send_messages(change(11), change(12), arrival("a", "7", 12))
        assert await waiting == 12


@pytest.mark.parametrize("code", ["unknown_tx", "timeout", "not_subscribed"])
@timeless
async def test_a_failed_wait_has_its_code(code: str) -> None:
    async with follow() as world:
        b = await two(world)
        waiting = [asyncio.create_task(each.arrived("7")) for each in (world.client, b)]
        await settle()
        await world.peer.send_messages(failure("b", "7", code), arrival("a", "7"))
        assert await waiting[0] == 11
        with pytest.raises(ArrivalError) as error:
            await waiting[1]
        assert (error.value.code, world.state) == (code, "live")


@timeless
async def test_a_wait_ends_with_its_company_and_with_the_client() -> None:
    async with follow() as world:
        b = await two(world)
        c = world.client.subscribe("c")
        waiting = [asyncio.create_task(each.arrived("7")) for each in (b, c, world.client)]
        await settle()
        b.unsubscribe()
        await world.peer.send_messages(rejected("c", "company_forbidden"))
        await world.client.close()
        for task in waiting:
            with pytest.raises(ArrivalError) as error:
                await task
            assert error.value.code == "not_subscribed"
        for each in (b, c, world.client):
            with pytest.raises(ArrivalError):
                await each.arrived("7")


@timeless
async def test_a_wait_ends_when_the_client_stops() -> None:
    async with follow() as world:
        await world.peer.acknowledge()
        waiting = asyncio.create_task(world.client.arrived("7"))
        await settle()
        await world.peer.close_with(4409)
        with pytest.raises(ArrivalError) as error:
            await waiting
        assert error.value.code == "not_subscribed"


@timeless
async def test_a_wait_in_the_loop_that_it_would_block_is_refused() -> None:
    world = World()
    async with world.client as client:
        await anext(client)
        with pytest.raises(RuntimeError, match="another task"):
            await client.arrived("7")


@timeless
async def test_a_socket_waits_for_no_more_transactions_than_the_server_allows() -> None:
    async with follow() as world:
        await world.peer.acknowledge()
        many = 102
        waiting = [asyncio.create_task(world.client.arrived(tx)) for tx in range(many)]
        await settle()
        assert len(commands(world)) == 1 + 100
        waiting[0].cancel()
        await world.peer.send_messages(*(arrival("a", str(tx)) for tx in range(many)))
        await world.peer.send_messages(*(arrival("a", str(tx)) for tx in range(many)))
        assert await asyncio.gather(*waiting[1:]) == [11] * (many - 1)
        assert len(commands(world)) == 1 + many


@timeless
async def test_a_company_without_an_answer_ends_the_connection() -> None:
    async with follow() as world:
        b = world.client.subscribe("b")
        await settle()
        await world.peer.send_messages(authenticated(), answered("a", 10))
        begun = now()
        for _ in range(3):
            await till(now() + 10)
            await world.peer.send_messages({"Type": "Pong"})
        assert round(now() - begun) == 30
        assert (b.status.state, b.status.reason) == ("waiting", "no answer")
        assert world.client.position == TEN
