"""Streams, polls and sockets through nginx, HAProxy, Caddy, Traefik and Envoy, as they come out of the box."""

from __future__ import annotations

import asyncio
from functools import partial

import pytest

from tests.conftest import Connect, Serve
from tests.databases import Database
from tests.reverse_proxies import CADDY, ENVOY, HAPROXY, NGINX, TRAEFIK, Kind, ReverseProxy
from tests.service.calendars import Calendar
from tests.service.http_streams import poll, stream, subscribers
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
