"""Streams and polls through proxies that cut each connection after some bytes, or buffer responses."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

import httpx
import pytest

from tests.proxy import Proxy
from tests.service.calendars import Calendar
from tests.service.http_streams import address, poll, stream
from tests.services import Service, token
from tests.waiting import DEADLINE_SECONDS

COUNT = 40
"""How many messages a client must receive."""


@pytest.fixture
async def proxy(service: Service) -> AsyncIterator[Proxy]:
    async with Proxy("127.0.0.1", service.port) as proxy:
        yield proxy


def url(proxy: Proxy) -> str:
    return f"http://127.0.0.1:{proxy.port}"


def positions(messages: Sequence[dict[str, Any]]) -> list[int]:
    return [message["Position"] for message in messages]


async def write(calendar: Calendar, company: str) -> None:
    for _ in range(COUNT):
        await calendar.event(company)


async def test_a_stream_that_is_cut_again_and_again_loses_and_doubles_nothing(
    proxy: Proxy, calendar: Calendar
) -> None:
    company = await calendar.company("u1")
    page = (await poll(url(proxy), "u1", company)).json()
    event_id = f"{page['Epoch']}:{page['Position']}:{page['At']}"
    writing = asyncio.create_task(write(calendar, company))
    received: list[dict[str, Any]] = []
    connections = 0
    while len(received) < COUNT:
        proxy.cut_after(3000 + 37 * connections % 700)  # at one place of an event or another
        connections += 1
        try:
            async with stream(url(proxy), "u1", company, {"Last-Event-ID": event_id}) as events:
                answer = await events.event()
                assert answer.message["Data"]["Recovered"] is True
                while len(received) < COUNT:
                    event = await events.event()
                    received.append(event.message)
                    event_id = event.id
        except httpx.TransportError:
            pass
    await writing
    assert connections > 5
    assert positions(received) == list(range(2, COUNT + 2))


async def test_polls_that_are_cut_again_and_again_lose_and_double_nothing(
    proxy: Proxy, calendar: Calendar
) -> None:
    company = await calendar.company("u1")
    page = (await poll(url(proxy), "u1", company)).json()
    proxy.cut_after(4000)
    received: list[dict[str, Any]] = []
    failures = 0
    headers = {"Authorization": f"Bearer {token('u1')}"}
    async with httpx.AsyncClient(timeout=DEADLINE_SECONDS) as client:
        while len(received) < COUNT:
            writing = asyncio.create_task(calendar.event(company))
            try:
                place = {"after": page["Position"], "epoch": page["Epoch"], "at": page["At"]}
                answer = await client.get(
                    address(url(proxy), company), params=place, headers=headers
                )
                page = answer.json()
                assert page["Recovered"] is True
                received += page["Messages"]
            except httpx.TransportError:
                failures += 1
            await writing
    assert failures > 5
    assert positions(received) == list(range(2, page["Position"] + 1))


async def test_a_buffering_proxy_delivers_polls_and_the_whole_of_a_stream_at_its_end(
    proxy: Proxy, calendar: Calendar
) -> None:
    company = await calendar.company("u1")
    proxy.hold()
    close = {"Connection": "close"}
    page = (await poll(url(proxy), "u1", company, close)).json()
    place = {"after": page["Position"], "epoch": page["Epoch"]}
    waiting = asyncio.create_task(poll(url(proxy), "u1", company, close, **place))
    await calendar.event(company)
    assert positions((await waiting).json()["Messages"]) == [2]
    short = {"Authorization": f"Bearer {token('u1', ttl=-3)}"}  # within the leeway of 10 s
    async with stream(url(proxy), "u1", company, short, **place) as events:
        received = [event.message for event in await events.rest()]
    kinds = [message["Type"] for message in received]
    assert kinds == ["SubscribeResult", "EventCreated", "TokenExpiring", "Disconnect"]
