"""Streams, polls and sockets through nginx, HAProxy, Caddy, Traefik and Envoy, as they come out of the box."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from functools import partial

import pytest

from notifier.client import Resync
from tests.conftest import Connect, Serve
from tests.databases import Database
from tests.reverse_proxies import CADDY, ENVOY, HAPROXY, NGINX, TRAEFIK, Kind, ReverseProxy
from tests.service.calendars import Calendar
from tests.service.http_streams import poll, stream, subscribers
from tests.service.test_transports import Taken, following
from tests.services import token
from tests.waiting import until

KINDS = pytest.mark.parametrize(
    "kind", [NGINX, HAPROXY, CADDY, TRAEFIK, ENVOY], ids=lambda kind: kind.program
)


@KINDS
async def test_messages_arrive_through_a_proxy_as_they_are_committed(
    database: Database, serve: Serve, connect: Connect, kind: Kind
) -> None:
    service, calendar = await serve(database, root_path="/keep"), Calendar(database)
    company = await calendar.company("u1")
    async with ReverseProxy(kind, service.port) as proxy:
        for prefix in ("", "/strip", "/keep", "/gzip"):
            base = proxy.http + prefix
            async with stream(base, "u1", company) as events:
                first = (await events.event()).message["Data"]
                await calendar.event(company)
                created = await events.event()
                assert created.message["Position"] == first["Position"] + 1
                place = {"after": created.message["Position"], "epoch": first["Epoch"]}
                waiting = asyncio.create_task(poll(base, "u1", company, **place))
                await until(partial(subscribers, service, 2))
                await calendar.event(company)
                page = (await waiting).json()
                assert page["Messages"] == [(await events.event()).message]
            await until(partial(subscribers, service, 0))  # the proxy reports that the client left
        socket = await connect(f"ws://127.0.0.1:{proxy.port}/socket", "u1", company)
        await calendar.event(company)
        await socket.expect("EventCreated")


@KINDS
async def test_ids_tokens_and_refusals_pass_a_proxy_unchanged(
    database: Database, serve: Serve, kind: Kind
) -> None:
    service = await serve(database, root_path="/keep", authorization="claim")
    company = "a/b c%é?#"
    authorization = {"Authorization": f"Bearer {token('u1', [company])}"}
    async with ReverseProxy(kind, service.port) as proxy:
        for prefix in ("", "/strip", "/keep"):
            base = proxy.http + prefix
            answer = await poll(base, "u1", company, authorization)
            assert answer.status_code == 200, answer.text
            assert answer.json()["CompanyId"] == company
            refused = await poll(base, "u1", "another", authorization)
            assert refused.status_code == 403
            assert refused.headers["content-type"] == "application/problem+json"


TRANSPORTS = {"websocket": "/socket", "sse": "/", "poll": "/"}


@KINDS
async def test_each_transport_of_the_client_survives_a_proxy_that_is_killed(
    database: Database, serve: Serve, kind: Kind
) -> None:
    service, calendar = await serve(database), Calendar(database)
    company = await calendar.company("u1")
    async with ReverseProxy(kind, service.port) as proxy, AsyncExitStack() as stack:
        base = f"ws://127.0.0.1:{proxy.port}"
        each = [
            await stack.enter_async_context(following(base + path, company, transport=transport))
            for transport, path in TRANSPORTS.items()
        ]
        for taken in each:
            await taken.has(partial(is_live, taken))
        for _ in range(2):
            await calendar.event(company)
            await proxy.kill()
            await calendar.event(company)
            await proxy.start()
            await calendar.event(company)
        for taken, transport in zip(each, TRANSPORTS, strict=True):
            await taken.has_messages(company, 7)
            assert len(taken.of(Resync, company)) == 1
            await taken.has(partial(is_live, taken))
            assert taken.client.transport == transport


async def test_the_client_polls_where_nginx_holds_back_streams(
    database: Database, serve: Serve
) -> None:
    service, calendar = await serve(database), Calendar(database)
    company = await calendar.company("u1")
    async with (
        ReverseProxy(NGINX, service.port) as proxy,
        following(f"ws://127.0.0.1:{proxy.port}/buffer/", company, heartbeat=1.0) as taken,
    ):
        await taken.has(partial(is_live, taken))
        assert taken.client.transport == "poll"
        await calendar.event(company)
        await taken.has_messages(company, 2)


def is_live(taken: Taken) -> bool:
    return taken.client.status.state == "live"
