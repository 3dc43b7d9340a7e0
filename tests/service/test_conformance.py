"""RFC 6455 by Autobahn's cases, against our protocol class under an app that echoes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
import uvicorn
from kosoku import FailureError, run_fuzzingclient
from starlette.types import Receive, Scope, Send

from notifier.commands import MESSAGE_BYTES
from notifier.server import bind
from notifier.transport.http_guard import GuardedHttp
from notifier.transport.keepalive import Keepalive
from notifier.transport.refusals import Refusals
from notifier.transport.websocket import Options, WebSocketProtocol

TOO_BIG = ["9.*"]
"""Messages of more than 64 KiB, or in more fragments than a client may send: both are refused."""

COMPRESSED = ["12.*", "13.*"]
"""permessage-deflate, which is not offered."""

EXCEPTIONS = {"7.1.5"}
"""A close inside a fragmented message: `websockets` answers 1002, the case wants it echoed."""


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    await receive()
    await send({"type": "websocket.accept"})
    while (event := await receive())["type"] == "websocket.receive":
        await send(
            {"type": "websocket.send", **{k: event[k] for k in ("text", "bytes") if k in event}}
        )


@pytest.fixture
async def echoing() -> AsyncIterator[str]:
    listening, refusals = bind("127.0.0.1", 0), Refusals()
    config = uvicorn.Config(
        echo,
        http=GuardedHttp.configured(refusals),
        ws=WebSocketProtocol.configured(Options(refusals, Keepalive(20))),
        ws_max_size=MESSAGE_BYTES,
        ws_per_message_deflate=False,
        lifespan="off",
        log_config=None,
    )
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server._serve(sockets=[listening]))
    yield f"ws://127.0.0.1:{listening.getsockname()[1]}"
    server.should_exit = server.force_exit = True
    await serving


async def test_autobahns_cases_pass_but_for_the_named_ones(echoing: str) -> None:
    try:
        results = await run_fuzzingclient(
            echoing, exclude_cases=[*TOO_BIG, *COMPRESSED], concurrency=8
        )
    except FailureError as failure:
        results = failure.results
    failed = {
        result.case_id: (result.behavior.value, result.behavior_close.value)
        for result in results
        if not result.passed
    }
    assert len(results) > 200
    assert set(failed) == EXCEPTIONS, failed
