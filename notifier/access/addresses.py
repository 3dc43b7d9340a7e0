"""What one peer's address may take of a node: sockets, and refusals of tokens."""

from __future__ import annotations

import asyncio
from ipaddress import IPv6Address, ip_address

import structlog

from notifier.errors import TooMany

TURN_SECONDS = 0.01
"""How much longer a refusal takes for each other one of the address that is waiting."""

LONGEST_LINE = 500
"""How many may wait. While so many do, no token of the address is looked at."""

_log = structlog.get_logger("notifier.addresses")


class Addresses:
    """Counts by address: as many as have a socket or a refusal now, so it is bounded by them.

    `limit`: sockets of one address; 0: any number. An address that is not known is not counted.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._sockets: dict[str, int] = {}
        self._lines: dict[str, int] = {}
        self._said = False

    def enter(self, address: str) -> None:
        """A socket was opened. Raises TooMany."""
        if self._limit and address and self._sockets.get(address, 0) >= self._limit:
            if not self._said:
                self._said = True
                _log.warning(
                    "an address has as many sockets as it may; if it is a proxy's, name it in"
                    " TRUSTED_PROXIES, or set MAX_CONNECTIONS_PER_ADDRESS",
                    sockets=self._limit,
                )
            raise TooMany
        _count(self._sockets, address, 1)

    def leave(self, address: str) -> None:
        """The socket is gone."""
        _count(self._sockets, address, -1)

    def admit(self, address: str) -> None:
        """Somebody who is not known yet shows a token. Raises TooMany where too many were bad."""
        if self._lines.get(address, 0) >= LONGEST_LINE:
            raise TooMany

    async def refuse(self, address: str, seconds: float) -> None:
        """Lets a bad token's answer wait: so long, and its turn behind the others of the address."""
        wait = seconds + self._lines.get(address, 0) * TURN_SECONDS
        _count(self._lines, address, 1)
        try:
            await asyncio.sleep(wait)
        finally:
            _count(self._lines, address, -1)


def counted(host: str) -> str:
    """The address that a peer is counted by: of IPv6 the /64, which is one customer's."""
    try:
        address = ip_address(host)
    except ValueError:
        return host
    if not isinstance(address, IPv6Address):
        return host
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(IPv6Address(int(address) >> 64 << 64))


def _count(counts: dict[str, int], address: str, change: int) -> None:
    if not address:
        return
    counts[address] = counts.get(address, 0) + change
    if not counts[address]:
        del counts[address]
