"""Copies of a database by pg_dump and pg_restore: into the same cluster, into another one, without rows."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from uuid import uuid4

import pytest

from notifier.check.links import check
from notifier.database.schema import downgrade, migrate, uninstall
from notifier.demo.postgres import EmbeddedPostgres
from notifier.demo.programs import wheel
from notifier.errors import DatabaseError
from notifier.settings import load
from notifier.watches import CALENDAR, Watch
from tests.databases import Database, programs
from tests.installed import skip
from tests.postgres.relays import Relayed, log_head, messages_of, new_company, new_event, types
from tests.postgres.test_migrations import as_role, drop_role
from tests.services import ROOT, SECRET

OWNERS = """
    SELECT relowner::regrole::text FROM pg_class WHERE relnamespace = 'notifier'::regnamespace
    UNION SELECT proowner::regrole::text FROM pg_proc WHERE pronamespace = 'notifier'::regnamespace
"""
OWNED_BY_APP = """
    SELECT relname FROM pg_class WHERE relnamespace = 'notifier'::regnamespace AND relowner = 'app'::regrole
    UNION ALL SELECT proname FROM pg_proc WHERE pronamespace = 'notifier'::regnamespace
        AND proowner = 'app'::regrole AND proname <> 'path_company'
    UNION ALL SELECT nspname FROM pg_namespace WHERE nspname = 'notifier' AND nspowner = 'app'::regrole
"""


@pytest.fixture
def bin_directory() -> Path:
    """Where the chosen version's client programs are."""
    directory = programs()
    if directory is not None and not (directory / "pg_dump").exists():
        pytest.skip(f"no pg_dump in {directory}: some packages of older versions leave it out")
    directory = directory or wheel()
    if directory is None:
        skip("no PostgreSQL from the wheel")
    return directory


async def run(*command: object) -> None:
    process = await asyncio.create_subprocess_exec(
        *map(str, command), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    output, _ = await process.communicate()
    assert process.returncode == 0, output.decode()


@asynccontextmanager
async def new_database(postgres: str) -> AsyncIterator[Database]:
    """An empty database of a server."""
    copy = Database(postgres, f"notifier_test_{uuid4().hex[:12]}")
    await copy.create("template1")
    try:
        yield copy
    finally:
        await copy.drop()


@asynccontextmanager
async def relaying(database: Database) -> AsyncIterator[Relayed]:
    relay = Relayed(database)
    await relay.start()
    try:
        yield relay
    finally:
        await relay.stop()


@pytest.fixture
async def dump(database: Database, company: str, bin_directory: Path, tmp_path: Path) -> Path:
    """A dump of a database whose relay has stored three messages and left the changes where they are."""
    async with relaying(database) as relay:
        for number in range(3):
            await new_event(database, company, f"before {number}")
        await relay.settled()
    assert await database.fetchval("SELECT count(*) FROM notifier.changes")
    file = tmp_path / "dump"
    await run(bin_directory / "pg_dump", "-Fc", "-f", file, database.dsn)
    return file


async def follow(copy: Database, company: str) -> None:
    """A relay delivers in a new epoch what is written now, and nothing that came with the dump."""
    async with relaying(copy) as relay:
        await new_event(copy, company, "after the restore")
        for _ in range(3):
            messages = await relay.messages_of(company)
            assert types(messages) == ["Resync", "EventCreated"]
            assert messages[0]["Data"]["Reason"] == "epoch"
            assert messages[1]["Data"]["Title"] == "after the restore"


async def test_case_3_a_dump_that_is_restored_into_another_database_of_the_cluster(
    database: Database, postgres: str, company: str, dump: Path, bin_directory: Path
) -> None:
    """And the original goes on in its epoch."""
    before = await log_head(database)
    async with new_database(postgres) as copy:
        await run(bin_directory / "pg_restore", "-d", copy.dsn, dump)
        await follow(copy, company)
        assert (await log_head(copy))[0] != before[0]
    async with relaying(database) as relay:
        await new_event(database, company, "in the original")
        assert types(await relay.messages_of(company)) == ["EventCreated"] * 4
    assert (await log_head(database))[0] == before[0]


async def test_case_3_a_dump_that_is_restored_into_another_cluster(
    database: Database, mortal: EmbeddedPostgres, company: str, dump: Path, bin_directory: Path
) -> None:
    before, _ = await log_head(database)
    async with new_database(mortal.dsn()) as copy:
        await run(bin_directory / "pg_restore", "-d", copy.dsn, dump)
        await follow(copy, company)
        assert (await log_head(copy))[0] != before


async def test_case_4_a_dump_that_is_restored_over_its_own_database(
    database: Database, company: str, dump: Path, bin_directory: Path
) -> None:
    """What was delivered after the dump is gone: the log begins an epoch."""
    before, _ = await log_head(database)
    async with relaying(database) as relay:
        for number in range(4):
            await new_event(database, company, f"lost {number}")
        assert len(await relay.messages_of(company)) == 7
    await run(bin_directory / "pg_restore", "--clean", "--if-exists", "-d", database.dsn, dump)
    await follow(database, company)
    assert (await log_head(database))[0] != before


async def test_a_dump_holds_no_key_of_the_signatures(
    database: Database, postgres: str, bin_directory: Path, tmp_path: Path
) -> None:
    """With it, the thief of a dump could sign messages to running nodes."""
    text, file = tmp_path / "dump.sql", tmp_path / "dump"
    secret = "SELECT encode(secret, 'hex') FROM notifier.signing_key"
    await run(bin_directory / "pg_dump", "-f", text, database.dsn)
    assert await database.fetchval(secret) not in text.read_text()
    await run(bin_directory / "pg_dump", "-Fc", "-f", file, database.dsn)
    async with new_database(postgres) as copy:
        await run(bin_directory / "pg_restore", "-d", copy.dsn, file)
        restored = await copy.fetchval(secret)
        assert len(restored) == 64
        assert restored != await database.fetchval(secret)
        await migrate(copy.dsn)
        assert await copy.fetchval(secret) == restored


@pytest.fixture
async def public_dump(
    database: Database, company: str, bin_directory: Path, tmp_path: Path
) -> Path:
    """A dump of the application's schema alone, with a company."""
    file = tmp_path / "public"
    await run(bin_directory / "pg_dump", "-Fc", "-n", "public", "-f", file, database.dsn)
    return file


@pytest.fixture
def stub() -> str:
    """The statements of the documentation after which such a dump loads."""
    page = (ROOT / "docs" / "deploy.md").read_text()
    found = re.search(r"`(CREATE SCHEMA notifier; CREATE FUNCTION [^`]*)`", page)
    assert found is not None
    return found[1]


async def test_case_f16_a_dump_of_public_alone_loads_with_the_stub_of_the_documentation(
    postgres: str, company: str, public_dump: Path, stub: str, bin_directory: Path
) -> None:
    async with new_database(postgres) as copy:
        await copy.execute(f"DROP SCHEMA public; {stub}")
        await run(bin_directory / "pg_restore", "-d", copy.dsn, public_dump)
        await new_event(copy, company, "before migrate")
        await migrate(copy.dsn)
        settings = load({}, database_url=copy.dsn, jwt_secret=SECRET)
        assert not [finding.line for finding in await check(settings) if finding.sound is False]
        async with relaying(copy) as relay:
            await new_event(copy, company, "after migrate")
            messages = await relay.messages_of(company)
            assert messages[-1]["Data"]["Title"] == "after migrate"


async def test_case_f16_the_application_may_load_the_stub_and_another_role_migrate(
    postgres: str, company: str, public_dump: Path, stub: str, bin_directory: Path
) -> None:
    """What runs with the rights of migrate's role, and its schema, belong to that role."""
    async with new_database(postgres) as copy:
        await copy.execute(f"DROP SCHEMA public; ALTER DATABASE {copy.name} OWNER TO app")
        app = await copy.connect(app=True)
        await app.execute(stub)
        restore = (bin_directory / "pg_restore", "--no-owner", "-n", "public", "-d", copy.app_dsn)
        await app.execute("CREATE SCHEMA public")  # with -n, pg_restore does not create it
        await run(*restore, public_dump)
        lines: list[str] = []
        await migrate(copy.dsn, report=lines.append)
        role = await copy.fetchval("SELECT current_user")
        assert f"schema notifier: belongs to {role}, before to app" in lines
        assert not await copy.fetch(OWNED_BY_APP)
        async with relaying(copy) as relay:
            await new_event(app, company, "of the application")
            messages = await relay.messages_of(company)
            assert messages[-1]["Data"]["Title"] == "of the application"

        await copy.execute(
            "ALTER FUNCTION notifier.capture() OWNER TO app; ALTER TABLE notifier.moves OWNER TO app;"
            "ALTER SCHEMA notifier OWNER TO app"
        )
        settings = load({}, database_url=copy.dsn, jwt_secret=SECRET)
        found = [finding.line for finding in await check(settings) if finding.sound is False]
        for name in ("schema notifier", "table moves", "function capture()"):
            line = f"{name} belongs to app, and not to {role}, the owner of the tables"
            assert any(line in each for each in found), found
        await migrate(copy.dsn)
        assert not await copy.fetch(OWNED_BY_APP)
        assert not [finding.line for finding in await check(settings) if finding.sound is False]
        await new_event(app, company)


@pytest.fixture
async def migrator(empty: Database) -> AsyncIterator[str]:
    """A role that may migrate that database."""
    name = f"migrator_{uuid4().hex[:8]}"
    await empty.execute(
        f"CREATE ROLE {name} LOGIN PASSWORD 'serve'; GRANT CREATE ON DATABASE {empty.name} TO {name};"
        f"GRANT CREATE ON SCHEMA public TO {name}"
    )
    yield name
    await drop_role(empty, name)


async def test_a_schema_of_a_role_without_whose_rights_migrate_runs_is_refused_in_one_line(
    empty: Database, migrator: str
) -> None:
    await empty.execute(f"CREATE SCHEMA notifier; GRANT ALL ON SCHEMA notifier TO {migrator}")
    refusal = (
        r"^the schema notifier belongs to .*: run migrate as a superuser, or as a member of .*$"
    )
    with pytest.raises(DatabaseError, match=refusal) as caught:
        await migrate(as_role(empty.dsn, migrator), calendar=True)
    assert "\n" not in str(caught.value)
    assert not await empty.fetch("SELECT FROM pg_class WHERE relowner = $1::regrole", migrator)


TAKE = """
    CREATE FUNCTION {schema}.take() RETURNS text LANGUAGE plpgsql AS $$
    BEGIN
        IF current_user <> '{role}' THEN
            ALTER ROLE {role} SUPERUSER;
        END IF;
        RETURN NULL;
    END $$
"""


async def test_a_schema_that_a_stranger_migrated_before_is_not_taken_over(
    empty: Database, migrator: str
) -> None:
    """Triggers on its tables would run with the rights of the role that migrates."""
    await empty.execute(
        f"SET ROLE {migrator}; CREATE TABLE mine (id int PRIMARY KEY, company_id text); RESET ROLE"
    )
    await migrate(as_role(empty.dsn, migrator), watches=[Watch(table="mine", entity="Mine")])
    await empty.execute(
        f"""
        SET ROLE {migrator};
        {TAKE.format(schema="public", role=migrator)};
        CREATE FUNCTION trap() RETURNS trigger LANGUAGE plpgsql AS
            $$ BEGIN PERFORM public.take(); RETURN NULL; END $$;
        CREATE TRIGGER trap AFTER INSERT ON notifier.watches FOR EACH ROW EXECUTE FUNCTION trap();
        RESET ROLE
        """
    )
    await empty.execute("CREATE SCHEMA ws_1; CREATE TABLE ws_1.people (id int PRIMARY KEY)")
    people = Watch(table="ws_*.people", entity="Person", company="schema")
    for watched, command in (
        ("public.events", migrate(empty.dsn, calendar=True, watches=CALENDAR)),
        ("ws_1.people", migrate(empty.dsn, watches=[people])),
    ):
        refusal = f"^the schema notifier belongs to {migrator}, which may not create triggers on {watched}: .*$"
        with pytest.raises(DatabaseError, match=refusal):
            await command
    assert not await is_superuser(empty, migrator)


async def test_an_empty_schema_in_which_a_stranger_could_put_functions_is_not_taken_over(
    empty: Database, migrator: str
) -> None:
    """One with the name of ours and other types, which capture would call with the rights of the role that migrates."""
    people = Watch(table="ws_*.people", entity="Person", company="schema")
    for made in ("AUTHORIZATION {0}", "CREATE {0}", "CREATE PUBLIC"):
        owner, right = made.startswith("A"), made.removeprefix("CREATE ").format(migrator)
        grant = "" if owner else f"; GRANT CREATE ON SCHEMA notifier TO {right}"
        await empty.execute(f"CREATE SCHEMA notifier {made.format(migrator) * owner}{grant}")
        fact = f"schema notifier belongs to {migrator}" if owner else f"{right} has CREATE on"
        with pytest.raises(DatabaseError, match=f"{fact}.* may not create triggers on .*events"):
            await migrate(empty.dsn, calendar=True)
        with pytest.raises(DatabaseError, match=f"{fact}.*: drop the schema"):
            await migrate(empty.dsn, watches=[people])
        await empty.execute("DROP SCHEMA notifier")


async def test_a_member_of_the_schemas_owner_may_watch_tables_of_its_own(
    empty: Database, migrator: str
) -> None:
    await migrate(as_role(empty.dsn, migrator), calendar=True)
    member = f"{migrator}_member"
    await empty.execute(
        f"""
        CREATE ROLE {member} LOGIN PASSWORD 'serve' IN ROLE {migrator};
        CREATE TABLE own (id int PRIMARY KEY, company_id text);
        ALTER TABLE own OWNER TO {member}
        """
    )
    watched = [*CALENDAR, Watch(table="own", entity="Own")]
    await migrate(as_role(empty.dsn, member), watches=watched)
    await empty.execute("INSERT INTO own VALUES (1, 'c')")
    assert await empty.fetchval("SELECT count(*) FROM notifier.changes WHERE entity = 'Own'") == 1
    await uninstall(empty.dsn)
    await drop_role(empty, member)


async def test_a_view_in_the_place_of_the_table_of_versions_is_not_read(
    empty: Database, migrator: str
) -> None:
    await empty.execute(
        f"""
        SET ROLE {migrator};
        CREATE SCHEMA notifier;
        {TAKE.format(schema="notifier", role=migrator)};
        CREATE TABLE notifier.log ();
        CREATE TABLE notifier.watches ();
        CREATE VIEW notifier.version AS SELECT '1' AS version_num WHERE notifier.take() IS NULL;
        RESET ROLE
        """
    )
    for command in (migrate(empty.dsn, calendar=True), uninstall(empty.dsn)):
        with suppress(DatabaseError):
            await command
        assert not await is_superuser(empty, migrator)


async def is_superuser(database: Database, role: str) -> bool:
    return bool(await database.fetchval("SELECT rolsuper FROM pg_roles WHERE rolname = $1", role))


async def test_objects_that_a_superuser_creates_in_an_upgrade_belong_to_the_first_role(
    empty: Database, migrator: str
) -> None:
    """A new table of another owner would make each write fail that capture stores in it."""
    url = as_role(empty.dsn, migrator)
    await migrate(url, calendar=True)
    await downgrade(empty.dsn, "0018")
    await empty.execute("DROP FUNCTION notifier.store_change")
    await migrate(empty.dsn)
    assert [row[0] for row in await empty.fetch(OWNERS)] == [migrator]
    await new_event(empty, await new_company(empty))
    await migrate(url)
    await uninstall(url)


async def test_case_f15_a_copy_without_rows_takes_writes_and_is_healed_by_migrate(
    database: Database, postgres: str, bin_directory: Path, tmp_path: Path
) -> None:
    file = tmp_path / "schema"
    await run(bin_directory / "pg_dump", "-Fc", "--schema-only", "-f", file, database.dsn)
    async with new_database(postgres) as copy:
        await run(bin_directory / "pg_restore", "-d", copy.dsn, file)
        company = await new_company(copy)
        await new_event(copy, company, "before migrate")
        settings = load({}, database_url=copy.dsn, jwt_secret=SECRET)
        lines = [finding.line for finding in await check(settings) if finding.sound is False]
        assert lines
        assert all("notifier migrate" in line for line in lines)
        await migrate(copy.dsn)
        assert not [finding.line for finding in await check(settings) if finding.sound is False]
        async with relaying(copy) as relay:
            await new_event(copy, company, "after migrate")
            messages = await relay.messages_of(company)
            assert "EventCreated" in types(messages)
            assert messages[-1]["Data"]["Title"] == "after migrate"
    assert await messages_of(database, company) == []
