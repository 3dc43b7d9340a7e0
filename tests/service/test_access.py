"""Losing access: on every node, by every way a row can go, whatever is under way."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import suppress
from typing import Any
from uuid import uuid4

import psutil
import pytest
from websockets.asyncio.client import connect as open_socket

from notifier.delivery.periodic_recheck import PeriodicRecheck
from notifier.delivery.session import Session, Stage
from notifier.node import Node
from notifier.relay.relay import State
from notifier.settings import load
from tests.clients import Client, Message
from tests.conftest import Connect, Serve
from tests.databases import Database
from tests.proxy import Proxy
from tests.service.calendars import EVENT, Calendar, positions
from tests.service.raw import Raw, RawSocket
from tests.service.test_floods import follow as follow_raw
from tests.services import SECRET, Service, token
from tests.unit.lines import Line
from tests.waiting import until

HIRE = "INSERT INTO employees (company_id, user_id, name) VALUES ($1, $2, 'U')"


class Pair:
    """Two nodes on one database."""

    def __init__(self, calendar: Calendar, nodes: tuple[Service, Service]) -> None:
        self.calendar = calendar
        self.nodes = nodes


@pytest.fixture(scope="module")
def running(
    postgres: str, template: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, tuple[Service, Service]]]:
    database = Database(postgres, f"notifier_test_{uuid4().hex[:12]}")
    place = tmp_path_factory.mktemp("pair")
    one, two = (Service(place, database.dsn, (), {}) for _ in range(2))
    with asyncio.Runner() as runner:
        runner.run(database.create(template))
        for service in (one, two):
            runner.run(service.start())
        for service in (one, two):
            runner.run(service.ready())
        yield database.name, (one, two)
        for service in (one, two):
            runner.run(service.stop())
            assert "Traceback" not in service.log()
        runner.run(database.drop())


@pytest.fixture
async def pair(postgres: str, running: tuple[str, tuple[Service, Service]]) -> AsyncIterator[Pair]:
    database = Database(postgres, running[0])
    yield Pair(Calendar(database), running[1])
    database.leave()


async def both(pair: Pair, connect: Connect, user: str, company: str) -> list[Client]:
    """A client of the user's on each node."""
    return [await connect(node, user, company) for node in pair.nodes]


async def receives(client: Client, title: str) -> None:
    """Until the event of this title has come."""
    while (await client.next("EventCreated"))["Data"]["Title"] != title:
        pass


LOSSES = {
    "removed": "DELETE FROM employees WHERE company_id = $1 AND user_id = 'u1'",
    "moved": "UPDATE employees SET company_id = $2 WHERE company_id = $1 AND user_id = 'u1'",
    "without a user": "UPDATE employees SET user_id = NULL WHERE company_id = $1 AND user_id = 'u1'",
    "of another user": "UPDATE employees SET user_id = 'u9' WHERE company_id = $1 AND user_id = 'u1'",
    "of another user's letters": (
        "UPDATE employees SET user_id = 'U1' WHERE company_id = $1 AND user_id = 'u1'"
    ),
    "one of many": "DELETE FROM employees WHERE company_id = $1 AND user_id <> 'witness'",
    "swapped": (
        "UPDATE employees SET user_id = CASE user_id WHEN 'u1' THEN 'u8' ELSE user_id END"
        " WHERE company_id = $1"
    ),
}


@pytest.mark.parametrize("loss", LOSSES)
async def test_c12_a_user_without_access_gets_no_further_message_on_either_node(
    pair: Pair, connect: Connect, loss: str
) -> None:
    calendar, database = pair.calendar, pair.calendar.database
    company, other = await calendar.company("u1", "u3", "witness"), await calendar.company("boss")
    losers = await both(pair, connect, "u1", company)
    witnesses = await both(pair, connect, "witness", company)
    arguments = (company, other) if "$2" in LOSSES[loss] else (company,)
    connection = await database.connect()
    async with connection.transaction():
        await connection.execute(EVENT, company, "in the same transaction, before")
        await connection.execute(LOSSES[loss], *arguments)
        await connection.execute(EVENT, company, "in the same transaction, after")
    await calendar.event(company, "later")
    for client in witnesses:
        await receives(client, "later")
        assert "CompanyRevoked" not in {message["Type"] for message in client.messages}
    for client in losers:
        assert (await client.next("CompanyRevoked"))["Data"] == {"CompanyId": company}
        await client.quiet()
        kinds = [message["Type"] for message in client.messages]
        assert {"EmployeeRemoved", "EmployeeUpdated"} & set(kinds)
        assert "later" not in str(client.messages)
        assert (await client.set_company(company))["Error"]["Code"] == "company_forbidden"
        answer = await client.set_company(company, client.position, client.epoch)
        assert answer["Error"]["Code"] == "company_forbidden"
    for client in losers:
        own = await calendar.company("u1")
        assert (await client.set_company(own))["Success"]
        await calendar.event(own, "own")
        await receives(client, "own")


@pytest.mark.parametrize("user", ["u\x1f1", "\x1f", 'u"1\\', "u,{1}", "NULL", "Zoë 🗝 \u2028\t\x7f"])
async def test_a_user_id_of_any_characters_is_revoked_on_both_nodes(
    pair: Pair, connect: Connect, user: str
) -> None:
    company = await pair.calendar.company(user, "u1", "u")
    losers = await both(pair, connect, user, company)
    witnesses = await both(pair, connect, "u1", company)
    await pair.calendar.database.execute(
        "DELETE FROM employees WHERE company_id = $1 AND user_id = ANY ($2)", company, [user, "u"]
    )
    await pair.calendar.event(company, "later")
    for client in losers:
        await client.next("CompanyRevoked")
        await client.quiet()
    for client in witnesses:
        await receives(client, "later")
        assert "CompanyRevoked" not in {message["Type"] for message in client.messages}


async def test_b8_each_company_gets_its_half_of_an_employees_move(
    pair: Pair, connect: Connect
) -> None:
    calendar = pair.calendar
    left, entered = await calendar.company("u1", "old boss"), await calendar.company("new boss")
    here, there = [
        await connect(node, user, company)
        for node, user, company in zip(
            pair.nodes, ("old boss", "new boss"), (left, entered), strict=True
        )
    ]
    mover = await connect(pair.nodes[1], "u1", left)
    await calendar.database.execute(
        "UPDATE employees SET company_id = $2, name = 'New Name', job_title = 'New Title'"
        " WHERE company_id = $1 AND user_id = 'u1'",
        left,
        entered,
    )
    removed, added = await here.expect("EmployeeRemoved"), await there.expect("EmployeeAdded")
    assert removed["Data"]["CompanyId"] == left
    assert "New" not in str(removed)
    assert entered not in str(removed)
    assert added["Data"]["CompanyId"] == entered
    assert "Old" not in added
    assert left not in str(added)
    await mover.expect("EmployeeRemoved")
    await mover.expect("CompanyRevoked")
    assert (await mover.set_company(entered))["Success"]


@pytest.mark.parametrize("count", [50, 1100], ids=["each by itself", "in one Resync"])
async def test_b8_many_employees_that_move_at_once_lose_one_company_and_gain_the_other(
    pair: Pair, connect: Connect, count: int
) -> None:
    calendar, database = pair.calendar, pair.calendar.database
    left, entered = await calendar.company("old boss"), await calendar.company("new boss")
    await database.execute(
        "INSERT INTO employees (company_id, user_id, name)"
        " SELECT $1, 'm' || n, 'Old Name' FROM generate_series(1, $2::int) AS n",
        left,
        count,
    )
    await database.relayed()
    movers = [
        await connect(node, user, left)
        for node, user in zip(pair.nodes * 2, ("m1", "m1", "m7", f"m{count}"), strict=True)
    ]
    here, there = [
        await connect(pair.nodes[0], user, company)
        for user, company in (("old boss", left), ("new boss", entered))
    ]
    await database.execute(
        "UPDATE employees SET company_id = $2, name = 'New Name' WHERE company_id = $1"
        " AND user_id LIKE 'm%'",
        left,
        entered,
    )
    await calendar.event(left, "after the move")
    await calendar.event(entered, "after the move")
    for client in (here, there):
        await receives(client, "after the move")
    kinds = [[message["Type"] for message in client.messages[2:-1]] for client in (here, there)]
    if count > 1000:
        assert kinds == [["Resync"]] * 2
    else:
        assert kinds == [["EmployeeRemoved"] * count, ["EmployeeAdded"] * count]
    assert "New Name" not in str(here.messages)
    assert entered not in str(here.messages)
    assert "Old" not in str(there.messages[2:-1])
    assert left not in str(there.messages)
    for mover in movers:
        await mover.next("CompanyRevoked")
        await mover.quiet()
        assert "after the move" not in str(mover.messages)
        assert not (await mover.set_company(left))["Success"]
        assert (await mover.set_company(entered))["Success"]


async def test_b10_a_truncated_table_without_members_takes_nothing_away(
    pair: Pair, connect: Connect
) -> None:
    company = await pair.calendar.company("u1")
    clients = await both(pair, connect, "u1", company)
    await pair.calendar.database.execute("TRUNCATE events")
    await pair.calendar.event(company, "after")
    for client in clients:
        assert (await client.expect("Resync"))["Data"]["Reason"] == "truncate"
        assert (await client.expect("EventCreated"))["Data"]["Title"] == "after"


async def test_a_user_removed_and_added_in_one_transaction_stays_subscribed(
    pair: Pair, connect: Connect
) -> None:
    company = await pair.calendar.company("u1", "witness")
    clients = await both(pair, connect, "u1", company)
    connection = await pair.calendar.database.connect()
    async with connection.transaction():
        await connection.execute(
            "DELETE FROM employees WHERE user_id = 'u1' AND company_id = $1", company
        )
        await connection.execute(
            "INSERT INTO employees (company_id, user_id, name) VALUES ($1, 'u1', 'Again')", company
        )
    await pair.calendar.event(company, "delivered")
    for client in clients:
        await receives(client, "delivered")
        assert "CompanyRevoked" not in {message["Type"] for message in client.messages}


async def test_a_user_removed_and_added_in_two_transactions_must_subscribe_again(
    pair: Pair, connect: Connect
) -> None:
    company = await pair.calendar.company("u1", "witness")
    clients = await both(pair, connect, "u1", company)
    database = pair.calendar.database
    await database.execute(
        "DELETE FROM employees WHERE user_id = 'u1' AND company_id = $1", company
    )
    await database.execute(
        "INSERT INTO employees (company_id, user_id, name) VALUES ($1, 'u1', 'Again')", company
    )
    await pair.calendar.event(company, "for new subscribers")
    for client in clients:
        await client.expect("EmployeeRemoved")
        await client.expect("CompanyRevoked")
        await client.quiet()
        assert (await client.set_company(company, client.position, client.epoch))["Success"]
        assert await client.expect("EmployeeAdded")
        await receives(client, "for new subscribers")


async def test_c12_a_deleted_company_is_revoked_for_every_user_on_both_nodes(
    pair: Pair, connect: Connect
) -> None:
    calendar = pair.calendar
    company, other = await calendar.company("u1", "u2"), await calendar.company("u2")
    clients = [*await both(pair, connect, "u1", company), *await both(pair, connect, "u2", company)]
    await calendar.database.execute("DELETE FROM companies WHERE id = $1", company)
    for client in clients:
        await client.next("CompanyRevoked")
        await client.quiet()
        kinds = [message["Type"] for message in client.messages[2:]]
        assert sorted(kinds) == [
            "CompanyDeleted",
            "CompanyRevoked",
            "EmployeeRemoved",
            "EmployeeRemoved",
            "Pong",
        ]
        assert (await client.set_company(company))["Error"]["Code"] == "company_forbidden"
    for client in clients[2:]:
        assert (await client.set_company(other))["Success"]


async def test_c11_a_deleted_company_is_lost_to_a_thousand_at_once(
    pair: Pair, connect: Connect
) -> None:
    company = await pair.calendar.company("u1", "u2")
    clients: list[Client] = []
    for _ in range(10):
        clients += await asyncio.gather(
            *(
                connect(pair.nodes[number % 2], f"u{1 + number % 3 // 2}", company)
                for number in range(100)
            )
        )
    await pair.calendar.database.execute("DELETE FROM companies WHERE id = $1", company)
    for client in clients:
        await client.next("CompanyRevoked")
        await client.quiet()
    for node in pair.nodes:
        assert (await node.get("/readyz")).is_success


async def test_c9_a_row_that_changes_its_user_moves_access_with_it(
    pair: Pair, connect: Connect
) -> None:
    calendar = pair.calendar
    company = await calendar.company("u1")
    losers = await both(pair, connect, "u1", company)
    await calendar.database.execute(
        "UPDATE employees SET user_id = 'u2' WHERE company_id = $1", company
    )
    for loser in losers:
        await loser.next("CompanyRevoked")
    winners = await both(pair, connect, "u2", company)
    await calendar.event(company, "for the new one")
    for winner in winners:
        await receives(winner, "for the new one")
    for loser in losers:
        assert not (await loser.set_company(company))["Success"]
        assert "for the new one" not in str(loser.messages)


async def test_c9_a_company_that_is_made_again_under_its_id_is_for_its_new_people_only(
    pair: Pair, connect: Connect
) -> None:
    calendar, database = pair.calendar, pair.calendar.database
    company = await calendar.company("old", "both")
    old, stays = (
        await both(pair, connect, "old", company),
        await both(pair, connect, "both", company),
    )
    connection = await database.connect()
    async with connection.transaction():
        await connection.execute("DELETE FROM companies WHERE id = $1", company)
        await connection.execute("INSERT INTO companies (id, name) VALUES ($1, 'Again')", company)
        await connection.execute(HIRE, company, "both")
    await calendar.event(company, "made again at once")
    for client in stays:
        await receives(client, "made again at once")
    await database.execute("DELETE FROM companies WHERE id = $1", company)
    await database.execute("INSERT INTO companies (id, name) VALUES ($1, 'Again')", company)
    await database.execute(HIRE, company, "new")
    new = await both(pair, connect, "new", company)
    await calendar.event(company, "made again later")
    for client in new:
        await receives(client, "made again later")
    for client in (*old, *stays):
        await client.next("CompanyRevoked")
        await client.quiet()
        assert "made again later" not in str(client.messages)
        assert not (await client.set_company(company, client.position, client.epoch))["Success"]
    for client in old:
        assert "made again" not in str(client.messages)


@pytest.mark.parametrize("table", ["employees", "companies"])
async def test_c9_a_truncated_table_is_lost_to_followers_of_a_company_that_never_had_a_message(
    pair: Pair, connect: Connect, table: str
) -> None:
    """The log knows a company from its first follower on."""
    database, company = pair.calendar.database, str(uuid4())
    await database.execute(
        f"SET session_replication_role = replica;"
        f"INSERT INTO companies (id, name) VALUES ('{company}', 'A');"
        f"INSERT INTO employees (company_id, user_id, name) VALUES ('{company}', 'u1', 'U');"
        f"RESET session_replication_role"
    )
    clients = await both(pair, connect, "u1", company)
    assert [client.position for client in clients] == [0, 0]
    await database.execute(f"TRUNCATE {table} CASCADE")
    for client in clients:
        await client.next("CompanyRevoked")
        assert not (await client.set_company(company))["Success"]


async def test_a_truncated_member_table_revokes_all_users_but_those_inserted_again(
    database: Database, serve: Serve, connect: Connect
) -> None:
    calendar = Calendar(database)
    nodes = [await serve(database), await serve(database)]
    company = await calendar.company("u1", "u2")
    gone = [await connect(node, "u1", company) for node in nodes]
    kept = [await connect(node, "u2", company) for node in nodes]
    connection = await database.connect()
    async with connection.transaction():
        await connection.execute("TRUNCATE employees CASCADE")
        await connection.execute(
            "INSERT INTO employees (company_id, user_id, name) VALUES ($1, 'u2', 'U2')", company
        )
    await calendar.event(company, "after")
    for client in kept:
        await receives(client, "after")
        assert "CompanyRevoked" not in {message["Type"] for message in client.messages}
    for client in gone:
        await client.next("CompanyRevoked")
        await client.quiet()
        assert "after" not in str(client.messages)


# --- what is under way


async def received_messages(client: RawSocket) -> list[Message]:
    """Everything that comes up to the answer to a ping sent now."""
    await client.send_text('{"type": "ping"}')
    messages: list[Message] = []
    while not messages or messages[-1]["Type"] != "Pong":
        messages.append(json.loads((await client.frame()).payload))
    return messages[:-1]


async def test_c9_access_lost_during_a_replay_ends_on_all_sockets_of_the_user(
    pair: Pair, connect: Connect, raw: Raw
) -> None:
    """12 MB are more than any kernel holds for a socket that is not read."""
    calendar = pair.calendar
    company = await calendar.company("u1", "witness")
    epoch = await calendar.epoch()
    for turn in range(6):
        await calendar.events(company, 500, f"{turn} {'x' * 4000}")
    await calendar.reaches(company, 3002)
    for node in pair.nodes:
        await calendar.database.execute(
            "INSERT INTO employees (company_id, user_id, name) VALUES ($1, 'u1', 'U')"
            " ON CONFLICT DO NOTHING",
            company,
        )
        slow = await raw.upgrade(node, receive_bytes=4096)
        await slow.send_text(json.dumps({"type": "authenticate", "token": token("u1")}))
        resume = {"companyId": company, "after": 2, "epoch": epoch}
        await slow.send_text(json.dumps({"type": "setCompany", "data": resume}))
        for _ in range(100):
            await slow.frame()
        witness = await connect(node, "witness", company)
        live = await both(pair, connect, "u1", company)
        await calendar.database.execute(
            "DELETE FROM employees WHERE company_id = $1 AND user_id = 'u1'", company
        )
        await calendar.event(company, "after the loss")
        await receives(witness, "after the loss")
        messages = await received_messages(slow)
        assert messages.pop()["Type"] == "CompanyRevoked"
        at = positions(messages)
        assert at == list(range(101, 101 + len(at)))
        assert len(at) < 2900
        for client in live:
            await client.next("CompanyRevoked")
            await client.quiet()
            messages += client.messages
        assert "after the loss" not in str(messages)


async def test_c9_queued_messages_end_with_the_revocation_on_both_nodes(
    pair: Pair, connect: Connect, raw: Raw
) -> None:
    calendar = pair.calendar
    company = await calendar.company("u1", "witness")
    witnesses = await both(pair, connect, "witness", company)
    losers = [await raw.upgrade(node, receive_bytes=4096) for node in pair.nodes]
    for loser in losers:
        await follow_raw(loser, "u1", company)
    await calendar.events(company, 10, "x" * 50_000)
    await calendar.event(company, "queued")
    await calendar.database.execute(
        "DELETE FROM employees WHERE company_id = $1 AND user_id = 'u1'", company
    )
    await calendar.events(company, 10, "after the loss")
    for witness in witnesses:
        await receives(witness, "after the loss 10")
    for loser in losers:
        messages = await received_messages(loser)
        assert positions(messages) == list(range(3, 15))
        assert messages[-3]["Data"]["Title"] == "queued"
        assert [message["Type"] for message in messages[-2:]] == [
            "EmployeeRemoved",
            "CompanyRevoked",
        ]


async def test_a_user_who_subscribes_while_access_is_removed_never_keeps_it(
    pair: Pair, connect: Connect
) -> None:
    calendar = pair.calendar
    for turn in range(15):
        company = await calendar.company("u1", "witness")
        client = await connect(pair.nodes[turn % 2], "u1")
        witness = await connect(pair.nodes[turn % 2], "witness", company)
        setting = asyncio.create_task(client.set_company(company))
        removing = asyncio.create_task(
            calendar.database.execute(
                "DELETE FROM employees WHERE company_id = $1 AND user_id = 'u1'", company
            )
        )
        await asyncio.wait([setting, removing])
        await calendar.event(company, "after")
        await receives(witness, "after")
        if setting.result()["Success"]:
            await client.next("CompanyRevoked")
        await client.quiet()
        assert "after" not in str(client.messages)


# --- when access cannot be checked


async def test_c10_access_that_cannot_be_checked_is_refused_and_lost_access_stays_lost(
    database: Database, serve: Serve, connect: Connect
) -> None:
    calendar = Calendar(database)
    async with Proxy(*database.address) as proxy:
        service = await serve(database.through(proxy.port))
        company = await calendar.company("u1", "u2")
        lost, kept = await connect(service, "u1", company), await connect(service, "u2", company)
        refused = await connect(service, "u2")
        proxy.freeze()
        await database.execute("DELETE FROM employees WHERE user_id = 'u1'")
        await calendar.event(company, "in the dark")
        assert (await refused.set_company(company))["Error"]["Code"] == "unavailable"
        for client in (lost, kept, refused):
            await client.quiet()
        proxy.thaw()
        await receives(kept, "in the dark")
        await lost.next("CompanyRevoked")
        await lost.quiet()
        assert "in the dark" not in str(lost.messages)
        assert "EventCreated" not in str(refused.messages)

        async def allowed() -> bool:
            return bool((await refused.set_company(company))["Success"])

        assert await until(allowed)


Running = Callable[..., Awaitable[Node]]


@pytest.fixture
async def node(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Running]:
    """Runs a node in this process that re-checks access twenty times a second."""
    monkeypatch.setattr("notifier.delivery.periodic_recheck.RECHECK_SECONDS", 0.05)
    tasks: list[asyncio.Task[None]] = []

    async def run(database_url: str, **settings: Any) -> Node:
        node = Node(load({}, database_url=database_url, jwt_secret=SECRET, **settings))
        tasks.append(asyncio.create_task(node.run()))

        async def reads() -> bool:
            return bool(node.hub.epoch)

        await until(reads)
        return node

    yield run
    for task in tasks:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def follow(node: Node, user: str, company: str) -> tuple[Session, Line]:
    line = Line(quick=True)
    session = Session(node.services, line)
    await session.receive(f'{{"type": "authenticate", "token": "{token(user)}"}}')
    await session.receive(f'{{"type": "setCompany", "data": {{"companyId": "{company}"}}}}')
    assert line.sent[-1]["Success"], line.sent
    return session, line


async def test_the_periodic_recheck_finds_a_loss_that_no_trigger_captured(
    database: Database, node: Running
) -> None:
    company = await Calendar(database).add_company("u1", "u2")
    running = await node(database.dsn)
    await database.relayed()
    (lost, line), (kept, other) = [await follow(running, user, company) for user in ("u1", "u2")]
    await database.execute(
        "SET session_replication_role = replica; DELETE FROM employees WHERE user_id = 'u1';"
        "RESET session_replication_role"
    )

    async def revoked() -> bool:
        return line.types[-1] == "CompanyRevoked"

    await until(revoked)
    assert not lost.live_subscriptions
    assert kept.live_subscriptions
    assert other.types[-1] == "SetCompanyResult"
    for session in (lost, kept):
        session.closed()


async def test_c10_a_session_that_cannot_be_rechecked_for_too_long_is_closed(
    database: Database, node: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("notifier.delivery.periodic_recheck.BLIND_SECONDS", 0.5)
    company = await Calendar(database).add_company("u1")
    async with Proxy(*database.address) as proxy:
        running = await node(database.through(proxy.port))
        await database.relayed()
        following, line = await follow(running, "u1", company)
        idle = Line(quick=True)
        other = Session(running.services, idle)
        proxy.refuse()
        await proxy.reset()

        async def closed() -> bool:
            return line.ended is not None

        await until(closed)
        assert line.ended is not None
        assert line.ended.code == 4503
        assert idle.ended is None
        other.closed()
        assert following.stage is Stage.ENDED


async def test_c10_a_recently_checked_session_survives_a_short_outage(
    database: Database, node: Running
) -> None:
    company = await Calendar(database).add_company("u1")
    async with Proxy(*database.address) as proxy:
        running = await node(database.through(proxy.port))
        await database.relayed()
        session, line = await follow(running, "u1", company)
        proxy.refuse()
        await proxy.reset()
        queries = running.membership_query.queries
        await proxy.accept()

        async def queried_again() -> bool:
            return running.membership_query.queries > queries + 2

        await until(queried_again)
        assert line.ended is None
        assert session.live_subscriptions
        session.closed()


async def test_a_token_that_decides_is_not_checked_against_rows(
    database: Database, node: Running
) -> None:
    running = await node(database.dsn, authorization="claim")
    await PeriodicRecheck([], running.membership).run()
    assert running.membership_query.queries == 0


async def test_c15_a_node_watches_the_clock(
    database: Database, node: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("notifier.watchdogs.CLOCK_SECONDS", 0.02)
    running = await node(database.dsn)
    line = Line(quick=True)
    session = Session(running.services, line)
    await session.receive(f'{{"type": "authenticate", "token": "{token("u1")}"}}')
    now = time.time
    monkeypatch.setattr(time, "time", lambda: now() + 3601 + 10)

    async def closed() -> bool:
        return line.ended is not None

    await until(closed)
    assert line.types[-1] == "TokenExpiring"
    assert line.ended is not None
    assert line.ended.code == 4419


async def test_c15_a_clock_that_runs_too_fast_is_noticed_as_well(
    database: Database, node: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No step is large, and the timer alone would wait for a minute and more."""
    monkeypatch.setattr("notifier.watchdogs.CLOCK_SECONDS", 0.02)
    running = await node(database.dsn)
    line = Line(quick=True)
    session = Session(running.services, line)
    await session.receive(f'{{"type": "authenticate", "token": "{token("u1", ttl=60)}"}}')
    began, monotonic = time.time(), time.monotonic()
    monkeypatch.setattr(time, "time", lambda: began + (time.monotonic() - monotonic) * 30)

    async def closed() -> bool:
        return line.ended is not None

    await until(closed)
    assert line.ended is not None
    assert line.ended.code == 4419


@pytest.mark.parametrize("step", [3600, -3600, 1])
async def test_c15_a_clock_that_is_set_ends_nothing_but_tokens(
    database: Database, node: Running, monkeypatch: pytest.MonkeyPatch, step: float
) -> None:
    """It is no reason to end a socket, to stop checking access, or to stop relaying."""
    monkeypatch.setattr("notifier.watchdogs.CLOCK_SECONDS", 0.02)
    company = await Calendar(database).add_company("u1")
    running = await node(database.dsn)
    await database.relayed()
    line = Line(quick=True)
    session = Session(running.services, line)
    long_lived = token("u1", ttl=36_000)
    await session.receive(f'{{"type": "authenticate", "token": "{long_lived}"}}')
    await session.receive(f'{{"type": "setCompany", "data": {{"companyId": "{company}"}}}}')
    first_timer = session._expiry._timer
    now = time.time
    monkeypatch.setattr(time, "time", lambda: now() + step)

    async def timer_was_reset() -> bool:
        return session._expiry._timer is not first_timer or step == 1

    await until(timer_was_reset)
    queries = running.membership_query.queries

    async def queried_again() -> bool:
        return running.membership_query.queries > queries

    await until(queried_again)
    await Calendar(database).event(company, "delivered")

    async def has_received() -> bool:
        return "EventCreated" in line.types

    await until(has_received)
    assert line.ended is None
    assert running.relay.state is not State.STANDBY
    due = session._expiry._timer.when() - asyncio.get_running_loop().time()
    assert abs(due - (36_000 - 60 - (step if abs(step) > 1 else 0))) < 30
    session.closed()


# --- the token's end


@pytest.mark.parametrize("busy", ["in a replay", "with a full queue"])
async def test_c6_an_expired_token_closes_a_socket_that_is_not_read(
    database: Database, serve: Serve, raw: Raw, busy: str
) -> None:
    """The queue may hold more here than its reader's token lives: nothing is added to it."""
    service = await serve(database, jwt_leeway_seconds=0, max_buffer_bytes=64 * 1024**2)
    calendar = Calendar(database)
    company = await calendar.company("u1")
    data: Message = {"companyId": company}
    if busy == "in a replay":
        await calendar.events(company, 200, "x" * 50_000)
        await calendar.reaches(company, 201)
        epoch = await database.fetchval("SELECT epoch FROM notifier.log")
        data |= {"after": 0, "epoch": epoch}
    stuck = await raw.upgrade(service, receive_bytes=4096)
    await stuck.send_text(json.dumps({"type": "authenticate", "token": token("u1", ttl=10)}))
    await stuck.send_text(json.dumps({"type": "setCompany", "data": data}))
    for _ in range(2):
        assert b'"Success":true' in (await stuck.frame()).payload
    files = psutil.Process(service.pid).num_fds()
    if busy == "with a full queue":
        await calendar.events(company, 200, "x" * 50_000)

    async def closed() -> bool:
        return 'notifier_closed_total{code="4419"} 1.0' in (await service.get("/metrics")).text

    await until(closed)
    await calendar.event(company, "after its end")

    async def gone() -> bool:
        return psutil.Process(service.pid).num_fds() < files

    await until(gone)  # though it was never read from
    rest = await stuck.ended()
    assert b"xxx" in rest
    assert b"after its end" not in rest


# --- guessing


async def test_c17_a_flood_of_bad_tokens_disturbs_no_client(
    database: Database, serve: Serve, connect: Connect
) -> None:
    service, calendar = await serve(database), Calendar(database)
    company = await calendar.company("u1")
    client = await connect(service, "u1", company)
    codes: list[int | None] = []

    async def guess() -> None:
        for number in range(20):
            async with open_socket(service.url, proxy=None) as socket:
                await socket.send(
                    f'{{"type": "authenticate", "token": "{token("u1")[:-9]}{number:09}"}}'
                )
                with suppress(Exception):
                    while True:
                        await socket.recv()
                codes.append(socket.close_code)

    async def write() -> None:
        for _ in range(50):
            await calendar.event(company)

    await asyncio.gather(write(), *(guess() for _ in range(20)))
    assert codes == [4401] * 400
    received_messages = await client.received(lambda messages: messages[-1].get("Position") == 51)
    assert positions(received_messages) == list(range(2, 52))
