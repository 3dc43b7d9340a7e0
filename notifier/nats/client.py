"""nats-py's client, with a shorter path for received messages, and stricter where that loses or exposes data.

- A message goes to a function at once, in the order of the connection. The library has a task and a queue
  for each subscription, which drops messages when it is full, and reads the headers of each message.
- With `tls://` nothing is sent before TLS is up; the library goes on in plain text where the server's
  first line, which anyone in between can change, does not demand TLS.
- PING is sent behind the commands that wait, so that PONG proves that the server has executed them. A PONG
  that comes too late does no harm; the library would stop reading because of it.
- Other servers that a server names are not collected: none is used, and the library compares each with all the others. A
  `max_payload` that is no number ends the connection.
- What the server sends is limited: the library would collect a message or a line of any size. Whatever it cannot
  parse ends the connection; the library would log a traceback, stop reading, and remain connected.
- `reason` is why the connection ended; it never reconnects by itself.

tests/unit/test_nats_client.py names the members that are overridden.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import structlog
from nats.aio.client import PING_PROTO, Client
from nats.errors import ProtocolError
from nats.protocol.parser import Parser

CLOSE_SECONDS = 1.0
"""How long a connection may take to end: a frozen server reads nothing."""

RECEIVED_BYTES = 64 * 1024 * 1024
"""What the server may send without completing a message or a line: the most that NATS lets `max_payload` be."""

Receive = Callable[[str, bytes, bytes], None]
"""Takes a subject, a payload, and the headers as they are on the wire (ADR-4 of NATS)."""

_logger = structlog.get_logger("notifier.nats")


class LimitedParser(Parser):
    """The library's parser; raises ProtocolError for all that it cannot parse, and for what is too large."""

    async def parse(self, data: bytes = b"") -> None:
        """Parses what was received."""
        try:
            await super().parse(data)
        except ProtocolError:
            raise
        except Exception as error:  # of INFO and -ERR, whose text it decodes
            raise ProtocolError from error
        if max(self.needed, len(self.buf)) > RECEIVED_BYTES:
            self.reset()
            raise ProtocolError


class NatsClient(Client):
    """One connection to one server."""

    def __init__(self, receive: Receive) -> None:
        super().__init__()
        self._ps = LimitedParser(self)
        self._receive = receive
        self.ended = asyncio.Event()
        self.reason = ""

    async def reported(self, error: Exception) -> None:
        """The library's callback for errors: after any of them the connection cannot be relied on."""
        self.end(str(error) or type(error).__name__)

    async def closed(self) -> None:
        """The library's callback for the end of the connection."""
        self.end("the server closed the connection")

    def end(self, reason: str) -> None:
        """The connection cannot be used any more; the first reason counts."""
        self.reason = self.reason or reason.removeprefix("nats: ")
        self.ended.set()

    async def answers(self, seconds: float) -> bool:
        """Whether the server executes all commands in time that were sent before."""
        answered = asyncio.get_running_loop().create_future()
        await self._send_ping(answered)
        ended = asyncio.create_task(self.ended.wait())
        try:
            await asyncio.wait(
                {answered, ended}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED
            )
        finally:
            ended.cancel()
        return answered.done()

    def use_public_key(self, key: str) -> None:
        """Authenticates by an NKey without a JWT."""
        self._public_nkey = key

    async def abort(self) -> None:
        """Closes the connection, within CLOSE_SECONDS also where the server is frozen."""
        with suppress(Exception):  # what a connection raises that is gone
            async with asyncio.timeout(CLOSE_SECONDS):
                await self.close()
        if self._transport is not None:
            self._transport.close()

    # --- overridden

    async def _process_msg(
        self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes | None
    ) -> None:
        try:
            self._receive(subject.decode(errors="replace"), data, headers or b"")
        except Exception:  # the library would stop reading, and remain connected
            _logger.exception("a message could not be processed")
            self.end("a message could not be processed")

    async def _process_info(self, info: dict[str, Any], initial_connection: bool = False) -> None:
        size = info.get("max_payload", 1)
        if not isinstance(size, int) or isinstance(size, bool) or size < 1:
            raise ProtocolError
        info.pop("connect_urls", None)
        if self._current_server is not None and self._current_server.uri.scheme == "tls":
            info["tls_required"] = True
        await super()._process_info(info, initial_connection)

    async def _send_ping(self, future: asyncio.Future[bool] | None = None) -> None:
        self._pongs.append(future or asyncio.get_running_loop().create_future())
        await self._send_command(PING_PROTO)
        await self._flush_pending()
