"""What the client concludes from a close code and the `Disconnect` before it."""

from __future__ import annotations

from typing import Any

import pytest

from notifier.client.closes import FINAL, TOO_MANY_SECONDS, closed


@pytest.mark.parametrize("code", sorted(FINAL))
def test_after_a_final_code_the_client_stops(code: int) -> None:
    assert closed(code, "", None).final


@pytest.mark.parametrize("code", [1001, 1012, 4401, 4408, 4419, 4500, 4503, 4508, 4999])
def test_after_any_other_code_it_reconnects(code: int) -> None:
    end = closed(code, "a reason", None)
    assert (end.code, end.reason, end.floor, end.final) == (code, "a reason", 0.0, False)


@pytest.mark.parametrize("code", [None, 1000, 1005, 1006])
def test_the_code_of_disconnect_replaces_an_unspecific_one(code: int | None) -> None:
    farewell = {"Code": 4409, "Reason": "another user", "Reconnect": False}
    end = closed(code, "", farewell)
    assert (end.code, end.reason, end.final) == (4409, "another user", True)


def test_a_broken_link_has_code_1006() -> None:
    end = closed(None, None, None)
    assert (end.code, end.reason, end.final) == (1006, "connection lost", False)


@pytest.mark.parametrize(("code", "final"), [(4777, True), (4401, False), (4419, False)])
def test_reconnect_false_is_final_except_for_a_token(code: int, final: bool) -> None:
    assert closed(code, "", {"Code": code, "Reconnect": False}).final is final


@pytest.mark.parametrize(
    ("code", "wait", "floor"),
    [
        (4503, 1500, 1.5),
        (4503, None, 0.0),
        (4503, -1, 0.0),
        (4503, "soon", 0.0),
        (4429, None, TOO_MANY_SECONDS),
        (4429, 100, 0.1),
    ],
)
def test_the_server_sets_the_shortest_wait(code: int, wait: Any, floor: float) -> None:
    assert closed(code, "", {"Code": code, "RetryAfterMs": wait}).floor == floor
