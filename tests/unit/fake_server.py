"""The server's end of a Python client's sockets, and a client whose reports are collected."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from websockets.exceptions import ConnectionClosedError

from notifier.client import (
    CompanyState,
    Message,
    Pace,
    Position,
    Recovered,
    Report,
    Resync,
    Skipped,
    Status,
)
from notifier.client.client import Client

EPOCH = "e1"
TEN = Position(10, EPOCH)


class Peer:
    """The server's end of one socket, and at the same time the socket that the client has."""

    def __init__(self) -> None:
        self.received: list[Any] = []
        self.closed = False
        self.close_code: int | None = None
        self.close_reason: str | None = None
        self._frames: asyncio.Queue[str | None] = asyncio.Queue()

    # --- the client's end

    @property
    def transport(self) -> Any:
        return self

    async def send(self, message: str) -> None:
        self.received.append(json.loads(message))

    async def recv(self) -> str:
        frame = await self._frames.get()
        if frame is None or self.closed:
            self.closed = True
            raise ConnectionClosedError(None, None)
        return frame

    async def close(self) -> None:
        self.abort()

    def abort(self) -> None:
        self.closed = True
        self._frames.put_nowait(None)

    # --- the server's end

    @property
    def last(self) -> Any:
        """The last message that the client sent."""
        return self.received[-1]

    async def send_messages(self, *messages: Any) -> None:
        """Sends messages to the client; a string is sent as it is."""
        for message in messages:
            self._frames.put_nowait(message if isinstance(message, str) else json.dumps(message))
        await settle()

    async def close_with(self, code: int, reason: str = "") -> None:
        self.close_code, self.close_reason = code, reason
        self._frames.put_nowait(None)
        await settle()

    async def acknowledge(
        self,
        position: int = 10,
        epoch: str = EPOCH,
        recovered: bool | None = None,
        at: str | None = None,
    ) -> None:
        """Answers both commands, from the handshake to the acknowledgement."""
        await settle()
        await self.send_messages(authenticated())
        company = self.last["data"]["companyId"]
        await self.send_messages(subscribed(company, position, epoch, recovered, at))


async def settle() -> None:
    """Lets everything happen that is due now."""
    for _ in range(20):
        await asyncio.sleep(0)


async def till(moment: float) -> None:
    """Lets time pass up to a moment of the loop's clock."""
    await asyncio.sleep(max(0.0, moment - now()))
    await settle()


def now() -> float:
    return asyncio.get_running_loop().time()


def authenticated() -> Any:
    return {"Type": "AuthenticationResult", "Success": True, "Data": {"UserId": "u1"}}


def subscribed(
    company: str,
    position: Any,
    epoch: Any = EPOCH,
    recovered: bool | None = None,
    at: str | None = None,
) -> Any:
    data = {"CompanyId": company, "Position": position, "Epoch": epoch}
    if at is not None:
        data["At"] = at
    if recovered is not None:
        data["Recovered"] = recovered
    return {"Type": "SetCompanyResult", "Success": True, "Data": data}


def answered(company: str, position: int, recovered: bool | None = None) -> Any:
    """The answer to `subscribe`."""
    return subscribed(company, position, recovered=recovered) | {"Type": "SubscribeResult"}


def rejected(company: str, code: str) -> Any:
    """A refusal of `subscribe`."""
    return refused(code) | {"Type": "SubscribeResult", "Data": {"CompanyId": company}}


def refused(code: str = "company_forbidden") -> Any:
    error = {"Code": code, "Message": "No."}
    return {"Type": "SetCompanyResult", "Success": False, "Error": error}


def change(position: Any, **data: Any) -> Any:
    return {
        "Type": "EventUpdated",
        "Data": {"EventId": "1", "CompanyId": "a", **data},
        "Position": position,
    }


def resync(position: int, reason: str = "bulk", epoch: str = EPOCH) -> Any:
    data = {"CompanyId": "a", "Reason": reason, "Epoch": epoch}
    return {"Type": "Resync", "Data": data, "Position": position}


def disconnect(code: int, reconnect: bool = True, wait: int | None = None) -> Any:
    data: dict[str, Any] = {"Code": code, "Reason": "for a reason", "Reconnect": reconnect}
    if wait is not None:
        data["RetryAfterMs"] = wait
    return {"Type": "Disconnect", "Data": data}


def summary(report: Report) -> tuple[Any, ...]:
    match report:
        case Message():
            return ("message", report.position)
        case Recovered():
            return ("recovered", report.position)
        case Resync():
            return ("resync", report.reason, report.position)
        case CompanyState():
            return ("state", report.reason, report.position)
        case Skipped():
            return ("skipped", report.position)
        case Status():
            return ("status", report.state)


class World:
    """A client, the sockets that it opened, and its reports."""

    def __init__(self, **options: Any) -> None:
        self.peers: list[Peer] = []
        self.tokens_fetched = 0
        self.reports: list[Report] = []
        self._token: Callable[[int], Any] = options.pop("token", lambda time: f"token-{time}")
        self._unreachable: Exception | None = options.pop("unreachable", None)
        jitter = options.pop("jitter", 0.5)
        self.client = Client(
            "ws://notifier.test/",
            self._next_token,
            options.pop("company", "a"),
            options.pop("position", None),
            chosen=options.pop("chosen", None),
            pace=Pace(jitter=lambda: jitter),
            open_socket=self._open,
            state=options.pop("state", False),
            snapshot=options.pop("snapshot", None),
        )
        assert not options

    def _next_token(self) -> Any:
        self.tokens_fetched += 1
        return self._token(self.tokens_fetched)

    async def _open(self, _: str) -> Peer:
        self.peers.append(Peer())
        if self._unreachable is not None:
            raise self._unreachable
        return self.peers[-1]

    @property
    def peer(self) -> Peer:
        """The latest socket."""
        return self.peers[-1]

    @property
    def state(self) -> str:
        return self.client.status.state

    def new_reports(self) -> list[tuple[Any, ...]]:
        """The reports since the last call, without statuses."""
        new = [summary(report) for report in self.reports if not isinstance(report, Status)]
        self.reports.clear()
        return new

    async def reconnected(self) -> float:
        """Lets the delay before the next attempt pass, and returns it in seconds."""
        assert self.state == "waiting"
        begun, count = now(), len(self.peers)
        assert self.client.status.retry_in is not None
        await till(begun + self.client.status.retry_in)
        assert len(self.peers) == count + 1
        return round(now() - begun, 6)


@asynccontextmanager
async def follow(**options: Any) -> AsyncIterator[World]:
    """A running client whose reports are taken at once."""
    world = World(**options)
    async with world.client:
        taking = asyncio.create_task(_take_reports(world))
        await settle()
        yield world
    await taking


async def _take_reports(world: World) -> None:
    async for report in world.client:
        world.reports.append(report)
