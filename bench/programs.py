"""Child processes: compiled, started, listened to, and ended."""

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
    """What the command says until it ends. Raises BenchError with its last line if it fails."""
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
            said, _ = await process.communicate()
    except TimeoutError:
        raise BenchError(f"{Path(command[0]).name} took more than {seconds:.0f} s") from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    text = said.decode(errors="replace")
    if process.returncode:
        raise BenchError(f"{Path(command[0]).name}: {_last_line(text)}")
    return text


class Program:
    """A running child; what it says on standard output comes as JSON events, the rest is a log."""

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
        """Raises BenchError when it has ended by itself."""
        if self._process.returncode is not None:
            raise self.failure()

    def failure(self) -> BenchError:
        said = _last_line(self._log.read_text(errors="replace"))
        return BenchError(f"{self.name} ended with {self._process.returncode}: {said}")

    async def event(self) -> dict[str, Any]:
        """The next event.

        Raises EOFError when it has ended well, BenchError when it failed.
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
        """Where it says that it listens."""
        async with asyncio.timeout(START_SECONDS):
            return int((await self.event())["port"])

    def say(self, line: str = "") -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(line.encode() + b"\n")

    async def finish(self, patience: float = 5.0) -> None:
        """Ends its input and waits for it to end by itself."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        async with asyncio.timeout(patience):
            await self._process.wait()

    async def end(self, patience: float) -> None:
        """Asks it to end, and ends it when it does not within so many seconds."""
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
    talks: bool = True,
    patience: float = 5.0,
) -> AsyncIterator[Program]:
    """A child for as long as the block lasts. Without `talks` its standard output is log as well."""
    with log.open("wb") as sink:
        process = await asyncio.create_subprocess_exec(
            *command,
            env=env,
            stdin=asyncio.subprocess.PIPE if talks else asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE if talks else sink,
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
    return lines[-1][:300] if lines else "no word"
