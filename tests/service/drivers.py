"""The programs driver.py and driver.mjs, each with one of the clients, for tests that send commands and read reports."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeAlias

from tests.compilers import node
from tests.services import ROOT, token
from tests.waiting import DEADLINE_SECONDS

LINE_BYTES = 8 * 1024 * 1024
HERE = Path(__file__).parent
PROGRAMS: dict[str, Callable[[], list[str]]] = {
    "python": lambda: [sys.executable, str(HERE / "driver.py")],
    "javascript": lambda: [node(), str(HERE / "driver.mjs")],
}

Report: TypeAlias = dict[str, Any]


class Driver:
    """A running program with one of the clients. `reports` has all that were received."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.reports: list[Report] = []

    def send(self, verb: str, company: str, **options: Any) -> None:
        assert self._process.stdin is not None
        line = json.dumps({"verb": verb, "company": company, **options})
        self._process.stdin.write(line.encode() + b"\n")

    async def until(self, company: str, kind: str, **properties: Any) -> Report:
        """Reads up to the report that has these properties, and returns it."""
        assert self._process.stdout is not None
        wanted = {"company": company, "kind": kind, **properties}
        while True:
            try:
                async with asyncio.timeout(DEADLINE_SECONDS):
                    line = await self._process.stdout.readline()
            except TimeoutError:
                raise AssertionError(f"no {wanted}: {self.reports[-5:]}") from None
            assert line, f"the program has ended: {self.reports[-5:]}"
            report: Report = json.loads(line)
            self.reports.append(report)
            if wanted.items() <= report.items():
                return report

    def of(self, company: str) -> list[tuple[Any, ...]]:
        """The reports about a company, without statuses."""
        return [
            tuple(value for name, value in report.items() if name != "company")
            for report in self.reports
            if report["company"] == company and report["kind"] != "status"
        ]

    async def end(self) -> None:
        """Closes standard input: the program closes its client and ends."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        async with asyncio.timeout(DEADLINE_SECONDS):
            await self._process.wait()
        assert self._process.returncode == 0


@asynccontextmanager
async def running(
    language: str, url: str, user_token: str = "", **options: Any
) -> AsyncIterator[Driver]:
    """A running program, by default for the user u1; killed at the end if it still runs. `options`: only JavaScript."""
    process = await asyncio.create_subprocess_exec(
        *PROGRAMS[language](),
        url,
        user_token or token("u1"),
        *([json.dumps(options)] if options else []),
        cwd=ROOT,
        env={"PYTHONPATH": str(ROOT)},
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=LINE_BYTES,
    )
    try:
        yield Driver(process)
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()
