"""Who is counted as one by his address, and how many addresses are kept in mind."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest
from structlog.testing import capture_logs

from notifier.access.addresses import TURN_SECONDS, Addresses, counted
from notifier.errors import TooMany
from tests.timeless import timeless


@pytest.mark.parametrize(
    ("host", "same", "another"),
    [
        ("192.0.2.1", "::ffff:192.0.2.1", "192.0.2.2"),
        ("2001:db8:1:2::1", "2001:DB8:1:2:ffff:ffff:ffff:ffff", "2001:db8:1:3::1"),
        ("fe80::1%eth0", "fe80::2%eth1", "fe81::1%eth0"),
        ("proxy", "proxy", "Proxy"),
    ],
)
def test_an_address_is_counted_as_one_with_its_network(host: str, same: str, another: str) -> None:
    assert counted(host) == counted(same)
    assert counted(host) != counted(another)


async def test_only_addresses_that_are_there_are_kept_in_mind() -> None:
    addresses = Addresses(2)
    for number in range(1000):
        addresses.enter(f"a{number}")
        await addresses.refuse(f"a{number}", 0)
        addresses.leave(f"a{number}")
    addresses.enter("")
    assert not addresses._sockets
    assert not addresses._lines


async def test_a_refusal_that_is_given_up_leaves_the_line() -> None:
    addresses = Addresses(0)
    waiting = asyncio.create_task(addresses.refuse("a", 3600))
    await asyncio.sleep(0)
    assert addresses._lines == {"a": 1}
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert not addresses._lines


@timeless
async def test_who_is_refused_waits_for_his_turn_and_then_leaves_the_line() -> None:
    addresses, now = Addresses(0), asyncio.get_running_loop().time
    ends: list[float] = []

    async def refuse(address: str) -> None:
        await addresses.refuse(address, 1.0)
        ends.append(now())

    refusals = [asyncio.create_task(refuse(address)) for address in ("a", "a", "b", "a")]
    await asyncio.sleep(1.001)
    assert addresses._lines == {"a": 2}
    await asyncio.gather(*refusals)
    assert ends == pytest.approx([1.0, 1.0, 1.0 + TURN_SECONDS, 1.0 + 2 * TURN_SECONDS])
    assert not addresses._lines


def test_one_may_be_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("notifier.access.addresses.LONGEST_LINE", 1)
    addresses = Addresses(1)
    addresses.admit("a")
    addresses.enter("a")
    with pytest.raises(TooMany):
        addresses.enter("a")


def test_that_an_address_has_too_many_is_logged_once() -> None:
    addresses = Addresses(1)
    with capture_logs() as logs:
        for address in ("a", "a", "a", "b", "b"):
            with suppress(TooMany):
                addresses.enter(address)
    assert [line["sockets"] for line in logs] == [1]
    assert "TRUSTED_PROXIES" in logs[0]["event"]


def test_no_limit_is_none_and_one_is_to_the_socket() -> None:
    unlimited, limited = Addresses(0), Addresses(3)
    for _ in range(3):
        unlimited.enter("a")
        limited.enter("a")
    unlimited.enter("a")
    with pytest.raises(TooMany):
        limited.enter("a")
    limited.leave("a")
    limited.enter("a")
