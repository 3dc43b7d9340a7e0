"""What a server sends to a client of a chaos run, checked before the client reads it: no hole, no double, nothing after the end."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import Any
from weakref import WeakKeyDictionary

import msgspec
import pytest
from websockets.asyncio.client import ClientConnection

from notifier.client.http_socket import HttpSocket
from tests.chaos.history import History

NEVER = frozenset({1002, 1003, 1007, 1009, 1011, 4400, 4401, 4403, 4409, 4419, 4429, 4500, 4508})
"""Close codes that no fault of a chaos run excuses."""

WIRE: ContextVar[Wire | None] = ContextVar("wire", default=None)
"""That of the client whose tasks run in this context."""


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


class Connected:
    """One connection. `position` is None before the acknowledgement, and after access has ended."""

    def __init__(self) -> None:
        self.epoch = ""
        self.position: int | None = None


class Wire:
    """The connections of one client, which follows one company. `guest`: it may be refused at times."""

    def __init__(
        self, name: str, company: str, canon: Canon, history: History, *, guest: bool
    ) -> None:
        self._name = name
        self._company = company
        self._canon = canon
        self._history = history
        self._guest = guest
        self._connections = WeakKeyDictionary[object, Connected]()

    def received(self, socket: object, text: str) -> None:
        """Checks a message."""
        there = self._connections.setdefault(socket, Connected())
        message = msgspec.json.decode(text)
        match message["Type"]:
            case "AuthenticationResult" | "SetCompanyResult" | "SubscribeResult" if not message[
                "Success"
            ]:
                self._refused(message)
            case "SetCompanyResult" | "SubscribeResult":
                there.epoch, there.position = message["Data"]["Epoch"], message["Data"]["Position"]
            case "Disconnect":
                if message["Data"]["Code"] in NEVER:
                    self._violated("ended with a code that no fault explains", message=message)
            case "CompanyRevoked":
                there.position = None
                if not self._guest:
                    self._violated("revoked", message=message)
            case "UnsubscribeResult" if self._guest:  # it leaves when a repeated request is refused
                there.position = None
            case "AuthenticationResult" | "Pong" | "State" | "StateEnd":
                pass
            case kind if kind == "Resync" or "Position" not in message:
                self._violated("unexpected", message=message)
            case _:
                self._changed(there, message, text)

    def _changed(self, there: Connected, message: dict[str, Any], text: str) -> None:
        position = message["Position"]
        if message["Data"]["CompanyId"] != self._company or there.position is None:
            self._violated("a message that it may not see", message=message)
        elif position != there.position + 1:
            self._violated("a hole, or a double", at=there.position, message=message)
        there.position = position
        self._canon.record(self._company, there.epoch, position, text)

    def _refused(self, message: dict[str, Any]) -> None:
        code = message["Error"]["Code"]
        if code != "unavailable" and not (self._guest and code == "company_forbidden"):
            self._violated("refused", message=message)

    def _violated(self, what: str, **details: Any) -> None:
        self._history.violated(f"{self._name}: {what}", **details)


def watch(monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on each message passes the `WIRE` of its client, over whatever transport."""
    for kind in (ClientConnection, HttpSocket):
        monkeypatch.setattr(kind, "recv", _watched(kind.recv))


def _watched(recv: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    async def watched(socket: object, *arguments: Any) -> Any:
        text = await recv(socket, *arguments)
        if (wire := WIRE.get()) is not None:
            wire.received(socket, str(text))
        return text

    return watched
