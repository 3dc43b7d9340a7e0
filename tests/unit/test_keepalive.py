"""Pings of many connections by one timer."""

from __future__ import annotations

import asyncio

from notifier.transport.keepalive import PONG_SECONDS, Keepalive
from tests.timeless import timeless

SLACK = 0.2
"""Two ticks."""


class Connection:
    """Notes when it was pinged, and when its pong was due."""

    def __init__(self) -> None:
        self.pings: list[float] = []
        self.payloads: list[bytes] = []
        self.due: list[float] = []

    def ping(self, frame: bytes, payload: bytes) -> None:
        assert frame == b"\x89\x04" + payload
        self.pings.append(asyncio.get_running_loop().time())
        self.payloads.append(payload)

    def check_pong(self) -> None:
        self.due.append(asyncio.get_running_loop().time())


def near(times: list[float], expected: list[float]) -> bool:
    return len(times) == len(expected) and all(
        abs(time - each) <= SLACK for time, each in zip(times, expected, strict=True)
    )


@timeless
async def test_each_connection_is_pinged_once_per_interval_from_its_beginning_on() -> None:
    keepalive, early, late = Keepalive(25), Connection(), Connection()
    keepalive.add(early)
    await asyncio.sleep(10)
    keepalive.add(late)
    await asyncio.sleep(70)
    assert near(early.pings, [25, 50, 75])
    assert near(late.pings, [35, 60])
    assert len(set(early.payloads)) == 3


@timeless
async def test_a_pong_is_due_before_the_next_ping() -> None:
    keepalive, connection = Keepalive(25), Connection()
    keepalive.add(connection)
    await asyncio.sleep(60)
    due = [time for time in connection.due if time > 25 + SLACK]
    assert near(due, [25 + PONG_SECONDS])


@timeless
async def test_with_a_short_interval_a_pong_is_due_at_the_next_ping() -> None:
    keepalive, connection = Keepalive(1), Connection()
    keepalive.add(connection)
    await asyncio.sleep(3.5)
    assert near(connection.pings, [1, 2, 3])
    assert near([time for time in connection.due if time > 1 + SLACK], [2, 3])


@timeless
async def test_a_removed_connection_is_pinged_no_more_and_the_timer_ends_with_the_last() -> None:
    keepalive, connection, other = Keepalive(25), Connection(), Connection()
    slot = keepalive.add(connection)
    keepalive.add(other)
    keepalive.remove(connection, slot)
    keepalive.remove(connection, slot)  # as when the connection is lost after its end
    await asyncio.sleep(30)
    assert not connection.pings
    assert near(other.pings, [25])
    keepalive.remove(other, next(each for each in keepalive._slots if each))
    await asyncio.sleep(1)
    timers = [timer for timer in asyncio.get_running_loop()._scheduled if not timer.cancelled()]  # type: ignore[attr-defined]
    assert not timers
    keepalive.add(connection)
    await asyncio.sleep(26)
    assert len(connection.pings) == 1


@timeless
async def test_connections_that_are_closed_by_a_ping_disturb_no_other() -> None:
    keepalive = Keepalive(25)

    class Closing(Connection):
        def ping(self, frame: bytes, payload: bytes) -> None:
            super().ping(frame, payload)
            for each, slot in slots:
                keepalive.remove(each, slot)

    connections = [Closing() for _ in range(3)]
    slots = [(each, keepalive.add(each)) for each in connections]
    await asyncio.sleep(60)
    assert sum(len(each.pings) for each in connections) == 3
