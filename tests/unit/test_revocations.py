"""Revocations: found by company and user, after a serial number, for a while."""

from __future__ import annotations

import time

import pytest

from notifier.delivery.revocations import REVOCATION_SECONDS, Revocations
from notifier.messages import ALL_USERS


def test_revocations_are_kept_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr("notifier.delivery.revocations.time.monotonic", lambda: now)
    revocations = Revocations()
    for user in ("u", "v", ALL_USERS):
        revocations.add("c", user)
    assert revocations.serial == 3
    assert revocations.since(0, "c", "u")
    assert revocations.since(2, "c", "w")
    assert not revocations.since(3, "c", "w")
    assert not revocations.since(0, "d", "u")
    now += REVOCATION_SECONDS
    revocations.add("c", "x")
    assert revocations.since(0, "c", "u")
    now += 1
    revocations.add("c", "y")
    assert [user for *_, (_, user) in revocations._recent] == ["x", "y"]
    assert revocations._last.keys() == {("c", "x"), ("c", "y")}


def test_a_pair_that_is_revoked_again_is_kept_for_as_long(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr("notifier.delivery.revocations.time.monotonic", lambda: now)
    revocations = Revocations()
    revocations.add("c", "u")
    now += REVOCATION_SECONDS
    revocations.add("c", "u")
    now += 1
    revocations.add_user("v")
    assert revocations.since(1, "c", "u")
    assert not revocations.since(2, "c", "u")
    assert revocations.since(2, "d", "v")


def test_very_many_revocations_of_others_are_not_looked_through() -> None:
    """As where one transaction deletes the members of 100,000 companies while as many clients resume."""
    revocations = Revocations()
    for number in range(100_000):
        revocations.add(str(number), ALL_USERS)
    begun = time.monotonic()
    assert not any(revocations.since(0, "c", "u") for _ in range(10_000))
    assert time.monotonic() - begun < 10  # looked through, they take a minute
