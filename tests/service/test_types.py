"""`notifier types`: the generated code compiles, and the messages of a node are of these types."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from tests.compilers import mono, tool
from tests.conftest import Connect, Serve
from tests.databases import Database
from tests.service.worked import Worked, worked
from tests.services import ROOT, run

FILES = ROOT / "tests" / "service" / "types"
LANGUAGES = ("typescript", "python", "csharp", "json-schema")

ROWS = """
    INSERT INTO invoices VALUES (
        1, 7, 12.50, 0.1, 0.5, 3, 2, true, NULL, 'it''s "bad"', '{calm,NULL,über}', '{a,NULL}', '{{1,2},{3,NULL}}', 5,
        '{1,2}', ROW('Main', '{x,NULL}', 9007199254740993), ARRAY[ROW(ROW('Main', NULL, 1), 5), NULL]::stop[],
        '{"a": [1]}', '"text"', 'infinity', '2026-06-01 10:00', '2026-06-01', '1 day', '\\x00ff', gen_random_uuid(),
        '::1', 'second', 'first', 'p', 'secret'
    );
    INSERT INTO invoices (id, tenant, total, exact, ratio, lines, paid, mood, tags, tax, extra, at) VALUES
        (9007199254740993, 7, 'NaN', 12345678901234567890123, '-Infinity', 0, false, 'calm', '{}', 9007199254740994, 'null', now());
    UPDATE invoices SET "2nd-name" = NULL, ship = NULL, ratio = 1e300 WHERE id = 1;
    UPDATE invoices SET extra = to_jsonb(repeat('x', 300000)) WHERE id = 1;
    DELETE FROM invoices WHERE id = 1;
    UPDATE members SET name = NULL;
    INSERT INTO reactions VALUES (1, 'wave', 7, '2026-06-01 10:00');
    UPDATE reactions SET created_at = '2026-06-02 10:00';
    DELETE FROM reactions
"""


async def generate(place: Path, database: Database, language: str) -> str:
    """What the command prints, twice the same."""
    settings = {"database_url": database.dsn}
    status, output = await run(place, "types", "--language", language, **settings)
    assert status == 0, output
    (place / "types").write_text(output)
    assert await run(place, "types", "--language", language, "--check", "types", **settings) == (
        0,
        "",
    )
    return output


WORKED = [
    worked("A chat: soft deletions, keys of several columns, times without a zone"),
    worked("Bookings of teams and of users"),
    worked("A support desk: companies along foreign keys"),
    worked("Users of an identity provider"),
    worked("A schema per workspace"),
]
"""The schemas of docs/schemas.md."""

ODD = Worked(
    r"""
        CREATE TYPE level AS ENUM ('', E'two\nlines', '*/ " \ '' ', 'null', '${x}', '😀');
        CREATE TYPE "odd type" AS ("a b" text, "class" integer, "str" text, n numeric(5, 2));
        CREATE TABLE words (
            "Key One" text, key_two level, tenant uuid NOT NULL, "str" text, "int" integer, "list" text[], "any" jsonb,
            "literal" level, "type" text, "get_type" text, "equals" text, "json_element" json, "string" text,
            "constructor" text, "__proto__" text, "default" text, "namespace" text, PRIMARY KEY ("Key One", key_two)
        );
        CREATE TABLE signs (
            id bigint PRIMARY KEY, tenant integer NOT NULL, "with space" text, "with""quote" text, "with\back" text, "with*/end" text,
            "größe" integer, "日本" text, "$" text, "a-b" integer, "a.b" integer, w "odd type", ws "odd type"[], levels level[][],
            r int4range, m tstzmultirange, b bit(3), x xml, v tsvector, p point, c "char", o oid, n numeric(30, 2), ns numeric(9)[]
        )
    """,
    """
        [[watch]]
        table = "words"
        entity = "class"
        key = ["Key One", "key_two"]
        company = "tenant"
        case = "column"
        [[watch]]
        table = "signs"
        entity = "List"
        company = "tenant"
        created = "Message"
        deleted = "odd type-name"
        rename = { "a-b" = "aMinusB" }
    """,
    {},
)
"""Names that mean something in one of the languages, and types that become strings."""


@pytest.mark.slow
@pytest.mark.timeout(600)  # it may install the compiler of TypeScript
async def test_the_types_of_the_calendar_and_of_the_worked_examples_compile(
    make_database: Callable[[], Awaitable[Database]], tmp_path: Path
) -> None:
    sources: dict[str, list[str]] = {"ts": [], "py": [], "cs": []}
    for number, example in enumerate([None, *WORKED, ODD]):
        database, place = await make_database(), tmp_path / str(number)
        place.mkdir()
        if example is not None:
            await database.execute(example.sql)
            (place / "notifier.toml").write_text(example.toml)
        for language, suffix in zip(LANGUAGES, sources, strict=False):
            arguments = ("types", "--language", language)
            status, text = await run(place, *arguments, database_url=database.dsn)
            assert status == 0, text
            name = f"types{number}.{suffix}"
            text = text.replace("namespace Notifier.Messages", f"namespace Notifier.N{number}")
            (tmp_path / name).write_text(text)
            sources[suffix].append(name)
    strict = "--noEmit --strict --exactOptionalPropertyTypes --noUncheckedIndexedAccess --target es2022 --module nodenext"
    compile_with(tmp_path, *tool("tsc"), *strict.split(), *sources["ts"])
    mypy = (sys.executable, "-m", "mypy", "--strict", "--no-incremental")
    compile_with(tmp_path, *mypy, *sources["py"])
    for name in sources["py"]:
        compile_with(tmp_path, sys.executable, name)
    readers = (FILES / "TextJson.cs", ROOT / "clients" / "dotnet" / "src" / "Json.cs")
    library = ("-langversion:7", "-target:library", "-out:types.dll")
    compile_with(tmp_path, mono(), *library, *sources["cs"], *readers)


@pytest.fixture
async def watched(database: Database, tmp_path: Path) -> Database:
    """The tables of `schema.sql`, watched as `watches.toml` says."""
    await database.execute((FILES / "schema.sql").read_text())
    if await database.fetchval("SELECT current_setting('server_version_num')::int >= 180000"):
        await database.execute(
            "ALTER TABLE members ADD COLUMN initial text GENERATED ALWAYS AS (left(login, 1)) VIRTUAL"
        )
    shutil.copy(FILES / "watches.toml", tmp_path / "notifier.toml")
    return database


async def test_the_types_compile_and_the_messages_of_a_node_are_of_these_types(
    watched: Database, tmp_path: Path, serve: Serve, connect: Connect
) -> None:
    generated = {name: await generate(tmp_path, watched, name) for name in LANGUAGES}
    check_python(tmp_path, generated["python"])

    status, output = await run(tmp_path, "migrate", database_url=watched.dsn)
    assert status == 0, output
    (tmp_path / "notifier.toml").unlink()
    assert await generate(tmp_path, watched, "python") == generated["python"], (
        "without the file, the watches are those of the database"
    )
    service = await serve(watched)
    client = await connect(service, "ada", "7")
    for statement in ROWS.split(";\n"):
        await watched.execute(statement)
    await watched.execute("TRUNCATE reactions")
    await client.next("Resync")
    sent = [message for message in client.messages if "Position" in message]
    types = [message["Type"] for message in sent]
    assert types == [
        *["InvoiceSaved"] * 4,
        "InvoiceDeleted",
        "MemberUpdated",
        "ReactionCreated",
        "ReactionUpdated",
        "ReactionDeleted",
        "Resync",
    ]
    assert [message.get("Partial") for message in sent[3:5]] == [True, True]

    validator = Draft202012Validator(closed(json.loads(generated["json-schema"])))
    validator.check_schema(validator.schema)
    for message in sent:
        errors = [*validator.iter_errors(message)]
        assert not errors, (message, errors[0].context)
    for spoiled in spoil(sent[0]):
        assert not validator.is_valid(spoiled), spoiled


def closed(schema: Any) -> Any:
    """The schema with every object closed: what it does not name must not be there."""
    if isinstance(schema, list):
        return [closed(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    whole = {name: closed(each) for name, each in schema.items()}
    if schema.get("type") == "object" or schema.get("type") == ["object", "null"]:
        whole["additionalProperties"] = False
    return whole


def spoil(message: dict[str, Any]) -> list[dict[str, Any]]:
    """The message with one thing wrong in each."""
    row = message["Data"]
    return [
        {**message, "Type": "Other"},
        {**message, "Data": {**row, "Secret": "s"}},
        {**message, "Data": {**row, "Lines": None}},
        {**message, "Data": {**row, "Mood": "happy"}},
        {**message, "Data": {**row, "InvoiceId": True}},
        {**message, "Data": {name: value for name, value in row.items() if name != "Local"}},
        {**message, "Partial": True},
    ]


def compile_with(place: Path, *command: str | Path) -> None:
    """Runs a compiler, which must find nothing wrong."""
    done = subprocess.run(command, cwd=place, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def check_python(place: Path, text: str) -> None:
    """Checks the types, with what an application does with them, and runs their module."""
    folder = place / "python"
    folder.mkdir()
    (folder / "generated.py").write_text(text)
    shutil.copy(FILES / "consumer.py.txt", folder / "consumer.py")
    compile_with(
        folder, sys.executable, "-m", "mypy", "--strict", "--no-incremental", "consumer.py"
    )
    compile_with(folder, sys.executable, "generated.py")


@pytest.mark.slow
@pytest.mark.timeout(600)  # it may install the compiler
async def test_typescript_compiles_strictly(watched: Database, tmp_path: Path) -> None:
    compiler = tool("tsc")
    (tmp_path / "generated.ts").write_text(await generate(tmp_path, watched, "typescript"))
    client = ROOT / "clients" / "js" / "src" / "client.js"
    consumer = (
        (FILES / "consumer.ts")
        .read_text()
        .replace("../../../clients/js/src/client.js", str(client))
    )
    (tmp_path / "consumer.ts").write_text(consumer)
    (tmp_path / "package.json").write_text('{"type": "module"}')
    options = "--noEmit --strict --exactOptionalPropertyTypes --noUncheckedIndexedAccess --target es2022 --module nodenext"
    compile_with(tmp_path, *compiler, *options.split(), "consumer.ts")


async def test_csharp_compiles(watched: Database, tmp_path: Path) -> None:
    (tmp_path / "Generated.cs").write_text(await generate(tmp_path, watched, "csharp"))
    reader = ROOT / "clients" / "dotnet" / "src" / "Json.cs"
    sources = [tmp_path / "Generated.cs", FILES / "Consumer.cs", FILES / "TextJson.cs", reader]
    library = f"-out:{tmp_path / 'types.dll'}"
    compile_with(tmp_path, mono(), "-langversion:7", "-target:library", library, *sources)


async def test_a_file_that_differs_and_a_table_that_is_missing_are_one_line(
    database: Database, tmp_path: Path
) -> None:
    settings = {"database_url": database.dsn}
    before = await generate(tmp_path, database, "typescript")
    page = (ROOT / "docs" / "types.md").read_text()
    assert page.split("```ts\n")[1].split("```")[0] in before
    await database.execute("ALTER TABLE events ADD COLUMN room integer")
    arguments = ("types", "--language", "typescript", "--check", "types")
    status, output = await run(tmp_path, *arguments, **settings)
    assert status == 1
    assert output.count("\n") == 1
    assert "types differs" in output
    assert (await generate(tmp_path, database, "typescript")).replace(
        "  /** integer */\n  Room: number | null;\n", ""
    ) == before
    assert (await run(tmp_path, *arguments[:-1], "absent", **settings))[0] == 2
    (tmp_path / "notifier.toml").write_text('[[watch]]\ntable = "evnts"\nentity = "Event"\n')
    status, output = await run(tmp_path, *arguments, **settings)
    assert status == 2
    assert "did you mean events?" in output
