"""The clients of the documentation and of examples/ work as they stand there."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import TypeAlias

import pytest

from tests.conftest import Serve
from tests.databases import Database
from tests.service.calendars import Calendar
from tests.services import ROOT, token
from tests.waiting import DEADLINE_SECONDS

pytestmark = pytest.mark.slow


@cache
def in_fifty_lines() -> str:
    found = re.search(r"```python\n(.*?)```", (ROOT / "docs" / "clients.md").read_text(), re.DOTALL)
    assert found
    return found[1]


@cache
def java() -> str | None:
    """A Java that can run a source file of today."""
    path = shutil.which("java")
    if path is None:
        return None
    said = subprocess.run([path, "-version"], capture_output=True, text=True, check=False)
    version = re.search(r'version "(\d+)', said.stderr)
    return path if version and int(version[1]) >= 17 else None


@cache
def perl() -> str | None:
    """A Perl that has its own modules: a system's smallest one is without."""
    path, script = shutil.which("perl"), ROOT / "examples" / "listen.pl"
    if path is None:
        return None
    checked = subprocess.run([path, "-c", script], capture_output=True, check=False)
    return path if checked.returncode == 0 else None


def program(name: str, place: Path) -> list[str]:
    if name == "python":
        script = place / "follow.py"
        script.write_text(in_fifty_lines())
        return [sys.executable, str(script)]
    if name == "perl":
        path = perl()
        if path is None:
            pytest.skip("no Perl with its modules")
        return [path, str(ROOT / "examples" / "listen.pl")]
    path = java()
    if path is None:
        pytest.skip("no Java 17 or newer")
    return [path, "-XX:TieredStopAtLevel=1", str(ROOT / "examples" / "Listen.java")]


class Example:
    """A client that prints each message on a line."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process

    async def next(self) -> int:
        """The position of the next message; a resync is passed over."""
        assert self.process.stdout is not None
        while True:
            async with asyncio.timeout(2 * DEADLINE_SECONDS):
                line = await self.process.stdout.readline()
            if not line:
                pytest.fail(f"it ended: {(await self.ended())[1]}")
            if line.startswith(b"{"):
                return int(json.loads(line)["Position"])

    async def ended(self) -> tuple[int, str]:
        """Its exit status and what it said on stderr."""
        async with asyncio.timeout(2 * DEADLINE_SECONDS):
            _, err = await self.process.communicate()
        assert self.process.returncode is not None
        return self.process.returncode, err.decode()


Start: TypeAlias = Callable[..., Awaitable[Example]]


@pytest.fixture
async def start(tmp_path: Path) -> AsyncIterator[Start]:
    started: list[asyncio.subprocess.Process] = []

    async def run(name: str, *arguments: str) -> Example:
        process = await asyncio.create_subprocess_exec(
            *program(name, tmp_path),
            *arguments,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        started.append(process)
        return Example(process)

    yield run
    for process in started:
        with suppress(ProcessLookupError):
            process.kill()
        await process.communicate()


async def first(calendar: Calendar, company: str, example: Example) -> int:
    """Writes until the example hears something: it follows now. The position it heard."""
    hearing = asyncio.create_task(example.next())
    while not hearing.done():
        await calendar.event(company)
        await asyncio.wait([hearing], timeout=0.2)
    return await hearing


def test_fifty_lines_are_about_fifty() -> None:
    lines = [line for line in in_fifty_lines().splitlines() if line.strip()]
    assert len(lines) <= 60


@pytest.mark.timeout(150)
@pytest.mark.parametrize("name", ["python", "java", "perl"])
async def test_it_hears_every_message_once_whatever_happens_to_the_service(
    serve: Serve, database: Database, start: Start, name: str
) -> None:
    service = await serve(database)
    calendar = Calendar(database)
    company = await calendar.company("u1")
    example = await start(name, service.url, company, token("u1"))
    heard = [await first(calendar, company, example)]

    async def level() -> None:
        """Everything that was written has been heard."""
        await calendar.event(company)
        written = await database.fetchval(
            "SELECT 1 + count(*) FROM events WHERE company_id = $1", company
        )
        while heard[-1] < written:
            heard.append(await example.next())

    await level()
    for end in (service.terminate, service.kill):
        end()
        await service.ended()
        await calendar.events(company, 300)
        await service.start()
        await service.ready()
        await level()
    assert heard == list(range(heard[0], heard[0] + len(heard)))


@pytest.mark.timeout(120)
@pytest.mark.parametrize("name", ["python", "java", "perl"])
async def test_a_refused_token_or_company_is_its_end(
    serve: Serve, database: Database, start: Start, name: str
) -> None:
    service = await serve(database)
    company = await Calendar(database).company("u1")
    for bad, word in ((token("u1")[:-4] + "AAAA", "token"), (token("u2"), "no such company")):
        status, said = await (await start(name, service.url, company, bad)).ended()
        assert status == 1
        assert word in said
