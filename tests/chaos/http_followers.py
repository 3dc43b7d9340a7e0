"""The same clients over HTTP: server-sent events, or long polls."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx
import msgspec

from tests.chaos.followers import NEVER, Follower
from tests.service.http_streams import STREAM, address
from tests.services import Service, token

SECONDS = httpx.Timeout(30, connect=3)
"""A stream has a comment every 10 seconds, and a poll waits for `WAIT_SECONDS`."""

WAIT_SECONDS = 20
EXCUSED = frozenset({503})


class Page(msgspec.Struct, rename="pascal"):
    """A poll's answer, whose messages stay the texts that they are."""

    position: int
    epoch: str
    messages: list[msgspec.Raw]
    at: str | None = None
    recovered: bool | None = None


class HttpFollower(Follower):
    """A client that sends its proof with its position."""

    def _headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {token(self._user)}"}

    def _may_go_on(self, answer: httpx.Response) -> bool:
        """Whether the request was accepted. A guest may be refused, and any request while nodes stop."""
        if answer.status_code == 200:
            return True
        if answer.status_code not in EXCUSED and not (self._guest and answer.status_code == 403):
            self._violated("refused", status=answer.status_code)
        return False


class StreamFollower(HttpFollower):
    """A client of server-sent events, which resumes by the id of the last one."""

    _event_id = ""

    async def _visit(self, node: Service, visiting: asyncio.Timeout) -> None:
        headers = self._headers() | {"Accept": STREAM}
        if place := self._place(node):
            event_id = self._event_id or f"{place['epoch']}:{place['after']}"
            headers["Last-Event-ID"] = event_id
        async with (
            httpx.AsyncClient(timeout=SECONDS) as client,
            client.stream("GET", address(node, self.company), headers=headers) as answer,
        ):
            if not self._may_go_on(answer):
                return
            texts = self._texts(answer)
            text = await anext(texts, None)
            if text is None:
                return
            first = msgspec.json.decode(text)
            if first["Type"] != "SubscribeResult" or not first["Success"]:
                self._violated("something before the acknowledgement", answer=first)
                return
            if not await self._accept(first["Data"], node):
                return
            self._bound(visiting)
            going = True
            async for text in texts:
                self._check_code(text)
                if not going:
                    self._violated("received something after the end", text=text)
                going = self._receive(text)

    async def _texts(self, answer: httpx.Response) -> AsyncIterator[str]:
        """The data of each event; its id is kept where it has one."""
        event_id = ""
        async for line in answer.aiter_lines():
            if line.startswith("id: "):
                event_id = line.removeprefix("id: ")
            elif line.startswith("data: "):
                self._event_id, event_id = event_id or self._event_id, ""
                yield line.removeprefix("data: ")

    def _check_code(self, text: str) -> None:
        message: dict[str, Any] = msgspec.json.decode(text)
        if message["Type"] == "Disconnect" and message["Data"]["Code"] in NEVER:
            self._violated("ended with a code that no fault explains", message=message)


class PollFollower(HttpFollower):
    """A client of long polls."""

    async def _visit(self, node: Service, visiting: asyncio.Timeout) -> None:
        async with httpx.AsyncClient(timeout=SECONDS) as client:
            place = self._place(node)
            bounded = False
            while True:
                if place and self._at is not None:
                    place["at"] = self._at
                answer = await client.get(
                    address(node, self.company),
                    params={**place, "wait": WAIT_SECONDS},
                    headers=self._headers(),
                )
                if not self._may_go_on(answer):
                    return
                page = msgspec.json.decode(answer.content, type=Page)
                position = place["after"] if page.recovered else page.position
                result = {"Position": position, "Epoch": page.epoch, "At": page.at}
                if page.recovered is not None:
                    result["Recovered"] = page.recovered
                if not await self._accept(result, node):
                    return
                if not bounded:
                    self._bound(visiting)
                    bounded = True
                for text in page.messages:
                    if not self._receive(bytes(text).decode()):
                        return
                if self.position != page.position:
                    self._violated("a page of another position", at=self.position, page=page)
                place = {"after": self.position, "epoch": self._epoch}
