"""The C# in the documentation compiles without a warning, and the example of `notifier types` runs."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import tomllib
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

from tests.compilers import ROOT, dotnet, mono
from tests.conftest import Serve
from tests.databases import Database
from tests.service.calendars import Calendar
from tests.services import run, token
from tests.waiting import DEADLINE_SECONDS

pytestmark = pytest.mark.slow

FILES = ROOT / "tests" / "dotnet"


def blocks(page: str) -> list[str]:
    """The C# on a page."""
    return re.findall(r"```csharp\n(.*?)```", (ROOT / "docs" / page).read_text(), re.DOTALL)


def test_the_csharp_on_the_pages_compiles(tmp_path: Path) -> None:
    """All of it in one library, with the client, and with what stands for Fleck and the application."""
    pages = [*blocks("fleck.md"), *blocks("clients.md")]
    assert len(pages) == 3
    sources = [FILES / "Fleck.cs", FILES / "App.cs"]
    for number, text in enumerate(pages):
        sources.append(tmp_path / f"Page{number}.cs")
        sources[-1].write_text(text)
    client = sorted((ROOT / "clients" / "dotnet" / "src").glob("*.cs"))
    options = ["-langversion:7.2", "-warn:4", "-warnaserror", "-target:library"]
    subprocess.run(
        [mono(), *options, f"-out:{tmp_path / 'pages.dll'}", *client, *sources], check=True
    )


def test_the_configuration_for_those_who_come_from_fleck_is_valid() -> None:
    page = (ROOT / "docs" / "fleck.md").read_text()
    [text] = re.findall(r"```toml\n(.*?)```", page, re.DOTALL)
    schema = json.loads((ROOT / "docs" / "notifier.schema.json").read_text())
    Draft202012Validator(schema).validate(tomllib.loads(text))


def test_the_example_of_the_client_compiles(tmp_path: Path) -> None:
    dotnet(tmp_path, ROOT / "clients" / "dotnet" / "example" / "Follow.cs", program="Follow")


async def test_the_client_reads_the_types_of_ones_own_tables(
    serve: Serve, database: Database, tmp_path: Path
) -> None:
    service = await serve(database)
    calendar = Calendar(database)
    company = await calendar.company("u1")
    status, generated = await run(
        tmp_path, "types", "--language", "csharp", database_url=database.dsn
    )
    assert status == 0, generated
    [example] = blocks("types.md")
    (tmp_path / "Messages.cs").write_text(generated)
    (tmp_path / "Follower.cs").write_text(example)
    ours = [
        ROOT / "tests" / "service" / "types" / "TextJson.cs",
        FILES / "App.cs",
        FILES / "Typed.cs",
    ]
    program = dotnet(
        tmp_path, tmp_path / "Messages.cs", tmp_path / "Follower.cs", *ours, program="Typed"
    )
    process = await asyncio.create_subprocess_exec(
        *(*program, service.url, company, token("u1")),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(DEADLINE_SECONDS):
            assert await process.stdout.readline() == f"load {company}\n".encode()
            await calendar.event(company, "Retro")
            line = await process.stdout.readline()
            assert line == b"show Retro at 2026-11-22T18:00:00+00:00 False\n"
            await database.execute(
                "INSERT INTO events (company_id, title, starts_at, ends_at, description)"
                " VALUES ($1, 'Large', now(), now(), repeat('x', 300000))",
                company,
            )
            assert (await process.stdout.readline()).startswith(b"load event ")
    finally:
        process.kill()
        await process.communicate()
