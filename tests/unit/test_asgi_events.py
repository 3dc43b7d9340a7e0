"""Streams and polls on an ASGI server that is not ours: everything goes through `receive` and `send`."""

from __future__ import annotations

import asyncio
import json

import pytest
from starlette.types import Message, Scope

from notifier.errors import Restart
from notifier.transport import asgi_events
from notifier.transport.asgi import AsgiTransport
from notifier.transport.company_messages import CompanyMessages
from notifier.transport.cors import Cors
from tests.services import token
from tests.unit.test_company_messages import POLL, STREAM, LargePages, waiting
from tests.unit.test_events import Listener
from tests.unit.worlds import A, World, settle
from tests.waiting import until


@pytest.fixture
def world() -> World:
    world = World()
    world.membership.members.add((A, "u"))
    return world


class Server:
    """An ASGI server with one request: what it was sent, and whether its client is `gone`."""

    def __init__(self, world: World, max_buffer: int = 1_000_000) -> None:
        self.messages = CompanyMessages(world.services, Cors(None, credentials=False), max_buffer)
        self.gone = asyncio.Event()
        self.room = asyncio.Event()
        self.room.set()
        self.sent: list[Message] = []

    def serve(
        self, accept: str, user: str = "u", query: bytes = b"after=1&epoch=e"
    ) -> asyncio.Task[None]:
        scope: Scope = {
            "type": "http",
            "method": "GET",
            "query_string": query,
            "headers": [
                (b"accept", accept.encode()),
                (b"authorization", f"Bearer {token(user)}".encode()),
            ],
        }
        serving = self.messages.serve("company%20a", scope, self._receive, self._send)
        return asyncio.create_task(serving)

    async def _receive(self) -> Message:
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Message) -> None:
        await self.room.wait()
        self.sent.append(message)
        if message["type"] == "http.response.body" and not message.get("more_body"):
            self.gone.set()

    @property
    def types(self) -> list[str]:
        """The types of the messages in all events."""
        events = b"".join(message.get("body", b"") for message in self.sent).split(b"\n\n")
        data = [each.partition(b"data: ")[2] for each in events]
        return [json.loads(each)["Type"] for each in data if each]


async def test_a_poll_is_answered_unless_its_client_leaves(world: World) -> None:
    world.log.publish(A)
    server = Server(world)
    serving = server.serve(POLL)
    await waiting(world)
    server.gone.set()
    await serving
    assert not server.sent
    assert not world.admission.connections
    server = Server(world)
    serving = server.serve(POLL)
    await waiting(world)
    world.log.publish(A)
    await serving
    assert json.loads(server.sent[1]["body"])["Position"] == 2


@pytest.mark.parametrize("loses", [False, True])
async def test_the_rows_of_a_poll_are_sent_while_the_user_may_see_them(
    world: World, loses: bool
) -> None:
    world.services.states = LargePages()
    server = Server(world)
    server.room.clear()
    serving = server.serve(POLL, query=b"state=true")
    await settle()
    if loses:
        world.membership.members.clear()
        world.log.hub.recheck("u")
    server.room.set()
    await serving
    size = int(dict(server.sent[0]["headers"])[b"content-length"])
    body = b"".join(message["body"] for message in server.sent[1:])
    assert (body.count(b"EventId"), len(body) == size) == ((1, False) if loses else (3, True))
    assert server.sent[-1]["more_body"] is loses
    assert not world.admission.connections
    assert not world.pins(A)


async def test_events_are_streamed_until_the_session_ends(world: World) -> None:
    world.log.publish(A, 2)
    server = Server(world)
    serving = server.serve(STREAM)
    await waiting(world)
    world.log.publish(A)
    for session in list(world.admission.connections):
        session.end(Restart())
    await serving
    assert server.sent[0]["status"] == 200
    assert dict(server.sent[0]["headers"])[b"content-type"].startswith(STREAM.encode())
    assert server.types == ["SubscribeResult", "E", "E", "Disconnect"]
    assert server.sent[-1]["more_body"] is False
    assert not world.admission.connections
    assert not world.pins(A)


async def test_events_are_streamed_until_the_client_leaves(world: World) -> None:
    world.log.publish(A)
    server = Server(world)
    serving = server.serve(STREAM)
    await waiting(world)
    server.gone.set()
    await serving
    assert not world.admission.connections


async def test_each_event_is_sent_by_itself(world: World) -> None:
    """Whatever is replayed with it: how much that is depends on the sizes of rows that the user may not see."""
    world.log.publish(A, 4)
    server = Server(world)
    serving = server.serve(STREAM)
    await waiting(world)
    server.gone.set()
    await serving
    bodies = [message["body"] for message in server.sent[1:-1]]
    assert [each.count(b"data: ") for each in bodies] == [1] * 4
    assert all(each.endswith(b"\n\n") for each in bodies)


async def test_comments_are_sent(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asgi_events, "COMMENT_SECONDS", 0)
    server = Server(world)
    serving = server.serve(STREAM)

    async def commented() -> bool:
        return [message.get("body") for message in server.sent].count(b":\n\n") > 1

    await until(commented)
    server.gone.set()
    await serving


async def test_a_slow_reader_is_cut_at_its_cap(world: World) -> None:
    world.log.publish(A)
    server = Server(world, max_buffer=10_000)
    serving = server.serve(STREAM)
    await waiting(world)
    server.room.clear()
    for _ in range(2):
        world.log.store(A, pad=6_000)
        world.log.deliver()
    await waiting(world, 0)
    server.room.set()
    await serving
    assert server.types[-1] == "Disconnect"
    assert not world.admission.connections


async def test_a_stream_is_refused_with_a_status(world: World) -> None:
    server = Server(world)
    await server.serve(STREAM, "stranger")
    assert server.sent[0]["status"] == 403


async def test_losing_access_ends_a_stream(world: World) -> None:
    world.log.publish(A)
    server = Server(world)
    serving = server.serve(STREAM)
    await waiting(world)
    for session in list(world.admission.connections):
        for subscription in session.live_subscriptions:
            subscription.revoke()
    await serving
    assert server.types == ["SubscribeResult", "CompanyRevoked"]
    assert server.sent[-1]["more_body"] is False


async def test_what_follows_a_message_that_is_larger_than_the_cap_closes_no_socket() -> None:
    """Once it was sent, the cap holds again."""
    room, sent = asyncio.Event(), list[Message]()

    async def send(message: Message) -> None:
        await room.wait()
        sent.append(message)

    transport = AsgiTransport(send, 1000)
    transport.listener = listener = Listener()
    running = asyncio.create_task(transport.run())
    for size in (5000, 500, 500):
        transport.write(b"", [b"x" * size])
    assert listener.reports == []
    room.set()
    await transport.drain()
    room.clear()
    transport.write(b"", [b"x" * 500])
    assert listener.reports == []
    transport.write(b"", [b"x" * 600])
    assert listener.reports == ["closed"]
    room.set()
    await running
    assert sent[-1]["code"] == 4508
