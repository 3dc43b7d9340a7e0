"""The tutorial and the quick starts are done as docs/tutorial.md and docs/quickstart.md have them."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import jwt
import pytest

from tests.blocks import ROOT, blocks
from tests.databases import Database, directory
from tests.ports import free_port
from tests.service.test_documented_commands import Shell, block
from tests.services import SECRET, environment
from tests.waiting import DEADLINE_SECONDS, until

TABLES = """
CREATE TABLE companies (id text PRIMARY KEY, name text);
CREATE TABLE members (
    id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    company_id text NOT NULL REFERENCES companies, user_id text NOT NULL
);
CREATE TABLE projects (
    id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    company_id text NOT NULL REFERENCES companies, name text
);
INSERT INTO companies VALUES ('acme', 'Acme');
INSERT INTO members (company_id, user_id) VALUES ('acme', 'u7')
"""

pytestmark = pytest.mark.slow

TUTORIAL_SECONDS = 300.0


@pytest.fixture
async def own(empty: Database) -> Database:
    """A database with tables of an application, and nothing of the notifier's."""
    await empty.execute(TABLES)
    return empty


@pytest.mark.timeout(TUTORIAL_SECONDS)
async def test_three_steps_serve_the_tables_of_an_application(
    own: Database, tmp_path: Path
) -> None:
    shell = Shell(tmp_path, own, "acme", "1")
    shell.environment |= {
        "NOTIFIER_DATABASE_URL": own.dsn,
        "NOTIFIER_JWT_SECRET": SECRET,
        "NOTIFIER_HOST": "127.0.0.1",
        "NOTIFIER_PORT": str(shell.port),
    }
    steps = "Every stack: three steps"
    for number in range(2):
        await shell.run(block("docs/quickstart.md", steps, "commands", number).text)
    await own.execute(block("docs/quickstart.md", "Plain SQL", "sql").text)

    async def arrived() -> bool:
        rows = await own.fetch("SELECT body FROM notifier.messages WHERE company = 'acme'")
        messages = [json.loads(row["body"]) for row in rows]
        return any(
            message["Data"].get("Name") == "Moon" and message["Actor"] == "u7"
            for message in messages
        )

    await until(arrived)
    await shell.stop()


def test_the_token_of_django_is_one_that_serve_accepts(tmp_path: Path) -> None:
    view = block("docs/quickstart.md", "Django", "python").text
    program = f"""
from types import SimpleNamespace
from django.conf import settings
settings.configure(NOTIFIER_JWT_SECRET={SECRET!r})
{view}
print(token(SimpleNamespace(user=SimpleNamespace(pk=7))).content.decode())
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=environment({}),
        check=True,
        capture_output=True,
        text=True,
    )
    assert jwt.decode(done.stdout.strip(), SECRET, algorithms=["HS256"])["sub"] == "7"


class Newcomer:
    """Does the tutorial: what the demo prints takes the place of the words in capitals."""

    def __init__(self, place: Path) -> None:
        self._place = place
        self.port = free_port()
        self._environment = environment({})
        self._values: dict[str, str] = {}
        self._processes: list[asyncio.subprocess.Process] = []

    async def start(self, command: str) -> Path:
        """Starts a command in a terminal of its own; its output."""
        for word, value in self._values.items():
            command = command.replace(word, value)
        command = command.replace("localhost:8181", f"127.0.0.1:{self.port}")
        notifier = f"exec {sys.executable} -m notifier"
        command = re.sub(r"^notifier\b", notifier, command)
        log = self._place / f"{len(self._processes)}.log"
        with log.open("wb") as output:
            process = await asyncio.create_subprocess_exec(
                *("bash", "-c", command),
                cwd=self._place,
                env=self._environment,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=asyncio.subprocess.STDOUT,
            )
        self._processes.append(process)
        return log

    async def finish(self, command: str) -> str:
        """Runs a command to its end, which must be a success."""
        log = await self.start(command)
        async with asyncio.timeout(DEADLINE_SECONDS):
            assert await self._processes[-1].wait() == 0, text(log)
        return text(log)

    async def interrupt(self, log: Path) -> None:
        """Ctrl-C in the terminal with this output, and the end of its command."""
        process = self._processes[int(log.stem)]
        process.send_signal(signal.SIGINT)
        async with asyncio.timeout(DEADLINE_SECONDS):
            await process.wait()

    async def shows(self, log: Path, what: str) -> str:
        """Returns the output of a terminal when it has this."""

        async def shown() -> bool:
            ended = [process.returncode for process in self._processes]
            assert not any(ended), text(log)
            return what in text(log)

        await until(shown, DEADLINE_SECONDS * 2)
        return text(log)

    def read(self, printed: str) -> None:
        """The values that the demo has printed."""
        lines = dict(line.split(": ", 1) for line in printed.splitlines() if ": " in line)
        self._values = {
            "DATABASE": lines["database"],
            "COMPANY": lines["company"],
            "TOKEN": lines["token"],
            "psql ": lines["try"].split()[0] + " ",
        }

    def received(self, printed: str) -> None:
        """The position of the event that `notifier listen` has printed."""
        line = next(line for line in printed.splitlines() if "EventCreated" in line)
        self._values["POSITION"] = line.split()[1]

    def export(self, text: str) -> None:
        """Variables of the terminals from now on."""
        for name, value in re.findall(r"export (\w+)=(\S+)", text):
            filled = self._values.get(value, value)
            self._environment[name] = filled.replace("localhost:8181", f"127.0.0.1:{self.port}")

    async def leave(self) -> None:
        for process in reversed(self._processes):
            if process.returncode is None:
                process.terminate()
            async with asyncio.timeout(DEADLINE_SECONDS):
                await process.wait()


def text(log: Path) -> str:
    return log.read_text()


@pytest.mark.timeout(TUTORIAL_SECONDS)
async def test_the_tutorial_takes_less_than_five_minutes(tmp_path: Path) -> None:
    _, demo, listen, write, again, why = [
        each.text for each in blocks(ROOT / "docs" / "tutorial.md")
    ]
    began = time.monotonic()
    newcomer = Newcomer(tmp_path)
    stack = ExitStack()
    data = stack.enter_context(directory())
    try:
        started = await newcomer.start(f"{demo} --port {newcomer.port} --data {data}")
        newcomer.read(await newcomer.shows(started, "stop: Ctrl-C"))
        *variables, command = listen.splitlines()
        newcomer.export("\n".join(variables))
        listening = await newcomer.start(command)
        await newcomer.shows(listening, "live")
        await newcomer.finish(write)
        newcomer.received(await newcomer.shows(listening, "EventCreated"))
        await newcomer.interrupt(listening)
        update, command = again.splitlines()
        await newcomer.finish(update)
        assert "EventUpdated" in await newcomer.finish(command)
        assert "message: EventCreated at position" in await newcomer.finish(why)
    finally:
        await newcomer.leave()
        stack.close()
    assert time.monotonic() - began < TUTORIAL_SECONDS
