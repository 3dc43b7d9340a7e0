"""Clients that connect, leave, resume, and check every message that they receive."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import httpx
import msgspec
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake

from tests.chaos.history import History
from tests.chaos.ledger import State, apply
from tests.services import Service, token

NEVER = frozenset({1002, 1003, 1007, 1009, 1011, 4400, 4401, 4403, 4409, 4419, 4429, 4500, 4508})
"""Close codes that no fault of a chaos run excuses."""


class Canon:
    """Each message of each company, as the first client received it."""

    def __init__(self, history: History) -> None:
        self.texts: dict[tuple[str, str, int], str] = {}
        self._history = history

    def record(self, company: str, epoch: str, position: int, text: str) -> None:
        """Checks that every client receives the same bytes at the same position."""
        known = self.texts.setdefault((company, epoch, position), text)
        if known != text:
            self._history.violated("two texts at one position", one=known, other=text)


class Follower:
    """A client of one company. Its visits are short until `stay` is called.

    `forgetful`: sometimes it drops its state and reads it again. `guest`: it may be
    refused at times. `snapshot` reads the company's state.
    """

    def __init__(
        self,
        name: str,
        user: str,
        company: str,
        nodes: Sequence[Service],
        canon: Canon,
        history: History,
        snapshot: Callable[[str], Awaitable[State]],
        *,
        forgetful: bool = False,
        guest: bool = False,
    ) -> None:
        self.name = name
        self.company = company
        self.epochs: set[str] = set()
        self.position: int | None = None if forgetful else 0
        self.first = 0
        self.state: State = {}
        self.resumed = 0
        self._user = user
        self._nodes = nodes
        self._canon = canon
        self._history = history
        self._snapshot = snapshot
        self._forgetful = forgetful
        self._guest = guest
        self._random = random.Random(f"{history.seed} {name}")
        self._epoch: str | None = None
        self._at: str | None = None
        self._staying = False
        self._visiting: asyncio.Timeout | None = None

    def begin(self, epoch: str, name: str) -> None:
        """Follows the company, which has this name, from the first message on."""
        self._epoch = epoch
        self.state = {("Company", self.company): name}

    def stay(self) -> None:
        """From now on it leaves only when it is disconnected."""
        self._staying = True
        if self._visiting is not None and not self._visiting.expired():  # or it leaves once more
            self._visiting.reschedule(None)

    async def run(self) -> None:
        """Reconnects until it may not."""
        while True:
            node = self._random.choice(self._nodes)
            try:
                async with asyncio.timeout(30) as visiting:
                    try:
                        await self._visit(node, visiting)
                    finally:
                        self._visiting = None
            except ConnectionClosed as closed:
                code = closed.rcvd.code if closed.rcvd is not None else 1006
                self._history.note("closed", who=self.name, node=node.port, code=code)
                if code in NEVER:
                    self._violated("closed with a code that no fault explains", code=code)
            except TimeoutError:
                self._history.note("left", who=self.name, node=node.port)
            except (OSError, InvalidHandshake, httpx.TransportError) as error:
                self._history.note("no way", who=self.name, node=node.port, why=repr(error))
            await asyncio.sleep(self._random.uniform(0.01, 0.3))

    async def _visit(self, node: Service, visiting: asyncio.Timeout) -> None:
        """Connects, subscribes and receives until the connection ends or `visiting` expires."""
        socket = await connect(
            node.url,
            compression=None,
            max_size=None,
            proxy=None,
            open_timeout=3,
            close_timeout=1,
        )
        try:
            await self._converse(socket, node, visiting)
        finally:
            if self._random.random() < 0.5:
                socket.transport.abort()
            await socket.close()

    async def _converse(
        self, socket: ClientConnection, node: Service, visiting: asyncio.Timeout
    ) -> None:
        await socket.send(json.dumps({"type": "authenticate", "token": token(self._user)}))
        answer = msgspec.json.decode(await socket.recv())
        if answer["Type"] == "Disconnect":
            return
        if answer["Type"] != "AuthenticationResult" or not answer["Success"]:
            self._violated("not authenticated", answer=answer)
            return
        if not await self._enter(socket, node):
            return
        self._bound(visiting)
        while self._receive(str(await socket.recv())):
            pass
        await self._nothing_more(socket)

    def _bound(self, visiting: asyncio.Timeout) -> None:
        """Decides how long a visit that was accepted lasts."""
        if self._staying:
            visiting.reschedule(None)
            return
        life = self._random.choice((0.05, 0.5, 2, 5)) * self._random.random()
        visiting.reschedule(asyncio.get_running_loop().time() + life)
        self._visiting = visiting

    async def _nothing_more(self, socket: ClientConnection) -> None:
        """Checks that no message of a revoked company arrives."""
        try:
            async with asyncio.timeout(0.2):
                while True:
                    text = str(await socket.recv())
                    if "Position" in msgspec.json.decode(text):
                        self._violated("received a message of a foreign company", text=text)
        except TimeoutError:
            return

    async def _enter(self, socket: ClientConnection, node: Service) -> bool:
        """Subscribes to the company; whether it was accepted."""
        data = {"companyId": self.company, **self._place(node)}
        await socket.send(json.dumps({"type": "setCompany", "data": data}))
        answer = msgspec.json.decode(await socket.recv())
        if answer["Type"] == "Disconnect":
            return False
        if answer["Type"] != "SetCompanyResult":
            self._violated("something before the acknowledgement", answer=answer)
            return False
        if not answer["Success"]:
            code = answer["Error"]["Code"]
            if code != "unavailable" and not self._guest:
                self._violated("refused", answer=answer)
            return False
        return await self._accept(answer["Data"], node)

    def _place(self, node: Service) -> dict[str, Any]:
        """Where it is, if it has not dropped its state."""
        if self._forgetful and self._random.random() < 0.3:
            self.position = None
        place: dict[str, Any] = {}
        if self.position is not None:
            place = {"after": self.position, "epoch": self._epoch}
        self._history.note("subscribes", who=self.name, node=node.port, **place)
        return place

    async def _accept(self, result: Mapping[str, Any], node: Service) -> bool:
        """Checks an acknowledgement; whether the visit goes on."""
        self._history.note("joined", who=self.name, node=node.port, at_position=result["Position"])
        self.epochs.add(result["Epoch"])
        if self.position is None:
            self._epoch, self.position = result["Epoch"], result["Position"]
            self._at = result.get("At")
            self.first = result["Position"] + 1
            try:
                self.state = await self._snapshot(self.company)
            except OSError:
                self.position = None
                return False
        elif result.get("Recovered") is not True:
            self._violated("not recovered", at=self.position, answer=result)
            self.position = None
            return False
        elif (result["Position"], result["Epoch"]) != (self.position, self._epoch):
            self._violated("acknowledged another position", at=self.position, answer=result)
        else:
            self.resumed += 1
        return True

    def _receive(self, text: str) -> bool:
        """Takes a message; whether the visit goes on."""
        message = msgspec.json.decode(text)
        if message["Type"] == "Disconnect":
            return True  # its close follows
        if message["Type"] == "CompanyRevoked":
            if not self._guest:
                self._violated("revoked", message=message)
            return False
        if message["Type"] == "Resync" or "Position" not in message:
            self._violated("unexpected", message=message)
            return False
        assert self.position is not None
        assert self._epoch is not None
        if message["Data"]["CompanyId"] != self.company:
            self._violated("another company's message", message=message)
        if message["Position"] != self.position + 1:
            self._violated("a hole, or a double", at=self.position, message=message)
        self.position, self._at = message["Position"], message["At"]
        self._canon.record(self.company, self._epoch, message["Position"], text)
        apply(self.state, message)
        return True

    def _violated(self, what: str, **details: Any) -> None:
        self._history.violated(f"{self.name}: {what}", **details)
