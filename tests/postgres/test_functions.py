"""Functions, views and triggers: `check` reports each that differs from this version's, `migrate` heals it."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import SecretStr

from notifier.check.links import check
from notifier.database import constants, functions, sql
from notifier.database.revisions import newest
from notifier.database.schema import migrate, uninstall
from notifier.settings import Settings
from tests.databases import Connection, Database
from tests.postgres.relays import Relayed, new_company, new_event, types
from tests.postgres.test_migrations import amid_writers

RELEASE = (Path(__file__).parent / "releases" / "0002.sql").read_text(encoding="utf-8")


async def unsound(database: Database) -> list[str]:
    """What `check` finds wrong."""
    settings = Settings(database_url=SecretStr(database.dsn), jwt_secret=SecretStr("x" * 32))
    return [finding.line for finding in await check(settings) if finding.sound is False]


async def migrated(database: Database) -> list[str]:
    lines: list[str] = []
    await migrate(database.dsn, report=lines.append)
    return lines


@pytest.mark.parametrize(
    ("change", "finding"),
    [
        (
            (
                "CREATE OR REPLACE FUNCTION notifier.rotate_changes() RETURNS boolean LANGUAGE plpgsql SECURITY DEFINER"
                " SET search_path = pg_catalog, pg_temp AS 'BEGIN RETURN false; END'"
            ),
            "function rotate_changes() differs from this version's in its body",
        ),
        (
            "ALTER FUNCTION notifier.capture() SECURITY INVOKER",
            "function capture() differs from this version's in its security definer",
        ),
        (
            "ALTER FUNCTION notifier.capture() RESET search_path",
            "function capture() differs from this version's in its settings",
        ),
        (
            "ALTER FUNCTION notifier.capture() SET search_path = public",
            "function capture() differs from this version's in its settings",
        ),
        (
            "ALTER FUNCTION notifier.sanitize_json(json) VOLATILE",
            "function sanitize_json(image json) differs from this version's in its volatility",
        ),
        (
            "ALTER FUNCTION notifier.strip_columns(json, text[]) CALLED ON NULL INPUT",
            (
                "function strip_columns(image json, excluded text[]) differs from this version's in its"
                " is strict"
            ),
        ),
        ("DROP FUNCTION notifier.reopen()", "function reopen() is missing"),
        (
            (
                "CREATE FUNCTION notifier.former() RETURNS int LANGUAGE sql AS 'SELECT 1';"
                f"COMMENT ON FUNCTION notifier.former() IS '{functions.MANAGED}'"
            ),
            "function former() is of another version",
        ),
        (
            "CREATE OR REPLACE VIEW notifier.changes AS SELECT *, 0 AS size FROM notifier.changes_0",
            "view changes differs",
        ),
        ("DROP VIEW notifier.changes", "view changes differs"),
        (
            "DROP TRIGGER notifier_capture ON events",
            "trigger notifier_capture on public.events is missing",
        ),
        (
            "ALTER TABLE events DISABLE TRIGGER notifier_capture",
            "trigger notifier_capture on public.events is disabled or differs from this version's",
        ),
        (
            "ALTER TABLE events ENABLE REPLICA TRIGGER notifier_capture_truncate",
            (
                "trigger notifier_capture_truncate on public.events is disabled or differs from this"
                " version's"
            ),
        ),
        (
            (
                "DROP TRIGGER notifier_capture ON events; CREATE TRIGGER notifier_capture"
                " AFTER INSERT OR UPDATE OR DELETE ON events FOR EACH ROW WHEN (false)"
                " EXECUTE FUNCTION notifier.capture('Event', 'id', 'company_id')"
            ),
            "trigger notifier_capture on public.events is disabled or differs from this version's",
        ),
        (
            (
                "DROP TRIGGER notifier_capture ON events; CREATE TRIGGER notifier_capture"
                " AFTER INSERT OR UPDATE OR DELETE ON events FOR EACH ROW"
                " EXECUTE FUNCTION notifier.capture('Event', 'id', 'organizer_id')"
            ),
            "trigger notifier_capture on public.events is disabled or differs from this version's",
        ),
        (
            (
                "DROP TRIGGER notifier_capture ON events; CREATE TRIGGER notifier_capture"
                " AFTER INSERT OR UPDATE OF title ON events FOR EACH ROW"
                " EXECUTE FUNCTION notifier.capture('Event', 'id', 'company_id')"
            ),
            "trigger notifier_capture on public.events is disabled or differs from this version's",
        ),
        (
            (
                "CREATE TRIGGER another AFTER INSERT ON events FOR EACH ROW"
                " EXECUTE FUNCTION notifier.capture('Event', 'id', 'company_id')"
            ),
            "trigger another on public.events is not needed",
        ),
    ],
)
async def test_check_names_what_differs_and_migrate_heals_it(
    change: str, finding: str, database: Database
) -> None:
    assert await unsound(database) == []
    await database.execute(change)
    assert f"{finding}; run: notifier migrate" in await unsound(database)
    assert await migrated(database) != []
    assert await unsound(database) == []
    assert await migrated(database) == []


async def test_a_function_that_is_edited_in_its_file_reaches_a_migrated_database(
    database: Database, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    edited = sql.function("is_full").replace("max_log_bytes / 2", "max_log_bytes / 3")
    wanted = [
        functions.parse(edited) if each.name == "is_full" else each
        for each in functions.this_version()
    ]
    function = sql.function
    monkeypatch.setattr(functions, "this_version", lambda: wanted)
    monkeypatch.setattr(
        sql, "function", lambda name: edited if name == "is_full" else function(name)
    )
    assert await unsound(database) == [
        "function is_full() differs from this version's in its body; run: notifier migrate"
    ]
    assert await migrated(database) == ["function is_full(): replaced"]
    assert await unsound(database) == []


async def test_functions_that_migrate_did_not_make_stay(database: Database) -> None:
    await database.execute(
        "CREATE FUNCTION notifier.theirs() RETURNS int LANGUAGE sql AS 'SELECT 1'"
    )
    await migrate(database.dsn)
    assert await database.fetchval("SELECT notifier.theirs()") == 1


async def test_a_replaced_function_keeps_its_callers_and_its_rights(database: Database) -> None:
    await database.execute("ALTER FUNCTION notifier.capture() SECURITY INVOKER")
    await migrate(database.dsn)
    assert not await database.fetchval(
        "SELECT has_function_privilege('public', 'notifier.capture()', 'EXECUTE')"
    )
    assert (
        await database.fetchval("SELECT count(*) FROM pg_trigger WHERE tgname ~ '^notifier'") == 6
    )


def test_sql_has_no_number_that_python_knows_by_a_name() -> None:
    numbers = {str(value) for name, value in vars(constants).items() if name.isupper()} - {"32"}
    for path in sql.folder("sql").rglob("*.sql"):
        text = path.read_text(encoding="utf-8")
        assert not [number for number in numbers if number in text], path.name


# --- from the first release


@pytest.fixture
async def released(database: Database) -> Database:
    """A database at revision 0002, as the first release left it."""
    await uninstall(database.dsn)
    await database.execute(RELEASE)
    return database


async def test_a_database_of_the_first_release_becomes_like_a_new_one(released: Database) -> None:
    lines = await migrated(released)
    assert f"schema notifier: 0002 → {newest()}" in lines
    assert "function empty(which integer, read_so_far text, last_seq bigint): dropped" in lines
    assert not [line for line in lines if line.startswith("trigger")]
    assert await unsound(released) == []
    assert await migrated(released) == []


async def test_an_application_goes_on_while_the_first_release_is_upgraded_and_nothing_is_lost(
    released: Database, app: Connection
) -> None:
    company = await new_company(app)
    await new_event(app, company)
    await amid_writers(released, company, lambda: migrate(released.dsn))
    relay = Relayed(released)
    await relay.start()
    messages = await relay.messages_of(company)
    await relay.stop()
    assert types(messages) == ["EventCreated"] * await released.fetchval(
        "SELECT count(*) FROM events"
    )


async def test_uninstall_of_the_first_release_leaves_no_trace(released: Database) -> None:
    await uninstall(released.dsn)
    assert not await released.fetchval("SELECT count(*) FROM pg_trigger WHERE tgname ~ '^notifier'")
    assert await released.fetchval("SELECT to_regnamespace('notifier')") is None


async def test_capture_gets_the_present_relations_from_migrate_and_works_without(
    database: Database,
) -> None:
    """After a dump and restore they have other numbers: rows are captured all the same."""
    body = "SELECT prosrc FROM pg_proc WHERE oid = 'notifier.capture'::regproc"
    before = await database.fetchval(body)
    other = before.replace("'::regclass", "9'::regclass")
    await database.execute(
        "UPDATE pg_proc SET prosrc = $1 WHERE oid = 'notifier.capture'::regproc", other
    )
    assert await unsound(database) == []
    await database.execute("INSERT INTO companies (name) VALUES ('Acme')")
    assert await database.fetchval("SELECT new ->> 'name' FROM notifier.changes") == "Acme"
    await migrate(database.dsn)
    assert await database.fetchval(body) == before
