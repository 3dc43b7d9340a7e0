"""The probe: what it proves, and what it reports when the path is not sound."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from notifier.database.connections import connect, listener
from notifier.delivery import postgres_stream as streams
from notifier.delivery import probe as probes
from notifier.delivery.probe import Probe
from notifier.errors import Misplaced, SchemaMissing
from tests.databases import Database
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
