"""The endpoint for a company's messages, on connections without a network and a log without a database."""

from __future__ import annotations

import asyncio
import gc
import json
from collections.abc import AsyncIterator, Callable
from typing import Any, NamedTuple

import pytest
from starlette.types import Receive, Scope, Send

from notifier.access import admission
from notifier.delivery.filter import Filter
from notifier.delivery.http_session import HttpSession
from notifier.delivery.state import NoStates, State
from notifier.errors import Expired, Restart, Unreachable
from notifier.transport import polling
from notifier.transport.company_messages import PATH, CompanyMessages
from notifier.transport.cors import Cors
from tests.services import token
from tests.unit.connections import connected
from tests.unit.worlds import A, World, settle
from tests.waiting import DEADLINE_SECONDS, until

POLL, STREAM = "application/json", "text/event-stream"


class Answer(NamedTuple):
    """A whole response."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Exchange:
    """One connection, on which requests are sent one after the other."""

    def __init__(self, world: World) -> None:
        self._messages = CompanyMessages(world.services, Cors(None, credentials=False), 1_000_000)

    async def open(self) -> None:
        self.protocol, self.reader, self.writer = await connected(self._serve)

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        found = PATH.fullmatch(scope["raw_path"].decode())
        assert found is not None
        await self._messages.serve(found[1], scope, receive, send)

    def request(
        self,
        query: str = "",
        accept: str = POLL,
        *,
        method: str = "GET",
        user: str = "u",
        company: str = "company%20a",
        version: str = "1.1",
    ) -> None:
        self.writer.write(
            f"{method} /companies/{company}/messages{query} HTTP/{version}\r\n"
            f"Accept: {accept}\r\nAuthorization: Bearer {token(user)}\r\n\r\n".encode()
        )

    async def head(self) -> Answer:
        """The status and the headers of the next response."""
        async with asyncio.timeout(DEADLINE_SECONDS):
            head = (await self.reader.readuntil(b"\r\n\r\n")).decode().lower()
        status, *lines = head.rstrip().split("\r\n")
        fields = (line.partition(": ") for line in lines)
        return Answer(int(status.split()[1]), {name: value for name, _, value in fields}, b"")

    async def answer(self) -> Answer:
        head = await self.head()
        size = int(head.headers["content-length"])
        async with asyncio.timeout(DEADLINE_SECONDS):
            return head._replace(body=await self.reader.readexactly(size))


@pytest.fixture
def world() -> World:
    world = World()
    world.membership.members.add((A, "u"))
    return world


@pytest.fixture
async def exchange(world: World) -> AsyncIterator[Exchange]:
    exchange = Exchange(world)
    await exchange.open()
    yield exchange
    exchange.writer.close()


async def waiting(world: World, count: int = 1) -> None:
    """Returns when so many requests have subscribed."""

    async def subscribed() -> bool:
        return len(world.log.hub.channel(A) or ()) == count

    await until(subscribed)


async def left(world: World) -> None:
    """Returns when no session is counted."""

    async def empty() -> bool:
        return not world.admission.connections

    await until(empty)


async def test_a_waiting_poll_costs_one_task_and_answers_with_the_next_message(
    world: World, exchange: Exchange
) -> None:
    world.log.publish(A, 3)
    before = len(asyncio.all_tasks())
    exchange.request("?after=3&epoch=e")
    await waiting(world)
    assert len(asyncio.all_tasks()) == before + 1
    world.log.publish(A)
    page = (await exchange.answer()).json
    assert [message["Position"] for message in page["Messages"]] == [4]
    assert page["Position"] == 4
    await left(world)
    exchange.request("?after=3&epoch=e")  # on the same connection
    assert (await exchange.answer()).json == page


async def test_a_poll_whose_client_leaves_holds_nothing(world: World, exchange: Exchange) -> None:
    world.log.publish(A)
    exchange.request("?after=1&epoch=e&wait=55")
    await waiting(world)
    exchange.writer.close()
    await left(world)
    assert not world.pins(A)


@pytest.mark.parametrize("query", ["", "?after=0&epoch=e", "?after=0&epoch=another"])
async def test_nothing_holds_the_session_of_an_answered_poll(
    world: World, exchange: Exchange, query: str
) -> None:
    world.log.publish(A)
    exchange.request(query)
    assert (await exchange.answer()).status == 200
    await left(world)
    gc.collect()
    assert [each for each in gc.get_objects() if type(each) is HttpSession] == []


async def test_a_poll_is_counted_until_its_page_was_read(world: World, exchange: Exchange) -> None:
    world.log.store(A, pad=4_000_000)
    world.log.deliver()
    exchange.request("?after=0&epoch=e")
    head = await exchange.head()
    await settle()
    assert len(world.admission.connections) == 1
    assert not world.pins(A)
    await exchange.reader.readexactly(int(head.headers["content-length"]))
    await left(world)


async def test_the_drain_answers_a_waiting_poll_with_503(world: World, exchange: Exchange) -> None:
    world.log.publish(A)
    exchange.request("?after=1&epoch=e")
    await waiting(world)
    for session in list(world.admission.connections):
        session.end(Restart(retry_after_ms=1500))
    answer = await exchange.answer()
    assert (answer.status, answer.headers["retry-after"]) == (503, "2")
    await left(world)


async def test_losing_access_answers_a_waiting_poll_with_company_revoked(
    world: World, exchange: Exchange
) -> None:
    world.log.publish(A)
    exchange.request("?after=1&epoch=e")
    await waiting(world)
    world.membership.members.clear()
    for session in list(world.admission.connections):
        for subscription in session.live_subscriptions:
            subscription.revoke()
    page = (await exchange.answer()).json
    assert [message["Type"] for message in page["Messages"]] == ["CompanyRevoked"]
    assert page["Position"] == 1
    await left(world)


async def test_what_comes_while_access_is_checked_again_answers_a_waiting_poll(
    world: World, exchange: Exchange
) -> None:
    """At once: not only with the next message, or when the wait is over."""
    world.log.publish(A)
    exchange.request("?after=1&epoch=e&wait=55")
    await waiting(world)
    world.membership.open.clear()
    world.log.hub.recheck("u")
    await settle()
    world.log.publish(A, 2)
    world.membership.open.set()
    page = (await exchange.answer()).json
    assert [message["Position"] for message in page["Messages"]] == [2, 3]
    assert page["Position"] == 3
    await left(world)
    assert not world.pins(A)


class LargePages(NoStates):
    """A state of three pages, of which one is more than the connection takes from a client that does not read."""

    async def read(self, company: str, _wanted: Filter | None, _user: str) -> State:
        data = {"CompanyId": company, "Entity": "Event"}
        pages = [
            json.dumps(
                {"Type": "State", "Data": {**data, "Rows": [{"EventId": n, "Text": "x" * PAGE}]}},
                separators=(",", ":"),
            ).encode()
            for n in (1, 2, 3)
        ]
        return State("e", 0, None, tuple(pages))


PAGE = 2_000_000


async def sending(world: World, exchange: Exchange) -> HttpSession:
    """The session of a poll of which the client has read the head, and the node has sent the first rows."""
    world.services.states = LargePages()
    exchange.request("?state=true")
    size = int((await exchange.head()).headers["content-length"])
    assert size > 3 * PAGE
    await settle()
    (session,) = world.admission.connections
    assert isinstance(session, HttpSession)
    return session


async def test_the_rows_of_a_poll_are_sent_as_the_client_reads_them(
    world: World, exchange: Exchange
) -> None:
    world.services.states = LargePages()
    for _ in range(2):  # on the same connection
        exchange.request("?state=true")
        answer = await exchange.answer()
        assert [row["EventId"] for row in answer.json["State"]["Event"]] == [1, 2, 3]
        assert (answer.headers["content-type"], answer.json["Messages"]) == (POLL, [])
        assert answer.headers["cache-control"] == "no-store"
        await left(world)
    assert not world.pins(A)


def lose_the_company(world: World, _: HttpSession) -> None:
    world.membership.members.clear()
    world.log.publish(A, revokes=("u",))


def lose_the_database(world: World, _: HttpSession) -> None:
    world.membership.error = Unreachable("down")
    world.log.hub.recheck("u")


def become_another_user(world: World, _: HttpSession) -> None:
    world.membership.maps_users, world.membership.accounts["u"] = True, "another"
    world.membership.members.add((A, "another"))
    world.log.hub.recheck("u")


def outlive_the_token(_: World, session: HttpSession) -> None:
    session.end(Expired())


def be_drained(_: World, session: HttpSession) -> None:
    session.end(Restart())


@pytest.mark.parametrize(
    "lose",
    [lose_the_company, lose_the_database, become_another_user, outlive_the_token, be_drained],
)
async def test_a_poll_whose_rows_may_not_be_sent_any_more_is_cut(
    world: World,
    exchange: Exchange,
    lose: Callable[[World, HttpSession], None],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """At the rows after those that were written before."""
    session = await sending(world, exchange)
    lose(world, session)
    async with asyncio.timeout(DEADLINE_SECONDS):
        body = await exchange.reader.read(-1)
    assert b'"EventId":1' in body
    assert b'"EventId":2' not in body
    await left(world)
    assert not world.pins(A)
    assert "without completing response" not in caplog.text


async def test_a_poll_whose_rows_are_not_read_in_time_is_cut(
    world: World, exchange: Exchange, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(polling, "DRAIN_SECONDS", 0.1)
    await sending(world, exchange)
    await left(world)
    assert not world.pins(A)
    async with asyncio.timeout(DEADLINE_SECONDS):
        assert b'"EventId":2' not in await exchange.reader.read(-1)


async def test_a_poll_whose_client_leaves_within_the_rows_holds_nothing(
    world: World, exchange: Exchange
) -> None:
    await sending(world, exchange)
    exchange.writer.close()
    await left(world)
    assert not world.pins(A)


@pytest.mark.parametrize("accept", [POLL, STREAM])
async def test_head_has_the_headers_of_get_and_waits_for_nothing(
    world: World, exchange: Exchange, accept: str
) -> None:
    world.log.publish(A, 2)
    exchange.request("?after=1&epoch=e", accept, method="HEAD")
    answer = await exchange.head()
    assert answer.status == 200
    assert answer.headers["content-type"].startswith(accept)
    exchange.request(user="stranger", method="HEAD")
    assert (await exchange.head()).status == 403
    await left(world)


async def test_a_stream_over_http_1_0_is_not_chunked(world: World, exchange: Exchange) -> None:
    exchange.request(accept=STREAM, version="1.0")
    head = await exchange.head()
    assert "transfer-encoding" not in head.headers
    await waiting(world)
    world.log.publish(A)
    for session in list(world.admission.connections):
        session.end(Restart())
    async with asyncio.timeout(DEADLINE_SECONDS):
        events = await exchange.reader.read(-1)
    kinds = [json.loads(each.split(b"data: ")[1])["Type"] for each in events.split(b"\n\n")[:-1]]
    assert kinds == ["SubscribeResult", "E", "Disconnect"]
    exchange.writer.close()
    await left(world)


async def test_a_database_that_is_down_answers_with_503(world: World, exchange: Exchange) -> None:
    world.membership.error = Unreachable("down")
    exchange.request()
    answer = await exchange.answer()
    assert (answer.status, answer.json["code"]) == (503, "unavailable")
    assert int(answer.headers["retry-after"]) >= 1
    await left(world)


async def test_a_bug_answers_with_503_and_is_logged(world: World, exchange: Exchange) -> None:
    world.membership.error = ZeroDivisionError()
    exchange.request()
    assert (await exchange.answer()).status == 503
    await left(world)


async def test_refused_companies_of_one_user_delay_each_other_up_to_a_limit(
    world: World, exchange: Exchange, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(admission, "QUEUE_LIMIT", 1)
    refused = asyncio.create_task(world.admission.delay_rejection("user u", 3600))
    await settle()
    exchange.request()
    answer = await exchange.answer()
    assert (answer.status, answer.json["code"]) == (429, "too_many")
    refused.cancel()
    await settle()
    exchange.request()
    assert (await exchange.answer()).status == 200
    exchange.request(user="stranger")
    assert (await exchange.answer()).json["code"] == "company_forbidden"


@pytest.mark.parametrize("company", ["a%2Fb%20c", "a/b%20c"])
async def test_slashes_of_an_id_may_be_decoded_by_a_proxy(
    world: World, exchange: Exchange, company: str
) -> None:
    world.membership.members.add(("a/b c", "u"))
    exchange.request(company=company)
    assert (await exchange.answer()).json["CompanyId"] == "a/b c"
