"""A server that breaks the protocol: the client drops the connection, and connects again; it never ends with an exception."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import pytest

from notifier.client.progress import Unreadable
from notifier.client.shapes import check
from tests.timeless import timeless
from tests.unit.fake_server import (
    EPOCH,
    answered,
    authenticated,
    change,
    disconnect,
    follow,
    refused,
    resync,
    settle,
    subscribed,
)

ABSENT = object()
VALUES: tuple[Any, ...] = (ABSENT, None, True, 7, -1, "x", [], {})

MESSAGES = {
    "the result of authenticate": authenticated(),
    "its refusal": {"Type": "AuthenticationResult", "Success": False, "Error": {"Code": "x", "Message": "y"}},
    "an answer": subscribed("a", 10, EPOCH, True, "then"),
    "a refusal": refused("bad_filter") | {"Data": {"CompanyId": "a"}},
    "a refusal of a kind": refused() | {"Type": "SubscribeResult"},
    "an answer to subscribe": answered("a", 10),
    "a change": change(11, Title="x") | {"Old": {"Title": "y"}, "Tx": "7", "At": "t", "Actor": "u", "Partial": True},
    "a resync": resync(11),
    "Skipped": {"Type": "Skipped", "Data": {"CompanyId": "a"}, "Position": 12, "At": "t"},
    "CompanyRevoked": {"Type": "CompanyRevoked", "Data": {"CompanyId": "a"}},
    "Arrived": {"Type": "Arrived", "Data": {"CompanyId": "a", "Tx": "7", "Position": 11}},
    "an error": {"Type": "Error", "Error": {"Code": "timeout", "Message": "y"}, "Data": {"CompanyId": "a", "Tx": "7"}},
    "Disconnect": disconnect(4503, wait=5),
    "TokenExpiring": {"Type": "TokenExpiring", "Data": {"ExpiresAt": "t"}},
    "State": {"Type": "State", "Data": {"CompanyId": "a", "Entity": "Event", "Rows": [{"EventId": "1"}]}},
    "StateEnd": {"Type": "StateEnd", "Data": {"CompanyId": "a", "Position": 10}},
}  # fmt: skip


def broken(message: Any) -> Iterator[Any]:
    """The message with each of its properties, at any depth, replaced by each value."""
    for path in _paths(message):
        for value in VALUES:
            made = copy.deepcopy(message)
            inner = made
            for name in path[:-1]:
                inner = inner[name]
            if value is ABSENT:
                del inner[path[-1]]
            else:
                inner[path[-1]] = value
            yield made


def _paths(value: Any) -> Iterator[tuple[str, ...]]:
    if isinstance(value, dict):
        for name, inner in value.items():
            yield (name,)
            for rest in _paths(inner):
                yield name, *rest


@timeless
@pytest.mark.parametrize("message", MESSAGES.values(), ids=MESSAGES)
async def test_no_message_of_a_wrong_shape_ends_the_client(message: Any) -> None:
    for made in broken(message):
        for state in (False, True):
            for stage in ("first", "authenticated", "subscribed"):
                async with follow(state=state) as world:
                    await settle()
                    if stage != "first":
                        await world.peer.send_messages(authenticated())
                    if stage == "subscribed":
                        answer = answered("a", 10) if state else subscribed("a", 10)
                        await world.peer.send_messages(answer)
                    await world.peer.send_messages(made, change(11))
                    assert world.client.status.state in {
                        "connecting",
                        "live",
                        "waiting",
                        "idle",
                        "stopped",
                    }
                    assert not world.client._link.has_ended or world.state == "stopped", made


@timeless
@pytest.mark.parametrize(
    "message",
    [
        {"Type": "SetCompanyResult", "Success": True, "Data": {"Position": 10, "Epoch": EPOCH}},
        {"Type": "SetCompanyResult", "Success": True},
        {"Type": "SetCompanyResult"},
        {"Type": 7, "Position": 11},
        {"Position": 11},
        {"Type": "EventCreated", "Position": 11},
        {"Type": "EventCreated", "Data": [], "Position": 11},
    ],
)
async def test_it_is_an_unreadable_message_after_which_the_client_connects_again(
    message: Any,
) -> None:
    async with follow() as world:
        await settle()
        await world.peer.send_messages(authenticated(), message)
        assert (world.state, world.client.status.reason) == ("waiting", "unreadable message")
        await world.reconnected()
        await world.peer.acknowledge()
        assert world.state == "live"


@pytest.mark.parametrize(
    "wrong",
    [{"Position": 2**63}, {"Position": 2**70}, {"Epoch": "\ud800"}, {"At": "x\udfff"}],
    ids=str,
)
def test_a_place_that_could_not_be_sent_back_or_saved_is_unreadable(wrong: Any) -> None:
    place = {"CompanyId": "a", "Position": 10, "Epoch": EPOCH, "At": "t"}
    messages: list[Any] = [
        {"Type": "SubscribeResult", "Success": True, "Data": place | wrong},
        {
            "Type": "Resync",
            "Data": {"Epoch": EPOCH, **wrong},
            **{"Position": 11, "At": "t"} | wrong,
        },
    ]
    if "Epoch" not in wrong:
        messages.append(change(11) | wrong)
    for message in messages:
        with pytest.raises(Unreadable):
            check(message)
