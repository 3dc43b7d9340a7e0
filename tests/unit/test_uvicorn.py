"""The undocumented members of uvicorn that Notifier uses, each by name.

When an upgrade of uvicorn fails here, read the change of each member that is named before its upper
bound in pyproject.toml is raised.
"""

from __future__ import annotations

import ast
import asyncio
import inspect
import logging
import textwrap
from collections.abc import Iterator
from typing import Any

import pytest
import uvicorn
from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from uvicorn.server import ServerState
from websockets.server import ServerProtocol

from notifier import server
from notifier.transport.http_guard import GuardedHttp
from notifier.transport.websocket import WebSocketProtocol

WEBSOCKET_METHODS = {
    "connection_lost",
    "connection_made",
    "data_received",
    "eof_received",
    "handle_close",
    "handle_connect",
    "handle_cont",
    "handle_parser_exception",
    "handle_ping",
    "handle_pong",
    "on_task_complete",
    "pause_writing",
    "receive",
    "resume_writing",
    "run_asgi",
    "send",
    "send_500_response",
    "send_receive_event_to_app",
    "shutdown",
    "start_keepalive",
    "stop_keepalive",
}
WEBSOCKET_ATTRIBUTES = {
    "app": object,
    "client": None,
    "close_sent": False,
    "close_timer": None,
    "conn": ServerProtocol,
    "curr_msg_data_type": str,
    "frames": list,
    "handshake_complete": False,
    "handshake_initiated": False,
    "logger": logging.Logger,
    "loop": asyncio.AbstractEventLoop,
    "pending_ping_payload": None,
    "pong_timer": None,
    "queue": asyncio.Queue,
    "read_paused": False,
    "tasks": set,
    "transport": None,
    "writable": asyncio.Event,
}
WEBSOCKET_HANDSHAKE = {"request", "response", "scope"}
"""Set by `handle_connect`."""

HTTP_METHODS = {
    "_should_upgrade",
    "_start_asgi_task",
    "_unset_keepalive_if_required",
    "connection_lost",
    "connection_made",
    "data_received",
    "handle_websocket_upgrade",
    "on_body",
    "on_header",
    "on_headers_complete",
    "on_message_begin",
    "on_message_complete",
    "on_response_complete",
    "pause_writing",
    "resume_writing",
    "timeout_keep_alive_handler",
}
HTTP_ATTRIBUTES = {
    "app_state": dict,
    "client": None,
    "config": uvicorn.Config,
    "connections": set,
    "cycle": None,
    "headers": None,
    "logger": object,
    "loop": asyncio.AbstractEventLoop,
    "pipeline": object,
    "parser": object,
    "scope": None,
    "server_state": ServerState,
    "timeout_keep_alive": int,
    "timeout_keep_alive_task": None,
    "transport": None,
    "ws_protocol_class": object,
}
HTTP_REQUEST = {"url"}
"""Set by `on_message_begin`."""

SERVER_METHODS = {"capture_signals", "serve", "startup"}
SERVER_ATTRIBUTES = {
    "config": uvicorn.Config,
    "force_exit": False,
    "server_state": ServerState,
    "should_exit": False,
    "started": False,
}
SERVER_STARTUP = {"servers"}
"""Set by `startup`."""


async def application(scope: Scope, receive: Receive, send: Send) -> None: ...


@pytest.fixture
async def config() -> uvicorn.Config:
    config = uvicorn.Config(application, lifespan="off", log_config=None)
    config.load()
    return config


def used(ours: type) -> set[str]:
    """The members of `self` and `super()` in a class's source that it does not define itself."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(ours)))

    def names() -> Iterator[str]:
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute):
                match node.value:
                    case ast.Name(id="self") if node.attr not in ours.__dict__:
                        yield node.attr
                    case ast.Call(func=ast.Name(id="super")):
                        yield node.attr

    assigned = set(inspect.get_annotations(ours))
    return set(names()) - assigned - {"__init__"}


def check(instance: object, parent: type, methods: set[str], attributes: dict[str, Any]) -> None:
    for name in methods:
        assert callable(getattr(parent, name, None)), f"{parent.__name__}.{name}() is gone"
    for name, expected in attributes.items():
        assert hasattr(instance, name), f"{parent.__name__}.{name} is gone"
        value = getattr(instance, name)
        if isinstance(expected, type):
            assert isinstance(value, expected), f"{parent.__name__}.{name} is a {type(value)}"
        else:
            assert value is expected, f"{parent.__name__}.{name} begins as {value!r}"


async def test_the_websocket_protocol_has_every_member_that_is_used(config: uvicorn.Config) -> None:
    protocol = WebSocketsSansIOProtocol(config, ServerState(), {})
    check(protocol, WebSocketsSansIOProtocol, WEBSOCKET_METHODS, WEBSOCKET_ATTRIBUTES)
    source = inspect.getsource(WebSocketsSansIOProtocol.handle_connect)
    for name in WEBSOCKET_HANDSHAKE:
        assert f"self.{name}" in source, f"handle_connect does not set {name}"
    named = WEBSOCKET_METHODS | set(WEBSOCKET_ATTRIBUTES) | WEBSOCKET_HANDSHAKE
    assert used(WebSocketProtocol) - {"options"} <= named


async def test_the_http_protocol_has_every_member_that_is_used(config: uvicorn.Config) -> None:
    protocol = HttpToolsProtocol(config, ServerState(), {})
    check(protocol, HttpToolsProtocol, HTTP_METHODS, HTTP_ATTRIBUTES)
    source = inspect.getsource(HttpToolsProtocol.on_message_begin)
    for name in HTTP_REQUEST:
        assert f"self.{name}" in source, f"on_message_begin does not set {name}"
    named = HTTP_METHODS | set(HTTP_ATTRIBUTES) | HTTP_REQUEST
    assert used(GuardedHttp) - {"refusals", "stream"} <= named


async def test_the_server_has_every_member_that_is_used(config: uvicorn.Config) -> None:
    check(uvicorn.Server(config), uvicorn.Server, SERVER_METHODS, SERVER_ATTRIBUTES)
    source = inspect.getsource(uvicorn.Server)
    for name in SERVER_STARTUP:
        assert f"self.{name}" in source, f"startup does not set {name}"
    assert used(server._Server) <= SERVER_METHODS | set(SERVER_ATTRIBUTES) | SERVER_STARTUP


async def test_what_an_idle_websocket_replaces_is_used_in_no_other_way() -> None:
    """Inbox and Gate have only the methods that uvicorn calls on its queue and its event."""
    tree = ast.parse(inspect.getsource(inspect.getmodule(WebSocketsSansIOProtocol)))  # type: ignore[arg-type]
    called: dict[str, set[str]] = {"queue": set(), "writable": set()}
    for node in ast.walk(tree):
        match node:
            case ast.Attribute(value=ast.Attribute(value=ast.Name(id="self"), attr=name)) if (
                name in called
            ):
                called[name].add(node.attr)
    assert called == {"queue": {"put_nowait", "get", "empty"}, "writable": {"set", "clear", "wait"}}
