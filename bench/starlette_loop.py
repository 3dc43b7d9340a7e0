"""F2's and M1's reference, the obvious implementation: LISTEN, and a loop of `send_text`.

uvicorn bench.starlette_loop:app       clients connect to /COMPANY
"""

from __future__ import annotations

import json
import os
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
from starlette.applications import Starlette
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

clients: defaultdict[str, set[WebSocket]] = defaultdict(set)


async def changed(_connection: object, _pid: int, _channel: str, payload: object) -> None:
    text = str(payload)
    for client in tuple(clients[json.loads(text)["company_id"]]):
        await client.send_text(text)


@asynccontextmanager
async def lifespan(_app: Starlette) -> AsyncIterator[None]:
    connection: asyncpg.Connection[Any] = await asyncpg.connect(os.environ["BENCH_DATABASE_URL"])
    await connection.add_listener("rows", changed)
    yield
    await connection.close()


async def subscribe(client: WebSocket) -> None:
    company = client.path_params["company"]
    await client.accept()
    clients[company].add(client)
    try:
        while True:
            await client.receive_text()
    except WebSocketDisconnect:
        clients[company].discard(client)


app = Starlette(routes=[WebSocketRoute("/{company}", subscribe)], lifespan=lifespan)
