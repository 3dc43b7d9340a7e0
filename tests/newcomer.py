"""A newcomer who does docs/tutorial.md, command by command, in terminals of their own."""

from __future__ import annotations

import asyncio
import re
import shlex
import signal
import time
from pathlib import Path

from tests.blocks import ROOT, blocks
from tests.ports import free_port
from tests.waiting import DEADLINE_SECONDS, until

TYPING_SECONDS = 10.0
"""An estimate for a block: reading it, and copying it into a terminal."""

LIMIT_SECONDS = 300.0
"""What the tutorial promises: five minutes."""


class Newcomer:
    """Runs each block as it stands there. What the demo prints takes the place of the words in capitals.

    `place` is the directory in which the newcomer works. `environ` is that of a fresh terminal.
    """

    def __init__(self, place: Path, environ: dict[str, str]) -> None:
        self.port = free_port()
        self.seconds: dict[str, float] = {}
        self._place = place
        self._environment = environ
        self._values: dict[str, str] = {}
        self._processes: list[asyncio.subprocess.Process] = []

    async def do(self, data: Path, package: str | None = None) -> None:
        """All steps; `seconds` has how long each took. PostgreSQL's files are in `data`.

        `package` takes the place of the package's name: a wheel that is not published yet. Without one, the first
        step is left out.
        """
        install, demo, listen, write, again, why = blocks(ROOT / "docs" / "tutorial.md")
        try:
            if package is not None:
                self._begin()
                name = "'postgres-notifier[demo]'"
                assert name in install.text
                await self._finish(install.text.replace(name, shlex.quote(f"{package}[demo]")))
                self._end(install.heading)
            self._activate(install.text)
            self._begin()
            started = await self._start(f"{demo.text} --port {self.port} --data {data}")
            self._read(await self._shows(started, "stop: Ctrl-C"))
            self._end(demo.heading)
            activate, *variables, command = listen.text.splitlines()
            self._activate(activate)
            self._export("\n".join(variables))
            listening = await self._start(command)
            await self._shows(listening, "live")
            self._end(listen.heading)
            await self._finish(write.text)
            created = await self._shows(listening, "EventCreated")
            line = next(line for line in created.splitlines() if "EventCreated" in line)
            self._values["POSITION"] = line.split()[1]
            self._end(write.heading)
            await self._interrupt(listening)
            update, command = again.text.splitlines()
            await self._finish(update)
            assert "EventUpdated" in await self._finish(command)
            self._end(again.heading)
            assert "message: EventCreated at position" in await self._finish(why.text)
            self._end(why.heading)
        finally:
            await self._leave()

    @property
    def total(self) -> float:
        """With reading and typing."""
        return sum(self.seconds.values()) + TYPING_SECONDS * len(self.seconds)

    def _begin(self) -> None:
        self._began = time.monotonic()

    def _end(self, step: str) -> None:
        now = time.monotonic()
        self.seconds[step] = now - self._began
        self._began = now

    def _activate(self, text: str) -> None:
        """The programs of the environment come first from now on: `. notifier/bin/activate`."""
        (folder,) = re.findall(r"^\. (\S+)/activate$", text, re.MULTILINE)
        path = f"{self._place / folder}:{self._environment['PATH']}"
        self._environment = self._environment | {"PATH": path}

    def _export(self, text: str) -> None:
        """Variables of the terminals from now on."""
        for name, value in re.findall(r"export (\w+)=(\S+)", text):
            filled = self._values.get(value, value)
            self._environment[name] = filled.replace("localhost:8181", f"127.0.0.1:{self.port}")

    def _read(self, printed: str) -> None:
        """The values that the demo has printed."""
        lines = dict(line.split(": ", 1) for line in printed.splitlines() if ": " in line)
        self._values = {
            "DATABASE": lines["database"],
            "COMPANY": lines["company"],
            "TOKEN": lines["token"],
            "psql ": lines["try"].split()[0] + " ",
        }

    async def _start(self, command: str) -> Path:
        """Starts a command in a terminal of its own; its output."""
        for word, value in self._values.items():
            command = command.replace(word, value)
        command = command.replace("localhost:8181", f"127.0.0.1:{self.port}")
        log = self._place / f"{len(self._processes)}.log"
        single = "\n" not in command
        with log.open("wb") as output:
            process = await asyncio.create_subprocess_exec(
                *("bash", "-c", f"exec {command}" if single else f"set -e\n{command}"),
                cwd=self._place,
                env=self._environment,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=asyncio.subprocess.STDOUT,
            )
        self._processes.append(process)
        return log

    async def _finish(self, command: str) -> str:
        """Runs a command to its end, which must be a success."""
        log = await self._start(command)
        async with asyncio.timeout(LIMIT_SECONDS):
            assert await self._processes[-1].wait() == 0, _text(log)
        return _text(log)

    async def _interrupt(self, log: Path) -> None:
        """Ctrl-C in the terminal with this output, and the end of its command."""
        process = self._processes[int(log.stem)]
        process.send_signal(signal.SIGINT)
        async with asyncio.timeout(DEADLINE_SECONDS):
            await process.wait()

    async def _shows(self, log: Path, what: str) -> str:
        """Returns the output of a terminal when it has this."""

        async def shown() -> bool:
            ended = [process.returncode for process in self._processes]
            assert not any(ended), _text(log)
            return what in _text(log)

        await until(shown, DEADLINE_SECONDS * 2)
        return _text(log)

    async def _leave(self) -> None:
        for process in reversed(self._processes):
            if process.returncode is None:
                process.terminate()
            async with asyncio.timeout(DEADLINE_SECONDS):
                await process.wait()


def _text(log: Path) -> str:
    return log.read_text()
