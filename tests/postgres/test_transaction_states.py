"""States of transactions, as the answers to `await` need them, at every stage of the relay."""

from __future__ import annotations

import pytest

from notifier.database.query import Query
from notifier.delivery.arrivals import ArrivalLog
from tests.databases import Connection, Database
from tests.postgres.relays import MakeRelay, new_event

NUMBER = "SELECT pg_current_xact_id()::text::bigint"


@pytest.fixture
def arrival_log(database: Database) -> ArrivalLog:
    return ArrivalLog(Query(database.dsn, "test", pooled=False))


async def test_a_transaction_is_running_then_unread_then_stored(
    app: Connection, company: str, arrival_log: ArrivalLog, make_relay: MakeRelay
) -> None:
    async with app.transaction():
        number = await app.fetchval(NUMBER)
        await new_event(app, company)
        assert await arrival_log.states([number, number + 10_000]) == {
            number: "running",
            number + 10_000: "future",
        }
    assert await arrival_log.states([number]) == {number: "unread"}
    relay = make_relay()
    await relay.start()
    messages = await relay.messages_of(company)
    assert await arrival_log.states([number]) == {number: "stored"}
    assert messages[-1]["Tx"] == str(number)
    heads = await arrival_log.heads([company, "none"])
    assert heads[company].position == messages[-1]["Position"]
    assert heads["none"].position == 0


async def test_a_number_that_no_transaction_can_have_is_in_the_future_until_the_next_one_is_not(
    arrival_log: ArrivalLog,
) -> None:
    """PostgreSQL passes over 0, 1 and 2 as the low 32 bits of a number."""
    numbers = [high * 2**32 + low for high in (1, 2, 2**31 - 1) for low in (0, 1, 2, 3)]
    assert await arrival_log.states(numbers) == dict.fromkeys(numbers, "future")


async def test_without_changes_a_finished_transaction_is_stored_while_no_relay_runs(
    app: Connection, company: str, arrival_log: ArrivalLog
) -> None:
    await app.execute("BEGIN")
    rolled_back = await app.fetchval(NUMBER)
    await new_event(app, company)
    await app.execute("ROLLBACK")
    empty = await app.fetchval(NUMBER)
    assert await arrival_log.states([rolled_back, empty, 1, 3]) == dict.fromkeys(
        [rolled_back, empty, 1, 3], "stored"
    )


async def test_a_subtransaction_that_is_running_is_not_stored(
    app: Connection, database: Database, company: str, arrival_log: ArrivalLog
) -> None:
    writer = await database.connect(app=True)
    async with app.transaction():
        async with app.transaction():
            await new_event(app, company)
            number = await app.fetchval("SELECT max(xmin::text::bigint) FROM events")
            assert number != await app.fetchval(NUMBER)
        await writer.fetchval(NUMBER)  # a later one that is finished
        assert await arrival_log.states([number]) == {number: "running"}


async def test_the_first_transactions_of_a_backlog_are_stored_before_its_end(
    database: Database, app: Connection, company: str, arrival_log: ArrivalLog
) -> None:
    numbers = []
    for _ in range(2):
        async with app.transaction():
            numbers.append(await app.fetchval(NUMBER))
            await new_event(app, company)
    first = await database.fetchval(
        "SELECT max(id) FROM notifier.changes WHERE xid = $1::bigint::text::xid8", numbers[0]
    )
    assert await arrival_log.states(numbers) == dict.fromkeys(numbers, "unread")
    await database.execute(
        "UPDATE notifier.log SET target = pg_current_snapshot()::text, upto = $1", first
    )
    assert await arrival_log.states(numbers) == {numbers[0]: "stored", numbers[1]: "unread"}
    later = await new_transaction(app, company)
    await database.execute("UPDATE notifier.log SET upto = $1", first + 1000)
    assert (await arrival_log.states([later])) == {later: "unread"}  # not in the target


async def new_transaction(app: Connection, company: str) -> int:
    async with app.transaction():
        await new_event(app, company)
        number: int = await app.fetchval(NUMBER)
        return number
