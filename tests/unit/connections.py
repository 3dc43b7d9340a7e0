"""HTTP connections between a test and an application, without a network."""

from __future__ import annotations

import asyncio
import socket
from typing import Any, cast

import uvicorn
from starlette.types import ASGIApp
from uvicorn.server import ServerState

from notifier.transport.http_guard import GuardedHttp
from notifier.transport.refusals import Refusals


async def connected(
    application: ASGIApp, http: type[GuardedHttp] | None = None
) -> tuple[GuardedHttp, asyncio.StreamReader, asyncio.StreamWriter]:
    """The server's protocol of one connection, and the client's end; `http` is by default the service's."""
    http = http or GuardedHttp.configured(Refusals())
    config = uvicorn.Config(application, interface="asgi3", lifespan="off", log_config=None)
    config.load()
    ours, theirs = socket.socketpair()
    _, protocol = await asyncio.get_running_loop().connect_accepted_socket(
        lambda: cast("Any", http)(config, ServerState(), {}), ours
    )
    reader, writer = await asyncio.open_connection(sock=theirs, limit=1024)
    return protocol, reader, writer
