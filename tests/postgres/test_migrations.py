"""`migrate` and `uninstall`: again and again, there and back, and without a trace."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import asyncpg
import pytest

from notifier.check.links import check
from notifier.database import sql
from notifier.database.revisions import newest
from notifier.database.schema import downgrade, migrate, migrate_only, uninstall
from notifier.errors import DatabaseError, SettingsError, Unreachable
from notifier.settings import load
from notifier.watches import CALENDAR, Watch
from tests.databases import BLOCKED, Connection, Database, with_database
from tests.postgres.relays import Relayed, new_company, new_event, types
from tests.services import SECRET
from tests.waiting import until

CATALOG = """
SELECT kind, name FROM (
    SELECT 'schema' AS kind, nspname::text AS name FROM pg_namespace WHERE nspname !~ '^pg_'
    UNION ALL
    SELECT 'relation ' || relkind::text, format('%s %s %s', oid::regclass, relacl, reloptions) FROM pg_class
    UNION ALL
    SELECT 'column', format('%s.%s %s', attrelid::regclass, attname, attacl) FROM pg_attribute
    UNION ALL
    SELECT 'function', format('%s %s %s', oid::regprocedure, proacl, md5(prosrc)) FROM pg_proc
    UNION ALL
    SELECT 'trigger', format('%s %s', tgrelid::regclass, tgname) FROM pg_trigger
     WHERE NOT tgisinternal
    UNION ALL
    SELECT 'constraint', format('%s %s', conrelid::regclass, conname) FROM pg_constraint
    UNION ALL
    SELECT 'type', format('%s %s', oid::regtype, typacl) FROM pg_type
    UNION ALL
    SELECT 'description', format('%s %s %s', objoid, objsubid, description) FROM pg_description
     WHERE objoid >= 16384
    UNION ALL
    SELECT 'setting', format('%s %s', setrole, setconfig) FROM pg_db_role_setting
    UNION ALL
    SELECT 'extension', extname::text FROM pg_extension
    UNION ALL
    SELECT 'default right', format('%s %s', defaclnamespace, defaclacl) FROM pg_default_acl
) AS everything
WHERE name !~ 'pg_toast|pg_statistic'
ORDER BY 1, 2
"""


async def catalog(database: Database) -> list[tuple[str, str]]:
    return [(row[0], row[1]) for row in await database.fetch(CATALOG)]


# --- up, again, down, up


async def test_migrate_makes_the_calendar_the_schema_and_the_triggers(empty: Database) -> None:
    lines: list[str] = []
    await migrate(empty.dsn, calendar=True, report=lines.append)
    assert "table events: created" in lines
    assert f"schema notifier: none → {newest()}" in lines
    assert len([line for line in lines if line.startswith("trigger ")]) == 6


async def test_migrating_again_changes_and_reports_nothing(database: Database) -> None:
    before = await catalog(database)
    lines: list[str] = []
    await migrate(database.dsn, calendar=True, report=lines.append)
    assert lines == []
    assert await catalog(database) == before


async def test_down_and_up_again_is_as_before(database: Database, app: Connection) -> None:
    before = [entry for entry in await catalog(database) if entry[0] != "description"]
    await downgrade(database.dsn, "base")
    assert not await database.fetch("SELECT FROM pg_trigger WHERE NOT tgisinternal")
    company = await new_company(app)
    await new_event(app, company)
    await migrate(database.dsn)
    assert [entry for entry in await catalog(database) if entry[0] != "description"] == before
    relay = Relayed(database)
    await relay.start()
    await new_event(app, company)
    assert types(await relay.messages_of(company)) == ["EventCreated"]
    await relay.stop()


@pytest.mark.parametrize(
    ("revision", "options"),
    [
        ("0006", {"deleted_if": "all_day"}),
        ("0009", {"member": "title", "member_if": {"all_day": True}}),
        ("0012", {"scope": "team"}),
    ],
)
async def test_a_downgrade_drops_a_watch_whose_condition_it_drops(
    database: Database, revision: str, options: dict[str, Any]
) -> None:
    """Without it rows would give access, or companies share a channel, that the condition keeps apart."""
    event, *others = CALENDAR
    await migrate(
        database.dsn, watches=[replace(event, rename={"company_id": "org"}, **options), *others]
    )
    await downgrade(database.dsn, revision)
    rows = await database.fetch("SELECT entity FROM notifier.watches ORDER BY entity")
    assert [row["entity"] for row in rows] == ["Company", "Employee"]
    await migrate(database.dsn, calendar=True)


async def test_two_migrations_at_once_are_one(empty: Database) -> None:
    lines: list[str] = []
    await asyncio.gather(
        *(migrate(empty.dsn, calendar=True, report=lines.append) for _ in range(4))
    )
    assert lines.count(f"schema notifier: none → {newest()}") == 1


async def test_a_dry_run_reports_everything_and_changes_nothing(empty: Database) -> None:
    before = await catalog(empty)
    dry: list[str] = []
    await migrate(empty.dsn, calendar=True, dry_run=True, report=dry.append)
    assert await catalog(empty) == before
    wet: list[str] = []
    await migrate(empty.dsn, calendar=True, report=wet.append)
    assert dry == [*wet, "nothing was changed: this was a dry run"]


async def test_a_newer_schema_is_left_alone(database: Database) -> None:
    await database.execute("UPDATE notifier.version SET version_num = '9999'")
    before = await catalog(database)
    for change in (
        migrate(database.dsn),
        migrate_only(database.dsn, "workspace_x.*"),
        uninstall(database.dsn),
    ):
        with pytest.raises(DatabaseError, match=r"of a newer version \(9999\) than this program$"):
            await change
    assert await catalog(database) == before
    (unsound,) = [
        each
        for each in await check(load(database_url=database.dsn, jwt_secret=SECRET))
        if each.sound is False
    ]
    assert "newer version (9999)" in unsound.fact
    assert "run: notifier migrate" not in unsound.line


@pytest.mark.parametrize("other", ["0018", "", "nonsense"])
async def test_several_versions_are_one_readable_line(database: Database, other: str) -> None:
    """`pg_restore --data-only` of an older dump adds one. Alembic would raise an error of its own at the next upgrade."""
    await downgrade(database.dsn, "0022")
    await database.execute("INSERT INTO notifier.version VALUES ($1)", other)
    for command in (migrate(database.dsn), uninstall(database.dsn)):
        with pytest.raises(DatabaseError, match="has several rows"):
            await command
    (unsound,) = [
        each
        for each in await check(load(database_url=database.dsn, jwt_secret=SECRET))
        if each.sound is False
    ]
    assert "has several rows" in unsound.line
    await database.execute("DELETE FROM notifier.version WHERE version_num = $1", other)
    await migrate(database.dsn)


# --- without a trace


async def test_uninstall_leaves_no_trace(empty: Database) -> None:
    await empty.execute(
        "CREATE TABLE docs (id int PRIMARY KEY, company_id text) PARTITION BY RANGE (id);"
        "CREATE TABLE docs_all PARTITION OF docs FOR VALUES FROM (MINVALUE) TO (MAXVALUE)"
    )
    before = await catalog(empty)
    await migrate(empty.dsn, watches=[Watch(table="docs", entity="Doc", exclude=())])
    await empty.execute("INSERT INTO docs VALUES (1, 'c')")
    assert await catalog(empty) != before
    lines: list[str] = []
    await uninstall(empty.dsn, report=lines.append)
    assert await catalog(empty) == before
    assert await empty.fetchval("SELECT count(*) FROM docs") == 1
    assert "schema notifier: dropped" in lines


async def test_uninstall_takes_the_grants_along(empty: Database, role: str) -> None:
    await empty.execute(
        "CREATE SCHEMA hr; CREATE TABLE hr.staff (id int PRIMARY KEY, company_id text, who text)"
    )
    before = await catalog(empty)
    staff = Watch(table="hr.staff", entity="Employee", member="who")
    await migrate(empty.dsn, watches=[staff], grant=role)
    await uninstall(empty.dsn)
    assert await catalog(empty) == before


async def test_uninstall_reports_that_nothing_is_installed(empty: Database) -> None:
    lines: list[str] = []
    await uninstall(empty.dsn, report=lines.append)
    assert lines == ["schema notifier: was not there"]


async def test_an_app_goes_on_through_migrate_and_uninstall(
    database: Database, app: Connection
) -> None:
    company = await new_company(app)
    done = asyncio.Event()

    async def write() -> int:
        written = 0
        while not done.is_set() or written < 20:
            await new_event(app, company)
            written += 1
        return written

    writing = asyncio.create_task(write())
    await uninstall(database.dsn)
    await migrate(database.dsn)
    await uninstall(database.dsn)
    done.set()
    assert await writing == await database.fetchval("SELECT count(*) FROM events")


async def amid_writers(
    database: Database, company: str, command: Callable[[], Coroutine[None, None, None]]
) -> None:
    """Does it with one who has written, and another who writes just then; both go on."""
    one, other = await database.connect(app=True), await database.connect(app=True)
    watcher = await database.connect()

    async def waits(many: int, doing: asyncio.Task[None]) -> bool:
        return bool(await watcher.fetchval(BLOCKED) >= many) or doing.done()

    async def done() -> bool:
        transaction = one.transaction()
        await transaction.start()
        await new_event(one, company)
        doing = asyncio.create_task(command())
        await until(lambda: waits(1, doing))
        writing = asyncio.create_task(new_event(other, company))
        await until(lambda: waits(2, doing))
        await transaction.commit()
        await writing
        try:
            await doing
        except DatabaseError:  # it has less patience than this machine takes
            return False
        return True

    await until(done)


async def test_an_app_goes_on_while_its_triggers_are_recreated_or_dropped(
    database: Database, app: Connection
) -> None:
    company = await new_company(app)
    watches = [
        replace(watch, exclude=("created_at",))
        for watch in sorted(CALENDAR, key=lambda watch: watch.table)
    ]
    await amid_writers(database, company, lambda: migrate(database.dsn, watches=watches))
    await amid_writers(database, company, lambda: uninstall(database.dsn))


OLDER = """
ALTER TABLE notifier.changes_0 ADD operation "char" NOT NULL, ADD size int NOT NULL;
ALTER TABLE notifier.changes_1 ADD operation "char" NOT NULL, ADD size int NOT NULL;
CREATE VIEW notifier.changes AS SELECT * FROM notifier.changes_0 UNION ALL SELECT * FROM notifier.changes_1;
CREATE FUNCTION notifier.capture() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
BEGIN
    INSERT INTO notifier.changes_0 (id, entity, operation, new, partial, size)
    VALUES (nextval('notifier.change_ids'), tg_argv[0], left(tg_op, 1)::"char", row_to_json(new), false, 9);
    RETURN NULL;
END $$;
CREATE TRIGGER notifier_capture AFTER INSERT ON events FOR EACH ROW
EXECUTE FUNCTION notifier.capture('Event', 'id', 'company_id')
"""
"""The log as it was when its changes had two columns more."""


async def test_an_app_goes_on_while_an_older_log_is_migrated_and_nothing_is_lost(
    database: Database, app: Connection
) -> None:
    company = await new_company(app)
    await downgrade(database.dsn, "0001")
    await database.execute("TRUNCATE notifier.changes_0")
    await database.execute(OLDER)
    await amid_writers(database, company, lambda: migrate(database.dsn))
    relay = Relayed(database)
    await relay.start()
    messages = await relay.messages_of(company)
    await relay.stop()
    assert types(messages) == ["EventCreated"] * await database.fetchval(
        "SELECT count(*) FROM events"
    )


# --- what is in the database is what is in the files


@pytest.mark.parametrize(
    "name",
    sorted(
        path.stem
        for path in (sql.folder("sql") / "functions").glob("*.sql")
        if "$$" in path.read_text(encoding="utf-8")
    ),
)
async def test_a_function_in_the_database_is_the_one_in_the_file(
    name: str, database: Database
) -> None:
    relations = await database.fetchval(sql.query("captured_relations"))
    body = re.split(r"\$\$", sql.function(name))[1].replace(":relations", relations)
    body = body.replace(":paths", "")  # no watch has one
    assert body == await database.fetchval(
        "SELECT prosrc FROM pg_proc WHERE proname = $1 AND pronamespace = 'notifier'::regnamespace",
        name,
    )


def test_sql_is_ascii_so_that_every_database_can_read_it() -> None:
    for path in sql.folder("sql").rglob("*.sql"):
        assert path.read_text(encoding="utf-8").isascii(), path.name


# --- watches


async def test_triggers_follow_the_watches(database: Database, app: Connection) -> None:
    lines: list[str] = []
    watches = [watch for watch in CALENDAR if watch.entity != "Event"]
    await migrate(database.dsn, watches=watches, report=lines.append)
    assert lines == [
        "events: no longer watched as Event: its changes are not sent",
        "trigger notifier_capture on public.events: dropped",
        "trigger notifier_capture_truncate on public.events: dropped",
    ]
    lines.clear()
    excluding = Watch(table="events", entity="Event", exclude=("description",))
    await migrate(database.dsn, watches=[*watches, excluding], report=lines.append)
    assert [line.rpartition(": ")[2] for line in lines] == [
        "its changes are sent from now on",
        "created",
        "created",
    ]
    lines.clear()
    await migrate(database.dsn, watches=CALENDAR, report=lines.append)
    assert [line.rpartition(": ")[2] for line in lines] == [
        "new messages have it",
        "every company gets a Resync",
        "every company gets a Resync",
    ]


@pytest.mark.parametrize(
    ("watch", "message"),
    [
        (Watch(table="nothing", entity="Doc"), "no table nothing to watch"),
        (Watch(table="events", entity="Doc", key="number"), "table events has no column number"),
        (Watch(table="events", entity="Doc", exclude=("gone",)), "table events has no column gone"),
    ],
)
async def test_a_wrong_watch_is_one_readable_line_and_changes_nothing(
    watch: Watch, message: str, database: Database
) -> None:
    before = await catalog(database)
    with pytest.raises(SettingsError, match=message):
        await migrate(database.dsn, watches=[watch])
    assert await catalog(database) == before


async def test_strange_names_are_watched(database: Database, app: Connection) -> None:
    await database.execute(
        """
        CREATE SCHEMA "My ""Schema";
        CREATE TABLE "My ""Schema"."Th'e :\\ ""table" (
            "the 'id" int PRIMARY KEY, "The ""Company" text, "se,cr{et}" text, "user" text);
        GRANT USAGE ON SCHEMA "My ""Schema" TO app;
        GRANT ALL ON "My ""Schema"."Th'e :\\ ""table" TO app
        """
    )
    table = '"My ""Schema"."Th\'e :\\ ""table"'
    strange = Watch(
        table=table, entity="Odd", key="the 'id", company='The "Company', exclude=("se,cr{et}",)
    )
    await migrate(database.dsn, watches=[*CALENDAR, strange])
    relay = Relayed(database)
    await relay.start()
    await app.execute(f"INSERT INTO {table} VALUES (1, 'c', 'hush', 'u')")
    (message,) = await relay.messages_of("c")
    assert message["Data"] == {"OddId": 1, "CompanyId": "c", "User": "u"}
    await relay.stop()
    await uninstall(database.dsn)


# --- roles


@pytest.fixture
async def role(database: Database) -> AsyncIterator[str]:
    """A role that may do nothing."""
    name = f"Serving {uuid4().hex[:8]}"
    await database.execute(f"CREATE ROLE \"{name}\" LOGIN PASSWORD 'serve'")
    yield name
    await drop_role(database, name)


async def drop_role(database: Database, name: str) -> None:
    """Drops a role and what it owns, when the last backend of its relay has ended: a statement
    outlives who asked for it.
    """
    await database.fetch(
        "SELECT pg_terminate_backend(pid, 20000) FROM pg_stat_activity WHERE usename = $1", name
    )
    await database.execute(f'DROP OWNED BY "{name}" CASCADE; DROP ROLE "{name}"')


async def test_a_granted_role_can_relay_and_nothing_more(
    database: Database, app: Connection, role: str
) -> None:
    await migrate(database.dsn, grant=role, max_log_bytes=1024 * 1024)
    serving = as_role(database.dsn, role)
    relay = Relayed(database)
    relay.url = serving
    await relay.start()
    company = await new_company(app)
    await new_event(app, company)
    await app.execute("TRUNCATE events")
    assert types(await relay.messages_of(company)) == ["EventCreated", "Resync"]
    connection = await asyncpg.connect(serving)
    try:
        for statement in (
            "SELECT * FROM events",
            "SELECT name FROM employees",
            "INSERT INTO companies (name) VALUES ('x')",
            "UPDATE notifier.configuration SET max_log_bytes = 1",
            "INSERT INTO notifier.changes_0 (id, entity, partial) VALUES (1, 'x', true)",
            "DELETE FROM notifier.watches",
            "CREATE TABLE notifier.mine ()",
            "CREATE TABLE public.mine ()",
            "DROP TRIGGER notifier_capture ON events",
        ):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await connection.execute(statement)
        await connection.execute("SELECT company_id, user_id FROM employees")
    finally:
        await connection.close()
    await relay.stop()


async def test_a_granted_role_can_do_every_chore(
    database: Database, app: Connection, role: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("notifier.relay.maintenance.AWAKE_SECONDS", 0.0)
    await migrate(database.dsn, grant=role, max_log_bytes=2 * 1024 * 1024)
    relay = Relayed(database, retention_hours=1e-7)
    relay.url = as_role(database.dsn, role)
    await relay.start()
    company = await new_company(app)
    for _ in range(30):
        await app.execute(
            "INSERT INTO employees (company_id, name)"
            " SELECT $1, repeat('x', 500) FROM generate_series(1, 100) AS n",
            company,
        )
        await relay.settled()
    assert await database.fetchval("SELECT last_value >> 32 > 0 FROM notifier.change_ids")
    await database.execute("UPDATE notifier.log SET system = 'another/00000001'")
    await relay.stop()
    await relay.start()
    assert types(await relay.messages_of(company))[:1] in ([], ["Resync"])
    await relay.stop()


async def test_a_grant_to_a_missing_role_is_one_readable_line(database: Database) -> None:
    with pytest.raises(DatabaseError, match="there is no role missing"):
        await migrate(database.dsn, grant="missing")


async def test_row_3_1_an_owner_without_superuser_rights_can_migrate_and_relay(
    postgres: str, empty: Database
) -> None:
    owner = f"owner_{uuid4().hex[:8]}"
    await empty.execute(
        f"CREATE ROLE {owner} LOGIN PASSWORD 'serve';"
        f" GRANT CREATE ON DATABASE {empty.name} TO {owner};"
        f" GRANT CREATE, USAGE ON SCHEMA public TO {owner}"
    )
    url = as_role(empty.dsn, owner)
    try:
        await migrate(url, calendar=True)
        relay = Relayed(empty)
        relay.url = url
        await relay.start()
        company = await new_company(empty)
        await new_event(empty, company)
        assert types(await relay.messages_of(company)) == ["EventCreated"]
        await relay.stop()
        await uninstall(url)
    finally:
        await drop_role(empty, owner)


async def test_row_3_1_a_role_without_rights_gets_one_readable_line(
    database: Database, app: Connection
) -> None:
    with pytest.raises(DatabaseError, match="may not do that") as caught:
        await migrate(database.app_dsn)
    assert "\n" not in str(caught.value)


# --- what goes wrong


async def test_a_locked_table_is_one_readable_line(database: Database, app: Connection) -> None:
    async with app.transaction():
        await new_company(app)
        with pytest.raises(DatabaseError, match=r"table public\.companies is locked"):
            await uninstall(database.dsn)
    await uninstall(database.dsn)


@pytest.mark.parametrize(
    ("url", "message"),
    [
        (
            "postgresql://user:secret@127.0.0.1:1/none",
            "cannot reach the database 127.0.0.1:1/none",
        ),
        ("nonsense", "cannot understand the database's URL"),
    ],
)
async def test_a_database_out_of_reach_is_one_readable_line(url: str, message: str) -> None:
    for command in (migrate, uninstall):
        with pytest.raises(Unreachable, match=message) as caught:
            await command(url)
        assert "secret" not in str(caught.value)
        assert "\n" not in str(caught.value)


async def test_a_missing_database_is_one_readable_line(postgres: str) -> None:
    with pytest.raises(DatabaseError, match="does not exist"):
        await migrate(with_database(postgres, "no_such_database"))


def as_role(dsn: str, role: str) -> str:
    """The same database's URL with another role."""
    parts = urlsplit(dsn)
    _, _, place = parts.netloc.rpartition("@")
    return parts._replace(netloc=f"{role.replace(' ', '%20')}:serve@{place}").geturl()


async def test_a_grant_on_an_older_schema_covers_the_newer_one(
    database: Database, role: str
) -> None:
    await migrate(database.dsn, grant=role)
    await downgrade(database.dsn, "0001")
    await migrate(database.dsn)
    for name in (
        "truncate_changes(int, text, bigint)",
        "rotate_changes()",
        "reopen()",
        "prune(int, text, bigint)",
    ):
        query = "SELECT has_function_privilege($1, 'notifier.' || $2, 'EXECUTE')"
        assert await database.fetchval(query, role, name)
        assert not await database.fetchval(query, "app", name)
