"""A WebSocket client that keeps all it received and waits with a deadline."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeAlias

from websockets.asyncio.client import ClientConnection
from websockets.asyncio.client import connect as open_socket
from websockets.exceptions import ConnectionClosed

from tests.conformance import conforms
from tests.services import token
from tests.waiting import DEADLINE_SECONDS

Message: TypeAlias = dict[str, Any]


class Client:
    """One socket. `messages` has everything received; `position` and `epoch` are those of the last
    acknowledgement or message.
    """

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket
        self.messages: list[Message] = []
        self.position: int | None = None
        self.epoch: str | None = None
        self._taken = 0
        self._arrived = asyncio.Event()
        self._reading = asyncio.create_task(self._read())

    async def send(self, message: Message | str | bytes) -> None:
        """Sends a message, or any text or binary frame."""
        await self.socket.send(json.dumps(message) if isinstance(message, dict) else message)

    async def authenticate(self, user: str | None = None, **claims: Any) -> Message:
        """Authenticates `user`, or with `token=`; returns the answer."""
        given = claims.pop("token", None)
        if given is None:
            assert user is not None, "neither a user nor a token"
            given = token(user, **claims)
        await self.send({"type": "authenticate", "token": given})
        return await self.next("AuthenticationResult")

    async def set_company(
        self,
        company: str,
        after: int | None = None,
        epoch: str | None = None,
        at: str | None = None,
    ) -> Message:
        """Sends setCompany; returns the answer. Messages before it are kept in `messages`."""
        data: Message = {"companyId": company}
        if after is not None:
            data["after"] = after
        if epoch is not None:
            data["epoch"] = epoch
        if at is not None:
            data["at"] = at
        await self.send({"type": "setCompany", "data": data})
        return await self.next("SetCompanyResult")

    async def expect(self, kind: str) -> Message:
        """Returns the next message, which must be of this type."""
        message = await self._next()
        assert message["Type"] == kind, f"expected {kind}: {message}"
        return message

    async def next(self, kind: str) -> Message:
        """Returns the next message of this type, skipping others."""
        while True:
            message = await self._next()
            if message["Type"] == kind:
                return message

    async def received(self, enough: Callable[[list[Message]], bool]) -> list[Message]:
        """Waits until `enough` accepts the list of all messages, and returns it."""
        async with asyncio.timeout(DEADLINE_SECONDS):
            while not enough(self.messages):
                await self._arrival()
        return self.messages

    async def quiet(self) -> None:
        """Sends a ping, and requires its answer to be the next message."""
        await self.send({"type": "ping"})
        await self.expect("Pong")

    async def closed(self) -> int:
        """Waits for the end of the connection; returns the close code."""
        async with asyncio.timeout(DEADLINE_SECONDS):
            await self.socket.wait_closed()
            await self._reading
        code = self.socket.close_code
        assert code is not None
        return code

    async def leave(self) -> None:
        """Closes the socket with a closing handshake, as a browser does."""
        await self.socket.close()
        await self._reading

    async def drop(self) -> None:
        """Aborts the connection without a closing handshake."""
        with suppress(AttributeError):  # the transport may have gone by itself
            self.socket.transport.abort()
        await self.socket.wait_closed()
        await self._reading

    async def _next(self) -> Message:
        try:
            async with asyncio.timeout(DEADLINE_SECONDS):
                while self._taken == len(self.messages):
                    await self._arrival()
        except TimeoutError:
            raise AssertionError(f"no message came; the last ones: {self.messages[-3:]}") from None
        self._taken += 1
        return self.messages[self._taken - 1]

    async def _arrival(self) -> None:
        if self._reading.done():
            self._reading.result()
            raise AssertionError(
                f"closed with {self.socket.close_code} {self.socket.close_reason!r}: {self.socket.protocol.close_exc}"
                f"; the last messages: {self.messages[-3:]}"
            )
        self._arrived.clear()
        await self._arrived.wait()

    async def _read(self) -> None:
        with suppress(ConnectionClosed):
            while True:
                message: Message = json.loads(await self.socket.recv())
                conforms(message)
                if message["Type"] == "SetCompanyResult" and message["Success"]:
                    self.epoch = message["Data"]["Epoch"]
                    self.position = message["Data"]["Position"]
                elif "Position" in message:
                    self.position = message["Position"]
                if message["Type"] == "Resync":
                    self.epoch = message["Data"].get("Epoch", self.epoch)
                self.messages.append(message)
                self._arrived.set()
        self._arrived.set()


async def open_client(
    url: str,
    user: str | None = None,
    company: str | None = None,
    after: int | None = None,
    epoch: str | None = None,
    **options: Any,
) -> Client:
    """Opens a client and, as far as arguments are given, authenticates it and sets its company.

    `options` are those of `websockets`, and `companies` for the token.
    """
    companies = options.pop("companies", None)
    given = options.pop("token", None)
    # The node pings: the client's own pings would close it where a busy machine stalls for their 20 seconds.
    options = {
        "compression": None,
        "max_size": None,
        "ping_interval": None,
        "proxy": None,
        **options,
    }
    client = Client(await open_socket(url, **options))
    try:
        if user is not None or given is not None:
            answer = await client.authenticate(user, companies=companies, token=given)
            assert answer["Success"], answer
        if company is not None:
            answer = await client.set_company(company, after, epoch)
            assert answer["Success"], answer
    except BaseException:
        await client.drop()
        raise
    return client
