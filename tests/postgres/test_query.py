"""Short queries on a connection of their own: shared, retried once, and ended with their caller."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from functools import partial
from typing import Any

import asyncpg
import pytest
from prometheus_client import REGISTRY

from notifier import metrics
from notifier.database import connections
from notifier.database import query as queries
from notifier.database.connections import Connection
from notifier.database.primary import Followed
from notifier.database.query import Query
from notifier.errors import DatabaseError, Misplaced, SchemaMissing, UnexpectedAnswer, Unreachable
from tests.databases import Database
from tests.postgres.streams import cut
from tests.proxy import Proxy
from tests.waiting import DEADLINE_SECONDS, until

PID = "SELECT pg_backend_pid(), $1::text"
DIES = """
SELECT CASE WHEN nextval('public.tries') <= $1 THEN
    (SELECT pg_sleep(60)::text FROM pg_terminate_backend(pg_backend_pid())) ELSE 'lives' END
"""


@pytest.fixture
async def query(database: Database) -> AsyncIterator[Query]:
    await database.execute("CREATE SEQUENCE tries")
    query = Query(database.dsn, "queries", pooled=False)
    yield query
    query.close()


async def pid(query: Query) -> int:
    return int((await query.fetch(PID, ""))[0][0])


async def test_queries_share_a_connection_that_is_prepared_once(
    database: Database, query: Query
) -> None:
    prepared: list[tuple[Connection, str]] = []

    async def prepare(connection: Connection, statement: str) -> None:
        prepared.append((connection, statement))

    rows = await asyncio.gather(*(query.fetch(PID, "x", prepare=prepare) for _ in range(3)))
    first = rows[0][0][0]
    assert [tuple(row[0]) for row in rows] == [(first, "x")] * 3
    assert [statement for _, statement in prepared] == [PID]
    await cut(database, "queries")
    assert (await query.fetch(PID, "", prepare=prepare))[0][0] != first
    assert [statement for _, statement in prepared] == [PID] * 2
    assert prepared[0][0] is not prepared[1][0]
    assert query.queries >= 4


async def test_a_query_on_a_dead_link_is_tried_once_more(database: Database, query: Query) -> None:
    first = await pid(query)
    assert [tuple(row) for row in await query.fetch(DIES, 1)] == [("lives",)]
    assert query.queries == 3
    assert await pid(query) != first
    before = query.queries
    with pytest.raises(Unreachable):
        await query.fetch(DIES, 100)
    assert query.queries == before + 2
    assert await pid(query)


async def test_a_query_on_a_new_link_is_not_tried_again(database: Database, query: Query) -> None:
    with pytest.raises(Unreachable):
        await query.fetch(DIES, 1)
    assert query.queries == 1
    assert await pid(query)


async def test_a_query_that_timed_out_is_not_sent_again(
    query: Query, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = await pid(query)
    with monkeypatch.context() as patch:
        patch.setattr(queries, "DEADLINE_SECONDS", 0.05)
        with pytest.raises(Unreachable, match="no answer in time"):
            await query.fetch("SELECT pg_sleep(60)")
    assert query.queries == 2
    assert await pid(query) != first


async def test_a_link_that_goes_silent_while_the_driver_closes_a_statement_is_dropped(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As it does for each statement five minutes after it was prepared, and for the oldest of more than a hundred."""
    async with Proxy(*database.address) as proxy:
        link = await connections.connect(database.through(proxy.port), "queries")
        for number in range(100):
            await link.fetchval(f"SELECT 1 AS n{number}")  # with those of `connect` that are kept
        monkeypatch.setattr(connections, "DEADLINE_SECONDS", 0.05)
        proxy.freeze_after(1)  # the answer to Parse; that to Close does not come
        with pytest.raises(connections.FAILURES):
            async with asyncio.timeout(DEADLINE_SECONDS) as hanging:
                await link.fetchval("SELECT 1 AS last")
        assert link.is_closed()
        assert not hanging.expired()


@pytest.mark.parametrize("dead", [False, True])
async def test_a_value_that_cannot_be_encoded_keeps_the_link(
    database: Database, query: Query, dead: bool
) -> None:
    if dead:
        await pid(query)
        await database.execute("SELECT setval('public.tries', 1, false)")
        statement = f"SELECT $2::text FROM ({DIES}) AS given"
    else:
        statement = "SELECT $2::text FROM (SELECT $1::int) AS given"
    with pytest.raises(asyncpg.DataError):
        await query.fetch(statement, 1, "\0", may_refuse=True)
    kept = await pid(query)
    with pytest.raises(asyncpg.DataError):
        await query.fetch(PID, "\0", may_refuse=True)
    assert await pid(query) == kept


async def test_an_error_about_values_that_a_query_cannot_have_is_one_of_the_connection(
    query: Query,
) -> None:
    """The caller has no arguments that PostgreSQL may refuse, so that a proxy has made it."""
    kept = await pid(query)
    with pytest.raises(DatabaseError):
        await query.fetch("SELECT 1 / 0")
    assert await pid(query) != kept


async def test_what_cannot_be_converted_closes_the_link(query: Query) -> None:
    kept = await pid(query)
    with pytest.raises(UnexpectedAnswer):
        await query.read(lambda rows: rows[1], "SELECT 1")
    assert await pid(query) != kept


async def sleeping(database: Database, query: Query) -> asyncio.Task[Any]:
    """A query that PostgreSQL is executing."""
    link = await pid(query)
    running = asyncio.create_task(query.fetch("SELECT pg_sleep(60)"))

    async def runs() -> bool:
        return bool(
            await database.fetchval(
                "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE pid = $1 AND state = 'active')",
                link,
            )
        )

    await until(runs)
    return running


async def test_a_query_whose_caller_is_cancelled_ends_with_its_link(
    database: Database, query: Query
) -> None:
    first = await pid(query)
    running = await sleeping(database, query)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert await pid(query) != first


async def test_a_query_that_waits_for_its_answer_opens_no_other_link_once_it_has_ended(
    database: Database, query: Query
) -> None:
    """The task that batches the questions of several clients is cancelled with none of them."""
    running = await sleeping(database, query)
    query.end()
    with pytest.raises(Unreachable, match="has ended"):
        await running
    for each in (query, query.for_operator()):
        with pytest.raises(Unreachable, match="has ended"):
            await each.fetch(PID, "")


async def test_a_link_that_is_opened_while_its_query_ends_is_closed(
    query: Query, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[Connection] = []

    async def connect(*arguments: Any, **options: Any) -> Connection:
        opened.append(await connections.connect(*arguments, **options))
        query.end()
        return opened[0]

    monkeypatch.setattr(queries, "connect", connect)
    with pytest.raises(Unreachable, match="has ended"):
        await pid(query)
    (link,) = opened
    assert link.is_closed()


async def test_a_query_that_is_cancelled_ends_though_its_link_fails_then(query: Query) -> None:
    waits = asyncio.Event()

    async def prepare(connection: Connection, _: str) -> None:
        try:
            waits.set()
            await asyncio.Event().wait()
        finally:
            connection.terminate()  # so that the transaction cannot be rolled back

    running = asyncio.create_task(query.fetch(PID, "", prepare=prepare))
    await waits.wait()
    running.cancel()
    await asyncio.wait([running])
    assert running.cancelled()


async def test_a_link_that_is_cancelled_is_not_opened_again_though_it_fails_then(
    database: Database,
) -> None:
    waits = asyncio.Event()

    async def once() -> None:
        async with (
            connections.connected(database.dsn, "queries") as connection,
            connection.transaction(),
        ):
            try:
                waits.set()
                await asyncio.Event().wait()
            finally:
                connection.terminate()

    running = asyncio.create_task(connections.reconnecting("queries", once))
    await waits.wait()
    running.cancel()
    await asyncio.wait([running], timeout=DEADLINE_SECONDS)
    assert running.cancelled()


async def test_a_missing_relation_is_reported_with_its_database(
    database: Database, query: Query
) -> None:
    for _ in range(2):
        with pytest.raises(SchemaMissing, match=database.name):
            await query.fetch("SELECT FROM nothing")
        await pid(query)  # the second time on a link that was there
    with pytest.raises(DatabaseError, match="syntax error"):
        await query.fetch("SELECT FROM")


@pytest.mark.parametrize("pooled", [False, True])
async def test_through_a_pooler_no_statement_is_prepared(database: Database, pooled: bool) -> None:
    query = Query(database.dsn, "queries", pooled=pooled)
    for _ in range(2):
        rows = await query.fetch(
            "SELECT application_name, (SELECT count(*) FROM pg_prepared_statements"
            " WHERE statement LIKE '%pg_backend_pid%')"
            " FROM pg_stat_activity WHERE pid = pg_backend_pid()"
        )
    query.close()
    assert [tuple(row) for row in rows] == [("notifier queries", 0 if pooled else 1)]


async def test_the_metrics_show_whether_a_link_is_open(database: Database) -> None:
    async def shows(value: float) -> bool:
        labels = {"link": "shown"}
        return REGISTRY.get_sample_value("notifier_database_links_up", labels) == value

    metrics.expect_links("shown")
    assert await shows(0)
    query = Query(database.dsn, "shown", pooled=False)
    (backend,) = (await query.fetch("SELECT pg_backend_pid()"))[0]
    assert await shows(1)
    await database.execute("SELECT pg_terminate_backend($1)", backend)
    await until(partial(shows, 0))
    await query.fetch("SELECT")
    assert await shows(1)
    query.close()
    await until(partial(shows, 0))


async def test_a_pooler_that_leads_to_another_server_than_the_one_that_is_followed_is_refused(
    database: Database,
) -> None:
    """Access would be checked on one, and the log followed on the other."""
    followed = Followed()
    log = Query(database.dsn, "queries", pooled=True, followed=followed)
    rows = Query(database.dsn, "rows", pooled=True, read_only=True, followed=followed)
    link = await connections.connect(database.dsn, "node")
    database_oid, started = connections.server_of(link)
    link.terminate()
    for server in (None, (database_oid, started)):
        followed.server = server
        await log.fetch("SELECT")
        await rows.fetch("SELECT")
    for server in ((database_oid + 1, started), (database_oid, started + timedelta(seconds=1))):
        followed.server = server
        for query in (log, rows, rows.for_operator()):
            with pytest.raises(Misplaced, match="the pooler and the direct connection"):
                await query.fetch("SELECT")
            query.close()
    followed.server = ("0; DROP SCHEMA notifier", "' OR true")  # whatever an answer may hold
    await log.fetch("SELECT")
    log.close()


@pytest.mark.parametrize("read_only", [False, True])
async def test_through_a_pooler_the_defaults_of_transactions_are_not_those_of_the_database(
    database: Database, read_only: bool
) -> None:
    """A check in a SERIALIZABLE transaction could make a write of the application fail."""
    for setting in (
        "default_transaction_isolation = serializable",
        "default_transaction_read_only = on",
    ):
        await database.execute(f"ALTER DATABASE {database.name} SET {setting}")
    query = Query(database.dsn, "queries", pooled=True, read_only=read_only)
    (row,) = await query.fetch(
        "SELECT current_setting('transaction_isolation'), current_setting('transaction_read_only')"
    )
    query.close()
    assert tuple(row) == ("read committed", "on" if read_only else "off")
