"""The database and the way to it fail, in every manner that is known: nothing is lost."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import asyncpg
import httpx
import psutil
import pytest

from notifier.database.connections import FAILURES
from notifier.database.schema import migrate, uninstall
from notifier.demo.postgres import EmbeddedPostgres
from tests import scratch
from tests.clients import Client
from tests.conftest import Connect, Serve
from tests.databases import OPTIONS, Database, make_template
from tests.installed import needs
from tests.ports import free_port
from tests.proxy import Proxy
from tests.service.calendars import Calendar, positions
from tests.services import SECRET, Service, run
from tests.waiting import until

OURS = "application_name LIKE 'notifier %' AND datname = current_database()"


async def reconnects(service: Service) -> float:
    """How many database connections the service has lost."""
    lines = (await service.get("/metrics")).text.splitlines()
    values = [line.split()[1] for line in lines if line.startswith("notifier_reconnects_total{")]
    assert values
    return sum(map(float, values))


class Flow:
    """An app that writes and a client that must hear all of it, on one socket."""

    def __init__(self, calendar: Calendar, company: str, client: Client) -> None:
        self.calendar = calendar
        self.company = company
        self.client = client
        self.written: list[str] = []

    async def write(self, count: int = 1) -> None:
        """Single-row transactions."""
        for _ in range(count):
            title = f"event {len(self.written)}"
            await self.calendar.event(self.company, title)
            self.written.append(title)

    async def level(self) -> None:
        """The client has received what was written: once, in order, without a hole."""
        await self.client.received(lambda _: self._received()[-1:] == self.written[-1:])
        assert self._received() == self.written
        counted = positions(self.client.messages)
        assert counted == list(range(counted[0], counted[0] + len(counted)))

    async def stored(self) -> list[str]:
        """The titles of the events in the table, in the order of their transactions."""
        rows = await self.calendar.database.fetch(
            "SELECT title FROM events WHERE company_id = $1 ORDER BY created_at", self.company
        )
        return [row[0] for row in rows]

    def _received(self) -> list[str]:
        return [
            message["Data"]["Title"]
            for message in self.client.messages
            if message["Type"] == "EventCreated"
        ]


async def begin(database: Database, connect: Connect, service: Service) -> Flow:
    calendar = Calendar(database)
    company = await calendar.company("u1")
    flow = Flow(calendar, company, await connect(service, "u1", company))
    await flow.write()
    await flow.level()
    return flow


async def reason(service: Service) -> str | None:
    """Why a node is not ready; None: it is. Raises where it does not answer."""
    answer = await service.get("/readyz")
    return None if answer.is_success else str(answer.json()["reason"])


async def not_ready(service: Service) -> str:
    """Returns the reason as soon as there is one."""

    async def why() -> str | None:
        return await reason(service)

    return str(await until(why))


async def terminate(database: Database, name: str = "%") -> int:
    """Ends the backends of that name; how many."""
    ended: int = await database.fetchval(
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
        f" WHERE {OURS} AND application_name LIKE 'notifier ' || $1",
        name,
    )
    return ended


@pytest.fixture
async def proxy(database: Database) -> AsyncIterator[Proxy]:
    """The way to the database."""
    async with Proxy(*database.address) as proxy:
        yield proxy


# --- the server ends


async def test_a1_after_kill_9_of_the_postmaster_under_load(
    mortal: EmbeddedPostgres, mortal_database: Database, serve: Serve, connect: Connect
) -> None:
    service = await serve(mortal_database)
    flow = await begin(mortal_database, connect, service)
    for _ in range(2):
        await flow.write(20)
        await asyncio.to_thread(mortal.kill)
        await not_ready(service)
        await asyncio.to_thread(mortal.start)
        await flow.write(5)
        await flow.level()
    await service.ready()


async def test_a2_after_kill_9_of_another_sessions_backend(
    mortal: EmbeddedPostgres, mortal_database: Database, serve: Serve, connect: Connect
) -> None:
    flow = await begin(mortal_database, connect, await serve(mortal_database))
    await flow.write(20)
    other = await mortal_database.connect()
    os.kill(other.get_server_pid(), signal.SIGKILL)

    async def back() -> bool:
        with suppress(*FAILURES):
            flow.written = await flow.stored()  # a write may be stored though no answer came
            await flow.write(5)
            return True
        return False

    await until(back)
    await flow.level()


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGQUIT], ids=["fast", "immediate"])
async def test_a3_after_a_shutdown(
    mortal: EmbeddedPostgres,
    mortal_database: Database,
    serve: Serve,
    connect: Connect,
    how: signal.Signals,
) -> None:
    service = await serve(mortal_database)
    flow = await begin(mortal_database, connect, service)
    await flow.write(20)
    os.kill(mortal.pid, how)
    await not_ready(service)
    await asyncio.to_thread(mortal.stop)
    await asyncio.to_thread(mortal.start)
    await flow.write(5)
    await flow.level()


# --- the server ends a connection, or a statement


async def test_a4_while_every_backend_is_terminated_every_200_ms(
    database: Database, serve: Serve, connect: Connect
) -> None:
    flow = await begin(database, connect, await serve(database))
    ended = 0
    for _ in range(15):
        ended += await terminate(database)
        await flow.write(2)
        await asyncio.sleep(0.2)  # the fault's own rhythm
    assert ended >= 10
    await flow.level()


async def test_a5_while_statements_are_cancelled(
    database: Database, serve: Serve, connect: Connect
) -> None:
    flow = await begin(database, connect, await serve(database))
    for _ in range(50):
        await flow.write()
        await database.execute(f"SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE {OURS}")
    await flow.level()


# --- the network


async def test_a6_a_black_hole_is_found_and_leaves_no_stale_backend(
    database: Database, serve: Serve, connect: Connect, proxy: Proxy
) -> None:
    service = await serve(database.through(proxy.port))
    flow = await begin(database, connect, service)
    proxy.freeze()
    await flow.write(5)
    assert "answer" in await not_ready(service)  # no answer in time, or none for 10 s
    proxy.thaw()
    await flow.level()
    await service.ready()

    async def backends() -> bool:
        names = await database.fetch(
            f"SELECT application_name FROM pg_stat_activity WHERE {OURS}"
            " AND application_name IN ('notifier node', 'notifier relay')"
        )
        return sorted(name[0] for name in names) == ["notifier node", "notifier relay"]

    await until(backends)


async def test_a6_dead_links_are_replaced_by_new_ones(
    database: Database, serve: Serve, connect: Connect, proxy: Proxy
) -> None:
    """As behind a router that has forgotten them: neither end is notified, and TCP sees nothing."""
    service = await serve(database.through(proxy.port))
    flow = await begin(database, connect, service)
    proxy.forget()
    await flow.write(5)
    await not_ready(service)
    await flow.level()
    await service.ready()


async def test_a7_a_link_on_which_no_answer_comes_is_found(
    database: Database, serve: Serve, connect: Connect, proxy: Proxy
) -> None:
    service = await serve(database.through(proxy.port))
    flow = await begin(database, connect, service)
    proxy.one_way()
    await flow.write(5)
    await not_ready(service)
    proxy.thaw()
    await flow.level()


async def test_a8_on_a_narrow_link_the_heartbeat_does_not_flap(
    database: Database, serve: Serve, connect: Connect, proxy: Proxy
) -> None:
    service = await serve(database.through(proxy.port))
    flow = await begin(database, connect, service)
    proxy.throttle(16_000)
    await flow.write(60)
    await flow.level()
    assert await reason(service) is None
    assert await reconnects(service) == 0


async def test_a9_after_resets_in_the_middle_of_messages(
    database: Database, serve: Serve, connect: Connect, proxy: Proxy
) -> None:
    flow = await begin(database, connect, await serve(database.through(proxy.port)))
    proxy.throttle(100_000)
    for _ in range(5):
        await flow.write(20)
        await proxy.reset()
    proxy.throttle(None)
    await flow.level()


async def test_a10_while_catching_up_is_cut_again_and_again(
    database: Database, serve: Serve, connect: Connect, proxy: Proxy
) -> None:
    relay = await serve(database)
    service = await serve(database.through(proxy.port))
    flow = await begin(database, connect, service)
    await connect(relay, "u1", flow.company)
    proxy.refuse()
    await proxy.cut()
    for number in range(4):
        await flow.calendar.events(flow.company, 900, f"page {number}")
    flow.written += [f"page {page} {number}" for page in range(4) for number in range(1, 901)]
    proxy.throttle(400_000)
    await proxy.accept()

    async def linked() -> bool:
        return proxy.links > 0

    for _ in range(4):
        await until(linked)
        before = len(flow.client.messages)
        await asyncio.sleep(0.3)  # how far it comes before the next cut
        await proxy.cut()
        assert len(flow.client.messages) >= before
    proxy.throttle(None)
    await flow.level()


async def test_a11_notifications_during_the_set_up_of_the_listener_are_caught_up_with(
    database: Database, serve: Serve, connect: Connect, proxy: Proxy
) -> None:
    await serve(database)  # it relays: the other one depends on its notifications
    flow = await begin(database, connect, await serve(database.through(proxy.port)))
    for _ in range(4):
        await proxy.cut()
        await flow.write()
        while not proxy.links:
            await flow.write()
        await flow.write()  # and nothing afterwards that would give it away
        await flow.level()


# --- the wrong server


@contextmanager
def standby(
    primary: EmbeddedPostgres, address: tuple[str, int], *, hot: bool = True
) -> Iterator[tuple[str, int]]:
    """A copy of the primary that follows it by that address: its own URL, and its port.

    One that is not `hot` tells everybody that it is not there yet: 57P03.
    """
    with scratch.directory() as place:
        data = place / "cluster"
        owner = (primary.data / "cluster").stat()
        given = {"user": owner.st_uid, "group": owner.st_gid} if os.geteuid() == 0 else {}
        host, port = address
        subprocess.run(
            [
                primary.program("pg_basebackup"),
                *("-D", data, "-X", "stream", "-c", "fast", "-R"),
                *("-d", f"host={host} port={port} user=postgres"),
            ],
            check=True,
            capture_output=True,
        )
        if given:
            for path in (data, *data.rglob("*")):
                os.chown(path, owner.st_uid, owner.st_gid)
        own = free_port()
        options = {**OPTIONS, "port": str(own), "unix_socket_directories": "", "fsync": "off"}
        options["hot_standby"] = "on" if hot else "off"
        words = [word for option, value in options.items() for word in ("-c", f"{option}={value}")]
        with (place / "log").open("wb") as log:
            server = subprocess.Popen(
                [primary.program("postgres"), "-D", data, *words],
                cwd="/",
                stdout=log,
                stderr=log,
                start_new_session=True,
                **given,  # type: ignore[call-overload]  # user and group, or neither
            )
        try:
            yield f"postgresql://postgres@127.0.0.1:{own}/", own
        finally:
            server.send_signal(signal.SIGQUIT)
            server.wait(20)


def answers(url: str) -> Callable[[], Awaitable[bool]]:
    async def probe() -> bool:
        with suppress(*FAILURES):
            connection = await asyncpg.connect(url)
            await connection.close()
            return True
        return False

    return probe


async def test_a12_a_node_does_not_listen_on_a_standby_until_it_is_promoted(
    mortal: EmbeddedPostgres,
    mortal_database: Database,
    serve: Serve,
    connect: Connect,
    tmp_path: Path,
) -> None:
    company = await Calendar(mortal_database).add_company("u1")
    with standby(mortal, mortal_database.address) as (url, _):
        copy = Database(url, mortal_database.name)
        await until(answers(copy.dsn))
        service = await serve(copy, ready=False)

        async def refused() -> bool:
            with suppress(httpx.TransportError):
                return "standby" in str(await reason(service))
            return False

        await until(refused)
        assert (await service.get("/livez")).is_success
        question = ("why", "--company", company, "--user", "u1")
        status, printed = await run(tmp_path, *question, database_url=copy.dsn, jwt_secret=SECRET)
        assert (status, "this is a standby" in printed) == (1, True), printed
        await copy.execute("SELECT pg_promote()")
        await service.ready()
        await copy.relayed()
        client = await connect(service, "u1", company)
        await Calendar(copy).event(company)
        await client.expect("EventCreated")
        copy.leave()


async def test_a12_a_server_that_is_still_starting_is_waited_for(
    mortal: EmbeddedPostgres, mortal_database: Database, serve: Serve
) -> None:
    with standby(mortal, mortal_database.address, hot=False) as (url, _):
        copy = Database(url, mortal_database.name)

        async def not_there_yet() -> bool:
            try:
                await asyncpg.connect(copy.dsn)
            except asyncpg.CannotConnectNowError as error:
                return error.sqlstate == "57P03"
            except OSError:
                return False
            raise AssertionError

        await until(not_there_yet)
        service = await serve(copy, ready=False)

        async def reported() -> bool:
            with suppress(httpx.TransportError):
                return "cannot reach the database" in str(await reason(service))
            return False

        await until(reported)
        assert (await service.get("/livez")).is_success


async def test_a15_a_failover_that_lost_commits_is_another_epoch(
    mortal: EmbeddedPostgres, mortal_database: Database, serve: Serve, connect: Connect
) -> None:
    calendar = Calendar(mortal_database)
    company = await calendar.add_company("u1")
    async with Proxy(*mortal_database.address) as way, Proxy(*mortal_database.address) as feed:
        service = await serve(mortal_database.through(way.port))
        await mortal_database.relayed()
        client = await connect(service, "u1", company)
        await calendar.event(company, "kept")
        await client.expect("EventCreated")
        with ExitStack() as stack:
            backup = standby(mortal, ("127.0.0.1", feed.port))
            url, port = await asyncio.to_thread(stack.enter_context, backup)
            copy = Database(url, mortal_database.name)
            await until(answers(copy.dsn))

            async def replicates() -> bool:
                return bool(
                    await mortal_database.fetchval("SELECT count(*) FROM pg_stat_replication")
                )

            await until(replicates)
            feed.freeze()
            for _ in range(3):
                await calendar.event(company, "lost")
            for _ in range(3):
                lost = await client.expect("EventCreated")
            before = client.epoch
            await asyncio.to_thread(mortal.kill)
            way.refuse()
            await way.cut()
            await feed.reset()
            await copy.execute("SELECT pg_promote()")
            async with Proxy("127.0.0.1", port) as other:
                other.refuse()
                other.port = way.port
                await other.accept()
                resync = await client.expect("Resync")
                assert resync["Data"]["Reason"] == "epoch"
                assert resync["Data"]["Epoch"] == client.epoch != before
                assert resync["Position"] == 1
                await Calendar(copy).event(company, "after")
                assert (await client.expect("EventCreated"))["Position"] == 2
                back = await connect(service, "u1", company, lost["Position"], before)
                assert back.messages[1]["Data"]["Recovered"] is False
                future = await connect(service, "u1", company, lost["Position"], client.epoch)
                assert future.messages[1]["Data"]["Recovered"] is False
                copy.leave()


async def test_a18_listening_to_another_database_of_the_cluster_is_refused(
    make_database: Callable[[], Awaitable[Database]], serve: Serve
) -> None:
    database, other = await make_database(), await make_database()
    service = await serve(database, ready=False, listen_database_url=other.dsn)

    async def refused() -> bool:
        with suppress(httpx.TransportError):
            return "NOTIFIER_LISTEN_DATABASE_URL" in str(await reason(service))
        return False

    await until(refused)


# --- the server's settings


async def test_a19_time_outs_of_the_role_or_the_database_are_overridden(
    database: Database, serve: Serve, connect: Connect
) -> None:
    settings = {
        "idle_session_timeout": "1s",
        "idle_in_transaction_session_timeout": "1s",
        "statement_timeout": "1s",
        "default_transaction_isolation": "serializable",
        "synchronous_commit": "off",
    }
    for name, value in settings.items():
        await database.execute(f"ALTER DATABASE {database.name} SET {name} = '{value}'")
    service = await serve(database)
    flow = await begin(database, connect, service)
    await asyncio.sleep(2.5)  # as long as the time-outs need
    await flow.write(5)
    await flow.level()
    assert await reconnects(service) == 0


# --- the server's disk


@needs(os.geteuid() == 0, "a file system of its own needs root")
async def test_a23_a_full_disk_stops_the_app_and_not_the_notifier(
    tmp_path: Path, serve: Serve, connect: Connect
) -> None:
    with tempfile.TemporaryDirectory(prefix="notifier-") as name:
        place = Path(name)
        with (
            small_disk(place),
            EmbeddedPostgres(place / "data", options=OPTIONS, durable=False) as server,
        ):
            await _full_disk(server, place, serve, connect)


@contextmanager
def small_disk(place: Path) -> Iterator[None]:
    """A file system of 200 MB."""
    options = "size=200m,mode=755"
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", place], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", place], check=True)


async def _full_disk(server: EmbeddedPostgres, place: Path, serve: Serve, connect: Connect) -> None:
    database = Database(server.dsn(), await make_template(server.dsn()))
    service = await serve(database)
    flow = await begin(database, connect, service)
    filler = place / "filler"
    with filler.open("wb") as file, suppress(OSError):
        while True:
            file.write(b"\0" * 65536)
            file.flush()
    with pytest.raises(FAILURES):
        await flow.calendar.events(flow.company, 1_000_000)
    reported = len(service.log())
    used = psutil.Process(service.pid).cpu_times()
    await asyncio.sleep(2)  # long enough for a busy loop to show
    now = psutil.Process(service.pid).cpu_times()
    assert now.user + now.system - used.user - used.system < 1
    assert len(service.log()) - reported < 50_000
    assert (await service.get("/livez")).is_success
    filler.unlink()
    await asyncio.to_thread(server.stop)
    await asyncio.to_thread(server.start)
    await flow.write()
    await flow.client.received(
        lambda messages: messages[-1].get("Data", {}).get("Title") == flow.written[-1]
    )
    counted = positions(flow.client.messages)
    assert counted == list(range(counted[0], counted[0] + len(counted)))
    database.leave()


# --- locks, long transactions, large numbers, old messages


async def test_a25_while_the_log_is_locked_clients_are_served_from_memory(
    database: Database, serve: Serve, connect: Connect
) -> None:
    service = await serve(database)
    flow = await begin(database, connect, service)
    await flow.write(10)
    await flow.level()
    operator = await database.connect()
    async with operator.transaction():
        await operator.execute("LOCK TABLE notifier.messages IN ACCESS EXCLUSIVE MODE")
        await flow.write(10)
        back = await connect(service, "u1", flow.company, 1, flow.client.epoch)
        await back.received(lambda messages: positions(messages)[-1:] == [12])
        await not_ready(service)
    await flow.level()
    async with operator.transaction():
        await operator.execute("LOCK TABLE notifier.changes_0 IN ACCESS EXCLUSIVE MODE")
        writing = asyncio.create_task(flow.write(10))
        await not_ready(service)
    await writing
    await flow.level()


async def test_a26_an_open_transaction_delays_no_other(
    database: Database, serve: Serve, connect: Connect
) -> None:
    flow = await begin(database, connect, await serve(database))
    idle = await database.connect(app=True)
    async with idle.transaction():
        await idle.execute(
            "INSERT INTO events (company_id, title, starts_at, ends_at)"
            " VALUES ($1, 'at last', now(), now())",
            flow.company,
        )
        await flow.write(20)
        await flow.level()
    flow.written.append("at last")
    await flow.level()


@pytest.mark.parametrize("edge", [2**31, 2**32, 2**53 - 100], ids=["2^31", "2^32", "2^53"])
async def test_a27_numbers_pass_their_edges(
    database: Database, serve: Serve, connect: Connect, edge: int
) -> None:
    company = await Calendar(database).add_company("u1")
    await database.execute("TRUNCATE notifier.changes_0, notifier.changes_1")
    await database.execute("SELECT setval('notifier.change_ids', $1)", edge - 3)
    await database.execute(
        "UPDATE notifier.log SET seq = $1, saved_by = pg_current_xact_id()", edge - 3
    )
    await database.execute(
        "INSERT INTO notifier.positions (company, position) VALUES ($1, $2)", company, edge - 3
    )
    service = await serve(database)
    client = await connect(service, "u1", company)
    assert client.position == edge - 3
    flow = Flow(Calendar(database), company, client)
    await flow.write(10)
    await flow.level()
    assert client.position == edge + 7
    back = await connect(service, "u1", company, edge - 1, client.epoch)
    await back.received(lambda messages: positions(messages) == list(range(edge, edge + 8)))


async def test_a28_messages_pruned_while_a_client_was_away_are_reported_as_lost(
    database: Database, serve: Serve, connect: Connect
) -> None:
    service = await serve(database)
    flow = await begin(database, connect, service)
    await flow.write(30)
    await flow.level()
    left = flow.client.position
    await flow.client.leave()
    service.kill()
    await service.ended()
    await database.execute(
        "INSERT INTO notifier.positions AS p (company, position)"
        " SELECT company, max(position) FROM notifier.messages GROUP BY company"
        " ON CONFLICT (company) DO UPDATE SET position = excluded.position"
    )
    await database.execute(
        "UPDATE notifier.log SET seq = m.seq, cursor = pg_current_snapshot(),"
        " saved_by = pg_current_xact_id()"
        " FROM (SELECT max(seq) AS seq FROM notifier.messages) AS m"
    )
    await database.execute("TRUNCATE notifier.messages")
    await service.start()
    await service.ready()
    assert left is not None
    gone = await connect(service, "u1", flow.company, left - 5, flow.client.epoch)
    assert gone.messages[1]["Data"] | {"Epoch": ""} == {
        "CompanyId": flow.company,
        "Position": left,
        "Epoch": "",
        "Recovered": False,
    }
    level = await connect(service, "u1", flow.company, left, flow.client.epoch)
    assert level.messages[1]["Data"]["Recovered"] is True
    await flow.write()
    assert (await gone.expect("EventCreated"))["Position"] == left + 1
    assert (await level.expect("EventCreated"))["Position"] == left + 1


async def test_a_log_that_is_migrated_again_gives_no_open_socket_positions_that_it_has(
    database: Database, serve: Serve, connect: Connect
) -> None:
    """The new log knows no company, so its epoch begins without a Resync. Clients would drop its messages as repeated ones."""
    service = await serve(database)
    flow = await begin(database, connect, service)
    await uninstall(database.dsn, lambda _: None)
    await flow.calendar.event(flow.company, "while nothing captures")
    await migrate(database.dsn, calendar=True)
    assert await flow.client.closed() == 4503
    await service.ready()
    position, epoch = flow.client.position, flow.client.epoch
    again = await connect(service, "u1", flow.company, position, epoch)
    assert again.messages[1]["Data"]["Recovered"] is False
    assert again.epoch != epoch
