"""The doorbell: a change wakes the relay whenever it is committed while the relay sleeps or falls asleep."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import asyncpg
import pytest
from structlog.testing import capture_logs

from notifier import metrics
from notifier.check.links import check
from notifier.database.constants import DOORBELL_LOCK, FULL_MARK
from notifier.database.schema import migrate
from notifier.demo.postgres import EmbeddedPostgres
from notifier.relay.doorbell import Doorbell
from notifier.relay.pipeline import Pipeline, TooMuch
from notifier.settings import load
from notifier.watches import CALENDAR, Watch
from tests.databases import OPTIONS, Connection, Database, directory, programs
from tests.ports import free_port
from tests.postgres.relays import (
    MakeRelay,
    Relayed,
    messages_of,
    new_company,
    new_event,
    types,
)
from tests.services import SECRET
from tests.waiting import DEADLINE_SECONDS, until


@pytest.fixture(autouse=True)
def only_the_doorbell_wakes_the_relay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("notifier.relay.relay.SLEEPING_READ_SECONDS", 600.0)


@pytest.fixture(autouse=True)
def no_change_is_found_without_a_ring() -> Iterator[None]:
    before = unannounced()
    yield
    assert unannounced() == before


def unannounced() -> float:
    return float(metrics.FALLBACK_FINDS._value.get())


COMMITTED = "committed"
"""What a step returns that has committed a transaction which rings."""


class Steps:
    """Runs code of the test at moments of the relay's way to sleep, each the next time that it comes to them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.at: dict[str, Callable[[], Awaitable[object]]] = {}
        self.sleeps = 0
        """How often it has waited for a ring."""
        arm, wait, disarm = Doorbell.arm, Doorbell.wait_for_ring, Doorbell.disarm

        async def arm_in_steps(doorbell: Doorbell) -> bool:
            await self._run("before it tries the lock")
            armed = await arm(doorbell)
            await self._run("before its last read" if armed else "refused")
            return armed

        async def wait_in_steps(doorbell: Doorbell, seconds: float) -> bool:
            if await self._run("after its last read") == COMMITTED:
                await until(lambda: _is_rung(doorbell))  # before it waits
            asleep = asyncio.create_task(self._fall_asleep())  # runs when the relay waits
            rung = await wait(doorbell, seconds)
            await asleep
            return rung

        async def disarm_in_steps(doorbell: Doorbell) -> None:
            await disarm(doorbell)
            await self._run("disarmed")

        monkeypatch.setattr(Doorbell, "arm", arm_in_steps)
        monkeypatch.setattr(Doorbell, "wait_for_ring", wait_in_steps)
        monkeypatch.setattr(Doorbell, "disarm", disarm_in_steps)

    async def _fall_asleep(self) -> None:
        """Takes its step in the moment in which the sleep is counted: a later one is for the next sleep."""
        self.sleeps += 1
        await self._run("asleep")

    async def _run(self, moment: str) -> object:
        step = self.at.pop(moment, None)
        return None if step is None else await step()

    async def asleep(self, sleeps: int = 1) -> None:
        """Returns when the relay has waited for a ring that often."""

        async def has_slept() -> bool:
            return self.sleeps >= sleeps

        await until(has_slept)


async def _is_rung(doorbell: Doorbell) -> bool:
    return doorbell._rung.is_set()


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> Steps:
    return Steps(monkeypatch)


async def stored(database: Database, company: str, count: int = 1) -> None:
    """Returns when so many events are in the log. Nothing is written meanwhile, which might ring."""

    async def are_stored() -> bool:
        return types(await messages_of(database, company)) == ["EventCreated"] * count

    await until(are_stored)


async def shares_the_lock(connection: Connection) -> bool:
    return bool(
        await connection.fetchval(
            "SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND granted"
            " AND mode = 'ShareLock' AND objid::bigint + (classid::bigint << 32) = $1"
            " AND pid = pg_backend_pid())",
            DOORBELL_LOCK,
        )
    )


async def wake(database: Database) -> None:
    await database.execute("SELECT pg_notify('notifier_changes', '')")


@pytest.mark.parametrize(
    ("written", "committed"),
    [
        ("before it tries the lock", "before it tries the lock"),
        ("before it tries the lock", "refused"),
        ("before its last read", "before its last read"),
        ("before its last read", "after its last read"),
        ("before its last read", "asleep"),
        ("after its last read", "after its last read"),
        ("after its last read", "asleep"),
        ("asleep", "asleep"),
    ],
)
async def test_a30_a_change_is_stored_wherever_the_relay_is_on_its_way_to_sleep(
    written: str,
    committed: str,
    database: Database,
    app: Connection,
    company: str,
    steps: Steps,
    relay: Relayed,
) -> None:
    """A writer that got the lock keeps the relay awake until it has ended; every other one rings."""
    await steps.asleep()
    transaction = app.transaction()

    async def write() -> None:
        await transaction.start()
        await new_event(app, company)

    async def commit() -> str:
        await transaction.commit()
        return COMMITTED

    async def write_and_commit() -> str:
        await write()
        return await commit()

    if written == committed:
        steps.at[written] = write_and_commit
    else:
        steps.at |= {written: write, committed: commit}
    await wake(database)
    await stored(database, company)
    assert not steps.at


async def test_a30_a_transaction_that_wrote_in_an_earlier_sleep_rings_when_it_commits(
    database: Database, app: Connection, company: str, steps: Steps, relay: Relayed
) -> None:
    """It does not have the lock, so it does not keep the relay awake."""
    other = await database.connect(app=True)
    await steps.asleep()
    async with other.transaction():
        await new_event(other, company)
        for sleeps in (2, 3):
            await new_event(app, company)
            await steps.asleep(sleeps)
        assert not await shares_the_lock(other)
        await stored(database, company, 2)
    await stored(database, company, 3)


async def test_a30_a_writer_that_gets_the_lock_while_the_relay_wakes_up_is_read_by_the_awake_relay(
    database: Database,
    app: Connection,
    company: str,
    steps: Steps,
    relay: Relayed,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It writes after the lock is released, and commits after the read that the ring caused."""
    await steps.asleep()
    has_written = asyncio.Event()
    take = Pipeline.take
    transaction = app.transaction()
    taken: list[int | TooMuch] = []

    async def write() -> None:
        await transaction.start()
        await new_event(app, company)
        assert await shares_the_lock(app)
        has_written.set()

    async def take_before_the_commit(pipeline: Pipeline) -> int | TooMuch:
        await has_written.wait()
        found = await take(pipeline)
        if not taken:
            taken.append(found)
            await transaction.commit()
        return found

    steps.at["disarmed"] = write
    monkeypatch.setattr(Pipeline, "take", take_before_the_commit)
    await wake(database)
    await stored(database, company)
    assert taken == [0]


async def test_a_change_of_a_path_rings(
    database: Database, make_relay: MakeRelay, steps: Steps
) -> None:
    """`store_change` stores it, and not `capture`."""
    await database.execute(
        "CREATE TABLE inboxes (id int PRIMARY KEY, account int);"
        "CREATE TABLE letters (id int PRIMARY KEY, inbox int REFERENCES inboxes);"
        "INSERT INTO inboxes VALUES (1, 7)"
    )
    letters = Watch(table="letters", entity="Letter", company="inbox -> inboxes.account")
    await migrate(database.dsn, watches=[*CALENDAR, letters])
    relay = make_relay()
    await relay.start()
    await steps.asleep()
    await database.execute("UPDATE inboxes SET account = 8")

    async def both_reload() -> bool:
        found = [types(await messages_of(database, company)) for company in (7, 8)]
        return found == [["Resync"], ["Resync"]]

    await until(both_reload)


async def test_a_new_configuration_rings(
    database: Database, app: Connection, company: str, steps: Steps, relay: Relayed
) -> None:
    await steps.asleep()
    await new_event(app, company)
    await steps.asleep(2)
    renamed = [*CALENDAR[:2], Watch(table="companies", entity="Firm", company="id")]
    await migrate(database.dsn, watches=renamed)

    async def reloads() -> bool:
        return types(await messages_of(database, company)) == ["EventCreated", "Resync"]

    await until(reloads)


async def test_a_writer_rings_although_the_log_is_full(
    database: Database,
    app: Connection,
    company: str,
    steps: Steps,
    relay: Relayed,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its change is dropped, but the relay wakes up and lets changes be stored again."""
    monkeypatch.setattr("notifier.relay.maintenance.AWAKE_SECONDS", 0.0)
    await steps.asleep()
    await new_event(app, company)
    await steps.asleep(2)
    await database.execute(
        "SELECT setval('notifier.change_ids', $1 + last_value) FROM notifier.change_ids", FULL_MARK
    )
    await new_event(app, company)

    async def reloads() -> bool:
        messages = await messages_of(database, company)
        return "overflow" in [message["Data"].get("Reason") for message in messages]

    await until(reloads)


@pytest.mark.parametrize("function", ["pg_advisory_lock", "pg_advisory_lock_shared"])
async def test_while_another_session_holds_the_lock_every_change_is_stored(
    function: str, database: Database, app: Connection, company: str, steps: Steps, relay: Relayed
) -> None:
    """The relay does not sleep; writers ring, though they need not, where they cannot share the lock."""
    stranger, listener = await database.connect(app=True), await database.connect()
    rung: list[object] = []
    await listener.add_listener("notifier_changes", lambda _, pid, *__: rung.append(pid))
    await steps.asleep()
    waiting = asyncio.create_task(stranger.execute(f"SELECT {function}($1)", DOORBELL_LOCK))
    await database.blocked()
    await wake(database)
    await waiting
    for _ in range(3):
        await new_event(app, company)
    await stored(database, company, 3)
    await database.execute("SELECT pg_notify('notifier_changes', '')")

    async def last() -> bool:
        await listener.execute("SELECT")
        return len(rung) >= (5 if function == "pg_advisory_lock" else 2)

    await until(last)
    assert (app.get_server_pid() in rung) is (function == "pg_advisory_lock")
    assert steps.sleeps == 1


async def test_the_statement_of_the_operations_page_finds_the_holder_of_the_lock(
    database: Database, steps: Steps, relay: Relayed
) -> None:
    page = (Path(__file__).parents[2] / "docs/operations.md").read_text()
    section = page.partition("## The doorbell in `pg_locks`")[2]
    statement = section.partition("```sql\n")[2].partition("```")[0]
    await steps.asleep()
    rows = await database.fetch(statement)
    assert [tuple(row)[:1] + tuple(row)[2:4] for row in rows] == [
        ("ExclusiveLock", "notifier relay", "idle")
    ]


# --- changes without a ring

UNANNOUNCED = """
INSERT INTO notifier.changes_0 (id, entity, new, partial)
SELECT nextval('notifier.change_ids'), 'Event', row_to_json(events), false FROM events LIMIT 1
"""
"""Stores a change as capture does, but without a ring."""


class TestUnannounced:
    """The safety net: the sleeping relay reads every SLEEPING_READ_SECONDS."""

    @pytest.fixture(autouse=True)
    def no_change_is_found_without_a_ring(self) -> None:
        """Here they are."""

    @pytest.fixture
    async def asleep(
        self,
        database: Database,
        app: Connection,
        company: str,
        make_relay: MakeRelay,
        steps: Steps,
        monkeypatch: pytest.MonkeyPatch,
    ) -> Relayed:
        """A relay that has stored an event and sleeps, with short times between its reads."""
        monkeypatch.setattr("notifier.relay.relay.SLEEPING_READ_SECONDS", 0.05)
        await new_event(app, company)
        relay = make_relay()
        await relay.start()
        await stored(database, company)
        await steps.asleep()
        return relay

    async def test_a_change_without_a_ring_is_stored_counted_and_logged(
        self, database: Database, company: str, asleep: Relayed, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("notifier.relay.relay.LATE_RING_SECONDS", 0.05)
        before = unannounced()
        with capture_logs() as lines:
            await database.execute(UNANNOUNCED)
            await stored(database, company, 2)

            async def is_counted() -> bool:
                return unannounced() == before + 1

            await until(is_counted)
        assert {"event": "the doorbell was not rung", "log_level": "error", "changes": 1} in lines

    async def test_a_change_whose_ring_is_late_is_not_counted(
        self,
        database: Database,
        company: str,
        asleep: Relayed,
        steps: Steps,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr("notifier.relay.relay.LATE_RING_SECONDS", 600.0)
        before = unannounced()
        awake = asyncio.Event()

        async def wakes() -> None:
            awake.set()

        steps.at["disarmed"] = wakes
        await database.execute(UNANNOUNCED)
        await stored(database, company, 2)
        assert not awake.is_set()
        await wake(database)
        async with asyncio.timeout(DEADLINE_SECONDS):
            await awake.wait()
        assert unannounced() == before


# --- prepared transactions

IN_NOTIFY = "cannot PREPARE a transaction that has executed LISTEN, UNLISTEN, or NOTIFY"


@pytest.fixture
def preparing(stopped: tuple[Path, str]) -> Iterator[str]:
    """The URL of a server on which transactions can be prepared."""
    options = {**OPTIONS, "max_prepared_transactions": "4"}
    with (
        directory(stopped[0]) as data,
        EmbeddedPostgres(data, programs(), free_port(), options, durable=False) as server,
    ):
        yield server.dsn()


@pytest.fixture
async def prepared(preparing: str, stopped: tuple[Path, str]) -> AsyncIterator[Database]:
    """A migrated database on that server."""
    database = Database(preparing, stopped[1])
    yield database
    database.leave()


async def prepare(connection: Connection, company: str, name: str) -> None:
    """Prepares a transaction that writes an event."""
    await connection.execute("BEGIN")
    await new_event(connection, company)
    await connection.execute(f"PREPARE TRANSACTION '{name}'")


async def test_a29_a_prepared_transaction_is_stored_when_it_is_committed_or_cannot_be_prepared(
    prepared: Database, steps: Steps
) -> None:
    """One that rang cannot be prepared: PostgreSQL refuses it, and it is rolled back."""
    app, other = await prepared.connect(app=True), await prepared.connect(app=True)
    company = await new_company(app)
    relay = Relayed(prepared)
    await relay.start()
    await steps.asleep()
    with pytest.raises(asyncpg.FeatureNotSupportedError, match=IN_NOTIFY):
        await prepare(app, company, "rang")
    # While a writer has the lock, the relay is awake, and a transaction can be prepared.
    written = asyncio.Event()

    async def write() -> None:
        await other.execute("BEGIN; UPDATE companies SET name = 'b'")
        written.set()

    steps.at["before it tries the lock"] = write
    await wake(prepared)
    await written.wait()
    await prepare(app, company, "kept")
    await prepare(app, company, "undone")
    refused = asyncio.Event()

    async def refuse() -> None:
        refused.set()

    await other.execute("ROLLBACK")
    for _ in range(3):  # the prepared transactions keep the lock
        steps.at["refused"] = refuse
        await refused.wait()
        refused.clear()
    await app.execute("ROLLBACK PREPARED 'undone'")
    await app.execute("COMMIT PREPARED 'kept'")
    await stored(prepared, company)
    await steps.asleep(2)
    await relay.stop()


async def test_a29_without_a_doorbell_every_transaction_can_be_prepared(prepared: Database) -> None:
    """Unless another session holds the lock."""
    app, stranger = await prepared.connect(app=True), await prepared.connect(app=True)
    company = await new_company(app)
    relay = Relayed(prepared, doorbell=False)
    await relay.start()
    for name in ("one", "two", "three"):
        await relay.settled()  # idle
        await prepare(app, company, name)
        await app.execute(f"COMMIT PREPARED '{name}'")
    await stored(prepared, company, 3)
    await stranger.execute("SELECT pg_advisory_lock($1)", DOORBELL_LOCK)
    with pytest.raises(asyncpg.FeatureNotSupportedError, match=IN_NOTIFY):
        await prepare(app, company, "four")
    await relay.stop()


async def test_a29_migrate_and_check_warn_of_prepared_transactions_where_the_doorbell_is_on(
    prepared: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "max_prepared_transactions is not 0"
    monkeypatch.setenv("NOTIFIER_JWT_SECRET", SECRET)
    monkeypatch.setenv("NOTIFIER_DATABASE_URL", prepared.dsn)
    for word in ("on", "off"):
        monkeypatch.setenv("NOTIFIER_DOORBELL", word)
        settings = load()
        lines: list[str] = []
        await migrate(prepared.dsn, doorbell=settings.doorbell, report=lines.append)
        assert any(text in line for line in lines) is settings.doorbell
        found = [finding.fact for finding in await check(settings)]
        assert any(text in line for line in found) is settings.doorbell
