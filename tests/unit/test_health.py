"""A node is ready only while its probes prove the path from trigger to hub."""

from __future__ import annotations

import time
from typing import Any

import pytest

from notifier.health import STALE_SECONDS, STUCK_SECONDS, Health


class Clock:
    """The monotonic clock; a test advances it."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(time, "monotonic", clock)
    return clock


def proven(**seen: Any) -> dict[str, Any]:
    """What a probe of a sound path reports, with these exceptions."""
    return {"relay": True, "problems": (), "waiting": False, "backlog": None, **seen}


def test_a_node_that_has_not_been_probed_is_not_ready(clock: Clock) -> None:
    assert Health().reason() == "not connected to the database yet"


def test_a_sound_path_is_ready_until_its_proof_is_too_old(clock: Clock) -> None:
    health = Health()
    health.proven(**proven())
    assert health.reason() is None
    clock.now += STALE_SECONDS
    assert health.reason() is None
    clock.now += 0.1
    assert health.reason() is not None


@pytest.mark.parametrize(
    ("seen", "words"),
    [
        ({"relay": False}, "relay lock"),
        ({"waiting": True}, "not relayed"),
        ({"problems": ("public.events",)}, "public.events"),
    ],
)
def test_each_flaw_of_the_path_is_a_reason(clock: Clock, seen: dict[str, Any], words: str) -> None:
    health = Health()
    health.proven(**proven(**seen))
    assert words in (health.reason() or "")
    health.proven(**proven())
    assert health.reason() is None


def test_a_backlog_is_a_reason_once_it_makes_no_progress(clock: Clock) -> None:
    health = Health()
    for page in ("1", "2", "2"):
        health.proven(**proven(backlog=page))
        assert health.reason() is None
        clock.now += STUCK_SECONDS
    clock.now += 0.1
    health.proven(**proven(backlog="2"))
    assert "stuck" in (health.reason() or "")
    health.proven(**proven(backlog="3"))
    assert health.reason() is None


def test_a_lost_link_and_a_drain_are_reasons(clock: Clock) -> None:
    health = Health()
    health.proven(**proven())
    health.lost("lost the database")
    assert health.reason() == "lost the database"
    health.proven(**proven())
    health.draining = True
    assert health.reason() == "going away"
