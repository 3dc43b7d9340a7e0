"""A schema per tenant: one watch, a table in each schema that its pattern matches."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from uuid import uuid4

import pytest

from notifier.access.membership import Membership
from notifier.access.tokens import Identity
from notifier.check.links import check
from notifier.database.query import Query
from notifier.database.schema import migrate, migrate_only, uninstall
from notifier.errors import DatabaseError, SchemaMissing, SettingsError
from notifier.settings import load
from notifier.watches import CALENDAR, Watch
from tests.databases import Connection, Database
from tests.postgres.relays import MakeRelay, Relayed, log_head, types
from tests.postgres.states import url_of
from tests.waiting import until

PERSON = Watch(
    table="workspace_*.person",
    entity="Person",
    company="schema",
    member="user_id",
    exclude=("pin",),
)
TASK = Watch(table="workspace_*.task", entity="Task", company="schema", key=("no", "part"))


def tables(schema: str) -> str:
    return f"""
        CREATE SCHEMA {schema};
        CREATE TABLE {schema}.person (id int PRIMARY KEY, user_id text, name text, pin text, company text);
        CREATE TABLE {schema}.task (no int, part int, title text, PRIMARY KEY (no, part));
        GRANT USAGE ON SCHEMA {schema} TO PUBLIC; GRANT ALL ON ALL TABLES IN SCHEMA {schema} TO PUBLIC
    """


async def watch(database: Database, watches: Sequence[Watch] = (PERSON, TASK)) -> list[str]:
    lines: list[str] = []
    await migrate(database.dsn, watches=[*CALENDAR, *watches], report=lines.append)
    return lines


async def with_new_epoch(database: Database, watches: Sequence[Watch]) -> None:
    """Migrates, and waits until the relay has emptied the log, as changes before that are discarded."""
    epoch, _ = await log_head(database)
    await watch(database, watches)

    async def begun() -> bool:
        return (await log_head(database))[0] != epoch

    await until(begun)


@pytest.fixture
async def workspaces(database: Database) -> Database:
    """A database with two tenants, that is migrated."""
    for schema in ("workspace_a", "workspace_b"):
        await database.execute(tables(schema))
    await watch(database)
    return database


@pytest.fixture
async def membership(database: Database) -> AsyncIterator[Membership]:
    membership = Membership(
        Query(database.dsn, "test", pooled=False, read_only=True), "employees", None
    )
    yield membership
    membership.close()


async def allowed(membership: Membership, *pairs: tuple[str, str]) -> list[bool | BaseException]:
    checks = [membership.may_see(Identity(user, 1e12, None), company) for company, user in pairs]
    return list(await asyncio.gather(*checks, return_exceptions=True))


async def test_each_schema_is_a_company_with_its_own_messages(
    workspaces: Database, app: Connection, relay: Relayed
) -> None:
    await app.execute("INSERT INTO workspace_a.person VALUES (1, 'ada', 'Ada', '1234', 'x')")
    await app.execute("INSERT INTO workspace_b.person VALUES (1, 'bob', 'Bob', '5678', 'y')")
    await app.execute("UPDATE workspace_a.person SET name = 'A.', pin = '0'")
    await app.execute("INSERT INTO workspace_b.task VALUES (1, 2, 't')")
    await app.execute("DELETE FROM workspace_b.task")
    await app.execute("TRUNCATE workspace_a.person")
    a, b = [await relay.messages_of(f"workspace_{name}") for name in "ab"]
    assert types(a) == ["PersonCreated", "PersonUpdated", "Resync"]
    assert a[0]["Data"] == {
        "CompanyId": "workspace_a",
        "PersonId": 1,
        "UserId": "ada",
        "Name": "Ada",
        "Company": "x",
    }
    assert a[1]["Old"] == {"Name": "Ada"}
    assert types(b) == ["PersonCreated", "TaskCreated", "TaskDeleted"]
    assert b[1]["Data"] == {
        "CompanyId": "workspace_b",
        "TaskId": [1, 2],
        "No": 1,
        "Part": 2,
        "Title": "t",
    }


async def test_the_members_of_a_schema_see_its_company_alone(
    workspaces: Database, membership: Membership
) -> None:
    await workspaces.execute(
        "INSERT INTO workspace_a.person VALUES (1, 'ada'); INSERT INTO workspace_b.person VALUES (1, 'bob')"
    )
    pairs = {
        ("workspace_a", "ada"): True,
        ("workspace_b", "ada"): False,
        ("workspace_a", "bob"): False,
        ("workspace_b", "bob"): True,
        ("workspace_c", "ada"): False,
        ("person", "ada"): False,
        ("WORKSPACE_A", "ada"): False,
        ("workspace_*", "ada"): False,
        ("x", "ada"): False,
    }
    assert await allowed(membership, *pairs) == list(pairs.values())
    await workspaces.execute("DROP SCHEMA workspace_a CASCADE")
    assert await allowed(membership, *pairs) == [False, False, False, True, *[False] * 5]
    await workspaces.execute(
        tables("workspace_c") + "; INSERT INTO workspace_c.person VALUES (1, 'ada')"
    )
    assert await allowed(membership, ("workspace_c", "ada")) == [False]
    await migrate_only(workspaces.dsn, "workspace_c.*")
    assert await allowed(membership, ("workspace_c", "ada"), ("workspace_b", "bob")) == [True, True]


async def test_a_new_schema_is_live_after_migrate_for_it_alone(
    workspaces: Database, app: Connection, relay: Relayed
) -> None:
    await workspaces.execute(tables("workspace_c"))
    lines: list[str] = []
    await migrate_only(workspaces.dsn, "workspace_c.*", report=lines.append)
    assert lines == ["schema workspace_c: 2 tables are watched"]
    await app.execute("INSERT INTO workspace_c.person VALUES (1, 'cyd')")
    assert types(await relay.messages_of("workspace_c")) == ["PersonCreated"]
    before = await workspaces.fetch("SELECT oid, xmin FROM pg_trigger ORDER BY oid")
    await migrate_only(workspaces.dsn, "workspace_c.*")
    assert await workspaces.fetch("SELECT oid, xmin FROM pg_trigger ORDER BY oid") == before


async def test_a_dropped_schema_is_its_own_deletion_and_no_problem(
    workspaces: Database, app: Connection, relay: Relayed
) -> None:
    await app.execute("INSERT INTO workspace_a.person VALUES (1, 'ada')")
    await app.execute("INSERT INTO workspace_b.person VALUES (1, 'bob')")
    await relay.looked()
    assert types(await relay.messages_of("workspace_a")) == ["PersonCreated"]
    await workspaces.execute("DROP SCHEMA workspace_a CASCADE")

    async def deleted() -> bool:
        return types(await relay.messages_of("workspace_a"))[-1] == "CompanyDeleted"

    await until(deleted)
    assert types(await relay.messages_of("workspace_b")) == ["PersonCreated"]
    assert await workspaces.fetch("SELECT * FROM notifier.watch_problems()") == []
    await watch(workspaces)
    assert (
        await workspaces.fetchval("SELECT string_agg(DISTINCT tenant, ',') FROM notifier.watches")
        == "workspace_b"
    )


async def test_150_schemas_are_migrated_beside_writers_and_a_locked_table_is_named(
    database: Database, app: Connection, relay: Relayed
) -> None:
    await database.execute(
        f"""
        DO $$ BEGIN
            FOR n IN 1..150 LOOP
                EXECUTE replace($sql$ {tables("workspace_x")} $sql$, 'workspace_x', 'workspace_' || n);
            END LOOP;
        END $$
        """
    )
    holder = await database.connect(app=True)
    held = holder.transaction()
    await held.start()
    await holder.execute("INSERT INTO workspace_77.person VALUES (1, 'ada')")
    lines: list[str] = []
    reported: asyncio.Queue[str] = asyncio.Queue()

    def report(line: str) -> None:
        lines.append(line)
        reported.put_nowait(line)

    migrating = asyncio.create_task(
        migrate(database.dsn, watches=[*CALENDAR, PERSON, TASK], report=report)
    )
    migrating.add_done_callback(lambda _: reported.put_nowait("ended"))
    while "locked" not in (line := await reported.get()):
        assert line != "ended", migrating.exception()
        await app.execute("UPDATE workspace_150.task SET title = 'a writer goes on'")
    # It has given way: a writer passes while the first one still holds the table.
    await app.execute("INSERT INTO workspace_77.person VALUES (2, 'bob')")
    await held.commit()
    await migrating
    assert "table workspace_77.person is locked by another transaction: it is tried again" in lines
    assert [line for line in lines if "150 of 150" in line] == [
        "schema workspace_77: watched (150 of 150)"
    ]
    assert (
        await database.fetch("SELECT * FROM notifier.capture_triggers(NULL) WHERE NOT sound") == []
    )
    await app.execute("INSERT INTO workspace_77.person VALUES (3, 'cyd')")
    await app.execute("INSERT INTO workspace_149.person VALUES (1, 'dan')")
    assert types(await relay.messages_of("workspace_77")) == ["PersonCreated"]
    assert types(await relay.messages_of("workspace_149")) == ["PersonCreated"]
    assert await watch(database) == []


async def test_a_table_that_stays_locked_is_named_and_the_others_are_done(
    workspaces: Database,
) -> None:
    holder = await workspaces.connect(app=True)
    async with holder.transaction():
        await holder.execute("INSERT INTO workspace_a.person VALUES (1, 'ada')")
        with pytest.raises(DatabaseError, match=r"table workspace_a\.person is locked by another"):
            await watch(workspaces, [replace(PERSON, exclude=("pin", "company")), TASK])
    excluded = await workspaces.fetch(
        "SELECT tenant FROM notifier.watches WHERE 'company' = ANY (exclude)"
    )
    assert [row[0] for row in excluded] == ["workspace_b"]
    lines = await watch(workspaces, [replace(PERSON, exclude=("pin", "company")), TASK])
    assert lines == ["schema workspace_a: watched (1 of 1)"]


async def test_uninstall_holds_one_table_at_a_time_and_names_the_one_that_is_locked(
    workspaces: Database, app: Connection
) -> None:
    await watch(workspaces)
    triggers_of = (
        "SELECT DISTINCT tgrelid::regclass::text FROM pg_trigger WHERE tgname ~ '^notifier_'"
    )
    all_tables = {row[0] for row in await workspaces.fetch(triggers_of)}
    await workspaces.execute("CREATE VIEW board AS SELECT company FROM notifier.messages")
    with pytest.raises(DatabaseError, match="board"):
        await uninstall(workspaces.dsn)
    assert {row[0] for row in await workspaces.fetch(triggers_of)} == all_tables
    await workspaces.execute("DROP VIEW board")

    holder = await workspaces.connect(app=True)
    held = holder.transaction()
    await held.start()
    await holder.execute("LOCK TABLE workspace_a.person IN ROW EXCLUSIVE MODE")
    reported: asyncio.Queue[str] = asyncio.Queue()
    uninstalling = asyncio.create_task(uninstall(workspaces.dsn, report=reported.put_nowait))
    uninstalling.add_done_callback(lambda _: reported.put_nowait("ended"))
    locked = "table workspace_a.person is locked by another transaction: it is tried again"
    while (line := await reported.get()) != locked:
        assert line != "ended", uninstalling.exception()
    await holder.execute("INSERT INTO workspace_a.person VALUES (1, 'ada')")  # it has given way
    await app.execute("INSERT INTO workspace_b.person VALUES (1, 'bob')")
    await held.commit()
    await uninstalling
    assert await workspaces.fetch(triggers_of) == []
    assert not await workspaces.fetchval("SELECT to_regnamespace('notifier') IS NOT NULL")


async def test_a_table_that_stays_locked_outlives_uninstall_which_may_be_repeated(
    workspaces: Database,
) -> None:
    await watch(workspaces)
    holder = await workspaces.connect(app=True)
    async with holder.transaction():
        await holder.execute("LOCK TABLE workspace_a.person IN ROW EXCLUSIVE MODE")
        with pytest.raises(DatabaseError, match=r"workspace_a\.person is locked .* all others are"):
            await uninstall(workspaces.dsn)
        left = "SELECT DISTINCT tgrelid::regclass::text FROM pg_trigger WHERE tgname ~ '^notifier_'"
        assert [row[0] for row in await workspaces.fetch(left)] == ["workspace_a.person"]
    await uninstall(workspaces.dsn)
    assert await workspaces.fetch(left) == []


@pytest.mark.parametrize(
    "schema",
    [
        'workspace_%s "x"',
        "workspace_a.person",
        "Workspace_A",
        "workspace_" + "é" * 26 + "x",
        "workspace_'; SELECT 1 --",
        "workspace_*",
        "workspace_a/b@c:d\\",
        "workspace_{signature}$1",
    ],
)
async def test_any_name_of_a_schema_is_a_company(
    workspaces: Database, app: Connection, relay: Relayed, membership: Membership, schema: str
) -> None:
    assert len(schema.encode()) <= 63
    name = '"' + schema.replace('"', '""') + '"'
    await workspaces.execute(tables(name))
    person = replace(PERSON, table="*.person")
    await watch(workspaces, [person, replace(TASK, table='"Workspace_*"."task"')])
    await migrate_only(
        workspaces.dsn,
        f"{name}.*",
        watches=[*CALENDAR, person, replace(TASK, table='"Workspace_*"."task"')],
    )
    await app.execute(f"INSERT INTO {name}.person VALUES (1, 'ada')")
    await app.execute(f"INSERT INTO {name}.task VALUES (1, 2, 't')")
    found = await relay.messages_of(schema)
    expected = ["PersonCreated", "TaskCreated"] if schema[0] == "W" else ["PersonCreated"]
    assert types(found) == expected
    assert found[0]["Data"]["CompanyId"] == schema
    assert await allowed(
        membership, (schema, "ada"), (schema, "bob"), (schema + "x", "ada"), ("workspace_a", "ada")
    ) == [True, False, False, False]


async def test_a_tenant_that_state_where_does_not_fit_disturbs_no_other(database: Database) -> None:
    """Nor does `check`, as a role that cannot create tables."""
    for schema in ("workspace_a", "workspace_b"):
        await database.execute(tables(schema))
    await database.execute("ALTER TABLE workspace_a.person DROP name")
    role = f"serving_{uuid4().hex[:8]}"
    await database.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'app'")
    try:
        watches = [*CALENDAR, replace(PERSON, state_where="name <> 'x'"), TASK]
        lines: list[str] = []
        await migrate(database.dsn, watches=watches, grant=role, state=True, report=lines.append)
        assert [line[:60] for line in lines if "workspace" in line and "not watched" in line] == [
            "warning: not watched as set: table workspace_a.person: state"[:60]
        ]
        assert any(line.startswith("schema workspace_b: watched") for line in lines), lines
        settings = load({}, database_url=url_of(database, role), watch=watches, state="on")
        facts = [each.fact for each in await check(settings) if each.sound is False]
        assert not [fact for fact in facts if "permission denied" in fact], facts
    finally:
        await database.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")


OWN_TRIGGER = """
    CREATE FUNCTION {0}.own() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
    CREATE TRIGGER notifier_capture AFTER INSERT ON {0}.person FOR EACH ROW EXECUTE FUNCTION {0}.own()
"""
"""A trigger of a tenant's own under the name of ours."""


async def test_a_tenant_whose_trigger_has_the_name_of_ours_disturbs_no_other(
    database: Database,
) -> None:
    for number in (1, 2, 3):
        await database.execute(tables(f"workspace_{number}"))
    await database.execute(OWN_TRIGGER.format("workspace_2"))
    reason = (
        'table workspace_2.person: trigger "notifier_capture" for relation "person" already exists'
    )
    lines: list[str] = []
    for _ in range(2):  # again, and the table is not taken for one that is watched
        lines.clear()
        with pytest.raises(DatabaseError, match="all others are done") as error:
            await migrate(database.dsn, watches=[*CALENDAR, PERSON, TASK], report=lines.append)
        assert str(error.value).startswith(f"not watched as set: {reason}; ")
        assert [
            line for line in lines if line.startswith("warning: not watched as set: table")
        ] == [f"warning: not watched as set: {reason}"]
    watched = await database.fetch("SELECT relation FROM notifier.watches WHERE tenant IS NOT NULL")
    assert {row["relation"] for row in watched} == {
        *(f"workspace_{number}.task" for number in (1, 2, 3)),
        *(f"workspace_{number}.person" for number in (1, 3)),
    }


async def test_migrate_only_reports_no_success_for_a_table_that_it_does_not_watch(
    workspaces: Database, app: Connection, relay: Relayed
) -> None:
    """The other tables that it names are watched, with all that completes them."""
    await workspaces.execute(tables("workspace_c") + ";" + OWN_TRIGGER.format("workspace_c"))
    lines: list[str] = []
    with pytest.raises(
        DatabaseError, match=r'table workspace_c\.person: trigger "notifier_capture"'
    ):
        await migrate_only(workspaces.dsn, "workspace_c.*", report=lines.append)
    assert lines == []
    await app.execute("INSERT INTO workspace_c.task VALUES (1, 2, 't')")
    assert types(await relay.messages_of("workspace_c")) == ["TaskCreated"]
    await workspaces.execute("ALTER TRIGGER notifier_capture ON workspace_c.person RENAME TO own")
    await migrate_only(workspaces.dsn, "workspace_c.*", report=lines.append)
    assert lines == ["schema workspace_c: 2 tables are watched"]


async def test_a_table_on_which_the_role_may_create_no_trigger_is_an_error(
    database: Database,
) -> None:
    """After all others were done; with a warning, too, where a table does not fit its watch."""
    role = f"migrating_{uuid4().hex[:8]}"
    await uninstall(database.dsn)
    await database.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'app'")
    try:
        await database.execute(f"GRANT CREATE ON DATABASE {database.name} TO {role}")
        for name in "abcd":
            await database.execute(tables(f"workspace_{name}"))
            for table in ("person", "task"):
                await database.execute(f"ALTER TABLE workspace_{name}.{table} OWNER TO {role}")
        await database.execute(
            "ALTER TABLE workspace_b.person OWNER TO CURRENT_USER; REVOKE ALL ON workspace_b.person FROM PUBLIC"
        )
        await database.execute("ALTER TABLE workspace_d.task DROP COLUMN part CASCADE")
        url = url_of(database, role)
        lines: list[str] = []
        with pytest.raises(DatabaseError, match=r"table workspace_b\.person: permission denied"):
            await migrate(url, watches=[PERSON, TASK], report=lines.append)
        assert [line[:60] for line in lines if line.startswith("warning: not watched as set")] == [
            "warning: not watched as set: table workspace_d.task has no column part"[:60],
            "warning: not watched as set: table workspace_b.person: permission denied"[:60],
        ]
        await database.execute(
            tables("workspace_e")
            + "; REVOKE ALL ON workspace_e.person, workspace_e.task FROM PUBLIC"
        )
        with pytest.raises(DatabaseError, match=r"workspace_e\.person: .*workspace_e\.task: perm"):
            await migrate_only(url, "workspace_e.*")
        watched = await database.fetch(
            "SELECT DISTINCT tgrelid::regclass::text FROM pg_trigger WHERE tgname = 'notifier_capture'"
        )
        assert {row[0] for row in watched} == {
            *(f"workspace_{name}.person" for name in "acd"),
            *(f"workspace_{name}.task" for name in "abc"),
        }
    finally:
        await database.execute(f"DROP OWNED BY {role} CASCADE; DROP ROLE {role}")


async def test_a_tenant_with_other_columns_disturbs_no_other(
    workspaces: Database, app: Connection, relay: Relayed, membership: Membership
) -> None:
    await workspaces.execute(
        tables("workspace_old") + "; ALTER TABLE workspace_old.person DROP COLUMN pin"
    )
    with pytest.raises(SettingsError, match=r"table workspace_old\.person has no column pin"):
        await migrate_only(workspaces.dsn, "workspace_old.*")
    lines = await watch(workspaces)
    assert "warning: not watched as set: table workspace_old.person has no column pin" in lines
    await workspaces.execute("ALTER TABLE workspace_a.person RENAME COLUMN user_id TO login")
    assert await workspaces.fetch("SELECT * FROM notifier.watch_problems() WHERE fatal") == []
    await app.execute("INSERT INTO workspace_a.person VALUES (1, 'ada')")
    await app.execute("INSERT INTO workspace_b.person VALUES (1, 'bob')")
    assert types(await relay.messages_of("workspace_b")) == ["PersonCreated"]
    unknown, yes, no = await allowed(
        membership, ("workspace_a", "ada"), ("workspace_b", "bob"), ("workspace_old", "bob")
    )
    assert (type(unknown), yes, no) == (SchemaMissing, True, False)
    # A new configuration that one tenant's table does not fit: it is not watched by the former one.
    await with_new_epoch(workspaces, [replace(PERSON, exclude=("pin", "name")), TASK])
    await app.execute("UPDATE workspace_a.person SET name = 'secret'")
    assert "secret" not in str(await relay.messages_of("workspace_a"))
    assert types(await relay.messages_of("workspace_a"))[-1:] in ([], ["Resync"])


async def test_a_locked_table_of_members_delays_no_other_tenant(
    workspaces: Database, membership: Membership
) -> None:
    await workspaces.execute("INSERT INTO workspace_b.person VALUES (1, 'bob')")
    holder = await workspaces.connect()
    async with holder.transaction():
        await holder.execute("LOCK TABLE workspace_a.person")
        locked, allowed_b = await allowed(
            membership, ("workspace_a", "ada"), ("workspace_b", "bob")
        )
    assert type(locked) is DatabaseError
    assert "lock" in str(locked)
    assert allowed_b is True
    assert await allowed(membership, ("workspace_a", "ada")) == [False]


async def test_schemas_are_made_at_once_and_dropped_while_they_are_written_to(
    workspaces: Database, app: Connection, relay: Relayed
) -> None:
    new = [f"workspace_{n}" for n in range(4)]
    for schema in new:
        await workspaces.execute(tables(schema))
    await asyncio.gather(*(migrate_only(workspaces.dsn, f"{schema}.*") for schema in new))
    async with app.transaction():
        await app.execute("INSERT INTO workspace_0.person VALUES (1, 'ada')")
        dropping = asyncio.create_task(workspaces.execute("DROP SCHEMA workspace_0 CASCADE"))
        await asyncio.gather(*(migrate_only(workspaces.dsn, f"{schema}.*") for schema in new[1:]))
        await app.execute("INSERT INTO workspace_1.person VALUES (1, 'bob')")
    await dropping
    # The transactions overlap: the deletion of the company may come first.
    assert "PersonCreated" in types(await relay.messages_of("workspace_0"))
    assert types(await relay.messages_of("workspace_1")) == ["PersonCreated"]
    with pytest.raises(SettingsError, match="no table that a \\[\\[watch\\]\\] matches"):
        await migrate_only(workspaces.dsn, "workspace_0.*")
    # A schema of the same name is another one.
    await workspaces.execute(tables("workspace_0"))
    await migrate_only(workspaces.dsn, "workspace_0.*")
    await app.execute("INSERT INTO workspace_0.person VALUES (2, 'cyd')")
    assert types(await relay.messages_of("workspace_0")).count("PersonCreated") == 2


async def test_a_large_transaction_over_many_schemas_keeps_them_apart(
    workspaces: Database, app: Connection, make_relay: MakeRelay
) -> None:
    await app.execute(
        """
        DO $$ BEGIN
            INSERT INTO workspace_a.person SELECT n, 'u' || n FROM generate_series(1, 30) AS n;
            INSERT INTO workspace_b.person SELECT n, 'u' || n FROM generate_series(1, 6000) AS n;
            TRUNCATE workspace_b.task;
        END $$
        """
    )
    relay = make_relay(bulk_limit=100)
    await relay.start()
    assert types(await relay.messages_of("workspace_a")) == ["PersonCreated"] * 30
    assert set(types(await relay.messages_of("workspace_b"))) == {"Resync"}


@pytest.mark.parametrize(
    ("table", "company", "problem"),
    [
        ("workspace_*.person", "company_id", 'the company must be "schema"'),
        ("workspace_*", "schema", r"\* can stand for a part of a schema's name only"),
        ("workspace.per*", "schema", r"\* can stand for a part of a schema's name only"),
        ("a.workspace_*.person", "schema", r"\* can stand for a part of a schema's name only"),
    ],
)
def test_patterns_that_cannot_be_are_refused(table: str, company: str, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        Watch(table=table, entity="Person", company=company)


async def test_what_no_schema_fits_is_refused_before_anything_changes(
    workspaces: Database,
) -> None:
    for watches, problem in (
        ([replace(PERSON, member="login"), TASK], r"workspace_a\.person has no column login"),
        (
            [PERSON, Watch(table="workspace_a.person", entity="Other", company="company")],
            r"workspace_a\.person is watched as Other, and matches workspace_\*\.person",
        ),
    ):
        with pytest.raises(SettingsError, match=problem):
            await watch(workspaces, watches)
    for schema in ("0e0cf5d3-b8a8-4e72-9b29-6d0f7c0a5f3e", "0E0CF5D3-B8A8-4E72-9B29-6D0F7C0A5F3E"):
        await workspaces.execute(tables(f'"{schema}"'))
    lines = await watch(workspaces, [replace(PERSON, table="*.person"), TASK])
    assert (
        'warning: not watched as set: table "0e0cf5d3-b8a8-4e72-9b29-6d0f7c0a5f3e".person: schema'
        " 0E0CF5D3-B8A8-4E72-9B29-6D0F7C0A5F3E is the same company; rename one of them"
    ) in lines
    await watch(workspaces)
    assert await watch(workspaces) == []
    for only in ("workspace_a", "", "public.*"):
        with pytest.raises(SettingsError, match="--only"):
            await migrate_only(workspaces.dsn, only)
    with pytest.raises(SettingsError, match=r"the patterns of notifier\.toml are not those"):
        await migrate_only(workspaces.dsn, "workspace_a.*", watches=[*CALENDAR, PERSON])
    for _ in range(2):
        with pytest.raises(SettingsError, match=r"replace its watches by the calendar's"):
            await migrate(workspaces.dsn)
        await workspaces.execute("DROP TABLE IF EXISTS events, employees, companies")


async def test_a_changed_pattern_is_reported_once_and_reaches_each_tenant(
    workspaces: Database, app: Connection, relay: Relayed
) -> None:
    await app.execute("INSERT INTO workspace_a.person VALUES (1, 'ada', 'Ada')")
    await app.execute("INSERT INTO workspace_b.person VALUES (1, 'bob', 'Bob')")
    assert len(await relay.messages_of("workspace_b")) == 1
    lines: list[str] = []
    renamed = [replace(PERSON, exclude=("pin", "name")), replace(TASK, created="TaskAdded")]
    await migrate(workspaces.dsn, watches=[*CALENDAR, *renamed], dry_run=True, report=lines.append)
    assert lines == [
        "workspace_*.person: exclude +name: new messages without it; the log is emptied, new epoch",
        "workspace_*.task: created TaskCreated → TaskAdded: every company gets a Resync",
        "schemas workspace_a, workspace_b: would be watched",
        "nothing was changed: this was a dry run",
    ]
    await with_new_epoch(workspaces, renamed)
    await app.execute("UPDATE workspace_a.person SET name = 'A.', user_id = 'eve'")
    await app.execute("INSERT INTO workspace_b.task VALUES (1, 1, 't')")
    a, b = [await relay.messages_of(f"workspace_{name}") for name in "ab"]
    assert "Ada" not in str(a)
    assert types(a)[-1] == "PersonUpdated"
    assert types(b)[-1] == "TaskAdded"
    await watch(workspaces, [PERSON])
    assert (
        await workspaces.fetch("SELECT * FROM notifier.capture_triggers(NULL) WHERE NOT sound")
        == []
    )
    assert not await workspaces.fetchval(
        "SELECT count(*) FROM pg_trigger WHERE tgrelid = 'workspace_a.task'::regclass"
    )
    await migrate(workspaces.dsn, calendar=True)
    await uninstall(workspaces.dsn)
    assert not await workspaces.fetchval(
        "SELECT count(*) FROM pg_trigger WHERE tgname ~ 'notifier'"
    )


async def test_a_schema_that_a_stranger_makes_under_the_name_of_a_dropped_one_has_no_members(
    workspaces: Database, app: Connection, relay: Relayed, membership: Membership
) -> None:
    """Its messages are in the log for a day, and its watch is there until the next `migrate`."""
    await app.execute("INSERT INTO workspace_a.person VALUES (1, 'ada')")
    await relay.settled()
    assert await allowed(membership, ("workspace_a", "ada")) == [True]
    await workspaces.execute("DROP SCHEMA workspace_a CASCADE")
    role = f"stranger_{uuid4().hex[:8]}"
    await workspaces.execute(
        f"""
        CREATE ROLE {role}; GRANT CREATE ON DATABASE {workspaces.name} TO {role}; SET ROLE {role};
        {tables("workspace_a")}; INSERT INTO workspace_a.person VALUES (1, 'mallory'); RESET ROLE
        """
    )
    assert await allowed(membership, ("workspace_a", "mallory")) == [False]
    assert await allowed(membership, ("workspace_a", "ada")) == [False]
    await watch(workspaces)
    assert await allowed(membership, ("workspace_a", "mallory")) == [True], "an administrator has"
    await workspaces.execute(f"DROP OWNED BY {role} CASCADE; DROP ROLE {role}")


async def test_rows_of_a_renamed_schema_do_not_go_to_the_next_one_of_its_name(
    workspaces: Database, app: Connection, relay: Relayed
) -> None:
    """Its triggers name the company that they were made for, until `migrate` has replaced them."""
    await app.execute("INSERT INTO workspace_a.task VALUES (1, 1, 'of a')")
    await relay.settled()
    await workspaces.execute("ALTER SCHEMA workspace_a RENAME TO workspace_z")
    await workspaces.execute(tables("workspace_a"))
    watches = [*CALENDAR, PERSON, TASK]
    await migrate_only(workspaces.dsn, "workspace_a.*", watches=watches)
    await relay.settled()
    await app.execute("INSERT INTO workspace_z.task VALUES (2, 1, 'secret')")
    messages = await relay.messages_of("workspace_a")
    assert types(messages)[0] == "TaskCreated"
    assert set(types(messages)[1:]) == {"Resync"}
    await migrate(workspaces.dsn, watches=watches)
    await app.execute("INSERT INTO workspace_z.task VALUES (3, 1, 'of z')")
    await app.execute("INSERT INTO workspace_a.task VALUES (1, 1, 'of the new a')")
    for name, title in (("workspace_a", "of the new a"), ("workspace_z", "of z")):
        last = (await relay.messages_of(name))[-1]
        assert (last["Type"], last["Data"]["Title"]) == ("TaskCreated", title)


async def test_a_dropped_schema_that_is_restored_gets_a_resync(
    workspaces: Database, app: Connection, relay: Relayed
) -> None:
    """`pg_restore` writes the rows first, and makes the triggers last."""
    await app.execute("INSERT INTO workspace_a.person VALUES (1, 'ada')")
    await relay.looked()
    statements = await workspaces.fetch(
        "SELECT pg_get_triggerdef(t.oid) FROM pg_trigger AS t JOIN pg_class AS c ON c.oid = t.tgrelid"
        " WHERE c.relnamespace = 'workspace_a'::regnamespace AND NOT t.tgisinternal"
    )
    await workspaces.execute("DROP SCHEMA workspace_a CASCADE")

    async def ends_with(kind: str) -> bool:
        return types(await relay.messages_of("workspace_a"))[-1] == kind

    await until(lambda: ends_with("CompanyDeleted"))
    await workspaces.execute(tables("workspace_a"))
    await workspaces.execute("INSERT INTO workspace_a.person VALUES (1, 'ada'), (2, 'bob')")
    for (statement,) in statements:
        await workspaces.execute(statement)
    await until(lambda: ends_with("Resync"))
