"""uvicorn's shutdown, which closes the WebSockets that are left after the drain."""

from __future__ import annotations

import asyncio
import socket

import uvicorn
from starlette.types import Receive, Scope, Send

from notifier import server
from notifier.node import Node
from notifier.settings import load
from tests.unit.door import SECRET, request

CLOSE = b"\x88\x80\0\0\0\0"
MORE_THAN_THE_KERNEL_TAKES = "x" * 10_000_000


async def test_it_passes_over_a_socket_whose_client_has_closed_it_and_does_not_read() -> None:
    sent, closed = asyncio.Event(), asyncio.Event()

    async def application(_: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.send", "text": MORE_THAN_THE_KERNEL_TAKES})
        sent.set()
        assert (await receive())["type"] == "websocket.disconnect"
        closed.set()

    chosen = load({}, database_url="postgresql://none@127.0.0.1:1/none", jwt_secret=SECRET)
    running: uvicorn.Server = server._Server(
        server.configuration(chosen, application, Node(chosen).refusals)
    )
    listening = server.bind("127.0.0.1", 0)
    serving = asyncio.create_task(running.serve(sockets=[listening]))
    with socket.create_connection(listening.getsockname()) as client:
        client.setblocking(False)
        await asyncio.get_running_loop().sock_sendall(client, request())
        await sent.wait()
        await asyncio.get_running_loop().sock_sendall(client, CLOSE)
        await closed.wait()
        running.should_exit = running.force_exit = True
        await serving
