"""A client of `GET /companies/{id}/messages` for tests: it reads the bytes of the response."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, NamedTuple
from urllib.parse import quote

import httpx

from tests.service.test_floods import metric
from tests.services import Service, token
from tests.waiting import DEADLINE_SECONDS

STREAM = "text/event-stream"


class Event(NamedTuple):
    """One server-sent event; `id` is empty where it has none."""

    id: str
    message: dict[str, Any]


class Stream:
    """The events of one response."""

    def __init__(self, response: httpx.Response) -> None:
        self.response = response
        self._lines = response.aiter_lines()
        self.comments = 0

    async def event(self) -> Event:
        """The next event. Raises StopAsyncIteration at the end."""
        event_id = ""
        data: list[str] = []
        async with asyncio.timeout(DEADLINE_SECONDS):
            while True:
                line = await anext(self._lines)
                field, _, value = line.partition(": ")
                if field == "id":
                    event_id = value
                elif field == "data":
                    data.append(value)
                elif line.startswith(":"):
                    self.comments += 1
                elif data:  # the empty line that ends an event
                    return Event(event_id, json.loads("\n".join(data)))

    async def rest(self) -> list[Event]:
        """Every event up to the end of the response."""
        events = []
        try:
            while True:
                events.append(await self.event())
        except StopAsyncIteration:
            return events


def address(service: Service | str, company: str) -> str:
    """The URL of a company's messages, at a service or another address."""
    base = service if isinstance(service, str) else service.http
    return f"{base}/companies/{quote(company, safe='')}/messages"


@asynccontextmanager
async def stream(
    service: Service | str,
    user: str,
    company: str,
    headers: Mapping[str, str] | None = None,
    *,
    verify: ssl.SSLContext | bool = True,
    **parameters: Any,
) -> AsyncIterator[Stream]:
    """A stream of server-sent events."""
    given = {"Accept": STREAM, "Authorization": f"Bearer {token(user)}", **(headers or {})}
    async with (
        httpx.AsyncClient(timeout=DEADLINE_SECONDS, verify=verify) as client,
        client.stream("GET", address(service, company), headers=given, params=parameters) as answer,
    ):
        yield Stream(answer)


async def poll(
    service: Service | str,
    user: str,
    company: str,
    headers: dict[str, str] | None = None,
    **given: Any,
) -> httpx.Response:
    """The response to a long poll."""
    async with httpx.AsyncClient(timeout=DEADLINE_SECONDS) as client:
        return await client.get(
            address(service, company),
            params=given,
            headers={"Authorization": f"Bearer {token(user)}", **(headers or {})},
        )


async def subscribers(service: Service, count: int) -> bool:
    """Whether so many subscribe."""
    return await metric(service, "notifier_subscribers") == count
