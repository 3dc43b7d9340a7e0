"""Revocations: found by company and user, after a serial number, for a while."""

from __future__ import annotations

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
    assert [user for *_, user in revocations._recent] == ["x", "y"]
