"""PgBouncer in transaction mode: beside a direct connection it serves, alone it is refused by name."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from pathlib import Path

import asyncpg
import httpx
import pytest

from tests.conftest import Connect, Serve
from tests.databases import Database
from tests.pooler import Pooler
from tests.service.calendars import Calendar, positions
from tests.service.test_faults_database import reason
from tests.services import SECRET, Service, run
from tests.waiting import until

REMEDY = "NOTIFIER_LISTEN_DATABASE_URL"

REFUSED = (
    "tcp_keepalives_idle, tcp_keepalives_interval, tcp_keepalives_count, tcp_user_timeout,"
    " statement_timeout, lock_timeout, idle_session_timeout, idle_in_transaction_session_timeout,"
    " transaction_timeout, default_transaction_isolation, default_transaction_read_only,"
    " synchronous_commit, jit, max_parallel_workers_per_gather, search_path, row_security,"
    " client_min_messages, DateStyle, IntervalStyle, bytea_output, extra_float_digits, options"
)
"""The parameters that an administrator adds to ignore_startup_parameters, one error after the other."""


async def not_ready(service: Service, words: str) -> None:
    """Returns when `/readyz` answers 503 with a reason that has these words."""

    async def reported() -> bool:
        with suppress(httpx.TransportError):
            why = await reason(service)
            return why is not None and words in why
        return False

    await until(reported)


async def test_2_1_queries_through_a_pooler_and_a_direct_connection_to_listen(
    database: Database, tmp_path: Path, serve: Serve, connect: Connect
) -> None:
    async with Pooler(database) as pooler:
        urls = {
            "database_url": database.through(pooler.port),
            "listen_database_url": database.dsn,
            "jwt_secret": SECRET,
        }
        for words in (("migrate", "--calendar"), ("check",)):
            status, output = await run(tmp_path, *words, **urls)
            assert status == 0, output
        service = await serve(urls["database_url"], listen_database_url=urls["listen_database_url"])
        company = await Calendar(database).company("u1")
        first = await connect(service, "u1", company)
        app = await asyncpg.connect(database.through(pooler.port, app=True), statement_cache_size=0)
        async with app.transaction():
            await app.execute("SET LOCAL notifier.actor = 'u7'")
            await app.execute(
                "PREPARE add (text) AS INSERT INTO events (company_id, title, starts_at,"
                f" ends_at) VALUES ('{company}', $1, now(), now())"
            )
            await app.execute("EXECUTE add ('pooled')")
            await app.execute("DEALLOCATE add")
        await app.close()
        message = await first.expect("EventCreated")
        assert (message["Data"]["Title"], message["Actor"]) == ("pooled", "u7")
        resumed = await asyncio.gather(
            *(connect(service, "u1", company, 0, first.epoch) for _ in range(20))
        )
        for client in resumed:
            await client.received(lambda messages: positions(messages) == [1, 2])


async def test_2_2_a_pooler_alone_is_refused_with_the_remedy(
    database: Database, tmp_path: Path, serve: Serve
) -> None:
    async with Pooler(database) as pooler:
        url = database.through(pooler.port)
        status, output = await run(tmp_path, "check", database_url=url, jwt_secret=SECRET)
        assert (status, REMEDY in output) == (1, True), output
        service = await serve(url, ready=False)
        await not_ready(service, REMEDY)
        assert REMEDY in service.log()


@pytest.mark.parametrize("size", [1, 5])
async def test_2_3_a_pooler_that_ignores_our_settings_is_refused_though_it_is_idle(
    database: Database, tmp_path: Path, serve: Serve, size: int
) -> None:
    """An idle pool returns the same server connection each time, so that NOTIFY seems to work."""
    async with Pooler(database, size=size, ignored=REFUSED) as pooler:
        url = database.through(pooler.port)
        status, output = await run(tmp_path, "check", database_url=url, jwt_secret=SECRET)
        assert (status, REMEDY in output) == (1, True), output
        service = await serve(url, ready=False)
        await not_ready(service, REMEDY)


async def test_2_4_behind_such_a_pooler_a_node_is_never_ready_while_it_receives_nothing(
    database: Database, serve: Serve
) -> None:
    async with Pooler(database, ignored=REFUSED) as pooler:
        service = await serve(database.through(pooler.port), ready=False)
        await not_ready(service, REMEDY)
        app = await asyncpg.connect(database.through(pooler.port, app=True), statement_cache_size=0)
        for _ in range(30):
            await app.execute("INSERT INTO companies (name) VALUES ('A')")
            assert await reason(service) is not None
        await app.close()
        locks = await database.fetchval(
            "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND database ="
            " (SELECT oid FROM pg_database WHERE datname = current_database())"
        )
        assert locks == 0, "an advisory lock was left in the pool"


async def test_2_5_a_node_whose_pooler_is_gone_is_not_ready_and_recovers(
    database: Database, serve: Serve, connect: Connect
) -> None:
    async with Pooler(database) as pooler:
        service = await serve(database.through(pooler.port), listen_database_url=database.dsn)
        calendar = Calendar(database)
        company = await calendar.company("u1")
        client = await connect(service, "u1", company)
        await pooler.kill()
        await not_ready(service, "")
        await calendar.event(company)
        await client.expect("EventCreated")
        refused = await (await connect(service, "u1")).set_company(company)
        assert refused["Error"]["Code"] == "unavailable"
        await pooler.start()
        await service.ready()
        await connect(service, "u1", company)
