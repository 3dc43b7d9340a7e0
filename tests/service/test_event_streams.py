"""Server-sent events: the messages of a WebSocket, over HTTP."""

from __future__ import annotations

import asyncio
import json
from functools import partial
from typing import Any
from urllib.parse import quote

import httpx

from tests.conftest import Connect, Serve
from tests.databases import Database
from tests.service.calendars import Calendar
from tests.service.http_streams import address, poll, stream, subscribers
from tests.service.raw import Raw
from tests.service.test_floods import metric
from tests.service.test_slow import write_until
from tests.services import Service, token
from tests.waiting import DEADLINE_SECONDS, until


async def test_a_stream_has_the_messages_of_a_websocket(
    service: Service, calendar: Calendar, connect: Connect
) -> None:
    company = await calendar.company("u1")
    socket = await connect(service, "u1", company)
    async with stream(service, "u1", company) as events:
        assert events.response.status_code == 200
        assert events.response.headers["content-type"].startswith("text/event-stream")
        first = await events.event()
        await calendar.event(company)
        created = await events.event()
    expected = await socket.expect("EventCreated")
    assert first.message["Type"] == "SubscribeResult"
    assert first.message["Success"] is True
    assert "Recovered" not in first.message["Data"]
    assert first.id == f"{socket.epoch}:1:{first.message['Data']['At']}"
    assert created.message == expected
    assert created.id == f"{socket.epoch}:2:{expected['At']}"


async def test_the_last_event_id_resumes(service: Service, calendar: Calendar) -> None:
    company = await calendar.company("u1")
    async with stream(service, "u1", company) as events:
        first = await events.event()
    await calendar.event(company, "one")
    await calendar.event(company, "two")
    await calendar.reaches(company, 3)
    async with stream(service, "u1", company, {"Last-Event-ID": first.id}, after="3") as events:
        answer = await events.event()
        assert answer.message["Data"]["Recovered"] is True
        assert answer.message["Data"]["Position"] == 1
        missed = [await events.event(), await events.event()]
    assert [event.message["Position"] for event in missed] == [2, 3]
    async with stream(
        service, "u1", company, {"Last-Event-ID": missed[0].id.replace("20", "19", 1)}
    ) as events:
        answer = await events.event()
        assert answer.message["Data"]["Recovered"] is False
        assert answer.message["Data"]["Position"] == 3


async def test_a_filter_applies_to_streams_and_polls_and_skipped_moves_their_position(
    service: Service, calendar: Calendar
) -> None:
    company = await calendar.company("u1")
    wanted: dict[str, Any] = {"entities": "Event", "where": json.dumps({"Event": {"Title": ["a"]}})}
    async with stream(service, "u1", company, **wanted) as events:
        first = (await events.event()).message["Data"]
        place = {"after": first["Position"], "epoch": first["Epoch"]}
        waiting = asyncio.create_task(poll(service, "u1", company, **place, **wanted))
        await until(partial(subscribers, service, 2))
        await calendar.event(company, "b")
        skipped = await events.event()
    assert skipped.message["Type"] == "Skipped"
    assert skipped.id == f"{first['Epoch']}:2:{skipped.message['At']}"
    page = (await waiting).json()
    assert page["Messages"] == [skipped.message]
    assert (page["Position"], page["At"]) == (2, skipped.message["At"])
    await calendar.event(company, "b")
    await calendar.event(company, "a")
    await calendar.reaches(company, 4)
    async with stream(service, "u1", company, {"Last-Event-ID": skipped.id}, **wanted) as events:
        assert (await events.event()).message["Data"]["Recovered"] is True
        missed = [(await events.event()).message for _ in range(2)]
    assert [(each["Position"], each["Type"]) for each in missed] == [
        (3, "Skipped"),
        (4, "EventCreated"),
    ]
    place = {"after": page["Position"], "epoch": page["Epoch"], "at": page["At"]}
    assert (await poll(service, "u1", company, **place, **wanted)).json()["Messages"] == missed
    wrongs: list[dict[str, Any]] = [
        {"entities": "Unknown"},
        {"entities": ""},
        {"where": "{"},
        {"where": "[]"},
    ]
    for wrong in wrongs:
        for accept in ("application/json", "text/event-stream"):
            answer = await poll(service, "u1", company, {"Accept": accept}, **wrong)
            assert (answer.status_code, answer.json()["code"]) == (400, "bad_filter"), answer.text
    assert (await poll(service, "u2", company, entities="Unknown")).status_code == 403


async def test_losing_access_ends_the_stream(service: Service, calendar: Calendar) -> None:
    company = await calendar.company("u1")
    async with stream(service, "u1", company) as events:
        await events.event()
        await calendar.database.execute(
            "DELETE FROM employees WHERE user_id = 'u1' AND company_id = $1", company
        )
        types = [event.message["Type"] for event in await events.rest()]
    assert types == ["EmployeeRemoved", "CompanyRevoked"]


async def test_a_stream_that_is_not_read_is_cut_and_delays_no_other(
    database: Database, serve: Serve, raw: Raw, connect: Connect
) -> None:
    service, calendar = await serve(database), Calendar(database)
    company = await calendar.company("u1")
    socket = await connect(service, "u1", company)
    slow = await raw.connect(service, receive_bytes=4096)
    await slow.send(request(company, token("u1")))
    assert "text/event-stream" in await slow.head()
    written = await write_until(calendar, company, service, 'notifier_closed_total{code="4508"}', 1)
    await slow.ended()  # with a Disconnect, if it reads that in time
    received = await socket.received(lambda messages: len(messages) >= written + 1)
    assert received[-1]["Position"] == written + 1


async def test_the_token_ends_the_stream(service: Service, calendar: Calendar) -> None:
    company = await calendar.company("u1")
    headers = {"Authorization": f"Bearer {token('u1', ttl=-3)}"}  # within the leeway of 10 s
    async with stream(service, "u1", company, headers) as events:
        received = await events.rest()
    assert [event.message["Type"] for event in received] == [
        "SubscribeResult",
        "TokenExpiring",
        "Disconnect",
    ]
    assert received[-1].message["Data"]["Code"] == 4419
    assert [event.id for event in received[1:]] == ["", ""]


async def test_a_drain_ends_streams_and_polls(database: Database, serve: Serve) -> None:
    service, calendar = await serve(database), Calendar(database)
    company = await calendar.company("u1")
    async with stream(service, "u1", company) as events:
        first = (await events.event()).message["Data"]
        place = {"after": first["Position"], "epoch": first["Epoch"], "wait": 55}
        waiting = asyncio.create_task(poll(service, "u1", company, **place))
        await until(partial(subscribers, service, 2))
        assert await metric(service, 'notifier_connections{transport="poll"}') == 1
        assert await metric(service, "notifier_sockets ") == 2
        service.terminate()
        last = (await events.rest())[-1].message
        assert (last["Type"], last["Data"]["Code"]) == ("Disconnect", 1012)
        answer = await waiting
        assert answer.status_code == 503
        assert int(answer.headers["retry-after"]) >= 1
    assert await service.ended() == 0


async def test_a_drain_answers_requests_whose_state_is_still_read(
    database: Database, serve: Serve
) -> None:
    service, calendar = await serve(database, state="on"), Calendar(database)
    company = await calendar.company("u1")
    locking = await database.connect()
    async with httpx.AsyncClient(timeout=DEADLINE_SECONDS) as client:
        await locking.execute("BEGIN; LOCK TABLE events IN ACCESS EXCLUSIVE MODE")
        answers = [
            asyncio.create_task(
                client.get(
                    address(service, company),
                    params={"state": "true"},
                    headers={"Accept": kind, "Authorization": f"Bearer {token('u1')}"},
                )
            )
            for kind in ("text/event-stream", "application/json")
        ]

        async def both_wait() -> bool:
            waiting = await locking.fetchval(
                "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'events'::regclass"
                " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
            )
            return bool(waiting) and await metric(service, "notifier_sockets ") == 2

        await until(both_wait)
        service.terminate()
        for answer in answers:
            assert (await answer).status_code == 503
        assert await service.ended() == 0
    assert "Cancel" not in service.log(), "uvicorn had no request to cancel"


async def test_streams_polls_and_sockets_share_the_limits(
    database: Database, serve: Serve, connect: Connect
) -> None:
    service = await serve(database, max_connections_per_user=2)
    calendar = Calendar(database)
    company = await calendar.company("u1")
    await connect(service, "u1", company)
    async with stream(service, "u1", company) as events:
        await events.event()
        for transport, count in (("websocket", 1), ("sse", 1), ("poll", 0)):
            name = f'notifier_connections{{transport="{transport}"}}'
            assert await metric(service, name) == count
        answer = await poll(service, "u1", company)
        assert answer.status_code == 429
        assert answer.json()["code"] == "too_many"
        assert int(answer.headers["retry-after"]) >= 1
        assert answer.headers["access-control-allow-origin"] == "*"


async def test_a_prefix_is_stripped_or_not_and_an_id_may_contain_slashes(
    database: Database, serve: Serve
) -> None:
    service = await serve(database, root_path="/realtime", authorization="claim")
    company = "a/b c%é"
    headers = {"Authorization": f"Bearer {token('u1', [company])}"}
    segment = quote(company, safe="")
    async with httpx.AsyncClient(timeout=DEADLINE_SECONDS) as client:
        for prefix in ("", "/realtime"):
            url = f"{service.http}{prefix}/companies/{segment}/messages"
            answer = await client.get(url, headers=headers)
            assert answer.status_code == 200, answer.text
            assert answer.json()["CompanyId"] == company
        for bad in ("%FF", "%00", "x" * 201):
            url = f"{service.http}/companies/{bad}/messages"
            assert (await client.get(url, headers=headers)).status_code == 400


async def test_pages_of_allowed_origins_may_read_and_send_the_cookie(
    database: Database, serve: Serve
) -> None:
    app = "https://app.example"
    service = await serve(database, allowed_origins=app, token_cookie="session")
    company = await Calendar(database).company("u1")
    url, cookie = address(service, company), {"Cookie": f"a=b; session={token('u1')}"}
    async with httpx.AsyncClient(timeout=DEADLINE_SECONDS) as client:

        async def status(headers: dict[str, str]) -> int:
            answer = await client.get(url, headers=headers)
            if headers.get("Origin") == app:
                assert answer.headers["access-control-allow-origin"] == app
                assert answer.headers["access-control-allow-credentials"] == "true"
            else:
                assert "access-control-allow-origin" not in answer.headers
            return answer.status_code

        assert await status(cookie | {"Origin": app}) == 200
        assert await status({"Origin": app}) == 401
        assert await status(cookie | {"Origin": "https://evil.example"}) == 403
        assert await status(cookie) == 401
        assert await status(cookie | {"Sec-Fetch-Site": "cross-site"}) == 401
        assert await status(cookie | {"Sec-Fetch-Site": "same-site"}) == 401
        assert await status(cookie | {"Sec-Fetch-Site": "same-origin"}) == 200
        preflight = await client.options(
            url, headers={"Origin": app, "Access-Control-Request-Method": "GET"}
        )
        assert preflight.status_code == 204
        assert "Authorization" in preflight.headers["access-control-allow-headers"]
        foreign = await client.options(url, headers={"Origin": "https://evil.example"})
        assert (foreign.status_code, foreign.json()["code"]) == (403, "origin_forbidden")
        wrong = await client.post(url)
        assert (wrong.status_code, wrong.json()["code"]) == (405, "method_not_allowed")
        assert wrong.headers["allow"] == "GET, HEAD, OPTIONS"


def request(company: str, bearer: str) -> bytes:
    """The bytes of a request for a stream."""
    return (
        f"GET /companies/{company}/messages HTTP/1.1\r\nHost: 127.0.0.1\r\n"
        f"Accept: text/event-stream\r\nAuthorization: Bearer {bearer}\r\n\r\n"
    ).encode()
