"""`notifier demo --nodes 3`: three nodes, a NATS server between them, and nothing left at the end."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import suppress
from functools import partial
from pathlib import Path

import asyncpg
import httpx
import pytest
from websockets.asyncio.client import connect

from tests import scratch
from tests.clients import Client
from tests.services import ROOT
from tests.waiting import until

INSERT = "INSERT INTO events (company_id, title, starts_at, ends_at) VALUES ($1, $2, now(), now())"


async def printed(process: asyncio.subprocess.Process) -> list[str]:
    """The lines up to the last one that it prints at its start."""
    assert process.stdout is not None
    lines: list[str] = []
    while not lines or not lines[-1].startswith("stop: "):
        line = await process.stdout.readline()
        assert line, f"the demo ended: {lines}"
        lines.append(line.decode().rstrip())
    return lines


async def follows_nats(url: str) -> bool:
    """Whether this node receives its messages by way of NATS."""
    with suppress(httpx.TransportError):
        async with httpx.AsyncClient() as client:
            metrics = await client.get(url.replace("ws://", "http://") + "metrics")
        return 'notifier_stream_path{path="nats"} 1.0' in metrics.text
    return False


def children(pid: int) -> list[int]:
    """The processes that it has started."""
    tasks = Path("/proc", str(pid), "task").glob("*/children")
    return [int(child) for task in tasks for child in task.read_text().split()]


def exists(pid: int) -> bool:
    return Path("/proc", str(pid)).exists()


@pytest.fixture
async def demo() -> AsyncIterator[asyncio.subprocess.Process]:
    """The demo with three nodes. When a test fails, its processes end with it."""
    with scratch.directory() as directory:
        kept = {name: text for name, text in os.environ.items() if not name.startswith("NOTIFIER_")}
        arguments = ["demo", "--nodes", "3", "--port", "0", "--data", str(directory / "data")]
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "notifier", *arguments),
            cwd=directory,
            env=kept | {"PYTHONPATH": str(ROOT)},
            stdout=asyncio.subprocess.PIPE,
            start_new_session=True,
        )
        yield process
        if process.returncode is None:
            process.terminate()
            await process.wait()


async def test_each_of_three_nodes_sends_a_change_and_none_outlives_the_demo(
    demo: asyncio.subprocess.Process,
) -> None:
    lines = await printed(demo)
    values = dict(line.split(": ", 1) for line in lines)
    urls = [found[0] for line in lines if (found := re.findall(r"--url (ws://\S+)", line))]
    assert len(set(urls)) == 3
    for url in urls:
        await until(partial(follows_nats, url))
    clients = [Client(await connect(url)) for url in urls]
    for client in clients:
        await client.authenticate(token=values["token"])
        await client.set_company(values["company"])
    connection = await asyncpg.connect(values["database"])
    await connection.execute(INSERT, values["company"], "Coffee")
    await connection.close()
    received = [await client.next("EventCreated") for client in clients]
    assert {each["Data"]["Title"] for each in received} == {"Coffee"}
    assert len({each["Position"] for each in received}) == 1
    started = children(demo.pid)
    assert len(started) >= 4  # PostgreSQL, NATS, two nodes, and their guards
    demo.send_signal(signal.SIGTERM)
    assert await demo.wait() == 0
    assert not [pid for pid in started if exists(pid)]
