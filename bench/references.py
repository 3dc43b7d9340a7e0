"""The references that listen on a port: the C loop, the Starlette loop, the bare relay."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from bench.postgres import uuid
from bench.programs import START_SECONDS, BenchError, Program, running
from bench.service import Service, free_port
from bench.stand import Stand

FLOOR_BYTES = 240
"""The size of the floor's frame."""

ROW_NUMBER = '"title":"change '
"""The text before a change's number in a row that `notify_row.sql` sends."""


@asynccontextmanager
async def floor(stand: Stand, clients: int, *, paced: bool = False) -> AsyncIterator[Service]:
    """The C loop; it starts to send when it reads a line. `paced`: one frame per socket and line."""
    command = (stand.floor, str(clients), str(FLOOR_BYTES), *(("paced",) if paced else ()))
    async with running(*command, log=stand.directory / "floor.log") as program:
        yield Service(program, await program.port())


@asynccontextmanager
async def starlette(stand: Stand, url: str) -> AsyncIterator[Service]:
    """The Starlette loop under uvicorn's defaults."""
    port = free_port()
    command = (sys.executable, "-m", "uvicorn", "bench.starlette_loop:app", "--port", str(port))
    async with running(
        *command,
        env=os.environ | {"BENCH_DATABASE_URL": url},
        log=stand.directory / "starlette.log",
        events=False,
        patience=2.0,
    ) as program:
        await _listening(program, port)
        yield Service(program, port)


@asynccontextmanager
async def relay(stand: Stand, url: str) -> AsyncIterator[Service]:
    """The bare relay."""
    command = (sys.executable, "-m", "bench.notify_relay")
    env = os.environ | {"BENCH_DATABASE_URL": url}
    log = stand.directory / "relay.log"
    async with running(*command, env=env, log=log, patience=2.0) as program:
        yield Service(program, await program.port())


def paths(clients: int, company: int = 1) -> list[str]:
    """The load client's plan for a server without commands, such as the Starlette loop."""
    return [f"/{uuid(company)}"] * clients


async def _listening(program: Program, port: int) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        program.check()
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            if time.monotonic() > deadline:
                raise BenchError(f"{program.name} does not listen") from None
            await asyncio.sleep(0.05)
        else:
            writer.close()
            return
