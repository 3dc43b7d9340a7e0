"""The probe: what it proves, and what it reports when the path is not sound."""

from __future__ import annotations

from collections.abc import Callable

import asyncpg
import pytest

from notifier.database import sql
from notifier.database.connections import connect, listener
from notifier.database.schema import migrate
from notifier.delivery import postgres_stream as streams
from notifier.delivery import probe as probes
from notifier.delivery.probe import Probe
from notifier.demo.postgres import EmbeddedPostgres
from notifier.errors import Misplaced, SchemaMissing
from notifier.watches import CALENDAR, Watch
from tests.databases import Connection, Database
from tests.postgres.streams import Log, Node
from tests.waiting import until


async def test_a_log_that_was_emptied_is_reported(log: Log, node: Node, database: Database) -> None:
    await node.start()
    await log.database.execute("DELETE FROM notifier.log")
    link, probe = await connect(database.dsn, "test"), Probe()
    await link.add_listener("notifier_messages", listener(probe.receive))
    with pytest.raises(SchemaMissing, match="run: notifier migrate"):
        await probe.run(link)
    link.terminate()
    await log.notify(10**9)
    await node.reports("the log is empty")


async def test_a_link_that_does_not_return_notifications_is_refused(
    node: Node, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probes, "DEADLINE_SECONDS", 2.0)
    link = await connect(database.dsn, "test")
    with pytest.raises(Misplaced, match="NOTIFIER_LISTEN_DATABASE_URL"):
        await Probe().run(link)
    link.terminate()
    assert node.health.reason() == "not connected to the database yet"


async def test_a_probe_reports_tables_without_triggers(log: Log, node: Node) -> None:
    await log.database.execute("ALTER TABLE events DISABLE TRIGGER USER")
    node.begin()
    await node.reports("triggers are missing or disabled on public.events")


async def probed(database: Database) -> asyncpg.Record:
    """What a probe on a link of its own finds."""
    link = await connect(database.dsn, "test")
    try:
        return await Probe().run(link, listens=False)
    finally:
        link.terminate()


async def test_a_probe_reports_that_triggers_do_not_fire_in_new_sessions(
    database: Database, mortal_database: Database, mortal: EmbeddedPostgres
) -> None:
    assert (await probed(database))["problems"] == []
    await database.execute(
        f"ALTER DATABASE {database.name} SET session_replication_role = 'Replica'"
    )
    (problem,) = (await probed(database))["problems"]
    assert "triggers do not fire in new sessions" in problem
    for table in ("companies", "employees", "events"):
        for name in ("notifier_capture", "notifier_capture_truncate"):
            await database.execute(f"ALTER TABLE {table} ENABLE ALWAYS TRIGGER {name}")
    assert (await probed(database))["problems"] == []

    link = await connect(mortal_database.dsn, "test")
    await mortal_database.execute("ALTER SYSTEM SET session_replication_role = replica")
    await mortal_database.execute("SELECT pg_reload_conf()")

    async def reported() -> bool:
        return bool((await Probe().run(link, listens=False))["problems"])

    await until(reported)
    await mortal_database.execute("ALTER SYSTEM RESET session_replication_role")
    await mortal_database.execute("SELECT pg_reload_conf()")

    async def sound() -> bool:
        return not await reported()

    await until(sound)
    await mortal_database.execute("ALTER ROLE ALL SET session_replication_role = replica")
    await until(reported)
    link.terminate()


async def test_a_probe_reports_a_partition_on_which_the_trigger_is_disabled(
    database: Database,
) -> None:
    await database.execute("""
        CREATE TABLE parts (id int PRIMARY KEY, company_id text) PARTITION BY RANGE (id);
        CREATE TABLE parts_0 PARTITION OF parts FOR VALUES FROM (0) TO (10) PARTITION BY RANGE (id);
        CREATE TABLE parts_00 PARTITION OF parts_0 FOR VALUES FROM (0) TO (5)
    """)
    watches = (*CALENDAR, Watch(table="parts", entity="Part"))
    await migrate(database.dsn, watches=watches)
    for statement in (
        "DISABLE TRIGGER notifier_capture",
        "ENABLE REPLICA TRIGGER notifier_capture",
    ):
        assert (await probed(database))["problems"] == []
        await database.execute(f"ALTER TABLE parts_00 {statement}")
        (problem,) = (await probed(database))["problems"]
        assert problem == "triggers are missing or disabled on public.parts"
        await migrate(database.dsn, watches=watches)
    assert (await probed(database))["problems"] == []
    await database.execute("ALTER TABLE parts ENABLE ALWAYS TRIGGER notifier_capture")
    assert (await probed(database))["problems"] == []


async def test_a_session_with_the_name_of_the_relays_reader_does_not_count_as_its_progress(
    database: Database, app: Connection
) -> None:
    """A superuser, or a role with pg_read_all_stats, sees the states of all sessions."""
    await database.execute("UPDATE notifier.log SET target = pg_current_snapshot()::text, upto = 1")
    link = await connect(database.dsn, "relay reader")
    await link.execute("BEGIN; SELECT")
    await app.execute("SET application_name = 'notifier relay reader'; BEGIN; SELECT")
    query = sql.query("probe").replace("interval '20 s'", "interval '0 s'")
    seen = []
    for session in (app, app, link):
        await session.execute("SELECT")
        seen.append(await database.fetchval(f"SELECT backlog FROM ({query}) AS p", None, 10.0))
    link.terminate()
    assert seen[0] == seen[1] != seen[2]


async def test_a_probe_reports_the_relay_and_waiting_changes(
    database: Database, make_node: Callable[..., Node], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "PROBE_SECONDS", 0.05)
    await database.execute("INSERT INTO companies (name) VALUES ('A')")
    await database.execute("UPDATE notifier.changes_0 SET at = at - interval '1 minute'")
    leader = await database.connect()
    await leader.execute(
        "SELECT pg_advisory_lock(relay_lock) FROM notifier.log"
    )  # as a relay does that leads
    node = make_node()
    node.begin()
    await node.reports("changes wait")
    await database.execute("TRUNCATE notifier.changes_0")

    async def ready() -> bool:
        await leader.execute("SELECT")  # it is alive
        return node.health.reason() is None

    await until(ready)
    await leader.close()
    await node.reports("no node holds the relay lock")
