"""Limits by user and address: what is counted together, and that counters do not accumulate."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass

import pytest
from structlog.testing import capture_logs

from notifier.access.admission import QUEUE_STEP_SECONDS, REPORTED_LIMIT, Admission, address_group
from notifier.errors import Restart, TooMany
from tests.timeless import timeless

MANY = 1_000_000


@dataclass(eq=False)
class Peer:
    address: str = ""
    user: str = ""


def admission(*, per_user: int = MANY, per_address: int = 0, limit: int = MANY) -> Admission[Peer]:
    return Admission(limit, per_user, per_address)


@pytest.mark.parametrize(
    ("host", "same", "another"),
    [
        ("192.0.2.1", "::ffff:192.0.2.1", "192.0.2.2"),
        ("2001:db8:1:2::1", "2001:DB8:1:2:ffff:ffff:ffff:ffff", "2001:db8:1:3::1"),
        ("fe80::1%eth0", "fe80::2%eth1", "fe81::1%eth0"),
        ("proxy", "proxy", "Proxy"),
    ],
)
def test_ipv6_addresses_are_counted_by_their_64_bit_prefix(
    host: str, same: str, another: str
) -> None:
    assert address_group(host) == address_group(same)
    assert address_group(host) != address_group(another)


async def test_no_counter_outlives_the_connections_it_counts() -> None:
    limits = admission(per_address=2)
    for number in range(1000):
        peer = Peer(f"a{number}")
        limits.enter(peer)
        await limits.delay_rejection(peer.address, 0)
        peer.user = f"u{number}"
        limits.identify(peer.user)
        limits.leave(peer)
    limits.enter(Peer())
    assert not limits._addresses
    assert not limits._users
    assert not limits._rejections


async def test_a_cancelled_rejection_leaves_the_queue() -> None:
    limits = admission()
    waiting = asyncio.create_task(limits.delay_rejection("a", 3600))
    await asyncio.sleep(0)
    assert limits._rejections == {"a": 1}
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert not limits._rejections


@timeless
async def test_rejections_of_one_address_queue_behind_one_another() -> None:
    limits, now = admission(), asyncio.get_running_loop().time
    ends: list[float] = []

    async def reject(address: str) -> None:
        await limits.delay_rejection(address, 1.0)
        ends.append(now())

    rejections = [asyncio.create_task(reject(address)) for address in ("a", "a", "b", "a")]
    await asyncio.sleep(1.001)
    assert limits._rejections == {"a": 2}
    await asyncio.gather(*rejections)
    step = QUEUE_STEP_SECONDS
    assert ends == pytest.approx([1.0, 1.0, 1.0 + step, 1.0 + 2 * step])
    assert not limits._rejections


def test_the_limits_by_address_may_be_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("notifier.access.admission.QUEUE_LIMIT", 1)
    limits = admission(per_address=1)
    limits.check_rejections("a")
    limits.enter(Peer("a"))
    with pytest.raises(TooMany):
        limits.enter(Peer("a"))


@pytest.mark.parametrize("proxies", [False, True])
def test_reaching_the_limit_is_logged_once_for_an_address_with_its_remedy(proxies: bool) -> None:
    limits: Admission[Peer] = Admission(MANY, MANY, 1, proxies=proxies)
    with capture_logs() as logs:
        for address in ("a", "a", "a", "b", "b", "b"):
            with suppress(TooMany):
                limits.enter(Peer(address))
    assert [(line["address"], line["sockets"]) for line in logs] == [("a", 1), ("b", 1)]
    assert ("another proxy's" in logs[0]["event"]) is proxies
    assert "MAX_CONNECTIONS_PER_ADDRESS" in logs[0]["event"]


def test_many_addresses_at_their_limit_do_not_fill_the_log() -> None:
    limits = admission(per_address=1)
    with capture_logs() as logs:
        for number in range(2 * REPORTED_LIMIT):
            limits.enter(Peer(str(number)))
            with suppress(TooMany):
                limits.enter(Peer(str(number)))
    assert len(logs) == REPORTED_LIMIT


def test_zero_is_no_limit_and_any_other_number_is_exact() -> None:
    unlimited, limited = admission(), admission(per_address=3)
    peers = [Peer("a") for _ in range(3)]
    for peer in peers:
        unlimited.enter(peer)
        limited.enter(peer)
    unlimited.enter(Peer("a"))
    with pytest.raises(TooMany):
        limited.enter(Peer("a"))
    limited.leave(peers[0])
    limited.enter(Peer("a"))


def test_a_user_has_at_most_so_many_connections() -> None:
    limits, peer = admission(per_user=1), Peer("a")
    limits.enter(peer)
    limits.identify("u1")
    peer.user = "u1"
    with pytest.raises(TooMany):
        limits.identify("u1")
    limits.identify("u2")
    limits.leave(peer)
    limits.identify("u1")


def test_a_node_has_at_most_so_many_connections_and_none_while_it_shuts_down() -> None:
    limits, peer = admission(limit=1), Peer()
    limits.enter(peer)
    with pytest.raises(TooMany):
        limits.enter(Peer())
    limits.leave(peer)
    limits.closed = True
    with pytest.raises(Restart):
        limits.enter(Peer())
