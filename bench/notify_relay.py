"""L1's reference, the shortest possible path: LISTEN, and a `websockets` server that broadcasts.

It prints its port; every client receives every row.
"""

from __future__ import annotations

import asyncio
import json
import os
from typing import Any

import asyncpg
from websockets.asyncio.server import ServerConnection, broadcast, serve

clients: set[ServerConnection] = set()


async def subscribe(client: ServerConnection) -> None:
    clients.add(client)
    await client.wait_closed()
    clients.discard(client)


def changed(_connection: object, _pid: int, _channel: str, payload: object) -> None:
    broadcast(clients, str(payload))


async def main() -> None:
    connection: asyncpg.Connection[Any] = await asyncpg.connect(os.environ["BENCH_DATABASE_URL"])
    await connection.add_listener("rows", changed)
    async with serve(subscribe, "127.0.0.1", 0) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        print(json.dumps({"event": "listening", "port": port}), flush=True)
        await server.wait_closed()


asyncio.run(main())
