"""Commands in README.md and docs/ are run as they stand there, on a calendar of their own.

Only placeholders are replaced: ids, tokens, the database's URL and the service's port.
"""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from opentelemetry.sdk.trace import TracerProvider

from tests.blocks import ROOT, Block, blocks
from tests.conftest import Serve
from tests.databases import Database
from tests.ports import free_port
from tests.service.calendars import Calendar
from tests.services import SECRET, Service, environment, token
from tests.waiting import DEADLINE_SECONDS, until

# Each command is a process of its own: on a busy machine a page of them takes minutes.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

ENDLESS = re.compile(r"^notifier (serve|listen(?!.*--limit))|^curl -N|^OTEL\S+ notifier serve")
"""Commands that run until Ctrl-C."""


def block(page: str, heading: str, language: str, number: int = 0) -> Block:
    """A block of a page, under its heading."""
    found = [
        each for each in blocks(ROOT / page) if (each.heading, each.language) == (heading, language)
    ]
    return found[number]


def read(log: Path) -> str:
    return log.read_text()


class Shell:
    """Runs the lines of a block, one after another."""

    def __init__(self, place: Path, database: Database, company: str, event: str) -> None:
        self.place, self.database = place, database
        self.company, self.event = company, event
        self.tx = "1"
        self.port = free_port()
        self.output: dict[str, str] = {}
        self._running: list[asyncio.subprocess.Process] = []
        commands = place / "bin"
        commands.mkdir()
        (commands / "notifier").write_text(f'#!/bin/sh\nexec {sys.executable} -m notifier "$@"\n')
        (commands / "notifier").chmod(0o755)
        self.environment = environment({}) | {
            "PATH": f"{commands}:{os.environ['PATH']}",
            "TOKEN": token("u1"),
            "COMPANY": company,
        }

    def filled(self, text: str) -> str:
        """The text with values instead of placeholders."""
        for placeholder, value in {
            r"postgresql://owner@localhost/calendar": self.database.dsn,
            r"localhost:8181": f"127.0.0.1:{self.port}",
            r"_TOKEN=T\b": f"_TOKEN={token('u1')}",
            r"\bID2?\b": self.company,
            r"--key K\b": f"--key {self.event}",
            r"--tx \d+": f"--tx {self.tx}",
            r"--position \d+": "--position 1",
        }.items():
            text = re.sub(placeholder, value, text)
        return text

    async def run(self, text: str) -> None:
        """Each line must succeed. One that runs until Ctrl-C must have printed something before."""
        for line in map(str.strip, text.replace("\\\n", " ").strip().splitlines()):
            command = self.filled(line)
            if command.startswith("export "):
                await self._export(command)
            else:
                await self._run(line, command)

    async def _export(self, command: str) -> None:
        process = await asyncio.create_subprocess_exec(
            *("bash", "-c", f"set -eu; {command}\nenv -0"),
            env=self.environment,
            stdout=asyncio.subprocess.PIPE,
        )
        printed, _ = await process.communicate()
        assert process.returncode == 0
        pairs = (pair.partition("=") for pair in printed.decode().rstrip("\0").split("\0"))
        self.environment = {name: value for name, _, value in pairs}

    async def _run(self, line: str, command: str) -> None:
        log = self.place / f"{len(self.output)}.log"
        with log.open("wb") as output:
            process = await asyncio.create_subprocess_exec(
                *("bash", "-c", f"exec {command}" if ENDLESS.match(line) else command),
                cwd=self.place,
                env=self.environment,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        try:
            if ENDLESS.match(line):
                self._running.append(process)
                await self._speaks(line, process, log)
            else:
                async with asyncio.timeout(DEADLINE_SECONDS):
                    await self._meanwhile(line, process)
                assert process.returncode == 0, f"{line}\n{read(log)}"
        finally:
            self.output[line] = read(log)

    async def _meanwhile(self, line: str, process: asyncio.subprocess.Process) -> None:
        """Waits for its end; where it waits for an event, there are some."""
        ending = asyncio.ensure_future(process.wait())
        while not ending.done():
            if "--limit" in line:
                await Calendar(self.database).event(self.company)
            await asyncio.wait([ending], timeout=0.2)

    async def _speaks(self, line: str, process: asyncio.subprocess.Process, log: Path) -> None:
        """Returns when it has begun; a listener is then ended by Ctrl-C, a service goes on."""

        async def begun() -> bool:
            assert process.returncode is None, f"{line}\n{read(log)}"
            return bool(read(log).strip())

        await until(begun)
        if "serve" in line:
            service = Service(self.place, self.database.dsn, (), {})
            service.http = f"http://127.0.0.1:{self.port}"
            service._process = process
            service._log = log
            await service.ready()
            return
        process.send_signal(signal.SIGINT)
        async with asyncio.timeout(DEADLINE_SECONDS):
            assert await process.wait() in (0, 130, -signal.SIGINT), f"{line}\n{read(log)}"

    async def stop(self) -> None:
        for process in self._running:
            if process.returncode is None:
                process.terminate()
                async with asyncio.timeout(DEADLINE_SECONDS):
                    await process.wait()


@pytest.fixture
async def shell(database: Database, tmp_path: Path) -> AsyncIterator[Shell]:
    calendar = Calendar(database)
    company = await calendar.add_company("u1")
    shell = Shell(tmp_path, database, company, await calendar.event(company))
    shell.environment |= {
        "NOTIFIER_DATABASE_URL": database.dsn,
        "NOTIFIER_JWT_SECRET": SECRET,
        "NOTIFIER_HOST": "127.0.0.1",
        "NOTIFIER_PORT": str(shell.port),
    }
    yield shell
    await shell.stop()


async def test_the_first_commands_of_the_readme(shell: Shell) -> None:
    await shell.run(block("README.md", "Run it", "commands", 1).text)
    why = next(text for line, text in shell.output.items() if " why " in line)
    assert "position 2" in why, why


async def test_listening_and_explaining(shell: Shell, database: Database, serve: Serve) -> None:
    service = await serve(database)
    shell.port = service.port
    await database.relayed()
    shell.tx = await database.fetchval(
        "SELECT body ->> 'Tx' FROM notifier.messages ORDER BY position LIMIT 1"
    )
    await shell.run(block("README.md", "Use it", "commands", 0).text)
    await shell.run(block("README.md", "Use it", "commands", 1).text)
    await shell.run(block("docs/clients.md", "In a terminal", "commands").text)
    stream = block("docs/http.md", "Server-sent events", "commands").text
    await shell.run(stream.partition("\n\n")[0])
    await shell.run(block("docs/http.md", "Long polls", "commands").text)
    await shell.run(block("docs/operations.md", "`notifier why`", "commands").text)
    await shell.run(
        block("docs/types.md", "Types of your own tables", "commands", 0)
        .text.replace("src/", "")
        .replace("app/", "")
    )


@pytest.mark.parametrize(
    ("page", "heading"),
    [
        ("docs/writers.md", "For applications that write"),
        ("docs/tracing.md", "Name the writer's span"),
        ("docs/operations.md", "Which node relays"),
        ("docs/nats.md", "For your own services"),
    ],
)
async def test_statements_are_accepted(
    shell: Shell, database: Database, page: str, heading: str
) -> None:
    text = block(page, heading, "sql").text.replace("id = $1", f"id = '{shell.event}'")
    await database.execute(text)


async def test_a_driver_names_its_span(shell: Shell, database: Database) -> None:
    names: dict[str, Any] = {}
    exec(block("docs/tracing.md", "Name the writer's span", "python").text, names)
    tracer = TracerProvider().get_tracer("app")
    with psycopg.connect(database.dsn) as connection, tracer.start_as_current_span("rename"):
        names["name_span"](connection)
        connection.execute("UPDATE events SET title = 'Retro' WHERE id = %s", [shell.event])
    links = await database.fetch(
        "SELECT traceparent FROM notifier.changes WHERE traceparent IS NOT NULL"
    )
    assert [len(row[0]) for row in links] == [55]
