"""Child processes: compile, start, read their events, stop."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from bench import machine

SOURCES = Path(__file__).parent
START_SECONDS = 30.0


class BenchError(Exception):
    """A measurement that cannot be made, in one readable line."""


async def compiled(name: str, directory: Path) -> Path:
    """Compiles `bench/NAME.c` into the directory. Raises BenchError without a compiler."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        raise BenchError("no C compiler (cc, gcc or clang)")
    program = directory / name
    await output(compiler, "-O2", "-o", program, SOURCES / f"{name}.c")
    return program


async def output(
    *command: str | Path, env: Mapping[str, str] | None = None, seconds: float = 60.0
) -> str:
    """The output of the command. Raises BenchError with its last line if it fails."""
    process = await asyncio.create_subprocess_exec(
        *command,
        env=env,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        async with asyncio.timeout(seconds):
            printed, _ = await process.communicate()
    except TimeoutError:
        raise BenchError(f"{Path(command[0]).name} took more than {seconds:.0f} s") from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    text = printed.decode(errors="replace")
    if process.returncode:
        raise BenchError(f"{Path(command[0]).name}: {_last_line(text)}")
    return text


class Program:
    """A running child: JSON events on its standard output, a log on its standard error."""

    def __init__(self, name: str, process: asyncio.subprocess.Process, log: Path) -> None:
        self.name = name
        self._process = process
        self._log = log

    @property
    def pid(self) -> int:
        return self._process.pid

    def cpu_seconds(self) -> float:
        return machine.cpu_seconds(self.pid)

    def resident_bytes(self) -> int:
        return machine.resident_bytes(self.pid)

    def check(self) -> None:
        """Raises BenchError if it has exited."""
        if self._process.returncode is not None:
            raise self.failure()

    def failure(self) -> BenchError:
        line = _last_line(self._log.read_text(errors="replace"))
        return BenchError(f"{self.name} exited with {self._process.returncode}: {line}")

    async def event(self) -> dict[str, Any]:
        """The next event.

        Raises EOFError if it has exited with status 0, BenchError if it failed.
        """
        assert self._process.stdout is not None
        line = await self._process.stdout.readline()
        if not line:
            if await self._process.wait() == 0:
                raise EOFError
            raise self.failure()
        event: dict[str, Any] = json.loads(line)
        if event["event"] == "failed":
            raise BenchError(f"{self.name}: {event['reason']}")
        return event

    async def port(self) -> int:
        """The port from its first event."""
        async with asyncio.timeout(START_SECONDS):
            return int((await self.event())["port"])

    def send_line(self, line: str = "") -> None:
        """Writes a line to its standard input."""
        assert self._process.stdin is not None
        self._process.stdin.write(line.encode() + b"\n")

    async def finish(self, patience: float = 5.0) -> None:
        """Closes its standard input and waits for it to exit."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        async with asyncio.timeout(patience):
            await self._process.wait()

    async def end(self, patience: float) -> None:
        """Terminates it, and kills it after `patience` seconds."""
        if self._process.returncode is not None:
            return
        self._process.terminate()
        try:
            async with asyncio.timeout(patience):
                await self._process.wait()
        except TimeoutError:
            self._process.kill()
            await self._process.wait()


@asynccontextmanager
async def running(
    *command: str | Path,
    log: Path,
    env: Mapping[str, str] | None = None,
    events: bool = True,
    patience: float = 5.0,
) -> AsyncIterator[Program]:
    """A child that runs while the block runs. Without `events` its standard output is part of the log."""
    with log.open("wb") as sink:
        process = await asyncio.create_subprocess_exec(
            *command,
            env=env,
            stdin=asyncio.subprocess.PIPE if events else asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE if events else sink,
            stderr=sink,
            start_new_session=True,
        )
    program = Program(log.stem, process, log)
    try:
        yield program
    finally:
        await program.end(patience)


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:300] if lines else "no output"
