"""Very many clients at little cost: each remembers which positions it received, and nothing else."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias, cast

from tests.service.raw import CLOSE, PING, PONG, TEXT, frame, handshake
from tests.services import Service, token
from tests.waiting import DEADLINE_SECONDS

AT_ONCE = 200
"""How many connect at the same time: more only wait for one another."""

POSITION = b'"Position":'


class Link(asyncio.Protocol):
    """One connection of a member's, from its handshake to its end."""

    def __init__(self, member: Member) -> None:
        self._member = member
        self._unread = bytearray()
        self._transport: asyncio.Transport | None = None
        loop = asyncio.get_running_loop()
        self.joined: asyncio.Future[dict[str, Any]] = loop.create_future()
        self.ended: asyncio.Future[None] = loop.create_future()
        self.code: int | None = None
        self.farewell: dict[str, Any] = {}

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._transport.write(handshake())

    def data_received(self, data: bytes) -> None:
        self._unread += data
        if self._unread.startswith(b"HTTP"):
            end = self._unread.find(b"\r\n\r\n")
            if end < 0:
                return
            assert self._unread.startswith(b"HTTP/1.1 101 "), bytes(self._unread[:end])
            del self._unread[: end + 4]
            self._subscribe()
        while len(self._unread) >= 2:
            size, start = self._unread[1], 2
            if size >= 126:
                start = 4 if size == 126 else 10
                size = int.from_bytes(self._unread[2:start])
            if len(self._unread) < start + size:
                return
            opcode, payload = self._unread[0] & 0x0F, bytes(self._unread[start : start + size])
            del self._unread[: start + size]
            self._take(opcode, payload)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.joined.done():
            self.joined.set_exception(ConnectionError("it ended before the acknowledgement"))
            self.joined.exception()  # tasks that wait for it still receive it
        self.ended.set_result(None)

    def drop(self, *, reset: bool = False) -> None:
        """Ends it without a word, or with a reset."""
        if self._transport is not None:
            own: socket.socket = self._transport.get_extra_info("socket")
            if reset and own.fileno() >= 0:
                own.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self._transport.abort()

    def _subscribe(self) -> None:
        requests = [{"type": "authenticate", "token": self._member.token}, self._member.request()]
        if self._transport is not None:
            self._transport.write(
                b"".join(frame(TEXT, json.dumps(each).encode()) for each in requests)
            )

    def _take(self, opcode: int, payload: bytes) -> None:
        if opcode == PING and self._transport is not None:
            self._transport.write(frame(PONG, payload))
        elif opcode == CLOSE:
            self.code = int.from_bytes(payload[:2])
            if self._transport is not None:
                self._transport.write(frame(CLOSE, payload))
                self._transport.close()
        elif opcode == TEXT:
            at = payload.rfind(POSITION)
            if payload.startswith(b'{"Type":"SetCompanyResult"'):
                self.joined.set_result(json.loads(payload))
            elif payload.startswith(b'{"Type":"Disconnect"'):
                self.farewell = json.loads(payload)["Data"]
            elif at >= 0:
                rest = payload[at + len(POSITION) : at + len(POSITION) + 20]
                self._member.receive(int(rest.split(b",")[0].rstrip(b"}")))


class Member:
    """A client that follows a company; from visit to visit it resumes where it was."""

    def __init__(self, user: str, company: str) -> None:
        self.token = token(user)
        self.positions: list[int] = []
        self.recovered: list[bool] = []
        self._company = company
        self._epoch: str | None = None
        self._at: int | None = None
        self.link: Link | None = None

    def request(self) -> dict[str, Any]:
        """What it asks for."""
        data: dict[str, Any] = {"companyId": self._company}
        if self._epoch is not None:
            data |= {"after": self._at, "epoch": self._epoch}
        return {"type": "setCompany", "data": data}

    def receive(self, position: int) -> None:
        self.positions.append(position)
        self._at = position

    async def visit(self, service: Service) -> Link:
        """A connection whose company is acknowledged. Raises OSError where there is none."""
        _, self.link = await asyncio.get_running_loop().create_connection(
            lambda: Link(self), "127.0.0.1", service.port
        )
        async with asyncio.timeout(3 * DEADLINE_SECONDS):
            answer = await self.link.joined
        assert answer["Success"], answer
        if self._epoch is None:
            self._at = answer["Data"]["Position"]
        else:
            self.recovered.append(answer["Data"]["Recovered"])
        self._epoch = answer["Data"]["Epoch"]
        return self.link

    async def insist(self, service: Service) -> Link:
        """The same, until it succeeds: a busy machine may drop a SYN, or write a handshake after its deadline."""
        while True:
            try:
                return await self.visit(service)
            except ConnectionError:
                continue
            except TimeoutError as error:
                if error.errno is None:  # not the kernel's ETIMEDOUT
                    raise

    def drop(self, *, reset: bool = False) -> None:
        """Is gone, if it was here."""
        if self.link is not None:
            self.link.drop(reset=reset)


Crowd: TypeAlias = Callable[[int, str, str], list[Member]]
"""Makes so many members for a user and a company."""


async def visit_all(members: Sequence[Member], service: Service) -> None:
    """All of them follow."""
    for start in range(0, len(members), AT_ONCE):
        await asyncio.gather(*(each.visit(service) for each in members[start : start + AT_ONCE]))
