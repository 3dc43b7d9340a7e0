"""The Python client, on sockets whose other end the test holds, in virtual time."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from notifier.client import Message, Position, Resync, Status, connect
from notifier.client.closes import FINAL
from notifier.client.inbox import MAX_WAITING
from tests.services import ROOT
from tests.timeless import timeless
from tests.unit.fake_server import (
    EPOCH,
    TEN,
    World,
    authenticated,
    change,
    disconnect,
    follow,
    now,
    refused,
    resync,
    settle,
    subscribed,
    summary,
    till,
)

# --- the conversation


@timeless
async def test_it_authenticates_subscribes_and_reports_one_resync() -> None:
    async with follow() as world:
        assert world.peer.received == [{"type": "authenticate", "token": "token-1"}]
        await world.peer.send_messages(authenticated())
        assert world.peer.last == {"type": "setCompany", "data": {"companyId": "a"}}
        assert world.state == "connecting"
        await world.peer.send_messages(subscribed("a", 10))
        assert world.state == "live"
        assert world.new_reports() == [("resync", "start", 10)]
        assert world.client.position == TEN
        await world.peer.send_messages(change(11), change(12))
        assert world.new_reports() == [("message", 11), ("message", 12)]
        assert world.client.position == Position(12, EPOCH)


@timeless
async def test_a_message_has_everything_that_the_server_sent() -> None:
    async with follow() as world:
        await world.peer.acknowledge()
        text = json.dumps(
            change(11, Title="ä") | {"Old": {"Title": "b"}, "At": "now", "Tx": "9", "Actor": "u7"},
            indent=1,
        )
        await world.peer.send_messages(text, change(12) | {"Partial": True})
        first, second = world.reports[-2:]
        assert first == Message(
            type="EventUpdated",
            company="a",
            data={"EventId": "1", "CompanyId": "a", "Title": "ä"},
            old={"Title": "b"},
            position=11,
            epoch=EPOCH,
            at="now",
            tx="9",
            actor="u7",
            partial=False,
            text=text,
        )
        assert isinstance(second, Message)
        assert second.partial
        assert (second.old, second.tx, second.actor) == (None, None, None)


@timeless
async def test_without_a_company_it_waits_for_one() -> None:
    async with follow(company=None) as world:
        await world.peer.send_messages(authenticated())
        await till(12)
        assert world.state == "idle"
        world.client.set_company(7)
        await settle()
        assert world.peer.last == {"type": "setCompany", "data": {"companyId": "7"}}
        await world.peer.send_messages(subscribed("7", 0))
        assert world.new_reports() == [("resync", "start", 0)]


@timeless
async def test_the_server_may_spell_a_uuid_differently() -> None:
    async with follow(company="A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11") as world:
        await world.peer.send_messages(
            authenticated(), subscribed("a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11", 3)
        )
        assert world.state == "live"


@timeless
async def test_a_message_of_a_later_protocol_is_ignored() -> None:
    async with follow() as world:
        await world.peer.acknowledge()
        world.new_reports()
        await world.peer.send_messages({"Type": "New", "Data": [1]}, {"Type": "Pong"}, [1], "null")
        assert world.state == "live"
        assert world.new_reports() == []


@pytest.mark.parametrize("frame", ["{", "[" * 100_000], ids=["broken", "deep"])
@timeless
async def test_an_unreadable_message_is_requested_again_but_not_for_ever(frame: str) -> None:
    async with follow() as world:
        await world.peer.acknowledge()
        world.new_reports()
        for _ in range(4):
            await world.peer.send_messages(frame)
            assert world.state == "waiting"
            await world.reconnected()
            await world.peer.send_messages(authenticated())
            if world.peer.last["data"] == {"companyId": "a"}:
                break
            assert world.peer.last["data"] == {"companyId": "a", "after": 10, "epoch": EPOCH}
            await world.peer.send_messages(subscribed("a", 10, recovered=True))
        await world.peer.send_messages(subscribed("a", 12), change(13))
        assert world.new_reports()[-2:] == [("resync", "gap", 12), ("message", 13)]


@pytest.mark.parametrize("url", ["not a url", "http://x/", "ws://"])
def test_a_wrong_url_is_refused_at_once(url: str) -> None:
    with pytest.raises(ValueError, match="not a ws:// or wss:// URL"):
        connect(url, lambda: "t")


def test_a_position_without_its_epoch_is_refused_at_once() -> None:
    with pytest.raises(ValueError, match="go together"):
        connect("ws://x/", lambda: "t", "a", after=1)


@timeless
async def test_a_closed_client_stays_closed() -> None:
    async with follow() as world:
        await world.peer.acknowledge()
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
async def test_a_fault_of_the_client_itself_is_raised() -> None:
    with pytest.raises(ZeroDivisionError):
        async with follow(unreachable=ZeroDivisionError()) as world:
            await settle()
    assert len(world.peers) == 1


# --- the close codes

RETURNS = [1000, 1001, 1005, 1006, 1011, 1012, 1013, 4408, 4419, 4429, 4500, 4503, 4508, 4999]


@pytest.mark.parametrize("code", RETURNS)
@timeless
async def test_it_reconnects_with_a_new_token_and_resumes(code: int) -> None:
    async with follow() as world:
        await world.peer.acknowledge()
        await world.peer.send_messages(change(11))
        world.new_reports()
        await world.peer.close_with(code, "for a reason")
        status = world.client.status
        assert (status.state, status.code, status.reason) == ("waiting", code, "for a reason")
        assert await world.reconnected() == (5.5 if code == 4429 else 0.5)
        await world.peer.send_messages(authenticated())
        assert world.peer.received == [
            {"type": "authenticate", "token": "token-2"},
            {"type": "setCompany", "data": {"companyId": "a", "after": 11, "epoch": EPOCH}},
        ]
        await world.peer.send_messages(subscribed("a", 11, recovered=True), change(12))
        assert world.new_reports() == [("recovered", 11), ("message", 12)]


@pytest.mark.parametrize("code", [1002, 1003, 1007, 1009, 4400, 4403, 4409])
@timeless
async def test_after_a_final_close_code_it_stops_and_the_loop_ends(code: int) -> None:
    world = World()
    async with world.client:
        await settle()
        await world.peer.acknowledge()
        await world.peer.close_with(code)
        reports = [summary(report) async for report in world.client]
        assert reports[-1] == ("status", "stopped")
        assert world.client.status.code == code
        await till(120)
        assert len(world.peers) == 1
        world.client.reconnect()
        await settle()
        assert len(world.peers) == 2


@timeless
async def test_it_does_not_reconnect_with_a_refused_token() -> None:
    async with follow(token=lambda _: "the same") as world:
        await world.peer.send_messages({"Type": "AuthenticationResult", "Success": False})
        await world.peer.close_with(4401)
        await till(120)
        assert len(world.peers) == 1
        assert world.tokens_fetched == 2
        assert (world.state, world.client.status.code) == ("stopped", 4401)


@timeless
async def test_it_reconnects_with_another_token() -> None:
    async with follow() as world:
        await world.peer.send_messages(disconnect(4401, reconnect=False))
        await world.peer.close_with(4401)
        await world.reconnected()
        assert world.peer.received == [{"type": "authenticate", "token": "token-2"}]


@timeless
async def test_an_expired_token_is_not_presented_again() -> None:
    async with follow(token=lambda time: "old" if time < 4 else "fresh") as world:
        await world.peer.acknowledge()
        await world.peer.close_with(4419)
        await till(now() + 0.5)
        assert world.state == "waiting"
        assert len(world.peers) == 1
        await till(now() + 3)
        assert world.peer.received == [{"type": "authenticate", "token": "fresh"}]


@timeless
async def test_a_forbidden_company_stops_it_and_another_one_starts_it() -> None:
    async with follow() as world:
        await world.peer.send_messages(authenticated())
        await world.peer.close_with(4403)
        assert world.state == "stopped"
        world.client.set_company("b")
        await settle()
        await world.peer.send_messages(authenticated())
        assert world.peer.last == {"type": "setCompany", "data": {"companyId": "b"}}


@timeless
async def test_it_waits_as_long_as_the_server_requests() -> None:
    async with follow() as world:
        await world.peer.acknowledge()
        await world.peer.send_messages(disconnect(4429, wait=20_000))
        await world.peer.close_with(4429)
        assert await world.reconnected() == 20.5


@timeless
async def test_the_code_of_disconnect_counts_if_the_close_has_no_specific_code() -> None:
    async with follow() as world:
        await world.peer.acknowledge()
        await world.peer.send_messages(disconnect(4409, reconnect=False))
        await world.peer.close_with(1006)
        status = world.client.status
        assert (status.state, status.code, status.reason) == ("stopped", 4409, "for a reason")


@timeless
async def test_reconnect_false_is_obeyed_for_unknown_close_codes() -> None:
    async with follow() as world:
        await world.peer.acknowledge()
        await world.peer.send_messages(disconnect(4777, reconnect=False))
        await world.peer.close_with(4777)
        assert world.state == "stopped"


@timeless
async def test_a_disconnect_counts_even_if_the_close_is_lost() -> None:
    async with follow() as world:
        await world.peer.acknowledge()
        await world.peer.send_messages(disconnect(4508, wait=100))
        await till(now() + 10)
        status = world.client.status
        assert (status.state, status.code, status.retry_in) == ("waiting", 4508, 0.6)
        assert world.peer.closed


@pytest.mark.parametrize(("code", "close"), [("token_invalid", 4401), ("token_expired", 4419)])
@timeless
async def test_a_refused_token_counts_even_if_the_close_is_lost(code: str, close: int) -> None:
    async with follow(token=lambda _: "the same") as world:
        error = {"Code": code, "Message": "No."}
        await world.peer.send_messages(
            {"Type": "AuthenticationResult", "Success": False, "Error": error}
        )
        await till(10)
        assert (world.state, world.client.status.code) == ("waiting", close)


# --- reconnecting


@pytest.mark.parametrize(
    ("jitter", "delays"),
    [
        (0.999, [0.999, 1.998, 3.996, 7.992, 15.984, 29.97, 29.97]),
        (0.5, [0.5, 1, 2, 4, 8, 15, 15]),
        (0.0, [0, 0, 0]),
    ],
)
@timeless
async def test_the_delays_grow_with_full_jitter_up_to_a_bound(
    jitter: float, delays: list[float]
) -> None:
    async with follow(jitter=jitter, unreachable=OSError("refused")) as world:
        for delay in delays:
            if delay:
                assert world.client.status.retry_in == pytest.approx(delay)
                assert await world.reconnected() == pytest.approx(delay, abs=1e-5)
        assert len(world.peers) > len(delays)


@timeless
async def test_a_connection_that_breaks_at_once_does_not_reset_the_backoff() -> None:
    async with follow() as world:
        for wait in [0.5, 1, 2]:
            await world.peer.acknowledge()
            await world.peer.close_with(1012)
            assert await world.reconnected() == wait
        await world.peer.acknowledge()
        await till(now() + 4.9)
        await world.peer.close_with(1012)
        assert await world.reconnected() == 4


@timeless
async def test_a_connection_that_lasts_resets_the_backoff() -> None:
    """A proxy that cuts every connection after ten seconds does not lengthen the waits."""
    async with follow() as world:
        for _ in range(5):
            await world.peer.acknowledge(recovered=True)
            await till(now() + 10)
            await world.peer.close_with(1006)
            assert await world.reconnected() == 0.5


@timeless
async def test_a_connection_without_a_company_may_last_too() -> None:
    async with follow(company=None) as world:
        for _ in range(3):
            await world.peer.send_messages(authenticated())
            await till(now() + 10)
            await world.peer.close_with(1006)
            assert await world.reconnected() == 0.5


@timeless
async def test_a_server_that_authenticates_but_never_answers_does_not_reset_the_backoff() -> None:
    async with follow() as world:
        for wait in [0.5, 1, 2]:
            await world.peer.send_messages(authenticated())
            for _ in range(3):
                await till(now() + 10)
                await world.peer.send_messages({"Type": "Pong"})
            assert await world.reconnected() == wait


@timeless
async def test_a_server_that_does_not_answer_is_left_after_the_timeout() -> None:
    async with follow() as world:
        await till(10)
        assert (world.state, world.client.status.reason) == ("waiting", "no answer")
        await world.reconnected()
        await world.peer.send_messages(authenticated())
        for _ in range(2):
            await till(now() + 10)
            await world.peer.send_messages({"Type": "Pong"})
        assert world.state == "connecting"
        await till(now() + 10)
        assert world.state == "waiting"
        assert all(peer.closed for peer in world.peers)


@timeless
async def test_another_client_resumes_a_saved_position() -> None:
    async with follow(position=Position(11, EPOCH)) as world:
        await world.peer.acknowledge(11, recovered=True)
        assert world.peer.last["data"] == {"companyId": "a", "after": 11, "epoch": EPOCH}
        await world.peer.send_messages(change(12))
        assert world.new_reports() == [("recovered", 11), ("message", 12)]


@timeless
async def test_it_proves_its_position_with_the_time_of_the_last_message() -> None:
    async with follow() as world:
        await world.peer.acknowledge(at="t10")
        assert world.client.position == Position(10, EPOCH, "t10")
        await world.peer.close_with(1006)
        await world.reconnected()
        await world.peer.send_messages(authenticated())
        resume = {"companyId": "a", "after": 10, "epoch": EPOCH, "at": "t10"}
        assert world.peer.last["data"] == resume
        await world.peer.send_messages(subscribed("a", 10, recovered=True, at="t10"))
        await world.peer.send_messages(change(11) | {"At": "t11"})
        assert world.client.position == Position(11, EPOCH, "t11")
        await world.peer.send_messages(change(13))
        assert world.peer.last["data"] == resume | {"after": 11, "at": "t11"}
        world.client.set_company("b", after=3, epoch="e2", at="t3")
        await world.peer.send_messages(subscribed("a", 11, recovered=True))
        assert world.peer.last["data"] == {
            "companyId": "b",
            "after": 3,
            "epoch": "e2",
            "at": "t3",
        }


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
async def test_a_position_that_cannot_be_recovered_is_a_resync(
    position: int, epoch: str, recovered: bool | None, reason: str
) -> None:
    async with follow(position=Position(11, EPOCH)) as world:
        await world.peer.acknowledge(position, epoch, recovered)
        assert world.new_reports() == [("resync", reason, position)]
        await world.peer.send_messages(change(position + 1))
        assert world.client.position == Position(position + 1, epoch)


@timeless
async def test_position_0_can_be_resumed() -> None:
    async with follow(position=Position(0, EPOCH)) as world:
        await world.peer.acknowledge(0, recovered=True)
        assert world.new_reports() == [("recovered", 0)]


@pytest.mark.parametrize(("position", "epoch"), [("10", EPOCH), (True, EPOCH), (10, None)])
@timeless
async def test_an_answer_without_position_or_epoch_is_unreadable(position: Any, epoch: Any) -> None:
    async with follow() as world:
        await world.peer.send_messages(authenticated(), subscribed("a", position, epoch))
        assert world.state == "waiting"
        assert world.new_reports() == []


# --- the token

EXPIRING = {"Type": "TokenExpiring", "Data": {"ExpiresAt": "2026-11-22T18:00:00Z"}}


@timeless
async def test_the_token_is_renewed_on_the_live_socket() -> None:
    async with follow() as world:
        await world.peer.acknowledge()
        world.new_reports()
        await world.peer.send_messages(EXPIRING, EXPIRING)
        assert world.peer.last == {"type": "authenticate", "token": "token-2"}
        await world.peer.send_messages(authenticated(), change(11))
        assert world.new_reports() == [("message", 11)]
        assert world.state == "live"


@timeless
async def test_renewals_in_succession_are_spaced() -> None:
    """As where the server's clock is ahead: each new token is about to expire."""
    async with follow() as world:
        await world.peer.acknowledge()
        for _ in range(100):
            await world.peer.send_messages(EXPIRING, authenticated())
            await till(now() + 0.1)
        assert 3 <= world.tokens_fetched <= 6
        for _ in range(5):
            await till(now() + 10)
            await world.peer.send_messages({"Type": "Pong"})
        fetched = world.tokens_fetched
        await world.peer.send_messages(EXPIRING)
        assert world.tokens_fetched == fetched + 1


@timeless
async def test_a_renewal_that_fails_hangs_or_returns_the_old_token_is_tried_again() -> None:
    async def hang() -> str:
        await asyncio.Event().wait()
        raise AssertionError

    def token(time: int) -> Any:
        if time == 2:
            raise OSError("provider down")
        return hang() if time == 4 else "second" if time == 5 else "first"

    async with follow(token=token) as world:
        await world.peer.acknowledge()
        await world.peer.send_messages(EXPIRING, EXPIRING)
        assert world.tokens_fetched == 2
        for _ in range(5):
            await till(now() + 10)
            await world.peer.send_messages({"Type": "Pong"})
        assert world.tokens_fetched == 5
        statuses = [report for report in world.reports if isinstance(report, Status)]
        errors = [str(status.error) for status in statuses if status.error]
        assert errors == ["provider down", "get_token() did not answer"]
        sent = [message["token"] for message in world.peer.received if "token" in message]
        assert sent == ["first", "second"]


@timeless
async def test_without_a_token_no_socket_is_opened_and_the_delay_grows() -> None:
    async with follow(token=lambda time: ["", None, "token"][time - 1]) as world:
        assert world.client.status.reason == "no token"
        await till(0.5)
        assert world.client.status.retry_in == 1
        assert world.peers == []
        await till(1.5)
        assert len(world.peers) == 1


# --- gaps and duplicates


@timeless
async def test_a_duplicate_is_dropped() -> None:
    async with follow() as world:
        await world.peer.acknowledge()
        world.new_reports()
        await world.peer.send_messages(change(11), change(11), change(10), change(12), change(3))
        assert world.new_reports() == [("message", 11), ("message", 12)]
        assert len(world.peer.received) == 2


@timeless
async def test_a_gap_is_requested_again_and_nothing_after_it_is_reported_before() -> None:
    async with follow() as world:
        await world.peer.acknowledge()
        await world.peer.send_messages(change(11))
        world.new_reports()
        await world.peer.send_messages(change(13), change(14))
        assert world.new_reports() == []
        assert world.client.position == Position(11, EPOCH)
        assert world.state == "connecting"
        assert len(world.peer.received) == 3
        assert world.peer.last["data"] == {"companyId": "a", "after": 11, "epoch": EPOCH}
        await world.peer.send_messages(
            subscribed("a", 11, recovered=True), *map(change, (12, 13, 14))
        )
        assert world.new_reports() == [("recovered", 11), *(("message", n) for n in (12, 13, 14))]


@timeless
async def test_a_gap_that_cannot_be_filled_is_a_resync() -> None:
    async with follow() as world:
        await world.peer.acknowledge()
        world.new_reports()
        await world.peer.send_messages(change(13), subscribed("a", 20, recovered=False), change(21))
        assert world.new_reports() == [("resync", "expired", 20), ("message", 21)]


@timeless
async def test_a_gap_that_is_never_filled_is_a_resync_after_three_retries() -> None:
    async with follow() as world:
        await world.peer.acknowledge()
        world.new_reports()
        for _ in range(3):
            await world.peer.send_messages(change(13))
            assert world.peer.last["data"] == {"companyId": "a", "after": 10, "epoch": EPOCH}
            await world.peer.send_messages(subscribed("a", 10, recovered=True))
            assert world.new_reports() == [("recovered", 10)]
        await world.peer.send_messages(change(13))
        assert world.peer.last["data"] == {"companyId": "a"}
        await world.peer.send_messages(subscribed("a", 13), change(14))
        assert world.new_reports() == [("resync", "gap", 13), ("message", 14)]


@pytest.mark.parametrize("position", ["11", 11.5, None, -1, True])
@timeless
async def test_a_position_that_is_not_a_number_ends_the_connection(position: Any) -> None:
    async with follow() as world:
        await world.peer.acknowledge()
        world.new_reports()
        await world.peer.send_messages(change(position))
        assert world.new_reports() == []
        assert world.state == "waiting"


@timeless
async def test_messages_and_answers_that_were_not_requested_are_ignored() -> None:
    async with follow() as world:
        await world.peer.send_messages(change(11), authenticated(), change(11), subscribed("b", 99))
        assert world.new_reports() == []
        await world.peer.send_messages(subscribed("a", 10), subscribed("a", 4), change(11))
        assert world.new_reports() == [("resync", "start", 10), ("message", 11)]


# --- resync


@timeless
async def test_a_resync_of_the_server_has_a_position_and_replaces_earlier_messages() -> None:
    async with follow() as world:
        await world.peer.acknowledge()
        world.new_reports()
        await world.peer.send_messages(change(11), resync(12), change(13))
        assert world.new_reports()[-2:] == [("resync", "bulk", 12), ("message", 13)]
        await world.peer.send_messages(resync(12), resync(20, "truncate"), change(15), change(21))
        assert world.new_reports() == [("resync", "truncate", 20), ("message", 21)]
        await world.peer.send_messages(resync(1, "epoch", "e2"), change(2))
        assert world.new_reports() == [("resync", "epoch", 1), ("message", 2)]
        assert world.client.position == Position(2, "e2")


@timeless
async def test_there_is_no_position_while_the_state_is_reloaded() -> None:
    world = World()
    async with world.client as client:
        await settle()
        await world.peer.acknowledge()
        await world.peer.send_messages(change(11))
        reports = [await anext(client) for _ in range(3)]
        assert summary(reports[-1]) == ("resync", "start", 10)
        assert client.position is None
        assert summary(await anext(client)) == ("message", 11)
        assert client.position == Position(11, EPOCH)


@timeless
async def test_reports_that_a_later_resync_covers_are_dropped() -> None:
    world = World()
    async with world.client as client:
        await settle()
        await world.peer.acknowledge()
        while not isinstance(await anext(client), Resync):
            pass
        await world.peer.send_messages(change(11), resync(12), change(13))
        assert summary(await anext(client)) == ("resync", "bulk", 12)
        assert client.position is None
        assert summary(await anext(client)) == ("message", 13)


@timeless
async def test_a_slow_application_slows_the_socket_and_loses_nothing() -> None:
    world = World()
    async with world.client as client:
        await settle()
        await world.peer.acknowledge()
        many = 3 * MAX_WAITING
        await world.peer.send_messages(*map(change, range(11, 11 + many)))
        await till(300)
        assert len(world.peers) == 1, "the client itself paused the link"
        positions = []
        async for report in client:
            if isinstance(report, Message):
                positions.append(report.position)
                if len(positions) == many:
                    break
        assert positions == list(range(11, 11 + many))


# --- companies


@timeless
async def test_nothing_of_the_former_company_is_reported_after_the_switch() -> None:
    world = World()
    async with world.client as client:
        await settle()
        await world.peer.acknowledge()
        await world.peer.send_messages(change(11))
        client.set_company("b")
        assert client.position is None
        await world.peer.send_messages(change(12), subscribed("b", 11), change(12))
        reports = [await anext(client) for _ in range(6)]
        assert [summary(each) for each in reports if not isinstance(each, Status)] == [
            ("resync", "start", 11),
            ("message", 12),
        ]


@timeless
async def test_a_company_is_resumed_from_a_saved_position() -> None:
    async with follow() as world:
        await world.peer.acknowledge()
        kept = world.client.position
        assert kept is not None
        world.client.set_company("b")
        await world.peer.send_messages(subscribed("b", 3))
        world.client.set_company("a", after=kept.after, epoch=kept.epoch)
        await settle()
        assert world.peer.last["data"] == {"companyId": "a", "after": 10, "epoch": EPOCH}


@timeless
async def test_of_several_switches_in_a_row_only_the_last_one_counts() -> None:
    async with follow() as world:
        await world.peer.acknowledge()
        world.new_reports()
        for company in "bcad":
            world.client.set_company(company)
        await world.peer.send_messages(subscribed("b", 1), change(2))
        assert world.peer.last["data"] == {"companyId": "d"}
        assert len(world.peer.received) == 4
        await world.peer.send_messages(subscribed("d", 7))
        assert world.new_reports() == [("resync", "start", 7)]


@timeless
async def test_a_switch_without_a_connection_is_requested_on_reconnect() -> None:
    async with follow() as world:
        await world.peer.acknowledge()
        await world.peer.close_with(1006)
        world.client.set_company("b")
        await world.reconnected()
        await world.peer.send_messages(authenticated())
        assert world.peer.last["data"] == {"companyId": "b"}


@timeless
async def test_a_refused_company_is_not_requested_again_even_on_another_socket() -> None:
    async with follow() as world:
        await world.peer.send_messages(authenticated(), refused())
        status = world.client.status
        assert (status.state, status.reason) == ("idle", "company_forbidden")
        await world.peer.close_with(1012)
        await world.reconnected()
        await world.peer.send_messages(authenticated())
        assert world.state == "idle"
        assert len(world.peer.received) == 1
        world.client.set_company("a")
        await settle()
        assert world.peer.last["data"] == {"companyId": "a"}


@timeless
async def test_a_request_that_failed_for_another_reason_is_repeated() -> None:
    async with follow() as world:
        await world.peer.send_messages(authenticated(), refused("unavailable"))
        await world.reconnected()
        assert len(world.peers) == 2


@timeless
async def test_revoked_access_ends_the_messages_and_is_reported() -> None:
    async with follow() as world:
        await world.peer.acknowledge()
        world.new_reports()
        await world.peer.send_messages(
            {"Type": "CompanyRevoked", "Data": {"CompanyId": "b"}}, change(11)
        )
        assert world.new_reports() == [("message", 11)]
        await world.peer.send_messages(
            {"Type": "CompanyRevoked", "Data": {"CompanyId": "a"}}, change(12)
        )
        assert world.new_reports() == []
        assert (world.state, world.client.status.reason) == ("idle", "revoked")
        world.client.set_company("b")
        await world.peer.send_messages(subscribed("b", 2))
        assert world.state == "live"


# --- a silent link


@timeless
async def test_a_silent_link_gets_a_ping_and_any_message_is_a_sign_of_life() -> None:
    async with follow() as world:
        await world.peer.acknowledge()
        await till(now() + 15)
        assert world.peer.last == {"type": "ping"}
        await world.peer.send_messages({"Type": "Pong"})
        for position in range(11, 20):
            await till(now() + 10)
            await world.peer.send_messages(change(position))
        assert world.state == "live"
        assert world.peer.received.count({"type": "ping"}) == 1


@timeless
async def test_an_idle_link_is_never_silent_for_16_seconds() -> None:
    """Some proxies cut a link after 16 s without traffic."""
    async with follow() as world:
        await world.peer.acknowledge()
        sent, last_traffic, position = len(world.peer.received), now(), 10
        for second in range(600):
            await till(now() + 1)
            if second % 97 == 0:
                position, last_traffic = position + 1, now()
                await world.peer.send_messages(change(position))
            if len(world.peer.received) > sent:
                sent, last_traffic = len(world.peer.received), now()
                await world.peer.send_messages({"Type": "Pong"})
            assert now() - last_traffic < 16
        assert len(world.peers) == 1


@timeless
async def test_a_link_without_a_sign_of_life_is_dropped() -> None:
    async with follow() as world:
        await world.peer.acknowledge()
        world.new_reports()
        await till(now() + 25)
        assert (world.state, world.client.status.reason) == ("waiting", "silent link")
        assert world.peer.closed
        await world.peer.send_messages(change(11))
        assert world.new_reports() == [], "messages from the dead socket are not reported"
        await world.reconnected()
        await world.peer.acknowledge(recovered=True)
        assert world.new_reports() == [("recovered", 10)]


@timeless
async def test_a_server_that_does_not_answer_is_left_when_the_inbox_has_room_again() -> None:
    """While the inbox is full the socket is not read, and no deadline applies."""
    world = World()
    async with world.client as client:
        await settle()
        await world.peer.acknowledge()
        await world.peer.send_messages(*map(change, range(11, MAX_WAITING)))
        await world.peer.close_with(1006)
        await till(now() + 1000)  # each attempt adds its statuses, until the inbox is full
        full = len(world.peers)
        await till(now() + 1000)
        assert len(world.peers) == full

        async def take() -> None:
            async for _ in client:
                pass

        taking = asyncio.create_task(take())
        await till(now() + 30)
        assert len(world.peers) > full
    await taking


# --- the browser client


def test_states_reasons_and_final_codes_are_those_of_the_browser_client() -> None:
    text = (ROOT / "clients" / "js" / "src" / "client.js").read_text("utf-8")
    for state in ("connecting", "live", "waiting", "idle", "stopped", "closed"):
        assert f'"{state}"' in text
    for reason in ("silent link", "no answer", "no token", "token refused", "unreadable message"):
        assert f'"{reason}"' in text
    assert ", ".join(map(str, sorted(FINAL))) in text
