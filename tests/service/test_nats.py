"""NATS beside PostgreSQL: faster while it works, never needed, and never trusted."""

from __future__ import annotations

import subprocess
import sys

import pytest
from nats.aio.msg import Msg

from tests.clients import Client
from tests.conftest import Connect, Serve
from tests.databases import Database
from tests.natsd import NatsServer, client_of
from tests.proxy import Proxy
from tests.service.calendars import Calendar, positions
from tests.service.test_floods import metric
from tests.services import ROOT, Service, environment
from tests.waiting import until


async def on_path(service: Service, path: str) -> None:
    """Returns when messages reach the node by this path, and no other."""

    async def is_used() -> bool:
        used = {
            each: await metric(service, f'notifier_stream_path{{path="{each}"}}')
            for each in ("nats", "postgres")
        }
        return used == {"nats": 0, "postgres": 0, path: 1}

    await until(is_used)


@pytest.fixture
async def nodes(database: Database, serve: Serve, nats: NatsServer) -> tuple[Service, Service]:
    """The node that relays and another one, both of which use NATS."""
    services = await serve(database, nats_url=nats.url), await serve(database, nats_url=nats.url)
    for service in services:
        await on_path(service, "nats")
    return services


async def reach(client: Client, position: int) -> None:
    """Returns when the client has got this position, after all that come before it."""
    await client.received(lambda messages: messages[-1].get("Position") == position)
    assert positions(client.messages) == list(range(2, position + 1))


async def test_messages_come_by_nats_and_revocations_with_them(
    database: Database, nodes: tuple[Service, Service], connect: Connect
) -> None:
    calendar, (_, node) = Calendar(database), nodes
    company = await calendar.company("u1", "u2")
    client, leaving = await connect(node, "u1", company), await connect(node, "u2", company)
    await calendar.events(company, 50)
    await calendar.event(company)
    await client.received(lambda messages: messages[-1].get("Position") == 53)
    assert positions(client.messages) == list(range(3, 54))
    other = await calendar.company("u3")
    await calendar.events(other, 50)
    await database.execute("DELETE FROM employees WHERE user_id = 'u2'")
    await leaving.next("CompanyRevoked")
    assert await metric(node, "notifier_healed_messages_total") == 0
    assert await metric(node, "notifier_received_messages_total") == 52  # of this company alone


async def test_a_node_goes_on_over_postgresql_while_nats_is_frozen_or_gone_and_returns(
    database: Database, nodes: tuple[Service, Service], connect: Connect, nats: NatsServer
) -> None:
    calendar, (relay, node) = Calendar(database), nodes
    company = await calendar.company("u1")
    client = await connect(node, "u1", company)
    last = 1
    for stop in ("freeze", "kill"):
        if stop == "freeze":
            nats.freeze()
        else:
            await nats.kill()
        await calendar.events(company, 5)
        last += 5
        await reach(client, last)
        for service in (relay, node):
            await on_path(service, "postgres")
            answer = await service.get("/readyz")
            assert (answer.status_code, answer.json()) == (200, {"ready": True, "path": "postgres"})
        await calendar.event(company)
        last += 1
        await reach(client, last)
        if stop == "freeze":
            nats.thaw()
        else:
            await nats.start()
        for service in (relay, node):
            await on_path(service, "nats")
            assert (await service.get("/readyz")).json() == {"ready": True, "path": "nats"}
        await calendar.event(company)
        last += 1
        await reach(client, last)


async def test_a_node_that_is_cut_off_from_nats_alone_uses_postgresql(
    database: Database, serve: Serve, connect: Connect, nats: NatsServer
) -> None:
    calendar = Calendar(database)
    async with Proxy("127.0.0.1", nats.port) as proxy:
        relay = await serve(database, nats_url=nats.url)
        cut = await serve(database, nats_url=f"nats://127.0.0.1:{proxy.port}")
        third = await serve(database, nats_url=nats.url)
        for service in (relay, cut, third):
            await on_path(service, "nats")
        company = await calendar.company("u1")
        client, other = await connect(cut, "u1", company), await connect(third, "u1", company)
        proxy.freeze()
        await calendar.events(company, 5)
        for each in (client, other):
            await reach(each, 6)
        await on_path(cut, "postgres")
        await on_path(third, "nats")
        proxy.thaw()
        await on_path(cut, "nats")
        await proxy.reset()
        await calendar.event(company)
        for each in (client, other):
            await reach(each, 7)
        await on_path(cut, "nats")


async def test_a_forged_or_repeated_message_reaches_no_client(
    database: Database, nodes: tuple[Service, Service], connect: Connect, nats: NatsServer
) -> None:
    calendar, (_, node) = Calendar(database), nodes
    company = await calendar.company("u1")
    client = await connect(node, "u1", company)
    attacker = await client_of(nats.url)
    overheard: list[Msg] = []

    async def listen(message: Msg) -> None:
        overheard.append(message)

    await attacker.subscribe("notifier.>", cb=listen)
    await attacker.flush()
    await calendar.event(company)
    await reach(client, 2)

    async def find(subject: str, words: bytes) -> Msg:
        async def found() -> Msg | None:
            return next(
                (each for each in overheard if each.subject == subject and words in each.data), None
            )

        message = await until(found)
        assert message is not None
        return message

    true = await find(f"notifier.company.{company}", b"Stand-up")
    beat = await find("notifier.log", b"Number")
    forged = true.data.replace(b'"Position":2', b'"Position":3').replace(b"Stand-up", b"Forgery")
    assert forged != true.data
    other = f"{true.subject[:-1]}{'0' if true.subject[-1] != '0' else '1'}"
    await attacker.publish(true.subject, forged, headers=true.headers)
    await attacker.publish(true.subject, forged)
    await attacker.publish(true.subject, b"{", headers=true.headers)
    await attacker.publish(true.subject, true.data, headers=true.headers)
    await attacker.publish(other, true.data, headers=true.headers)
    await attacker.publish(beat.subject, beat.data, headers=beat.headers)
    await attacker.publish(beat.subject, beat.data.replace(b'"Missed":0', b'"Missed":9'))
    await attacker.flush()
    await attacker.close()

    async def refused() -> bool:
        return await metric(node, "notifier_nats_rejected_total") >= 3

    await until(refused)
    await calendar.event(company)
    await reach(client, 3)
    titles = [each["Data"]["Title"] for each in client.messages if "Position" in each]
    assert titles == ["Stand-up", "Stand-up"]
    await on_path(node, "nats")


async def test_another_relay_takes_over_and_large_transactions_come_from_the_log(
    database: Database, serve: Serve, connect: Connect, nats: NatsServer
) -> None:
    calendar = Calendar(database)
    relay, *others = [await serve(database, nats_url=nats.url) for _ in range(3)]
    for service in (relay, *others):
        await on_path(service, "nats")
    companies = [await calendar.company("u1") for _ in range(4)]
    clients = [await connect(node, "u1", companies[0]) for node in others]
    await database.execute(  # more than a page of changes, and none of a company's is a Resync
        """
        INSERT INTO events (company_id, title, starts_at, ends_at)
        SELECT company::uuid, 'one of many', now(), now()
        FROM unnest($1::text[]) AS company, generate_series(1, 900)
        """,
        companies,
    )
    for client in clients:
        await reach(client, 901)
    relay.kill()
    await calendar.event(companies[0])
    for client in clients:
        await reach(client, 902)
    for service in others:
        await on_path(service, "nats")
    await calendar.event(companies[0])
    for client in clients:
        await reach(client, 903)
    late = await connect(others[0], "u1", companies[1])
    await calendar.event(companies[1])
    await late.received(lambda messages: messages[-1].get("Position") == 902)


async def test_a_new_epoch_reaches_a_node_that_follows_nats(
    database: Database, nodes: tuple[Service, Service], connect: Connect
) -> None:
    calendar, (_, node) = Calendar(database), nodes
    company = await calendar.company("u1")
    client = await connect(node, "u1", company)
    await database.execute("UPDATE notifier.log SET saved_by = '0'")
    await client.expect("Resync")
    await calendar.event(company)
    await client.received(lambda messages: messages[-1].get("Position") == 2)
    await on_path(node, "nats")


async def test_a_node_starts_while_nats_is_away_and_uses_it_later(
    database: Database, serve: Serve, connect: Connect, nats: NatsServer
) -> None:
    calendar = Calendar(database)
    await nats.kill()
    service = await serve(database, nats_url=nats.url)
    company = await calendar.company("u1")
    client = await connect(service, "u1", company)
    await calendar.event(company)
    await reach(client, 2)
    await on_path(service, "postgres")
    await nats.start()
    await on_path(service, "nats")
    await calendar.event(company)
    await reach(client, 3)


def test_a_node_without_nats_does_not_import_it() -> None:
    code = (
        "import sys; from notifier.node import Node; from notifier.settings import load; "
        "Node(load(database_url='postgresql://h/d', jwt_secret='x' * 32, **eval(sys.argv[1]))); "
        "print({'nats', 'notifier.nats'} & sys.modules.keys())"
    )
    for settings, imported in (({}, 0), ({"nats_url": "nats://h"}, 2)):
        done = subprocess.run(
            [sys.executable, "-c", code, repr(settings)],
            capture_output=True,
            text=True,
            check=True,
            cwd=ROOT,
            env=environment({}),
        )
        assert len(eval(done.stdout)) == imported
