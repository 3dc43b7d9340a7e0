"""One demo and one Chromium for all tests, whose event loop they share, and new contexts for each."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

import pytest
import pytest_asyncio
from playwright.async_api import Browser, async_playwright, expect

from tests import scratch
from tests.browser.live import ARGUMENTS, CHROMIUM, Demo, Sql, Window
from tests.installed import skip
from tests.waiting import DEADLINE_SECONDS

Open: TypeAlias = Callable[..., Awaitable[Window]]

expect.set_options(timeout=1000 * DEADLINE_SECONDS)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.browser)
            item.add_marker(pytest.mark.asyncio(loop_scope="session"), append=False)


@pytest.fixture(scope="session")
def demo() -> Iterator[Demo]:
    """Shared: each test writes what it needs and does not depend on the others."""
    with scratch.directory() as directory:
        running = Demo(directory)
        running.start()
        yield running
        running.stop()
        assert "Traceback" not in running.log(), running.log()


@pytest.fixture
def sql(demo: Demo) -> Sql:
    return Sql(demo)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def chromium() -> AsyncIterator[Browser]:
    if not CHROMIUM.exists():
        skip(f"there is no {CHROMIUM}; set CHROMIUM= to another path")
    async with async_playwright() as playwright:
        running = await playwright.chromium.launch(
            executable_path=CHROMIUM, args=ARGUMENTS, timeout=1000 * DEADLINE_SECONDS
        )
        yield running
        await running.close()


@pytest_asyncio.fixture(loop_scope="session")
async def browser(chromium: Browser) -> AsyncIterator[Browser]:
    """Chromium without contexts; those that the test opens are closed at its end."""
    yield chromium
    for context in chromium.contexts:
        await context.close()


@pytest_asyncio.fixture(loop_scope="session")
async def window(browser: Browser, demo: Demo) -> AsyncIterator[Open]:
    """Opens windows: `await window("ben")`. No page may violate its policy or throw an error."""
    windows: list[Window] = []

    async def open_one(user: str = "ann", **options: Any) -> Window:
        opened = await Window.open(browser, demo, user, **options)
        windows.append(opened)
        return opened

    yield open_one
    assert [fault for opened in windows for fault in opened.faults] == []
