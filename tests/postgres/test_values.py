"""Rows of every kind: none breaks a write, none is silently lost."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, nullcontext
from typing import TypeAlias
from uuid import uuid4

import asyncpg
import pytest
from prometheus_client import REGISTRY

from notifier.database.schema import migrate
from notifier.errors import SettingsError
from notifier.relay import backlog, reader
from notifier.watches import CALENDAR, Watch
from tests.databases import Connection, Database
from tests.postgres.relays import Json, Relayed, log_head, new_event, types
from tests.servers import listening
from tests.waiting import until

Watching: TypeAlias = Callable[..., Awaitable[Relayed]]

POISON = (
    r'"\u0000"',
    r'"\ud800"',
    r'{"a": 1, "a": 2}',
    r'["\udc00", 12345678901234567890, "\\ud800"]',
    "[" * 3000 + "]" * 3000,
)
UNREADABLE = {1, 3, 4}
"""Values that a JSON reader may refuse: such rows are sent with keys only."""


def _body(message: Json) -> object:
    assert ("Body" in message["Data"]) is not message.get("Partial", False)
    return message["Data"].get("Body")


def _sent(number: int) -> object:
    """The value as it is sent; None for keys only."""
    return None if number in UNREADABLE else json.loads(POISON[number])


@pytest.fixture
async def watching(database: Database) -> AsyncIterator[Watching]:
    """Creates the table `docs`, watches it as Doc, and starts a relay. The company is text."""
    relays: list[Relayed] = []

    async def watch(columns: str, *exclude: str, company: str = "company_id") -> Relayed:
        await database.execute(
            f"CREATE TABLE docs (id int PRIMARY KEY, company_id text, {columns});"
            " GRANT ALL ON docs TO app"
        )
        await migrate(database.dsn, watches=[*WITH_COMPANIES, _doc(exclude, company)])
        relay = Relayed(database)
        relays.append(relay)
        await relay.start()
        await relay.settled()
        return relay

    yield watch
    for relay in relays:
        await relay.stop()


WITH_COMPANIES = (Watch(table="companies", entity="Company", company="id", created=""),)
"""`Relayed.settled` writes to it."""


def _doc(exclude: tuple[str, ...] = (), company: str = "company_id") -> Watch:
    return Watch(table="docs", entity="Doc", exclude=exclude, company=company)


# --- values


@pytest.mark.parametrize(
    ("kind", "value", "sent"),
    [
        ("bigint", "9007199254740993", "9007199254740993"),
        ("bigint", "9007199254740992", 9007199254740992),
        ("bigint", "-9223372036854775808", "-9223372036854775808"),
        ("numeric", "0.10", 0.10),
        ("numeric", "'NaN'", "NaN"),
        ("numeric", "1e100000::numeric", "1" + "0" * 100_000),
        ("double precision", "'-Infinity'", "-Infinity"),
        ("double precision", "1e300", "1e+300"),
        ("double precision", "0.5", 0.5),
        ("timestamptz", "'infinity'", "infinity"),
        ("timestamptz", "'4713-01-01 00:00+00 BC'", "4713-01-01T00:00:00+00:00 BC"),
        ("date", "'-infinity'", "-infinity"),
        ("interval", "'1 day 02:03'", "1 day 02:03:00"),
        ("bytea", r"'\x00ff'", r"\x00ff"),
        ("bigint[]", "'{1,9007199254740993,NULL}'", [1, "9007199254740993", None]),
        ("int[]", "'{{1,2},{3,4}}'", [[1, 2], [3, 4]]),
        ("text", "E'\\u2028 \U0001f600 \"\\\\ \\t'", '\u2028 \U0001f600 "\\ \t'),
        ("json", """'{"n": 9007199254740993}'""", {"n": 9007199254740993}),
        ("jsonb", """'{"n": 9007199254740993}'""", {"n": 9007199254740993}),
        ("boolean", "NULL", None),
        ("int4range", "'[1,3)'", "[1,3)"),
        ("inet", "'10.0.0.1/8'", "10.0.0.1/8"),
    ],
    ids=str,
)
async def test_a_value_arrives_unchanged(
    kind: str, value: str, sent: object, watching: Watching, app: Connection
) -> None:
    relay = await watching(f"value {kind}")
    await app.execute(f"INSERT INTO docs VALUES (1, 'c', {value})")
    (message,) = await relay.messages_of("c")
    assert message["Data"] == {"DocId": 1, "CompanyId": "c", "Value": sent}


@pytest.mark.parametrize(
    ("kind", "setting", "before", "after", "sent"),
    [
        ("float8", "extra_float_digits = -15", "1.4", "1.3", 1.3),
        (
            "daterange",
            "datestyle = 'German'",
            "NULL",
            "'[2026-11-22,2026-11-23)'",
            "[2026-11-22,2026-11-23)",
        ),
        ("interval", "intervalstyle = 'sql_standard'", "NULL", "'1 day 02:03'", "1 day 02:03:00"),
        ("bytea", "bytea_output = 'escape'", "NULL", r"'\x00ff'", r"\x00ff"),
    ],
)
async def test_a_value_is_the_same_whatever_the_writers_settings(
    kind: str,
    setting: str,
    before: str,
    after: str,
    sent: object,
    watching: Watching,
    app: Connection,
) -> None:
    relay = await watching(f"value {kind}")
    await app.execute(f"SET {setting}")
    await app.execute(f"INSERT INTO docs VALUES (1, 'c', {before})")
    await app.execute(f"UPDATE docs SET value = {after}")
    _, updated = await relay.messages_of("c")
    assert updated["Data"]["Value"] == sent


async def test_composites_domains_enums_and_generated_columns_arrive(
    database: Database, watching: Watching, app: Connection
) -> None:
    await database.execute(
        """
        CREATE TYPE place AS (name text, code bigint);
        CREATE DOMAIN positive AS bigint CHECK (value > 0);
        CREATE DOMAIN loose AS json;
        CREATE TYPE mood AS ENUM ('calm')
        """
    )
    relay = await watching(
        "place place, number positive, loose loose, mood mood,"
        " twice numeric GENERATED ALWAYS AS (number * 2) STORED"
    )
    await database.execute("ALTER TYPE mood ADD VALUE 'glad'")
    await app.execute(
        "INSERT INTO docs VALUES (1, 'c', ('Here', 9007199254740993), 9007199254740993,"
        """ '{"n": 9007199254740993}', 'glad')"""
    )
    (message,) = await relay.messages_of("c")
    assert message["Data"] == {
        "DocId": 1,
        "CompanyId": "c",
        "Place": {"name": "Here", "code": "9007199254740993"},
        "Number": "9007199254740993",
        "Loose": {"n": 9007199254740993},
        "Mood": "glad",
        "Twice": "18014398509481986",
    }


async def test_a_null_in_an_array_is_none_whatever_the_session_makes_of_the_word(
    database: Database, watching: Watching, app: Connection
) -> None:
    """Arrays of types that are not built in are read from their text."""
    await database.execute("CREATE TYPE mood AS ENUM ('glad', 'NULL')")
    relay = await watching("moods mood[]")
    await app.execute(
        "SET array_nulls = off; INSERT INTO docs VALUES (1, 'c', ARRAY['NULL', NULL, 'glad']::mood[])"
    )
    (created,) = await relay.messages_of("c")
    assert created["Data"]["Moods"] == ["NULL", None, "glad"]


@pytest.mark.parametrize(
    ("column", "value", "between"),
    [
        ("regclass", "events", "SET LOCAL quote_all_identifiers = on"),
        ("mood", "glad", "ALTER TYPE mood RENAME VALUE 'glad' TO 'merry'"),
        ("mood[]", "{glad}", "ALTER TYPE mood RENAME VALUE 'glad' TO 'merry'"),
        ("int", "1", "ALTER TABLE docs ALTER value TYPE text"),
        ("int", "1", "ALTER TABLE docs ALTER value TYPE int USING value + 1"),
        ("int", "1", "ALTER TABLE docs DROP value, ADD value int DEFAULT 2"),
    ],
)
async def test_a_row_that_is_deleted_with_another_text_than_it_was_inserted_with_is_not_sent(
    column: str, value: str, between: str, database: Database, watching: Watching
) -> None:
    """Its deletion may also be that of a former row, captured after the insertion of this one: so it is a Resync."""
    await database.execute("CREATE TYPE mood AS ENUM ('glad')")
    relay = await watching(f"value {column}")
    await database.execute(
        f"BEGIN; INSERT INTO docs VALUES (1, 'c', '{value}'), (2, 'c', '{value}');"
        f" {between}; UPDATE docs SET company_id = 'c'; DELETE FROM docs; COMMIT"
    )
    assert {message["Type"] for message in await relay.messages_of("c")} <= {"Resync"}


async def test_a_virtual_column_is_not_sent_as_null(
    database: Database, watching: Watching, app: Connection
) -> None:
    """A virtual column; PostgreSQL before 18 stores it."""
    kind = "VIRTUAL" if database_version(app) >= 18 else "STORED"
    relay = await watching(f"number int, twice int GENERATED ALWAYS AS (number * 2) {kind}")
    await app.execute("INSERT INTO docs VALUES (1, 'c', 1)")
    await app.execute("UPDATE docs SET number = 2")
    seen = [{}, {}] if kind == "VIRTUAL" else [{"Twice": 2}, {"Twice": 4}]
    created, updated = await relay.messages_of("c")
    assert created["Data"] == {"DocId": 1, "CompanyId": "c", "Number": 1, **seen[0]}
    assert updated["Data"] == {"DocId": 1, "CompanyId": "c", "Number": 2, **seen[1]}


async def test_a_virtual_company_column_is_refused(database: Database, app: Connection) -> None:
    if_known = " GENERATED ALWAYS AS ('c') VIRTUAL" if database_version(app) >= 18 else ""
    await database.execute(f"CREATE TABLE docs (id int PRIMARY KEY, company text{if_known})")
    refused = pytest.raises(SettingsError, match="no trigger sees the virtual column company")
    with refused if if_known else nullcontext():
        await migrate(database.dsn, watches=[_doc(company="company")])


def database_version(connection: Connection) -> int:
    """The server's major version."""
    return connection.get_server_version().major


@pytest.mark.parametrize("company", ["bigint", "uuid", "text", "numeric"])
async def test_a_company_may_be_of_any_type(
    company: str, database: Database, watching: Watching, app: Connection
) -> None:
    relay = await watching(f"owner {company}", "company_id", company="owner")
    owner = {
        "bigint": "9007199254740993",
        "uuid": "5AF3C0DE-0000-4000-8000-000000000000",
        "text": 'Ünï "c" \\ \U0001f600',
        "numeric": "12.50",
    }[company]
    await app.execute(
        f"INSERT INTO docs (id, owner) VALUES (1, CAST($1::text AS {company}))", owner
    )
    (message,) = await relay.messages_of(owner.lower() if company == "uuid" else owner)
    assert message["Data"]["DocId"] == 1


async def test_json_columns_can_be_compared_and_excluded(
    watching: Watching, app: Connection
) -> None:
    relay = await watching("body json, note text")
    await app.execute("""INSERT INTO docs VALUES (1, 'c', '{"a": 1}', 'x')""")
    await app.execute("""UPDATE docs SET body = '{"a": 1}'""")
    await app.execute("""UPDATE docs SET body = '{"a": 2}'""")
    _, updated = await relay.messages_of("c")
    assert updated["Old"] == {"Body": {"a": 1}}


# --- excluded columns


async def test_b5_an_excluded_column_is_never_stored(
    database: Database, watching: Watching, app: Connection
) -> None:
    relay = await watching(
        'secret text, "odd, ""name\\" text, title text', "secret", 'odd, "name\\'
    )
    await relay.stop()
    await app.execute("INSERT INTO docs VALUES (1, 'c', 'hush', 'hush', 'one')")
    await app.execute("UPDATE docs SET secret = 'hush hush'")
    await app.execute("UPDATE docs SET title = 'two', secret = 'hush'")
    await app.execute("DELETE FROM docs")
    assert "hush" not in str(
        await database.fetch("SELECT old::text, new::text FROM notifier.changes")
    )
    captured = "SELECT count(*) FROM notifier.changes WHERE entity = 'Doc'"
    assert await database.fetchval(captured) == 3
    await relay.start()
    created, updated, deleted = await relay.messages_of("c")
    assert created["Data"] == {"DocId": 1, "CompanyId": "c", "Title": "one"}
    assert updated["Old"] == {"Title": "one"}
    assert deleted["Data"] == updated["Data"]


async def test_a_row_is_sent_whole_whatever_the_size_of_its_excluded_columns(
    watching: Watching, app: Connection
) -> None:
    relay = await watching("attachment text, title text", "attachment")
    await app.execute("INSERT INTO docs VALUES (1, 'c', repeat('x', 3000000), 'one')")
    await app.execute("UPDATE docs SET title = 'two'")
    await app.execute("UPDATE docs SET attachment = repeat('y', 3000000)")
    created, updated = await relay.messages_of("c")
    assert created["Data"] == {"DocId": 1, "CompanyId": "c", "Title": "one"}
    assert updated["Old"] == {"Title": "one"}


# --- invalid JSON


@pytest.mark.parametrize("number", range(len(POISON)))
@pytest.mark.parametrize("exclude", [(), ("secret",)], ids=["all columns", "one excluded"])
async def test_b14_invalid_json_breaks_neither_the_write_nor_other_messages(
    number: int, exclude: tuple[str, ...], watching: Watching, app: Connection
) -> None:
    relay = await watching("body json, secret text", *exclude)
    async with app.transaction():
        await app.execute("INSERT INTO docs VALUES (1, 'c', '1', 'hush')")
        await app.execute(f"INSERT INTO docs VALUES (2, 'c', '{POISON[number]}', 'hush')")
        await app.execute("INSERT INTO docs VALUES (3, 'c', '3', 'hush')")
    await app.execute("DELETE FROM docs")
    messages = await relay.messages_of("c")
    assert [m["Data"]["DocId"] for m in messages if m["Type"] == "DocCreated"] == [1, 2, 3]
    assert types(messages[3:]) == ["DocDeleted"] * 3
    if not exclude:
        assert _body(messages[1]) == _sent(number)


@pytest.mark.parametrize("poison", POISON)
async def test_b14_a_large_row_with_invalid_json_breaks_no_write_and_is_sent_by_its_keys(
    poison: str, watching: Watching, app: Connection
) -> None:
    relay = await watching("body json, filler text")
    await app.execute(f"INSERT INTO docs VALUES (1, 'c', '{poison}', repeat('x', 300000))")
    (message,) = await relay.messages_of("c")
    assert message["Data"] == {"DocId": 1, "CompanyId": "c"}
    assert message["Partial"] is True


async def test_b18_a_large_transaction_with_invalid_json_is_relayed(
    watching: Watching, app: Connection
) -> None:
    relay = await watching("body json")
    async with app.transaction():
        await app.execute(
            "INSERT INTO docs SELECT n, 'c' || n % 12, '1' FROM generate_series(1, 6000) AS n"
        )
        for number, poison in enumerate(POISON):
            await app.execute(f"INSERT INTO docs VALUES ({7000 + number}, 'c1', '{poison}')")
        await app.execute("""UPDATE docs SET body = '"\\u0000"' WHERE company_id = 'c2'""")
    messages = await relay.messages_of("c1")
    assert types(messages) == ["DocCreated"] * 505
    assert [_body(message) for message in messages[-5:]] == [_sent(number) for number in range(5)]
    assert [m["Data"]["Body"] for m in await relay.messages_of("c2")] == ["\0"] * 500


async def test_b18_partial_messages_and_resyncs_are_counted(
    database: Database, watching: Watching, app: Connection
) -> None:
    def counted(name: str, **labels: str) -> float:
        return REGISTRY.get_sample_value(f"notifier_{name}_total", labels) or 0

    relay = await watching("body json")
    partial, resynced = counted("partial_messages"), counted("resyncs", reason="truncate")
    for number, poison in enumerate(POISON):
        await app.execute(f"INSERT INTO docs VALUES ({number}, 'c', '{poison}')")
    await app.execute("TRUNCATE docs")
    assert types(await relay.messages_of("c")) == ["DocCreated"] * len(POISON) + ["Resync"]
    assert counted("partial_messages") == partial + len(UNREADABLE)
    resyncs = """SELECT count(*) FROM notifier.messages WHERE body::text LIKE '{"Type":"Resync"%'"""
    assert counted("resyncs", reason="truncate") == resynced + await database.fetchval(resyncs)


async def test_b18_a_type_that_cannot_become_json_is_sent_by_its_keys(
    database: Database, watching: Watching, app: Connection
) -> None:
    """Arrays of composite types of the application are rendered where they have one dimension."""
    await database.execute("CREATE TYPE place AS (name text)")
    relay = await watching("places place[], title text")
    async with app.transaction():
        await app.execute("INSERT INTO docs VALUES (1, 'c', '{{(a)},{(b)}}', 'one')")
    await app.execute("UPDATE docs SET title = 'two'")
    created, updated = await relay.messages_of("c")
    assert types([created, updated]) == ["DocCreated", "DocUpdated"]
    for message in (created, updated):
        assert message["Data"] == {"DocId": 1, "CompanyId": "c"}
        assert message["Partial"] is True


async def test_case_8b_a_cast_that_cannot_run_leaves_messages_whole(
    database: Database, watching: Watching, app: Connection
) -> None:
    await database.execute(
        """
        CREATE TYPE grumpy AS ENUM ('x');
        CREATE FUNCTION refuse(grumpy) RETURNS json LANGUAGE plpgsql AS
            $$ BEGIN RAISE EXCEPTION 'no'; END $$;
        CREATE CAST (grumpy AS json) WITH FUNCTION refuse(grumpy)
        """
    )
    relay = await watching("grumpy grumpy, title text")
    await app.execute("INSERT INTO docs VALUES (1, 'c', 'x', 'one')")
    (message,) = await relay.messages_of("c")
    assert message["Data"] == {"DocId": 1, "CompanyId": "c", "Grumpy": "x", "Title": "one"}


SIZES = [7_999, 8_000, 8_001, 262_143, 262_144, 262_145, 1_000_000, 50_000_000]


@pytest.mark.timeout(600)
@pytest.mark.parametrize("size", [*SIZES, pytest.param(300_000_000, marks=pytest.mark.slow)])
async def test_b13_a_row_of_any_size_is_written_and_sent(
    size: int, watching: Watching, app: Connection
) -> None:
    """The row's JSON has this many bytes, with three-byte characters up to its end."""
    relay = await watching("body text, secret text", "secret")
    await app.execute("SET statement_timeout = '100s'")
    await app.execute("INSERT INTO docs VALUES (1, 'c', 'small')")
    empty = len('{"id":1,"company_id":"c","body":""}')
    letters, rest = divmod(size - empty, 3)
    await app.execute(
        "UPDATE docs SET body = repeat('x', $1::int) || repeat('\u20ac', $2::int)", rest, letters
    )
    await app.execute("DELETE FROM docs")
    _, updated, deleted = await relay.messages_of("c")
    assert types([updated, deleted]) == ["DocUpdated", "DocDeleted"]
    if size > 256 * 1024 - 200:  # a message has its own head and tail
        assert updated["Partial"] is deleted["Partial"] is True
        assert updated["Data"] == deleted["Data"] == {"DocId": 1, "CompanyId": "c"}
    else:
        assert "Partial" not in updated
        assert updated["Data"]["Body"] == deleted["Data"]["Body"] == "x" * rest + "\u20ac" * letters


# --- changes of the table


async def test_a_value_that_is_stored_apart_and_left_alone_is_sent_whole(
    relay: Relayed, app: Connection, company: str
) -> None:
    """By the write-ahead log it would be unknown (debezium DBZ-7193, sequin#815)."""
    text = await app.fetchval(
        "SELECT string_agg(md5(n::text), '') FROM generate_series(1, 3000) AS n"
    )
    event = await app.fetchval(
        "INSERT INTO events (company_id, title, starts_at, ends_at) VALUES ($1, 'one', now(), now())"
        " RETURNING id",
        company,
    )
    await app.execute("UPDATE events SET description = $2 WHERE id = $1", event, text)
    await app.execute("UPDATE events SET title = 'another' WHERE id = $1", event)
    *_, message = await relay.messages_of(company)
    assert set(message["Old"]) <= {"Title", "UpdatedAt"}
    assert message["Data"]["Description"] == text


async def test_a_new_column_is_sent_from_the_next_write_on(
    database: Database, watching: Watching, app: Connection
) -> None:
    relay = await watching("title text")
    await app.execute("INSERT INTO docs VALUES (1, 'c', 'one')")
    await database.execute("ALTER TABLE docs ADD COLUMN note text DEFAULT 'new'")
    await database.execute("ALTER TABLE docs DROP COLUMN title")
    await app.execute("UPDATE docs SET note = 'newer'")
    _, updated = await relay.messages_of("c")
    assert updated["Data"] == {"DocId": 1, "CompanyId": "c", "Note": "newer"}
    assert updated["Old"] == {"Note": "new"}


@pytest.mark.parametrize(
    "change",
    [
        "ALTER TABLE docs RENAME company_id TO owner",
        "ALTER TABLE docs RENAME id TO number",
        "ALTER TABLE docs DROP COLUMN company_id",
    ],
)
@pytest.mark.parametrize("size", [1, 300_000], ids=["small", "large"])
async def test_a_missing_key_column_breaks_no_write_and_every_company_gets_a_resync(
    change: str, size: int, database: Database, watching: Watching, app: Connection
) -> None:
    relay = await watching("title text")
    await app.execute("INSERT INTO docs VALUES (1, 'c', 'one')")
    await relay.settled()
    await database.execute(change)
    await app.execute("UPDATE docs SET title = repeat('x', $1)", size)
    messages = await relay.messages_of("c")
    assert types(messages) == ["DocCreated", "Resync"]


async def test_without_its_excluded_column_a_row_is_sent_by_its_keys_until_migrate(
    database: Database, watching: Watching, app: Connection
) -> None:
    """Another column may hold now what was excluded."""
    relay = await watching("secret text, title text", "secret")
    await database.execute("ALTER TABLE docs DROP COLUMN secret, ADD COLUMN secret_digest text")
    await app.execute("INSERT INTO docs VALUES (1, 'c', 'one', 'hush')")
    (created,) = await relay.messages_of("c")
    assert created["Partial"] is True
    assert created["Data"] == {"DocId": 1, "CompanyId": "c"}
    epoch, _ = await log_head(database)
    await migrate(database.dsn, watches=[*WITH_COMPANIES, _doc(("secret_digest",))])

    async def has_begun() -> bool:
        return (await log_head(database))[0] != epoch

    await until(has_begun)
    await app.execute("UPDATE docs SET title = 'two'")
    resync, updated = await relay.messages_of("c")
    assert resync["Type"] == "Resync"
    assert updated["Data"] == {"DocId": 1, "CompanyId": "c", "Title": "two"}


async def test_row_5_6_a_renamed_table_is_still_captured(
    database: Database, watching: Watching, app: Connection
) -> None:
    relay = await watching("title text")
    await database.execute("ALTER TABLE docs RENAME TO papers")
    await app.execute("INSERT INTO papers VALUES (1, 'c', 'one')")
    assert types(await relay.messages_of("c")) == ["DocCreated"]


async def test_row_5_5_a_changed_column_type_is_captured(
    database: Database, watching: Watching, app: Connection
) -> None:
    relay = await watching("title text")
    await app.execute("INSERT INTO docs VALUES (1, 'c', '1')")
    await database.execute("ALTER TABLE docs ALTER title TYPE int USING title::int")
    await app.execute("UPDATE docs SET title = 2")
    _, updated = await relay.messages_of("c")
    assert updated["Data"]["Title"] == 2
    assert updated["Old"] == {"Title": 1}


# --- partitions


async def test_partitions_are_captured_also_when_written_directly(
    database: Database, app: Connection
) -> None:
    await database.execute(
        """
        CREATE TABLE docs (id int, company_id text, day date, PRIMARY KEY (id, day)) PARTITION BY RANGE (day);
        CREATE TABLE docs_old PARTITION OF docs FOR VALUES FROM (MINVALUE) TO ('2026-01-01');
        CREATE TABLE loose (id int, company_id text, day date, PRIMARY KEY (id, day));
        """
    )
    await migrate(database.dsn, watches=[*WITH_COMPANIES, _doc()])
    await database.execute(
        """
        CREATE TABLE docs_new PARTITION OF docs FOR VALUES FROM ('2026-01-01') TO ('2027-01-01');
        ALTER TABLE docs ATTACH PARTITION loose FOR VALUES FROM ('2027-01-01') TO (MAXVALUE);
        GRANT ALL ON docs, docs_old, docs_new, loose TO app
        """
    )
    async with relaying(database) as relay:
        await app.execute("INSERT INTO docs VALUES (1, 'c', '2025-06-01'), (2, 'c', '2026-06-01')")
        await app.execute("INSERT INTO docs_new VALUES (3, 'c', '2026-06-02')")
        await app.execute("INSERT INTO loose VALUES (4, 'c', '2028-01-01')")
        await app.execute("UPDATE docs SET day = '2026-06-03' WHERE id = 1")
        await app.execute("DELETE FROM docs_new WHERE id = 2")
        messages = await relay.messages_of("c")
        assert [(m["Type"], m["Data"]["DocId"]) for m in messages] == [
            ("DocCreated", 1),
            ("DocCreated", 2),
            ("DocCreated", 3),
            ("DocCreated", 4),
            ("DocUpdated", 1),  # it moved to another partition
            ("DocDeleted", 2),
        ]
        assert messages[4]["Old"] == {"Day": "2025-06-01"}


async def test_a_truncated_partition_is_a_resync(database: Database, app: Connection) -> None:
    await database.execute(
        """
        CREATE TABLE docs (id int, company_id text, day date, PRIMARY KEY (id, day)) PARTITION BY RANGE (day);
        CREATE TABLE docs_all PARTITION OF docs FOR VALUES FROM (MINVALUE) TO (MAXVALUE)
            PARTITION BY RANGE (day);
        CREATE TABLE docs_old PARTITION OF docs_all FOR VALUES FROM (MINVALUE) TO ('2026-01-01');
        GRANT ALL ON docs, docs_old TO app
        """
    )
    await migrate(database.dsn, watches=[*WITH_COMPANIES, _doc()])
    async with relaying(database) as relay:
        await app.execute("INSERT INTO docs VALUES (1, 'c', '2025-06-01')")
        await relay.settled()
        await app.execute("TRUNCATE docs_old")
        assert types(await relay.messages_of("c")) == ["DocCreated", "Resync"]


# --- encodings


@asynccontextmanager
async def relaying(database: Database) -> AsyncIterator[Relayed]:
    relay = Relayed(database)
    await relay.start()
    try:
        yield relay
    finally:
        await relay.stop()


@pytest.fixture
async def encoded(
    postgres: str,
) -> AsyncIterator[Callable[[str], Awaitable[Database]]]:
    """Creates a migrated database with another encoding."""
    made: list[Database] = []

    async def make(encoding: str) -> Database:
        database = Database(postgres, f"notifier_test_{uuid4().hex[:12]}")
        connection = await asyncpg.connect(postgres)
        try:
            await connection.execute(
                f"CREATE DATABASE {database.name} ENCODING '{encoding}' LOCALE 'C'"
                " TEMPLATE template0"
            )
        finally:
            await connection.close()
        made.append(database)
        await migrate(database.dsn, calendar=True)
        return database

    yield make
    for database in made:
        await database.drop()


async def _event(database: Database, title: str) -> tuple[str, Json]:
    """Inserts an event with the title of the SQL expression `title`; its message."""
    async with relaying(database) as relay:
        company = str(
            await database.fetchval("INSERT INTO companies (name) VALUES ('c') RETURNING id")
        )
        connection = await database.connect()
        async with connection.transaction():
            await connection.execute(
                f"DO $$ BEGIN PERFORM set_config('notifier.actor', {title}, true); END $$"
            )
            await connection.execute(
                "INSERT INTO events (company_id, title, starts_at, ends_at)"
                f" VALUES ('{company}', {title}, now(), now())"
            )
        (message,) = await relay.messages_of(company)
    return company, message


async def test_b14_a_latin1_database_is_sent_in_utf8(
    encoded: Callable[[str], Awaitable[Database]],
) -> None:
    _, message = await _event(await encoded("LATIN1"), "'Zoë'")
    assert message["Data"]["Title"] == message["Actor"] == "Zoë"


async def test_b14_a_database_without_an_encoding_is_relayed(
    encoded: Callable[[str], Awaitable[Database]],
) -> None:
    _, message = await _event(await encoded("SQL_ASCII"), "'Zoë'")
    assert message["Data"]["Title"] == message["Actor"] == "Zoë"


async def test_b14_rows_with_invalid_utf8_are_sent_by_their_keys(
    encoded: Callable[[str], Awaitable[Database]],
) -> None:
    company, message = await _event(await encoded("SQL_ASCII"), "'Zo' || chr(235)")
    assert message["Data"] == {"EventId": message["Data"]["EventId"], "CompanyId": company}
    assert message["Partial"] is True
    assert message["Actor"] == "Zo\ufffd"


@pytest.mark.parametrize(
    ("encoding", "text"),
    [
        ("WIN1252", "chr(129)"),
        ("ISO_8859_8", "chr(161)"),
        ("EUC_JP", r"convert_from('\xfefe', 'EUC_JP')"),
    ],
)
async def test_b14_what_has_no_equivalent_in_utf8_is_sent_by_its_keys(
    encoding: str, text: str, encoded: Callable[[str], Awaitable[Database]]
) -> None:
    """PostgreSQL refuses to convert it: the relay reads it in the database's encoding then."""
    database = await encoded(encoding)
    company, message = await _event(database, f"'x' || {text}")
    assert message["Data"] == {"EventId": message["Data"]["EventId"], "CompanyId": company}
    assert message["Partial"] is True
    assert message["Actor"].startswith("x\\x")


async def test_b14_a_large_transaction_with_what_has_no_equivalent_is_relayed(
    encoded: Callable[[str], Awaitable[Database]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backlog, "PAGE", 2)
    monkeypatch.setattr(reader, "PAGE", 2)
    database = await encoded("WIN1252")
    await database.execute("CREATE TABLE docs (id int PRIMARY KEY, company_id text, body text)")
    await migrate(database.dsn, watches=[*WITH_COMPANIES, _doc()])
    relay = Relayed(database, bulk_limit=2)
    await relay.start()
    await database.execute(
        "INSERT INTO docs SELECT n, CASE WHEN n < 4 THEN 'Zoë' ELSE 'Žižka' END, chr(129) FROM generate_series(1, 5) AS n"
    )
    assert types(await relay.messages_of("Zoë")) == ["Resync"]
    assert [m.get("Partial") for m in await relay.messages_of("Žižka")] == [True, True]
    await relay.stop()


@pytest.mark.parametrize("encoding", ["LATIN1", "SQL_ASCII"])
async def test_b14_a_large_transaction_with_an_escape_beyond_the_encoding_is_relayed(
    encoding: str,
    encoded: Callable[[str], Awaitable[Database]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """PostgreSQL's operators refuse a text that has one anywhere."""
    monkeypatch.setattr(backlog, "PAGE", 2)
    monkeypatch.setattr(reader, "PAGE", 2)
    database = await encoded(encoding)
    await database.execute("CREATE TABLE docs (id int PRIMARY KEY, company_id text, body json)")
    await migrate(database.dsn, watches=[*WITH_COMPANIES, _doc()])
    async with relaying(database) as relay:
        await database.execute(
            r"""INSERT INTO docs SELECT n, 'c', '"\u4e2d \\u0000"' FROM generate_series(1, 5) AS n"""
        )
        messages = await relay.messages_of("c")
    assert [each["Data"]["Body"] for each in messages] == ["中 \\u0000"] * 5


@pytest.mark.parametrize("encoding", ["LATIN1", "SQL_ASCII"])
async def test_b14_an_escape_beyond_the_encoding_in_a_row_with_a_path_concerns_no_other_company(
    encoding: str, encoded: Callable[[str], Awaitable[Database]]
) -> None:
    """PostgreSQL 14 and 15 have an error of their own for it where there is no encoding."""
    database = await encoded(encoding)
    await database.execute(
        "CREATE TABLE teams (id int PRIMARY KEY, account text, extra json);"
        " CREATE TABLE docs (id int PRIMARY KEY, team int REFERENCES teams, body json);"
        " INSERT INTO teams VALUES (1, 'a'), (2, 'b')"
    )
    await migrate(database.dsn, watches=[*WITH_COMPANIES, _doc(company="team -> teams.account")])
    async with relaying(database) as relay:
        for statement in (
            "INSERT INTO docs VALUES (2, 2, '1')",
            r"""INSERT INTO docs VALUES (1, 1, '"\u4e2d"')""",
            "UPDATE docs SET body = '1' WHERE id = 1",
            r"""UPDATE teams SET extra = '"\u4e2d"' WHERE id = 1""",
        ):
            await database.execute(statement)
        assert types(await relay.messages_of("a")) == ["DocCreated", "DocUpdated"]
        assert types(await relay.messages_of("b")) == ["DocCreated"]


@pytest.mark.parametrize("setting", ["notifier.actor", "notifier.traceparent"])
async def test_b14_a_setting_that_is_no_text_stops_no_relay(
    setting: str, database: Database, app: Connection, company: str, relay: Relayed
) -> None:
    """PostgreSQL does not validate those that come with a connection."""
    async with _altering(*database.address, b"QQ", b"\xff\xfe") as port:
        writer = await asyncpg.connect(
            database.through(port, app=True), ssl=False, server_settings={setting: "xQQ"}
        )
        await new_event(writer, company, "first")
        writer.terminate()
    await new_event(app, company, "second")
    first, second = await relay.messages_of(company)
    assert (first["Data"]["Title"], second["Data"]["Title"]) == ("first", "second")
    assert first.get("Actor") == ("x\ufffd\ufffd" if setting == "notifier.actor" else None)


@asynccontextmanager
async def _altering(host: str, port: int, old: bytes, new: bytes) -> AsyncIterator[int]:
    """A proxy that puts `new` in the place of `old` in what clients send; its port."""

    async def forward(
        source: asyncio.StreamReader, writer: asyncio.StreamWriter, *, altered: bool
    ) -> None:
        while data := await source.read(65536):
            writer.write(data.replace(old, new) if altered else data)
        writer.close()

    async def join(source: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        answers, statements = await asyncio.open_connection(host, port)
        try:
            async with asyncio.TaskGroup() as both:
                both.create_task(forward(source, statements, altered=True))
                both.create_task(forward(answers, writer, altered=False))
        finally:
            statements.transport.abort()

    async with listening(join) as own_port:
        yield own_port


async def test_b14_a_company_of_a_megabyte_breaks_nothing(
    watching: Watching, app: Connection
) -> None:
    relay = await watching("filler text")
    await app.execute("INSERT INTO docs VALUES (1, repeat('c', 1000000), 'x')")
    await app.execute("INSERT INTO docs VALUES (2, 'c', 'x')")
    (message,) = await relay.messages_of("c")
    assert message["Data"]["DocId"] == 2


async def test_b14_a_key_of_a_megabyte_in_a_json_breaks_nothing(
    watching: Watching, app: Connection
) -> None:
    relay = await watching("body json")
    await app.execute(
        "INSERT INTO docs VALUES (1, 'c', json_build_object(repeat('k', 1000000), 1))"
    )
    await app.execute("INSERT INTO docs VALUES (2, 'c', json_build_object(repeat('k', 1000), 1))")
    large, small = await relay.messages_of("c")
    assert large["Partial"] is True
    assert large["Data"] == {"DocId": 1, "CompanyId": "c"}
    assert small["Data"]["Body"] == {"k" * 1000: 1}


async def test_b14_a_row_with_a_key_of_a_megabyte_is_sent_by_it(
    database: Database, app: Connection
) -> None:
    await database.execute("CREATE TABLE docs (id text PRIMARY KEY, company_id text)")
    await migrate(database.dsn, watches=[*WITH_COMPANIES, _doc()])
    # No index takes so long a key.
    await database.execute("ALTER TABLE docs DROP CONSTRAINT docs_pkey; GRANT ALL ON docs TO app")
    async with relaying(database) as relay:
        await app.execute("INSERT INTO docs VALUES (repeat('k', 1000000), 'c')")
        await app.execute("INSERT INTO docs VALUES ('small', 'c')")
        large, small = await relay.messages_of("c")
        assert large["Data"] == {"DocId": "k" * 1_000_000, "CompanyId": "c"}
        assert large["Partial"] is True
        assert small["Data"] == {"DocId": "small", "CompanyId": "c"}


async def test_writers_of_invalid_json_do_not_wait_for_each_other(
    watching: Watching, database: Database
) -> None:
    relay = await watching("body json")
    writers = [await database.connect(app=True) for _ in range(4)]

    async def write(number: int) -> None:
        for each in range(20):
            await writers[number].execute(
                f"INSERT INTO docs VALUES ({number * 100 + each}, 'c', '{POISON[number]}')"
            )

    await asyncio.gather(*map(write, range(4)))
    assert len(await relay.messages_of("c")) == 80


async def test_keys_that_are_too_large_to_be_read_are_a_resync_for_every_company(
    database: Database, app: Connection, company: str, relay: Relayed
) -> None:
    """The relay could not read a change of hundreds of megabytes, and so none after it."""
    await database.execute(
        "CREATE TABLE notes (id int PRIMARY KEY, company_id text, owner text); GRANT ALL ON notes TO app"
    )
    note = Watch(table="notes", entity="Note", visible_to=("owner",))
    await migrate(database.dsn, watches=[*CALENDAR, note])
    await relay.settled()
    await app.execute("INSERT INTO notes VALUES (1, 'c', repeat('x', 5000000))")
    assert [each["Type"] for each in await relay.messages_of("c")] == ["Skipped"]
    for statement in (
        "INSERT INTO notes VALUES (2, 'c', repeat(chr(1), 2000000))",
        "UPDATE notes SET company_id = repeat('x', 10000000) WHERE id = 1",
    ):
        await app.execute(statement)
        message = (await relay.messages_of("c"))[-1]
        assert (message["Type"], message["Data"]["Reason"]) == ("Resync", "overflow")
        size = "SELECT coalesce(max(size), 0) FROM notifier.changes"
        assert await database.fetchval(size) <= 5_000_100
