"""More than one process on a database: the same positions, no matter who dies."""

from __future__ import annotations

import asyncio
import json
import signal
import time
from contextlib import suppress
from typing import Any

import psutil
import pytest

from notifier.delivery.drain import CLOSES_PER_SECOND
from tests.clients import Client
from tests.conftest import Connect, Serve
from tests.databases import Database
from tests.service.calendars import Calendar, positions
from tests.service.crowd import Crowd, Member, visit_all
from tests.service.test_floods import metric
from tests.services import Service
from tests.waiting import until


def changes(client: Client) -> list[dict[str, Any]]:
    return [message for message in client.messages if "Position" in message]


async def reach(client: Client, position: int) -> None:
    await client.received(lambda messages: messages[-1].get("Position") == position)


async def test_e4_two_nodes_deliver_the_same_in_the_same_order(
    database: Database, serve: Serve, connect: Connect
) -> None:
    services, calendar = [await serve(database), await serve(database)], Calendar(database)

    async def first_leads() -> bool:  # it was elected before it was ready
        return [await metric(service, "notifier_relay ") for service in services] == [1, 0]

    await until(first_leads)
    company = await calendar.company("u1")
    one, two = [await connect(service, "u1", company) for service in services]

    async def write() -> None:
        app = await database.connect(app=True)
        for _ in range(25):
            await app.execute(
                "INSERT INTO events (company_id, title, starts_at, ends_at)"
                " VALUES ($1, 'one of many', now(), now())",
                company,
            )

    await asyncio.gather(*(write() for _ in range(4)))
    await reach(one, 101)
    await reach(two, 101)
    assert changes(one) == changes(two)
    assert positions(one.messages) == list(range(2, 102))


async def test_e1_a_killed_relay_is_followed_by_the_other_node(
    database: Database, serve: Serve, connect: Connect
) -> None:
    relay, other, calendar = await serve(database), await serve(database), Calendar(database)
    company = await calendar.company("u1")
    dying, living = await connect(relay, "u1", company), await connect(other, "u1", company)
    await calendar.event(company)
    await reach(dying, 2)
    relay.kill()
    await relay.ended()
    for _ in range(5):
        await calendar.event(company)
    await reach(living, 7)
    moved = await connect(other, "u1", company, dying.position, dying.epoch)
    await reach(moved, 7)
    assert changes(dying) + changes(moved) == changes(living)
    assert positions(living.messages) == list(range(2, 8))
    await relay.start()
    await relay.ready()
    back = await connect(relay, "u1", company, 1, living.epoch)
    await reach(back, 7)
    assert changes(back) == changes(living)


async def test_e1_a_node_that_stops_sends_disconnect_and_is_not_ready(
    database: Database, serve: Serve, connect: Connect, crowd: Crowd
) -> None:
    """So many clients that the drain takes five seconds, in which a busy machine must answer three requests."""
    service, calendar = await serve(database, drain_seconds=10), Calendar(database)
    company = await calendar.company("u1")
    members = crowd(1000, "u1", company)
    await visit_all(members, service)
    service.terminate()

    async def not_ready() -> bool:
        answer = await service.get("/readyz")
        return answer.status_code == 503 and answer.json() == {
            "ready": False,
            "reason": "going away",
        }

    await until(not_ready)
    assert (await service.get("/livez")).is_success
    late = await connect(service)
    assert await late.closed() == 1012
    assert await service.ended() == 0
    waits = set()
    for member in members:
        assert member.link is not None
        await member.link.ended
        assert member.link.code == 1012
        assert member.link.farewell["Code"] == 1012
        assert member.link.farewell["Reconnect"] is True
        waits.add(member.link.farewell["RetryAfterMs"])
    assert len(waits) > 50


async def test_e2_nothing_is_lost_when_one_node_after_the_other_restarts(
    database: Database, serve: Serve, connect: Connect
) -> None:
    services, calendar = [await serve(database), await serve(database)], Calendar(database)
    company = await calendar.company("u1")
    client = await connect(services[0], "u1", company)
    arrived: list[int] = []
    for old, new in ((0, 1), (1, 0)):
        await calendar.event(company)
        services[old].terminate()
        await calendar.event(company)
        assert await client.closed() == 1012
        arrived += positions(client.messages)
        client = await connect(services[new], "u1", company, client.position, client.epoch)
        assert await services[old].ended() == 0
        await calendar.event(company)
        await services[old].start()
        await services[old].ready()
    await reach(client, 7)
    assert arrived + positions(client.messages) == list(range(2, 8))


@pytest.mark.slow
async def test_e2_a_thousand_clients_miss_nothing_while_both_nodes_restart_and_apps_write(
    database: Database, serve: Serve, crowd: Crowd
) -> None:
    """They come back by turns, as they were told to, and are level with a stranger in the end."""
    services, calendar = [await serve(database), await serve(database)], Calendar(database)
    company = await calendar.company("u1")
    members = crowd(1000, "u1", company)
    for number, service in enumerate(services):
        await visit_all(members[number::2], service)
    enough, written, disconnected = asyncio.Event(), 1, []

    async def write() -> None:
        nonlocal written
        while not enough.is_set():
            await calendar.event(company)
            written += 1
            await asyncio.sleep(0.05)  # at its own pace: a thousand receive each

    async def stay(member: Member, at: int) -> None:
        """What a client does: returns to the other node after the wait that Disconnect names."""
        while True:
            assert member.link is not None
            await member.link.ended
            wait = member.link.farewell["RetryAfterMs"]
            disconnected.append((member.link.code, time.monotonic(), wait))
            at = 1 - at
            await asyncio.sleep(wait / 1000)
            await member.visit(services[at])

    writing = asyncio.create_task(write())
    staying = [asyncio.create_task(stay(each, n % 2)) for n, each in enumerate(members)]
    for count, service in zip((500, 1500), services, strict=True):

        async def all_over(count: int = count) -> bool:
            return sum(len(each.recovered) for each in members) == count

        service.terminate()
        assert await service.ended() == 0
        await until(all_over)
        await service.start()
        await service.ready()
    enough.set()
    await writing

    async def level() -> bool:
        return all(each.positions[-1:] == [written] for each in members)

    await until(level)
    for task in staying:
        task.cancel()
    await asyncio.gather(*staying, return_exceptions=True)
    for each in members:
        assert each.positions == list(range(2, written + 1))
        assert all(each.recovered)
    assert {code for code, _, _ in disconnected} == {1012}
    # Neither all at once, nor all to come back at once. The second node had 1,000 clients to close.
    times = [at for _, at, _ in disconnected][500:]
    assert times[-1] - times[0] > 1000 / CLOSES_PER_SECOND / 2
    assert len({wait for _, _, wait in disconnected}) > 500


@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
async def test_e1_a_second_signal_ends_it_at_once(
    database: Database, serve: Serve, crowd: Crowd, second: signal.Signals
) -> None:
    """In the middle of a drain of some seconds: some clients get no Disconnect."""
    service, calendar = await serve(database, drain_seconds=25), Calendar(database)
    company = await calendar.company("u1")
    members = crowd(1000, "u1", company)
    await visit_all(members, service)
    service.terminate()

    async def disconnected() -> int:
        return sum(each.link is not None and bool(each.link.farewell) for each in members)

    await until(disconnected)
    service.send(second)
    assert await service.ended() == 0
    assert 0 < await disconnected() < 1000


async def admitted(connect: Connect, service: Service, company: str) -> Client:
    """A subscribed client. `/readyz` was answered by one worker; another may still be starting."""

    async def subscribed() -> Client | None:
        client = await connect(service, "u1")
        answer = await client.set_company(company)
        assert answer["Success"] or answer["Error"]["Code"] == "unavailable", answer
        return client if answer["Success"] else None

    client = await until(subscribed)
    assert client is not None
    return client


async def test_workers_are_nodes_of_their_own(
    database: Database, serve: Serve, connect: Connect
) -> None:
    service, calendar = await serve(database, "--workers", "2"), Calendar(database)
    company = await calendar.company("u1")
    clients = [await admitted(connect, service, company) for _ in range(20)]
    await calendar.events(company, 10)
    for client in clients:
        await reach(client, 11)
        assert positions(client.messages) == list(range(2, 12))
    leaders = [line for line in service.log().splitlines() if "relay leads" in line]
    assert len(leaders) == 1
    service.terminate()
    for client in clients:
        assert await client.closed() == 1012
    assert await service.ended() == 0


async def test_a_worker_that_dies_is_replaced(
    database: Database, serve: Serve, connect: Connect
) -> None:
    service, calendar = await serve(database, "--workers", "2"), Calendar(database)
    company = await calendar.company("u1")
    clients = [await admitted(connect, service, company) for _ in range(10)]
    parent = psutil.Process(service.pid)

    def is_worker(process: psutil.Process) -> bool:
        with suppress(psutil.NoSuchProcess):  # its parent has just waited for its end
            return process.num_fds() > 0 and "spawn_main" in str(process.cmdline())
        return False

    def workers() -> list[psutil.Process]:
        return [each for each in parent.children() if is_worker(each)]

    before = {each.pid for each in workers()}
    assert len(before) == 2
    psutil.Process(min(before)).kill()

    async def two_again() -> bool:
        return len(workers()) == 2 and {each.pid for each in workers()} != before

    await until(two_again)
    await service.ready()
    await calendar.event(company)
    living = [client for client in clients if client.socket.close_code is None]
    for client in living:
        await reach(client, 2)
    assert '"status":-9' in service.log(), service.log()
    assert all(json.loads(line) for line in service.log().splitlines() if line.startswith("{"))
