"""The server's end of one socket of the client under test."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeAlias

from websockets.asyncio.server import ServerConnection
from websockets.exceptions import ConnectionClosed

Command: TypeAlias = dict[str, Any]

COMMAND_SECONDS = 30.0
"""How long a client may take to send what it must send."""

SUBSCRIBE_SECONDS = 120.0
"""How long a client may take for the first subscription on a socket: its code is not compiled yet."""

PONG_SECONDS = 60.0
"""How long the pong of a client may take."""

DROP_SECONDS = 10.0
"""How long a client may take to end a connection that the server has ended."""

SUBSCRIPTIONS = {"setcompany": "SetCompanyResult", "subscribe": "SubscribeResult"}
"""Commands that follow a company, in lower case, and their answers."""


class Wrong(Exception):
    """An error of the client."""


class Closed(Wrong):
    """The client closed the socket where it had to send a command."""


class Peer:
    """One socket. `on_first` is called with it when the first command arrives. `silent`: pings are not answered."""

    def __init__(
        self, socket: ServerConnection, now: Callable[[], float], on_first: Callable[[Peer], None]
    ) -> None:
        self.connected_at = now()
        self.silent = False
        self.token = ""
        self._socket = socket
        self._on_first: Callable[[Peer], None] | None = on_first
        self._commands: asyncio.Queue[Command | None] = asyncio.Queue()
        self._answer = ""

    async def read(self) -> None:
        """Receives commands until the socket ends; answers each `ping`."""
        with suppress(ConnectionClosed):
            async for text in self._socket:
                command = _read(text)
                if _kind(command) == "ping" and not self.silent:
                    await self.send({"Type": "Pong"})
                self._commands.put_nowait(command)
                if self._on_first is not None:
                    self._on_first(self)
                    self._on_first = None
        self._commands.put_nowait(None)

    async def command(self, *kinds: str, seconds: float = COMMAND_SECONDS) -> Command:
        """The next command, which must be one of these; pings are skipped unless one is expected."""
        names = " or ".join(kinds)
        try:
            async with asyncio.timeout(seconds):
                while (command := await self._commands.get()) is not None:
                    kind = _kind(command)
                    if kind in {each.lower() for each in kinds}:
                        return command
                    if kind != "ping":
                        raise Wrong(f"sent {command.get('type')} instead of {names}")
        except TimeoutError:
            raise Wrong(f"sent no {names} within {seconds:g} s") from None
        raise Closed(f"closed the socket instead of sending {names}")

    async def nothing(self, seconds: float) -> None:
        """Waits; raises Wrong if a command comes that is not `ping`. The end of the socket is fine."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while (command := await self._commands.get()) is not None:
                    if _kind(command) != "ping":
                        raise Wrong(f"sent {command.get('type')} where nothing is to be sent")

    async def authenticate(self) -> None:
        """Receives `authenticate`, and accepts any token."""
        command = await self.command("authenticate")
        token = command.get("token")
        if not isinstance(token, str) or not token:
            raise Wrong("sent authenticate without a token")
        self.token = token
        await self.send({"Type": "AuthenticationResult", "Success": True, "Data": {"UserId": "u1"}})

    async def subscription(self, company: str, seconds: float = COMMAND_SECONDS) -> Command:
        """Receives the command that follows the company; returns its data, with keys in lower case."""
        command = await self.command("setCompany", "subscribe", seconds=seconds)
        self._answer = SUBSCRIPTIONS[_kind(command)]
        given = command.get("data")
        data = {str(k).lower(): v for k, v in given.items()} if isinstance(given, dict) else {}
        if data.get("companyid") != company:
            raise Wrong(f"subscribed to {data.get('companyid')!r} instead of {company!r}")
        if (data.get("after") is None) != (data.get("epoch") is None):
            raise Wrong("sent `after` or `epoch` without the other")
        return data

    async def acknowledge(self, data: Command) -> None:
        """Answers the subscription with success."""
        await self.send({"Type": self._answer, "Success": True, "Data": data})

    async def refuse(self, company: str, code: str) -> None:
        """Answers the subscription without success."""
        error = {"Code": code, "Message": "no such company for this user"}
        answer: Command = {"Type": self._answer, "Success": False, "Error": error}
        if self._answer == "SubscribeResult":
            answer["Data"] = {"CompanyId": company}
        await self.send(answer)

    async def send(self, *messages: Command | str) -> None:
        """Sends messages. A client that has gone is noticed by its next step."""
        with suppress(ConnectionClosed):
            for message in messages:
                await self._socket.send(
                    message if isinstance(message, str) else json.dumps(message)
                )

    async def send_in_fragments(self, message: Command, pause: float) -> None:
        """Sends a message in three frames, with pauses between them (RFC 6455, section 5.4)."""
        text = json.dumps(message, ensure_ascii=False)
        third = len(text) // 3

        async def parts() -> Any:
            for part in (text[:third], text[third : 2 * third], text[2 * third :]):
                yield part
                await asyncio.sleep(pause)

        with suppress(ConnectionClosed):
            await self._socket.send(parts())

    async def close(self, code: int, *, reconnect: bool = True, wait_ms: int | None = None) -> None:
        """Sends Disconnect, and closes with the code."""
        data: Command = {"Code": code, "Reason": "of the scenario", "Reconnect": reconnect}
        if wait_ms is not None:
            data["RetryAfterMs"] = wait_ms
        await self.send({"Type": "Disconnect", "Data": data})
        await self._socket.close(code, "of the scenario")

    async def drop(self) -> None:
        """Ends the connection behind what was sent, without a close frame.

        Before that it waits for the pong of a ping behind the messages: some libraries drop what they have not passed on
        when a connection ends. Then it ends in one direction first: a command that arrives after a close in both would
        be answered with a reset, and the client would lose what it has not read yet.
        """
        with suppress(ConnectionClosed, TimeoutError):
            async with asyncio.timeout(PONG_SECONDS):
                await (await self._socket.ping())
        self.silent = True
        transport = self._socket.transport
        transport.write_eof()
        asyncio.get_running_loop().call_later(DROP_SECONDS, transport.close)

    def freeze(self) -> None:
        """Reads and answers nothing more, not even pings; the connection stays."""
        self.silent = True
        self._socket.transport.pause_reading()


def _read(text: str | bytes) -> Command:
    try:
        command = json.loads(text)
    except ValueError:
        command = None
    if not isinstance(command, dict) or isinstance(text, bytes):
        return {"type": f"{text[:40]!r}, which is no text frame with a JSON object,"}
    return {str(key).lower(): value for key, value in command.items()}


def _kind(command: Command) -> str:
    return str(command.get("type")).lower()
