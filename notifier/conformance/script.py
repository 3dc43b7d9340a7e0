"""The tools of a scenario: the client's sockets, and what the client must print."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Literal, TypeAlias

from websockets.asyncio.server import ServerConnection

from notifier.conformance.peer import SUBSCRIBE_SECONDS, Closed, Command, Peer, Wrong

Line: TypeAlias = int | Literal["resync"]
"""What a client reports: a message's position, or that it reads its state again."""

CONNECT_SECONDS = 120.0
"""How long a client may take to connect, with the waits between its attempts."""

ATTEMPTS = 3
"""How many sockets in succession a client may close before it has subscribed."""

ABSENT_SECONDS = 8.0
"""How long a client that must not return is waited for."""

FIRST = 10
"""The position of the first acknowledgement."""


class Script:
    """One run of a scenario. `expected`: the reports that the client must make, in order. `first`: it has begun."""

    def __init__(self, company: str) -> None:
        self.company = company
        self.epoch = "e1"
        self.expected: list[Line] = []
        self.first = asyncio.Event()
        self._peers: asyncio.Queue[Peer | None] = asyncio.Queue()

    async def accept(self, socket: ServerConnection) -> None:
        """Serves one socket of the client until it ends."""
        peer = Peer(socket, asyncio.get_running_loop().time, self._begin)
        await peer.read()

    def _begin(self, peer: Peer) -> None:
        self._peers.put_nowait(peer)
        self.first.set()

    def client_has_ended(self) -> None:
        """No other socket will come."""
        self._peers.put_nowait(None)

    async def connection(self) -> Peer:
        """The client's next socket; one that it has closed without a command was a failed attempt to connect."""
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                peer = await self._peers.get()
        except TimeoutError:
            raise Wrong(
                f"did not connect and send a command within {CONNECT_SECONDS:g} s"
            ) from None
        if peer is None:
            raise Wrong("ended instead of connecting")
        return peer

    async def enter(self) -> Peer:
        """Lets the client in, which has no position yet."""
        peer = await self.subscriber(None)
        await self.acknowledge(peer, FIRST)
        return peer

    async def resumed(self, after: int, *, recovered: bool = True) -> Peer:
        """Lets the client in again, which must resume behind this position."""
        peer = await self.subscriber(after)
        if recovered:
            await self.acknowledge(peer, after, recovered=True)
        return peer

    async def subscriber(self, after: int | None) -> Peer:
        """The client's next socket on which it has authenticated and subscribed with this position.

        Before its subscription a client may close a socket and return: it has a deadline of its own for each answer,
        which passes on a busy machine. One that closes ATTEMPTS of them is wrong.
        """
        for attempt in range(1, ATTEMPTS + 1):
            peer = await self.connection()
            try:
                await peer.authenticate()
                self._check(await peer.subscription(self.company, SUBSCRIBE_SECONDS), after)
            except Closed:
                if attempt == ATTEMPTS:
                    raise
            else:
                return peer
        raise AssertionError("unreachable: the last attempt returns or raises")

    async def subscribed(self, peer: Peer, *after: int | None) -> Command:
        """Receives another subscription on a socket, with one of these positions; returns its data."""
        data = await peer.subscription(self.company)
        self._check(data, *after)
        return data

    def _check(self, data: Command, *after: int | None) -> None:
        """Raises Wrong unless a subscription has one of these positions, this epoch and no wrong `at`."""
        got = data.get("after")
        if got not in after or isinstance(got, bool):
            wanted = " or ".join("none" if each is None else str(each) for each in after)
            raise Wrong(f"resumed after {'none' if got is None else got} instead of {wanted}")
        if got is not None:
            if data.get("epoch") != self.epoch:
                raise Wrong(f"resumed in epoch {data.get('epoch')!r} instead of {self.epoch!r}")
            if data.get("at") not in (None, at(got)):
                raise Wrong(f"resumed with at {data['at']!r} instead of {at(got)!r}")

    async def acknowledge(
        self, peer: Peer, position: int, *, recovered: bool | None = None
    ) -> None:
        """Answers a subscription; where nothing was recovered the client reads its state."""
        data: Command = {
            "CompanyId": self.company,
            "Position": position,
            "Epoch": self.epoch,
            "At": at(position),
        }
        if recovered is not None:
            data["Recovered"] = recovered
        if not recovered:
            self.expected.append("resync")
        await peer.acknowledge(data)

    async def changes(self, peer: Peer, *positions: int, accepted: bool = True) -> None:
        """Sends changes; `accepted`: the client has to report them."""
        for position in positions:
            await peer.send(self.change(position))
        if accepted:
            self.expected += positions

    def change(self, position: int, title: str = "Stand-up") -> Command:
        """A change at a position."""
        return {
            "Type": "EventCreated",
            "Data": {"EventId": f"event-{position}", "CompanyId": self.company, "Title": title},
            "Position": position,
            "At": at(position),
            "Tx": str(1000 + position),
        }

    async def skipped(self, peer: Peer, position: int) -> None:
        """Sends a Skipped, of which the client reports nothing."""
        data = {"CompanyId": self.company}
        await peer.send({"Type": "Skipped", "Data": data, "Position": position, "At": at(position)})

    async def resync(self, peer: Peer, position: int, reason: str) -> None:
        """Sends a Resync."""
        data = {"CompanyId": self.company, "Reason": reason, "Epoch": self.epoch}
        await peer.send({"Type": "Resync", "Data": data, "Position": position, "At": at(position)})
        self.expected.append("resync")

    async def absent(self, token: str | None = None) -> None:
        """Waits; the client must not return, or, with `token`, not with this one."""
        try:
            async with asyncio.timeout(ABSENT_SECONDS):
                peer = await self._peers.get()
        except TimeoutError:
            return
        if peer is None:
            return
        if token is None:
            raise Wrong("connected again")
        await peer.authenticate()
        if peer.token == token:
            raise Wrong("presented the same token again")


def at(position: int) -> str:
    """The time of the message at a position."""
    moment = datetime(2026, 11, 22, 18, tzinfo=UTC) + timedelta(seconds=position, microseconds=7)
    return moment.isoformat(timespec="microseconds")
