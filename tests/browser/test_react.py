"""The React binding in Chromium and Firefox: examples/react, built with the packed package, and its hooks on the fake service."""

from __future__ import annotations

import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any, Protocol
from urllib.parse import urlencode
from uuid import uuid4

import pytest
from playwright.async_api import Browser, expect

from tests.browser.firefox import firefox
from tests.browser.live import Demo, Sql, Window
from tests.compilers import ROOT, lay_out, npm_packages, packed, tool
from tests.http_proxy import HttpProxy

pytestmark = pytest.mark.timeout(600)
"""The first test that needs them installs the packages of npm."""

EXAMPLE = ROOT / "examples" / "react"
OWN_LINES = 40


def run(place: Path, *command: str | Path) -> None:
    done = subprocess.run(command, cwd=place, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A directory in which the package, its development dependencies and the tests' programs find each other."""
    return lay_out(tmp_path)


class Quiet(SimpleHTTPRequestHandler):
    """Writes no log."""

    def log_message(self, *_: object) -> None:
        """Writes none."""


@pytest.fixture(scope="session")
def site(built: Path) -> Iterator[str]:
    """The address of a web server with the example: an origin of its own."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(built))) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join()


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example's files for a web server. Of Notifier it has only the package, as npm would install it."""
    place = tmp_path_factory.mktemp("react")
    installed = npm_packages() / "node_modules"
    shutil.copytree(EXAMPLE, place / "app", ignore=shutil.ignore_patterns("node_modules", "dist"))
    modules = place / "app" / "node_modules"
    modules.mkdir()
    for entry in installed.iterdir():
        (modules / entry.name).symlink_to(entry)
    with tarfile.open(packed(place)) as archive:
        archive.extractall(place, filter="data")
    (place / "package").rename(modules / "postgres-notifier")
    run(place / "app", *tool("tsc"))
    run(place / "app", *tool("vite"), "build")
    return place / "app" / "dist"


class Tab(Protocol):
    """What the tests need of a browser."""

    async def goto(self, url: str) -> None: ...

    async def shows(self, text: str) -> None: ...


class ChromiumTab:
    """A tab of Chromium."""

    def __init__(self, window: Window) -> None:
        self._page = window.page

    async def goto(self, url: str) -> None:
        await self._page.goto(url)

    async def shows(self, text: str) -> None:
        await expect(self._page.locator("body")).to_contain_text(text)


async def follows_live_offline_and_back(tab: Tab, demo: Demo, sql: Sql, site: str) -> None:
    """In StrictMode, which renders and connects twice."""
    name = uuid4().hex
    async with HttpProxy(int(demo.page.rstrip("/").rpartition(":")[2])) as proxy:
        given = {"url": proxy.url, "company": demo.company, "token": demo.token("ann")}
        await tab.goto(f"{site}?{urlencode(given)}")
        await tab.shows("live · websocket")
        await sql.event(f"Seen {name}")
        await tab.shows(f"Seen {name}")
        assert len(proxy.requests) == 1, "the first of both connections was never opened"

        # Offline.
        await proxy.refuse()
        await tab.shows("waiting · ")
        await sql.event(f"Missed {name}")
        await tab.shows(f"Seen {name}")
        proxy.blocks = True
        await proxy.accept()
        await tab.shows(f"Missed {name}")
        await tab.shows("live · sse")
        proxy.blocks = False
        await tab.shows("live · websocket")


async def test_a_react_app_shows_a_companys_events_live_offline_and_back(
    browser: Browser, demo: Demo, sql: Sql, site: str
) -> None:
    own = (EXAMPLE / "src" / "main.tsx").read_text().splitlines()
    assert len(own) < OWN_LINES
    window = await Window.new(browser)
    await follows_live_offline_and_back(ChromiumTab(window), demo, sql, site)
    assert window.faults == []


async def test_it_does_the_same_in_firefox(
    demo: Demo, sql: Sql, site: str, hooks: str, tmp_path: Path
) -> None:
    async with firefox(tmp_path) as tab:
        await follows_live_offline_and_back(tab, demo, sql, site)
        assert_passed(await tab.evaluate(f"(() => {{ {hooks}; return globalThis.results; }})()"))
        assert tab.faults == []


@pytest.fixture
def hooks(project: Path) -> str:
    """The script of hooks.jsx, whose result is the promise `globalThis.results`."""
    run(
        project,
        *tool("esbuild"),
        "tests/javascript/hooks.jsx",
        *("--bundle", "--format=iife", "--jsx=automatic", "--outfile=hooks.js"),
        '--define:process.env.NODE_ENV="development"',
        "--log-level=error",
    )
    return (project / "hooks.js").read_text()


def assert_passed(results: Any) -> None:
    assert not results["failed"], "\n".join(results["failed"])
    assert results["count"] > 0


async def test_the_hooks_follow_their_props_and_callbacks_in_strict_mode(
    browser: Browser, demo: Demo, hooks: str
) -> None:
    window = await Window.new(browser)
    await window.page.goto(f"{demo.page}livez")
    await window.page.add_script_tag(content=hooks)
    assert_passed(await window.page.evaluate("globalThis.results"))
    assert window.faults == []
