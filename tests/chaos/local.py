"""A node in this process, and sessions without sockets, on a real database."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import msgspec

from notifier.delivery.encoding import TEXT
from notifier.delivery.session import Session
from notifier.delivery.transport import TransportListener
from notifier.errors import Closure
from notifier.node import Node
from notifier.settings import load
from tests.services import SECRET, token
from tests.waiting import until


class Voice:
    """A transport that keeps the messages, and the reason of its end."""

    write_direct = None
    encoding = TEXT

    def __init__(self) -> None:
        self.listener: TransportListener | None = None
        self.messages: list[dict[str, Any]] = []
        self.closure: Closure | None = None

    def write(self, frames: bytes, bodies: Sequence[bytes]) -> None:
        self.messages += [msgspec.json.decode(body) for body in bodies]

    async def drain(self) -> None:
        pass

    def replayed(self) -> None: ...

    def end(self, closure: Closure) -> None:
        self.closure = closure


class LocalNode:
    """Stops as with SIGKILL, and starts again without state."""

    def __init__(self, dsn: str, **settings: Any) -> None:
        self._settings = load({}, database_url=dsn, jwt_secret=SECRET, **settings)
        self._running: asyncio.Task[None] | None = None
        self.node = Node(self._settings)

    async def start(self) -> None:
        """Returns when it is ready."""
        node = self.node = Node(self._settings)
        running = self._running = asyncio.create_task(node.run())

        async def ready() -> bool:
            if running.done():
                running.result()
            return node.health.reason() is None

        await until(ready)

    async def stop(self) -> None:
        """Its clients receive nothing more."""
        if self._running is not None:
            for session in list(self.node.admission.connections):
                session.closed()
            self._running.cancel()
            with suppress(asyncio.CancelledError):
                await self._running
            self._running = None

    async def visit(
        self, user: str, company: str, after: int | None = None, epoch: str | None = None
    ) -> tuple[Session, Voice]:
        """A session that has subscribed to a company; the answers are in the voice."""
        voice = Voice()
        session = Session(self.node.services, voice)
        data: dict[str, Any] = {"companyId": company}
        if after is not None:
            data |= {"after": after, "epoch": epoch}
        try:
            await session.receive(json.dumps({"type": "authenticate", "token": token(user)}))
            await session.receive(json.dumps({"type": "setCompany", "data": data}))
        except Closure as closure:
            session.closed()
            voice.closure = closure
        return session, voice

    @property
    def queries(self) -> int:
        """How many queries it has sent for its clients."""
        return self.node.log_query.queries + self.node.membership_query.queries
