"""The limit on how many commands a client may send within some seconds."""

from __future__ import annotations

import time

import pytest

from notifier.delivery.rate import count_command
from notifier.errors import TooMany


def test_commands_beyond_the_limit_are_refused_until_older_ones_are_ten_seconds_old(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    times: list[float] = []
    for _ in range(3):
        count_command(times, 3)
    now += 9.9
    with pytest.raises(TooMany):
        count_command(times, 3)
    now += 0.1
    count_command(times, 3)
    assert len(times) == 2
