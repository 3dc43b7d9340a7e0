"""Short queries on a connection of their own: shared, retried once, and ended with their caller."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import asyncpg
import pytest

from notifier.database import query as queries
from notifier.database.connections import Connection
from notifier.database.query import Query
from notifier.errors import DatabaseError, SchemaMissing, Unreachable
from tests.databases import Database
from tests.postgres.test_stream import cut
from tests.waiting import until

PID = "SELECT pg_backend_pid(), $1::text"
DIES = """
SELECT CASE WHEN nextval('public.tries') <= $1 THEN
    (SELECT pg_sleep(60)::text FROM pg_terminate_backend(pg_backend_pid())) ELSE 'lives' END
"""


@pytest.fixture
async def asker(database: Database) -> AsyncIterator[Query]:
    await database.execute("CREATE SEQUENCE tries")
    asker = Query(database.dsn, "questions", pooled=False)
    yield asker
    asker.close()


async def pid(asker: Query) -> int:
    return int((await asker.fetch(PID, ""))[0][0])


async def test_questions_share_a_connection_that_is_prepared_once(
    database: Database, asker: Query
) -> None:
    prepared: list[tuple[Connection, str]] = []

    async def prepare(connection: Connection, query: str) -> None:
        prepared.append((connection, query))

    rows = await asyncio.gather(*(asker.fetch(PID, "x", prepare=prepare) for _ in range(3)))
    first = rows[0][0][0]
    assert [tuple(row[0]) for row in rows] == [(first, "x")] * 3
    assert [query for _, query in prepared] == [PID]
    await cut(database, "questions")
    assert (await asker.fetch(PID, "", prepare=prepare))[0][0] != first
    assert [query for _, query in prepared] == [PID] * 2
    assert prepared[0][0] is not prepared[1][0]
    assert asker.queries >= 4


async def test_a_link_that_was_dead_is_tried_once_more(database: Database, asker: Query) -> None:
    first = await pid(asker)
    assert [tuple(row) for row in await asker.fetch(DIES, 1)] == [("lives",)]
    assert asker.queries == 3
    assert await pid(asker) != first
    before = asker.queries
    with pytest.raises(Unreachable):
        await asker.fetch(DIES, 100)
    assert asker.queries == before + 2
    assert await pid(asker)


async def test_a_link_that_is_new_is_not_tried_once_more(database: Database, asker: Query) -> None:
    with pytest.raises(Unreachable):
        await asker.fetch(DIES, 1)
    assert asker.queries == 1
    assert await pid(asker)


async def test_a_question_without_an_answer_in_time_is_not_asked_again(
    asker: Query, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = await pid(asker)
    with monkeypatch.context() as patch:
        patch.setattr(queries, "DEADLINE_SECONDS", 0.05)
        with pytest.raises(Unreachable, match="no answer in time"):
            await asker.fetch("SELECT pg_sleep(60)")
    assert asker.queries == 2
    assert await pid(asker) != first


@pytest.mark.parametrize("dead", [False, True])
async def test_a_word_that_cannot_be_written_is_no_fault_of_the_link(
    database: Database, asker: Query, dead: bool
) -> None:
    if dead:
        await pid(asker)
        await database.execute("SELECT setval('public.tries', 1, false)")
        query = f"SELECT $2::text FROM ({DIES}) AS asked"
    else:
        query = "SELECT $2::text FROM (SELECT $1::int) AS asked"
    with pytest.raises(asyncpg.DataError):
        await asker.fetch(query, 1, "\0")
    kept = await pid(asker)
    with pytest.raises(asyncpg.DataError):
        await asker.fetch(PID, "\0")
    assert await pid(asker) == kept


async def test_a_question_that_nobody_waits_for_ends_with_its_link(
    database: Database, asker: Query
) -> None:
    first = await pid(asker)
    asking = asyncio.create_task(asker.fetch("SELECT pg_sleep(60)"))

    async def runs() -> bool:
        return bool(
            await database.fetchval(
                "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE pid = $1 AND state = 'active')",
                first,
            )
        )

    await until(runs)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    assert await pid(asker) != first


async def test_what_the_schema_lacks_is_said_and_where(database: Database, asker: Query) -> None:
    for _ in range(2):
        with pytest.raises(SchemaMissing, match=database.name):
            await asker.fetch("SELECT FROM nothing")
        await pid(asker)  # the second time on a link that was there
    with pytest.raises(DatabaseError, match="syntax error"):
        await asker.fetch("SELECT FROM")


@pytest.mark.parametrize("pooled", [False, True])
async def test_through_a_pooler_no_statement_is_prepared(database: Database, pooled: bool) -> None:
    asker = Query(database.dsn, "questions", pooled=pooled)
    for _ in range(2):
        rows = await asker.fetch(
            "SELECT application_name, (SELECT count(*) FROM pg_prepared_statements"
            " WHERE statement LIKE '%pg_backend_pid%')"
            " FROM pg_stat_activity WHERE pid = pg_backend_pid()"
        )
    asker.close()
    assert [tuple(row) for row in rows] == [("notifier questions", 0 if pooled else 1)]
