"""`state_where`: which rows a state has, what `migrate` refuses, and whose code never runs."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import msgspec
import pytest

from notifier.check.links import check
from notifier.database import sql, state_bounds
from notifier.database.connections import connected
from notifier.database.schema import migrate
from notifier.errors import SettingsError, StateUnavailable
from notifier.settings import load
from notifier.state.reader import StateReader
from notifier.types import columns
from notifier.watches import Watch
from tests.databases import Connection, Database
from tests.postgres.relays import Relayed

TABLES = """
GRANT CREATE ON SCHEMA public TO app;
SET ROLE app;
CREATE TYPE level AS ENUM ('low', 'high');
CREATE TABLE runs (by text);
GRANT ALL ON runs TO PUBLIC;
CREATE SEQUENCE ran;
GRANT ALL ON ran TO PUBLIC;
CREATE FUNCTION trap(text) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS $$
    BEGIN PERFORM pg_catalog.nextval('public.ran'); RETURN true; END $$;
CREATE FUNCTION trap_less(text, text) RETURNS boolean LANGUAGE sql IMMUTABLE AS 'SELECT public.trap($1)';
CREATE OPERATOR < (FUNCTION = trap_less, LEFTARG = text, RIGHTARG = text);
CREATE DOMAIN short AS text CHECK (trap(value));
CREATE TYPE pair AS (a int, b short);
CREATE TABLE notes (
    id int PRIMARY KEY, company_id text, title short, ends_at timestamptz, level level, levels level[],
    tags short[], pair pair, secret text, score int, "Odd name" int
);
RESET ROLE;
INSERT INTO notes (id, company_id, title, ends_at, level, score, "Odd name") VALUES
    (1, 'c', 'old', '2026-01-01', 'low', 0, 1), (2, 'c', 'new', '2999-01-01', 'high', 1, 2),
    (3, 'd', 'other', '2999-01-01', 'high', 1, 2), (4, 'c', 'none', NULL, NULL, NULL, NULL)
"""
NOTES = Watch(table="notes", entity="Note", exclude=("secret",))


@pytest.fixture
async def notes(database: Database, relay: Relayed) -> Database:
    """The table, and a relay, which stores what `migrate` announces."""
    await database.execute(TABLES)
    await database.execute("ALTER SEQUENCE ran RESTART")
    return database


async def has_run(database: Database) -> bool:
    """Whether code of the application has run; no rollback undoes what happens to the sequence."""
    return bool(await database.fetchval("SELECT is_called FROM ran"))


async def bound(database: Database, expression: str | None) -> list[str]:
    lines: list[str] = []
    watch = replace(NOTES, state_where=expression)
    await migrate(database.dsn, watches=[watch], report=lines.append)
    return lines


async def read(database: Database) -> list[int]:
    """The ids of the notes in the state of company c."""
    states = StateReader(database.dsn, pooled=False, max_rows=100)
    try:
        state = await states.read("c", None, "u")
    finally:
        states.close()
    rows: list[dict[str, Any]] = []
    for page in state.pages:
        rows += msgspec.json.decode(page)["Data"]["Rows"]
    return [row["NoteId"] for row in rows]


ACCEPTED = {
    "ends_at > now() - interval '90 days'": [2],
    "level = 'high' AND title <> 'x'": [2],
    "'low' = ANY (levels) IS NOT TRUE AND lower(title) IN ('old', 'none')": [1, 4],
    "score IS NULL OR score > 0 -- all that count": [2, 4],
    'score = 5) OR ("Odd name" = 1': [1],
    "CASE WHEN score = 0 THEN false ELSE pg_catalog.now() > '-infinity' END": [2, 4],
    "to_jsonb(level) = '\"high\"'": [2],
}


async def test_only_rows_for_which_it_is_true_are_part_of_the_state(notes: Database) -> None:
    for expression, expected in ACCEPTED.items():
        await bound(notes, expression)
        assert await read(notes) == expected, expression
    assert not await has_run(notes)
    assert (
        "notes: state_where to_jsonb(level) = '\"high\"' → none: states that are read from now on"
        in (await bound(notes, None))
    )
    assert await read(notes) == [1, 2, 4]


REFUSED = {
    "public.trap('x')": "public is not PostgreSQL's own schema",
    "title OPERATOR(public.<) 'x'": "public is not PostgreSQL's own schema",
    "level = 'high'::public.level": "public is not PostgreSQL's own schema",
    "trap('x')": "function trap(unknown) does not exist",
    "EXISTS (SELECT FROM pg_class)": "cannot use subquery in check constraint",
    "count(*) > 1": "aggregate functions are not allowed in check constraints",
    "random() > 0.5": "random() is volatile",
    "query_to_xml('SELECT 1', true, true, '') IS NULL": "query_to_xml(text,boolean,boolean,text) is volatile",
    "table_to_xml('pg_class', true, true, '') IS NULL": "table_to_xml(regclass,boolean,boolean,text) reads tables",
    "tags = '{a}'": 'column "tags" does not exist',
    "pair IS NULL": 'column "pair" does not exist',
    "secret = 'x'": 'column "secret" does not exist',
    "state_bound IS NULL": "notifier.state_bound is not one of PostgreSQL's own types",
    "score": "argument of CHECK must be type boolean, not type integer",
    "score >": 'syntax error at or near ")"',
    "score = $1": "there is no parameter $1",
    "true), CHECK (true": "",
    "true)); DROP TABLE notes; --": 'syntax error at or near ";"',
    "true)))): SELECT 1": 'syntax error at or near ")"',
    "true /*": 'unterminated /* comment at or near "/*',
    "ends_at > 'never'": 'invalid input syntax for type timestamp with time zone: "never"',
}


async def test_migrate_refuses_what_could_run_code_or_read_more_than_the_row(
    notes: Database,
) -> None:
    await bound(notes, None)
    for expression, problem in REFUSED.items():
        with pytest.raises(SettingsError) as raised:
            await bound(notes, expression)
        line = str(raised.value)
        assert line.startswith(f"table notes: state_where: {problem}"), (expression, line)
        assert "no subqueries" in line
        assert "\n" not in line
    assert not await has_run(notes)


EVIL = """
CREATE TYPE evil AS (at text);
CREATE FUNCTION turn(evil) RETURNS timestamptz LANGUAGE plpgsql IMMUTABLE AS $$
    BEGIN PERFORM pg_catalog.nextval('public.ran'); RETURN now(); END $$;
CREATE CAST (evil AS timestamptz) WITH FUNCTION turn AS IMPLICIT;
ALTER TABLE notes ALTER ends_at TYPE evil USING row('x')::evil
"""
CAST = """
CREATE FUNCTION as_text(level) RETURNS text LANGUAGE plpgsql IMMUTABLE AS $$
    BEGIN PERFORM pg_catalog.nextval('public.ran'); RETURN 'high'; END $$;
CREATE CAST (level AS text) WITH FUNCTION as_text AS IMPLICIT
"""
ARRAY = "ALTER TABLE notes ALTER levels TYPE short[] USING levels::text[]::short[]"

DOMAINS = """
CREATE DOMAIN levels_0 AS level[] CHECK (trap('x'));
DO $$ BEGIN
    FOR n IN 1 .. 40 LOOP
        EXECUTE format('CREATE DOMAIN levels_%s AS levels_%s', n, n - 1);
    END LOOP;
END $$;
ALTER TABLE notes ALTER levels TYPE levels_40
"""


@pytest.mark.parametrize(
    ("expression", "change"),
    [
        ("ends_at > now()", EVIL),
        ("level::text = 'high'", CAST),
        ("score = 1 AND (levels && '{high}') IS NOT TRUE", ARRAY),
        ("score = 1 OR coalesce(levels, '{low}') && '{high}'", DOMAINS),
    ],
    ids=[
        "the type of a column",
        "a cast of an enum",
        "a domain, whose check the parser evaluates",
        "many domains over each other",
    ],
)
async def test_code_that_came_after_migrate_makes_the_state_unavailable(
    notes: Database, expression: str, change: str
) -> None:
    await bound(notes, expression)
    assert await read(notes) == [2]
    await notes.execute(f"SET ROLE app; {change}")
    await notes.execute("ALTER SEQUENCE ran RESTART")
    with pytest.raises(StateUnavailable, match="a type of the application's"):
        await read(notes)
    assert not await has_run(notes)
    watch = replace(NOTES, state_where=expression)
    findings = await check(load({}, database_url=notes.dsn, watch=[watch], state="on"))
    assert any(
        not each.sound and "state_where of Note cannot be used" in each.fact for each in findings
    )
    assert not await has_run(notes)


class Replacing:
    """A connection of `migrate`, during which the owner of a type gives its name to a domain."""

    def __init__(self, connection: Connection, database: Database) -> None:
        self._connection = connection
        self._database = database

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)

    async def fetch(self, query: str, *arguments: Any) -> Any:
        rows = await self._connection.fetch(query, *arguments)
        if query == sql.query("state_bound_columns"):
            await self._database.execute(
                "ALTER TYPE level RENAME TO former; ALTER DOMAIN short RENAME TO level"
            )
        return rows


async def test_no_code_runs_of_a_type_that_takes_the_name_of_another_during_migrate(
    notes: Database,
) -> None:
    watch = replace(NOTES, state_where="levels && '{high}'")
    async with connected(notes.dsn, "test") as connection, connection.transaction():
        replacing: Any = Replacing(connection, notes)
        with pytest.raises(SettingsError, match="was replaced meanwhile"):
            await state_bounds.require(replacing, watch, "public.notes")
        assert not await has_run(notes)


async def test_an_expression_that_fails_or_whose_column_is_gone_makes_the_state_unavailable(
    notes: Database,
) -> None:
    await bound(notes, "10 / score > 1")
    with pytest.raises(StateUnavailable, match="the rows of notes cannot be read"):
        await read(notes)
    await notes.execute("DELETE FROM notes WHERE score = 0")
    assert await read(notes) == [2]
    await notes.execute("ALTER TABLE notes DROP score")
    with pytest.raises(StateUnavailable, match="the rows of notes cannot be read"):
        await read(notes)


async def test_a_dry_run_reports_it_and_changes_nothing(notes: Database) -> None:
    await bound(notes, None)
    lines: list[str] = []
    watch = replace(NOTES, state_where="score > 0")
    await migrate(notes.dsn, watches=[watch], dry_run=True, report=lines.append)
    assert "notes: state_where none → score > 0: states that are read from now on" in lines
    assert await read(notes) == [1, 2, 4]


async def test_types_of_a_schema_per_tenant_are_read_before_migrate_and_create_nothing(
    empty: Database,
) -> None:
    await empty.execute("CREATE SCHEMA ws_1; CREATE TABLE ws_1.tasks (id int PRIMARY KEY, n int)")
    watch = Watch(table="ws_*.tasks", entity="Task", company="schema", state_where="n > 0")
    settings = load({}, database_url=empty.dsn, jwt_secret="s" * 32, watch=[watch])
    (table,) = await columns.read(settings)
    assert [each.name for each in table.properties] == ["CompanyId", "TaskId", "N"]
