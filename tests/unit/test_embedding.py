"""`Notifier` without a database: its lifespan, its paths, its log and what an import of it loads."""

from __future__ import annotations

import asyncio
import logging
import subprocess
import sys
from typing import Any, NoReturn
from urllib.parse import unquote

import pytest
import structlog
from starlette.types import Message, Receive, Scope, Send

from notifier import Notifier, Settings, embedding
from notifier.errors import SettingsError
from notifier.node import Node
from tests.waiting import DEADLINE_SECONDS

URL = "postgresql://none@127.0.0.1:1/none"


@pytest.fixture
def notifier() -> Notifier:
    return Notifier(Settings(database_url=URL, jwt_secret="s" * 32))  # type: ignore[arg-type]


async def get(app: Any, path: str, **scope: Any) -> tuple[int, bytes]:
    """Status and body of a GET."""
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.request"}

    async def send(message: Message) -> None:
        sent.append(message)

    request = {"type": "http", "method": "GET", "path": path, "headers": [], "query_string": b""}
    await app({**request, **scope}, receive, send)
    return sent[0]["status"], sent[1]["body"]


async def test_without_its_lifespan_a_request_fails_with_the_remedy(notifier: Notifier) -> None:
    with pytest.raises(RuntimeError, match=r"lifespan=notifier\.lifespan"):
        await get(notifier, "/livez")
    assert notifier.problem == "not running"


async def test_it_runs_once_at_a_time_and_any_number_of_times(notifier: Notifier) -> None:
    for _ in range(2):
        async with notifier.lifespan():
            assert (await get(notifier, "/livez"))[0] == 200
            assert (await get(notifier.status, "/readyz"))[0] == 503
            assert notifier.problem
            with pytest.raises(RuntimeError, match="runs already"):
                async with notifier.lifespan():
                    pass
        with pytest.raises(RuntimeError):
            await get(notifier, "/livez")


async def test_as_the_whole_application_it_answers_lifespan_events(notifier: Notifier) -> None:
    events: asyncio.Queue[Message] = asyncio.Queue()
    answers: asyncio.Queue[Message] = asyncio.Queue()
    running = asyncio.ensure_future(
        notifier.beside(notifier, "/x")({"type": "lifespan"}, events.get, answers.put)
    )
    events.put_nowait({"type": "lifespan.startup"})
    assert (await answers.get())["type"] == "lifespan.startup.complete"
    assert (await get(notifier, "/livez"))[0] == 200
    events.put_nowait({"type": "lifespan.shutdown"})
    assert (await answers.get())["type"] == "lifespan.shutdown.complete"
    await running
    assert notifier.problem == "not running"


@pytest.mark.parametrize("root", ["", "/outer"])
async def test_beside_another_application_it_has_its_path_and_no_other(
    notifier: Notifier, root: str
) -> None:
    async def other(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 204})
        await send({"type": "http.response.body", "body": scope["path"].encode()})

    both = notifier.beside(other, path="realtime/")
    async with notifier.lifespan():
        for path, status in (
            ("/realtime", 200),
            ("/realtime/", 200),
            ("/realtime/livez", 200),
            ("/realtime/nowhere", 404),
            ("/realtimes", 204),
            ("/", 204),
            ("/livez", 204),
        ):
            assert (await get(both, root + path, root_path=root))[0] == status, path


async def test_beside_another_application_a_root_path_is_only_removed_where_it_is_one(
    notifier: Notifier,
) -> None:
    both = notifier.beside(notifier, path="/realtime")
    async with notifier.lifespan():
        assert (await get(both, "/realtime/livez", root_path="/real"))[0] == 200
        assert (await get(both, "/realtime/livez", root_path="/outer/"))[0] == 200
        messages = "/realtime/companies/a%2Fb/messages"
        for root_path, path in (
            ("", messages),
            ("/outer", messages),
            ("/outer/", messages),
            ("/o ü", messages),
            ("/outer", "/outer" + messages),
            ("/o ü", "/o%20%C3%BC" + messages),
            ("/o+ü", "/o+%c3%bc" + messages),
        ):
            scope = {"root_path": root_path, "raw_path": path.encode()}
            assert (await get(both, unquote(path), **scope))[0] == 401, scope
    for path in ("/", ""):
        with pytest.raises(ValueError, match="a path of its own"):
            notifier.beside(notifier, path=path)


async def test_a_node_that_fails_is_replaced(
    notifier: Notifier, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    runs: list[Node] = []
    second = asyncio.Event()

    async def run(self: Node) -> None:
        runs.append(self)
        if len(runs) == 1:
            raise ValueError("a fault")
        second.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(Node, "run", run)
    monkeypatch.setattr(embedding, "RESTART_SECONDS", 0)
    structlog.reset_defaults()
    caplog.set_level(logging.INFO)
    try:
        again = Notifier(Settings(database_url=URL, jwt_secret="s" * 32))  # type: ignore[arg-type]
        async with again.lifespan():
            await second.wait()
            assert (await get(again, "/livez"))[0] == 200
            assert again.problem != "going away"
    finally:
        structlog.reset_defaults()
    assert len(set(runs)) == 2
    record = next(each for each in caplog.records if each.name == "notifier.embedding")
    assert record.exc_info
    assert "another one takes its place" in record.getMessage()


async def test_a_node_that_fails_as_it_is_cancelled_is_not_replaced(
    notifier: Notifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error of one of its tasks takes the place of the cancellation: without end the application would wait for another node."""
    runs = 0
    begun = asyncio.Event()

    async def run(_: Node) -> None:
        nonlocal runs
        runs += 1
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            raise ValueError("a fault")

    monkeypatch.setattr(Node, "run", run)
    monkeypatch.setattr(embedding, "RESTART_SECONDS", 0)
    async with asyncio.timeout(DEADLINE_SECONDS), notifier.lifespan():
        await begun.wait()
    assert runs == 1


def test_an_application_that_has_configured_structlog_keeps_its_configuration(
    caplog: pytest.LogCaptureFixture,
) -> None:
    lines: list[structlog.typing.EventDict] = []

    def record(_: object, __: str, event: structlog.typing.EventDict) -> NoReturn:
        lines.append(event)
        raise structlog.DropEvent

    structlog.configure(processors=[record])
    try:
        Notifier(Settings(database_url=URL, jwt_secret="s" * 32))  # type: ignore[arg-type]
        structlog.get_logger("notifier.test").warning("a line")
    finally:
        structlog.reset_defaults()
    assert [each["event"] for each in lines] == ["a line"]
    assert caplog.records == []


def test_wrong_settings_are_refused_when_it_is_made_and_secrets_are_not_shown() -> None:
    with pytest.raises(SettingsError):
        Notifier(Settings(database_url=URL))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="database_url") as refusal:
        Settings(database_url="mysql://u:canary@h/d", port=8000)  # type: ignore[arg-type]
    assert "canary" not in str(refusal.value)


def test_a_client_imports_the_package_without_loading_the_server() -> None:
    code = (
        "import sys, notifier.client; from notifier import __version__; "
        "print({'starlette', 'uvicorn', 'asyncpg'} & sys.modules.keys()); "
        "from notifier import Notifier, Settings; print(Notifier.__module__)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[:2] == ["set()", "notifier.embedding"]
    with pytest.raises(ImportError):
        exec("from notifier import Nothing")
