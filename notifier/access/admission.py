"""Limits on connections: of the whole node, by user and by address; and on rejected requests."""

from __future__ import annotations

import asyncio
from ipaddress import IPv6Address, ip_address
from typing import Generic, Protocol, TypeVar

import structlog

from notifier import metrics
from notifier.errors import Restart, TooMany

QUEUE_STEP_SECONDS = 0.01
"""Each rejection of a source that is still waiting for its answer delays the next one this much."""

QUEUE_LIMIT = 500
"""Rejections of one source that may wait. At this length its requests are not checked at all."""

REPORTED_LIMIT = 100
"""How many addresses that have reached their limit are logged, once each."""

_DIRECT = "if it is a proxy's, add it to TRUSTED_PROXIES, else raise the limit"
_BEHIND_PROXIES = (
    "raise the limit if many clients share the address;"
    " if it is another proxy's, add it to TRUSTED_PROXIES as well"
)

_log = structlog.get_logger("notifier.admission")


class Admitted(Protocol):
    """A connection that is counted. `user` is empty until it has authenticated."""

    @property
    def address(self) -> str:
        """The address group of its peer (`address_group`); empty where it is not known."""

    @property
    def user(self) -> str:
        """The user, once `identify` has counted it."""


Connection = TypeVar("Connection", bound=Admitted)


class Admission(Generic[Connection]):
    """The open connections of a node, and how many more it takes.

    Counters exist only for users and addresses that have a connection or a waiting answer now, so
    their number is bounded. `per_address` 0 means no limit; an unknown address is not counted.
    `proxies`: addresses are those that trusted proxies name.
    """

    def __init__(
        self, connections: int, per_user: int, per_address: int = 0, *, proxies: bool = False
    ) -> None:
        self._limit = connections
        self._user_limit = per_user
        self._address_limit = per_address
        self._users: dict[str, int] = {}
        self._addresses: dict[str, int] = {}
        self._rejections: dict[str, int] = {}
        self._remedy = _BEHIND_PROXIES if proxies else _DIRECT
        self._reported: set[str] = set()
        self.connections: set[Connection] = set()
        self.closed = False

    def enter(self, connection: Connection) -> None:
        """Counts a new connection. Raises TooMany, or Restart while the node is shutting down."""
        if self.closed:
            raise Restart
        if len(self.connections) >= self._limit:
            raise TooMany
        self._check_address(connection.address)
        _add(self._addresses, connection.address, 1)
        self.connections.add(connection)
        metrics.SOCKETS.set(len(self.connections))

    def identify(self, user: str) -> None:
        """Counts a connection for its user, who is known from now on. Raises TooMany."""
        if self._users.get(user, 0) >= self._user_limit:
            raise TooMany
        _add(self._users, user, 1)

    def leave(self, connection: Connection) -> None:
        """Stops counting a connection that `enter` has counted."""
        self.connections.discard(connection)
        _add(self._addresses, connection.address, -1)
        _add(self._users, connection.user, -1)
        metrics.SOCKETS.set(len(self.connections))

    def check_rejections(self, source: str) -> None:
        """Call before a token or a company is checked. Raises TooMany if too many rejections wait.

        `source` is the address of a token, or the user who requests a company.
        """
        if self._rejections.get(source, 0) >= QUEUE_LIMIT:
            raise TooMany

    async def delay_rejection(self, source: str, seconds: float) -> None:
        """Waits before a rejection is answered: `seconds`, and longer behind those of the same source."""
        wait = seconds + self._rejections.get(source, 0) * QUEUE_STEP_SECONDS
        _add(self._rejections, source, 1)
        try:
            await asyncio.sleep(wait)
        finally:
            _add(self._rejections, source, -1)

    def _check_address(self, address: str) -> None:
        if not self._address_limit or self._addresses.get(address, 0) < self._address_limit:
            return
        if address not in self._reported and len(self._reported) < REPORTED_LIMIT:
            self._reported.add(address)
            _log.warning(
                f"an address has as many sockets as MAX_CONNECTIONS_PER_ADDRESS allows; {self._remedy}",
                address=address,
                sockets=self._address_limit,
            )
        raise TooMany


def address_group(host: str) -> str:
    """The addresses that are counted together: one of IPv4, a /64 of IPv6 (one customer's)."""
    try:
        address = ip_address(host)
    except ValueError:
        return host
    if not isinstance(address, IPv6Address):
        return host
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(IPv6Address(int(address) >> 64 << 64))


def _add(counts: dict[str, int], key: str, change: int) -> None:
    """Changes a counter and drops it at zero; the empty key is not counted."""
    if not key:
        return
    counts[key] = counts.get(key, 0) + change
    if not counts[key]:
        del counts[key]
