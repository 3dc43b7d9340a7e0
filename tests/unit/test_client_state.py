"""The Python client with state: rows first, then changes, whatever happens in between."""

from __future__ import annotations

from typing import Any

import pytest

from notifier.client import CompanyState, companies
from tests.timeless import timeless
from tests.unit.fake_server import (
    EPOCH,
    World,
    answered,
    authenticated,
    change,
    follow,
    rejected,
    resync,
    settle,
)


def part(*ids: str, entity: str = "Event") -> Any:
    rows = [{f"{entity}Id": each, "CompanyId": "a"} for each in ids]
    return {"Type": "State", "Data": {"CompanyId": "a", "Entity": entity, "Rows": rows}}


def end(position: int = 10) -> Any:
    return {"Type": "StateEnd", "Data": {"CompanyId": "a", "Position": position}}


def requested(world: World) -> Any:
    """The `data` of the command that was sent last."""
    assert world.peer.last["type"] == "subscribe"
    return world.peer.last["data"]


async def begun(world: World, position: int = 10) -> None:
    """The server has accepted the company; the rows are to come."""
    await settle()
    await world.peer.send_messages(authenticated(), answered("a", position))


def ids(world: World) -> list[str]:
    return sorted(row["EventId"] for row in world.client.rows("Event"))


@timeless
async def test_the_rows_come_first_and_changes_are_applied_to_them() -> None:
    async with follow(state=True) as world:
        await begun(world)
        assert requested(world) == {"companyId": "a", "state": True}
        await world.peer.send_messages(part("1", "2"), part("x", entity="Employee"), part("3"))
        assert (world.state, world.client.position, world.client.snapshot()) == (
            "connecting",
            None,
            None,
        )
        await world.peer.send_messages(end())
        (state,) = (each for each in world.reports if isinstance(each, CompanyState))
        assert (state.reason, state.position, sorted(state.rows)) == (
            "start",
            10,
            ["Employee", "Event"],
        )
        assert (world.state, ids(world)) == ("live", ["1", "2", "3"])
        await world.peer.send_messages(change(11, Title="b"))
        assert world.client.rows("Event").get("1") == {
            "EventId": "1",
            "CompanyId": "a",
            "Title": "b",
        }
        snapshot = world.client.snapshot()
        assert snapshot is not None
        assert snapshot["position"] == {"after": 11, "epoch": EPOCH, "at": None}
    async with follow(state=True, snapshot=snapshot) as world:
        assert ids(world) == ["1", "2", "3"]
        await settle()
        await world.peer.send_messages(authenticated())
        assert requested(world) == {"companyId": "a", "after": 11, "epoch": EPOCH, "state": True}
        await world.peer.send_messages(answered("a", 11, recovered=True), change(12))
        assert world.new_reports() == [("recovered", 11), ("message", 12)]


@timeless
async def test_a_state_that_is_cut_begins_again_and_shows_no_part_of_the_first() -> None:
    async with follow(state=True) as world:
        await begun(world)
        await world.peer.send_messages(part("1"))
        await world.peer.close_with(1006)
        await world.reconnected()
        await begun(world, 20)
        assert requested(world) == {"companyId": "a", "state": True}
        await world.peer.send_messages(part("2"), end(20))
        assert ids(world) == ["2"]
        await world.peer.close_with(1006)
        await world.reconnected()
        await settle()
        await world.peer.send_messages(authenticated())
        assert requested(world)["after"] == 20
        await world.peer.send_messages(answered("a", 30, recovered=False), part("3"), end(30))
        assert ids(world) == ["3"]
        states = [each for each in world.reports if isinstance(each, CompanyState)]
        assert [each.reason for each in states] == ["start", "expired"]


@timeless
async def test_a_resync_requests_the_rows_again_and_the_former_ones_stay_until_they_are_there() -> (
    None
):
    async with follow(state=True) as world:
        await begun(world)
        await world.peer.send_messages(part("1"), end(), resync(11))
        assert (world.state, ids(world)) == ("connecting", ["1"])
        assert requested(world) == {"companyId": "a", "state": True}
        await world.peer.send_messages(change(12), answered("a", 12), part("2"), end(12))
        assert (world.state, ids(world)) == ("live", ["2"])
        states = [each for each in world.reports if isinstance(each, CompanyState)]
        assert [each.reason for each in states] == ["start", "bulk"]
        assert len(world.peers) == 1


@timeless
async def test_access_that_is_revoked_during_a_state_or_after_it_removes_the_rows() -> None:
    revoked = {"Type": "CompanyRevoked", "Data": {"CompanyId": "a"}}
    for completed in (False, True):
        async with follow(state=True) as world:
            await begun(world)
            await world.peer.send_messages(
                part("1"), *([end()] if completed else []), revoked, end()
            )
            assert (world.state, world.client.status.reason) == ("idle", "revoked")
            assert (ids(world), world.client.snapshot()) == ([], None)


@timeless
async def test_refusals_and_a_state_beyond_the_bound_stop_only_the_company(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for code in ("state_unavailable", "state_too_large"):
        async with follow(state=True) as world:
            await settle()
            await world.peer.send_messages(authenticated(), rejected("a", code))
            assert (world.state, world.client.status.reason) == ("idle", code)
        async with follow(state=True) as world:  # after a Resync the state is requested again
            await begun(world)
            await world.peer.send_messages(part("1"), end(), resync(11), rejected("a", code))
            assert world.peer.last == {"type": "unsubscribe", "data": {"companyId": "a"}}
            world.reports.clear()
            await world.peer.send_messages(change(12))
            assert world.reports == []
    monkeypatch.setattr(companies, "MAX_STATE_BYTES", 300)
    async with follow(state=True) as world:
        await begun(world)
        await world.peer.send_messages(part("1" * 100), part("2" * 100), end())
        assert (world.state, world.client.status.reason) == ("idle", "state_too_large")
        assert world.peer.last == {"type": "unsubscribe", "data": {"companyId": "a"}}


@timeless
@pytest.mark.parametrize(
    "message",
    [
        change(11),
        {"Type": "State", "Data": {"CompanyId": "a", "Entity": "Event", "Rows": [1]}},
        {"Type": "State", "Data": {"CompanyId": "a", "Entity": None, "Rows": []}},
        {"Type": "StateEnd", "Data": {"CompanyId": "a", "Position": 9}},
    ],
)
async def test_a_state_that_breaks_the_protocol_drops_the_connection(message: Any) -> None:
    async with follow(state=True) as world:
        await begun(world)
        await world.peer.send_messages(message)
        assert (world.state, world.client.status.reason) == ("waiting", "unreadable message")
