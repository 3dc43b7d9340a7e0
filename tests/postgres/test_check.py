"""`notifier check`: what it finds, its remedies, its output for programs and for cron, its exit status."""

from __future__ import annotations

import datetime as dt
import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import trustme

from notifier.check import prerequisites
from notifier.check.findings import Finding
from notifier.check.links import check
from notifier.database import schema
from notifier.errors import SettingsError
from notifier.settings import load
from notifier.watches import CALENDAR, Watch
from tests.databases import Database
from tests.services import SECRET, run


async def failures(database: Database, **settings: Any) -> list[Finding]:
    """What is not sound; every such finding names a remedy."""
    found = await check(load({}, database_url=database.dsn, **settings))
    failed = [finding for finding in found if finding.sound is False]
    assert all(finding.remedy for finding in failed), failed
    return failed


async def test_without_its_notifier_toml_the_remedy_is_not_one_that_migrate_refuses(
    database: Database,
) -> None:
    await database.execute("ALTER TABLE events ADD private_to text")
    watches = [
        replace(each, visible_to=("private_to",)) if each.table == "events" else each
        for each in CALENDAR
    ]
    await schema.migrate(database.dsn, watches=watches)
    (found,) = await failures(database)
    assert found.fact == "events is not watched as set"
    assert found.remedy is not None
    assert "NOTIFIER_CONFIG" in found.remedy
    with pytest.raises(SettingsError, match="NOTIFIER_CONFIG"):
        await schema.migrate(database.dsn)
    (found,) = await failures(database, watch=CALENDAR)
    assert found.remedy == "run: notifier migrate"
    assert not await failures(database, watch=watches)


@pytest.fixture
def issue(tmp_path: Path) -> Callable[[str, float], tuple[Path, Path]]:
    """Writes a certificate that is valid for so many days, and its key."""

    def issue(name: str, days: float) -> tuple[Path, Path]:
        end = dt.datetime.now(dt.UTC) + dt.timedelta(days=days)
        issued = trustme.CA().issue_cert("127.0.0.1", not_after=end)
        certfile, keyfile = tmp_path / f"{name}.pem", tmp_path / f"{name}.key"
        issued.cert_chain_pems[0].write_to_path(certfile)
        issued.private_key_pem.write_to_path(keyfile)
        return certfile, keyfile

    return issue


async def test_the_command_line_prints_lines_json_or_only_what_there_is_to_do(
    database: Database, tmp_path: Path
) -> None:
    settings = {"database_url": database.dsn, "jwt_secret": SECRET}
    status, output = await run(tmp_path, "check", **settings)
    assert status == 0
    assert "ok: the database answers" in output
    assert "note: no node relays at present; start: notifier serve" in output

    status, output = await run(tmp_path, "check", "--json", **settings)
    answer = json.loads(output)
    assert (status, answer["sound"]) == (0, True)
    assert {"status": "ok", "fact": "the clocks agree", "remedy": None} in answer["findings"]

    await database.execute("ALTER TABLE events DISABLE TRIGGER notifier_capture")
    status, output = await run(tmp_path, "check", "--quiet", **settings)
    assert status == 1
    trigger = "trigger notifier_capture on public.events"
    assert output.splitlines() == [
        f"NOT SOUND: {trigger} is disabled or differs from this version's; run: notifier migrate",
        "note: no node relays at present; start: notifier serve",
        "notifier: one or more checks failed",
    ]
    status, output = await run(tmp_path, "check", "--json", "--quiet", **settings)
    answer = json.loads(output.splitlines()[0])
    assert (status, answer["sound"]) == (1, False)
    assert [finding["status"] for finding in answer["findings"]] == ["failed", "note"]

    status, output = await run(tmp_path, "check", "--json", log_level="loud", **settings)
    assert status == 2
    assert output.startswith("notifier: NOTIFIER_LOG_LEVEL: ")


async def test_keys_that_cannot_verify_a_token_are_named(database: Database) -> None:
    assert not await failures(database)
    assert not await failures(database, jwt_secret=SECRET)
    (short,) = [
        each
        for each in await check(load({}, database_url=database.dsn, jwt_secret="short"))
        if each.sound is False
    ]
    assert "NOTIFIER_JWT_SECRET: 5 bytes, at least 32 are needed" in short.fact
    (unreachable,) = await failures(database, jwks_url="http://127.0.0.1:1/keys")
    assert unreachable.fact == "the signing keys cannot be fetched"


async def test_certificates_that_cannot_serve_are_named(
    database: Database, issue: Callable[[str, float], tuple[Path, Path]]
) -> None:
    def pair(certfile: Path, keyfile: Path) -> dict[str, Any]:
        return {"ssl_certfile": certfile, "ssl_keyfile": keyfile}

    good, other = issue("good", 60), issue("other", 60)
    assert not await failures(database, **pair(*good))
    (expired,) = await failures(database, **pair(*issue("old", -1)))
    assert "has expired" in expired.fact
    (mixed,) = await failures(database, **pair(good[0], other[1]))
    assert "cannot be used" in mixed.fact
    found = await check(load({}, database_url=database.dsn, **pair(*issue("soon", 3))))
    (note,) = [each for each in found if "expires in 3.0 days" in each.fact]
    assert note.sound is None
    assert note.is_actionable


async def test_what_is_wrong_here_is_reported_although_the_database_is_down(
    issue: Callable[[str, float], tuple[Path, Path]],
) -> None:
    certfile, keyfile = issue("old", -1)
    settings = load(
        {},
        database_url="postgresql://none@127.0.0.1:1/none",
        jwt_secret=SECRET,
        ssl_certfile=certfile,
        ssl_keyfile=keyfile,
    )
    unreachable, expired = await check(settings)
    assert (unreachable.sound, expired.sound) == (False, False)
    assert "pg_hba.conf" in unreachable.remedy
    assert "has expired" in expired.fact


async def test_a_clock_few_connections_and_a_log_that_fills_are_notes(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    await database.execute("UPDATE notifier.configuration SET max_log_bytes = 1048576")
    await database.execute(
        "INSERT INTO notifier.changes_0 (id, entity, partial, new)"
        " SELECT n, 'Event', false, to_json(repeat(md5(n::text), 50)) FROM generate_series(1, 1000) AS n"
    )
    monkeypatch.setattr(time, "time", lambda: 1e9)
    monkeypatch.setattr(prerequisites, "FREE_CONNECTIONS", 1000)
    found = await check(load({}, database_url=database.dsn, jwt_secret=SECRET))
    notes = [each.fact for each in found if each.is_actionable and each.sound is None]
    assert any("s ahead" in fact for fact in notes), notes
    assert any("connections are free" in fact for fact in notes), notes
    assert any(fact.startswith("the log takes ") for fact in notes), notes


async def test_a_function_that_differs_from_this_versions_fails(database: Database) -> None:
    definition = await database.fetchval("SELECT pg_get_functiondef('notifier.is_full'::regproc)")
    await database.execute(definition.replace("RETURN false", "RETURN true"))
    (different,) = await failures(database)
    assert "is_full" in different.fact
    assert different.remedy == "run: notifier migrate"


async def test_unlogged_tables_and_partitions_are_named_with_the_remedy(
    database: Database,
) -> None:
    columns = "(id bigint, company_id bigint, PRIMARY KEY (id))"
    await database.execute(
        f"""
        CREATE UNLOGGED TABLE drafts {columns};
        CREATE TABLE parts {columns} PARTITION BY RANGE (id);
        CREATE TABLE part_1 PARTITION OF parts FOR VALUES FROM (1) TO (2);
        CREATE UNLOGGED TABLE part_2 PARTITION OF parts FOR VALUES FROM (2) TO (3)
        """
    )
    watches = [
        *CALENDAR,
        Watch(table="drafts", entity="Draft"),
        Watch(table="parts", entity="Part"),
    ]
    await schema.migrate(database.dsn, watches=watches)
    settings = load({}, database_url=database.dsn, watch=watches)

    async def unlogged() -> list[Finding]:
        return [each for each in await check(settings) if "UNLOGGED" in each.fact]

    found = await unlogged()
    assert [(each.fact.partition(" is ")[0], each.sound) for each in found] == [
        ("public.drafts", None), ("public.part_2", None),
    ]  # fmt: skip
    for each in found:
        await database.execute(each.remedy)
    assert await unlogged() == []


async def replica_findings(database: Database) -> list[Finding]:
    found = await check(load({}, database_url=database.dsn))
    return [each for each in found if "session_replication_role" in each.fact]


async def test_sessions_in_which_triggers_do_not_fire_are_named_with_the_remedy(
    database: Database,
) -> None:
    role = f"loader_{uuid4().hex[:8]}"
    await database.execute(
        f"""
        CREATE ROLE {role};
        ALTER ROLE {role} SET session_replication_role = 'replica';
        ALTER ROLE {role} IN DATABASE {database.name} SET session_replication_role TO replica;
        ALTER DATABASE {database.name} SET session_replication_role = replica
        """
    )
    found = await replica_findings(database)
    assert [(each.fact.partition(" has ")[0], each.sound) for each in found] == [
        *(("every role", False), (f"role {role}", None), (f"role {role}", None))
    ]
    for each in found:
        await database.execute(each.remedy.partition(", or ")[0])
    assert await replica_findings(database) == []
    await database.execute(f"ALTER ROLE {role} SET session_replication_role = replica")
    for table in ("companies", "employees", "events"):
        for name in ("notifier_capture", "notifier_capture_truncate"):
            await database.execute(f"ALTER TABLE {table} ENABLE ALWAYS TRIGGER {name}")
    assert await replica_findings(database) == []
    await database.execute("ALTER TABLE events ENABLE REPLICA TRIGGER notifier_capture")
    (replica,) = await failures(database)
    assert (
        replica.fact
        == "trigger notifier_capture on public.events is disabled or differs from this version's"
    )
    await database.execute(f"DROP ROLE {role}")


async def test_a_subscription_that_writes_to_a_watched_table_is_named_with_the_remedy(
    database: Database,
) -> None:
    """Its sessions have session_replication_role = replica, which no setting shows. The server here cannot replicate."""

    async def subscribed() -> list[Finding]:
        found = await check(load({}, database_url=database.dsn))
        return [each for each in found if "subscription" in each.fact]

    assert await subscribed() == []
    name = f"feed_{uuid4().hex[:8]}"
    await database.execute(
        f"CREATE SUBSCRIPTION {name} CONNECTION 'dbname=x' PUBLICATION p WITH (connect = false, slot_name = NONE)"
    )
    await database.execute(
        f"""
        SET allow_system_table_mods = on;
        INSERT INTO pg_subscription_rel (srsubid, srrelid, srsubstate)
        SELECT oid, 'events'::regclass, 'r' FROM pg_subscription WHERE subname = '{name}'
        """
    )
    (found,) = await subscribed()
    assert (found.sound, found.fact) == (
        None,
        f"subscription {name} writes to public.events: the rows that it applies are not captured",
    )
    for trigger in ("notifier_capture", "notifier_capture_truncate"):
        assert trigger in found.remedy
        await database.execute(f"ALTER TABLE events ENABLE ALWAYS TRIGGER {trigger}")
    assert await subscribed() == []
    await database.execute(f"DROP SUBSCRIPTION {name}")
