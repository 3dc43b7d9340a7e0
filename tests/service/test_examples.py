"""The clients in the documentation and in examples/ work as they stand there."""

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
from websockets.asyncio.server import ServerConnection
from websockets.asyncio.server import serve as serve_sockets

from tests.compilers import by_mono, mono
from tests.conftest import Serve
from tests.databases import Database
from tests.installed import skip
from tests.service.calendars import Calendar
from tests.services import ROOT, token
from tests.waiting import DEADLINE_SECONDS

pytestmark = pytest.mark.slow


@cache
def in_fifty_lines() -> str:
    page = (ROOT / "docs" / "clients.md").read_text()
    found = re.search(r"```python\n(import asyncio, json.*?)```", page, re.DOTALL)
    assert found
    return found[1]


@cache
def java() -> str | None:
    """Java 17 or newer, if there is any."""
    path = shutil.which("java")
    if path is None:
        return None
    answer = subprocess.run([path, "-version"], capture_output=True, text=True, check=False)
    version = re.search(r'version "(\d+)', answer.stderr)
    return path if version and int(version[1]) >= 17 else None


@cache
def perl() -> str | None:
    """Perl with its core modules, which a minimal system lacks."""
    path, script = shutil.which("perl"), ROOT / "examples" / "listen.pl"
    if path is None:
        return None
    checked = subprocess.run([path, "-c", script], capture_output=True, check=False)
    return path if checked.returncode == 0 else None


MONO_LIBRARIES = ("System.Runtime.Serialization", "System.Xml.Linq")


def program(name: str, place: Path) -> list[str]:
    """The command that runs an example; skips the test where its language is missing."""
    if name == "python":
        script = place / "follow.py"
        script.write_text(in_fifty_lines())
        return [sys.executable, str(script)]
    if name == "csharp":
        return csharp(place)
    if name == "perl":
        path = perl()
        if path is None:
            skip("no Perl with its modules")
        return [path, str(ROOT / "examples" / "listen.pl")]
    path = java()
    if path is None:
        skip("no Java 17 or newer")
    return [path, "-XX:TieredStopAtLevel=1", str(ROOT / "examples" / "Listen.java")]


def csharp(place: Path) -> list[str]:
    """Compiles the example with Mono."""
    compiler = mono()
    executable = place / "Listen.exe"
    libraries = [f"-r:{library}" for library in MONO_LIBRARIES]
    source = ROOT / "examples" / "Listen.cs"
    subprocess.run([compiler, "-warnaserror", *libraries, f"-out:{executable}", source], check=True)
    return [*by_mono(), str(executable)]


class Example:
    """A client that prints each message on a line."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process

    async def next(self) -> int:
        """The position of the next message; skips resyncs."""
        assert self.process.stdout is not None
        while True:
            async with asyncio.timeout(2 * DEADLINE_SECONDS):
                line = await self.process.stdout.readline()
            if not line:
                pytest.fail(f"the client ended: {(await self.ended())[1]}")
            if line.startswith(b"{"):
                return int(json.loads(line)["Position"])

    async def ended(self) -> tuple[int, str]:
        """Its exit status and its stderr."""
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
    """Writes until the example has received a message, and returns its position."""
    receiving = asyncio.create_task(example.next())
    while not receiving.done():
        await calendar.event(company)
        await asyncio.wait([receiving], timeout=0.2)
    return await receiving


def test_fifty_lines_are_about_fifty() -> None:
    lines = [line for line in in_fifty_lines().splitlines() if line.strip()]
    assert len(lines) <= 60


@pytest.mark.parametrize("name", ["python", "java", "perl", "csharp"])
async def test_it_receives_every_message_once_across_restarts(
    serve: Serve, database: Database, start: Start, name: str
) -> None:
    service = await serve(database)
    calendar = Calendar(database)
    company = await calendar.company("u1")
    example = await start(name, service.url, company, token("u1"))
    received = [await first(calendar, company, example)]

    async def level() -> None:
        """Returns when the client has received everything that was written."""
        await calendar.event(company)
        written = await database.fetchval(
            "SELECT 1 + count(*) FROM events WHERE company_id = $1", company
        )
        while received[-1] < written:
            received.append(await example.next())

    await level()
    for end in (service.terminate, service.kill):
        end()
        await service.ended()
        await calendar.events(company, 300)
        await service.start()
        await service.ready()
        await level()
    assert received == list(range(received[0], received[0] + len(received)))


@pytest.mark.parametrize("name", ["python", "java", "perl", "csharp"])
async def test_a_refused_token_or_company_stops_it(
    serve: Serve, database: Database, start: Start, name: str
) -> None:
    service = await serve(database)
    company = await Calendar(database).company("u1")
    for bad_token, word in ((token("u1")[:-4] + "AAAA", "token"), (token("u2"), "no such company")):
        status, errors = await (await start(name, service.url, company, bad_token)).ended()
        assert status == 1
        assert word in errors


@pytest.mark.parametrize("name", ["java", "perl", "csharp"])
async def test_a_broken_server_neither_ends_it_nor_makes_it_wait_for_days(
    start: Start, name: str
) -> None:
    farewells = [{"Code": "x", "RetryAfterMs": "x"}, {"RetryAfterMs": 10**15}]
    answers = iter(["{", *(json.dumps({"Type": "Disconnect", "Data": data}) for data in farewells)])

    async def converse(socket: ServerConnection) -> None:
        await socket.recv()
        await socket.send(next(answers))
        await socket.close(1012)

    async with serve_sockets(converse, "127.0.0.1", 0) as server:
        url = f"ws://127.0.0.1:{next(iter(server.sockets)).getsockname()[1]}/"
        example = await start(name, url, "a", "token")
        assert example.process.stderr is not None
        waits: list[float] = []
        while len(waits) < 3:
            async with asyncio.timeout(2 * DEADLINE_SECONDS):
                line = (await example.process.stderr.readline()).decode()
            assert line, f"the client ended after {len(waits)} connections"
            if found := re.search(r"next attempt in (\S+) (m?)s", line):
                waits.append(float(found[1]) / (1000 if found[2] else 1))
    assert max(waits[:2]) < 60
    assert 3600 <= waits[2] < 3700
