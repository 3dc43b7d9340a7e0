"""The events of a WebSocket on an ASGI server that is not ours."""

from __future__ import annotations

import asyncio
import json

import pytest
from prometheus_client import REGISTRY

from notifier.transport.conversation import Conversation, converse
from notifier.transport.queues import Event
from tests.services import token
from tests.unit.lines import Line
from tests.unit.worlds import A, World, settle

AUTHENTICATE: Event = {
    "type": "websocket.receive",
    "text": json.dumps({"type": "authenticate", "token": token("u")}),
}
SET_COMPANY: Event = {
    "type": "websocket.receive",
    "text": json.dumps({"type": "setCompany", "data": {"companyId": A}}),
}
PING: Event = {"type": "websocket.receive", "text": '{"type": "ping"}'}
DISCONNECT: Event = {"type": "websocket.disconnect", "code": 1005}


class Peer:
    """The events that `converse` receives; it must receive none after a disconnect."""

    def __init__(self, *events: Event) -> None:
        self.events = asyncio.Queue[Event | Exception]()
        for each in events:
            self.events.put_nowait(each)
        self._left = False

    async def receive(self) -> Event:
        assert not self._left
        event = await self.events.get()
        if isinstance(event, Exception):
            raise event
        self._left = event["type"] == "websocket.disconnect"
        return event


def begin(world: World) -> tuple[Conversation, Line]:
    line = Line(quick=False)
    conversation = Conversation.begin(world.services, line, "")
    assert conversation is not None
    return conversation, line


def sockets() -> float:
    return REGISTRY.get_sample_value("notifier_connections", {"transport": "websocket"}) or 0


@pytest.fixture
def world() -> World:
    world = World()
    world.membership.members.add((A, "u"))
    return world


async def test_events_are_handled_one_after_the_other(world: World) -> None:
    before = sockets()
    conversation, line = begin(world)
    peer = Peer(AUTHENTICATE, SET_COMPANY, PING)
    world.membership.open.clear()
    conversing = asyncio.create_task(converse(conversation, peer.receive))
    await settle()
    assert line.types == ["AuthenticationResult"]
    assert peer.events.empty(), "one is received ahead"
    world.membership.open.set()
    await settle()
    assert line.types == ["AuthenticationResult", "SetCompanyResult", "Pong"]
    peer.events.put_nowait(DISCONNECT)
    await conversing
    assert sockets() == before
    assert not world.admission.connections


async def test_a_disconnect_interrupts_a_command(world: World) -> None:
    before = sockets()
    conversation, line = begin(world)
    world.membership.open.clear()
    peer = Peer(AUTHENTICATE, SET_COMPANY, DISCONNECT)
    await converse(conversation, peer.receive)
    assert line.types == ["AuthenticationResult"]
    assert sockets() == before
    assert not world.admission.connections


async def test_a_server_that_fails_ends_the_conversation(world: World) -> None:
    conversation, _ = begin(world)
    world.membership.open.clear()
    peer = Peer(AUTHENTICATE, SET_COMPANY)
    peer.events.put_nowait(OSError("gone"))
    await converse(conversation, peer.receive)
    assert not world.admission.connections
    conversation, _ = begin(world)
    peer = Peer(AUTHENTICATE)
    peer.events.put_nowait(OSError("gone"))
    with pytest.raises(OSError, match="gone"):
        await converse(conversation, peer.receive)
    assert not world.admission.connections


async def test_a_conversation_that_is_cancelled_holds_nothing(world: World) -> None:
    before = sockets()
    conversation, _ = begin(world)
    world.membership.open.clear()
    conversing = asyncio.create_task(
        converse(conversation, Peer(AUTHENTICATE, SET_COMPANY).receive)
    )
    await settle()
    conversing.cancel()
    await asyncio.wait([conversing])
    assert sockets() == before
    assert not world.admission.connections
