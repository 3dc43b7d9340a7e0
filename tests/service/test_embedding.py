"""The public API: a node inside Starlette, FastAPI and Django, as docs/embedding.md has them."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import re
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TypeAlias

import httpx
import pytest

from notifier.client import Message, connect
from tests.databases import Database
from tests.installed import skip
from tests.ports import free_port
from tests.service.calendars import Calendar
from tests.service.http_streams import stream
from tests.services import ROOT, SECRET, environment, token
from tests.waiting import DEADLINE_SECONDS, until

PAGE = ROOT / "docs" / "embedding.md"


def example(heading: str, number: int = 0) -> str:
    """A block of Python on the page, under its heading."""
    section = PAGE.read_text().split(f"\n## {heading}\n")[1].split("\n## ")[0]
    return str(re.findall(r"```python\n(.*?)```", section, re.DOTALL)[number])


def needs(*modules: str) -> None:
    for module in modules:
        if importlib.util.find_spec(module) is None:
            skip(f"no {module}")


class Server:
    """A server process, and where it listens."""

    def __init__(self, process: asyncio.subprocess.Process, port: int, log: Path) -> None:
        self.process, self.port, self.log = process, port, log

    async def get(self, path: str) -> httpx.Response:
        async with httpx.AsyncClient(trust_env=False, timeout=DEADLINE_SECONDS) as client:
            return await client.get(f"http://127.0.0.1:{self.port}{path}")

    async def ready(self) -> None:
        async def answers() -> bool:
            assert self.process.returncode is None, self.log.read_text()
            with suppress(httpx.TransportError):
                return (await self.get("/realtime/readyz")).is_success
            return False

        try:
            await until(answers, every=0.1)
        except TimeoutError:
            raise AssertionError(self.log.read_text()) from None

    async def stop(self) -> int:
        """Sends SIGTERM; returns the exit status."""
        with suppress(ProcessLookupError):
            self.process.terminate()
        async with asyncio.timeout(DEADLINE_SECONDS):
            return await self.process.wait()


Start: TypeAlias = Callable[..., Awaitable[Server]]


@pytest.fixture
async def start(tmp_path: Path, database: Database) -> AsyncIterator[Start]:
    """Starts a command in `tmp_path`; PORT in it stands for a free port."""
    servers: list[Server] = []

    async def run(*command: str, environ: Mapping[str, str] | None = None) -> Server:
        port = free_port()
        log = tmp_path / f"{port}.log"
        given: dict[str, object] = {
            "database_url": database.dsn,
            "jwt_secret": SECRET,
            "authorization": "employees",
        }
        with log.open("wb") as out:
            process = await asyncio.create_subprocess_exec(
                *(word.replace("PORT", str(port)) for word in command),
                cwd=tmp_path,
                env=environment(given) | {"PYTHONPATH": f"{ROOT}:{tmp_path}"} | dict(environ or {}),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,
            )
        servers.append(Server(process, port, log))
        return servers[-1]

    yield run
    for server in servers:
        # The number of one that has ended may be that of another process by now.
        if server.process.returncode is None:
            with suppress(ProcessLookupError):
                os.killpg(server.process.pid, signal.SIGKILL)
        await server.process.wait()


async def serves(server: Server, calendar: Calendar, home: str) -> None:
    """The application's page, ours, a message over a socket, and one over each form of HTTP."""
    await server.ready()
    assert home in (await server.get("/")).text
    assert "export" in (await server.get("/realtime/client.js")).text
    company = await calendar.company("u1")
    url = f"ws://127.0.0.1:{server.port}/realtime/"
    async with asyncio.timeout(DEADLINE_SECONDS):
        async with connect(url, lambda: token("u1"), company) as client:
            while client.status.state != "live":
                await anext(client)
            event = await calendar.event(company)
            async for report in client:
                if isinstance(report, Message) and report.data["EventId"] == event:
                    break
    async with httpx.AsyncClient(trust_env=False, timeout=DEADLINE_SECONDS) as http:
        answer = await http.get(
            f"http://127.0.0.1:{server.port}/realtime/companies/{company}/messages",
            headers={"Authorization": f"Bearer {token('u1')}"},
        )
    assert answer.json()["CompanyId"] == company, answer.text
    async with stream(f"http://127.0.0.1:{server.port}/realtime", "u1", company) as events:
        assert (await events.event()).message["Type"] == "SubscribeResult"
        event = await calendar.event(company)
        assert (await events.event()).message["Data"]["EventId"] == event


ONLY_DIRECTLY = """
import sys
from notifier.transport import company_messages, endpoint
endpoint.AsgiTransport = company_messages.AsgiEvents = None
"""

UVICORN = (sys.executable, "-m", "uvicorn", "--port", "PORT", "--timeout-graceful-shutdown", "5")


async def test_starlette_serves_it_on_uvicorn_gunicorn_and_hypercorn(
    start: Start, tmp_path: Path, database: Database
) -> None:
    needs("gunicorn", "hypercorn", "uvicorn_worker")
    (tmp_path / "app.py").write_text(example("Starlette"))
    gunicorn = (sys.executable, "-m", "gunicorn", "-k", "uvicorn_worker.UvicornWorker", "-b")
    hypercorn = (sys.executable, "-m", "hypercorn", "-b", "127.0.0.1:PORT")
    servers = [
        await start(*command, "app:app")
        for command in (UVICORN, (*gunicorn, "127.0.0.1:PORT"), hypercorn)
    ]
    calendar = Calendar(database)
    for server in servers:
        await serves(server, calendar, "a page of the application")
    for server in servers:
        assert await server.stop() in (0, -signal.SIGTERM), server.log.read_text()
        assert "Traceback" not in server.log.read_text()


async def test_fastapi_serves_it(start: Start, tmp_path: Path, database: Database) -> None:
    needs("fastapi")
    (tmp_path / "app.py").write_text(example("FastAPI"))
    server = await start(*UVICORN, "app:app")
    await serves(server, Calendar(database), "a page of the application")
    assert await server.stop() in (0, -signal.SIGTERM), server.log.read_text()
    assert "Traceback" not in server.log.read_text()


BEHIND_MIDDLEWARE = """
from contextlib import asynccontextmanager

from notifier import Notifier
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route

notifier, second = Notifier(), Notifier()


async def home(request):
    return PlainTextResponse("a page of the application")


async def stamp(request, call_next):
    response = await call_next(request)
    response.headers["X-Stamp"] = "1"
    return response


@asynccontextmanager
async def lifespan(app):
    async with notifier.lifespan(), second.lifespan():
        yield


app = Starlette(
    routes=[Route("/", home), Mount("/realtime", notifier), Mount("/second", second)],
    lifespan=lifespan,
    middleware=[
        Middleware(GZipMiddleware),
        Middleware(CORSMiddleware, allow_origins=["https://example.com"]),
        Middleware(BaseHTTPMiddleware, dispatch=stamp),
    ],
)
"""


async def test_two_serve_in_one_process_behind_the_middleware_of_an_application(
    start: Start, tmp_path: Path, database: Database
) -> None:
    """With frames that are written to the sockets directly."""
    (tmp_path / "app.py").write_text(BEHIND_MIDDLEWARE)
    text = example("The fast path").replace("port=8000", "port=int(sys.argv[1])")
    (tmp_path / "run.py").write_text("import sys\n" + text)
    server = await start(sys.executable, "run.py", "PORT")
    await serves(server, Calendar(database), "a page of the application")
    assert (await server.get("/second/readyz")).headers["X-Stamp"] == "1"
    assert await server.stop() in (0, -signal.SIGTERM), server.log.read_text()
    assert "Traceback" not in server.log.read_text()


async def test_django_serves_it(start: Start, tmp_path: Path, database: Database) -> None:
    needs("django")
    call_command = [sys.executable, "-m", "django", "startproject", "shop", str(tmp_path)]
    made = await asyncio.create_subprocess_exec(*call_command)
    assert await made.wait() == 0
    (tmp_path / "shop" / "asgi.py").write_text(example("Django"))
    server = await start(*UVICORN, "shop.asgi:application")
    await serves(server, Calendar(database), "The install worked successfully")
    assert await server.stop() in (0, -signal.SIGTERM), server.log.read_text()
    assert "Traceback" not in server.log.read_text()


async def test_uvicorn_with_our_options_writes_directly_and_ends_with_open_streams(
    start: Start, tmp_path: Path, database: Database
) -> None:
    (tmp_path / "app.py").write_text(example("Starlette"))
    text = example("The fast path").replace("port=8000", "port=int(sys.argv[1])")
    text = text.replace("uvicorn_options()", "uvicorn_options(events=True)")
    (tmp_path / "run.py").write_text(ONLY_DIRECTLY + text)
    server = await start(sys.executable, "run.py", "PORT")
    calendar = Calendar(database)
    await serves(server, calendar, "a page of the application")
    company = await calendar.company("u1")
    headers = {"Authorization": f"Bearer {token('u1')}", "Accept": "text/event-stream"}
    url = f"http://127.0.0.1:{server.port}/realtime/companies/{company}/messages"
    async with (
        httpx.AsyncClient(trust_env=False, timeout=DEADLINE_SECONDS) as http,
        http.stream("GET", url, headers=headers) as response,
    ):
        lines = response.aiter_lines()
        assert "SubscribeResult" in await anext(lines) + await anext(lines)
        assert await server.stop() in (0, -signal.SIGTERM), server.log.read_text()
    assert "Finished server process" in server.log.read_text()
