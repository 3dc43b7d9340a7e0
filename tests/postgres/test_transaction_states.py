"""States of transactions, as the answers to `await` need them, at every stage of the relay."""

from __future__ import annotations

from functools import partial

import pytest

from notifier.database.query import Query
from notifier.delivery.arrivals import ArrivalLog
from notifier.errors import Unreachable
from notifier.relay.store import RelayStore
from tests.databases import Connection, Database
from tests.postgres.relays import MakeRelay, Relayed, messages_of, new_event, types
from tests.postgres.test_disk import overflow
from tests.waiting import until

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


async def is_stored(arrival_log: ArrivalLog, number: int) -> bool:
    return await arrival_log.states([number]) == {number: "stored"}


async def test_a_transaction_whose_changes_were_dropped_is_unread_until_the_epoch_begins(
    database: Database,
    app: Connection,
    company: str,
    arrival_log: ArrivalLog,
    make_relay: MakeRelay,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    relay = make_relay()
    await known(relay, app, company)
    await overflow(database)
    number = await new_transaction(app, company)
    assert await arrival_log.states([number]) == {number: "unread"}
    begin_epoch, before = RelayStore.begin_epoch, list[dict[int, str]]()

    async def observed(store: RelayStore, reason: str) -> None:
        assert not await database.fetchval(
            "SELECT last_value >= 1::bigint << 62 FROM notifier.change_ids"
        )
        store.expect_end_before(None)  # as where no transaction is in flight
        before.append(dict(await arrival_log.states([number])))
        await begin_epoch(store, reason)

    monkeypatch.setattr(RelayStore, "begin_epoch", observed)
    await relay.start()
    await until(partial(is_stored, arrival_log, number))
    assert before == [{number: "unread"}]
    assert "Resync" in types(await messages_of(database, company))


async def test_a_relay_that_reads_on_while_the_log_is_full_does_not_make_it_stored(
    database: Database, app: Connection, company: str, arrival_log: ArrivalLog
) -> None:
    await overflow(database)
    number = await new_transaction(app, company)
    await database.execute("UPDATE notifier.log SET cursor = pg_current_snapshot()::text")
    assert await arrival_log.states([number]) == {number: "unread"}


async def known(relay: Relayed, app: Connection, company: str) -> None:
    """The log has a message of the company: then it has a Resync in each epoch. The relay does not run any more."""
    await relay.start()
    await new_event(app, company)
    await relay.settled()
    await relay.stop()


async def test_a_relay_that_ends_before_the_epoch_begins_leaves_that_to_the_next_one(
    database: Database,
    app: Connection,
    company: str,
    make_relay: MakeRelay,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The log is open again by then: nothing else shows that changes were dropped."""
    relay = make_relay()
    await known(relay, app, company)
    await overflow(database)
    begin_epoch, calls = RelayStore.begin_epoch, list[str]()

    async def once_failing(store: RelayStore, reason: str) -> None:
        calls.append(reason)
        if len(calls) == 1:
            raise Unreachable("the connection was lost")
        await begin_epoch(store, reason)

    monkeypatch.setattr(RelayStore, "begin_epoch", once_failing)
    await relay.start()

    async def has_begun() -> bool:
        return "Resync" in types(await messages_of(database, company))

    await until(has_begun)
    assert calls == ["overflow", "overflow"]


async def test_a_transaction_that_ends_after_the_log_was_reopened_is_unread_until_its_resync(
    database: Database,
    app: Connection,
    company: str,
    arrival_log: ArrivalLog,
    make_relay: MakeRelay,
) -> None:
    relay, late = make_relay(), await database.connect(app=True)
    await known(relay, app, company)
    await overflow(database)
    await late.execute("BEGIN")
    number = await late.fetchval(NUMBER)
    await new_event(late, company)
    await relay.start()
    await until(partial(is_stored_resync, database, company, 1))
    await new_event(app, company)
    await relay.settled()
    await relay.stop()
    resyncs = types(await messages_of(database, company)).count("Resync")
    await late.execute("COMMIT")
    assert await arrival_log.states([number]) == {number: "unread"}
    await relay.start()
    await until(partial(is_stored, arrival_log, number))
    assert await is_stored_resync(database, company, resyncs + 1)


async def is_stored_resync(database: Database, company: str, count: int) -> bool:
    return types(await messages_of(database, company)).count("Resync") >= count
