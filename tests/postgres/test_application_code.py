"""Casts, operators, functions, domains, policies, rules and triggers of the application never run with our rights.

A trap is a function that makes its caller's role a superuser and writes to a table of the owner's. Run by
the application itself it does nothing; run by `capture`, or by a command of ours, it succeeds.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from itertools import product
from typing import Any, NamedTuple

import asyncpg
import pytest

from notifier.check.links import check
from notifier.database.proposal import propose
from notifier.database.schema import migrate, uninstall
from notifier.database.sql import identifier
from notifier.settings import Settings, load
from notifier.types import columns
from notifier.watches import CALENDAR, Watch
from tests.databases import Connection, Database
from tests.postgres.relays import Relayed, types
from tests.services import SECRET

SPRING = """
    BEGIN
        EXECUTE 'ALTER ROLE app SUPERUSER';
    EXCEPTION WHEN OTHERS THEN
    END;
    BEGIN
        INSERT INTO public.trespasses VALUES (current_user);
    EXCEPTION WHEN OTHERS THEN
    END;
"""
TYPES = f"""
    CREATE TYPE mood AS ENUM ('calm', 'glad');
    CREATE TYPE place AS (name text, mood mood, moods mood[]);
    CREATE TYPE moods AS RANGE (subtype = mood);
    CREATE DOMAIN feeling AS mood;
    CREATE DOMAIN feelings AS mood[];
    CREATE FUNCTION trap(anyelement) RETURNS boolean LANGUAGE plpgsql AS
        $$ BEGIN {SPRING} RETURN true; END $$;
    CREATE DOMAIN wary AS text CHECK (trap(VALUE));
    CREATE TABLE docs (
        id int PRIMARY KEY, company_id text, mood mood, place place, range moods, feeling feeling,
        feelings feelings, moods mood[], places place[], wary wary, price numeric, tags text[], body jsonb
    );
"""
VALUES = """
    1, 'c', 'glad', ROW('Here', 'calm', '{{glad,NULL}}'), '[calm,glad]', 'calm', '{{calm}}',
    '{{{{calm,glad}},{{glad,calm}}}}', ARRAY[ROW('There, "far"', 'glad', NULL)::place, NULL], 'x', 1.50, '{{a,NULL}}',
    '{{"a": [1]}}'
""".replace("{{", "{").replace("}}", "}")
DATA: dict[str, Any] = {
    "DocId": 1,
    "CompanyId": "c",
    "Mood": "glad",
    "Place": {"name": "Here", "mood": "calm", "moods": ["glad", None]},
    "Range": "[calm,glad]",
    "Feeling": "calm",
    "Feelings": ["calm"],
    "Moods": [["calm", "glad"], ["glad", "calm"]],
    "Places": [{"name": 'There, "far"', "mood": "glad", "moods": None}, None],
    "Wary": "x",
    "Price": 1.50,
    "Tags": ["a", None],
    "Body": {"a": [1]},
}
SOURCES = ("mood", "place", "moods", "docs")
TARGETS = ("json", "jsonb", "text", "varchar", "boolean")

WATCHES = (*CALENDAR, Watch(table="docs", entity="Doc"))


OPERANDS = ("regproc", "regclass", "oid", "name", "text", "varchar", '"char"', "int2", "int4")


class App(NamedTuple):
    """The application's connection, and the database of its owner."""

    database: Database
    connection: Connection

    async def is_confined(self) -> bool:
        """Whether no trap has run with more rights than the application's."""
        superuser = await self.database.fetchval(
            "SELECT rolsuper FROM pg_roles WHERE rolname = 'app'"
        )
        return not superuser and not await self.database.fetch("SELECT * FROM trespasses")

    @property
    def settings(self) -> Settings:
        return load({}, database_url=self.database.dsn, jwt_secret=SECRET, watch=WATCHES)


@pytest.fixture
async def hostile(database: Database) -> AsyncIterator[App]:
    """The table `docs` with its types, all owned by the application, and watched."""
    await database.execute("CREATE TABLE trespasses (by text)")
    await database.execute(
        "GRANT CREATE ON SCHEMA public TO app; REVOKE ALL ON trespasses FROM app"
    )
    connection = await database.connect(app=True)
    await connection.execute(TYPES)
    await migrate(database.dsn, watches=WATCHES)
    app = App(database, connection)
    yield app
    await database.execute("ALTER ROLE app NOSUPERUSER")


async def _casts(connection: Connection, context: str) -> None:
    """Casts of every type of the application's to every target."""
    for source in SOURCES:
        for target in TARGETS:
            literal = {"boolean": "true"}.get(target, "'\"trapped\"'")
            await connection.execute(
                f"CREATE FUNCTION {source}_{target}({source}) RETURNS {target} LANGUAGE plpgsql AS"
                f" $$ BEGIN {SPRING} RETURN {literal}::{target}; END $$;"
                f" CREATE CAST ({source} AS {target}) WITH FUNCTION {source}_{target}({source}) {context}"
            )


async def _write(connection: Connection) -> None:
    await connection.execute(f"INSERT INTO docs VALUES ({VALUES})")
    await connection.execute("UPDATE docs SET price = 2, mood = 'calm'")
    await connection.execute("DELETE FROM docs")


async def _messages(app: App, company: str = "c") -> list[dict[str, Any]]:
    relay = Relayed(app.database)
    await relay.start()
    messages = await relay.messages_of(company)
    await relay.stop()
    return messages


async def test_values_without_casts_are_rendered_as_row_to_json_does(hostile: App) -> None:
    await hostile.connection.execute(f"INSERT INTO docs VALUES ({VALUES})")
    plain = await hostile.database.fetchval("SELECT row_to_json(docs)::text FROM docs")
    stored = await hostile.database.fetchval(
        "SELECT new::text FROM notifier.changes WHERE entity <> '' AND new IS NOT NULL"
    )
    assert stored == plain
    (message,) = await _messages(hostile)
    assert message["Data"] == DATA


async def test_no_name_of_a_column_and_no_depth_of_arrays_changes_the_image(
    database: Database,
) -> None:
    """A column may have a name that our statements use themselves."""
    names = (
        "r",
        "t",
        "i",
        "m",
        "i1",
        "new",
        "old",
        "image",
        "row_value",
        "statements",
        "$1",
        "%s",
        "{}",
    )
    columns = ", ".join(f"{identifier(name)} range_of_time" for name in names)
    await database.execute(
        "CREATE DOMAIN positive AS int CHECK (VALUE > 0); CREATE TYPE range_of_time AS RANGE (subtype = time);"
        "CREATE TYPE item AS (r positive, parts positive[]); CREATE TYPE r AS (items item[], mood text, r item);"
        f"CREATE TABLE docs (id int PRIMARY KEY, company_id text, {columns}, all_items r[])"
    )
    await migrate(database.dsn, watches=WATCHES)
    values = ", ".join(f"('[0{number % 10}:00,)')" for number in range(len(names)))
    item = "ROW(%d, '{%d,%d}')::item"
    items = f"ARRAY[{item % (1, 2, 3)}, {item % (4, 5, 6)}, NULL]"
    await database.execute(
        f"INSERT INTO docs VALUES (1, 'c', {values}, ARRAY[ROW({items}, 'x', {item % (7, 8, 9)})::r,"
        f" ROW(ARRAY[{item % (10, 11, 12)}], 'y', NULL)::r])"
    )
    stored = await database.fetchval("SELECT new::text FROM notifier.changes WHERE new IS NOT NULL")
    assert stored == await database.fetchval("SELECT row_to_json(docs.*)::text FROM docs")


@pytest.mark.parametrize("context", ["", "AS ASSIGNMENT", "AS IMPLICIT"])
async def test_no_cast_of_the_application_runs_when_its_rows_are_captured(
    hostile: App, context: str
) -> None:
    """They are created after `migrate`, as an attacker would."""
    await _casts(hostile.connection, context)
    await _write(hostile.connection)
    created, updated, deleted = await _messages(hostile)
    assert created["Data"] == DATA
    assert updated["Old"] == {"Mood": "glad", "Price": 1.50}
    assert deleted["Data"] == {**DATA, "Mood": "calm", "Price": 2}
    assert await hostile.is_confined()


async def test_a_cast_that_is_created_while_a_session_lives_does_not_run_either(
    hostile: App,
) -> None:
    await _write(hostile.connection)
    await _casts(hostile.connection, "")
    await _write(hostile.connection)
    messages = await _messages(hostile)
    assert messages[0]["Data"] == messages[3]["Data"] == DATA
    assert await hostile.is_confined()


@pytest.mark.parametrize(
    "change",
    [
        "ALTER TABLE events ADD COLUMN mood mood DEFAULT 'glad'",
        "ALTER TABLE events ALTER COLUMN location TYPE mood USING 'glad'::mood",
        "ALTER TABLE events ADD COLUMN mood feeling[] DEFAULT '{glad}'",
        "ALTER TABLE events ADD COLUMN mood place DEFAULT ROW('x', 'glad', NULL)",
    ],
)
async def test_a_column_that_comes_after_migrate_is_no_way_in(hostile: App, change: str) -> None:
    """Within a session and within a transaction, as capture's plans of before are still there."""
    database, connection = hostile
    await database.execute("ALTER TABLE events OWNER TO app; ALTER TABLE companies OWNER TO app")
    company = await connection.fetchval("INSERT INTO companies (name) VALUES ('Acme') RETURNING id")
    insert = "INSERT INTO events (company_id, title, starts_at, ends_at) VALUES ($1, 'Tea', now(), now())"
    await connection.execute(insert, company)
    await _casts(connection, "")
    async with connection.transaction():
        await connection.execute(insert, company)
        await connection.execute(change)
        await connection.execute("UPDATE events SET title = 'Coffee'")
        await connection.execute("UPDATE events SET title = 'Cocoa'")
    await connection.execute("UPDATE events SET title = 'Milk'")
    messages = await _messages(hostile, str(company))
    assert types(messages[-2:]) == ["EventUpdated", "EventUpdated"]
    assert "glad" in str(messages[-1]["Data"])
    assert await hostile.is_confined()


async def test_an_attribute_that_comes_after_migrate_is_rendered_and_no_way_in(
    hostile: App,
) -> None:
    connection = hostile.connection
    await _casts(connection, "")
    await connection.execute(f"INSERT INTO docs VALUES ({VALUES})")
    await connection.execute("ALTER TYPE place ADD ATTRIBUTE other mood")
    await connection.execute("UPDATE docs SET place.other = 'glad'")
    _, updated = await _messages(hostile)
    assert updated["Data"]["Place"] == {**DATA["Place"], "other": "glad"}
    assert await hostile.is_confined()


@pytest.mark.parametrize("name", ["to_json", "quote_literal", "json_agg"])
async def test_an_attribute_that_is_gone_is_no_function(hostile: App, name: str) -> None:
    """PostgreSQL takes `value.name` for the function `name` of the value where it has no such attribute.

    The types came after `migrate`, so no plan of capture's is discarded when they are altered.
    """
    connection = hostile.connection
    await connection.execute(
        f"CREATE TYPE spot AS (mood mood, {name} int); CREATE TYPE area AS (spots spot[], {name} spot);"
        "CREATE DOMAIN region AS area; CREATE DOMAIN regions AS region[];"
        "ALTER TABLE docs ADD COLUMN regions regions"
    )
    await _casts(connection, "AS IMPLICIT")
    await connection.execute(
        f"CREATE FUNCTION spot_text(spot) RETURNS text LANGUAGE plpgsql AS $$ BEGIN {SPRING} RETURN 'x'; END $$;"
        "CREATE CAST (spot AS text) WITH FUNCTION spot_text(spot) AS IMPLICIT"
    )
    insert = "INSERT INTO docs (id, company_id, regions) VALUES ({}, 'c', ARRAY[ROW({})::region]::regions)"
    spot = "ROW('glad', 1)::spot"
    await connection.execute(insert.format(1, f"ARRAY[{spot}], {spot}"))
    await connection.execute(f"ALTER TYPE spot DROP ATTRIBUTE {name}")
    await connection.execute(insert.format(2, "ARRAY[ROW('glad')::spot], ROW('calm')::spot"))
    await connection.execute(f"ALTER TYPE area DROP ATTRIBUTE {name}")
    await connection.execute(insert.format(3, "ARRAY[ROW('glad')::spot]"))
    await connection.execute("ALTER TYPE area RENAME ATTRIBUTE spots TO places")
    await connection.execute(insert.format(4, "ARRAY[ROW('calm')::spot]"))
    assert await hostile.is_confined()
    whole = {"mood": "glad", name: 1}
    assert [message["Data"]["Regions"] for message in await _messages(hostile)] == [
        [{"spots": [whole], name: whole}],
        [{"spots": [{"mood": "glad"}], name: {"mood": "calm"}}],
        [{"spots": [{"mood": "glad"}]}],
        [{"places": [{"mood": "calm"}]}],
    ]


async def test_an_attribute_that_is_gone_by_the_time_its_row_is_rendered_makes_it_fail(
    hostile: App,
) -> None:
    """As when another session alters the type after the statement was made."""
    database, connection = hostile
    await connection.execute("CREATE TYPE spot AS (a int, to_json int, b text, c text)")
    await _casts(connection, "")
    expression = await database.fetchval(
        "SELECT notifier.json_expression('given.spot', 'spot'::regtype)"
    )
    for change, row, error in (
        ("DROP ATTRIBUTE to_json", "1, 'b', 'c'", asyncpg.InvalidColumnReferenceError),
        ("ADD ATTRIBUTE mood mood", "1, 'b', 'c', 'glad'", asyncpg.DivisionByZeroError),
    ):
        await connection.execute(f"ALTER TYPE spot {change}")
        with pytest.raises(error):
            await database.fetch(
                f"SELECT {expression} FROM (SELECT ROW({row})::spot) AS given (spot)"
            )
    assert await hostile.is_confined()


async def test_keys_and_companies_of_the_applications_types_are_no_way_in(hostile: App) -> None:
    """Also where a row is stored by its keys only."""
    database, connection = hostile
    await connection.execute(
        "CREATE TABLE notes (id mood PRIMARY KEY, company_id feeling, body text)"
    )
    await migrate(database.dsn, watches=[*WATCHES, Watch(table="notes", entity="Note")])
    await _casts(connection, "AS IMPLICIT")
    await connection.execute("INSERT INTO notes VALUES ('calm', 'glad', 'x')")
    await connection.execute("UPDATE notes SET body = repeat('x', 3000000)")
    created, updated = await _messages(hostile, "glad")
    assert created["Data"] == {"NoteId": "calm", "CompanyId": "glad", "Body": "x"}
    assert updated["Data"] == {"NoteId": "calm", "CompanyId": "glad"}
    assert updated["Partial"] is True
    assert await hostile.is_confined()


async def test_operators_and_functions_of_the_application_stand_in_for_none(hostile: App) -> None:
    connection = hostile.connection
    for name, arguments, result in (
        ("row_to_json", "docs", "json"),
        ("format", "text, mood", "text"),
        ("num_nulls", "mood", "int"),
        ("concat", "json, json", "text"),
        ("octet_length", "text", "int"),
        ("equals", "mood, mood", "boolean"),
        ("same", "docs, docs", "boolean"),
    ):
        await connection.execute(
            f"CREATE FUNCTION {name}({arguments}) RETURNS {result} LANGUAGE plpgsql AS"
            f" $$ BEGIN {SPRING} RETURN NULL; END $$"
        )
    for operator, function, operand in (
        ("=", "equals", "mood"),
        ("<>", "equals", "mood"),
        ("=", "same", "docs"),
        ("*=", "same", "docs"),
    ):
        await connection.execute(
            f"CREATE OPERATOR public.{operator} (leftarg = {operand}, rightarg = {operand},"
            f" function = {function})"
        )
    await connection.execute("SET search_path = public, pg_catalog, pg_temp")
    await _write(connection)
    assert types(await _messages(hostile)) == ["DocCreated", "DocUpdated", "DocDeleted"]
    assert await hostile.is_confined()


async def test_policies_rules_triggers_and_views_of_the_application_run_as_it(hostile: App) -> None:
    connection = hostile.connection
    await connection.execute(
        f"""
        CREATE FUNCTION spring() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {SPRING} RETURN NEW; END $$;
        CREATE TRIGGER before BEFORE INSERT OR UPDATE ON docs FOR EACH ROW EXECUTE FUNCTION spring();
        CREATE TRIGGER zzz_after AFTER INSERT OR UPDATE ON docs FOR EACH ROW EXECUTE FUNCTION spring();
        CREATE RULE also AS ON DELETE TO docs DO ALSO SELECT trap(OLD.id);
        CREATE VIEW shown AS SELECT * FROM docs WHERE trap(id);
        ALTER TABLE docs ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
        CREATE POLICY all_of_them ON docs USING (trap(id)) WITH CHECK (trap(company_id))
        """
    )
    await connection.execute(f"INSERT INTO shown VALUES ({VALUES})")
    await connection.execute("UPDATE shown SET price = 2")
    await connection.execute("DELETE FROM shown")
    assert types(await _messages(hostile)) == ["DocCreated", "DocUpdated", "DocDeleted"]
    assert await hostile.is_confined()


async def test_commands_run_nothing_of_the_application(hostile: App) -> None:
    """Functions and operators in `public` whose arguments fit exactly are preferred to PostgreSQL's own."""
    database, connection = hostile
    for name, arguments in (
        ("format", "text, name, name"),
        ("to_regclass", "character varying"),
        ("quote_ident", "name"),
        ("obj_description", "oid, name"),
        ("pg_partition_tree", "oid"),
        ("format_type", "oid, int"),
        ("coalesce_name", "name"),
    ):
        await connection.execute(
            f"CREATE FUNCTION public.{name}({arguments}) RETURNS text LANGUAGE plpgsql AS"
            f" $$ BEGIN {SPRING} RETURN NULL; END $$"
        )
    await connection.execute(
        f"CREATE FUNCTION public.is_equal(name, text) RETURNS boolean LANGUAGE plpgsql AS"
        f" $$ BEGIN {SPRING} RETURN true; END $$;"
        " CREATE OPERATOR public.= (leftarg = name, rightarg = text, function = public.is_equal)"
    )
    for number, (left, right) in enumerate(product(OPERANDS, repeat=2)):
        operators = "; ".join(
            f"CREATE OPERATOR public.{name} (leftarg = {left}, rightarg = {right}, function = public.trap{number})"
            for name in ("=", "<>", "<", ">", "~", "||")
            if (name, left, right) != ("=", "name", "text")
        )
        await connection.execute(
            f"CREATE FUNCTION public.trap{number}({left}, {right}) RETURNS boolean LANGUAGE plpgsql AS"
            f" $$ BEGIN {SPRING} RETURN true; END $$; {operators}"
        )
    for role in ("before", "after"):
        await migrate(database.dsn, watches=WATCHES)
        assert not [f for f in await check(hostile.settings) if f.sound is False], role
        assert await hostile.is_confined()
        await _casts(connection, "AS IMPLICIT") if role == "before" else None
    assert 'table = "docs"' not in await propose(
        database.dsn, None
    )  # no company can be found for it
    assert len(await columns.read(hostile.settings)) == len(WATCHES)
    await uninstall(database.dsn)
    await migrate(database.dsn, calendar=True)
    assert await hostile.is_confined()


async def test_an_excluded_column_that_is_renamed_is_never_stored(
    database: Database,
) -> None:
    await database.execute(
        "CREATE TABLE members (id int PRIMARY KEY, company_id text, password_hash text, name text)"
    )
    watches = [*CALENDAR, Watch(table="members", entity="Member", exclude=("password_hash",))]
    await migrate(database.dsn, watches=watches)
    await database.execute("INSERT INTO members VALUES (1, 'c', 'secret', 'Ann')")
    await database.execute("ALTER TABLE members RENAME password_hash TO password_digest")
    await database.execute("INSERT INTO members VALUES (2, 'c', 'secret', 'Bob')")
    await database.execute("UPDATE members SET name = 'Zoe'")
    await database.execute("DELETE FROM members")
    stored = await database.fetch("SELECT old::text, new::text FROM notifier.changes")
    assert "secret" not in str(stored)
    relay = Relayed(database)
    await relay.start()
    messages = await relay.messages_of("c")
    await relay.stop()
    assert messages[0]["Data"] == {"MemberId": 1, "CompanyId": "c", "Name": "Ann"}
    for message in messages[1:]:
        assert message["Partial"] is True
        assert set(message["Data"]) == {"MemberId", "CompanyId"}
    with pytest.raises(asyncpg.UndefinedColumnError):
        await database.execute("UPDATE members SET password_hash = 'x'")


@pytest.mark.parametrize("level", ["REPEATABLE READ", "SERIALIZABLE"])
@pytest.mark.parametrize(
    "change",
    [
        "ALTER TABLE late ADD COLUMN mood mood DEFAULT 'glad'",
        "ALTER TABLE late DROP COLUMN mood, ALTER COLUMN note TYPE mood USING 'glad', ADD COLUMN mood place",
        "ALTER TYPE pair ADD ATTRIBUTE mood mood",
        "CREATE TYPE newer AS ENUM ('new'); ALTER TABLE late ALTER COLUMN note TYPE newer USING 'new'",
    ],
)
async def test_a_column_that_the_writers_snapshot_does_not_see_is_no_way_in(
    hostile: App, level: str, change: str
) -> None:
    database, connection = hostile
    writer = await database.connect(app=True)
    mood = "mood text" if "DROP COLUMN mood" in change else "first int"
    await connection.execute(
        "CREATE TYPE pair AS (a int);"
        f"CREATE TABLE late (id int PRIMARY KEY, company_id text, pair pair, note text, {mood})"
    )
    await migrate(database.dsn, watches=[*WATCHES, Watch(table="late", entity="Late")])
    if level == "SERIALIZABLE":  # with capture's plans of before the change
        await writer.execute("INSERT INTO late VALUES (0, 'c')")
    await writer.execute(f"BEGIN ISOLATION LEVEL {level}; SELECT count(*) FROM companies")
    await connection.execute(change)
    await _casts(connection, "")
    await writer.execute(
        "INSERT INTO late VALUES (1, 'c'); UPDATE late SET company_id = 'd'; COMMIT"
    )
    assert await hostile.is_confined()
    await writer.execute("INSERT INTO late VALUES (2, 'c'); UPDATE late SET company_id = 'e'")
    assert await hostile.is_confined()
    images = await database.fetch("SELECT new FROM notifier.changes ORDER BY id DESC LIMIT 1")
    assert set(json.loads(images[0][0])) == set(
        await database.fetchval(
            "SELECT array_agg(attname::text) FROM pg_attribute"
            " WHERE attrelid = 'late'::regclass AND attnum > 0 AND NOT attisdropped"
        )
    )
